"""L14: the update rules, and what momentum is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ffn_bench.configuration.rule_files import optimizer_keys
from ffn_bench.lecture.descent import descend
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic, vector
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer
from ffn_bench.optimizers.rules import RULES


def by_plain_floats(name: str, gs: Sequence[float], θ: float, η: float, h: dict[str, Any]) -> float:
    """The lecture's rules as L14 prints them, one number at a time, nothing shared with `rules`."""
    v = γ = s = 0.0
    for t, g in enumerate(gs, start=1):
        if name == "lecture/momentum":
            v = h["alpha"] * g + (1 - h["alpha"]) * v
            θ -= η * v
        elif name == "lecture/adagrad":
            γ += g * g
            θ -= η / math.sqrt(h["eps"] + γ) * g
        elif name == "lecture/rmsprop":
            γ = h["beta"] * γ + (1 - h["beta"]) * g * g
            θ -= η / math.sqrt(h["eps"] + γ) * g
        else:
            β1, β2 = h["betas"]
            s, γ = β1 * s + (1 - β1) * g, β2 * γ + (1 - β2) * g * g
            θ -= η / math.sqrt(h["eps"] + γ / (1 - β2**t)) * (s / (1 - β1**t))
    return θ


def _hyper(name: str) -> dict[str, Any]:
    """A rule's hyper-parameters as its YAML file has them."""
    keys = optimizer_keys(name)
    assert keys is not None
    return keys().hyperparameters()


def by_rule(name: str, gs: Sequence[float], θ: float, η: float, **changed: Any) -> float:
    """The same through `rules.RULES`."""
    parameter = torch.nn.Parameter(torch.tensor(θ, dtype=F64))
    optimizer = RuleOptimizer([parameter], RULES[name], **_hyper(name) | {"lr": η, **changed})
    return _follow(optimizer, parameter, gs)


def _follow(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, gs: Sequence[float]) -> float:
    for g in gs:
        parameter.grad = torch.tensor(g, dtype=F64)
        optimizer.step()
    return float(parameter.detach())


@topic("rules", "L14", "The update rules")
def rules(context: Context) -> Iterator[Row]:
    """SGD with momentum, AdaGrad, RMSProp and Adam exactly as the lecture states them, ε inside the
    root, α on the gradient. PyTorch puts ε outside, and its momentum is v ← μ v + g, whose first step
    is undamped. And what momentum is for: with condition κ, gradient descent contracts by (κ−1)/(κ+1)
    a step, momentum by (√κ−1)/(√κ+1)."""
    gs = [0.3, -1.2, 0.7, 0.05, 2.0]
    for name in RULES:
        if name.startswith("lecture/"):
            expected = by_plain_floats(name, gs, 1.0, 0.1, _hyper(name))
            yield compare(
                f"{name.removeprefix('lecture/')}: θ after 5 steps",
                expected,
                by_rule(name, gs, 1.0, 0.1),
                digits=8,
            )

    def pytorch(make: Callable[[list[Tensor]], torch.optim.Optimizer], gs: Sequence[float]) -> float:
        parameter = torch.nn.Parameter(torch.tensor(1.0, dtype=F64))
        return _follow(make([parameter]), parameter, gs)

    α = 0.25
    lecture_step = 1 - by_rule("lecture/momentum", gs[:1], 1.0, 0.1, alpha=α)
    pytorch_step = 1 - pytorch(lambda p: torch.optim.SGD(p, 0.1, momentum=1 - α, dampening=1 - α), gs[:1])
    yield compare("momentum's first step, α = ¼: the lecture takes η α g", 0.1 * α * gs[0], lecture_step)
    yield compare("PyTorch with momentum = dampening = 1−α takes η g", 0.1 * gs[0], pytorch_step)
    adam = [by_rule("lecture/adam", gs, 1.0, 0.1, eps=ε) for ε in (0.0, 0.1)]
    torchs = [pytorch(partial(torch.optim.Adam, lr=0.1, eps=ε), gs) for ε in (0.0, 0.1)]
    yield compare("Adam with ε = 0 is PyTorch's Adam", torchs[0], adam[0], digits=8)
    yield holds(
        "with ε = 0.1, inside the root and outside differ",
        "differ",
        [adam[1], torchs[1]],
        abs(adam[1] - torchs[1]) > 1e-3,
    )

    κ = 100.0
    diagonal = torch.tensor([1.0, κ], dtype=F64)
    η = 2 / (1 + κ)
    path = descend(lambda w: (diagonal * w * w).sum() / 2, vector(1.0, 1.0), η, 400)
    rate = float((path[400].norm() / path[300].norm()) ** 0.01)
    yield compare(
        "valley of condition 100: contraction of gradient descent, (κ−1)/(κ+1)",
        (κ - 1) / (κ + 1),
        rate,
        1e-6,
        6,
    )
    β = ((math.sqrt(κ) - 1) / (math.sqrt(κ) + 1)) ** 2
    heavy = _momentum_path(diagonal, (2 / (1 + math.sqrt(κ))) ** 2, β, 400)
    rate = float((heavy[400].norm() / heavy[200].norm()) ** (1 / 200))
    yield compare("of momentum, (√κ−1)/(√κ+1)", math.sqrt(β), rate, 0.02, 4)
    steps = [
        int((p.norm(dim=1) > 1e-6 * p[0].norm()).sum())
        for p in (descend(lambda w: (diagonal * w * w).sum() / 2, vector(1.0, 1.0), η, 900), heavy)
    ]
    yield holds(
        "steps to a millionth of the distance, without and with momentum",
        "many, few",
        steps,
        steps[1] < steps[0] / 4,
    )


def _momentum_path(diagonal: Tensor, η: float, μ: float, steps: int) -> Tensor:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=F64))
    optimizer = RuleOptimizer(
        [parameter], RULES["momentum"], lr=η, momentum=μ, dampening=0.0, nesterov=False, weight_decay=0.0
    )
    path = [parameter.detach().clone()]
    for _ in range(steps):
        parameter.grad = diagonal * parameter.detach()
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)
