"""From runs to results: which setting of a competitor was chosen, and what its runs come to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import Axes, short, shown
from ffn_bench.compare.statistics import Array
from ffn_bench.run_folder.recorded_run import RecordedRun
from ffn_bench.tags import quantity

Seed = tuple[Any, Any]
"""What two runs must have in common to be a pair: see `RecordedRun.seed`."""
Setting = tuple[tuple[str, Any], ...]

BY_CHANCE = 20
"""Measured numbers below which two runs may agree in all of them by chance."""


@dataclass(frozen=True)
class Result:
    """What a run comes to, at the epoch that validation chose and at the end."""

    selected: float
    """The validation metric at the chosen epoch; NaN without a validation set."""
    best: float
    """The metric at the chosen epoch; infinitely bad if the run failed, NaN if it was not measured."""
    end: float
    epoch: float


def result_of(run: RecordedRun, metric: str, selecting: str) -> Result:
    """Look a run's result up in its curves."""
    if run.failed:
        lost = -math.inf if quantity(metric).higher_is_better else math.inf
        return Result(quantity(selecting).worst, lost, lost, math.nan)
    curve, chooser = run.curves.get(metric), run.curves.get(selecting)
    if curve is None:
        return Result(math.nan, math.nan, math.nan, math.nan)
    values = statistics.worst_filled(curve.values, metric)
    if chooser is None:
        return Result(math.nan, float(values[-1]), float(values[-1]), float(curve.epochs[-1]))
    scores = statistics.worst_filled(chooser.values, selecting)
    at = int(np.argmax(scores) if quantity(selecting).higher_is_better else np.argmin(scores))
    same = np.flatnonzero(curve.steps == chooser.steps[at])
    best = float(values[same[0]]) if len(same) else math.nan
    return Result(float(scores[at]), best, float(values[-1]), float(chooser.epochs[at]))


@dataclass(frozen=True)
class Trial:
    """A setting that was tried: its runs, one a seed, and their mean score on validation, failures
    included."""

    setting: Setting
    runs: list[RecordedRun]
    score: float


@dataclass
class Cell:
    """A competitor on a workload."""

    trials: list[Trial]
    setting: Setting
    """What was chosen."""
    runs: dict[Seed, RecordedRun]
    """Of the chosen setting, to report: all that finished or failed, by seed."""
    running: list[RecordedRun]
    """Of the chosen setting: still training."""
    default: dict[Seed, RecordedRun]
    """Of the default setting."""
    choices: int
    """Settings among which the reported seeds themselves have chosen; 1 where other seeds did."""
    incomplete: int
    """Settings that could not be chosen, as they have fewer seeds than others."""
    twice: int = 0
    """Runs that are left out, as another one has their seed."""
    results: dict[Seed, Result] = field(default_factory=dict)
    default_results: dict[Seed, Result] = field(default_factory=dict)
    times: dict[str, Array] = field(default_factory=dict)
    """To the target, in each of `AXES_OF_TIME`; ∞ where it was missed."""
    edges: list[str] = field(default_factory=list)

    def values(self, name: str) -> Array:
        """`selected`, `best` or `end` of every run to report."""
        return np.asarray([getattr(result, name) for result in self.results.values()], dtype=float)


def cell_of(runs: Sequence[RecordedRun], axes: Axes, metric: str, selecting: str) -> Cell:
    """Choose the setting on validation, and find the runs to report."""
    stages: dict[Any, list[RecordedRun]] = defaultdict(list)
    for run in runs:
        stages[run.config.get("stage")].append(run)
    trials = _trials(stages["tune"] or [*stages[None], *stages["final"]], axes, metric, selecting)
    higher = quantity(selecting).higher_is_better

    def preference(trial: Trial) -> float:
        known = not math.isnan(trial.score)
        return (trial.score if higher else -trial.score) if known else -math.inf

    scores = {trial.setting: preference(trial) for trial in trials}
    measured = _trials(stages["final"], axes, metric, selecting) if stages["tune"] else []
    incomplete = 0
    if measured:
        chosen = max(measured, key=lambda t: (scores.get(t.setting, -math.inf), len(t.runs)))
        searching = {run.seed for trial in trials for run in trial.runs}
        choices = len(trials) if searching & {run.seed for run in chosen.runs} else 1
    else:
        most = max(len({run.seed for run in trial.runs}) for trial in trials)
        complete = [trial for trial in trials if len({run.seed for run in trial.runs}) == most]
        chosen = max(complete, key=preference)
        choices, incomplete = len(trials), len(trials) - len(complete)
    cell = Cell(
        trials,
        chosen.setting,
        _by_seed(chosen.runs, metric, selecting),
        [run for run in chosen.runs if run.status == "running"],
        _by_seed(stages["default"], metric, selecting),
        choices,
        incomplete,
    )
    cell.twice = sum(run.status != "running" for run in chosen.runs) - len(cell.runs)
    cell.results = {seed: result_of(run, metric, selecting) for seed, run in cell.runs.items()}
    cell.default_results = {seed: result_of(run, metric, selecting) for seed, run in cell.default.items()}
    cell.edges = _edges(cell, axes)
    return cell


def _by_seed(runs: Sequence[RecordedRun], metric: str, selecting: str) -> dict[Seed, RecordedRun]:
    """One run a seed, in the order of seeds: of several one that ended, and of these the worst, so that no
    copy under another name can improve a result."""
    sign = quantity(metric).sign

    def preferred(run: RecordedRun) -> tuple[bool, float, Path]:
        best = sign * result_of(run, metric, selecting).best
        return not run.ended, math.inf if math.isnan(best) else best, run.folder

    over = sorted((run for run in runs if run.status != "running"), key=preferred)
    chosen: dict[Seed, RecordedRun] = {}
    for run in over:
        chosen.setdefault(run.seed, run)
    return dict(sorted(chosen.items(), key=lambda item: tuple(x or 0 for x in item[0])))


def _trials(runs: Sequence[RecordedRun], axes: Axes, metric: str, selecting: str) -> list[Trial]:
    settings: dict[Setting, list[RecordedRun]] = defaultdict(list)
    for run in runs:
        settings[axes.setting(run)].append(run)
    trials = []
    for setting, members in settings.items():
        scores = [
            result_of(run, metric, selecting).selected
            for run in _by_seed(members, metric, selecting).values()
        ]
        trials.append(Trial(setting, members, float(np.mean(scores)) if scores else math.nan))
    return trials


def _edges(cell: Cell, axes: Axes) -> list[str]:
    """Tuned numbers whose chosen value is the smallest or largest tried."""
    edges = []
    for key, value in cell.setting:
        tried = sorted(
            {
                v
                for trial in cell.trials
                for k, v in trial.setting
                if k == key and isinstance(v, (int, float)) and not isinstance(v, bool)
            }
        )
        if len(tried) >= 3 and value in (tried[0], tried[-1]):
            which = "smallest" if value == tried[0] else "largest"
            edges.append(f"{short(key)} {shown(value)} is the {which} of {len(tried)} tried")
    return edges


def drop(cells: Sequence[Cell], seeds: set[Seed]) -> None:
    """Take runs out that repeat others."""
    for cell in cells:
        for seed in seeds & cell.runs.keys():
            del cell.runs[seed], cell.results[seed]


def repeats(cells: Sequence[Cell]) -> set[Seed]:
    """Seeds at which every run measured what it measured at an earlier seed, bit for bit: a run
    counted twice.

    Cells are the workloads of one competitor; where they have no seed in common, each is checked by itself.

    It happens where the seed decides nothing, or where folders were copied. Short curves on a coarse grid
    agree by chance; fewer than `BY_CHANCE` numbers are no evidence.
    """
    if len(cells) > 1 and not set.intersection(*(set(cell.runs) for cell in cells)):
        return set().union(*(repeats([cell]) for cell in cells))
    repeated: set[Seed] = set()
    seen: set[tuple[Any, ...]] = set()
    for seed in (s for s in cells[0].runs if all(s in cell.runs for cell in cells)):
        curves = [(k, tag, c) for k, cell in enumerate(cells) for tag, c in cell.runs[seed].curves.items()]
        if sum(len(curve.values) for _, _, curve in curves) < BY_CHANCE:
            continue
        content = tuple((k, tag, curve.values.tobytes()) for k, tag, curve in curves)
        if content in seen:
            repeated.add(seed)
        seen.add(content)
    return repeated
