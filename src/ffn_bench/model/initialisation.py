"""How a network's weights are drawn, in NumPy: one seed means one start, whatever the engine and device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import ModelConfig
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.seeds import generator

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int], float], tuple[Array, Array]]
"""From (n_in, n_out) and a standard deviation, which not all use: W `[n_in, n_out]`, b `[n_out]`."""


def _uniform(draws: np.random.Generator, shape: tuple[int, int], bound: float) -> tuple[Array, Array]:
    return draws.uniform(-bound, bound, shape), np.zeros(shape[1])


def _torch(draws: np.random.Generator, shape: tuple[int, int], std: float) -> tuple[Array, Array]:
    bound = 1 / math.sqrt(shape[0])
    return draws.uniform(-bound, bound, shape), draws.uniform(-bound, bound, shape[1])


def _normal(draws: np.random.Generator, shape: tuple[int, int], std: float) -> tuple[Array, Array]:
    return std * draws.standard_normal(shape), np.zeros(shape[1])


def _truncated_normal(draws: np.random.Generator, shape: tuple[int, int], std: float) -> tuple[Array, Array]:
    W = draws.standard_normal(shape)
    while (beyond := np.abs(W) > 2).any():
        W[beyond] = draws.standard_normal(int(beyond.sum()))
    return std * W, np.zeros(shape[1])


INITS: dict[str, Draw] = {
    "torch": _torch,
    "normal": _normal,
    "truncated_normal": _truncated_normal,
    "xavier": lambda draws, shape, std: _uniform(draws, shape, math.sqrt(6 / sum(shape))),
    "kaiming": lambda draws, shape, std: _uniform(draws, shape, math.sqrt(6 / shape[0])),
}
"""How a layer's W (and, for `torch`, its b; otherwise b = 0) is drawn, by name:
`torch` U(±1/√n_in) as nn.Linear does; `normal` N(0, std²) (L9); `truncated_normal` the same within ±2 std;
`xavier` (Glorot and Bengio, 2010) and `kaiming` (He et al., 2015, for ReLU), uniform."""


def initial_layers(widths: Sequence[int], model: ModelConfig, seed: int) -> list[tuple[Array, Array]]:
    """(W `[n_in, n_out]`, b `[n_out]`) of every layer of a network of these widths, float64."""
    draws = generator(seed, "initial weights")
    return [INITS[model.init](draws, shape, model.init_std) for shape in itertools.pairwise(widths)]


def check_names(model: ModelConfig) -> None:
    """Raise `UserError` for an activation or init that no table holds."""
    one_of(model.activation, tuple(ACTIVATIONS), "model.activation")
    one_of(model.init, tuple(INITS), "model.init")
