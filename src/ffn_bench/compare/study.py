"""The comparison as numbers: who stands where, how sure that is, how fast each one is. Writes nothing."""

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
from ffn_bench.compare.pairs import Entrant, Pair, all_pairs, pair_of, scores_of, shares_won
from ffn_bench.compare.results import Cell, cell_of, drop, repeats
from ffn_bench.compare.statistics import Array, Interval
from ffn_bench.compare.targets import reach, targets_of
from ffn_bench.errors import UserError, nearest
from ffn_bench.run_folder.recorded_run import RecordedRun
from ffn_bench.tags import LOSS, SCORE, quantity

PROFILE_WORKLOADS, RANK_WORKLOADS = 4, 5
"""Workloads from which on there are performance profiles, and Friedman's test."""
SEARCHED = "tuned"
"""As `candidate`: whoever did best in the search, whose seeds are not reported."""


@dataclass(frozen=True)
class Competitor:
    """Everything about one thing that is compared, over all workloads."""

    name: str
    cells: dict[str, Cell]
    share: float
    """Mean share of seeds won against the others; NaN where it is in no pair."""
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
    """Share of all its runs, tuning included, that failed."""
    failed: tuple[int, int]
    default: Interval
    against_default: Pair | None
    """Tuned against as shipped: counts, of which nothing is claimed."""
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
    shipped: dict[str, Pair]
    """The leader, as tuned, against each other as shipped, by the other's name: counts, of which nothing is
    claimed. Who leads was seen first, so no p-value of these would mean what it says."""
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
        """Whom the verdict is about: who was named beforehand, else the first."""
        return next((c for c in self.competitors if c.name == self.candidate), self.competitors[0])

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of these two, seen from the first."""
        found = next((p for p in self.pairs if {p.first, p.second} == {a, b}), None)
        return found and found.seen_from(a)

    @functools.cached_property
    def bands(self) -> dict[str, dict[str, dict[str, Band]]]:
        """Curves over seeds by workload, tag and competitor."""
        tags = dict.fromkeys((LOSS.tag("train"), self.selecting, self.metric))
        found: dict[str, dict[str, dict[str, Band]]] = {w: {tag: {} for tag in tags} for w in self.workloads}
        for competitor in self.competitors:
            for workload, cell in competitor.cells.items():
                for tag in tags:
                    band = band_of([*cell.runs.values(), *cell.running], tag, self.aggregate)
                    if band is not None:
                        found[workload][tag][competitor.name] = band
        return found


def analyse(
    runs: Sequence[RecordedRun],
    axes: Axes,
    metric: str = SCORE.tag("test"),
    aggregate: str = "iqm",
    reference: str | None = None,
    target: float | None = None,
    candidate: str | None = None,
) -> Study:
    """All numbers of the comparison.

    Raises `UserError` for a metric, reference, candidate or tuning that cannot be.
    """
    metric, selecting = _metrics(runs, metric, axes)
    if aggregate not in statistics.AGGREGATES:
        known = ", ".join(statistics.AGGREGATES)
        raise UserError("aggregate", f"{aggregate!r} is not known", f"use one of: {known}")
    grouped: dict[str, dict[str, list[RecordedRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        grouped[axes.competitor(run)][axes.workload(run)].append(run)
    workloads = sorted({w for found in grouped.values() for w in found})
    cells = {
        name: {w: cell_of(found[w], axes, metric, selecting) for w in workloads if w in found}
        for name, found in grouped.items()
    }
    repeated = {}
    for name, found in cells.items():
        again = repeats([*found.values()])
        drop([*found.values()], again)
        repeated[name] = len(again)
    searched = candidate == SEARCHED and SEARCHED not in cells
    candidate = _candidate(candidate, cells, selecting)
    targets, target_of = targets_of(cells, workloads, selecting, reference, target)
    for found in cells.values():
        for workload, cell in found.items():
            reach(cell, selecting, targets.get(workload, math.nan))

    entrants = {}
    for name, found in cells.items():
        if len(found) == len(workloads) and all(cell.runs for cell in found.values()):
            entrants[name] = _entrant(name, found, metric)
    if candidate is not None and candidate not in entrants:
        what = f"{candidate} has no result on every workload"
        raise UserError("candidate", what, "name one that has, or leave it out")
    pairs = all_pairs([*entrants.values()], workloads, metric, candidate)
    shares = shares_won([*cells], pairs)
    sign = quantity(metric).sign

    def rank(c: Competitor) -> tuple[bool, float, float, str]:
        share = -c.share if math.isfinite(c.share) else math.inf
        middle = -sign * c.test.estimate if not math.isnan(c.test.estimate) else math.inf
        return c.name not in entrants, share, middle, c.name

    competitors = [
        _competitor(
            name, cells[name], grouped[name], metric, selecting, targets, shares[name], repeated[name]
        )
        for name in cells
    ]
    competitors.sort(key=rank)
    places = {c.name: k for k, c in enumerate(competitors)}
    pairs = [p if places[p.first] < places[p.second] else p.seen_from(p.second) for p in pairs]
    pairs.sort(key=lambda p: (places[p.first], places[p.second]))
    leading = candidate or competitors[0].name
    shipped = _against_shipped(leading, competitors[: len(entrants)], entrants, workloads, metric)
    if running := sum(run.status == "running" for run in runs):  # a choice among settings may still change
        pairs = [dataclasses.replace(p, adjusted=(math.nan, math.nan)) for p in pairs]
        shipped = {}
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
        shipped,
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


def _metrics(runs: Sequence[RecordedRun], metric: str, axes: Axes) -> tuple[str, str]:
    """The metric to report and the one that chooses."""
    measured = {tag for run in runs for tag in run.curves}
    if metric not in measured and all(run.failed for run in runs):
        told = ", ".join(f"{n} {status}" for status, n in Counter(run.status for run in runs).items())
        what = f"failed, all of them ({told}), before anything was measured that could be compared"
        raise UserError("runs", what, "their train.log says why")
    if not measured:
        raise UserError("runs", "have measured nothing yet", "wait for them")
    kind, _, part = metric.partition("/")
    if metric not in measured:
        known = sorted(measured)
        other = f"{kind}/val"
        if part == "test" and other in measured:
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
            "tune", f"{keys} cannot be tuned without a validation part", f"compare them: by=[{keys}]"
        )
    return metric, selecting


def _candidate(given: str | None, cells: Mapping[str, Mapping[str, Cell]], selecting: str) -> str | None:
    """The candidate that was named, or that the search put first. Raises `UserError` where there is none."""
    if given is None or given in cells:
        return given
    if given != SEARCHED:
        known = ", ".join(cells)
        raise UserError(
            "candidate", f"{given!r} is not compared{nearest(given, cells)}", f"use {SEARCHED}, or: {known}"
        )
    if any(cell.choices > 1 or len(cell.trials) < 2 for found in cells.values() for cell in found.values()):
        what = "the seeds that are reported did the search, or there was none"
        raise UserError("candidate", what, "name one that you had in mind before: candidate=adam")
    sign = quantity(selecting).sign

    def score(name: str) -> float:
        best = [sign * trial.score for cell in cells[name].values() for trial in cell.trials
                if trial.setting == cell.setting]  # fmt: skip
        return float(np.mean(best)) if best and not np.isnan(best).any() else -math.inf

    return max(sorted(cells), key=score)


# --- numbers --------------------------------------------------------------------------------------------


def _chance(runs: Sequence[RecordedRun], metric: str) -> float:
    """What a failed run counts as in a mean; the worst there is where the runs do not say."""
    kind = metric.partition("/")[0]
    return next((run.chance[kind] for run in runs if kind in run.chance), quantity(metric).worst)


def _entrant(name: str, cells: Mapping[str, Cell], metric: str, shipped: bool = False) -> Entrant:
    """A competitor as its pairs see it, as chosen or as shipped."""
    results = {w: cell.shipped if shipped else cell.results for w, cell in cells.items()}
    return Entrant(
        name,
        scores_of(results),
        {w: _chance([*cell.runs.values(), *cell.default.values()], metric) for w, cell in cells.items()},
        1 if shipped else math.prod(cell.choices for cell in cells.values()),
    )


def _median(values: Sequence[Array], choices: Sequence[int], crossed: bool = False) -> Interval:
    """The median with its interval; of several workloads the mean of their medians, which has none, and where
    seeds are crossed with splits, so that runs are not independent, neither."""
    found = [statistics.median(v, c) for v, c in zip(values, choices, strict=True) if len(v)]
    if len(found) == 1 and not crossed:
        return found[0]
    return Interval(float(np.mean([m.estimate for m in found])) if found else math.nan)


def _competitor(
    name: str,
    cells: dict[str, Cell],
    runs: dict[str, list[RecordedRun]],
    metric: str,
    selecting: str,
    targets: dict[str, float],
    share: float,
    repeated: int,
) -> Competitor:
    filled = {w: cell for w, cell in cells.items() if cell.runs}
    choices = [cell.choices for cell in filled.values()]
    crossed = any(len({seed for seed, _ in cell.runs}) < len(cell.runs) for cell in filled.values())

    def described(by: str) -> float:
        found = []
        for cell in filled.values():
            values = cell.values("best")
            at_chance = _chance([*cell.runs.values()], metric)
            found.append(statistics.AGGREGATES[by](np.where(np.isinf(values), at_chance, values)))
        return float(np.mean(found)) if found else math.nan

    higher = quantity(selecting).higher_is_better
    timed = {w: cell for w, cell in filled.items() if w in targets}
    gaps = [
        statistics.optimality_gap(cell.values("selected"), targets[w], higher) for w, cell in timed.items()
    ]
    over = [run for found in runs.values() for run in found if run.status != "running"]
    failed = sum(run.failed for run in over)
    lived = any(not run.failed for cell in filled.values() for run in cell.runs.values())
    selected = [
        np.where([r.failed for r in cell.runs.values()], _chance([*cell.runs.values()], selecting), values)
        for cell in filled.values()
        for values in [cell.values("selected")]
    ]
    tuned = {w: cell for w, cell in filled.items() if cell.shipped}
    against = None
    if tuned and len(tuned) == len(cells):
        chosen, shipped = (_entrant(name, tuned, metric, of) for of in (False, True))
        against = pair_of(chosen, shipped, [*tuned], metric)
    return Competitor(
        name,
        cells,
        share,
        _median([cell.values("best") for cell in filled.values()], choices, crossed),
        float(np.mean([v.mean() for v in selected])) if lived else math.nan,
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
        statistics.share(failed, len(over)),
        (failed, len(over)),
        _median(
            [np.asarray([r.best for r in cell.shipped.values()]) for cell in tuned.values()], [1] * len(tuned)
        ),
        against,
        repeated,
    )


def _against_shipped(
    leading: str,
    ranked: Sequence[Competitor],
    entrants: Mapping[str, Entrant],
    workloads: Sequence[str],
    metric: str,
) -> dict[str, Pair]:
    """The leader against every other's setting as shipped, where that was run: tuning may have spoilt it."""
    others = [c for c in ranked if c.name != leading and all(cell.shipped for cell in c.cells.values())]
    found = {
        c.name: pair_of(entrants[leading], _entrant(c.name, c.cells, metric, True), workloads, metric)
        for c in others
    }
    return {name: pair for name, pair in found.items() if pair.seeds}


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
