"""The update rules of `rules.py` once more, in place and in few passes, for many runs at a time.

`rules.py` is the legible version; the tests hold the two together step by step. Here θ, g and every state are
`[runs, P]`, a row a run. What does not depend on them, such as 1 − β₂ᵗ, comes from `coefficients(hyper, t)`:
computed in float64 for many steps at once, from numbers, or from columns `[runs, 1]` where the runs differ.
`step(θ, g, state, c, spare)` then makes one step with one column (or number) for each coefficient. g is lost
in it, and `spare` is one more tensor of its shape to work in.

A hyper-parameter that is 0 must be 0 in every row: such terms are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.optimizers import rule_optimizer
from ffn_bench.optimizers.rule_forms import AnyRule, Hyper, State
from ffn_bench.optimizers.rule_optimizer import on_tensors
from ffn_bench.optimizers.rules import RULES

Coefficients = Mapping[str, Any]


@dataclass(frozen=True)
class InPlace:
    """One rule: `coefficients(hyper, t)` and `step(θ, g, state, c, spare)`."""

    coefficients: Callable[[Mapping[str, Any], Any], dict[str, Any]]
    step: Callable[[Tensor, Tensor, State, Coefficients, Tensor], None]
    as_it_is: bool = False
    """Whether it is a rule's own update: then the coefficients have t, a number, and the step can be neither
    compiled nor captured."""


def root(x: Tensor, out: Tensor) -> Tensor:
    """√x as 1/(1/√x): PyTorch's own sqrt calls a vector library that takes twice the time of both."""
    return torch.rsqrt(x, out=out).reciprocal_()


def _pick(h: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: h[name] for name in names}


def _decay(g: Tensor, θ: Tensor, c: Coefficients) -> None:
    """g ← g + λ θ, PyTorch's weight decay."""
    λ = c["weight_decay"]
    if isinstance(λ, Tensor):
        g.addcmul_(θ, λ)
    elif λ:
        g.add_(θ, alpha=λ)


def _is_zero(value: Any) -> bool:
    """Whether a hyper-parameter is the number 0, in every row then."""
    return isinstance(value, (int, float)) and value == 0


def _subtract(θ: Tensor, c: Any, v: Tensor, spare: Tensor) -> None:
    """θ ← θ − c v."""
    θ.sub_(torch.mul(v, c, out=spare))


# --- the lecture's equations (L14) ----------------------------------------------------------------------


def _lecture_momentum_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return _pick(h, "lr", "alpha")


def _lecture_momentum(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _subtract(θ, c["lr"], state["v"].lerp_(g, c["alpha"]), spare)


def _lecture_adagrad_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return _pick(h, "lr", "eps")


def _lecture_adagrad(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    γ = state["gamma"].addcmul_(g, g)
    g.mul_(c["lr"]).mul_(torch.add(γ, c["eps"], out=spare).rsqrt_())
    θ.sub_(g)


def _lecture_rmsprop_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return {**_pick(h, "lr", "eps"), "1-beta": 1 - h["beta"]}


def _lecture_rmsprop(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    γ = state["gamma"].lerp_(torch.mul(g, g, out=spare), c["1-beta"])
    g.mul_(c["lr"]).mul_(torch.add(γ, c["eps"], out=spare).rsqrt_())
    θ.sub_(g)


def _lecture_adam_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    # η ŝ/√(ε + γ̂) with γ̂ = γ/c₂: both sides of the root times c₂.
    β1, β2 = h["betas"]
    c2 = 1 - β2**t
    size = h["lr"] * np.sqrt(c2) / (1 - β1**t)
    return {"1-beta1": 1 - β1, "1-beta2": 1 - β2, "size": size, "eps": h["eps"] * c2}


def _lecture_adam(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    s = state["s"].lerp_(g, c["1-beta1"])
    γ = state["gamma"].lerp_(g.mul_(g), c["1-beta2"])
    torch.add(γ, c["eps"], out=g).rsqrt_()
    θ.sub_(torch.mul(s, c["size"], out=spare).mul_(g))


# --- PyTorch's semantics --------------------------------------------------------------------------------


def _sgd_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    # v begins as g: at t = 1 there is no dampening yet.
    weight = 1.0 if _is_zero(h["dampening"]) else np.where(t == 1, 1.0, 1 - h["dampening"])
    return {**_pick(h, "lr", "momentum", "nesterov", "weight_decay"), "weight": weight}


def _sgd(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    μ, weight = c["momentum"], c["weight"]
    if _is_zero(μ):
        _subtract(θ, c["lr"], g, spare)
        return
    v = state["v"].mul_(μ)
    v.add_(torch.mul(g, weight, out=spare) if isinstance(weight, Tensor) else g)
    _subtract(θ, c["lr"], g.add_(torch.mul(v, μ, out=spare)) if c["nesterov"] else v, spare)


def _adagrad_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    lr = h["lr"] if _is_zero(h["lr_decay"]) else h["lr"] / (1 + (t - 1) * h["lr_decay"])
    return {**_pick(h, "eps", "weight_decay"), "lr": lr}


def _adagrad(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    γ = state["gamma"].addcmul_(g, g)
    θ.addcdiv_(g.mul_(c["lr"]), root(γ, spare).add_(c["eps"]), value=-1)


def _adadelta_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return {**_pick(h, "lr", "eps", "weight_decay"), "1-rho": 1 - h["rho"]}


def _adadelta(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    ε, weight = c["eps"], c["1-rho"]
    γ = state["gamma"].lerp_(torch.mul(g, g, out=spare), weight)
    δ = state["delta"]
    g.mul_(torch.add(γ, ε, out=spare).rsqrt_()).mul_(root(torch.add(δ, ε, out=spare), spare))
    δ.lerp_(torch.mul(g, g, out=spare), weight)
    _subtract(θ, c["lr"], g, spare)


def _rmsprop_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return {**_pick(h, "lr", "eps", "momentum", "centered", "weight_decay"), "1-alpha": 1 - h["alpha"]}


def _rmsprop(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    γ = state["gamma"].lerp_(torch.mul(g, g, out=spare), c["1-alpha"])
    if c["centered"]:
        mean = state["mean"].lerp_(g, c["1-alpha"])
        γ = torch.addcmul(γ, mean, mean, value=-1, out=spare)
    below, μ = root(γ, spare).add_(c["eps"]), c["momentum"]
    if _is_zero(μ):
        θ.addcdiv_(g.mul_(c["lr"]), below, value=-1)
    else:
        v = state["v"].mul_(μ).addcdiv_(g, below)
        _subtract(θ, c["lr"], v, spare)


def _adam_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    # The efficient form of Kingma and Ba (2015), section 2: the correction of γ moves into η and ε.
    β1, β2 = h["betas"]
    c2 = np.sqrt(1 - β2**t)
    moved = {"size": h["lr"] * c2 / (1 - β1**t), "eps": h["eps"] * c2}
    return {**_pick(h, "amsgrad", "weight_decay"), "1-beta1": 1 - β1, "1-beta2": 1 - β2, **moved}


def _adam(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    _adam_step(θ, g, state, c, spare)


def _adam_step(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    s = state["s"].lerp_(g, c["1-beta1"])
    γ = state["gamma"].lerp_(g.mul_(g), c["1-beta2"])
    if c["amsgrad"]:
        γ = torch.maximum(state["largest"], γ, out=state["largest"])
    θ.addcdiv_(torch.mul(s, c["size"], out=spare), root(γ, g).add_(c["eps"]), value=-1)


def _adamw_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    return {**_adam_c(h, t), "keep": 1 - h["lr"] * h["weight_decay"]}


def _adamw(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    θ.mul_(c["keep"])
    _adam_step(θ, g, state, c, spare)


def _nadam_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    β1, β2 = h["betas"]
    μ, μ_next = (β1 * (1 - 0.5 * 0.96 ** (k * h["momentum_decay"])) for k in (t, t + 1))
    c2 = np.sqrt(1 - β2**t)
    moved = {"lr": h["lr"] * c2, "eps": h["eps"] * c2}
    weights = {"1-beta1": 1 - β1, "1-beta2": 1 - β2, "mu": μ, "mu_next": μ_next}
    return {**_pick(h, "weight_decay"), **weights, **moved}


def _nadam(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    s = state["s"].lerp_(g, c["1-beta1"])
    γ = state["gamma"].lerp_(torch.mul(g, g, out=spare), c["1-beta2"])
    μ, μ_next = c["mu"], c["mu_next"]
    M = state["product"].mul_(μ)
    g.mul_((1 - μ) / (1 - M)).addcmul_(s, μ_next / (1 - M * μ_next))
    θ.addcdiv_(g.mul_(c["lr"]), root(γ, spare).add_(c["eps"]), value=-1)


def _adamax_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    β1, β2 = h["betas"]
    weights = {"1-beta1": 1 - β1, "beta2": β2, "size": h["lr"] / (1 - β1**t)}
    return {**_pick(h, "eps", "weight_decay"), **weights}


def _adamax(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    s = state["s"].lerp_(g, c["1-beta1"])
    u = state["u"].mul_(c["beta2"])
    torch.maximum(u, g.abs_().add_(c["eps"]), out=u)
    θ.addcdiv_(torch.mul(s, c["size"], out=spare), u, value=-1)


def _radam_c(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
    # The step is s (plain + adaptive/(√γ + ε)), of which one is 0: Adam's once ρ_t > 5, momentum's before.
    β1, β2 = h["betas"]
    ρ_inf = 2 / (1 - β2) - 1
    ρ = ρ_inf - 2 * t * β2**t / (1 - β2**t)
    r2 = np.maximum((ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ), 0)
    size = h["lr"] / (1 - β1**t)
    parts = {
        "adaptive": np.where(ρ > 5, size * np.sqrt(r2 * (1 - β2**t)), 0.0),
        "plain": np.where(ρ > 5, 0.0, size),
    }
    return {**_pick(h, "eps", "weight_decay"), "1-beta1": 1 - β1, "1-beta2": 1 - β2, **parts}


def _radam(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
    _decay(g, θ, c)
    s = state["s"].lerp_(g, c["1-beta1"])
    γ = state["gamma"].lerp_(g.mul_(g), c["1-beta2"])
    scale = torch.div(c["adaptive"], root(γ, g).add_(c["eps"]), out=spare).add_(c["plain"])
    θ.sub_(scale.mul_(s))


def _as_it_is(rule: AnyRule) -> InPlace:
    """A rule that has no version here, such as another package's: its own update, on rows.

    It finds what it finds alone, numbers, but for the learning rate, which is a column even of equal ones: a
    run's bits must not depend on its company.
    """
    on_rows = on_tensors(rule)

    def coefficients(h: Mapping[str, Any], t: Any) -> dict[str, Any]:
        return {**h, "lr": h["lr"] + np.zeros_like(t)}

    def step(θ: Tensor, g: Tensor, state: State, c: Coefficients, spare: Tensor) -> None:
        rule_optimizer.advance(on_rows, θ, g, state, c, c["t"])

    return InPlace(coefficients, step, as_it_is=True)


_IN_PLACE: dict[Callable[..., Any], InPlace] = {
    RULES["sgd"].update: InPlace(_sgd_c, _sgd),
    RULES["adagrad"].update: InPlace(_adagrad_c, _adagrad),
    RULES["adadelta"].update: InPlace(_adadelta_c, _adadelta),
    RULES["rmsprop"].update: InPlace(_rmsprop_c, _rmsprop),
    RULES["adam"].update: InPlace(_adam_c, _adam),
    RULES["adamw"].update: InPlace(_adamw_c, _adamw),
    RULES["nadam"].update: InPlace(_nadam_c, _nadam),
    RULES["adamax"].update: InPlace(_adamax_c, _adamax),
    RULES["radam"].update: InPlace(_radam_c, _radam),
    RULES["lecture/momentum"].update: InPlace(_lecture_momentum_c, _lecture_momentum),
    RULES["lecture/adagrad"].update: InPlace(_lecture_adagrad_c, _lecture_adagrad),
    RULES["lecture/rmsprop"].update: InPlace(_lecture_rmsprop_c, _lecture_rmsprop),
    RULES["lecture/adam"].update: InPlace(_lecture_adam_c, _lecture_adam),
}


def first_state(rule: AnyRule, θ: Tensor, hyper: Hyper) -> State:
    """What a rule's state begins as here: NAdam's M, one number a run, is a state."""
    state = rule_optimizer.first_state(on_tensors(rule), θ, hyper)
    if rule is RULES["nadam"]:
        state["product"] = torch.ones_like(θ[..., :1])
    return state


def in_place(rule: AnyRule) -> InPlace:
    """The in-place version of `rule`, or its own update where there is none."""
    return _IN_PLACE.get(rule.update) or _as_it_is(rule)
