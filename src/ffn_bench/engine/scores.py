"""Scores of all predictions of a split together: pure functions in NumPy, by scikit-learn's conventions.

`tags.QUANTITIES` says which of them are measured, with `of_split` and the name that the function has here.
docs/scores.md says what they are, and when one misleads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BINS = 15
"""Of equal width, for calibration: as in Guo et al. (2017)."""


@dataclass(frozen=True)
class Predictions:
    """What a network says of the rows of a split, of which there is at least one."""

    probabilities: Array
    """Of the classes, `[n, n_classes]`."""
    predicted: Integers
    """The class of the largest, of equal ones the first: `[n]`."""
    y: Integers
    """The true class: `[n]`."""

    @property
    def n_classes(self) -> int:
        """Classes that there are, with or without rows."""
        return int(self.probabilities.shape[1])

    @cached_property
    def counts(self) -> Integers:
        """The confusion matrix `[true class, predicted class]`."""
        K = self.n_classes
        return np.bincount(self.y * K + self.predicted, minlength=K * K).reshape(K, K)

    @cached_property
    def by_class(self) -> ByClass:
        """Precision, recall and F1 of every class."""
        return by_class(self.counts)


# --- of the confusion matrix ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ByClass:
    """What each class comes to, `[n_classes]` each."""

    precision: Array
    """Correct ones among the rows predicted to be of the class; NaN where there is none."""
    recall: Array
    """Correct ones among the rows of the class; NaN where there is none."""
    f1: Array
    """The harmonic mean of the two, 0 where no row is correct; NaN for a class that is neither true nor
    predicted of any row."""
    rows: Integers
    """Rows of the class."""


def by_class(counts: Integers) -> ByClass:
    """Precision, recall and F1 of every class, from the confusion matrix `[true class, predicted class]`."""
    correct, rows, guesses = np.diagonal(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        return ByClass(correct / guesses, correct / rows, 2 * correct / (rows + guesses), rows)


def _mean_of_known(values: Array) -> float:
    return float(values[~np.isnan(values)].mean())


def balanced_accuracy(predictions: Predictions) -> float:
    """The mean recall of the classes that have rows."""
    return _mean_of_known(predictions.by_class.recall)


def macro_f1(predictions: Predictions) -> float:
    """The mean F1 of the classes that are true or predicted of some row."""
    return _mean_of_known(predictions.by_class.f1)


# --- of the probabilities -------------------------------------------------------------------------------


def roc_auc(predictions: Predictions) -> float:
    """The probability that a row of a class is given a larger probability of it than a row of the others,
    equal ones counting half: the mean over the classes, each against the rest; of two classes, of the second.

    NaN where a class has no row, or all.
    """
    P, y, n = predictions.probabilities, predictions.y, len(predictions.y)
    rows = np.bincount(y, minlength=predictions.n_classes)
    if rows.min() == 0 or rows.max() == n:
        return math.nan
    if len(rows) == 2:
        P, rows, y = P[:, 1:], rows[1:], y - 1
    # All columns, each sorted, as one sorted array: complex numbers are ordered by their real parts first.
    columns = np.empty((len(rows), n), np.complex128)
    columns.real, columns.imag = np.arange(len(rows))[:, None], np.sort(P.T)
    of_class = np.flatnonzero(y >= 0)
    own = y[of_class] + 1j * P[of_class, y[of_class]]
    below = sum(columns.ravel().searchsorted(own, side) for side in ("left", "right")) - 2 * n * y[of_class]
    # Mann and Whitney's U, twice: of the pairs below a row, equal ones half, without those within its class.
    pairs = np.bincount(y[of_class], below) - rows * rows
    return float((pairs / (2 * rows * (n - rows))).mean())


def log_loss(predictions: Predictions) -> float:
    """The mean of −ln of the probability of the true class in nats, which is first brought within ε and
    1 − ε, ε = 2.2e-16."""
    eps = np.finfo(np.float64).eps
    own = predictions.probabilities[np.arange(len(predictions.y)), predictions.y]
    return float(-np.log(np.clip(own, eps, 1 - eps)).mean())


@dataclass(frozen=True)
class Reliability:
    """How often predictions of about the same confidence, the probability of the predicted class, are
    correct: `[BINS]` each."""

    confidence: Array
    """Its mean in each bin; NaN in an empty one, as `accuracy`."""
    accuracy: Array
    rows: Integers

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over the rows of |accuracy − confidence| of their bin."""
        gaps = np.abs(self.accuracy - self.confidence) * self.rows
        return float(gaps[self.rows > 0].sum() / self.rows.sum())


def reliability(predictions: Predictions) -> Reliability:
    """Predictions in bins (k/15, (k + 1)/15] of their confidence."""
    confidence = predictions.probabilities[np.arange(len(predictions.y)), predictions.predicted]
    bins = EDGES[1:-1].searchsorted(confidence)
    rows = np.bincount(bins, minlength=BINS)
    correct = predictions.predicted == predictions.y
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(bins, confidence, BINS) / rows, np.bincount(bins, correct, BINS) / rows, rows
        )


EDGES = np.linspace(0, 1, BINS + 1)


def calibration_error(predictions: Predictions) -> float:
    """See `Reliability.error`."""
    return reliability(predictions).error


def precision_recall(predictions: Predictions, k: int) -> tuple[Array, Array]:
    """Precision and recall of class `k` against the rest, where it is predicted from some probability on: a
    point for each probability that there is, the largest first. The class has rows."""
    of_class = predictions.y == k
    order = np.argsort(-predictions.probabilities[:, k], kind="stable")
    column, correct = predictions.probabilities[order, k], np.cumsum(of_class[order])
    last = np.append(np.flatnonzero(np.diff(column)), len(column) - 1)  # of rows with the same probability
    return correct[last] / (last + 1), correct[last] / correct[-1]


def average_precision(precision: Array, recall: Array) -> float:
    """The mean of precisions, each weighted with the recall that it adds: the area below the steps."""
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


OF_SPLIT: dict[str, Callable[[Predictions], float]] = {
    score.__name__: score for score in (balanced_accuracy, macro_f1, roc_auc, log_loss, calibration_error)
}
"""By the names that they have in `tags.QUANTITIES`."""
