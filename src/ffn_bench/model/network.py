"""The feed-forward network: how its weights are drawn and how it maps a mini-batch to logits.

Row vectors throughout, as in the lecture (L1): a mini-batch is `[b, n_in]`, a layer is `h̄ = h W + b` with
`W: [n_in, n_out]`, an activation σ stands between layers, and the last layer's h̄ are the logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import ModelConfig
from ffn_bench.model.activations import ACTIVATIONS, Activation

Init = Callable[[Tensor, Tensor, float, torch.Generator], object]


def _torch_init(W: Tensor, b: Tensor, std: float, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(W.shape[0])
    nn.init.uniform_(W, -bound, bound, generator=generator)
    nn.init.uniform_(b, -bound, bound, generator=generator)


INITS: dict[str, Init] = {
    "torch": _torch_init,
    "normal": lambda W, b, std, generator: nn.init.normal_(W, std=std, generator=generator),
    "truncated_normal": lambda W, b, std, generator: nn.init.trunc_normal_(
        W, std=std, a=-2 * std, b=2 * std, generator=generator
    ),
    # nn.init reads fans off PyTorch's transposed layout, so it is shown W's transpose.
    "xavier": lambda W, b, std, generator: nn.init.xavier_uniform_(W.T, generator=generator),
    "kaiming": lambda W, b, std, generator: nn.init.kaiming_uniform_(
        W.T, nonlinearity="relu", generator=generator
    ),
}
"""How a layer's W (and, for `torch`, its b; otherwise b = 0) is drawn, by name:
`torch` U(±1/√n_in) as nn.Linear does; `normal` N(0, std²) (L9); `truncated_normal` the same within ±2 std;
`xavier` (Glorot and Bengio, 2010) and `kaiming` (He et al., 2015), uniform."""


def check_names(model: ModelConfig) -> None:
    """Raise `UserError` for an activation or init that no table holds."""
    one_of(model.activation, tuple(ACTIVATIONS), "model.activation")
    one_of(model.init, tuple(INITS), "model.init")


class FFN(nn.Module):
    """A feed-forward network of the given layer widths `[n_features, …, n_classes]`.

    Weights are drawn on the CPU in float64 from `seed` and then cast, so that one seed means one start
    whatever the device, the dtype and the engine.
    """

    def __init__(self, widths: Sequence[int], model: ModelConfig, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.activation = ACTIVATIONS[model.activation]
        generator = torch.Generator().manual_seed(seed)
        weights, biases = [], []
        for n_in, n_out in itertools.pairwise(widths):
            W = torch.empty(n_in, n_out, dtype=torch.float64)
            b = torch.zeros(n_out, dtype=torch.float64)
            INITS[model.init](W, b, model.init_std, generator)
            weights.append(nn.Parameter(W.to(dtype)))
            biases.append(nn.Parameter(b.to(dtype)))
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

        self.layers = list(zip(weights, biases, strict=True))  # looping over a ParameterList is slow

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[b, n_classes]` of a mini-batch `[b, n_features]`."""
        return forward(self.layers, x, self.activation)


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
