"""The table of activations: σ and σ' as plain functions of numbers, one text for all engines.

Numbers are PyTorch's tensors, or the compiled engine's registers, which have the same methods. There are no
branches: `a.where(condition, b)` chooses between two values that are both computed, so both must be finite
where autograd is to go through. A NaN stays one. σ' takes h̄ and h = σ(h̄), whichever is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Numbers = Any
"""A tensor or a register."""


@dataclass(frozen=True)
class Activation:
    """An elementwise σ and its derivative."""

    function: Callable[[Numbers], Numbers]
    """h = σ(h̄)"""
    derivative: Callable[[Numbers, Numbers], Numbers]
    """σ'(h̄) from h̄ and h"""


def identity(h_bar: Numbers) -> Numbers:
    """h̄"""
    return h_bar


def ones(h_bar: Numbers, h: Numbers) -> Numbers:
    """1"""
    return h_bar.where(h_bar.isnan(), 1.0)


def relu(h_bar: Numbers) -> Numbers:
    """max(h̄, 0)"""
    return h_bar.relu()


def relu_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """1 above 0, 0 elsewhere."""
    return ones(h_bar, h).where(~(h_bar <= 0), 0.0)  # `h_bar > 0` would make a NaN 0


def leaky_relu(h_bar: Numbers) -> Numbers:
    """h̄ above 0, h̄/100 below."""
    return h_bar.where(h_bar > 0, h_bar * 0.01)


def leaky_relu_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """1 above 0, 1/100 elsewhere."""
    return ones(h_bar, h).where(~(h_bar <= 0), 0.01)


def elu(h_bar: Numbers) -> Numbers:
    """h̄ above 0, exp h̄ − 1 below."""
    return h_bar.where(h_bar > 0, h_bar.where(~(h_bar > 0), 0.0).expm1())


def elu_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """1 above 0, exp h̄ below."""
    return (h + 1).where(~(h_bar > 0), 1.0)


def normal_distribution(x: Numbers) -> Numbers:
    """Φ(x), the standard normal's."""
    return ((x * math.sqrt(0.5)).erf() + 1) * 0.5


def gelu(h_bar: Numbers) -> Numbers:
    """h̄ Φ(h̄)"""
    return h_bar * normal_distribution(h_bar)


def gelu_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """Φ(h̄) + h̄ φ(h̄), φ the standard normal's density."""
    x = h_bar * math.sqrt(0.5)
    density = (-(x * x)).exp() * (1 / math.sqrt(2 * math.pi))  # Φ's exp has the same argument
    return normal_distribution(h_bar) + h_bar * density


def silu(h_bar: Numbers) -> Numbers:
    """h̄ s, s the sigmoid of h̄."""
    return h_bar * h_bar.sigmoid()


def silu_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """s (1 + h̄ (1 − s)) = s + h (1 − s)"""
    s = h_bar.sigmoid()
    return s + h * (1 - s)


def softplus(h_bar: Numbers) -> Numbers:
    """ln(1 + exp h̄), and past 20, as in PyTorch, h̄ itself."""
    return h_bar.where(h_bar > 20, h_bar.where(~(h_bar > 20), 0.0).exp().log1p())


def softplus_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """The sigmoid of h̄, and past 20 1."""
    return h_bar.sigmoid().where(~(h_bar > 20), 1.0)


def tanh(h_bar: Numbers) -> Numbers:
    """tanh h̄"""
    return h_bar.tanh()


def tanh_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """1 − h²"""
    return 1 - h * h


def sigmoid(h_bar: Numbers) -> Numbers:
    """1/(1 + exp(−h̄))"""
    return h_bar.sigmoid()


def sigmoid_derivative(h_bar: Numbers, h: Numbers) -> Numbers:
    """h (1 − h)"""
    return h * (1 - h)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(identity, ones),
    "relu": Activation(relu, relu_derivative),
    "leaky_relu": Activation(leaky_relu, leaky_relu_derivative),
    "elu": Activation(elu, elu_derivative),
    "gelu": Activation(gelu, gelu_derivative),
    "silu": Activation(silu, silu_derivative),
    "softplus": Activation(softplus, softplus_derivative),
    "tanh": Activation(tanh, tanh_derivative),
    "sigmoid": Activation(sigmoid, sigmoid_derivative),
}
"""Elementwise functions σ by name, each with σ'."""
