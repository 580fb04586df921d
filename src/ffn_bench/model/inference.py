"""The forward pass of a trained network on NumPy arrays: what prediction needs, without PyTorch.

`network.py` is the same for tensors, with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.model.activations import Activation
from ffn_bench.model.array_numbers import ArrayNumbers

Array = npt.NDArray[Any]
Layers = Sequence[tuple[Array, Array]]
"""(W `[n_in, n_out]`, b `[n_out]`) of every layer."""

CHUNK = 8192
"""Rows computed at once, so that many rows need little memory."""


def logits(layers: Layers, x: Array, activation: Activation) -> Array:
    """Logits `[n, n_classes]` of standardised rows `x [n, n_features]`, in the dtype of the layers."""
    if len(x) <= CHUNK:
        return _logits(layers, x, activation)
    chunks = [_logits(layers, x[first : first + CHUNK], activation) for first in range(0, len(x), CHUNK)]
    return np.concatenate(chunks)


def _logits(layers: Layers, h: Array, activation: Activation) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # of rows far from all that were trained on
        for W, b in layers[:-1]:
            h = activation.function((h @ W + b).view(ArrayNumbers)).view(np.ndarray)
        W, b = layers[-1]
        result: Array = h @ W + b
        return result


def softmax(logits: Array) -> Array:
    """Probabilities of the classes, `[n, n_classes]`."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result
