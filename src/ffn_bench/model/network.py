"""The feed-forward network: how it maps a mini-batch to logits.

Row vectors throughout, as in the lecture (L1): a mini-batch is `[b, n_in]`, a layer is `h̄ = h W + b` with
`W: [n_in, n_out]`, an activation σ stands between layers, and the last layer's h̄ are the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ffn_bench.configuration.schema import ModelConfig
from ffn_bench.model.activations import ACTIVATIONS, Activation
from ffn_bench.model.initialisation import initial_layers


class FFN(nn.Module):
    """A feed-forward network of the given layer widths `[n_features, …, n_classes]`.

    Its weights are drawn from `seed` in float64 and then cast, so that one seed means one start whatever the
    device, the dtype and the engine.
    """

    def __init__(self, widths: Sequence[int], model: ModelConfig, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.activation = ACTIVATIONS[model.activation]
        self.layers: list[tuple[Tensor, Tensor]] = []  # looping over a ParameterList is slow
        for W, b in initial_layers(widths, model, seed):
            self.layers.append((_parameter(W, dtype), _parameter(b, dtype)))
        weights, biases = zip(*self.layers, strict=True)
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[b, n_classes]` of a mini-batch `[b, n_features]`."""
        return forward(self.layers, x, self.activation)


def _parameter(values: npt.NDArray[np.float64], dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values).to(dtype))


Layers = Sequence[tuple[Tensor, Tensor]]
"""(W `[…, n_in, n_out]`, b `[…, n_out]`) of every layer."""


def forward(layers: Layers, x: Tensor, activation: Activation) -> Tensor:
    """Logits `[…, b, n_classes]` of `x […, b, n_features]`."""
    return forward_pass(layers, x, activation)[1][-1]


def forward_pass(layers: Layers, x: Tensor, activation: Activation) -> tuple[list[Tensor], list[Tensor]]:
    """h^0 = x, h^1, … and h̄^1, …, h̄^L (L1), of which the last is the logits."""
    hs, h_bars = [x], []
    for k, (W, b) in enumerate(layers):
        h_bars.append(_affine(hs[-1], W, b))
        if k < len(layers) - 1:
            hs.append(activation.function(h_bars[-1]))
    return hs, h_bars


def _affine(h: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """h W + b, as one operation where PyTorch has one."""
    if h.ndim == W.ndim == 2:
        return torch.addmm(b, h, W)
    if h.ndim == W.ndim == 3:
        return torch.baddbmm(b.unsqueeze(-2), h, W)
    return h @ W + b.unsqueeze(-2)
