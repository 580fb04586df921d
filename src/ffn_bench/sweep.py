"""A sweep: all its runs composed and checked before the first trains, one folder each, a leaderboard."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import RangeSweep
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from ffn_bench import config, console, runs
from ffn_bench.errors import UserError, explain
from ffn_bench.train import build, train


class RunFailed(UserError):
    """Stands for a run's exception once that has been shown; it ends the command with status 1."""

    def __init__(self, name: str) -> None:
        super().__init__("sweep", f"run {name} failed", "its train.log tells more", status=1)


def plan(master: DictConfig, context: HydraContext) -> dict[tuple[str, ...], DictConfig]:
    """Every run of a sweep of Hydra's basic sweeper, overrides → composed configuration, all checked.

    Creates nothing. Raises `UserError` at the first run that could not be trained.
    """
    arguments = list(OmegaConf.to_container(master.hydra.overrides.task) or [])
    parser = OverridesParser.create(config_loader=context.config_loader)
    overrides = parser.parse_overrides([str(a) for a in arguments])
    total, limit = 1, int(master.max_runs)
    for override in overrides:
        steps = override.value()
        if isinstance(steps, RangeSweep) and _length(steps) > limit:  # before its values are written out
            what = f"the sweep has at least {_length(steps):,} runs, the limit is {limit:,}"
            raise UserError("max_runs", what, "raise max_runs")
        if override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
            key = override.get_key_element()
            if len(set(values)) < len(values):
                repeated = next(v for v in values if values.count(v) > 1)
                raise UserError(key, f"{repeated} is there twice", "give each value once")
            if not values or "" in values:
                raise UserError(key, "an empty value is to be swept", "give values between the commas")
            total *= len(values)
    if total > limit:
        raise UserError("max_runs", f"the sweep has {total:,} runs, the limit is {limit:,}", "raise max_runs")

    jobs = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
    planned: dict[tuple[str, ...], DictConfig] = {}
    folders: dict[str, str] = {}
    sweep_folder = Path(master.hydra.sweep.dir)
    runs.check_folder(sweep_folder, None)
    for job in jobs:
        cfg = compose(master, context, job)
        run = config.parse(cfg)
        build(run)
        name = str(cfg.hydra.sweep.subdir)
        runs.check_folder(sweep_folder / name, run)
        if name in folders:
            raise UserError("sweep", f"{folders[name]} and {' '.join(job)} are the same run", "give it once")
        folders[name] = " ".join(job)
        planned[tuple(job)] = cfg
    return planned


def _length(steps: RangeSweep) -> int:
    """Number of values of a range(start, stop, step)."""
    if steps.start is None or steps.stop is None:
        return 0
    return math.ceil((steps.stop - steps.start) / steps.step)


def compose(master: DictConfig, context: HydraContext, job: Sequence[str]) -> DictConfig:
    """One run's configuration."""
    return context.config_loader.load_sweep_config(master, list(job))


def launch(
    master: DictConfig,
    context: HydraContext,
    jobs: Sequence[Sequence[str]],
    first: int,
    planned: dict[tuple[str, ...], DictConfig],
) -> list[JobReturn]:
    """Train the runs one after the other, going on past one that fails; then show the leaderboard."""
    setup_globals()
    configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    folder = Path(str(master.hydra.sweep.dir))
    settings = [dict(o.split("=", 1) for o in filter_overrides(job) if "=" in o) for job in jobs]
    varied = varied_keys(settings)
    names = [" ".join(f"{k}={s[k]}" for k in varied if k in s) or "run" for s in settings]
    view = console.SweepView(names, folder)
    returns: list[JobReturn] = []
    summaries: list[dict[str, Any] | None] = []
    try:
        for number, job in enumerate(jobs):
            cfg = planned.get(tuple(job)) or compose(master, context, job)
            with open_dict(cfg):
                cfg.hydra.job.id = cfg.hydra.job.num = first + number
            result = run_job(
                task_function=partial(train, view=view),
                config=cfg,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=context,
            )
            if result.status == JobStatus.FAILED:
                error = result._return_value
                mistake = explain(error)
                view.failed(str(mistake) if mistake else f"{type(error).__name__}: {error}")
                result.return_value = RunFailed(names[number])
            returns.append(result)
            summaries.append(runs.read_summary(folder / str(cfg.hydra.sweep.subdir)))
    finally:
        view.finish()
        if returns:
            rows, keys, seeds = leaderboard(settings[: len(returns)], summaries)
            console.show_leaderboard(view.console, rows, keys, seeds)
            failures = [n for n, r in zip(names, returns, strict=False) if r.status == JobStatus.FAILED]
            view.closing(len(names), len(returns), failures)
    return returns


def varied_keys(settings: Sequence[dict[str, str]]) -> list[str]:
    """The keys whose value is not the same in every run, in the order they were given."""
    keys = dict.fromkeys(k for s in settings for k in s)
    return [k for k in keys if len({s.get(k) for s in settings}) > 1]


def leaderboard(
    settings: Sequence[dict[str, str]], summaries: Sequence[dict[str, Any] | None]
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """Rows of runs that differ in their seed only, best mean validation accuracy first, and the swept keys.

    A setting with a run that did not finish ranks behind all settings whose runs all did: such a run has no
    accuracy to average, and leaving it out would flatter the setting.
    """
    varied = varied_keys(settings)
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
                "val": _mean_std([c.get("accuracy/val") for c in chosen]),
                "test": _mean_std([c.get("accuracy/test") for c in chosen]),
                "epoch": _mean_std([c["epoch"] for c in chosen]),
                "seconds": _mean_std([m["train_seconds"] for m in good]),
            }
        )

    def rank(row: dict[str, Any]) -> tuple[bool, float]:
        score = row["val"][0] if math.isfinite(row["val"][0]) else row["test"][0]
        return bool(row["bad"]), -score if math.isfinite(score) else math.inf

    return sorted(rows, key=rank), keys, seeds


def _mean_std(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there is nothing to average, or one value only."""
    numbers = [v for v in values if v is not None]
    if not numbers:
        return math.nan, math.nan
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else math.nan
