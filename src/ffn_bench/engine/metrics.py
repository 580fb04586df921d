"""What is measured of a run: pure functions to numbers, of arrays. Nothing here writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ffn_bench import tags
from ffn_bench.data.rows import Array, Data, Split
from ffn_bench.engine import scores
from ffn_bench.model.inference import probabilities, row_losses
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion

CHUNK = 8192
"""Rows evaluated at once, so that a large test set needs little memory."""


@dataclass(frozen=True)
class Measurement:
    """What was measured after `step` updates, in epoch `epoch` (0 is before the first update)."""

    step: int
    epoch: int
    train_seconds: float
    values: dict[str, float]
    ends_epoch: bool = False


def by_tag(split: str, means: Sequence[float], task: tags.Task = "classification") -> dict[str, float]:
    """What an engine has evaluated on a split by tag: the mean loss, then each of the task's scores.

    NaN where the loss is not finite: a network that overflowed still has an argmax, whose accuracy would be
    that of a constant.
    """
    loss, *scores = means
    scores = scores if math.isfinite(loss) else [math.nan] * len(scores)
    values = scores if split == "train" else [loss, *scores]
    return dict(zip(tags.at_epoch_end(split, task), values, strict=True))


@dataclass(frozen=True)
class Scoring:
    """The scores of a task's predictions, those of `tags.SCORES_OF`."""

    task: tags.Task = "classification"
    scale: Array = field(default_factory=lambda: np.ones(0))
    """Of each target, `[n_targets]`: what 1 in the standardised is in its own unit."""

    @classmethod
    def of_data(cls, data: Data[Any]) -> Scoring:
        """Of a data set's task."""
        return cls(data.task, data.target_std)

    @property
    def quantities(self) -> tuple[tags.Quantity, ...]:
        """What is measured."""
        return tags.SCORES_OF[self.task]

    def scores(self, outputs: Array, y: Array) -> list[float]:
        """Each of them over rows: of the last layer's outputs `[n, n_outputs]`, and labels `[n]`, or targets
        `[n, n_outputs]`."""
        by_rows = (quantity.of_rows for quantity in self.quantities if quantity.of_rows)
        if self.task == "classification":
            return [_mean(of_rows(outputs, y)) for of_rows in by_rows]
        with np.errstate(over="ignore", invalid="ignore"):  # of outputs that have diverged
            outputs, y = outputs.astype(np.float64), y.astype(np.float64)  # squares of float32 overflow
            means = [np.mean(of_rows(outputs, y), axis=0) for of_rows in by_rows]
            return self.of_means(means, y.var(axis=0))

    def of_means(self, means: Sequence[Any], variances: Any) -> list[float]:
        """The same from the means over the rows: numbers, or in a regression `[n_targets]`, as the targets'
        variances. Where there are several targets, it is the mean over them."""
        if self.task == "classification":
            return [float(value) for value in means]
        values = []
        for quantity, by_target in zip(self.quantities, means, strict=True):
            assert quantity.of_means is not None
            columns = zip(by_target.tolist(), self.scale.tolist(), variances.tolist(), strict=True)
            values.append(mean([quantity.of_means(*column) for column in columns]))
        return values


def _mean(rows: Array) -> float:
    """Of numbers or booleans, which are counted."""
    if rows.dtype == bool:
        return int(np.count_nonzero(rows)) / len(rows)
    return float(np.mean(rows, dtype=np.float64))


def mean(values: Sequence[float]) -> float:
    """The mean, its sum rounded once: the same on every version of Python, whose `sum` has changed."""
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities of both signs, or numbers near the largest
        return sum(values) / len(values)


_TRAIN_LOSS, _TRAIN_OBJECTIVE = tags.LOSS.tag("train"), tags.OBJECTIVE.tag("train")


def log_point(
    *,
    loss: float,
    objective: float,
    lr: float,
    grad_norm: float,
    weight_norm: float,
    change: float,
    norm_before: float,
) -> dict[str, float]:
    """What a log point reports of the training, by tag: means of loss and objective over the steps since the
    last one, and of the last step its rate, ‖g‖, ‖θ‖ after it, and how far θ went, from which ‖θ‖."""
    return {
        _TRAIN_LOSS: loss,
        _TRAIN_OBJECTIVE: objective,
        tags.LR.name: lr,
        tags.GRAD_NORM.name: grad_norm,
        tags.WEIGHT_NORM.name: weight_norm,
        tags.UPDATE_RATIO.name: change / norm_before if norm_before else math.nan,
    }


def chance(data: Data[Array], criterion: Criterion) -> dict[str, float]:
    """What a constant prediction comes to, by name of the quantity: `Data.chance`, and the mean loss over the
    training rows where the outputs are the mean of the targets. Without the loss where that is not finite."""
    y, weights = data.train.y, data.train.weights
    counts = np.ones(len(y)) if weights is None else weights.astype(np.float64)
    if data.task == "regression":
        y = t = y.astype(np.float64)
    else:  # all rows of a class at once
        counts = np.bincount(y, counts, minlength=data.n_outputs).astype(np.float64)
        y = np.arange(data.n_outputs)
        t = np.where(y[:, None] == y, *criterion.targets(data.n_outputs))
    f = np.average(t, axis=0, weights=counts)
    logits_of: dict[str, Callable[[], Array]] = {
        "identity": lambda: f,
        "sigmoid": lambda: np.log(f) - np.log1p(-f),
        "softmax": lambda: np.log(f),
    }
    with np.errstate(divide="ignore"):
        logits = np.tile(logits_of[criterion.output](), (len(y), 1))
    loss = float(counts @ row_losses(logits, y, criterion)) / len(data.train.y)
    return {**data.chance, tags.LOSS.name: loss} if math.isfinite(loss) else data.chance


def targets_and_predictions(
    network: Callable[[Array], Array], split: Split[Array], data: Data[Array]
) -> tuple[Array, Array]:
    """A regression's targets and their predictions in their own unit, float64 `[n, n_targets]` each."""
    pairs = [(y, outputs) for outputs, y in _in_chunks(network, split)]
    true, predicted = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*pairs, strict=True))
    return true * data.target_std + data.target_mean, predicted * data.target_std + data.target_mean


def _in_chunks(
    network: Callable[[Array], Array], split: Split[Array]
) -> Iterator[tuple[Array, npt.NDArray[Any]]]:
    """Outputs of the last layer `[rows, n_outputs]` and labels `[rows]`, or targets, some rows at a time."""
    for first in range(0, len(split.y), CHUNK):
        rows = slice(first, first + CHUNK)
        yield network(split.x[rows]), split.y[rows]


def predictions(
    network: Callable[[Array], Array], split: Split[Array], criterion: Criterion = CROSS_ENTROPY
) -> scores.Predictions:
    """What a classifier that was trained for a criterion says of all rows of a split, which has some."""
    chunks = [logits for logits, _ in _in_chunks(network, split)]
    logits = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    by_class = logits.astype(np.float64, order="F")  # over a row's few classes all rows are reduced at once
    return scores.Predictions(probabilities(by_class, criterion), logits.argmax(1), split.y)


def split_scores(
    network: Callable[[Array], Array],
    data: Data[Array],
    quantities: Iterable[tags.Quantity],
    criterion: Criterion = CROSS_ENTROPY,
) -> dict[str, float]:
    """Some of `tags.SPLIT_SCORES` by tag, those of the data's task, on those of their splits that have rows;
    NaN where a score is not known, as for want of a class."""
    values: dict[str, float] = {}
    seen: dict[str, scores.Predictions] = {}
    for quantity in quantities:
        for name in quantity.splits if quantity.task == data.task else ():
            if len(getattr(data, name).y):
                if name not in seen:
                    seen[name] = predictions(network, getattr(data, name), criterion)
                values[quantity.tag(name)] = scores.OF_SPLIT[quantity.name](seen[name])
    return values


class Confusion(NamedTuple):
    """A confusion matrix and what it is of."""

    counts: npt.NDArray[np.int64]
    """`[true class, predicted class]`."""
    classes: Sequence[str]
    split: str


def confusion_matrix(
    network: Callable[[Array], Array], split: Split[Array], n_classes: int
) -> npt.NDArray[np.int64]:
    """Counts `[true class, predicted class]`."""
    counts = np.zeros(n_classes * n_classes, np.int64)
    for logits, y in _in_chunks(network, split):
        counts += np.bincount(y * n_classes + logits.argmax(1), minlength=len(counts))
    return counts.reshape(n_classes, n_classes)


def worst_mistakes(
    network: Callable[[Array], Array], split: Split[Array], count: int, criterion: Criterion
) -> tuple[Array, Array, Array]:
    """The `count` misclassified rows of largest loss, worst first: row numbers, predictions, losses."""
    losses, predictions = [], []
    for logits, y in _in_chunks(network, split):
        predictions.append(logits.argmax(1))
        losses.append(row_losses(logits, y, criterion))
    loss, predicted = np.concatenate(losses), np.concatenate(predictions)
    wrong = np.flatnonzero(predicted != split.y)
    rows = wrong[np.argsort(-loss[wrong], kind="stable")[:count]]
    return rows, predicted[rows], loss[rows]
