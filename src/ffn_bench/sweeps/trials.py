"""What a tuning tries for one combination, with which results, and which setting that chooses."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ffn_bench import tags
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.run_folder import reading
from ffn_bench.sweeps.planning import Planned
from ffn_bench.sweeps.search_space import Setting


@dataclass
class Trial:
    """A setting of the search, and its runs, one for each tuning seed."""

    setting: Setting
    plans: list[Planned]

    def score(self) -> tuple[float, float] | None:
        """Means of what the runs monitored, at the best epoch, and of the validation losses there; None where
        one failed."""
        scores, losses = [], []
        for planned in self.plans:
            summary = planned.summary() or {}
            score, loss = (value_of(summary, tag) for tag in (planned.run.monitored, tags.LOSS.tag("val")))
            if score is None:
                return None
            scores.append(score)
            losses.append(math.inf if loss is None else loss)
        return statistics.fmean(scores), statistics.fmean(losses)


@dataclass
class Choice:
    """What the search of one combination came to."""

    setting: Setting | None
    """None where nothing was measured."""
    score: float = math.nan
    """The mean over the tuning seeds of what is monitored, at the best epoch."""
    tally: Counter[str] = dataclasses.field(default_factory=Counter)
    """How many of the search's runs ended how."""
    edge: tuple[str, str, str] | None = None
    """The rate, and the lowest and highest that were tried, where it is one of them."""


@dataclass(kw_only=True)
class Combination:
    """What is tuned by itself: an optimizer, on one data set and whatever else was swept."""

    base: tuple[str, ...]
    optimizer: str
    shown: dict[str, str]
    tuned: frozenset[str]
    """Keys that a search may set, this one's or another's."""
    trials: list[Trial]
    default: list[Planned]
    study: Any = None
    """Optuna's, where it searches."""
    final: list[Planned] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """What to call it in a line."""
        return " ".join(v if k == "optimizer" else f"{k}={v}" for k, v in self.shown.items())

    @property
    def task(self) -> tags.Task:
        """What its networks are trained for."""
        return (self.default or self.final)[0].run.task

    @property
    def monitored(self) -> str:
        """The tag by which a setting is chosen."""
        return (self.default or self.final)[0].run.monitored

    def choose(self) -> Choice:
        """The trial of best score, then of lower loss, then the first."""
        tally = Counter(planned.status_and_summary()[0] for t in self.trials for planned in t.plans)
        scored = [(t, score) for t in self.trials if (score := t.score()) is not None]
        if not scored:
            return Choice(None, tally=tally)
        sign = tags.quantity(self.monitored).sign
        best, (mean, _) = min(scored, key=lambda one: (-sign * one[1][0], one[1][1]))
        rates = {t.plans[0].run.lr for t, _ in scored}
        lr = best.plans[0].run.lr
        edge = None
        if len(rates) > 1 and lr in (min(rates), max(rates)):
            edge = (f"{lr:g}", f"{min(rates):g}", f"{max(rates):g}")
        return Choice(best.setting, mean, tally, edge)

    def is_same(self, noted: Mapping[str, Any]) -> bool:
        """Whether a run of this configuration is of this combination, whatever its seed and tuned keys."""

        def rest(flat: Mapping[str, Any]) -> dict[str, Any]:
            skipped = {*fingerprint.NOT_RESULTS, *self.tuned, "seed"}
            return {key: value for key, value in flat.items() if key not in skipped}

        own = json.loads(json.dumps(schema.flatten(self.default[0].run)))
        return rest(own) == rest(noted)


def value_of(summary: Mapping[str, Any], tag: str) -> float | None:
    """What `reading.score_of` says of a run that came to its end, None of any other."""
    return reading.score_of(summary, tag) if summary.get("status") in reading.ENDED else None
