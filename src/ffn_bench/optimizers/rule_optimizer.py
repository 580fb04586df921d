"""Update rules on torch tensors: one step of either kind, and any rule as a `torch.optim.Optimizer`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.optimizers.rule_forms import AnyRule, Hyper, Rule, State, TensorRule


def on_tensors(rule: AnyRule) -> TensorRule:
    """A rule as one function of tensors. Hyper-parameters may be columns that broadcast with θ."""
    if isinstance(rule, TensorRule):
        return rule
    assert isinstance(rule, Rule)

    def init(θ: Tensor, hyper: Hyper) -> State:
        own = rule.variant(hyper)
        first = own.first(hyper) if own.first else (0.0,) * len(own.states)
        return {name: torch.zeros_like(θ) + value for name, value in zip(own.states, first, strict=True)}

    def update(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
        own = rule.variant(hyper)
        numbers = {key: _in_numpy(value) for key, value in hyper.items() if key != "params"}
        c = tuple(_like(θ, value) for value in own.coefficients(numbers, np.asarray(float(t))))
        updated, states = own.update(g, θ, tuple(state[name] for name in own.states), c)
        return updated, dict(zip(own.states, states, strict=True))

    return TensorRule(update, init, rule.defaults, rule.scope)


def _in_numpy(value: Any) -> Any:
    """A tensor as a float64 array; of tuples, a tuple of those; the rest as it is."""
    if isinstance(value, tuple):
        return tuple(map(_in_numpy, value))
    return value.double().cpu().numpy() if isinstance(value, Tensor) else value


def _like(θ: Tensor, coefficient: Any) -> Any:
    """A coefficient as a float, or as a tensor of θ's dtype where it is a column."""
    if np.ndim(coefficient) == 0:
        return float(coefficient)
    return torch.from_numpy(np.asarray(coefficient)).to(θ.device, θ.dtype)


def advance(rule: TensorRule, θ: Tensor, g: Tensor, state: State, hyper: Hyper, t: int) -> None:
    """One step of a rule: θ, in place, and `state` take what it gives for them."""
    updated, after = rule.update(g, state, θ, hyper, t)
    state.update(_held(after, θ, g))
    θ.copy_(updated)


def first_state(rule: TensorRule, θ: Tensor, hyper: Hyper) -> State:
    """What a rule's state begins as."""
    return _held(rule.init(θ, hyper), θ)


def _held(state: State, *passing: Tensor) -> State:
    """A state, with copies of what lies in tensors that will soon hold other numbers."""
    overwritten = {tensor.untyped_storage().data_ptr() for tensor in passing}
    return {
        name: value.clone()
        if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in overwritten
        else value
        for name, value in state.items()
    }


class RuleOptimizer(torch.optim.Optimizer):
    """Any rule as a `torch.optim.Optimizer`: `RuleOptimizer(parameters, RULES["lecture/adam"], lr=0.01)`.

    Hyper-parameters that are not given take the rule's defaults. `state_dict` holds the rule's state
    tensors and the step's number t of every parameter.
    """

    def __init__(self, params: Any, rule: AnyRule, **hyper: Any) -> None:
        self.rule = on_tensors(rule)
        super().__init__(params, {**rule.defaults, **hyper})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Apply the rule to every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for θ in group["params"]:
                if θ.grad is None:
                    continue
                state = self.state[θ]
                if not state:
                    state.update(first_state(self.rule, θ, group), t=0)
                t = state["t"] + 1
                advance(self.rule, θ, θ.grad, state, group, t)
                state["t"] = t
        return loss
