"""The statistics of the protocol: pure functions from arrays to numbers. Nothing here knows runs or files.

Arrays hold one number a seed, in their last axis; a *workload* (a data set with a network) is one such array.
A run that failed has the worst value there is, never NaN and never no value: see `worst`. Infinite values are
meant: a target that was never met is met at ∞.

Sources: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021),
for aggregates over seeds and workloads; Hesterberg, What Teachers Should Know about the Bootstrap (The
American Statistician, 2015), for small samples; Dolan and Moré (Mathematical Programming, 2002) for
performance profiles; Demšar (JMLR, 2006) for ranks over data sets; Dodge et al., Show Your Work (EMNLP 2019),
for results against the budget of tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
Aggregate = Callable[[Array], Array]
"""From `[…, n]` to `[…]`."""

LEVEL = 0.95
RESAMPLES = 50_000
"""Of the bootstrap, for a number; curves take `CURVE_RESAMPLES`."""
CURVE_RESAMPLES = 2_000
ENOUGH = 3
"""Seeds below which no interval is given."""
CHUNK = 4_000_000
"""Numbers resampled at once."""

AGGREGATES: dict[str, Aggregate] = {
    "mean": lambda x: np.mean(x, axis=-1),
    "median": lambda x: np.median(x, axis=-1),
    "iqm": lambda x: np.asarray(stats.trim_mean(x, 0.25, axis=-1)),
}
"""Ways to sum up seeds. `iqm`, the interquartile mean, is the mean of the middle half."""


def higher_is_better(metric: str) -> bool:
    """Whether a metric is an accuracy; all others are losses."""
    return metric.startswith("accuracy")


def worst(metric: str) -> float:
    """What a run that diverged counts as: accuracy 0, loss ∞."""
    return 0.0 if higher_is_better(metric) else math.inf


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


# --- the bootstrap --------------------------------------------------------------------------------------


def levels(sizes: Sequence[int], by: str = "mean") -> tuple[float, float]:
    """The two percentiles of the bootstrap distribution between which a 95 % interval lies.

    Plain percentiles (2.5 and 97.5) take the normal's quantile in place of Student's, and the bootstrap's
    spread of a mean is too small by √((n−1)/n): of ten seeds, 90 % of such intervals would cover the truth.
    They are widened for both (Hesterberg, 2015, section 4.1.3); for `by` median and IQM for the first alone,
    since they have no such shrinkage.
    """
    freedom, n = sum(sizes) - len(sizes), sum(sizes) / len(sizes)
    shrinkage = math.sqrt(n / (n - 1)) if by == "mean" else 1.0
    tail = stats.norm.cdf(-shrinkage * stats.t.ppf((1 + LEVEL) / 2, freedom))
    return float(tail), float(1 - tail)


def interval(
    workloads: Sequence[Array],
    statistic: Callable[[list[Array]], Array],
    by: str = "mean",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    """Estimate and ends of the percentile stratified bootstrap: seeds are drawn again inside each workload.

    `workloads` are arrays `[…, n]`; all that stands in the leading axes is drawn together, so that two rows
    stay paired by seed. `statistic` maps a list of them, `[…, n]` or with an axis of resamples `[…, B, n]`,
    to `[]` or `[B]` (whatever leading axes it keeps come first), and is an aggregate of the kind `by`. Ends
    are NaN below three seeds.
    """
    estimate = np.asarray(statistic(list(workloads)))
    sizes = [w.shape[-1] for w in workloads]
    if min(sizes) < ENOUGH:
        return estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    rng = np.random.default_rng(seed)
    numbers = sum(w.size for w in workloads)
    done, drawn = 0, []
    while done < resamples:
        count = min(resamples - done, max(1, CHUNK // numbers))
        again = [w[..., rng.integers(0, n, (count, n))] for w, n in zip(workloads, sizes, strict=True)]
        drawn.append(np.asarray(statistic(again)))
        done += count
    distribution = np.concatenate(drawn, axis=-1)
    # An end is a number that was drawn: no interpolation, which between infinities would be NaN.
    low, high = np.quantile(distribution, levels(sizes, by), axis=-1, method="inverted_cdf")
    return estimate, low, high


def aggregate(workloads: Sequence[Array], by: str, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The aggregate called `by` over the seeds of each workload, `[n]` each, and its mean over workloads.

    Scores of different workloads are not on one scale: pooled, the IQM would leave out the hardest workload.
    """
    found = interval(workloads, lambda parts: _over_all(parts, by), by, resamples, seed)
    return Interval(*map(float, found))


def difference(
    pairs: Sequence[tuple[Array, Array]], by: str, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Aggregate of the first minus that of the second, `[n]` each, paired by seed inside each workload."""
    stacked = [np.stack(pair) for pair in pairs]

    def statistic(parts: list[Array]) -> Array:
        return minus(_over_all([p[0] for p in parts], by), _over_all([p[1] for p in parts], by))

    return Interval(*map(float, interval(stacked, statistic, by, resamples, seed)))


def minus(a: Array, b: Array) -> Array:
    """a − b, where two equal infinities (both failed) differ by 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


def _over_all(parts: list[Array], by: str) -> Array:
    with np.errstate(invalid="ignore"):  # ∞ − ∞ inside of a mean's arithmetic
        return np.asarray(sum(AGGREGATES[by](part) for part in parts) / len(parts))


def probability_of_improvement(
    pairs: Sequence[tuple[Array, Array]], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """How likely a run of the first is larger than one of the second: Mann–Whitney U / (m n), ties ½; the
    mean over workloads. The interval draws paired seeds again."""
    wins, sizes = [], []
    for x, y in pairs:
        m, n = len(x), len(y)
        if m == 0 or n == 0:
            return Interval(math.nan)
        wins.append(float(stats.mannwhitneyu(x, y, method="asymptotic").statistic) / (m * n))
        sizes.append((m, n))
    estimate = float(np.mean(wins))
    if any(m != n or m < ENOUGH for m, n in sizes):
        return Interval(estimate)
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for (x, y), (n, _) in zip(pairs, sizes, strict=True):
        larger = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
        counts = rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float)
        total += ((counts @ larger) * counts).sum(-1) / n**2
    low, high = np.quantile(total / len(pairs), levels([n for n, _ in sizes]), method="inverted_cdf")
    return Interval(estimate, float(low), float(high))


# --- tests ----------------------------------------------------------------------------------------------


def paired_p_value(differences: Array) -> float:
    """Two-sided p-value that paired differences are 0 on average: Student's t.

    Rank and sign tests cannot go below 2^(1−n): with ten seeds and twelve competitors nothing would be
    significant after correction, whatever the difference. Where one is infinite (the loss of a run that
    diverged) there is no mean, and Wilcoxon's signed-rank test takes its place.
    """
    if len(differences) < ENOUGH:
        return math.nan
    if np.isinf(differences).any():
        return _signed_rank(differences)
    spread = differences.std(ddof=1)
    if spread <= 1e-12 * np.abs(differences).max():
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _signed_rank(differences: Array) -> float:
    n = len(differences)
    ranks = stats.rankdata(np.abs(differences))[differences != 0]  # zeros take their ranks with them (Pratt)
    if n > EXACT:
        return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
    # SciPy's exact distribution knows no ties, and failed runs tie.
    signs = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1
    null = np.abs(signs @ ranks - ranks.sum() / 2)
    found = abs(ranks[differences[differences != 0] > 0].sum() - ranks.sum() / 2)
    return float((null >= found - 1e-9).mean())


EXACT = 14
"""Pairs up to which that test goes through all signs; past it SciPy's."""


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm, 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    order = [i for i in np.argsort(p) if not math.isnan(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = largest
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Ranks:
    """Friedman's test over workloads: mean ranks (1 is best), p-value, Nemenyi's critical difference."""

    mean: list[float]
    p_value: float
    critical_difference: float


def friedman(scores: Array) -> Ranks:
    """Compare k ≥ 3 competitors over N workloads by ranks; `scores` is `[N, k]`, larger is better."""
    n, k = scores.shape
    ranks = stats.rankdata(-scores, axis=1)
    same = bool((ranks == ranks[:, :1]).all())
    p_value = 1.0 if same else float(stats.friedmanchisquare(*scores.T).pvalue)
    q = stats.studentized_range.ppf(LEVEL, k, np.inf) / math.sqrt(2)
    critical = float(q * math.sqrt(k * (k + 1) / (6 * n)))
    return Ranks([float(r) for r in ranks.mean(0)], p_value, critical)


def share(count: int, total: int) -> Interval:
    """A share and its 95 % interval (Wilson's)."""
    if total == 0:
        return Interval(math.nan)
    ci = stats.binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return Interval(count / total, float(ci.low), float(ci.high))


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
    found = float(ordered[(len(ordered) - 1) // 2])
    return found if higher else -found


def ratios(times: Array) -> Array:
    """r = t / min over competitors, of times `[workloads, competitors]`; ∞ where nobody arrives."""
    best = times.min(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(times == best, 1.0, times / best)
    return np.asarray(np.where(np.isinf(times), np.inf, found))


def profile(r: Array, tau: Array) -> Array:
    """ρ(τ): the share of workloads with r ≤ τ, `[len(tau), competitors]`."""
    return np.asarray((r[None] <= tau[:, None, None]).mean(1))


def profile_score(r: Array) -> Array:
    """The area under each competitor's profile from τ = 1 to 4, over 3: mean of max(0, 4 − r) / 3."""
    return np.asarray(np.maximum(0.0, 4.0 - r).mean(0) / 3.0)


def optimality_gap(values: Array, target: float, higher: bool) -> float:
    """Mean shortfall from a target; what is past it counts as 0."""
    short = (
        minus(np.full_like(values, target), values) if higher else minus(values, np.full_like(values, target))
    )
    return float(np.maximum(0.0, short).mean())


def best_of_budget(scores: Array, higher: bool, quantiles: Sequence[float] = (0.25, 0.5, 0.75)) -> Array:
    """Quantiles of the best score among the first k trials, over all orders of the trials: `[N, quantiles]`.

    Exact: the best of k trials drawn from N is at most the i-th smallest with probability C(i, k) / C(N, k).
    """
    n = len(scores)
    ordered = np.sort(scores if higher else -scores)
    i, k = np.arange(1, n + 1), np.arange(1, n + 1)[:, None]
    logs = special.gammaln
    with np.errstate(invalid="ignore"):
        ways = logs(i + 1) - logs(np.maximum(i - k, 0) + 1) - logs(n + 1) + logs(n - k + 1)  # k! cancels
    below = np.where(i >= k, np.exp(ways), 0.0)  # [k, i]
    places = (below[:, None, :] < np.asarray(quantiles)[:, None] - 1e-12).sum(-1)
    found = ordered[np.minimum(places, n - 1)]
    return np.asarray(found if higher else -found)


def worst_filled(values: Any, metric: str) -> Array:
    """Numbers with NaN and the wrong infinity replaced by the worst value of the metric."""
    array = np.asarray(values, dtype=float)
    bad = np.isnan(array) | (array == (np.inf if higher_is_better(metric) else -np.inf))
    return np.where(bad, worst(metric), array)
