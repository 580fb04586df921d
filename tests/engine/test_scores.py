"""Scores of a split against scikit-learn's."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn import calibration, metrics
from sklearn.exceptions import UndefinedMetricWarning

from ffn_bench import tags
from ffn_bench.data.rows import Split
from ffn_bench.engine import scores
from ffn_bench.engine.metrics import CHUNK, predictions
from ffn_bench.model.losses import OUTPUTS, Criterion

Rows = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def rows(draw: st.DrawFn, every_class: bool = False) -> Rows:
    """Logits `[n, n_classes]` and labels `[n]`: many equal ones, some so far apart that probabilities are 0
    and 1, constant predictions, one row, classes without rows."""
    n_classes = draw(st.integers(2, 6))
    n = draw(st.integers(n_classes if every_class else 1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = generator.integers(0, draw(st.integers(1, n_classes)), n)
    if every_class:
        y[:n_classes] = np.arange(n_classes)
        y = generator.permutation(y)
    values = draw(st.sampled_from([1, 2, 5, 1000]))
    scale = draw(st.sampled_from([0.0, 0.3, 1.0, 50.0, 1e4]))
    logits = generator.integers(0, values, (n, n_classes)) * scale
    return logits + draw(st.sampled_from([0.0, 2.0])) * np.eye(n_classes)[y], y


def predicted(case: Rows) -> scores.Predictions:
    logits, y = case
    return scores.Predictions(softmax(logits, axis=1), logits.argmax(1), y)


def mean_recall(p: scores.Predictions) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and have no row
        return float(metrics.balanced_accuracy_score(p.y, p.predicted))


def area(p: scores.Predictions) -> float:
    classes = range(p.n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # it is NaN then
        if p.n_classes == 2:
            return float(metrics.roc_auc_score(p.y, p.probabilities[:, 1], labels=classes))
        ovr = {"multi_class": "ovr", "average": "macro", "labels": classes}
        return float(metrics.roc_auc_score(p.y, p.probabilities, **ovr))


def expected_gap(p: scores.Predictions) -> float:
    """From the bins of scikit-learn's calibration curve, which leaves out empty ones."""
    confidence, correct = p.probabilities.max(1), p.predicted == p.y
    true, mean = calibration.calibration_curve(correct, confidence, n_bins=15, pos_label=True)
    edges = np.linspace(0, 1, 16)
    within = [(confidence > low) & (confidence <= high) for low, high in itertools.pairwise(edges)]
    counts = np.array([w.sum() for w in within if w.any()])
    return float((counts * np.abs(true - mean)).sum() / len(p.y))


REFERENCES: dict[str, Callable[[scores.Predictions], float]] = {
    "balanced_accuracy": mean_recall,
    "macro_f1": lambda p: metrics.f1_score(p.y, p.predicted, average="macro", zero_division=0),
    "roc_auc": area,
    "log_loss": lambda p: metrics.log_loss(p.y, p.probabilities, labels=range(p.n_classes)),
    "calibration_error": expected_gap,
}


def test_every_score_of_a_split_has_a_function_and_a_reference() -> None:
    assert {score.name for score in tags.SPLIT_SCORES} == set(scores.OF_SPLIT) == set(REFERENCES)


@pytest.mark.parametrize("name", REFERENCES)
@given(case=rows())
@example(case=(np.zeros((1, 2)), np.array([1])))
@example(case=(np.zeros((5, 3)), np.array([0, 1, 2, 1, 1])))
@example(case=(np.full((4, 2), 1e300) * [1, -1], np.array([0, 1, 1, 0])))
def test_scores_are_those_of_scikit_learn(name: str, case: Rows) -> None:
    p = predicted(case)
    expected = REFERENCES[name](p)
    assert scores.OF_SPLIT[name](p) == pytest.approx(expected, abs=1e-12, rel=1e-12, nan_ok=True)


@given(case=rows(every_class=True))
def test_the_area_is_known_where_every_class_has_rows(case: Rows) -> None:
    p = predicted(case)
    assert not math.isnan(scores.roc_auc(p))
    assert scores.roc_auc(p) == pytest.approx(area(p), abs=1e-12)


def test_the_area_is_not_known_without_a_row_of_every_class() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 3))
    for y in (np.array([0, 1] * 4 + [0]), np.full(9, 2)):
        assert math.isnan(scores.roc_auc(predicted((logits, y))))
    for label in (0, 1):
        assert math.isnan(scores.roc_auc(predicted((logits[:, :2], np.full(9, label)))))


@given(case=rows())
def test_what_is_measured_lies_within_its_bounds(case: Rows) -> None:
    for name, score in scores.OF_SPLIT.items():
        value, quantity = score(predicted(case)), tags.quantity(name)
        assert math.isnan(value) or quantity.lowest <= value <= quantity.highest


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_chance_is_what_a_constant_prediction_comes_to(n_classes: int) -> None:
    p = predicted((np.zeros((3 * n_classes, n_classes)), np.repeat(np.arange(n_classes), 3)))
    for name, score in scores.OF_SPLIT.items():
        if (chance := tags.quantity(name).chance) is not None:
            assert score(p) == pytest.approx(chance(n_classes), abs=1e-12)


@given(case=rows())
def test_classes_one_by_one(case: Rows) -> None:
    p = predicted(case)
    expected = metrics.precision_recall_fscore_support(
        p.y, p.predicted, labels=range(p.n_classes), zero_division=np.nan
    )
    found = scores.by_class(p.counts)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.rows), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@given(case=rows(every_class=True))
def test_precision_by_recall(case: Rows) -> None:
    p = predicted(case)
    for k in range(p.n_classes):
        precision, recall = scores.precision_recall(p, k)
        theirs = metrics.precision_recall_curve(p.y == k, p.probabilities[:, k])
        np.testing.assert_allclose(precision[::-1], theirs[0][:-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(recall[::-1], theirs[1][:-1], rtol=0, atol=1e-12)
        average = metrics.average_precision_score(p.y == k, p.probabilities[:, k])
        assert scores.average_precision(precision, recall) == pytest.approx(average, abs=1e-12)


@given(case=rows())
def test_every_row_is_in_a_bin(case: Rows) -> None:
    p = predicted(case)
    bins = scores.reliability(p)
    filled = bins.rows > 0
    assert bins.rows.sum() == len(p.y)
    right = (bins.accuracy * bins.rows)[filled].sum()
    assert right == pytest.approx((p.predicted == p.y).sum(), abs=1e-9)
    low, high = scores.EDGES[:-1][filled], scores.EDGES[1:][filled]
    slack = 1e-12  # of a mean of equal numbers
    assert ((low - slack <= bins.confidence[filled]) & (bins.confidence[filled] <= high + slack)).all()


def test_a_confidence_on_an_edge_is_in_the_bin_below() -> None:
    """(k/15, (k + 1)/15], as in Guo et al. (2017)."""
    confidence = scores.EDGES[8:]
    p = scores.Predictions(
        np.stack([confidence, 1 - confidence], 1), np.zeros(8, np.int64), np.zeros(8, np.int64)
    )
    assert scores.reliability(p).rows.tolist() == [0] * 7 + [1] * 8


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_are_those_of_the_outputs(output: str, dtype: Any) -> None:
    """In float64, of all rows whatever chunks they are computed in, and of rows with one scale each."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(CHUNK + 10, 4)).astype(dtype)
    split = Split(logits, generator.integers(0, 4, len(logits)))
    p = predictions(lambda x: x, split, Criterion("squared", output))
    f = logits.astype(np.float64)
    shown = {"softmax": softmax(f, axis=1), "sigmoid": expit(f), "identity": np.clip(f, 0, 1)}[output]
    total = shown.sum(1, keepdims=True)
    expected = np.divide(shown, total, where=total > 0, out=np.full_like(shown, 0.25))
    assert p.probabilities.dtype == np.float64
    np.testing.assert_allclose(p.probabilities, expected, rtol=1e-12)
    np.testing.assert_array_equal(p.predicted, logits.argmax(1))
    assert scores.roc_auc(p) == pytest.approx(area(p), abs=1e-12)
