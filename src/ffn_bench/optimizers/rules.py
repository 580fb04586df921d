"""Update rules: an optimizer's equation as a pure function, in two families.

A rule is `update(g, state, θ, hyper, t) → (θ, state)`: gradient `g` and parameters `θ` of one shape, the
state a dict of tensors that begins as `init(θ, hyper)`, the hyper-parameters numbers or columns that
broadcast against θ, and t the number of the step, from 1. Nothing changes in place, nothing is remembered
outside the state, nothing is drawn at random. A rule is elementwise where no number of θ depends on another
one: then θ may be one tensor, or `[runs, P]` with a learning rate of its own for every run (`hyper["lr"]` of
shape `[runs, 1]`). All rules here are; whether another package's is, `apart` finds by trying.

`RULES` holds PyTorch's semantics under PyTorch's names, and the lecture's equations (L14) as `lecture/…`.
They differ: the lecture's ε stands inside the square root, PyTorch's outside; the lecture's momentum is an
average whose weight α sits on the gradient, PyTorch's is v ← μ v + g.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

State = dict[str, Tensor]
Hyper = Mapping[str, Any]
Update = Callable[[Tensor, State, Tensor, Hyper, int], tuple[Tensor, State]]


def zeros(*names: str) -> Callable[[Tensor, Hyper], State]:
    """An `init` whose named states are 0, of θ's shape."""
    return lambda θ, hyper: {name: torch.zeros_like(θ) for name in names}


@dataclass(frozen=True)
class Rule:
    """An update rule: its equation, its first state, the defaults of its hyper-parameters (`lr` apart)."""

    update: Update
    init: Callable[[Tensor, Hyper], State] = field(default_factory=zeros)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    scope: Literal["element", "tensor"] | None = None
    """What a number of the new θ depends on: on its own element alone, or on others of its tensor, too (a
    norm, a shape). Runs of an elementwise rule can be trained together; None is found out by
    trying."""


# --- the lecture's equations (L14) ----------------------------------------------------------------------


def lecture_momentum(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """v ← α g + (1−α) v;  θ ← θ − η v.

    Source: L14. PyTorch's SGD with momentum = dampening = 1−α has the same recursion, but its first step
    takes v = g where this one takes v = α g.
    """
    η, α = hyper["lr"], hyper["alpha"]
    v = α * g + (1 - α) * state["v"]
    return θ - η * v, {"v": v}


def lecture_adagrad(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """γ ← γ + g⊙g;  θ ← θ − η/√(ε+γ) ⊙ g.

    Source: L14. PyTorch's Adagrad divides by √γ + ε.
    """
    η, ε = hyper["lr"], hyper["eps"]
    γ = state["gamma"] + g * g
    return θ - η / (ε + γ).sqrt() * g, {"gamma": γ}


def lecture_rmsprop(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """γ ← β γ + (1−β) g⊙g;  θ ← θ − η/√(ε+γ) ⊙ g.

    Source: L14. PyTorch's RMSprop calls β alpha (0.99) and divides by √γ + ε.
    """
    η, β, ε = hyper["lr"], hyper["beta"], hyper["eps"]
    γ = β * state["gamma"] + (1 - β) * g * g
    return θ - η / (ε + γ).sqrt() * g, {"gamma": γ}


def lecture_adam(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """s ← β₁ s + (1−β₁) g;  γ ← β₂ γ + (1−β₂) g⊙g;  ŝ = s/(1−β₁ᵗ);  γ̂ = γ/(1−β₂ᵗ);  θ ← θ − η/√(ε+γ̂) ⊙ ŝ.

    Source: L14. PyTorch's Adam divides by √γ̂ + ε.
    """
    η, ε = hyper["lr"], hyper["eps"]
    β1, β2 = hyper["betas"]
    s = β1 * state["s"] + (1 - β1) * g
    γ = β2 * state["gamma"] + (1 - β2) * g * g
    s_hat, γ_hat = s / (1 - β1**t), γ / (1 - β2**t)
    return θ - η / (ε + γ_hat).sqrt() * s_hat, {"s": s, "gamma": γ}


# --- PyTorch's semantics --------------------------------------------------------------------------------


def _decayed(g: Tensor, θ: Tensor, hyper: Hyper) -> Tensor:
    """PyTorch's weight decay (of all optimizers but AdamW): g + λ θ, biases too."""
    decayed: Tensor = g + hyper["weight_decay"] * θ
    return decayed


def sgd(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """v ← μ v + (1−τ) g (v = g at t = 1);  θ ← θ − η v, or with Nesterov θ ← θ − η (g + μ v).

    Source: torch.optim.SGD; Polyak (1964), Sutskever et al. (2013). Without momentum it is θ ← θ − η g.
    """
    η, μ, τ = hyper["lr"], hyper["momentum"], hyper["dampening"]
    g = _decayed(g, θ, hyper)
    if isinstance(μ, (int, float)) and μ == 0:  # no momentum, no dampening, as in PyTorch
        return θ - η * g, state
    v = g if t == 1 else μ * state["v"] + (1 - τ) * g
    return θ - η * (g + μ * v if hyper["nesterov"] else v), {"v": v}


def adagrad(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """γ ← γ + g⊙g;  θ ← θ − η/(1 + (t−1) d) · g/(√γ + ε).

    Source: torch.optim.Adagrad; Duchi et al. (2011). γ begins at `initial_accumulator_value`.
    """
    η = hyper["lr"] / (1 + (t - 1) * hyper["lr_decay"])
    g = _decayed(g, θ, hyper)
    γ = state["gamma"] + g * g
    return θ - η * g / (γ.sqrt() + hyper["eps"]), {"gamma": γ}


def adadelta(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """γ ← ρ γ + (1−ρ) g⊙g;  Δ = √(δ+ε)/√(γ+ε) ⊙ g;  δ ← ρ δ + (1−ρ) Δ⊙Δ;  θ ← θ − η Δ.

    Source: torch.optim.Adadelta; Zeiler (2012), whose η is 1. Here PyTorch, too, has ε inside the root.
    """
    ρ, ε = hyper["rho"], hyper["eps"]
    g = _decayed(g, θ, hyper)
    γ = ρ * state["gamma"] + (1 - ρ) * g * g
    Δ = (state["delta"] + ε).sqrt() / (γ + ε).sqrt() * g
    return θ - hyper["lr"] * Δ, {"gamma": γ, "delta": ρ * state["delta"] + (1 - ρ) * Δ * Δ}


def rmsprop(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """γ ← α γ + (1−α) g⊙g;  v ← μ v + g/(√γ + ε);  θ ← θ − η v.

    Source: torch.optim.RMSprop; Tieleman and Hinton (2012). `centered` takes γ − ḡ⊙ḡ under the root, ḡ the
    same average of g (Graves, 2013).
    """
    α = hyper["alpha"]
    g = _decayed(g, θ, hyper)
    γ = α * state["gamma"] + (1 - α) * g * g
    mean = α * state["mean"] + (1 - α) * g
    variance = γ - mean * mean if hyper["centered"] else γ
    v = hyper["momentum"] * state["v"] + g / (variance.sqrt() + hyper["eps"])
    return θ - hyper["lr"] * v, {"gamma": γ, "mean": mean, "v": v}


def _moments(g: Tensor, state: State, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """s ← β₁ s + (1−β₁) g and γ ← β₂ γ + (1−β₂) g⊙g, which Adam's family shares."""
    β1, β2 = hyper["betas"]
    return β1 * state["s"] + (1 - β1) * g, β2 * state["gamma"] + (1 - β2) * g * g


def _adam_step(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    β1, β2 = hyper["betas"]
    s, γ = _moments(g, state, hyper)
    largest = torch.maximum(state["largest"], γ) if hyper["amsgrad"] else γ
    root = largest.sqrt() / _sqrt(1 - β2**t) + hyper["eps"]
    return θ - hyper["lr"] / (1 - β1**t) * s / root, {"s": s, "gamma": γ, "largest": largest}


def _sqrt(value: Any) -> Any:
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)


def adam(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """s ← β₁ s + (1−β₁) g;  γ ← β₂ γ + (1−β₂) g⊙g;  θ ← θ − η/(1−β₁ᵗ) · s/(√γ/√(1−β₂ᵗ) + ε).

    Source: torch.optim.Adam; Kingma and Ba (2015). `amsgrad` takes the largest γ so far (Reddi et al., 2018).
    """
    return _adam_step(_decayed(g, θ, hyper), state, θ, hyper, t)


def adamw(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """θ ← (1 − η λ) θ, then Adam's step with the undecayed g.

    Source: torch.optim.AdamW; Loshchilov and Hutter (2019).
    """
    return _adam_step(g, state, (1 - hyper["lr"] * hyper["weight_decay"]) * θ, hyper, t)


def nadam(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """μ_t = β₁ (1 − ½ 0.96^(tψ)), M_t = Π μ; θ ← θ − η [(1−μ_t)/(1−M_t) g + μ_{t+1}/(1−M_{t+1}) s] / (√γ̂ +
    ε).

    Source: torch.optim.NAdam; Dozat (2016). ψ is `momentum_decay`. PyTorch keeps M in float32 unless the
    default dtype is float64; here it has θ's dtype.
    """
    β1, β2 = hyper["betas"]
    g = _decayed(g, θ, hyper)
    s, γ = _moments(g, state, hyper)
    μ, μ_next = (β1 * (1 - 0.5 * 0.96 ** (k * hyper["momentum_decay"])) for k in (t, t + 1))
    M = state["product"] * μ
    root = (γ / (1 - β2**t)).sqrt() + hyper["eps"]
    step = (1 - μ) / (1 - M) * g + μ_next / (1 - M * μ_next) * s
    return θ - hyper["lr"] * step / root, {"s": s, "gamma": γ, "product": M}


def adamax(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """s ← β₁ s + (1−β₁) g;  u ← max(β₂ u, |g| + ε);  θ ← θ − η/(1−β₁ᵗ) · s/u.

    Source: torch.optim.Adamax; Kingma and Ba (2015).
    """
    β1, β2 = hyper["betas"]
    g = _decayed(g, θ, hyper)
    s = β1 * state["s"] + (1 - β1) * g
    u = torch.maximum(β2 * state["u"], g.abs() + hyper["eps"])
    return θ - hyper["lr"] / (1 - β1**t) * s / u, {"s": s, "u": u}


def radam(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """Adam whose step is multiplied by r_t once ρ_t > 5, and before that is η ŝ.

    ρ_∞ = 2/(1−β₂) − 1, ρ_t = ρ_∞ − 2tβ₂ᵗ/(1−β₂ᵗ), r_t² = (ρ_t−4)(ρ_t−2)ρ_∞ / ((ρ_∞−4)(ρ_∞−2)ρ_t).

    Source: torch.optim.RAdam; Liu et al. (2020).
    """
    β1, β2 = (torch.as_tensor(β, dtype=torch.float64, device=θ.device) for β in hyper["betas"])
    g = _decayed(g, θ, hyper)
    s, γ = _moments(g, state, hyper)
    ρ_inf = 2 / (1 - β2) - 1
    ρ = ρ_inf - 2 * t * β2**t / (1 - β2**t)
    r2 = (ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ)
    scale = (r2.clamp(min=0) * (1 - β2**t)).sqrt().to(θ.dtype)
    adaptive = scale / (γ.sqrt() + hyper["eps"])
    step = torch.where(ρ > 5, adaptive, torch.ones_like(adaptive))
    return θ - hyper["lr"] / (1 - β1**t).to(θ.dtype) * s * step, {"s": s, "gamma": γ}


def _adagrad_init(θ: Tensor, hyper: Hyper) -> State:
    return {"gamma": torch.zeros_like(θ) + hyper["initial_accumulator_value"]}


def _nadam_init(θ: Tensor, hyper: Hyper) -> State:
    # M is one number a run: a column beside θ's rows.
    return {"s": torch.zeros_like(θ), "gamma": torch.zeros_like(θ), "product": torch.ones_like(θ[..., :1])}


_rule = partial(Rule, scope="element")
_ADAM = _rule(adam, zeros("s", "gamma", "largest"))

RULES: dict[str, Rule] = {
    "sgd": _rule(sgd, zeros("v")),
    "momentum": _rule(sgd, zeros("v")),
    "nesterov": _rule(sgd, zeros("v")),
    "gd": _rule(sgd, zeros("v")),
    "adagrad": _rule(adagrad, _adagrad_init),
    "adadelta": _rule(adadelta, zeros("gamma", "delta")),
    "rmsprop": _rule(rmsprop, zeros("gamma", "mean", "v")),
    "adam": _ADAM,
    "adamw": _rule(adamw, _ADAM.init),
    "nadam": _rule(nadam, _nadam_init),
    "adamax": _rule(adamax, zeros("s", "u")),
    "radam": _rule(radam, zeros("s", "gamma")),
    "lecture/momentum": _rule(lecture_momentum, zeros("v"), {"alpha": 0.1}),
    "lecture/adagrad": _rule(lecture_adagrad, zeros("gamma"), {"eps": 1e-6}),
    "lecture/rmsprop": _rule(lecture_rmsprop, zeros("gamma"), {"beta": 0.9, "eps": 1e-6}),
    "lecture/adam": _rule(lecture_adam, zeros("s", "gamma"), {"betas": (0.9, 0.999), "eps": 1e-6}),
}
"""Every rule by the name of its YAML in conf/optimizer, where its hyper-parameters have their values."""


def advance(rule: Rule, θ: Tensor, g: Tensor, state: State, hyper: Hyper, t: int) -> None:
    """One step of a rule: θ, in place, and `state` take what it gives for them."""
    updated, after = rule.update(g, state, θ, hyper, t)
    state.update(_held(after, θ, g))
    θ.copy_(updated)


def first_state(rule: Rule, θ: Tensor, hyper: Hyper) -> State:
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

    def __init__(self, params: Any, rule: Rule, **hyper: Any) -> None:
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
