"""A researcher's package that offers two optimizers to ffn-train: a rule, and a torch.optim.Optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ffn_bench.rules import Rule, zeros


def sign_momentum(g: Tensor, state: dict[str, Tensor], θ: Tensor, hyper: Any, t: int) -> Any:
    """v ← μ v + (1−μ) g;  θ ← θ − η sign(v)."""
    v = hyper["mu"] * state["v"] + (1 - hyper["mu"]) * g
    return θ - hyper["lr"] * v.sign(), {"v": v}


SIGN_MOMENTUM = Rule(sign_momentum, zeros("v"), {"mu": 0.9})


class Plain(torch.optim.Optimizer):
    """θ ← θ − η · scale · g."""

    def __init__(self, params: Any, lr: float = 0.1, scale: float = 1.0) -> None:
        super().__init__(params, {"lr": lr, "scale": scale})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every parameter."""
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * group["scale"] * p.grad
