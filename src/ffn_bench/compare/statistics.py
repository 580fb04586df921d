"""The statistics of the protocol: pure functions from arrays to numbers. Nothing here knows runs or files.

Arrays hold one number per seed, in their last axis. Infinite values are intended: a failed run is infinitely
bad, and a target that was never met is met at ∞.

What is claimed rests on one test, the exact sign test of the votes of seeds, with the intervals that invert
it. Everything else describes. Sources: Bahadur and Savage, The Nonexistence of Certain Statistical
Procedures in Nonparametric Problems (1956): no test of a mean is valid where a rare loss may be large;
Clopper and Pearson (Biometrika, 1934) for proportions; Holm (Scandinavian Journal of Statistics, 1979) for
many statements; David and Nagaraja, Order Statistics (2003), section 7.1, for medians; Dolan and Moré
(Mathematical Programming, 2002) for performance profiles; Demšar (JMLR, 2006) for ranks over data sets;
Dodge et al., Show Your Work (EMNLP 2019), for results against the budget of tuning.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn_bench.tags import quantity

Array = NDArray[np.float64]
Aggregate = Callable[[Array], Array]
"""From `[…, n]` to `[…]`."""

LEVEL = 0.95
SIGNIFICANT = 0.05
"""The largest probability that a report makes a false claim."""
CURVE_RESAMPLES = 2_000
"""Of the bootstrap that draws bands."""
AT_ONCE = 4_000_000
"""Numbers drawn at once."""

AGGREGATES: dict[str, Aggregate] = {
    "mean": lambda x: np.mean(x, axis=-1),
    "median": lambda x: np.median(x, axis=-1),
    "iqm": lambda x: _middle_half(x),
}
"""Ways to sum up seeds. `iqm`, the interquartile mean, is the mean of the middle half."""


def _middle_half(x: Array) -> Array:
    """The mean without the lowest and the highest quarter of the numbers, each rounded down.

    SciPy's trim_mean gives the same numbers; importing it takes half as long as importing PyTorch.
    """
    n = x.shape[-1]
    if n == 0:
        return np.full(x.shape[:-1], np.nan)
    cut = n // 4
    return np.asarray(np.mean(np.partition(x, (cut, n - cut - 1), axis=-1)[..., cut : n - cut], axis=-1))


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval, whose ends are NaN where there are too few seeds for one."""

    estimate: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))


# --- what is claimed --------------------------------------------------------------------------------------


def rounded(values: Array, metric: str) -> Array:
    """Numbers as a report prints them: proportions to 0.01 %, others to four digits. Numbers that are then
    equal tie."""
    if quantity(metric).is_percent:
        return np.round(values, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = 3 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** np.where(np.isfinite(digits), digits, 0)
    return np.where(np.isfinite(values), np.round(values * scale) / scale, values)


def votes(a: Array, b: Array) -> Array:
    """The vote of each seed, `[n]`: 1 for a, −1 for b, 0 for neither, of scores `[workloads, n]`.

    Larger scores are better; −∞ is a run that failed, NaN a workload that the seed was not run on. A seed's
    vote over several workloads is that of the majority of them, so that none of them decides alone.
    """
    each = np.where(a == b, 0.0, np.sign(minus(a, b)))
    return np.asarray(np.sign(np.nansum(each, axis=0)))


def minus(a: Array, b: Array) -> Array:
    """a − b, where two equal infinities (both failed) differ by 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


@functools.lru_cache(maxsize=4096)
def sign_test(won: int, lost: int) -> float:
    """How likely at least so many of the seeds that decide are won by one of two equals: P(Bin(K, ½) ≥
    won)."""
    decided = won + lost
    return float(sum(math.comb(decided, i) for i in range(won, decided + 1)) / 2**decided)


@functools.lru_cache(maxsize=4096)
def proportion(count: int, total: int, choices: float = 1.0) -> Interval:
    """A proportion and its exact 95 % interval (Clopper and Pearson), widened for the one chosen among
    `choices` (Bonferroni)."""
    if total == 0:
        return Interval(math.nan)
    from scipy import special

    tail = (1 - LEVEL) / 2 / choices
    low = special.betaincinv(count, total - count + 1, tail) if count else 0.0
    high = special.betaincinv(count + 1, total - count, 1 - tail) if count < total else 1.0
    return Interval(count / total, float(low), float(high))


@functools.lru_cache(maxsize=4096)
def rank_of_end(n: int, choices: float = 1.0) -> int:
    """The largest r for which the r-th smallest and largest of n numbers hold their median with 95 %; 0 if
    none."""
    r = 0
    while r < n // 2 and 2 * sign_test(n - r, r) * choices <= 1 - LEVEL:
        r += 1
    return r


def median(values: Array, choices: float = 1.0) -> Interval:
    """The median of `[n]` and its 95 % interval between two of the numbers: the sign test inverted.

    It holds for every distribution, with infinities too. Below six numbers there is none; more are needed
    where the numbers are the best of `choices`.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if n == 0 or np.isnan(ordered).any():
        return Interval(math.nan)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    unlike = math.isinf(low) and math.isinf(high) and low != high
    estimate = math.nan if unlike else float(low) if low == high else float(low + high) / 2
    r = rank_of_end(n, choices)
    return Interval(estimate, float(ordered[r - 1]), float(ordered[n - r])) if r else Interval(estimate)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, 1979)."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.empty_like(p)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return [float(value) for value in adjusted]


def fewest(statements: float) -> int:
    """The fewest deciding seeds with which one of so many statements can be shown, if all are won."""
    return math.ceil(math.log2(max(1.0, statements) / SIGNIFICANT))


# --- what is described --------------------------------------------------------------------------------------


def band(values: Array, aggregate: str, resamples: int = CURVE_RESAMPLES) -> tuple[Array, Array, Array]:
    """Aggregate of `[points, n]` over n, and its 2.5 and 97.5 % quantiles when seeds are resampled.

    The bootstrap describes how much a curve depends on its seeds; with few of them it has no guaranteed
    coverage. Ends are NaN below three.
    """
    n = values.shape[-1]
    with np.errstate(invalid="ignore"):  # ∞ − ∞ inside of a mean's arithmetic
        center = AGGREGATES[aggregate](values)
        low, high = np.full_like(center, np.nan), np.full_like(center, np.nan)
        if n >= 3:
            draws = np.random.default_rng(0).integers(0, n, (resamples, n))
            at_once = max(1, AT_ONCE // draws.size)
            for k in range(0, len(values), at_once):
                drawn = AGGREGATES[aggregate](values[k : k + at_once, draws])
                # An end is a number that was drawn: interpolated between infinities it would be NaN.
                ends = np.quantile(drawn, (0.025, 0.975), axis=-1, method="inverted_cdf")
                low[k : k + at_once], high[k : k + at_once] = ends
    return center, low, high


@dataclass(frozen=True)
class Ranks:
    """Friedman's test over workloads: mean ranks (1 is best), p-value, Nemenyi's critical difference."""

    mean: list[float]
    p_value: float
    critical_difference: float


def friedman(scores: Array) -> Ranks:
    """Compare k ≥ 3 competitors over N workloads by ranks; `scores` is `[N, k]`, larger is better."""
    from scipy import stats  # slow to import

    n, k = scores.shape
    ranks = stats.rankdata(-scores, axis=1)
    same = bool((ranks == ranks[:, :1]).all())
    p_value = 1.0 if same else float(stats.friedmanchisquare(*scores.T).pvalue)
    q = stats.studentized_range.ppf(LEVEL, k, np.inf) / math.sqrt(2)
    critical = float(q * math.sqrt(k * (k + 1) / (6 * n)))
    return Ranks([float(r) for r in ranks.mean(0)], p_value, critical)


# --- targets, profiles, budgets -------------------------------------------------------------------------


def first_reach(x: Array, values: Array, target: float, higher: bool) -> float:
    """The first `x` at which `values` meet the target; ∞ where they never do. NaN meets nothing."""
    met = np.flatnonzero(values >= target if higher else values <= target)
    return float(x[met[0]]) if len(met) else math.inf


def reached_by_half(values: Array, higher: bool) -> float:
    """The median; of an even number of values the one of the middle two that more than half of them reach.

    Their mean would be met by half of them only, and the median time to it would be ∞.
    """
    ordered = np.sort(values if higher else -values)
    value = float(ordered[(len(ordered) - 1) // 2])
    return value if higher else -value


def ratios(times: Array) -> Array:
    """r = t / min over competitors, of times `[workloads, competitors]`; ∞ where none meets the target."""
    best = times.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(times == best, 1.0, times / best)
    return np.asarray(np.where(np.isinf(times), np.inf, ratio))


def profile(r: Array, tau: Array) -> Array:
    """ρ(τ): the proportion of workloads with r ≤ τ, `[len(tau), competitors]`."""
    return np.asarray((r[None] <= tau[:, None, None]).mean(1))


def profile_score(r: Array) -> Array:
    """The area under each competitor's profile from τ = 1 to 4, over 3: mean of max(0, 4 − r) / 3."""
    return np.asarray(np.maximum(0.0, 4.0 - r).mean(0) / 3.0)


def optimality_gap(values: Array, target: float, higher: bool) -> float:
    """Mean shortfall from a target; values beyond it count as 0."""
    short = (
        minus(np.full_like(values, target), values) if higher else minus(values, np.full_like(values, target))
    )
    return float(np.maximum(0.0, short).mean())


def best_of_budget(scores: Array, higher: bool, quantiles: Sequence[float] = (0.25, 0.5, 0.75)) -> Array:
    """Quantiles of the best score among the first k trials, over all orders of the trials: `[N, quantiles]`.

    Exact: the best of k trials drawn from N is at most the i-th smallest with probability C(i, k) / C(N, k).
    """
    from scipy import special

    n = len(scores)
    ordered = np.sort(scores if higher else -scores)
    i, k = np.arange(1, n + 1), np.arange(1, n + 1)[:, None]
    logs = special.gammaln
    with np.errstate(invalid="ignore"):
        log_p = logs(i + 1) - logs(np.maximum(i - k, 0) + 1) - logs(n + 1) + logs(n - k + 1)  # k! cancels
    below = np.where(i >= k, np.exp(log_p), 0.0)  # [k, i]
    ranks = (below[:, None, :] < np.asarray(quantiles)[:, None] - 1e-12).sum(-1)
    best = ordered[np.minimum(ranks, n - 1)]
    return np.asarray(best if higher else -best)


def worst_filled(values: Any, metric: str) -> Array:
    """Numbers with NaN and the wrong infinity replaced by the worst value of the metric."""
    array = np.asarray(values, dtype=float)
    measured = quantity(metric)
    bad = np.isnan(array) | (array == measured.sign * np.inf)
    return np.where(bad, measured.worst, array)
