"""L15: all optimizers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ffn_bench.configuration.schema import HiddenConfig, SplitDataConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic
from ffn_bench.model.backprop import loss_of
from ffn_bench.model.network import FFN
from ffn_bench.optimizers.newton import Newton, take_step
from ffn_bench.race.surfaces import SURFACES, Surface

RACERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, float]]] = {
    # a learning rate for each surface, fixed by hand: the picture ranks nothing
    "SGD": (torch.optim.SGD, {"saddle": 0.05, "valley": 0.015, "beale": 0.01}),
    "momentum": (partial(torch.optim.SGD, momentum=0.9), {"saddle": 0.02, "valley": 0.01, "beale": 0.005}),
    "AdaGrad": (torch.optim.Adagrad, {"saddle": 0.3, "valley": 0.4, "beale": 0.4}),
    "AdaDelta": (torch.optim.Adadelta, {"saddle": 20.0, "valley": 20.0, "beale": 20.0}),
    "RMSProp": (torch.optim.RMSprop, {"saddle": 0.02, "valley": 0.02, "beale": 0.02}),
    "Adam": (torch.optim.Adam, {"saddle": 0.05, "valley": 0.05, "beale": 0.1}),
    "NAdam": (torch.optim.NAdam, {"saddle": 0.05, "valley": 0.05, "beale": 0.1}),
    "Newton, damped": (partial(Newton, damping=0.5), {"saddle": 1.0, "valley": 1.0, "beale": 1.0}),
}  # fmt: skip


def race(surface: Surface, make: Callable[..., torch.optim.Optimizer], lr: float, steps: int = 150) -> Tensor:
    """An optimizer's path on a surface, `[steps + 1, 2]`."""
    θ = torch.nn.Parameter(torch.tensor(surface.start, dtype=F64))
    optimizer = make([θ], lr=lr)
    path = [θ.detach().clone()]
    for _ in range(steps):
        take_step(optimizer, lambda: surface.function(θ))
        path.append(θ.detach().clone())
    return torch.stack(path)


def race_of_all(name: str, steps: int = 150) -> dict[str, Tensor]:
    """The paths of all `RACERS` on a surface as `race` has them.

    One pass back gives all their gradients, each of its own row; Newton's method needs passes of its own.
    """
    surface = SURFACES[name]
    racers = {who: partial(make, lr=lrs[name]) for who, (make, lrs) in RACERS.items()}
    alone = [who for who, make in racers.items() if isinstance(make([torch.zeros(1)]), Newton)]
    together = [who for who in racers if who not in alone]
    θ = torch.tensor(surface.start, dtype=F64).repeat(len(together), 1)
    rows = [*map(torch.nn.Parameter, θ)]  # which share its memory
    optimizers = [racers[who]([row]) for who, row in zip(together, rows, strict=True)]
    points = [θ.clone()]
    for _ in range(steps):
        current = θ.detach().requires_grad_()
        (g,) = torch.autograd.grad(surface.function(current).sum(), current)
        for optimizer, row, gradient in zip(optimizers, rows, g, strict=True):
            row.grad = gradient
            optimizer.step()
        points.append(θ.clone())
    paths = dict(zip(together, torch.stack(points, dim=1), strict=True))
    paths |= {who: race(surface, RACERS[who][0], RACERS[who][1][name], steps) for who in alone}
    return {who: paths[who] for who in racers}


@topic("race", "L15", "All optimizers side by side")
def all_side_by_side(context: Context) -> Iterator[Row]:
    """One start, one surface, every optimizer's path: on a saddle, in an ill-conditioned valley, on
    Beale's function, and from one initialisation of a real network. Learning rates were set by hand
    for each: the picture ranks nothing."""
    all_paths: dict[str, dict[str, Tensor]] = {}
    for name in ("saddle", "valley", "beale"):
        surface = SURFACES[name]
        all_paths[name] = paths = race_of_all(name)
        for who, path in paths.items():
            values = surface.function(path)
            what = f"{name}, {surface.formula}: {who}, lr {RACERS[who][1][name]:g}"
            if name == "saddle":  # it falls for ever; what tells is when an optimizer has left the plateau
                left = int((values >= 0).sum())
                yield holds(what, "f < 0 in the end", f"f < 0 after {left} steps", values[-1] < 0)
            else:
                shown = f"{float(values[0]):.3f} → {float(values[-1]):.2g}"
                yield holds(what, "f falls in 150 steps", shown, values[-1] < values[0])
    data = load_tensors(SplitDataConfig(name="digits"), "float32")
    curves = _network_curves(data)
    starts = {round(curve[0], 6) for curve in curves.values()}
    yield compare(
        "the digits network: different first losses among the optimizers (one start)", 1, len(starts)
    )
    for who, curve in curves.items():
        shown = f"{curve[0]:.3f} → {curve[-1]:.2g}"
        yield holds(
            f"the digits network: {who}, training loss", "falls in 100 steps", shown, curve[-1] < curve[0]
        )
    if context.draw:
        from ffn_bench.lecture import path_figures  # imports matplotlib

        context.figures["race"] = path_figures.race(all_paths, curves)


NETWORK_RACERS: list[tuple[str, Callable[..., torch.optim.Optimizer], float]] = [
    ("SGD", torch.optim.SGD, 0.3),
    ("momentum", partial(torch.optim.SGD, momentum=0.9), 0.1),
    ("AdaGrad", torch.optim.Adagrad, 0.05),
    ("AdaDelta", torch.optim.Adadelta, 3.0),
    ("RMSProp", torch.optim.RMSprop, 0.01),
    ("Adam", torch.optim.Adam, 0.02),
    ("NAdam", torch.optim.NAdam, 0.02),
]


def _network_curves(data: Data[Tensor], steps: int = 100) -> dict[str, list[float]]:
    """The training losses of each optimizer on a network of its own from one start, before each step.

    One pass gives all their gradients: their networks are the rows of one.
    """
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), 0, torch.float32)
    count = len(NETWORK_RACERS)
    stacked = [p.detach().repeat(count, *(1,) * p.dim()) for layer in net.layers for p in layer]
    rows = [[torch.nn.Parameter(p[k]) for p in stacked] for k in range(count)]  # which share their memory
    optimizers = [make(own, lr=lr) for own, (_, make, lr) in zip(rows, NETWORK_RACERS, strict=True)]
    losses = []
    for _ in range(steps):
        current = [p.detach().requires_grad_() for p in stacked]
        layers = [(W, b) for W, b in zip(current[::2], current[1::2], strict=True)]
        loss = loss_of(layers, data.train.x, data.train.y, net.activation)
        gradients = torch.autograd.grad(loss.sum(), current)
        for own, optimizer, *gs in zip(rows, optimizers, *gradients, strict=True):
            for p, g in zip(own, gs, strict=True):
                p.grad = g
            optimizer.step()
        losses.append(loss.detach())
    curves = torch.stack(losses, dim=1).tolist()
    return {who: curve for (who, _, _), curve in zip(NETWORK_RACERS, curves, strict=True)}
