"""The forward pass of a trained network on NumPy arrays: what prediction needs, without PyTorch.

`network.py` is the same for tensors, with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.model.activations import ACTIVATIONS, Activation
from ffn_bench.model.array_numbers import ArrayNumbers
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion

Array = npt.NDArray[Any]
Layers = Sequence[tuple[Array, Array]]
"""(W `[n_in, n_out]`, b `[n_out]`) of every layer."""

CHUNK = 8192
"""Rows computed at once, so that many rows need little memory."""
ONE_THREAD = 2**28
"""Multiply-adds of a product of matrices below which one thread computes it. Threads of the BLAS spin while
they wait: 16-10-20-15-2 on a million rows took 6.8 s of two busy cores with them, and 2.8 s without."""


def logits(layers: Layers, x: Array, activation: Activation) -> Array:
    """Logits `[n, n_classes]` of standardised rows `x [n, n_features]`, in the dtype of the layers."""
    if len(x) <= CHUNK // 32:  # which the BLAS leaves to one thread, mostly
        return _logits(layers, x, activation)
    with _threads(layers):
        chunks = [_logits(layers, x[first : first + CHUNK], activation) for first in range(0, len(x), CHUNK)]
    return np.concatenate(chunks)


def _threads(layers: Layers) -> AbstractContextManager[object]:
    """One thread for products of matrices while they are small, afterwards as many as before."""
    if CHUNK * max(W.size for W, _ in layers) >= ONE_THREAD:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def _logits(layers: Layers, h: Array, activation: Activation) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # of rows far from all that were trained on
        for W, b in layers[:-1]:
            h = activation.function((h @ W + b).view(ArrayNumbers)).view(np.ndarray)
        W, b = layers[-1]
        result: Array = h @ W + b
        return result


def outputs(logits: Array, criterion: Criterion) -> Array:
    """f of logits `[n, n_outputs]`, in the same shape: in a regression the standardised targets."""
    if criterion.is_softmax:
        return softmax(logits)
    return ACTIVATIONS[criterion.output].function(logits.view(ArrayNumbers)).view(np.ndarray)  # type: ignore[no-any-return]


def probabilities(logits: Array, criterion: Criterion) -> Array:
    """Of the classes, `[n, n_classes]`. Outputs that are none by themselves are taken between 0 and 1, and
    over their sum; where all are 0, classes are equally probable."""
    f = outputs(logits, criterion)
    if criterion.is_softmax:
        return f
    f = np.clip(f, 0, 1)
    total = f.sum(axis=1, keepdims=True)
    result: Array = np.where(total > 0, f / np.where(total > 0, total, 1), 1 / f.shape[1]).astype(f.dtype)
    return result


def row_losses(logits: Array, y: Array, criterion: Criterion = CROSS_ENTROPY) -> Array:
    """The loss of each row, `[n]`, of its logits `[n, n_outputs]` and label, or targets `[n, n_outputs]`."""
    if y.dtype.kind == "f":
        t = y
    elif criterion == CROSS_ENTROPY:
        shifted = logits - logits.max(1, keepdims=True)
        losses: Array = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
        return losses
    else:
        on, off = criterion.targets(logits.shape[1])
        t = np.full_like(logits, off)
        t[np.arange(len(y)), y] = on
    if criterion.is_softmax_cross_entropy:
        top = logits.max(1, keepdims=True)
        of_outputs = t * (np.log(np.exp(logits - top).sum(1, keepdims=True)) - (logits - top))
    elif criterion.is_softmax:
        of_outputs = criterion.value(softmax(logits).view(ArrayNumbers), t)
    else:
        of_outputs = criterion.of_logit(logits.view(ArrayNumbers), t)
    result: Array = np.asarray(of_outputs).sum(1)
    return result


def softmax(logits: Array) -> Array:
    """Probabilities of the classes, `[n, n_classes]`."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result
