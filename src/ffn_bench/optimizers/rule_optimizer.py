"""Update rules on torch tensors: one step of either kind, and any rule as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.optimizers.rule_forms import AnyRule, Hyper, Row, Rule, State, TensorRule


def coefficients(rule: Rule, hyper: Hyper, t: int) -> Row:
    """A rule's coefficients of step t, where hyper-parameters may be columns, as tensors."""
    numbers = {key: _in_numpy(value) for key, value in hyper.items() if key != "params"}
    return rule.coefficients(numbers, np.asarray(float(t)))


def _in_numpy(value: Any) -> Any:
    """A tensor as a float64 array; of tuples, a tuple of those; the rest as it is."""
    if isinstance(value, tuple):
        return tuple(map(_in_numpy, value))
    return value.double().cpu().numpy() if isinstance(value, Tensor) else value


def updated(rule: Rule, g: Tensor, state: State, θ: Tensor, c: Row) -> tuple[Tensor, State]:
    """θ and the state after a step with these coefficients: numbers, or arrays that broadcast with θ."""

    def as_torch(value: Any) -> Any:
        if np.ndim(value) == 0:
            return float(value)
        return torch.from_numpy(np.asarray(value)).to(θ.device, θ.dtype)

    states = tuple(state[name] for name in rule.states)
    after, states = rule.update(g, θ, states, tuple(map(as_torch, c)))
    return after, dict(zip(rule.states, states, strict=True))


def on_tensors(rule: AnyRule) -> TensorRule:
    """A rule of either kind as one function of tensors. Hyper-parameters may be columns."""
    if isinstance(rule, TensorRule):
        return rule
    assert isinstance(rule, Rule)

    def init(θ: Tensor, hyper: Hyper) -> State:
        own = rule.variant(hyper)
        first = own.first(hyper) if own.first else (0.0,) * len(own.states)
        return {name: torch.zeros_like(θ) + value for name, value in zip(own.states, first, strict=True)}

    def update(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
        own = rule.variant(hyper)
        return updated(own, g, state, θ, coefficients(own, hyper, t))

    return TensorRule(update, init, rule.defaults, rule.scope)


def first_state(rule: TensorRule, θ: Tensor, hyper: Hyper) -> State:
    """What a rule's state begins as."""
    return _held(rule.init(θ, hyper), θ)


def _store(θ: Tensor, g: Tensor, state: State, after: Tensor, state_after: State) -> None:
    state.update(_held(state_after, θ, g))
    θ.copy_(after)


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
    """Any rule as a `torch.optim.Optimizer`: `RuleOptimizer(parameters, RULES["lecture/momentum"], lr=0.01,
    alpha=0.1)`.

    Hyper-parameters that are not given take the defaults of a rule that has them. `state_dict` holds the
    rule's state tensors and the step's number t of every parameter.
    """

    def __init__(self, params: Any, rule: AnyRule, **hyper: Any) -> None:
        self.rule = rule
        super().__init__(params, {**rule.defaults, **hyper})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Apply the rule to every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._update_of(group)
            for θ in group["params"]:
                if θ.grad is None:
                    continue
                state = self.state[θ]
                if not state:
                    state.update(first_state(on_tensors(self.rule), θ, group), t=0)
                t = state["t"] + 1
                _store(θ, θ.grad, state, *update(θ.grad, state, θ, t))
                state["t"] = t
        return loss

    def _update_of(self, group: Hyper) -> Callable[[Tensor, State, Tensor, int], tuple[Tensor, State]]:
        """`update(g, state, θ, t)` with a group's hyper-parameters; coefficients once for all its tensors."""
        rule = self.rule
        if isinstance(rule, TensorRule):
            return lambda g, state, θ, t: rule.update(g, state, θ, group, t)
        assert isinstance(rule, Rule)
        own = rule.variant(group)
        coefficients_at = cache(partial(coefficients, own, group))
        return lambda g, state, θ, t: updated(own, g, state, θ, coefficients_at(t))
