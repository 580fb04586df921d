"""The statistics of the protocol against closed forms, SciPy and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ffn_bench.compare import statistics
from ffn_bench.compare.statistics import Array

INF = math.inf


def array(*values: float) -> Array:
    return np.asarray(values, dtype=float)


# --- aggregates -----------------------------------------------------------------------------------------


def test_aggregates_of_known_numbers() -> None:
    x = array(1, 2, 3, 4, 5, 6, 7, 100)
    assert statistics.AGGREGATES["mean"](x) == 16
    assert statistics.AGGREGATES["median"](x) == 4.5
    assert statistics.AGGREGATES["iqm"](x) == (3 + 4 + 5 + 6) / 4


def test_a_failure_enters_as_the_worst_value_and_is_never_dropped() -> None:
    accuracy = statistics.worst_filled([0.9, math.nan, -INF, 0.8, INF], "accuracy/test")
    assert accuracy.tolist() == [0.9, 0.0, -INF, 0.8, 0.0]
    loss = statistics.worst_filled([0.1, math.nan, INF], "loss/test")
    assert loss.tolist() == [0.1, INF, INF]


def test_infinities_in_aggregates() -> None:
    x = [array(0.1, 0.2, 0.3, 0.4, INF)]
    assert statistics.aggregate(x, "mean", 200).estimate == INF
    assert statistics.aggregate(x, "median", 200).estimate == 0.3
    assert statistics.aggregate(x, "iqm", 200).estimate == pytest.approx(0.3)
    everything_failed = statistics.aggregate([array(INF, INF, INF)], "median", 200)
    assert (everything_failed.estimate, everything_failed.low, everything_failed.high) == (INF, INF, INF)


@pytest.mark.parametrize("n", [1, 2])
def test_no_interval_below_three_seeds(n: int) -> None:
    x = np.linspace(0, 1, n)
    for found in (
        statistics.aggregate([x], "iqm"),
        statistics.difference([(x, x)], "iqm"),
        statistics.probability_of_improvement([(x, x)]),
    ):
        assert not found.known
        assert math.isfinite(found.estimate)
    assert math.isnan(statistics.paired_p_value(x))


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = statistics.aggregate([array(0.5, 0.5, 0.5, 0.5)], "iqm", 500)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)


def test_workloads_are_resampled_apart() -> None:
    """Two workloads without spread inside have none together, however far apart they are."""
    found = statistics.aggregate([array(0, 0, 0), array(1, 1, 1)], "mean", 500)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)


def test_differences_are_paired() -> None:
    """What all seeds share cancels: the difference is exact though each side varies."""
    x = np.random.default_rng(0).normal(size=12)
    found = statistics.difference([(x + 0.25, x)], "mean", 500)
    assert found.low == pytest.approx(0.25)
    assert found.high == pytest.approx(0.25)


def test_two_failures_differ_by_nothing() -> None:
    assert statistics.minus(array(INF, INF, 1.0), array(INF, 1.0, INF)).tolist() == [0.0, INF, -INF]


def test_the_interval_of_a_mean_is_students_for_normal_numbers() -> None:
    x = stats.norm.ppf((np.arange(30) + 0.5) / 30)
    found = statistics.aggregate([x], "mean", 50_000)
    half = stats.t.ppf(0.975, 29) * x.std(ddof=1) / math.sqrt(30)
    assert found.low == pytest.approx(-half, rel=0.03)
    assert found.high == pytest.approx(half, rel=0.03)


def coverage(aggregate: str, n: int, workloads: int, draws: int = 4000, resamples: int = 1000) -> float:
    """How often the interval covers the truth, 0, of normal numbers."""
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(draws, n)) for _ in range(workloads)]
    _, low, high = statistics.interval(
        values,
        lambda parts: statistics.AGGREGATES[aggregate](np.concatenate(parts, -1)),
        aggregate,
        resamples,
    )
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize(
    ("aggregate", "n", "workloads"),
    [
        *(("mean", n, w) for n, w in ((10, 1), (20, 1), (10, 4), (5, 3))),
        *((by, n, w) for by in ("iqm", "median") for n, w in ((5, 1), (10, 1), (20, 1), (10, 4))),
    ],
)
def test_95_percent_intervals_cover_the_truth_95_times_in_100(aggregate: str, n: int, workloads: int) -> None:
    assert 0.93 <= coverage(aggregate, n, workloads) <= 0.97


def test_plain_percentiles_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of coverage can fail: with ten seeds plain percentiles cover about 90 %."""
    monkeypatch.setattr(statistics, "levels", lambda sizes, by: (0.025, 0.975))
    assert coverage("mean", 10, 1) < 0.92


# --- two competitors ------------------------------------------------------------------------------------


def test_probability_of_improvement_counts_pairs_and_half_of_ties() -> None:
    x, y = array(1, 2, 3), array(1, 2, 4)
    wins = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(x, y))
    assert statistics.probability_of_improvement([(x, y)]).estimate == pytest.approx(wins / 9)
    assert statistics.probability_of_improvement([(x, x)]).estimate == 0.5
    better = statistics.probability_of_improvement([(x + 10, x)])
    assert (better.estimate, better.low, better.high) == (1.0, 1.0, 1.0)
    assert statistics.probability_of_improvement([(array(INF, 1, 2), array(0, 0, 0))]).estimate == 1.0
    assert statistics.probability_of_improvement([(x, y[:2])]).estimate == pytest.approx(4 / 6)  # unequal


def test_probability_of_improvement_is_the_mean_over_workloads() -> None:
    x = array(1, 2, 3, 4)
    found = statistics.probability_of_improvement([(x + 10, x), (x, x)])
    assert found.estimate == 0.75


def test_the_interval_of_the_probability_is_that_of_drawn_pairs() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, 1, 10), rng.normal(0, 1, 10)
    found = statistics.probability_of_improvement([(x, y)], 20_000)
    rows = rng.integers(0, 10, (20_000, 10))
    by_hand = (x[rows][:, :, None] > y[rows][:, None, :]).mean((1, 2))
    low, high = np.quantile(by_hand, statistics.levels([10]))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


@pytest.mark.parametrize("n", [5, 10, 30])
def test_p_values_are_scipys(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    assert statistics.paired_p_value(d) == pytest.approx(stats.ttest_rel(d + 7, np.full(n, 7.0)).pvalue)


def test_p_values_of_equal_differences() -> None:
    assert statistics.paired_p_value(np.zeros(5)) == 1.0
    assert statistics.paired_p_value(np.full(5, 0.01)) == 0.0
    assert statistics.paired_p_value(array(0.1 + 0.2, 0.3, 0.3)) == 0.0  # equal but for rounding


def test_infinite_differences_are_ranked_exactly() -> None:
    assert statistics.paired_p_value(array(INF, INF, INF, 1, 2)) == 2 / 32
    d = array(0.5, 0.5, -0.5, 0, INF, INF, 2, 0)
    large = np.where(np.isinf(d), 1e9, d)
    method = stats.PermutationMethod(n_resamples=INF)
    expected = stats.wilcoxon(large, zero_method="pratt", method=method).pvalue
    assert statistics.paired_p_value(d) == pytest.approx(expected)
    assert 0 < statistics.paired_p_value(np.append(np.arange(1.0, 20.0), INF)) < 0.001


@pytest.mark.parametrize("kind", ["accuracies", "failures"])
def test_of_equals_none_is_shown_to_be_better(kind: str) -> None:
    """Of 1,000 comparisons of five that are the same, at most 5 % (+ 3 σ) find a difference."""
    rng, found, n = np.random.default_rng(2), 0, 10
    for _ in range(1000):
        x = rng.binomial(270, rng.normal(0.95, 0.01, (5, n)).clip(0, 1)) / 270
        if kind == "failures":
            x[rng.random((5, n)) < 0.1] = 0.0
        p_values = [statistics.paired_p_value(a - b) for a, b in itertools.combinations(x, 2)]
        found += min(statistics.holm(p_values)) < 0.05
    assert found <= 1000 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000))


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    with_hole = statistics.holm([0.01, math.nan, 0.03])
    assert with_hole[0] == 0.02
    assert math.isnan(with_hole[1])


def test_friedman_and_critical_difference() -> None:
    scores = np.asarray([[3, 2, 1]] * 5, dtype=float)
    found = statistics.friedman(scores)
    assert found.mean == [1.0, 2.0, 3.0]
    assert found.p_value == pytest.approx(stats.chi2.sf(10.0, 2))
    assert found.critical_difference == pytest.approx(
        2.343 * math.sqrt(3 * 4 / 30), abs=1e-3
    )  # Demšar, table 5
    assert statistics.friedman(np.ones((5, 3))).p_value == 1.0
    tied = statistics.friedman(np.asarray([[1.0, 1.0, 0.0]] * 5))
    assert tied.mean == [1.5, 1.5, 3.0]


def test_shares_have_wilsons_interval() -> None:
    found = statistics.share(0, 10)
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.2775, abs=1e-4)
    assert math.isnan(statistics.share(0, 0).estimate)


# --- targets, profiles, budgets -------------------------------------------------------------------------


def test_the_first_measurement_that_meets_the_target() -> None:
    x, values = array(0, 1, 2, 3), array(0.1, math.nan, 0.5, 0.4)
    assert statistics.first_reach(x, values, 0.5, True) == 2
    assert statistics.first_reach(x, values, 0.6, True) == INF
    assert statistics.first_reach(x, values, 0.1, False) == 0


def test_a_target_is_met_by_more_than_half_of_its_reference() -> None:
    assert statistics.reached_by_half(array(1, 2, 3, 4), True) == 2
    assert statistics.reached_by_half(array(1, 2, 3, 4), False) == 3
    assert statistics.reached_by_half(array(1, 2, 9), True) == 2


def test_profile_and_score_are_exact() -> None:
    times = np.asarray([[10, 20, INF], [30, 10, INF], [10, 10, 50], [INF, INF, INF]], dtype=float)
    r = statistics.ratios(times)
    expected = [[1, 2, INF], [3, 1, INF], [1, 1, 5], [INF, INF, INF]]
    assert r.tolist() == expected
    assert statistics.profile(r, array(1, 2, 4)).tolist() == [[0.5, 0.5, 0], [0.5, 0.75, 0], [0.75, 0.75, 0]]
    area = [(3 + 1 + 3 + 0) / 12, (2 + 3 + 3 + 0) / 12, 0.0]
    assert statistics.profile_score(r).tolist() == pytest.approx(area)
    fine = np.linspace(1, 4, 300_001)
    assert statistics.profile(r, fine)[:-1].mean(0) == pytest.approx(area, abs=1e-5)


def test_someone_who_is_there_at_once_is_the_fastest() -> None:
    assert statistics.ratios(np.asarray([[0.0, 10.0, 0.0]])).tolist() == [[1.0, INF, 1.0]]


def test_optimality_gap() -> None:
    assert statistics.optimality_gap(array(0.5, 1.0, 0.9), 0.9, True) == pytest.approx(0.4 / 3)
    assert statistics.optimality_gap(array(0.5, 1.0, 0.9), 0.9, False) == pytest.approx(0.1 / 3)
    assert statistics.optimality_gap(array(INF, 0.1), 0.2, False) == INF


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_of_a_budget_over_every_order(higher: bool) -> None:
    scores = array(0.3, 0.9, 0.5, 0.7, 0.1, 0.5)
    found = statistics.best_of_budget(scores, higher)
    best = np.maximum.accumulate if higher else np.minimum.accumulate
    orders = np.asarray([best(order) for order in itertools.permutations(scores)])
    signed = orders if higher else -orders
    by_hand = np.quantile(signed, (0.25, 0.5, 0.75), axis=0, method="inverted_cdf").T
    assert found.tolist() == (by_hand if higher else -by_hand).tolist()


def test_the_best_of_a_large_budget_is_finite() -> None:
    found = statistics.best_of_budget(np.arange(3000.0), True)
    assert found[-1].tolist() == [2999.0] * 3
    assert np.isfinite(found).all()
