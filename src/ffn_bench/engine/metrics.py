"""What is measured: pure functions from a network and data to numbers. Nothing here writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ffn_bench import tags
from ffn_bench.data.splitting import Data, Split

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


@torch.no_grad()
def evaluate(network: Callable[[Tensor], Tensor], split: Split) -> dict[str, float]:
    """Means of the loss and of every score over the rows of a split, by name; NaN for an empty one."""
    n = len(split.y)
    if n == 0:
        return by_name(math.nan, [math.nan] * len(tags.SCORES))
    sums = torch.zeros(1 + len(tags.SCORES), dtype=torch.float64, device=split.y.device)
    for x, y in zip(split.x.split(CHUNK), split.y.split(CHUNK), strict=True):
        logits = network(x)
        sums[0] += F.cross_entropy(logits, y, reduction="sum")
        logits = logits - logits.amax(1, keepdim=True)
        for k, score in enumerate(tags.SCORES, start=1):
            assert score.of_rows is not None
            sums[k] += score.of_rows(logits, y).sum()
    loss, *scores = (total / n for total in sums.tolist())
    return by_name(loss, scores)


def by_name(loss: float, scores: Sequence[float]) -> dict[str, float]:
    """A mean loss and mean scores, in the order of `tags.SCORES`, by name."""
    # A network that overflowed still has an argmax; its accuracy would be that of a constant.
    finite = math.isfinite(loss)
    named = {s.name: value if finite else math.nan for s, value in zip(tags.SCORES, scores, strict=True)}
    return {tags.LOSS.name: loss, **named}


def by_tag(split: str, values: dict[str, float]) -> dict[str, float]:
    """What `evaluate` measured on a split, by tag. Without the training loss: it is the run's own curve."""
    return {
        f"{name}/{split}": value
        for name, value in values.items()
        if (name, split) != (tags.LOSS.name, "train")
    }


def evaluate_all(network: Callable[[Tensor], Tensor], data: Data) -> dict[str, float]:
    """Losses and scores of the splits that have rows, by tag."""
    values: dict[str, float] = {}
    for name in tags.SPLITS:
        split: Split = getattr(data, name)
        if len(split.y):
            values |= by_tag(name, evaluate(network, split))
    return values


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


@torch.no_grad()
def confusion_matrix(network: Callable[[Tensor], Tensor], split: Split, n_classes: int) -> Tensor:
    """Counts `[true class, predicted class]`, int64, on the CPU."""
    counts = torch.zeros(n_classes * n_classes, dtype=torch.int64)
    for x, y in zip(split.x.split(CHUNK), split.y.split(CHUNK), strict=True):
        pairs = y * n_classes + network(x).argmax(1)
        counts += torch.bincount(pairs, minlength=n_classes * n_classes).cpu()
    return counts.reshape(n_classes, n_classes)


@torch.no_grad()
def worst_mistakes(
    network: Callable[[Tensor], Tensor], split: Split, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` misclassified rows of largest loss, worst first: row numbers, predictions, losses."""
    losses, predictions = [], []
    for x, y in zip(split.x.split(CHUNK), split.y.split(CHUNK), strict=True):
        logits = network(x)
        predictions.append(logits.argmax(1))
        losses.append(F.cross_entropy(logits, y, reduction="none"))
    loss, predicted = torch.cat(losses), torch.cat(predictions)
    wrong = torch.where(predicted != split.y, loss, -torch.inf)
    rows = wrong.topk(min(count, int((predicted != split.y).sum()))).indices
    return rows.cpu(), predicted[rows].cpu(), loss[rows].cpu()


def best_of(epochs: Sequence[Measurement]) -> dict[str, Any] | None:
    """The epoch of the best validation score (the first of equals), with all it measured.

    None where nothing finite was measured on a validation split.
    """
    tag = tags.SCORE.tag("val")
    measured = [m for m in epochs if math.isfinite(m.values.get(tag, math.nan))]
    if not measured:
        return None
    best = max(measured, key=lambda m: tags.SCORE.sign * m.values[tag])
    return {"epoch": best.epoch, "step": best.step, **best.values}
