"""Losses and scores of a network of PyTorch's on a split."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor

from ffn_bench import tags
from ffn_bench.data.rows import Split
from ffn_bench.engine.metrics import CHUNK, Scoring
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion
from ffn_bench.model.tensor_losses import row_losses


@torch.no_grad()
def means(
    network: Callable[[Tensor], Tensor],
    split: Split[Tensor],
    scoring: Scoring | None = None,
    criterion: Criterion = CROSS_ENTROPY,
) -> list[float]:
    """Over the rows of a split the mean of the loss, each row times its weight, then each score; NaN for an
    empty one."""
    scoring = scoring or Scoring()
    n = len(split.y)
    if n == 0:
        return [math.nan] * (1 + len(scoring.quantities))
    loss = torch.zeros((), dtype=torch.float64, device=split.y.device)
    sums = [torch.zeros((), dtype=torch.float64, device=split.y.device) for _ in scoring.quantities]
    for first in range(0, n, CHUNK):
        rows = slice(first, first + CHUNK)
        x, y, weights = split.map(operator.itemgetter(rows))
        outputs = network(x)
        losses = row_losses(outputs, y, criterion)
        loss += (losses if weights is None else losses * weights).sum()
        for k, score in enumerate(scoring.quantities):
            assert score.of_rows is not None
            sums[k] = sums[k] + score.of_rows(*scored(outputs, y)).sum(0, dtype=torch.float64)
    variances = split.y.double().var(0, correction=0).cpu()
    return [float(loss) / n, *scoring.of_means([(total / n).cpu() for total in sums], variances)]


def scored(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and what they should be as scores take them: targets in float64, as squares of float32
    overflow."""
    return (outputs.double(), y.double()) if y.is_floating_point() else (outputs, y)


def evaluate(network: Callable[[Tensor], Tensor], split: Split[Tensor]) -> dict[str, float]:
    """Cross-entropy and scores of a classification on a split by name."""
    names = (tags.LOSS.name, *(score.name for score in tags.SCORES))
    return dict(zip(names, means(network, split), strict=True))
