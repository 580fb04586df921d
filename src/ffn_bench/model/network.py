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

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import ModelConfig
from ffn_bench.model.activations import ACTIVATIONS, Activation
from ffn_bench.model.initialisation import INITS, initial_layers


def check_names(model: ModelConfig) -> None:
    """Raise `UserError` for an activation or init that no table holds."""
    one_of(model.activation, tuple(ACTIVATIONS), "model.activation")
    one_of(model.init, tuple(INITS), "model.init")


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


def forward(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor, activation: Activation) -> Tensor:
    """Logits `[b, n_classes]` of `x [b, n_features]` by layers (W `[n_in, n_out]`, b `[n_out]`)."""
    *hidden, (W_out, b_out) = layers
    h = x
    for W, b in hidden:
        h = activation.function(torch.addmm(b, h, W))
    return torch.addmm(b_out, h, W_out)


def forward_stacked(h_bar: Tensor, layers: Sequence[tuple[Tensor, Tensor]], activation: Activation) -> Tensor:
    """Logits `[k, b, n_classes]` of k networks from the first layers' h̄ `[k, b, n]`, by the layers behind it
    (W `[k, n_in, n_out]`, b `[k, n_out]`)."""
    for W, b in layers:
        h_bar = torch.baddbmm(b[:, None], activation.function(h_bar), W)
    return h_bar
