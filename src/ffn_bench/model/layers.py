"""Parameters as layers and as one flat vector."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]


def flat(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """θ `[P]`: W and b, layer by layer."""
    return torch.cat([t.reshape(-1) for layer in layers for t in layer])


def layered(θ: Tensor, widths: Sequence[int]) -> Layers:
    """(W `[…, n_in, n_out]`, b `[…, n_out]`) of every layer, as views of θ `[…, P]`."""
    layers, at = [], 0
    for n_in, n_out in itertools.pairwise(widths):
        W = θ[..., at : at + n_in * n_out].unflatten(-1, (n_in, n_out))
        at += n_in * n_out
        layers.append((W, θ[..., at : at + n_out]))
        at += n_out
    return layers
