"""L9 and L10: gradient descent on the whole training set, and on mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ffn_bench.configuration import schema
from ffn_bench.configuration.schema import HiddenConfig, SplitDataConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic, vector
from ffn_bench.model.backprop import by_hand
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.network import FFN
from ffn_bench.optimizers import schedules
from ffn_bench.race.surfaces import Surface


def gradient(f: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """∇f at w, by autograd."""
    w = w.detach().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w)
    return g


def descend(
    f: Callable[[Tensor], Tensor], w: Tensor, η: float, steps: int, noise: float = 0.0, seed: int = 0
) -> Tensor:
    """The path of gradient descent, `[steps + 1, …]`; with `noise`, Gaussian noise on every gradient."""
    generator = torch.Generator().manual_seed(seed)
    path = [w.detach()]
    for _ in range(steps):
        shake = noise * torch.randn(w.shape, generator=generator, dtype=F64)
        path.append(path[-1] - η * (gradient(f, path[-1]) + shake))
    return torch.stack(path)


# --- L9 -------------------------------------------------------------------------------------------------


def _parabola(w: Tensor) -> Tensor:
    return (w - 1) ** 2 + (w - 3) ** 2


def _two_wells(w: Tensor) -> Tensor:
    return w**4 / 4 - w**2 / 2 + w / 5


def _saddle_between_wells(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 + θ[..., 1] ** 4 / 4 - θ[..., 1] ** 2 / 2


@topic("descent", "L9", "Gradient descent on the whole training set")
def descent(context: Context) -> Iterator[Row]:
    """θ_{t+1} = θ_t − η ∇J(θ_t), O(N) a step. Convex: it reaches the global minimum. Non-convex: it can
    stop at a local minimum or at a saddle; noise on the gradient leaves the saddle. Worked: f =
    (w−1)² + (w−3)², w = 1, η = 0.1."""
    w = vector(1.0)[0].detach()
    yield compare("f'(1)", -4.0, gradient(_parabola, w))
    step = descend(_parabola, w, 0.1, 1)[1]
    yield compare("w' = w − η f'(w)", 1.4, step)
    yield compare("f: 4 → 2.72", [4.0, 2.72], [float(_parabola(w)), float(_parabola(step))])
    yield compare(
        "convex: where 60 steps end (the minimum is 2)", 2.0, descend(_parabola, w, 0.1, 60)[-1], 1e-5
    )

    right, left = (descend(_two_wells, vector(s)[0], 0.1, 300)[-1] for s in (1.5, -1.5))
    yield compare(
        "two wells f = w⁴/4 − w²/2 + w/5: f' where it stops, from the right",
        0.0,
        gradient(_two_wells, right),
        1e-9,
    )
    values = [float(_two_wells(right)), float(_two_wells(left))]
    yield holds(
        "stuck in the local minimum: f there, f in the other well",
        "higher, lower",
        values,
        values[0] > values[1] + 0.1,
    )

    f = _saddle_between_wells
    stuck = descend(f, vector(1.0, 0.0), 0.1, 300)
    yield compare("f = x² + y⁴/4 − y²/2 from (1, 0): stops at the saddle (0, 0)", [0.0, 0.0], stuck[-1], 1e-9)
    _, H = gradient_and_hessian(f(θ := vector(0.0, 0.0)), [θ])
    yield compare("eigenvalues of H there", [-1.0, 2.0], torch.linalg.eigvalsh(H))
    free = descend(f, vector(1.0, 0.0), 0.1, 300, noise=0.01, seed=context.seed)
    yield compare(
        "with noise of 0.01 on the gradient: |y| at the end (the minima are y = ±1)",
        1.0,
        free[-1][1].abs(),
        0.02,
    )
    if context.draw:
        from ffn_bench.lecture import path_figures  # imports matplotlib

        window = Surface(f, "x² + y⁴/4 − y²/2", (1.0, 0.0), (-0.6, 1.2, -1.4, 1.4))
        context.figures["descent"] = path_figures.paths(
            window, {"gradient descent": stuck, "with noise": free}
        )


# --- L10 ------------------------------------------------------------------------------------------------


@topic("sgd", "L10", "Stochastic gradient descent")
def sgd(context: Context) -> Iterator[Row]:
    """The gradient of b uniform rows is an unbiased estimate of the full one, at O(b) instead of O(N) a step.
    Worked: f = (1/1000) Σ (w−i)², batch {1,2,3,4}, w = 10, η = 0.1; one batch can point the wrong way."""
    numbers = torch.arange(1, 1001, dtype=F64)
    w = vector(10.0)[0].detach()

    def mean_over(rows: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda w: ((w[..., None] - rows) ** 2).mean(-1)

    g = gradient(mean_over(numbers[:4]), w)
    yield compare("f̃' = 2w − 5", 15.0, g)
    yield compare("w' = w − η f̃'", 8.5, w - 0.1 * g)
    full = gradient(mean_over(numbers), w)
    yield compare("the full gradient there", -981.0, full, 1e-9)
    yield compare("the minimiser", 500.5, numbers.mean())
    yield holds(
        "this batch points the wrong way", "signs differ", f"{float(g):g} and {float(full):g}", g * full < 0
    )

    generator = torch.Generator().manual_seed(context.seed)
    draws = 20_000
    batches = numbers[torch.randint(1000, (draws, 4), generator=generator)]
    estimates = 2 * (w - batches).mean(1)
    error = float(estimates.std() / draws**0.5)
    z = float((estimates.mean() - full) / error)
    what = f"mean of {draws:,} batch gradients: {float(estimates.mean()):.2f} ± {error:.2f}, errors from −981"
    yield holds(what, "|z| < 4", f"z = {z:.2f}", abs(z) < 4)
    b32 = numbers[torch.randint(1000, (draws, 32), generator=generator)]
    ratio = float(estimates.var() / (2 * (w - b32).mean(1)).var())
    yield compare("variance at b = 4 over variance at b = 32 (theory 8)", 8.0, ratio, 0.5, 2)

    rates = [
        schedules.build_schedule(schema.InverseTimeConfig(name="inverse_time", decay=1.0), 9, 3)(t)
        for t in range(4)
    ]
    yield compare("η_t ∝ 1/t: factors of the first four steps", [1.0, 1 / 2, 1 / 3, 1 / 4], rates)
    data = load_tensors(SplitDataConfig(name="digits"), "float32")
    net = FFN([64, 10, 20, 15, 10], HiddenConfig(name="lecture"), 0, torch.float32)
    batch_size, all_rows = 32, len(data.train.y)
    flops = [_flops_of_gradient(net, data, n) for n in (batch_size, all_rows)]
    of = f"{all_rows:,} rows over {batch_size} ({flops[1]:,} over {flops[0]:,})"
    what = f"operations of one gradient, {of}: N/b"
    yield compare(what, all_rows / batch_size, flops[1] / flops[0])


class _Products(TorchFunctionMode):
    """Counts the floating-point operations of the matrix products that are called while it is entered.

    PyTorch's own counter, which gives the same, imports a compiler.
    """

    flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ in ("addmm", "mm", "matmul", "__matmul__"):
            a, b = args[-2:]
            self.flops += 2 * int(a.shape[0] * a.shape[1] * b.shape[1])
        return result


def _flops_of_gradient(net: FFN, data: Data[Tensor], n: int) -> int:
    """Floating-point operations of the matrix products of one forward and backward pass on n rows."""
    with _Products() as counter:
        by_hand(net.layers, data.train.x[:n], data.train.y[:n], net.activation)
    return int(counter.flops)
