"""What is measured of a run: pure functions to numbers, of arrays. Nothing here writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffn_bench import tags
from ffn_bench.data.splitting import Array, Split

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


def by_tag(split: str, means: Sequence[float]) -> dict[str, float]:
    """Means over the rows of a split by tag: of the loss, then of each of `tags.SCORES`.

    NaN where the loss is not finite: a network that overflowed still has an argmax, whose accuracy would be
    that of a constant.
    """
    loss, *scores = means
    scores = scores if math.isfinite(loss) else [math.nan] * len(scores)
    values = scores if split == "train" else [loss, *scores]
    return dict(zip(tags.at_epoch_end(split), values, strict=True))


def scores_of(logits: Array, y: Array) -> list[float]:
    """The mean of each of `tags.SCORES` over rows: logits `[n, n_classes]`, labels `[n]`."""
    return [_mean(score.of_rows(logits, y)) for score in tags.SCORES if score.of_rows]


def losses_of(logits: Array, y: Array) -> Array:
    """−ln softmax(logits) at the label of each row: `[n]`."""
    shifted = logits - logits.max(1, keepdims=True)
    losses: Array = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    return losses


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


def _in_chunks(
    network: Callable[[Array], Array], split: Split[Array]
) -> Iterator[tuple[Array, npt.NDArray[np.int64]]]:
    """Logits `[rows, n_classes]` and labels `[rows]`, some rows at a time."""
    for first in range(0, len(split.y), CHUNK):
        rows = slice(first, first + CHUNK)
        yield network(split.x[rows]), split.y[rows]


def confusion_matrix(
    network: Callable[[Array], Array], split: Split[Array], n_classes: int
) -> npt.NDArray[np.int64]:
    """Counts `[true class, predicted class]`."""
    counts = np.zeros(n_classes * n_classes, np.int64)
    for logits, y in _in_chunks(network, split):
        counts += np.bincount(y * n_classes + logits.argmax(1), minlength=len(counts))
    return counts.reshape(n_classes, n_classes)


def worst_mistakes(
    network: Callable[[Array], Array], split: Split[Array], count: int
) -> tuple[Array, Array, Array]:
    """The `count` misclassified rows of largest loss, worst first: row numbers, predictions, losses."""
    losses, predictions = [], []
    for logits, y in _in_chunks(network, split):
        predictions.append(logits.argmax(1))
        losses.append(losses_of(logits, y))
    loss, predicted = np.concatenate(losses), np.concatenate(predictions)
    wrong = np.flatnonzero(predicted != split.y)
    rows = wrong[np.argsort(-loss[wrong], kind="stable")[:count]]
    return rows, predicted[rows], loss[rows]
