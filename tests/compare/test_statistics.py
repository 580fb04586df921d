"""The statistics of the protocol against closed forms, SciPy and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ffn_bench.compare import statistics
from ffn_bench.compare.statistics import Array

INF = math.inf


def array(*values: float) -> Array:
    return np.asarray(values, dtype=float)


# --- aggregates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 31])
def test_the_interquartile_mean_is_scipys(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(20, n))
    x[3, 0], x[4] = INF, np.nan
    assert np.array_equal(statistics.AGGREGATES["iqm"](x), stats.trim_mean(x, 0.25, axis=-1), equal_nan=True)


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


# --- what is claimed ------------------------------------------------------------------------------------


@given(won=st.integers(0, 60), lost=st.integers(0, 60))
def test_the_sign_test_is_scipys(won: int, lost: int) -> None:
    if won + lost:
        expected = stats.binomtest(won, won + lost, alternative="greater").pvalue
        assert statistics.sign_test(won, lost) == pytest.approx(expected, rel=1e-12)
    assert 1 - statistics.sign_test(won, lost) == pytest.approx(
        statistics.sign_test(lost + 1, won - 1) if won else 0.0, abs=1e-12
    )


@given(total=st.integers(1, 80), data=st.data())
def test_shares_have_clopper_and_pearsons_interval(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, total))
    interval, expected = (
        statistics.proportion(count, total),
        stats.binomtest(count, total).proportion_ci(0.95, "exact"),
    )
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    # It leaves out one half exactly where the sign test, two-sided, rejects it.
    both = 2 * min(statistics.sign_test(count, total - count), statistics.sign_test(total - count, count))
    assert (interval.low > 0.5 or interval.high < 0.5) == (both <= 0.05)
    wider = statistics.proportion(count, total, 36.0)
    assert wider.low <= interval.low
    assert wider.high >= interval.high


def test_nothing_to_share() -> None:
    assert math.isnan(statistics.proportion(0, 0).estimate)


@pytest.mark.parametrize(("n", "rank"), [(5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (30, 10)])
def test_the_interval_of_a_median_is_of_order_statistics(n: int, rank: int) -> None:
    """The ranks are those of tables of the sign test (Conover, Practical Nonparametric Statistics, table
    A3)."""
    values = np.random.default_rng(n).normal(size=n)
    interval, ordered = statistics.median(values), np.sort(values)
    assert interval.estimate == pytest.approx(np.median(values))
    assert statistics.rank_of_end(n) == rank
    if rank:
        assert (interval.low, interval.high) == (ordered[rank - 1], ordered[n - rank])
    assert interval.known == bool(rank)


@pytest.mark.parametrize("n", [6, 10, 20, 30])
@pytest.mark.parametrize("kind", ["normal", "lognormal", "failing"])
def test_the_interval_of_a_median_covers_it(n: int, kind: str) -> None:
    rng, covered, draws = np.random.default_rng(n), 0, 2000
    for _ in range(draws):
        x = rng.normal(size=n)
        if kind == "lognormal":
            x = np.exp(x) - 1
        if kind == "failing":  # one in five fails on either side of 0
            x = np.where(rng.random(n) < 0.2, np.copysign(INF, x), x)
        interval = statistics.median(x)
        covered += interval.low <= 0 <= interval.high
    assert stats.binomtest(covered, draws, 0.95, alternative="less").pvalue > 1e-4


def test_votes() -> None:
    a = np.asarray([[0.9, 0.9, -INF, -INF, 0.5], [0.8, 0.1, 0.9, -INF, math.nan]])
    b = np.asarray([[0.8, 0.9, 0.1, -INF, 0.4], [0.7, 0.2, 0.1, 0.0, math.nan]])
    assert statistics.votes(a, b).tolist() == [1, -1, 0, -1, 1]
    assert statistics.votes(b, a).tolist() == [-1, 1, 0, 1, -1]


def test_what_is_printed_alike_ties() -> None:
    assert statistics.rounded(array(0.97001, 0.97004, 0.9701, -INF), "accuracy/test").tolist() == [
        0.97, 0.97, 0.9701, -INF,
    ]  # fmt: skip
    losses = array(0.123441, 0.123449, 1234.4, 0.0, INF)
    assert statistics.rounded(losses, "loss/test").tolist() == [0.1234, 0.1234, 1234.0, 0.0, INF]


@pytest.mark.parametrize(
    ("k", "least"), [(2, 6), (3, 7), (4, 8), (5, 9), (6, 10), (7, 10), (8, 11), (10, 11), (11, 12), (12, 12)]
)
def test_the_fewest_seeds(k: int, least: int) -> None:
    """With one seed less not even a clean sweep passes Holm's first step."""
    statements = k * (k - 1)
    assert statistics.fewest(statements) == least
    p, p_of_fewer = statistics.sign_test(least, 0), statistics.sign_test(least - 1, 0)
    assert statements * p <= 0.05 < statements * p_of_fewer


def test_two_failures_differ_by_nothing() -> None:
    assert statistics.minus(array(INF, INF, 1.0), array(INF, 1.0, INF)).tolist() == [0.0, INF, -INF]


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


# --- what is described ----------------------------------------------------------------------------------


def test_bands_are_percentiles_of_the_bootstrap() -> None:
    x = np.random.default_rng(0).normal(size=(1, 12))
    center, low, high = statistics.band(x, "mean", 20_000)
    reference = stats.bootstrap((x[0],), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert center == pytest.approx(x.mean())
    assert (low[0], high[0]) == pytest.approx(tuple(reference.confidence_interval), abs=0.02)


def test_bands_of_many_points_and_of_few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(7, 5))
    at_once = statistics.band(x, "median")
    monkeypatch.setattr(statistics, "AT_ONCE", 3 * 5 * statistics.CURVE_RESAMPLES)
    assert all(np.array_equal(a, b) for a, b in zip(statistics.band(x, "median"), at_once, strict=True))
    center, low, _ = statistics.band(x[:, :2], "mean")
    assert np.isfinite(center).all()
    assert np.isnan(low).all()
    _, low, high = statistics.band(array(INF, INF, INF)[None], "median")
    assert (low[0], high[0]) == (INF, INF)


# --- over workloads -------------------------------------------------------------------------------------


def test_friedman_and_critical_difference() -> None:
    scores = np.asarray([[3, 2, 1]] * 5, dtype=float)
    ranks = statistics.friedman(scores)
    assert ranks.mean == [1.0, 2.0, 3.0]
    assert ranks.p_value == pytest.approx(stats.chi2.sf(10.0, 2))
    assert ranks.critical_difference == pytest.approx(
        2.343 * math.sqrt(3 * 4 / 30), abs=1e-3
    )  # Demšar, table 5
    assert statistics.friedman(np.ones((5, 3))).p_value == 1.0
    tied = statistics.friedman(np.asarray([[1.0, 1.0, 0.0]] * 5))
    assert tied.mean == [1.5, 1.5, 3.0]


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
    quantiles = statistics.best_of_budget(scores, higher)
    best = np.maximum.accumulate if higher else np.minimum.accumulate
    orders = np.asarray([best(order) for order in itertools.permutations(scores)])
    signed = orders if higher else -orders
    by_hand = np.quantile(signed, (0.25, 0.5, 0.75), axis=0, method="inverted_cdf").T
    assert quantiles.tolist() == (by_hand if higher else -by_hand).tolist()


def test_the_best_of_a_large_budget_is_finite() -> None:
    best = statistics.best_of_budget(np.arange(3000.0), True)
    assert best[-1].tolist() == [2999.0] * 3
    assert np.isfinite(best).all()
