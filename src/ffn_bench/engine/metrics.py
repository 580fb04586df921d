"""What is measured: pure functions from a network and data to numbers. Nothing here writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
def evaluate(network: Callable[[Tensor], Tensor], split: Split) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy (share) over a split; NaN for an empty one."""
    if len(split.y) == 0:
        return math.nan, math.nan
    loss = torch.zeros((), dtype=torch.float64, device=split.y.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.y.device)
    for x, y in zip(split.x.split(CHUNK), split.y.split(CHUNK), strict=True):
        logits = network(x)
        loss += F.cross_entropy(logits, y, reduction="sum")
        hits += (logits.argmax(1) == y).sum()
    n = len(split.y)
    return loss.item() / n, hits.item() / n


def evaluate_all(network: Callable[[Tensor], Tensor], data: Data) -> dict[str, float]:
    """Losses and accuracies of the parts that have rows. The training loss is the run's own curve."""
    values: dict[str, float] = {}
    for part in ("train", "val", "test"):
        split: Split = getattr(data, part)
        if len(split.y):
            loss, accuracy = evaluate(network, split)
            if part != "train":
                values[f"loss/{part}"] = loss
            # A network that overflowed still has an argmax; its accuracy would be that of a constant.
            values[f"accuracy/{part}"] = accuracy if math.isfinite(loss) else math.nan
    return values


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
    """The epoch of the highest validation accuracy (the first of equals), with all it measured.

    None where nothing finite was measured on a validation part.
    """
    measured = [m for m in epochs if math.isfinite(m.values.get("accuracy/val", math.nan))]
    if not measured:
        return None
    best = max(measured, key=lambda m: m.values["accuracy/val"])
    return {"epoch": best.epoch, "step": best.step, **best.values}
