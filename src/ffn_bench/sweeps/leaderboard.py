"""Ranks the settings of a sweep, from its runs' summaries."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import filter_overrides

from ffn_bench import tags


def varied_keys(settings: Sequence[dict[str, str]]) -> list[str]:
    """The keys whose value is not the same in every run, in the order they were given."""
    keys = dict.fromkeys(k for s in settings for k in s)
    return [k for k in keys if len({s.get(k) for s in settings}) > 1]


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """The overrides of a run of a sweep, but for Hydra's own keys."""
    return dict(o.split("=", 1) for o in filter_overrides(overrides) if "=" in o)


def names_of(settings: Sequence[dict[str, str]]) -> list[str]:
    """What tells each run from the others: its values of the varied keys."""
    varied = varied_keys(settings)
    return [" ".join(f"{k}={s[k]}" for k in varied if k in s) or "run" for s in settings]


def leaderboard(
    settings: Sequence[dict[str, str]],
    summaries: Sequence[dict[str, Any] | None],
    task: tags.Task = "classification",
    same_loss: bool | None = None,
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """Rows of runs of a task that differ in their seed only, best mean score first, and the swept keys.

    The score is what all runs monitored, at the best epoch; where they monitored several, the task's primary
    one on validation, as where that is a loss and they have different ones. `same_loss` says whether they
    have the same; None: if no key of the loss varies.

    A setting with a run that did not finish ranks behind all settings whose runs all did: such a run has no
    score to average, and leaving it out would flatter the setting. Equals stay in the order of the runs.
    """
    varied, primary = varied_keys(settings), tags.PRIMARY[task]
    tag = monitored([summary for summary in summaries if summary], task)
    if tags.quantity(tag) is tags.LOSS and not (is_one_loss(varied) if same_loss is None else same_loss):
        tag = primary.tag("val")
    seeds = "seed" in varied
    keys = [k for k in varied if k != "seed"]
    groups: dict[tuple[str | None, ...], list[dict[str, Any] | None]] = {}
    for setting, summary in zip(settings, summaries, strict=True):
        groups.setdefault(tuple(setting.get(k) for k in keys), []).append(summary)

    rows = []
    for values, members in groups.items():
        good = [m for m in members if m and m["status"] == "finished"]
        bad: dict[str, int] = {}
        for member in members:
            status = member["status"] if member else "missing"
            if status != "finished":
                bad[status] = bad.get(status, 0) + 1
        chosen = [m["best"] or {**m["final"], "epoch": m["epochs"]} for m in good]
        rows.append(
            {
                "settings": dict(zip(keys, values, strict=True)),
                "runs": len(members),
                "bad": ", ".join(f"{n} {status}" for status, n in bad.items()),
                "tag": tag,
                "primary": primary,
                "score": _mean_std([c.get(tag) for c in chosen]),
                "val": _mean_std([c.get(primary.tag("val")) for c in chosen]),
                "test": _mean_std([c.get(primary.tag("test")) for c in chosen]),
                "epoch": _mean_std([c["epoch"] for c in chosen]),
                "seconds": _mean_std([m["train_seconds"] for m in good]),
            }
        )

    def rank(row: dict[str, Any]) -> tuple[bool, float]:
        score = score_of(row)
        sign = tags.quantity(tag).sign
        return bool(row["bad"]), -sign * score if math.isfinite(score) else math.inf

    return sorted(rows, key=rank), keys, seeds


def monitored(summaries: Sequence[dict[str, Any]], task: tags.Task) -> str:
    """The tag that runs of a task are ranked by."""
    default = tags.PRIMARY[task].tag("val")
    named = {summary["monitor"] or default for summary in summaries if "monitor" in summary}
    return named.pop() if len(named) == 1 else default


def is_one_loss(keys: Sequence[str]) -> bool:
    """Whether runs that differ in these keys have losses that can be compared."""
    return not any(key.partition(".")[0] == "loss" for key in keys)


def score_of(row: dict[str, Any]) -> float:
    """The mean that a row ranks by, of its runs that finished: what they monitored, else the score on test;
    NaN without."""
    return float(row["score"][0] if math.isfinite(row["score"][0]) else row["test"][0])


def _mean_std(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there is nothing to average, or one value only."""
    numbers = [v for v in values if v is not None]
    if not numbers:
        return math.nan, math.nan
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else math.nan
