"""Whether another package's update rule is what it says it is, found by trying it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.optimizers.rule_forms import AnyRule, Hyper, Row, Rule
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer

SCALES = (1e-6, 1.0, 1e6)
STEPS = (1, 2, 3, 4, 5, 6, 7, 100, 1000)
"""Sizes of gradients (a rule may clip them) and numbers of steps (a rule may change its formula, as RAdam
does at its sixth) on which rules are tried."""


def impure(rule: AnyRule, hyper: Hyper) -> str | None:
    """What keeps a rule from training anything, in words; None where nothing does.

    It must give the same numbers for the same arguments, and leave the gradient as it is. One that raises
    shows it again when it trains.
    """
    try:
        if torch.equal(*(_trained(rule, hyper).nan_to_num() for _ in range(2))):
            return None
    except _GradientChanged:
        return "changes its gradient in place"
    except Exception:
        return None
    return "gives different numbers for the same arguments, so it is random or keeps hidden state"


class _GradientChanged(Exception):
    pass


def _trained(rule: AnyRule, hyper: Hyper) -> Tensor:
    """Two tensors after every step, one after another."""
    generator = torch.Generator().manual_seed(0)
    like: Any = {"generator": generator, "dtype": torch.float64}
    parameters = [torch.nn.Parameter(torch.randn(shape, **like)) for shape in ((3, 5), (5,))]
    optimizer = RuleOptimizer(parameters, rule, **{**hyper, "lr": 0.03})
    path = []
    for scale in SCALES:
        for _ in STEPS:
            gradients = [scale * torch.randn(p.shape, **like) for p in parameters]
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient.clone()
            optimizer.step()
            for p, gradient in zip(parameters, gradients, strict=True):
                if p.grad is None or not torch.equal(p.grad, gradient):
                    raise _GradientChanged
                path.append(p.detach().flatten().clone())
    return torch.cat(path)


def not_elementwise(rule: Rule, hyper: Hyper) -> str | None:
    """What keeps a rule of numbers from being one, in words: on single numbers its update must compute what
    it does on tensors, and there each number by itself."""
    try:
        numbers, tensors = _path(rule, hyper, float), _path(rule, hyper, _as_rows)
    except Exception as e:
        said = (str(e).splitlines() or [type(e).__name__])[0]
        return f"does not compute on single numbers ({said})"
    if np.allclose(numbers, tensors, rtol=1e-9, atol=0, equal_nan=True):
        return None
    return "computes on tensors what it does not compute on their single numbers"


def _as_rows(number: float) -> Tensor:
    """A number amid others in a tensor."""
    return torch.tensor([[3.0, -1.0, 0.2], [-0.5, number, 1e3], [5.0, -2.0, 0.1]], dtype=torch.float64)


def _path(rule: Rule, hyper: Hyper, kind: Callable[[float], Any]) -> list[float]:
    """θ after every step from 0.7, as a number or beside others."""
    path = []
    for scale in SCALES:
        θ: Any = kind(0.7)
        first = rule.first(hyper) if rule.first else (0.0,) * len(rule.states)
        states: Row = tuple(kind(float(value)) for value in first)
        for t in STEPS:
            c = tuple(float(v) for v in rule.coefficients({**hyper, "lr": 0.03}, np.asarray(float(t))))
            θ, states = rule.update(kind(scale * math.sin(t)), θ, states, c)
            path.append(float(θ[1, 1]) if isinstance(θ, Tensor) else float(θ))
    return path
