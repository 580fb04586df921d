"""Lion, an update rule that ffn-bench does not ship."""

from torch import Tensor

from ffn_bench.rules import Hyper, Rule, State, zeros


def lion(g: Tensor, state: State, θ: Tensor, hyper: Hyper, t: int) -> tuple[Tensor, State]:
    """θ ← θ − η (sign(β₁ m + (1−β₁) g) + λ θ);  m ← β₂ m + (1−β₂) g.

    Source: Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675.
    """
    η, λ, m = hyper["lr"], hyper["weight_decay"], state["m"]
    β1, β2 = hyper["betas"]
    direction = (β1 * m + (1 - β1) * g).sign() + λ * θ
    return θ - η * direction, {"m": β2 * m + (1 - β2) * g}


LION = Rule(lion, zeros("m"), {"betas": (0.9, 0.99), "weight_decay": 0.0}, scope="element")
