"""Parameters as layers, as tensors of any shapes, and as one flat vector; arrays can be taken apart, too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Sequence[tuple[int, ...]]
Numbers = TypeVar("Numbers", "Tensor", npt.NDArray[np.floating])


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """The numbers of some tensors, one after another: `[P]`."""
    import torch

    return torch.cat([t.reshape(-1) for t in tensors])


def parted(θ: Numbers, shapes: Shapes) -> list[Numbers]:
    """What is strung together in θ `[…, P]`, one after another: `[…, *shape]` each, as views."""
    ends = [*itertools.accumulate(map(math.prod, shapes), initial=0)]
    pieces = zip(itertools.pairwise(ends), shapes, strict=True)
    return [θ[..., begin:end].reshape(*θ.shape[:-1], *shape) for (begin, end), shape in pieces]


def shapes_of(widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Of W and b, layer by layer."""
    return [shape for n_in, n_out in itertools.pairwise(widths) for shape in ((n_in, n_out), (n_out,))]


def flat(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """θ `[P]`: W and b, layer by layer."""
    return joined(t for layer in layers for t in layer)


def layered(θ: Numbers, widths: Sequence[int]) -> list[tuple[Numbers, Numbers]]:
    """(W `[…, n_in, n_out]`, b `[…, n_out]`) of every layer, as views of θ `[…, P]`."""
    tensors = parted(θ, shapes_of(widths))
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def from_names(named: Mapping[str, Numbers]) -> list[tuple[Numbers, Numbers]]:
    """What `by_names` took apart. Raises `KeyError` where a layer is not whole."""
    return [(named[f"weights.{k}"], named[f"biases.{k}"]) for k in range((len(named) + 1) // 2)]


def by_names(layers: Sequence[tuple[Numbers, Numbers]]) -> dict[str, Numbers]:
    """Layers by the names of an `FFN`'s state_dict."""
    names = [f"{kind}.{k}" for k in range(len(layers)) for kind in ("weights", "biases")]
    return dict(zip(names, itertools.chain.from_iterable(layers), strict=True))
