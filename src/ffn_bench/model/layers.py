"""Parameters as layers, as tensors of any shapes, and as one flat vector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
Shapes = Sequence[tuple[int, ...]]


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """The numbers of some tensors, one after another: `[P]`."""
    return torch.cat([t.reshape(-1) for t in tensors])


def parted(θ: Tensor, shapes: Shapes) -> list[Tensor]:
    """The tensors `[…, *shape]` that `joined` strings together, as views of θ `[…, P]`."""
    slices = θ.split([math.prod(shape) for shape in shapes], -1)
    return [piece.reshape(*θ.shape[:-1], *shape) for piece, shape in zip(slices, shapes, strict=True)]


def shapes_of(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Of W and b, layer by layer."""
    return [shape for n_in, n_out in itertools.pairwise(widths) for shape in ((n_in, n_out), (n_out,))]


def flat(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """θ `[P]`: W and b, layer by layer."""
    return joined(t for layer in layers for t in layer)


def layered(θ: Tensor, widths: Sequence[int]) -> Layers:
    """(W `[…, n_in, n_out]`, b `[…, n_out]`) of every layer, as views of θ `[…, P]`."""
    tensors = parted(θ, shapes_of(widths))
    return list(zip(tensors[::2], tensors[1::2], strict=True))
