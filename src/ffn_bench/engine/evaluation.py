"""Losses and scores of a network of PyTorch's on a split."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ffn_bench import tags
from ffn_bench.data.splitting import Split
from ffn_bench.engine.metrics import CHUNK


@torch.no_grad()
def means(network: Callable[[Tensor], Tensor], split: Split[Tensor]) -> list[float]:
    """Means over the rows of a split: of the loss, then of each of `tags.SCORES`; NaN for an empty one."""
    n = len(split.y)
    if n == 0:
        return [math.nan] * (1 + len(tags.SCORES))
    sums = torch.zeros(1 + len(tags.SCORES), dtype=torch.float64, device=split.y.device)
    for x, y in zip(split.x.split(CHUNK), split.y.split(CHUNK), strict=True):
        logits = network(x)
        sums[0] += F.cross_entropy(logits, y, reduction="sum")
        for k, score in enumerate(tags.SCORES, start=1):
            assert score.of_rows is not None
            sums[k] += score.of_rows(logits, y).sum()
    return [total / n for total in sums.tolist()]


def evaluate(network: Callable[[Tensor], Tensor], split: Split[Tensor]) -> dict[str, float]:
    """Loss and scores of a split by name."""
    names = (tags.LOSS.name, *(score.name for score in tags.SCORES))
    return dict(zip(names, means(network, split), strict=True))
