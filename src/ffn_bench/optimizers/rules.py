"""Update rules: every optimizer's equation, written once, in two families.

A rule has two parts. `coefficients(hyper, t)` is what depends on the hyper-parameters and on the number t of
the step (from 1) alone: float64, for many steps at once. `update(g, θ, state, c)` is elementwise: gradient,
parameter, states and coefficients → the new parameter and states. It is plain arithmetic and the functions
of `elementwise`, so that one text serves torch tensors, NumPy arrays, numbers, and the registers with which
the compiled engine calls it once, to write the body of its loop. A variant (Nesterov, amsgrad, centered) is
an update of its own: no loop carries a branch. Nothing is remembered outside the states, and nothing is drawn
at random.

`RULES` holds PyTorch's semantics under PyTorch's names, and the lecture's equations (L14) as `lecture/…`.
They differ: the lecture's ε stands inside the square root, PyTorch's outside; the lecture's momentum is an
average whose weight α sits on the gradient, PyTorch's is v ← μ v + g.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ffn_bench.optimizers.elementwise import Numbers, absolute, maximum, sqrt, toward
from ffn_bench.optimizers.rule_forms import Array, Hyper, Row, Rule, Step

__all__ = ["RULES", "Rule", "variant"]

# --- what coefficients need -----------------------------------------------------------------------------


_power = np.frompyfunc(pow, 2, 1)


def power(base: Any, exponent: Any) -> Array:
    """base^exponent, each as Python has it.

    NumPy's own differs in the last bit with AVX-512 and without (1 − 0.999ᵗ in 71 of the first 20,000 t), and
    between a scalar and an array. A run's bits must depend on neither.
    """
    return np.asarray(_power(base, exponent), dtype=np.float64)


def _is_zero(value: Any) -> bool:
    """Whether a hyper-parameter is the number 0, for every run then."""
    return isinstance(value, (int, float)) and value == 0


# --- the lecture's equations (L14) ----------------------------------------------------------------------


def _lecture_momentum_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["alpha"]


def lecture_momentum(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """v ← α g + (1−α) v;  θ ← θ − η v.

    Source: L14. PyTorch's SGD with momentum = dampening = 1−α has the same recursion, but its first step
    takes v = g where this one takes v = α g.
    """
    η, α = c
    (v,) = state
    v = toward(v, g, α)
    return θ - η * v, (v,)


def _lecture_adagrad_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["eps"]


def lecture_adagrad(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """γ ← γ + g⊙g;  θ ← θ − η/√(ε+γ) ⊙ g.

    Source: L14. PyTorch's Adagrad divides by √γ + ε.
    """
    η, ε = c
    (γ,) = state
    γ = γ + g * g
    return θ - η * g / sqrt(ε + γ), (γ,)


def _lecture_rmsprop_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["eps"], 1 - h["beta"]


def lecture_rmsprop(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """γ ← β γ + (1−β) g⊙g;  θ ← θ − η/√(ε+γ) ⊙ g.

    Source: L14. PyTorch's RMSprop calls β alpha (0.99) and divides by √γ + ε.
    """
    η, ε, w = c
    (γ,) = state
    γ = toward(γ, g * g, w)
    return θ - η * g / sqrt(ε + γ), (γ,)


def _lecture_adam_c(h: Hyper, t: Array) -> Row:
    # η ŝ/√(ε + γ̂) with γ̂ = γ/c₂: both sides of the root times c₂.
    β1, β2 = h["betas"]
    c2 = 1 - power(β2, t)
    return h["lr"] * np.sqrt(c2) / (1 - power(β1, t)), h["eps"] * c2, 1 - β1, 1 - β2


def lecture_adam(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """s ← β₁ s + (1−β₁) g;  γ ← β₂ γ + (1−β₂) g⊙g;  ŝ = s/(1−β₁ᵗ);  γ̂ = γ/(1−β₂ᵗ);  θ ← θ − η/√(ε+γ̂) ⊙ ŝ.

    Source: L14. PyTorch's Adam divides by √γ̂ + ε. The corrections of ŝ and γ̂ are in the coefficients.
    """
    η, ε, w1, w2 = c
    s, γ = state
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    return θ - η * s / sqrt(ε + γ), (s, γ)


# --- PyTorch's semantics --------------------------------------------------------------------------------
# λ is PyTorch's weight decay (of all optimizers but AdamW): g + λ θ, biases too.


def _sgd_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["weight_decay"]


def sgd(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """θ ← θ − η g.

    Source: torch.optim.SGD without momentum; dampening is then without effect, as in PyTorch.
    """
    η, λ = c
    return θ - η * (g + λ * θ), state


def _momentum_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["weight_decay"], h["momentum"], np.where(t == 1, 1.0, 1 - h["dampening"])


def momentum(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """v ← μ v + (1−τ) g (v = g at t = 1);  θ ← θ − η v.

    Source: torch.optim.SGD; Polyak (1964).
    """
    η, λ, μ, w = c
    (v,) = state
    v = μ * v + w * (g + λ * θ)
    return θ - η * v, (v,)


def _nesterov_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["weight_decay"], h["momentum"]


def nesterov(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """v ← μ v + g;  θ ← θ − η (g + μ v).

    Source: torch.optim.SGD, which takes no dampening with it; Sutskever et al. (2013).
    """
    η, λ, μ = c
    (v,) = state
    g = g + λ * θ
    v = μ * v + g
    return θ - η * (g + μ * v), (v,)


def _adagrad_c(h: Hyper, t: Array) -> Row:
    return h["lr"] / (1 + (t - 1) * h["lr_decay"]), h["eps"], h["weight_decay"]


def adagrad(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """γ ← γ + g⊙g;  θ ← θ − η/(1 + (t−1) d) · g/(√γ + ε).

    Source: torch.optim.Adagrad; Duchi et al. (2011). γ begins at `initial_accumulator_value`.
    """
    η, ε, λ = c
    (γ,) = state
    g = g + λ * θ
    γ = γ + g * g
    return θ - η * g / (sqrt(γ) + ε), (γ,)


def _adadelta_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["eps"], h["weight_decay"], 1 - h["rho"]


def adadelta(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """γ ← ρ γ + (1−ρ) g⊙g;  Δ = √(δ+ε)/√(γ+ε) ⊙ g;  δ ← ρ δ + (1−ρ) Δ⊙Δ;  θ ← θ − η Δ.

    Source: torch.optim.Adadelta; Zeiler (2012), whose η is 1. Here PyTorch, too, has ε inside the root.
    """
    η, ε, λ, w = c
    γ, δ = state
    g = g + λ * θ
    γ = toward(γ, g * g, w)
    Δ = sqrt((δ + ε) / (γ + ε)) * g  # one root, not two
    return θ - η * Δ, (γ, toward(δ, Δ * Δ, w))


def _rmsprop_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["eps"], h["weight_decay"], 1 - h["alpha"]


def rmsprop(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """γ ← α γ + (1−α) g⊙g;  θ ← θ − η g/(√γ + ε).

    Source: torch.optim.RMSprop; Tieleman and Hinton (2012).
    """
    η, ε, λ, w = c
    (γ,) = state
    g = g + λ * θ
    γ = toward(γ, g * g, w)
    return θ - η * g / (sqrt(γ) + ε), (γ,)


def rmsprop_centered(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """`rmsprop` with γ − ḡ⊙ḡ under the root, ḡ the same average of g (Graves, 2013)."""
    η, ε, λ, w = c
    γ, mean = state
    g = g + λ * θ
    γ, mean = toward(γ, g * g, w), toward(mean, g, w)
    return θ - η * g / (sqrt(γ - mean * mean) + ε), (γ, mean)


def _rmsprop_momentum_c(h: Hyper, t: Array) -> Row:
    return h["lr"], h["eps"], h["weight_decay"], 1 - h["alpha"], h["momentum"]


def rmsprop_momentum(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """`rmsprop` with v ← μ v + g/(√γ + ε);  θ ← θ − η v."""
    η, ε, λ, w, μ = c
    γ, v = state
    g = g + λ * θ
    γ = toward(γ, g * g, w)
    v = μ * v + g / (sqrt(γ) + ε)
    return θ - η * v, (γ, v)


def rmsprop_centered_momentum(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """`rmsprop_centered` with v ← μ v + g/(√(γ − ḡ⊙ḡ) + ε);  θ ← θ − η v."""
    η, ε, λ, w, μ = c
    γ, mean, v = state
    g = g + λ * θ
    γ, mean = toward(γ, g * g, w), toward(mean, g, w)
    v = μ * v + g / (sqrt(γ - mean * mean) + ε)
    return θ - η * v, (γ, mean, v)


def _adam_c(h: Hyper, t: Array) -> Row:
    # The efficient form of Kingma and Ba (2015), section 2: the correction of γ moves into η and ε.
    β1, β2 = h["betas"]
    c2 = np.sqrt(1 - power(β2, t))
    return h["lr"] * c2 / (1 - power(β1, t)), h["eps"] * c2, h["weight_decay"], 1 - β1, 1 - β2


def adam(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """s ← β₁ s + (1−β₁) g;  γ ← β₂ γ + (1−β₂) g⊙g;  θ ← θ − η/(1−β₁ᵗ) · s/(√γ/√(1−β₂ᵗ) + ε).

    Source: torch.optim.Adam; Kingma and Ba (2015).
    """
    η, ε, λ, w1, w2 = c
    s, γ = state
    g = g + λ * θ
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    return θ - η * s / (sqrt(γ) + ε), (s, γ)


def adam_amsgrad(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """`adam` with the largest γ so far under the root (Reddi et al., 2018)."""
    η, ε, λ, w1, w2 = c
    s, γ, largest = state
    g = g + λ * θ
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    largest = maximum(largest, γ)
    return θ - η * s / (sqrt(largest) + ε), (s, γ, largest)


def _adamw_c(h: Hyper, t: Array) -> Row:
    η, ε, λ, w1, w2 = _adam_c(h, t)
    return η, ε, 1 - h["lr"] * λ, w1, w2


def adamw(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """θ ← (1 − η λ) θ, then Adam's step with the undecayed g.

    Source: torch.optim.AdamW; Loshchilov and Hutter (2019).
    """
    η, ε, keep, w1, w2 = c
    s, γ = state
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    return keep * θ - η * s / (sqrt(γ) + ε), (s, γ)


def adamw_amsgrad(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """`adamw` with the largest γ so far under the root."""
    η, ε, keep, w1, w2 = c
    s, γ, largest = state
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    largest = maximum(largest, γ)
    return keep * θ - η * s / (sqrt(largest) + ε), (s, γ, largest)


def _nadam_μ(β1: Any, ψ: Any, t: Any) -> Array:
    μ: Array = β1 * (1 - 0.5 * power(0.96, t * ψ))
    return μ


def _nadam_product(β1: Any, ψ: Any, t: Array) -> Array:
    """M_t = μ_1 … μ_t, from step 1 on whatever t asks for.

    M_t is below β₁ᵗ, and once that is below 2⁻⁵⁴, 1 − M_t is 1: no later factor is computed.
    """
    β1, ψ, t = np.broadcast_arrays(β1, ψ, t)
    M = np.zeros(t.shape)
    for β, decay in set(zip(β1.ravel().tolist(), ψ.ravel().tolist(), strict=True)):
        own = (β1 == β) & (ψ == decay)
        most = int(t[own].max())
        if 0 < β < 1:
            most = min(most, math.ceil(-54 * math.log(2) / math.log(β)))
        products = np.cumprod(_nadam_μ(β, decay, np.arange(1.0, most + 1)))
        M[own] = products[np.minimum(t[own], most).astype(int) - 1]
    return M


def _nadam_c(h: Hyper, t: Array) -> Row:
    (β1, β2), ψ = h["betas"], h["momentum_decay"]
    μ, μ_next, M = _nadam_μ(β1, ψ, t), _nadam_μ(β1, ψ, t + 1), _nadam_product(β1, ψ, t)
    c2 = np.sqrt(1 - power(β2, t))
    η = h["lr"] * c2
    of_g, of_s = η * (1 - μ) / (1 - M), η * μ_next / (1 - M * μ_next)
    return of_g, of_s, h["eps"] * c2, h["weight_decay"], 1 - β1, 1 - β2


def nadam(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """μ_t = β₁ (1 − ½ 0.96^(tψ)), M_t = Π μ; θ ← θ − η [(1−μ_t)/(1−M_t) g + μ_{t+1}/(1−M_{t+1}) s] / (√γ̂ +
    ε).

    Source: torch.optim.NAdam; Dozat (2016). ψ is `momentum_decay`. PyTorch keeps M in float32 unless the
    default dtype is float64; here it is float64.
    """
    of_g, of_s, ε, λ, w1, w2 = c
    s, γ = state
    g = g + λ * θ
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    return θ - (of_g * g + of_s * s) / (sqrt(γ) + ε), (s, γ)


def _adamax_c(h: Hyper, t: Array) -> Row:
    β1, β2 = h["betas"]
    return h["lr"] / (1 - power(β1, t)), h["eps"], h["weight_decay"], 1 - β1, β2


def adamax(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """s ← β₁ s + (1−β₁) g;  u ← max(β₂ u, |g| + ε);  θ ← θ − η/(1−β₁ᵗ) · s/u.

    Source: torch.optim.Adamax; Kingma and Ba (2015).
    """
    η, ε, λ, w1, β2 = c
    s, u = state
    g = g + λ * θ
    s, u = toward(s, g, w1), maximum(β2 * u, absolute(g) + ε)
    return θ - η * s / u, (s, u)


def _radam_c(h: Hyper, t: Array) -> Row:
    # The step is s (plain + adaptive/(√γ + ε)), of which one is 0: Adam's once ρ_t > 5, momentum's before.
    β1, β2 = h["betas"]
    β2_t = power(β2, t)
    ρ_inf = 2 / (1 - β2) - 1
    ρ = ρ_inf - 2 * t * β2_t / (1 - β2_t)
    with np.errstate(divide="ignore", invalid="ignore"):  # at ρ of 5 and below, which is not taken
        r2 = (ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ)
        r = np.sqrt(np.maximum(r2, 0) * (1 - β2_t))
    η = h["lr"] / (1 - power(β1, t))
    plain, adaptive = np.where(ρ > 5, 0.0, η), np.where(ρ > 5, η * r, 0.0)
    return plain, adaptive, h["eps"], h["weight_decay"], 1 - β1, 1 - β2


def radam(g: Numbers, θ: Numbers, state: Row, c: Row) -> Step:
    """Adam whose step is multiplied by r_t once ρ_t > 5, and before that is η ŝ.

    ρ_∞ = 2/(1−β₂) − 1, ρ_t = ρ_∞ − 2tβ₂ᵗ/(1−β₂ᵗ), r_t² = (ρ_t−4)(ρ_t−2)ρ_∞ / ((ρ_∞−4)(ρ_∞−2)ρ_t).

    Source: torch.optim.RAdam; Liu et al. (2020).
    """
    plain, adaptive, ε, λ, w1, w2 = c
    s, γ = state
    g = g + λ * θ
    s, γ = toward(s, g, w1), toward(γ, g * g, w2)
    return θ - s * (plain + adaptive / (sqrt(γ) + ε)), (s, γ)


# --- the table ------------------------------------------------------------------------------------------

_MOMENTUM = Rule(momentum, _momentum_c, ("v",))
_NESTEROV = Rule(nesterov, _nesterov_c, ("v",))
_ADAM_AMSGRAD = Rule(adam_amsgrad, _adam_c, ("s", "gamma", "largest"))
_ADAMW_AMSGRAD = Rule(adamw_amsgrad, _adamw_c, ("s", "gamma", "largest"))
_CENTERED = Rule(rmsprop_centered, _rmsprop_c, ("gamma", "mean"))
_RMSPROP_MOMENTUM = Rule(rmsprop_momentum, _rmsprop_momentum_c, ("gamma", "v"))
_CENTERED_MOMENTUM = Rule(rmsprop_centered_momentum, _rmsprop_momentum_c, ("gamma", "mean", "v"))


def _of_sgd(h: Hyper) -> Rule:
    if _is_zero(h["momentum"]):
        return _SGD
    return _NESTEROV if h["nesterov"] else _MOMENTUM


def _of_rmsprop(h: Hyper) -> Rule:
    if _is_zero(h["momentum"]):
        return _CENTERED if h["centered"] else _RMSPROP
    return _CENTERED_MOMENTUM if h["centered"] else _RMSPROP_MOMENTUM


def _of_adam(h: Hyper) -> Rule:
    return _ADAM_AMSGRAD if h["amsgrad"] else _ADAM


def _of_adamw(h: Hyper) -> Rule:
    return _ADAMW_AMSGRAD if h["amsgrad"] else _ADAMW


_SGD = Rule(sgd, _sgd_c, variants=_of_sgd)
_RMSPROP = Rule(rmsprop, _rmsprop_c, ("gamma",), variants=_of_rmsprop)
_ADAM = Rule(adam, _adam_c, ("s", "gamma"), variants=_of_adam)
_ADAMW = Rule(adamw, _adamw_c, ("s", "gamma"), variants=_of_adamw)

RULES: dict[str, Rule] = {
    "sgd": _SGD,
    "momentum": _SGD,
    "nesterov": _SGD,
    "gd": _SGD,
    "adagrad": Rule(adagrad, _adagrad_c, ("gamma",), lambda h: (h["initial_accumulator_value"],)),
    "adadelta": Rule(adadelta, _adadelta_c, ("gamma", "delta")),
    "rmsprop": _RMSPROP,
    "adam": _ADAM,
    "adamw": _ADAMW,
    "nadam": Rule(nadam, _nadam_c, ("s", "gamma")),
    "adamax": Rule(adamax, _adamax_c, ("s", "u")),
    "radam": Rule(radam, _radam_c, ("s", "gamma")),
    "lecture/momentum": Rule(lecture_momentum, _lecture_momentum_c, ("v",)),
    "lecture/adagrad": Rule(lecture_adagrad, _lecture_adagrad_c, ("gamma",)),
    "lecture/rmsprop": Rule(lecture_rmsprop, _lecture_rmsprop_c, ("gamma",)),
    "lecture/adam": Rule(lecture_adam, _lecture_adam_c, ("s", "gamma")),
}
"""Every rule by the name of its YAML in conf/optimizer, which has its hyper-parameters and their values."""


def variant(name: str, hyper: Hyper) -> Rule:
    """The rule that a name and these hyper-parameters mean. Raises KeyError for an unknown name."""
    return RULES[name].variant(hyper)
