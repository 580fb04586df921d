"""Paths of optimizers on an objective, and how their learning rates are tuned.

An objective is `f(θ, t) → [k]` for `θ [k, P]`: k candidates in parallel, t the step from 0, which selects
the noise or the mini-batch. Every candidate's value depends on its own row alone, so that one backward pass
gives every row its own gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ffn_bench.configuration.schema import NewtonConfig, OptimizerConfig
from ffn_bench.model.layers import Shapes, joined, parted
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.newton import damped_newton_step, take_step
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer
from ffn_bench.optimizers.torch_optimizers import build_optimizer
from ffn_bench.race.surfaces import Surface

F64 = torch.float64

Objective = Callable[[Tensor, int], Tensor]
OnStep = Callable[[int, Tensor], None]
"""Called with step t and θ `[k, P]` after it; t = 0 is the start."""


def advance(
    objective: Objective,
    start: Tensor,
    config: OptimizerConfig,
    rates: Sequence[float],
    steps: int,
    on_step: OnStep,
    shapes: Shapes | None = None,
) -> None:
    """Run `steps` steps of an optimizer from `start [P]` with each of k `rates`; `on_step` gets each step.

    Elementwise rules advance all rates at once, and so does Newton's method where P is small: without
    `shapes`. Others (L-BFGS, another package's) run one by one, on tensors of `shapes` (by default one, of
    all P numbers), and `on_step` is then called when all are done.
    """
    rule = registry.elementwise_rule(config)
    if rule is not None:
        θ = torch.nn.Parameter(start.expand(len(rates), -1).clone())
        column = torch.tensor(rates, dtype=start.dtype)[:, None]
        by_rule = RuleOptimizer([θ], rule, **config.hyperparameters() | {"lr": column})
        _advance(objective, by_rule, steps, on_step, lambda: θ)
        return
    if isinstance(config, NewtonConfig) and shapes is None:
        _newton(objective, start, config.damping, rates, steps, on_step)
        return
    shapes = shapes or [tuple(start.shape)]
    paths: list[list[Tensor]] = []
    for rate in rates:
        parameters = [torch.nn.Parameter(tensor.clone()) for tensor in parted(start, shapes)]
        path: list[Tensor] = []
        optimizer = build_optimizer(config, parameters)
        for group in optimizer.param_groups:
            group["lr"] = rate
            if isinstance(
                optimizer, torch.optim.LBFGS
            ):  # its default is up to 20 iterations per step; here a step is one
                group["max_iter"], group["max_eval"] = 1, 25

        def row(parameters: list[torch.nn.Parameter] = parameters) -> Tensor:
            return joined(parameters)[None]

        _advance(objective, optimizer, steps, lambda t, θ, path=path: path.append(θ.clone()), row)  # type: ignore[misc]
        paths.append(path)
    for t, points in enumerate(zip(*paths, strict=True)):
        on_step(t, torch.cat(points))


def _advance(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    steps: int,
    on_step: OnStep,
    θ: Callable[[], Tensor],
) -> None:
    """`θ` gives the parameters as rows `[k, P]`, through which gradients reach them."""
    on_step(0, θ().detach())
    for t in range(steps):

        def value(t: int = t) -> Tensor:
            return objective(θ(), t).sum()

        # L-BFGS's line search may not terminate where numbers are not finite.
        if not isinstance(optimizer, torch.optim.LBFGS) or bool(torch.isfinite(θ()).all()):
            take_step(optimizer, value)
        on_step(t + 1, θ().detach())


def _newton(
    objective: Objective, start: Tensor, damping: float, rates: Sequence[float], steps: int, on_step: OnStep
) -> None:
    """`optimizers.newton.Newton` at k rates at once: each row takes the step that it would take alone."""
    θ = start.expand(len(rates), -1).clone()
    on_step(0, θ)
    for t in range(steps):
        current = θ.clone().requires_grad_()
        value = objective(current, t)
        (g,) = torch.autograd.grad(value.sum(), current, create_graph=True)
        H = torch.zeros(*g.shape, g.shape[1], dtype=g.dtype)
        if g.requires_grad:  # a linear objective has no second derivative
            for i in range(g.shape[1]):
                (H[:, i],) = torch.autograd.grad(
                    g[:, i].sum(), current, retain_graph=True, materialize_grads=True
                )
        value, g, H = value.detach(), g.detach(), (H + H.mT) / 2
        direction = torch.zeros_like(θ)
        for row in torch.isfinite(H).all(2).all(1).nonzero()[:, 0]:  # else there is nothing to solve
            direction[row] = damped_newton_step(g[row], H[row], damping)
        slope = torch.stack([a @ b for a, b in zip(g, direction, strict=True)])
        size, searching = torch.tensor(rates, dtype=θ.dtype), direction.ne(0).any(1)
        for _ in range(20):
            moved = torch.where(searching[:, None], θ + direction * size[:, None], θ)
            falls = searching & (objective(moved, t) <= value + 1e-4 * size * slope)
            θ = torch.where(falls[:, None], moved, θ)
            searching, size = searching & ~falls, size / 2
            if not bool(searching.any()):
                break
        on_step(t + 1, θ)


# --- on a surface ---------------------------------------------------------------------------------------


def noisy(surface: Surface, steps: int, seed: int) -> Objective:
    """A surface as an objective. With noise, step t adds ξ_t·θ: every gradient of that step is off by ξ_t.

    The draws depend on the seed alone: they are the same for every optimizer and every learning rate.
    """
    if not surface.noise:
        return lambda θ, t: surface.function(θ)
    generator = torch.Generator().manual_seed(seed)
    ξ = surface.noise * torch.randn(steps, 2, generator=generator, dtype=F64)
    return lambda θ, t: surface.function(θ) + θ @ ξ[t]


@dataclass(frozen=True)
class Raced:
    """An optimizer with the learning rate that was chosen for it, and the path it took."""

    name: str
    rate: float
    tried: dict[float, float]
    """Each rate that was tried, with its score (lower is better), ∞ where it did not meet the rule's
    conditions; one entry where the rate was given."""
    path: Tensor
    """`[points, P]`, the start first."""
    steps: Tensor
    """`[points]`: the step after which each point was recorded."""

    @property
    def tuned(self) -> bool:
        """Whether several rates were tried."""
        return len(self.tried) > 1

    @property
    def met(self) -> bool:
        """Whether the rate met the conditions of the rule that chose it."""
        return not self.tuned or math.isfinite(self.tried[self.rate])

    @property
    def on_edge(self) -> bool:
        """Whether the best rate is the lowest or highest of several, so that a better one may lie beyond."""
        return self.tuned and self.met and self.rate in (min(self.tried), max(self.tried))


def spaced(count: int, low: float, high: float) -> list[float]:
    """`count` rates from low to high, the ratio of neighbours the same."""
    if count == 1:
        return [math.sqrt(low * high)]
    return [float(f"{low * (high / low) ** (k / (count - 1)):.6g}") for k in range(count)]


def on_surface(
    surface: Surface, config: OptimizerConfig, rates: Sequence[float], steps: int, seed: int
) -> Raced:
    """The path of an optimizer on a surface, at the best of some learning rates by `score`."""
    start, points = torch.tensor(surface.start, dtype=F64), []
    advance(noisy(surface, steps, seed), start, config, rates, steps, lambda t, θ: points.append(θ.clone()))
    paths = torch.stack(points)
    scores = [score(surface, paths[:, k]) for k in range(len(rates))]
    best = scores.index(min(scores))  # the first of equals: the lowest rate
    # Scores are tuples: what disqualifies a rate comes before its value.
    tried = {rate: s[1] if s[0] == 0 else math.inf for rate, s in zip(rates, scores, strict=True)}
    return Raced(config.name, rates[best], tried, paths[:, best], torch.arange(steps + 1))


def rule(surface: Surface, steps: int) -> str:
    """How `score` chooses among the rates, in words."""
    if surface.minima:
        return f"the lowest f after {steps} steps, of those whose path stays in the picture"
    return (
        "the first to leave the picture downhill, of those without a step longer than a tenth of its diagonal"
    )


def score(surface: Surface, path: Tensor) -> tuple[int, float]:
    """The score of a path `[points, 2]`, lower is better, as `rule` describes.

    The first number is 0 where the conditions hold, 1 where they do not, 2 where numbers are not finite. On
    an unbounded surface a rate that never leaves comes after those that do, by its last value.
    """
    values = surface.function(path)
    finite = torch.isfinite(values) & torch.isfinite(path).all(1)
    if surface.minima:
        if not bool(finite.all()):
            return 2, math.inf
        return int(not bool(inside(surface, path).all())), float(values[-1])
    left = leaves(surface, path)
    until = len(path) - 1 if left is None else left
    if not bool(finite[: until + 1].all()):
        return 2, math.inf
    longest = float(path[: until + 1].diff(dim=0).norm(dim=1).max())
    low1, high1, low2, high2 = surface.window
    too_long = longest > math.hypot(high1 - low1, high2 - low2) / 10
    if left is None:
        return int(too_long), len(path) + math.atan(float(values[-1]))
    return int(too_long), float(left)


def inside(surface: Surface, path: Tensor) -> Tensor:
    """Which points of a path `[points, 2]` are in the surface's window: `[points]`, bool."""
    low1, high1, low2, high2 = surface.window
    a, b = path[:, 0], path[:, 1]
    return (a >= low1) & (a <= high1) & (b >= low2) & (b <= high2)


def leaves(surface: Surface, path: Tensor) -> int | None:
    """The first point of a path outside the window and lower than its start, if there is one."""
    values = surface.function(path)
    out = (~inside(surface, path) & (values < values[0])).nonzero()
    return int(out[0]) if len(out) else None
