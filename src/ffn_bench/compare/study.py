"""The comparison as numbers: the ranking, how certain it is, how fast each one is. Writes nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import Axes
from ffn_bench.compare.curves import AXES_OF_TIME, Band, band_of
from ffn_bench.compare.pairs import Entrant, Pair, all_pairs, pair_of, proportions_won, scores_of
from ffn_bench.compare.results import Cell, cell_of, drop, repeats
from ffn_bench.compare.statistics import Array, Interval
from ffn_bench.compare.targets import reach, targets_of
from ffn_bench.configuration.schema import LOSS_OF_TASK, LossConfig, default_output, flatten
from ffn_bench.errors import UserError, nearest, printable
from ffn_bench.run_folder.recorded_run import RecordedRun
from ffn_bench.tags import LOSS, PRIMARY, quantity

PROFILE_WORKLOADS, RANK_WORKLOADS = 4, 5
"""Workloads from which on there are performance profiles, and Friedman's test."""
SEARCHED = "tuned"
"""As `candidate`: the one with the best score in the search, whose seeds are not reported."""


@dataclass(frozen=True)
class Competitor:
    """Everything about one thing that is compared, over all workloads."""

    name: str
    cells: dict[str, Cell]
    proportion: float
    """Mean proportion of seeds won against the others; NaN where it is in no pair."""
    test: Interval
    """Median of the metric at the chosen epoch; over several workloads the mean of their medians."""
    validation: float
    """The mean on validation, failed runs at chance; NaN where none finished. (A leaderboard's mean is of
    the runs that finished.)"""
    end: Interval
    described: dict[str, float]
    """The metric at the chosen epoch by mean, median and IQM, failed runs at chance."""
    times: dict[str, Interval]
    """Medians to the target, over the workloads that have one."""
    gap: float
    """The optimality gap to the target, on validation."""
    failures: Interval
    """Proportion of all its runs, tuning included, that failed."""
    failed: tuple[int, int]
    default: Interval
    against_default: Pair | None
    """Tuned against default settings: counts, about which nothing is claimed."""
    repeated: int
    """Seeds that repeat another one bit by bit."""

    @property
    def runs(self) -> list[RecordedRun]:
        """That are reported."""
        return [run for cell in self.cells.values() for run in cell.runs.values()]

    @property
    def n(self) -> int:
        """How many these are."""
        return len(self.runs)


@dataclass(frozen=True)
class Study:
    """The comparison. `competitors` are ranked, best first; those that lack a workload stand last."""

    axes: Axes
    metric: str
    selecting: str
    """The metric on validation by which settings and epochs are chosen."""
    aggregate: str
    """Of the curves."""
    competitors: list[Competitor]
    complete: int
    """How many of them, the first ones, have runs on every workload and are in pairs."""
    workloads: list[str]
    pairs: list[Pair]
    against_defaults: dict[str, Pair]
    """The tuned leader against each other competitor's default settings, by the other's name: counts, about
    which nothing is claimed. The leader was chosen by these results, so their p-values would not be valid."""
    candidate: str | None
    searched: bool
    """Whether the search chose the candidate, and not a person."""
    running: int
    """Runs that are still training: nothing is claimed before they end."""
    targets: dict[str, float]
    """By workload."""
    target_of: str
    """Where the targets are from, in words."""
    scores: Array | None
    """Performance ratios r `[workloads, competitors]`, where there are workloads enough."""
    ranks: statistics.Ranks | None
    runs: list[RecordedRun]
    notes: list[str]
    """What a reader must know besides; filled in by `notes`."""

    @property
    def higher(self) -> bool:
        """Whether larger numbers of the metric are better."""
        return quantity(self.metric).higher_is_better

    @property
    def leader(self) -> Competitor:
        """The one the verdict is about: the candidate named beforehand, else the first."""
        return next((c for c in self.competitors if c.name == self.candidate), self.competitors[0])

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of these two, seen from the first."""
        pair = next((p for p in self.pairs if {p.first, p.second} == {a, b}), None)
        return pair and pair.seen_from(a)

    @functools.cached_property
    def bands(self) -> dict[str, dict[str, dict[str, Band]]]:
        """Curves over seeds by workload, tag and competitor."""
        tags = dict.fromkeys((LOSS.tag("train"), self.selecting, self.metric))
        bands: dict[str, dict[str, dict[str, Band]]] = {w: {tag: {} for tag in tags} for w in self.workloads}
        for competitor in self.competitors:
            for workload, cell in competitor.cells.items():
                for tag in tags:
                    band = band_of([*cell.runs.values(), *cell.running], tag, self.aggregate)
                    if band is not None:
                        bands[workload][tag][competitor.name] = band
        return bands


def analyse(
    runs: Sequence[RecordedRun],
    axes: Axes,
    metric: str | None = None,
    aggregate: str = "iqm",
    reference: str | None = None,
    target: float | None = None,
    candidate: str | None = None,
) -> Study:
    """All numbers of the comparison, by default of the primary score of the runs' task on test.

    Raises `UserError` for a metric, reference, candidate or tuning that cannot be.
    """
    metric, selecting = _metrics(runs, metric_of(runs, metric), axes)
    if aggregate not in statistics.AGGREGATES:
        known = ", ".join(statistics.AGGREGATES)
        raise UserError("aggregate", f"{aggregate!r} is not known", f"use one of: {known}")
    grouped: dict[str, dict[str, list[RecordedRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        grouped[axes.competitor(run)][axes.workload(run)].append(run)
    workloads = sorted({w for of_competitor in grouped.values() for w in of_competitor})
    cells = {
        name: {w: cell_of(of_competitor[w], axes, metric, selecting) for w in workloads if w in of_competitor}
        for name, of_competitor in grouped.items()
    }
    repeated = {}
    for name, of_competitor in cells.items():
        repeated_seeds = repeats([*of_competitor.values()])
        drop([*of_competitor.values()], repeated_seeds)
        repeated[name] = len(repeated_seeds)
    searched = candidate == SEARCHED and SEARCHED not in cells
    candidate = _candidate(candidate, cells, selecting)
    targets, target_of = targets_of(cells, workloads, selecting, reference, target)
    for of_competitor in cells.values():
        for workload, cell in of_competitor.items():
            reach(cell, selecting, targets.get(workload, math.nan))

    entrants = {}
    for name, of_competitor in cells.items():
        if len(of_competitor) == len(workloads) and all(cell.runs for cell in of_competitor.values()):
            entrants[name] = _entrant(name, of_competitor, metric)
    if candidate is not None and candidate not in entrants:
        what = f"{candidate} has no result on every workload"
        raise UserError("candidate", what, "name one that has, or leave it out")
    pairs = all_pairs([*entrants.values()], workloads, metric, candidate)
    proportions = proportions_won([*cells], pairs)
    sign = quantity(metric).sign

    def rank(c: Competitor) -> tuple[bool, float, float, str]:
        proportion = -c.proportion if math.isfinite(c.proportion) else math.inf
        middle = -sign * c.test.estimate if not math.isnan(c.test.estimate) else math.inf
        return c.name not in entrants, proportion, middle, c.name

    competitors = [
        _competitor(
            name, cells[name], grouped[name], metric, selecting, targets, proportions[name], repeated[name]
        )
        for name in cells
    ]
    competitors.sort(key=rank)
    position = {c.name: k for k, c in enumerate(competitors)}
    pairs = [p if position[p.first] < position[p.second] else p.seen_from(p.second) for p in pairs]
    pairs.sort(key=lambda p: (position[p.first], position[p.second]))
    leading = candidate or competitors[0].name
    against_defaults = _against_defaults(leading, competitors[: len(entrants)], entrants, workloads, metric)
    if running := sum(run.status == "running" for run in runs):  # a choice among settings may still change
        pairs = [dataclasses.replace(p, adjusted=(math.nan, math.nan)) for p in pairs]
        against_defaults = {}
    ratios, ranks = _over_workloads(competitors[: len(entrants)], workloads, metric, targets)
    return Study(
        axes,
        metric,
        selecting,
        aggregate,
        competitors,
        len(entrants),
        workloads,
        pairs,
        against_defaults,
        candidate,
        searched,
        running,
        targets,
        target_of,
        ratios,
        ranks,
        list(runs),
        [],
    )


def metric_of(runs: Sequence[RecordedRun], metric: str | None) -> str:
    """What is compared: the primary score of the runs' task on test, unless a metric is named. Raises
    `UserError` for runs of several tasks."""
    first = runs[0]
    if other := next((run for run in runs if run.task != first.task), None):
        of = ", ".join(f"{printable(run.folder.name)} is a {run.task}" for run in (first, other))
        raise UserError("runs", f"are of different tasks: {of}", "compare them separately")
    return metric or PRIMARY[first.task].tag("test")


def _metrics(runs: Sequence[RecordedRun], metric: str, axes: Axes) -> tuple[str, str]:
    """The metric to report and the one that chooses."""
    measured = {tag for run in runs for tag in run.curves}
    if metric not in measured and all(run.failed for run in runs):
        statuses = ", ".join(f"{n} {status}" for status, n in Counter(run.status for run in runs).items())
        what = f"all failed ({statuses}) before anything comparable was measured"
        raise UserError("runs", what, "see their train.log")
    if not measured:
        raise UserError("runs", "have measured nothing yet", "wait for them")
    kind, _, split = metric.partition("/")
    losses = {loss_of(run) for run in runs}
    if kind == LOSS.name and len(losses) > 1:
        columns = zip(("loss", *KEYS_OF_LOSS), *losses, strict=True)
        differ = (
            f"{key} {', '.join(sorted(set(values)))}" for key, *values in columns if len(set(values)) > 1
        )
        what = f"{metric} is not the same in runs of different losses ({printable('; '.join(differ))})"
        todo = f"compare them by metric={PRIMARY[runs[0].task].tag(split)}"
        raise UserError("metric", what, todo)
    if metric not in measured:
        known = sorted(measured)
        other = f"{kind}/val"
        if split == "test" and other in measured:
            return other, other
        raise UserError(
            "metric",
            f"{metric!r} was not measured{nearest(metric, known)}",
            f"use one of: {', '.join(known)}",
        )
    selecting = f"{kind}/val"
    if axes.tuned and selecting not in measured:
        keys = ", ".join(axes.tuned)
        raise UserError(
            "tune", f"{keys} cannot be tuned without a validation set", f"compare them: by=[{keys}]"
        )
    return metric, selecting


KEYS_OF_LOSS = ("loss.output", "loss.label_smoothing", "loss.delta", "loss.class_weight")


def loss_of(run: RecordedRun) -> tuple[str, ...]:
    """What makes a run's loss the same as another's."""
    name = run.config.get("loss.name", "auto")
    name = LOSS_OF_TASK[run.task] if name == "auto" else name
    defaults = flatten(LossConfig(), "loss.")
    own = {key: run.config.get(key, defaults[key]) for key in KEYS_OF_LOSS}
    own["loss.output"] = own["loss.output"] or default_output(str(name))
    return (str(name), *map(str, own.values()))


def _candidate(given: str | None, cells: Mapping[str, Mapping[str, Cell]], selecting: str) -> str | None:
    """The candidate that was named, or that the search put first. Raises `UserError` where there is none."""
    if given is None or given in cells:
        return given
    if given != SEARCHED:
        known = ", ".join(cells)
        raise UserError(
            "candidate", f"{given!r} is not compared{nearest(given, cells)}", f"use {SEARCHED}, or: {known}"
        )
    every_cell = [cell for of_workload in cells.values() for cell in of_workload.values()]
    if any(cell.choices > 1 or len(cell.trials) < 2 for cell in every_cell):
        what = "the reported seeds were used in the search, or there was no search"
        raise UserError("candidate", what, "name one that was chosen beforehand: candidate=adam")
    sign = quantity(selecting).sign

    def score(name: str) -> float:
        best = [sign * trial.score for cell in cells[name].values() for trial in cell.trials
                if trial.setting == cell.setting]  # fmt: skip
        return float(np.mean(best)) if best and not np.isnan(best).any() else -math.inf

    return max(sorted(cells), key=score)


# --- numbers --------------------------------------------------------------------------------------------


def _chance(runs: Sequence[RecordedRun], metric: str) -> float:
    """What a failed run counts as in a mean; else the worst value."""
    kind = metric.partition("/")[0]
    return next((run.chance[kind] for run in runs if kind in run.chance), quantity(metric).worst)


def _entrant(name: str, cells: Mapping[str, Cell], metric: str, default: bool = False) -> Entrant:
    """A competitor as its pairs see it, with the chosen settings or the default ones."""
    results = {w: cell.default_results if default else cell.results for w, cell in cells.items()}
    return Entrant(
        name,
        scores_of(results),
        {w: _chance([*cell.runs.values(), *cell.default.values()], metric) for w, cell in cells.items()},
        1 if default else math.prod(cell.choices for cell in cells.values()),
    )


def _median(values: Sequence[Array], choices: Sequence[int], crossed: bool = False) -> Interval:
    """The median with its interval; of several workloads the mean of their medians, which has none, and where
    seeds are crossed with splits, so that runs are not independent, neither."""
    medians = [statistics.median(v, c) for v, c in zip(values, choices, strict=True) if len(v)]
    if len(medians) == 1 and not crossed:
        return medians[0]
    return Interval(float(np.mean([m.estimate for m in medians])) if medians else math.nan)


def _competitor(
    name: str,
    cells: dict[str, Cell],
    runs: dict[str, list[RecordedRun]],
    metric: str,
    selecting: str,
    targets: dict[str, float],
    proportion: float,
    repeated: int,
) -> Competitor:
    filled = {w: cell for w, cell in cells.items() if cell.runs}
    choices = [cell.choices for cell in filled.values()]
    crossed = any(len({seed for seed, _ in cell.runs}) < len(cell.runs) for cell in filled.values())

    def described(by: str) -> float:
        of_workload = []
        for cell in filled.values():
            values = cell.values("best")
            at_chance = _chance([*cell.runs.values()], metric)
            of_workload.append(statistics.AGGREGATES[by](np.where(np.isinf(values), at_chance, values)))
        return float(np.mean(of_workload)) if of_workload else math.nan

    higher = quantity(selecting).higher_is_better
    timed = {w: cell for w, cell in filled.items() if w in targets}
    gaps = [
        statistics.optimality_gap(cell.values("selected"), targets[w], higher) for w, cell in timed.items()
    ]
    ended = [run for of_workload in runs.values() for run in of_workload if run.status != "running"]
    failed = sum(run.failed for run in ended)
    any_finished = any(not run.failed for cell in filled.values() for run in cell.runs.values())
    selected = [
        np.where([r.failed for r in cell.runs.values()], _chance([*cell.runs.values()], selecting), values)
        for cell in filled.values()
        for values in [cell.values("selected")]
    ]
    tuned = {w: cell for w, cell in filled.items() if cell.default_results}
    against = None
    if tuned and len(tuned) == len(cells):
        chosen, default = (_entrant(name, tuned, metric, of) for of in (False, True))
        against = pair_of(chosen, default, [*tuned], metric)
    return Competitor(
        name,
        cells,
        proportion,
        _median([cell.values("best") for cell in filled.values()], choices, crossed),
        float(np.mean([v.mean() for v in selected])) if any_finished else math.nan,
        _median([cell.values("end") for cell in filled.values()], choices, crossed),
        {by: described(by) for by in statistics.AGGREGATES},
        {
            axis: _median(
                [cell.times[axis] for cell in timed.values()],
                [cell.choices for cell in timed.values()],
                crossed,
            )
            for axis in AXES_OF_TIME
        },
        float(np.mean(gaps)) if gaps else math.nan,
        statistics.proportion(failed, len(ended)),
        (failed, len(ended)),
        _median(
            [np.asarray([r.best for r in cell.default_results.values()]) for cell in tuned.values()],
            [1] * len(tuned),
        ),
        against,
        repeated,
    )


def _against_defaults(
    leading: str,
    ranked: Sequence[Competitor],
    entrants: Mapping[str, Entrant],
    workloads: Sequence[str],
    metric: str,
) -> dict[str, Pair]:
    """The leader against every other's default settings, where these were run: tuning can make it worse."""
    others = [
        c for c in ranked if c.name != leading and all(cell.default_results for cell in c.cells.values())
    ]
    pairs = {
        c.name: pair_of(entrants[leading], _entrant(c.name, c.cells, metric, True), workloads, metric)
        for c in others
    }
    return {name: pair for name, pair in pairs.items() if pair.seeds}


def _over_workloads(
    ranked: Sequence[Competitor], workloads: Sequence[str], metric: str, targets: Mapping[str, float]
) -> tuple[Array | None, statistics.Ranks | None]:
    """Performance ratios from four workloads with a target on, ranks from five workloads on."""
    if len(ranked) < 2:
        return None, None
    timed = [w for w in workloads if w in targets]
    times = np.asarray([[np.median(c.cells[w].times["steps"]) for c in ranked] for w in timed])
    ranks = None
    if len(workloads) >= RANK_WORKLOADS and len(ranked) >= 3:
        medians = [[statistics.median(c.cells[w].values("best")).estimate for c in ranked] for w in workloads]
        scores = np.asarray(medians)
        ranks = statistics.friedman(scores if quantity(metric).higher_is_better else -scores)
    return statistics.ratios(times) if len(timed) >= PROFILE_WORKLOADS else None, ranks
