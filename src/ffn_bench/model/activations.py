"""The table of activations, each with its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffn_bench.model.torch_internals import aten


@dataclass(frozen=True)
class Activation:
    """An elementwise σ and its derivative, which may use h̄ and h = σ(h̄), whichever is cheaper.

    `fused` is PyTorch's own g ⊙ σ'(h̄), in one pass.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    fused: Callable[[Tensor, Tensor, Tensor], Tensor]


def _gelu_derivative(h_bar: Tensor, h: Tensor) -> Tensor:
    """Φ(h̄) + h̄ φ(h̄), Φ and φ the standard normal's distribution and density."""
    density = torch.exp(-h_bar.square() / 2) / math.sqrt(2 * math.pi)
    return (1 + torch.erf(h_bar / math.sqrt(2))) / 2 + h_bar * density


def _silu_derivative(h_bar: Tensor, h: Tensor) -> Tensor:
    """s (1 + h̄ (1 − s)), s the sigmoid of h̄."""
    s = torch.sigmoid(h_bar)
    return s * (1 + h_bar * (1 - s))


def _softplus_derivative(h_bar: Tensor, h: Tensor) -> Tensor:
    """The sigmoid of h̄, and 1 past h̄ = 20, where PyTorch's softplus is h̄ itself."""
    return torch.sigmoid(h_bar).masked_fill(h_bar > 20, 1.0)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(
        lambda h_bar: h_bar, lambda h_bar, h: torch.ones_like(h_bar), lambda g, h_bar, h: g
    ),
    "relu": Activation(
        torch.relu,
        lambda h_bar, h: (h_bar > 0).to(h_bar.dtype),
        lambda g, h_bar, h: aten.threshold_backward(g, h, 0),
    ),
    "leaky_relu": Activation(
        nn.functional.leaky_relu,
        lambda h_bar, h: torch.full_like(h_bar, 0.01).masked_fill(h_bar > 0, 1.0),
        lambda g, h_bar, h: aten.leaky_relu_backward(g, h_bar, 0.01, False),
    ),
    "elu": Activation(
        nn.functional.elu,
        lambda h_bar, h: torch.where(h_bar > 0, 1.0, h + 1),
        lambda g, h_bar, h: aten.elu_backward(g, 1.0, 1.0, 1.0, False, h_bar),
    ),
    "gelu": Activation(
        nn.functional.gelu, _gelu_derivative, lambda g, h_bar, h: aten.gelu_backward(g, h_bar)
    ),
    "silu": Activation(
        nn.functional.silu, _silu_derivative, lambda g, h_bar, h: aten.silu_backward(g, h_bar)
    ),
    "softplus": Activation(
        nn.functional.softplus,
        _softplus_derivative,
        lambda g, h_bar, h: aten.softplus_backward(g, h_bar, 1.0, 20.0),
    ),
    "tanh": Activation(torch.tanh, lambda h_bar, h: 1 - h * h, lambda g, h_bar, h: aten.tanh_backward(g, h)),
    "sigmoid": Activation(
        torch.sigmoid, lambda h_bar, h: h * (1 - h), lambda g, h_bar, h: aten.sigmoid_backward(g, h)
    ),
}
"""Elementwise functions σ by name, each with σ'."""
