"""L16: second-order methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ffn_bench.configuration.schema import HiddenConfig, MoonsConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.lecture.side_by_side import race
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic, vector
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.network import FFN
from ffn_bench.optimizers.newton import Newton, damped_newton_step, take_step
from ffn_bench.race.surfaces import SURFACES


@topic("newton", "L16", "Second-order methods")
def newton(context: Context) -> Iterator[Row]:
    """Newton's step −H⁻¹g solves a quadratic at once, and walks into a saddle; damped by −(H + δI)⁻¹g
    with H + δI positive definite it leaves it. L-BFGS approximates H from gradients. On a small
    network both beat gradient descent, step for step."""
    surface = SURFACES["valley"].function
    start = vector(-1.8, 0.35)
    g, H = gradient_and_hessian(surface(start), [start])
    yield compare(
        "the valley (condition 100): one undamped Newton step ends at",
        [0.0, 0.0],
        start + damped_newton_step(g, H, 0.0),
    )
    saddle = SURFACES["saddle"]
    start = vector(*saddle.start)
    g, H = gradient_and_hessian(saddle.function(start), [start])
    yield compare("the saddle: the plain step −H⁻¹g ends at", [0.0, 0.0], start - torch.linalg.solve(H, g))
    path = race(saddle, partial(Newton, damping=0.5), 1.0, steps=10)
    values = saddle.function(path)
    yield holds(
        "the saddle: f after 10 damped steps",
        "below 0, and falling",
        [float(values[0]), float(values[-1])],
        values[-1] < 0 and bool((values.diff() < 0).all()),
    )
    data = load_tensors(MoonsConfig(name="moons", n_samples=400, noise=0.25))
    ends = {}
    for name, make in (
        ("gradient descent, η = 1", lambda p: torch.optim.SGD(p, lr=1.0)),
        ("L-BFGS", lambda p: torch.optim.LBFGS(p, max_iter=40, line_search_fn="strong_wolfe")),
        ("Newton, damped", lambda p: Newton(p, damping=1e-2)),
    ):
        ends[name] = _train_moons(data, make)
    first = next(iter(ends.values()))
    for name, loss in ends.items():
        what = f"a network of 32 parameters, training loss after 40 steps: {name}"
        if loss == first:
            yield holds(what, "below log 2, a guess", loss, loss < math.log(2))
        else:
            yield holds(what, f"below {first:.4f}", loss, loss < first)


def _train_moons(data: Data[Tensor], make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> float:
    net = FFN([2, 6, 2], HiddenConfig(name="lecture", hidden=[6], activation="tanh"), 0, F64)
    optimizer = make(list(net.parameters()))

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(net(data.train.x), data.train.y)

    for _ in range(1 if isinstance(optimizer, torch.optim.LBFGS) else 40):  # L-BFGS makes its 40 in one call
        take_step(optimizer, loss)
    return float(loss().detach())
