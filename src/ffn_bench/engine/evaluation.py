"""Losses and scores of a network of PyTorch's on a split."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ffn_bench import tags
from ffn_bench.data.splitting import Data, Split
from ffn_bench.engine.metrics import CHUNK, by_name, by_tag


@torch.no_grad()
def evaluate(network: Callable[[Tensor], Tensor], split: Split[Tensor]) -> dict[str, float]:
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


def evaluate_all(network: Callable[[Tensor], Tensor], data: Data[Tensor]) -> dict[str, float]:
    """Losses and scores of the splits that have rows, by tag."""
    values: dict[str, float] = {}
    for name in tags.SPLITS:
        split: Split[Tensor] = getattr(data, name)
        if len(split.y):
            values |= by_tag(name, evaluate(network, split))
    return values
