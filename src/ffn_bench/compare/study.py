"""From runs to numbers: which settings were chosen, how good they are, how sure that is. Writes nothing."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import Axes, short, shown
from ffn_bench.compare.curves import AXES_OF_TIME, Band, band_of
from ffn_bench.compare.read import Run
from ffn_bench.compare.statistics import Array, Interval
from ffn_bench.errors import UserError, nearest

PROFILE_WORKLOADS, RANK_WORKLOADS = 4, 5
"""Workloads from which on there are performance profiles, and Friedman's test."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Result:
    """What a run comes to, at the epoch that validation chose and at the end. Worst if it diverged."""

    selected: float
    """The validation metric at the chosen epoch; NaN without a validation part."""
    best: float
    """The metric at the chosen epoch."""
    end: float
    epoch: float


@dataclass(frozen=True)
class Trial:
    """A setting that was tried: the runs, and their mean score on validation, diverged ones included."""

    setting: tuple[tuple[str, Any], ...]
    runs: list[Run]
    score: float


@dataclass
class Cell:
    """A competitor on a workload."""

    trials: list[Trial]
    setting: tuple[tuple[str, Any], ...]
    """What was chosen."""
    runs: list[Run]
    """Of the chosen setting, to report: those that ended, by seed."""
    unended: list[Run]
    """Of the chosen setting: those without a result, live, killed or failed."""
    default: list[Run]
    """Of the setting as shipped."""
    results: list[Result] = field(default_factory=list)
    times: dict[str, Array] = field(default_factory=dict)
    """To the target, in each of `AXES_OF_TIME`; ∞ where it was missed."""
    edges: list[str] = field(default_factory=list)
    reused: bool = False
    """Whether the runs to report are among those that chose the setting."""

    def values(self, name: str, seeds: Sequence[Any] | None = None) -> Array:
        """`selected`, `best` or `end` of every run, or of these seeds."""
        by_seed = {run.seed: getattr(r, name) for run, r in zip(self.runs, self.results, strict=True)}
        return np.asarray(
            [by_seed[s] for s in seeds] if seeds is not None else [*by_seed.values()], dtype=float
        )

    @property
    def seeds(self) -> list[Any]:
        """Of the runs to report."""
        return [run.seed for run in self.runs]


@dataclass(frozen=True)
class Competitor:
    """Everything about one thing that is compared, over all workloads."""

    name: str
    cells: dict[str, Cell]
    validation: Interval
    test: Interval
    """The aggregate of the metric at the chosen epoch."""
    end: Interval
    aggregates: dict[str, Interval]
    """The metric at the chosen epoch by mean, median and IQM."""
    times: dict[str, Interval]
    """Medians to the target."""
    gap: float
    """The optimality gap to the target, on validation."""
    failures: Interval
    """Share of all its runs that diverged."""
    failed: tuple[int, int]
    final_failed: int
    default: Interval
    against_default: Interval
    """Tuned minus default, paired by seed."""

    @property
    def n(self) -> int:
        """Runs that are reported."""
        return sum(len(cell.runs) for cell in self.cells.values())


@dataclass(frozen=True)
class Pair:
    """Two competitors, the better ranked first, paired by seed."""

    first: str
    second: str
    n: int
    difference: Interval
    """Of the aggregate of the metric, in its own direction: positive means that the first is better."""
    probability: Interval
    """That a run of the first is better than one of the second."""
    p_value: float
    adjusted: float = math.nan


@dataclass(frozen=True)
class Study:
    """The comparison. `competitors` are ranked, best first; those without a result stand last."""

    axes: Axes
    metric: str
    selecting: str
    """The metric on validation by which settings and epochs are chosen."""
    aggregate: str
    competitors: list[Competitor]
    workloads: list[str]
    pairs: list[Pair]
    shipped: dict[str, Pair]
    """The leader, as tuned, against each other as shipped."""
    targets: dict[str, float]
    """By workload."""
    target_of: str
    """Where the targets are from, in words."""
    bands: dict[str, dict[str, dict[str, Band]]]
    """By workload, tag and competitor."""
    scores: Array | None
    """Performance ratios r `[workloads, competitors]`, where there are workloads enough."""
    ranks: statistics.Ranks | None
    notes: list[str]
    runs: list[Run]
    protocol: int | None

    @property
    def higher(self) -> bool:
        """Whether larger numbers of the metric are better."""
        return statistics.higher_is_better(self.metric)

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of these two, in their order of rank."""
        return next((p for p in self.pairs if {p.first, p.second} == {a, b}), None)


def result_of(run: Run, metric: str, selecting: str) -> Result:
    """Look a run's result up in its curves."""
    lowest = statistics.worst(metric)
    if run.status == "diverged":
        return Result(statistics.worst(selecting), lowest, lowest, math.nan)
    curve, chooser = run.curves.get(metric), run.curves.get(selecting)
    if curve is None:
        return Result(math.nan, math.nan, math.nan, math.nan)
    values = statistics.worst_filled(curve.values, metric)
    if chooser is None:
        return Result(math.nan, float(values[-1]), float(values[-1]), float(curve.epochs[-1]))
    scores = statistics.worst_filled(chooser.values, selecting)
    at = int(np.argmax(scores) if statistics.higher_is_better(selecting) else np.argmin(scores))
    same = np.flatnonzero(curve.steps == chooser.steps[at])
    best = float(values[same[0]]) if len(same) else math.nan
    return Result(float(scores[at]), best, float(values[-1]), float(chooser.epochs[at]))


def analyse(
    runs: Sequence[Run],
    axes: Axes,
    metric: str = "accuracy/test",
    aggregate: str = "iqm",
    reference: str | None = None,
    target: float | None = None,
    resamples: int = statistics.RESAMPLES,
) -> Study:
    """All numbers of the comparison. Raises `UserError` for a metric, reference or tuning that cannot be."""
    metric, selecting, notes = _metrics(runs, metric, axes)
    if aggregate not in statistics.AGGREGATES:
        known = ", ".join(statistics.AGGREGATES)
        raise UserError("aggregate", f"{aggregate!r} is not known", f"use one of: {known}")
    grouped: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        grouped[axes.competitor(run)][axes.workload(run)].append(run)
    workloads = sorted({w for found in grouped.values() for w in found})
    cells = {
        name: {w: _cell(found[w], axes, metric, selecting) for w in workloads if w in found}
        for name, found in grouped.items()
    }
    targets, target_of = _targets(cells, workloads, selecting, reference, target)
    for found in cells.values():
        for workload, cell in found.items():
            _time(cell, selecting, targets.get(workload, math.nan))

    higher = statistics.higher_is_better(metric)
    competitors = [
        _competitor(name, cells[name], grouped[name], axes, metric, selecting, aggregate, targets, resamples)
        for name in cells
    ]
    complete = {c.name: len(c.cells) == len(workloads) and c.n > 0 for c in competitors}

    def rank(c: Competitor) -> tuple[bool, float, str]:
        score = c.test.estimate if math.isfinite(c.test.estimate) else (-math.inf if higher else math.inf)
        return not complete[c.name], -score if higher else score, c.name

    competitors.sort(key=rank)
    ranked = [c for c in competitors if complete[c.name]]
    pairs = _pairs(ranked, workloads, higher, aggregate, resamples)
    shipped = _against_shipped(ranked, workloads, metric, selecting, aggregate, resamples)
    ratios, ranks = _over_workloads([c for c in competitors if complete[c.name]], workloads, higher)
    study = Study(
        axes,
        metric,
        selecting,
        aggregate,
        competitors,
        workloads,
        pairs,
        shipped,
        targets,
        target_of,
        _bands(cells, workloads, metric, selecting, aggregate),
        ratios,
        ranks,
        notes,
        list(runs),
        runs[0].protocol,
    )
    notes += _notes(study)
    return study


# --- settings -------------------------------------------------------------------------------------------


def _metrics(runs: Sequence[Run], metric: str, axes: Axes) -> tuple[str, str, list[str]]:
    """The metric to report and the one that chooses, and what is to be said of them."""
    measured = {tag for run in runs for tag in run.curves}
    if not measured:
        raise UserError("runs", "have measured nothing yet", "wait for them")
    kind, _, part = metric.partition("/")
    if metric not in measured:
        known = sorted(measured)
        other = f"{kind}/val"
        if part == "test" and other in measured:
            return other, other, [f"No test part: {other} is reported, on which settings were chosen too."]
        raise UserError(
            "metric",
            f"{metric!r} was not measured{nearest(metric, known)}",
            f"use one of: {', '.join(known)}",
        )
    selecting = f"{kind}/val"
    if selecting in measured:
        return metric, selecting, []
    if axes.tuned:
        keys = ", ".join(axes.tuned)
        raise UserError(
            "tune", f"{keys} cannot be tuned without a validation part", f"compare them: by=[{keys}]"
        )
    return metric, selecting, ["No validation part: the metric is read at the end of training."]


def _cell(runs: Sequence[Run], axes: Axes, metric: str, selecting: str) -> Cell:
    """Choose the setting on validation, and find the runs to report."""
    stages: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        stages[run.config.get("stage")].append(run)
    tried = stages["tune"] or [*stages[None], *stages["final"]]
    trials = _trials(tried, axes, metric, selecting)
    higher = statistics.higher_is_better(selecting)

    def preference(trial: Trial) -> float:
        known = not math.isnan(trial.score)
        return (trial.score if higher else -trial.score) if known else -math.inf

    final = _trials(stages["final"], axes, metric, selecting)
    scores = {trial.setting: preference(trial) for trial in trials}
    if final and stages["tune"]:
        setting = max(final, key=lambda t: (scores.get(t.setting, -math.inf), len(t.runs))).setting
        of_setting = next(t.runs for t in final if t.setting == setting)
    else:
        best = max(trials, key=preference)
        setting, of_setting = best.setting, best.runs
    ended = sorted((run for run in of_setting if run.ended), key=lambda run: str(run.seed))
    once = {run.seed: run for run in ended}
    cell = Cell(
        trials,
        setting,
        sorted(once.values(), key=lambda run: tuple(x or 0 for x in run.seed)),
        [run for run in of_setting if not run.ended],
        [run for run in stages["default"] if run.ended],
    )
    cell.results = [result_of(run, metric, selecting) for run in cell.runs]
    cell.edges = _edges(cell, axes)
    cell.reused = not (final and stages["tune"]) and len(trials) > 1
    return cell


def _trials(runs: Sequence[Run], axes: Axes, metric: str, selecting: str) -> list[Trial]:
    settings: dict[tuple[tuple[str, Any], ...], list[Run]] = defaultdict(list)
    for run in runs:
        settings[axes.setting(run)].append(run)
    found = []
    for setting, members in settings.items():
        scores = [result_of(run, metric, selecting).selected for run in members if run.ended]
        found.append(Trial(setting, members, float(np.mean(scores)) if scores else math.nan))
    return found


def _edges(cell: Cell, axes: Axes) -> list[str]:
    """Tuned numbers whose chosen value is the smallest or largest tried."""
    found = []
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
            found.append(f"{short(key)} {shown(value)} is the {which} of {len(tried)} tried")
    return found


# --- numbers --------------------------------------------------------------------------------------------


def _targets(
    cells: dict[str, dict[str, Cell]],
    workloads: Sequence[str],
    selecting: str,
    reference: str | None,
    target: float | None,
) -> tuple[dict[str, float], str]:
    """The target of every workload: given, or the median of the reference's best validation values."""
    if target is not None:
        return dict.fromkeys(workloads, target), "as given"
    if reference is not None and reference not in cells:
        known = ", ".join(cells)
        raise UserError(
            "reference", f"{reference!r} is not compared{nearest(reference, cells)}", f"use: {known}"
        )
    higher = statistics.higher_is_better(selecting)
    if reference is None:
        reference = "adam" if "adam" in cells else _leading(cells, higher)
    targets = {
        w: statistics.reached_by_half(cell.values("selected"), higher)
        for w, cell in cells[reference].items()
        if len(cell.runs) and not np.isnan(cell.values("selected")).any()
    }
    return targets, f"the median of {reference}'s best"


def _leading(cells: dict[str, dict[str, Cell]], higher: bool) -> str:
    """The competitor whose median on validation is best."""

    def score(name: str) -> float:
        values = [c.values("selected") for c in cells[name].values() if c.runs]
        if not values or np.isnan(np.concatenate(values)).any():
            return -math.inf
        median = float(np.median(np.concatenate(values)))
        return median if higher else -median

    return max(cells, key=score)


def _time(cell: Cell, selecting: str, target: float) -> None:
    """Fill in when each run first met the target."""
    for axis in AXES_OF_TIME:
        found = []
        for run in cell.runs:
            curve = run.curves.get(selecting)
            if curve is None or math.isnan(target):
                found.append(math.inf)
                continue
            x = getattr(curve, axis)
            higher = statistics.higher_is_better(selecting)
            found.append(statistics.first_reach(x, curve.values, target, higher))
        cell.times[axis] = np.asarray(found)


def _competitor(
    name: str,
    cells: dict[str, Cell],
    runs: dict[str, list[Run]],
    axes: Axes,
    metric: str,
    selecting: str,
    aggregate: str,
    targets: dict[str, float],
    resamples: int,
) -> Competitor:
    filled = [cell for cell in cells.values() if cell.runs]
    nothing = Interval(math.nan)

    def summed(what: str, by: str) -> Interval:
        values = [cell.values(what) for cell in filled]
        if not values or any(np.isnan(v).any() for v in values):
            return nothing
        return statistics.aggregate(values, by, resamples)

    times = {
        axis: statistics.aggregate([cell.times[axis] for cell in filled], "median", resamples)
        if filled and targets
        else nothing
        for axis in AXES_OF_TIME
    }
    gaps = [
        statistics.optimality_gap(cell.values("selected"), targets[w], statistics.higher_is_better(selecting))
        for w, cell in cells.items()
        if cell.runs and w in targets
    ]
    every = [run for found in runs.values() for run in found if run.ended]
    diverged = sum(run.status == "diverged" for run in every)
    pairs, defaults = [], []
    for cell in filled:
        shipped = {run.seed: result_of(run, metric, selecting).best for run in cell.default}
        common = [s for s in cell.seeds if s in shipped]
        if common:
            values = np.asarray([shipped[s] for s in common])
            defaults.append(values)
            pair = (cell.values("best", common), values)
            pairs.append(pair if statistics.higher_is_better(metric) else pair[::-1])
    aggregates = {by: summed("best", by) for by in statistics.AGGREGATES}
    return Competitor(
        name,
        cells,
        summed("selected", aggregate),
        aggregates[aggregate],
        summed("end", aggregate),
        aggregates,
        times,
        float(np.mean(gaps)) if gaps else math.nan,
        statistics.share(diverged, len(every)),
        (diverged, len(every)),
        sum(run.status == "diverged" for cell in cells.values() for run in cell.runs),
        statistics.aggregate(defaults, aggregate, resamples) if defaults else nothing,
        statistics.difference(pairs, aggregate, resamples) if pairs else nothing,
    )


def _pairs(
    ranked: Sequence[Competitor], workloads: Sequence[str], higher: bool, aggregate: str, resamples: int
) -> list[Pair]:
    """Every two competitors, paired by the seeds that both have."""
    found = []
    for a, b in itertools.combinations(ranked, 2):
        pairs = []
        in_all = set.intersection(*(set(c.cells[w].seeds) for c in (a, b) for w in workloads))
        for workload in workloads:
            first, second = a.cells[workload], b.cells[workload]
            there = in_all or set(second.seeds)
            common = [s for s in first.seeds if s in there]
            pairs.append((first.values("best", common), second.values("best", common)))
        n = sum(len(x) for x, _ in pairs)
        if any(len(x) == 0 or np.isnan(x).any() or np.isnan(y).any() for x, y in pairs):
            continue
        better = pairs if higher else [(y, x) for x, y in pairs]
        differences = [statistics.minus(x, y) for x, y in better]
        # A seed's difference is its mean over workloads, so that their unequal scales are no noise.
        apart = np.mean(differences, axis=0) if in_all else np.concatenate(differences)
        found.append(
            Pair(
                a.name,
                b.name,
                n,
                statistics.difference(better, aggregate, resamples),
                statistics.probability_of_improvement(better, resamples),
                statistics.paired_p_value(apart),
            )
        )
    adjusted = statistics.holm([pair.p_value for pair in found])
    return [Pair(**{**vars(p), "adjusted": value}) for p, value in zip(found, adjusted, strict=True)]


def _against_shipped(
    ranked: Sequence[Competitor],
    workloads: Sequence[str],
    metric: str,
    selecting: str,
    aggregate: str,
    resamples: int,
) -> dict[str, Pair]:
    """The first against every other's setting as shipped, where that was run: tuning may have spoilt it."""
    found = {}
    higher = statistics.higher_is_better(metric)
    for other in ranked[1:]:
        pairs = []
        for workload in workloads:
            first = ranked[0].cells[workload]
            shipped = {r.seed: result_of(r, metric, selecting).best for r in other.cells[workload].default}
            common = [s for s in first.seeds if s in shipped]
            values = np.asarray([shipped[s] for s in common])
            ours = first.values("best", common)
            pairs.append((ours, values) if higher else (values, ours))
        if any(len(x) < statistics.ENOUGH for x, _ in pairs):
            continue
        apart = np.concatenate([statistics.minus(x, y) for x, y in pairs])
        p_value = statistics.paired_p_value(apart)
        difference = statistics.difference(pairs, aggregate, resamples)
        chance = statistics.probability_of_improvement(pairs, resamples)
        found[other.name] = Pair(ranked[0].name, other.name, len(apart), difference, chance, p_value, p_value)
    return found


def _over_workloads(
    ranked: Sequence[Competitor], workloads: Sequence[str], higher: bool
) -> tuple[Array | None, statistics.Ranks | None]:
    """Performance ratios from four workloads on, ranks from five on."""
    if len(workloads) < PROFILE_WORKLOADS or len(ranked) < 2:
        return None, None
    times = np.asarray([[np.median(c.cells[w].times["steps"]) for c in ranked] for w in workloads])
    ranks = None
    if len(workloads) >= RANK_WORKLOADS and len(ranked) >= 3:
        scores = np.asarray([[np.median(c.cells[w].values("best")) for c in ranked] for w in workloads])
        ranks = statistics.friedman(scores if higher else -scores)
    return statistics.ratios(times), ranks


# --- curves ---------------------------------------------------------------------------------------------


def _bands(
    cells: dict[str, dict[str, Cell]], workloads: Sequence[str], metric: str, selecting: str, aggregate: str
) -> dict[str, dict[str, dict[str, Band]]]:
    tags = dict.fromkeys(("loss/train", selecting, metric))
    found: dict[str, dict[str, dict[str, Band]]] = {w: {tag: {} for tag in tags} for w in workloads}
    for name, of in cells.items():
        for workload, cell in of.items():
            for tag in tags:
                band = band_of([*cell.runs, *cell.unended], tag, aggregate)
                if band is not None:
                    found[workload][tag][name] = band
    return found


# --- what is to be said besides -------------------------------------------------------------------------


def _notes(study: Study) -> list[str]:
    """What a reader must know to trust, or not to trust, the numbers."""
    notes: list[str] = []
    cells = [(c.name, w, cell) for c in study.competitors for w, cell in c.cells.items()]
    several = len(study.workloads) > 1

    def where(name: str, workload: str) -> str:
        return f"{name} on {workload}" if several else name

    unended = Counter(run.status for run in study.runs if not run.ended)
    if unended:
        told = ", ".join(f"{n} {status}" for status, n in unended.items())
        total = sum(unended.values())
        runs_have = "run has" if total == 1 else "runs have"
        notes.append(f"{total} {runs_have} no result ({told}): curves show them, statistics do not.")
    seeds = {tuple(cell.seeds) for _, _, cell in cells if cell.runs}
    if len(seeds) > 1:
        notes.append("Seeds are not the same everywhere: pairs are compared on the seeds that both have.")
    fewest = min((len(cell.runs) for _, _, cell in cells), default=0)
    if fewest < statistics.ENOUGH:
        notes.append(f"Fewer than {statistics.ENOUGH} seeds ({fewest}): no intervals and no tests.")
    elif fewest < 10:
        notes.append(
            f"{fewest} seeds: intervals from so few are themselves uncertain; ten or more are advisable."
        )
    if any(cell.reused for _, _, cell in cells):
        notes.append(
            "Settings were chosen (on validation) with the same seeds that are reported; the protocol asks "
            "for other seeds, which +tune=… takes."
        )
    for name, workload, cell in cells:
        notes += [f"{where(name, workload)}: {edge}; the best may lie beyond." for edge in cell.edges]
    worse = [c.name for c in study.competitors if c.against_default.high < 0]
    if worse:
        notes.append(
            f"Tuning made {', '.join(worse)} worse than as shipped: with one tuning seed, or a small "
            "validation part, chance chooses. More seeds help: hydra.sweeper.tuning_seeds=[0,100,200]."
        )
    missing = [where(c.name, w) for c in study.competitors for w in study.workloads if w not in c.cells]
    if missing:
        notes.append(f"No runs of {', '.join(missing)}: ranked last, and in no test.")
    machines = {run.machine for run in study.runs}
    if len(machines) > 1:
        notes.append(
            f"Runs are from {len(machines)} machines or settings of one: seconds are not comparable."
        )
    companies = [run.company for _, _, cell in cells for run in cell.runs]
    if companies and max(companies) > 0:
        notes.append(
            "Runs were trained side by side: seconds are a run's share of the time of all, so they tell "
            "steps apart, not the cost of one optimizer's step."
        )
    return notes


def is_ahead(pair: Pair) -> bool:
    """Whether the first is shown to be better: by test after correction, and by its interval."""
    return pair.adjusted < SIGNIFICANT and pair.difference.low > 0
