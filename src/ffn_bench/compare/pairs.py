"""Two competitors seed by seed: votes, the sign test, and what may be claimed. One estimand, one test, one
interval.

The estimand is π, the probability that one of them is better at a seed that tells them apart. Each seed that
both have has one vote. A claim is a directed statement, "a is ahead of b", and all of a report's statements
are tested together (Holm), so that at most one report in twenty makes a false claim.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.results import Result, Seed
from ffn_bench.compare.statistics import Array, Interval
from ffn_bench.tags import quantity

Block = tuple[str, Any]
"""A workload with one of its splits (`data.split_seed`): what a seed is run on."""


@dataclass(frozen=True)
class Entrant:
    """One side of a pair: the metric of every seed on every workload, infinitely bad if it
    failed."""

    name: str
    scores: Mapping[Block, Mapping[int, float]]
    chance: Mapping[str, float]
    """What a failed run counts as in a mean, by workload."""
    choices: int
    """Ways in which the reported seeds could have chosen its settings; 1 where other seeds chose."""


@dataclass(frozen=True)
class Pair:
    """Two competitors over the seeds that both have, the better ranked first. Positive: the first is
    better."""

    first: str
    second: str
    seeds: int
    runs: int
    """Of each: seeds times workloads and splits."""
    blocks: tuple[Block, ...]
    """Workloads with their splits, on which both were run."""
    runs_won: tuple[int, int]
    """Runs of each that beat the other's of the same seed, workload and split."""
    won: int
    lost: int
    proportion: Interval
    """Of the seeds that decide, those that the first won; exact, of this pair alone."""
    difference: Interval
    """Median over the seeds that decide (over several workloads of each seed's mean), and its interval. NaN
    where its middle is between a failure of the one and a success of the other."""
    span: tuple[float, float]
    """The smallest and the largest of them."""
    failed: tuple[int, int]
    means: tuple[float, float]
    """Of each, over these runs, a failed one at chance."""
    choices: float
    """By how much p-values are multiplied, since the reported seeds chose among so many settings."""
    adjusted: tuple[float, float] = (math.nan, math.nan)
    """p-values of "the first is ahead" and "the second is ahead", after correction for all statements; NaN
    where the report does not make the statement."""

    @property
    def decided(self) -> int:
        """Seeds that tell the two apart."""
        return self.won + self.lost

    @property
    def sums_up(self) -> bool:
        """Whether a seed's vote is that of several runs, on several workloads or splits."""
        return self.runs > self.seeds

    @property
    def tied(self) -> int:
        """Seeds that do not."""
        return self.seeds - self.decided

    @property
    def p_values(self) -> tuple[float, float]:
        """Of both statements, before correction for their number."""
        both = statistics.sign_test(self.won, self.lost), statistics.sign_test(self.lost, self.won)
        return min(1.0, self.choices * both[0]), min(1.0, self.choices * both[1])

    @property
    def ahead(self) -> str | None:
        """Who is shown to be ahead, if anyone."""
        for name, p in zip((self.first, self.second), self.adjusted, strict=True):
            if p <= statistics.SIGNIFICANT:
                return name
        return None

    def seen_from(self, name: str) -> Pair:
        """The same pair with this one of the two first."""
        if name == self.first:
            return self

        def turned(interval: Interval, around: float) -> Interval:
            return Interval(around - interval.estimate, around - interval.high, around - interval.low)

        return dataclasses.replace(
            self,
            first=self.second,
            second=self.first,
            won=self.lost,
            lost=self.won,
            runs_won=self.runs_won[::-1],
            proportion=turned(self.proportion, 1.0),
            difference=turned(self.difference, 0.0),
            span=(-self.span[1], -self.span[0]),
            failed=self.failed[::-1],
            means=self.means[::-1],
            adjusted=self.adjusted[::-1],
        )


def pair_of(a: Entrant, b: Entrant, workloads: Sequence[str], metric: str) -> Pair:
    """The pair over the seeds that both have on every workload, and on every split that both have seen.

    Where no two of these have a seed in common it is over all seeds, each of which then votes for its own.
    """
    sign = quantity(metric).sign
    shared = {
        block: a.scores[block].keys() & b.scores[block].keys() for block in a.scores if block in b.scores
    }
    both = {block: seeds for block, seeds in shared.items() if seeds}
    blocks = [*both] if {w for w, _ in both} == set(workloads) else []
    common = set.intersection(*(set(both[block]) for block in blocks)) if blocks else set()
    every = set[int]().union(*(both[block] for block in blocks))
    if not common and len(every) == sum(len(both[block]) for block in blocks):
        common = every
    seeds = sorted(common, key=lambda seed: (isinstance(seed, str), seed))

    def table(side: Entrant) -> Array:
        shape = len(blocks), len(seeds)
        rows = [side.scores[k][s] if s in both[k] else math.nan for k in blocks for s in seeds]
        return np.asarray(rows, dtype=float).reshape(shape)

    scores = table(a), table(b)
    printed = [sign * statistics.rounded(x, metric) for x in scores]
    vote = statistics.votes(*printed)
    apart = _over_workloads(sign * statistics.minus(*scores))[vote != 0]
    won, lost = int((vote > 0).sum()), int((vote < 0).sum())
    choices = float(a.choices * b.choices)
    return Pair(
        a.name,
        b.name,
        len(seeds),
        int((~np.isnan(scores[0])).sum()),
        tuple(blocks),
        (int((printed[0] > printed[1]).sum()), int((printed[1] > printed[0]).sum())),
        won,
        lost,
        statistics.proportion(won, won + lost, choices),
        _middle(apart, choices),
        (float(apart.min()), float(apart.max())) if len(apart) else (math.nan, math.nan),
        (int(np.isinf(scores[0]).sum()), int(np.isinf(scores[1]).sum())),
        (_mean(scores[0], a, blocks), _mean(scores[1], b, blocks)),
        choices,
    )


def _middle(differences: Array, choices: float) -> Interval:
    """Their median. Between a loss and a win one of which is a failure there is no middle."""
    middle = statistics.median(differences, choices)
    if math.isinf(middle.estimate) and (differences > 0).sum() == (differences < 0).sum():
        return dataclasses.replace(middle, estimate=math.nan)
    return middle


def _over_workloads(differences: Array) -> Array:
    """Each seed's mean difference, of `[workloads, n]`. Where one side failed on more workloads than the
    other, it is infinite; where on as many, the mean is that of the workloads on which both finished."""
    lost = np.nansum(np.where(np.isinf(differences), np.sign(differences), 0.0), axis=0)
    finite = np.where(np.isfinite(differences), differences, np.nan)
    count = (~np.isnan(finite)).sum(0)
    mean = np.nansum(finite, axis=0) / np.maximum(count, 1)
    return np.asarray(np.where(lost == 0, mean, np.copysign(np.inf, lost)))


def _mean(scores: Array, side: Entrant, blocks: Sequence[Block]) -> float:
    """Mean over seeds, then over workloads, with failed runs at chance."""
    if not scores.size:
        return math.nan
    at_chance = np.asarray([[side.chance[w]] for w, _ in blocks])
    return float(np.nanmean(np.nanmean(np.where(np.isinf(scores), at_chance, scores), axis=1)))


def corrected(pairs: Sequence[Pair], candidate: str | None = None) -> list[Pair]:
    """The pairs with their p-values corrected for the number of statements: both directions of each, or,
    where a candidate was named beforehand, that it is ahead of each other one."""
    stated = [(k, side) for k, pair in enumerate(pairs) for side in (0, 1)
              if candidate is None or candidate == (pair.first, pair.second)[side]]  # fmt: skip
    adjusted = [[math.nan, math.nan] for _ in pairs]
    for (k, side), p in zip(stated, statistics.holm([pairs[k].p_values[s] for k, s in stated]), strict=True):
        adjusted[k][side] = p
    return [dataclasses.replace(p, adjusted=(x, y)) for p, (x, y) in zip(pairs, adjusted, strict=True)]


def statements(k: int, candidate: str | None) -> int:
    """How many statements a report on k competitors makes."""
    return k - 1 if candidate else k * (k - 1)


def proportions_won(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, float]:
    """The mean proportion of seeds that each wins against the others, a tie being half a win; else NaN."""
    proportions: dict[str, list[Fraction]] = {name: [] for name in names}
    for pair in pairs:
        if pair.seeds:
            # Exact, so that equal proportions compare as equal.
            won = Fraction(2 * pair.won + pair.tied, 2 * pair.seeds)
            proportions[pair.first].append(won)
            proportions[pair.second].append(1 - won)
    return {name: float(sum(of) / len(of)) if of else math.nan for name, of in proportions.items()}


def all_pairs(
    entrants: Sequence[Entrant], workloads: Sequence[str], metric: str, candidate: str | None
) -> list[Pair]:
    """Every two, as yet in the order of the entrants, with corrected p-values."""
    pairs = [pair_of(a, b, workloads, metric) for a, b in itertools.combinations(entrants, 2)]
    return corrected(pairs, candidate)


def scores_of(results: Mapping[str, Mapping[Seed, Result]]) -> dict[Block, dict[int, float]]:
    """The metric of every seed that measured it, by workload and split."""
    scores: dict[Block, dict[int, float]] = {}
    for workload, of_seed in results.items():
        for (seed, split), result in of_seed.items():
            if not math.isnan(result.best):
                scores.setdefault((workload, split), {})[seed] = result.best
    return scores
