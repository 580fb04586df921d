"""L6 to L8: Hessians and critical points, counting them, the loss surface."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ffn_bench.configuration.schema import HiddenConfig, MoonsConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine.tensors import load_tensors
from ffn_bench.landscape.surface import filter_normalised
from ffn_bench.lecture.topic import F64, Context, Row, compare, holds, topic, vector
from ffn_bench.model.backprop import by_autograd, loss_of
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.layers import joined, parted
from ffn_bench.model.network import FFN
from ffn_bench.optimizers.newton import take_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@lru_cache(maxsize=1)
def trained_network() -> tuple[FFN, Data[Tensor]]:
    """A tanh network with one hidden layer of 6 units on the moons, trained by L-BFGS (32 parameters)."""
    data = load_tensors(MoonsConfig(name="moons", n_samples=400, noise=0.25))
    net = FFN([2, 6, 2], HiddenConfig(name="lecture", hidden=[6], activation="tanh"), 0, F64)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=300, line_search_fn="strong_wolfe")

    take_step(optimizer, lambda: objective(net, data))
    return net, data


def objective(net: FFN, data: Data[Tensor]) -> Tensor:
    """The mean training loss plus a little Ω (λ = 1e-3), without which separable data has no minimum."""
    penalty = torch.stack([W.square().sum() for W in net.weights]).sum()
    return torch.nn.functional.cross_entropy(net(data.train.x), data.train.y) + 1e-3 * penalty


@topic("curvature", "L6", "Gradient, Hessian, critical points")
def curvature(context: Context) -> Iterator[Row]:
    """At a critical point g = 0: all eigenvalues of H at least 0 is a minimum, at most 0 a maximum,
    mixed signs a saddle. f = θ1² − θ2² has a saddle at 0. A trained network is never exactly at g = 0
    and its eigenvalues cluster at 0, so a verdict states ‖g‖, λ_min, λ_max, the tolerance, and
    whether a step along the most negative eigenvector lowers the loss."""
    θ = vector(0.0, 0.0)
    g, H = gradient_and_hessian(θ[0] ** 2 - θ[1] ** 2, [θ])
    yield compare("f = θ1² − θ2²: g(0)", [0.0, 0.0], g)
    yield compare("H(0)", [[2.0, 0.0], [0.0, -2.0]], H)
    yield compare("eigenvalues: −2 < 0 < 2, a saddle", [-2.0, 2.0], torch.linalg.eigvalsh(H))

    net, data = trained_network()
    parameters = list(net.parameters())
    g, H = gradient_and_hessian(objective(net, data), parameters)
    eigenvalues, vectors = torch.linalg.eigh(H)
    tolerance = 1e-6 * float(eigenvalues[-1])
    negative = int((eigenvalues < -tolerance).sum())
    yield compare(
        "a trained network, P = 32: trace of H = Σ λ", float(H.trace()), float(eigenvalues.sum()), 1e-9
    )
    direction = vectors[:, -1]
    yield compare(
        "H v = λ_max v, by differences of the gradient", 0.0, _curvature_error(net, data, direction, H), 1e-5
    )
    yield holds("‖g‖ after training", "small, not 0", float(g.norm()), 0 < g.norm() < 1e-2)
    ends = [float(eigenvalues[0]), float(eigenvalues[-1])]
    yield holds("λ_min, λ_max", "|λ_min| < λ_max / 100", ends, abs(ends[0]) < ends[1] / 100)
    near = int((eigenvalues.abs() < 1e-2 * eigenvalues[-1]).sum())
    yield holds(
        "eigenvalues within 1 % of λ_max of 0",
        "many",
        f"{near} of {len(eigenvalues)}",
        near > len(eigenvalues) / 4,
    )
    shift = joined(torch.ones_like(p) * (p is parameters[-1]) for p in parameters)
    size = float((H @ shift).abs().max())
    yield compare("H v for v = a common shift of the output biases, which softmax does not see", 0.0, size)
    lowest = _line_search(net, data, vectors[:, 0])
    current = float(objective(net, data).detach())
    lowers = lowest < current - 1e-9
    verdict = "minimum" if negative == 0 else "saddle" if lowers else "flat"
    yield holds(
        f"verdict: λ below −{tolerance:.1e}: {negative}; loss along the lowest eigenvector",
        "falls exactly at a saddle",
        f"{current:.6f} → {lowest:.6f}: {verdict}",
        (negative > 0) == lowers,
    )
    if context.draw:
        context.figures["spectrum"] = _spectrum(eigenvalues)


def _curvature_error(net: FFN, data: Data[Tensor], direction: Tensor, H: Tensor) -> float:
    """‖(g(θ + εv) − g(θ − εv))/2ε − Hv‖ / ‖Hv‖."""
    parameters = list(net.parameters())
    ε = 1e-5
    sides = []
    for sign in (1, -1):
        _move(parameters, sign * ε * direction)
        sides.append(joined(torch.autograd.grad(objective(net, data), parameters)))
        _move(parameters, -sign * ε * direction)
    product = H @ direction
    return float(((sides[0] - sides[1]) / (2 * ε) - product).norm() / product.norm())


@torch.no_grad()
def _move(parameters: Sequence[Tensor], change: Tensor) -> None:
    for p, moved in zip(parameters, parted(change, [tuple(p.shape) for p in parameters]), strict=True):
        p += moved


def _line_search(net: FFN, data: Data[Tensor], direction: Tensor) -> float:
    """The least objective along ± the direction, steps from 1e-3 to 1."""
    parameters, values = list(net.parameters()), []
    for step in [s * 10 ** (-3 + k / 4) for k in range(13) for s in (1, -1)]:
        _move(parameters, step * direction)
        values.append(float(objective(net, data).detach()))
        _move(parameters, -step * direction)
    return min(values)


def _spectrum(eigenvalues: Tensor) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    ranks = range(1, len(eigenvalues) + 1)
    axes.scatter(ranks, eigenvalues, color="#0072B2", s=22)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set(xlabel="rank", ylabel="eigenvalue λ of the Hessian", title="32 parameters, after training")
    return figure


DRAWS = 20_000
SIMULATED = {2: 0.143, 3: 0.025, 4: 0.003}
"""The lecture's simulated P(all λ ≥ 0) of symmetric Gaussian matrices."""


@topic("counting", "L7", "How many minima, how many saddles")
def counting(context: Context) -> Iterator[Row]:
    """With independent signs of probability ½: P(min) = P(max) = 0.5^P, minima : maxima : saddles = 1 :
    1 : 2^P − 2. Independence is the lecture's simplification. The eigenvalues of a symmetric Gaussian
    matrix repel each other, and its P(all λ ≥ 0) falls far faster: the two columns differ, and both
    are shown."""
    generator = torch.Generator().manual_seed(context.seed)
    for P, simulated in SIMULATED.items():
        signs = list(itertools.product((1, -1), repeat=P))
        kinds = [sum(all(s == v for s in pattern) for pattern in signs) for v in (1, -1)]
        saddles = len(signs) - sum(kinds)
        yield compare(
            f"P = {P}: independent signs, minima : maxima : saddles", [1, 1, 2**P - 2], [*kinds, saddles]
        )
        yield compare(f"P = {P}: P(min) = 0.5^P, P(saddle) = 1 − 0.5^(P−1)", [0.5**P, 1 - 0.5 ** (P - 1)],
                      [kinds[0] / len(signs), saddles / len(signs)])  # fmt: skip
        A = torch.randn(DRAWS, P, P, generator=generator, dtype=F64)
        proportion = float((torch.linalg.eigvalsh(A + A.mT)[:, 0] >= 0).double().mean())
        error = (simulated * (1 - simulated) / DRAWS) ** 0.5
        tolerance = 3 * 2**0.5 * error + 5e-4  # two simulations differ, and the lecture's is rounded
        yield compare(
            f"P = {P}: Gaussian matrices, P(all λ ≥ 0), {DRAWS:,} draws ± {error:.4f}",
            simulated,
            proportion,
            tolerance,
        )
        yield holds(
            f"P = {P}: the two differ",
            "Gaussian < independent",
            f"{proportion:.4f} < {0.5**P:.4f}",
            proportion < 0.5**P,
        )


def along(
    layers: Sequence[tuple[Tensor, Tensor]], directions: Sequence[list[tuple[Tensor, Tensor]]], steps: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Many networks at once, θ + Σ_k steps[:, k] · direction_k: layers with a leading axis of len(steps)."""
    moved = []
    for j, (W, b) in enumerate(layers):
        W_all, b_all = W.expand(len(steps), *W.shape), b.expand(len(steps), *b.shape)
        for k, direction in enumerate(directions):
            dW, db = direction[j]
            W_all = W_all + steps[:, k, None, None] * dW
            b_all = b_all + steps[:, k, None] * db
        moved.append((W_all, b_all))
    return moved


@topic("surface", "L8", "The loss surface")
def surface(context: Context) -> Iterator[Row]:
    """The loss around a trained network, along random directions in which each filter has the norm of
    the network's own filter (Li et al., 2018): 1-D curves and a 2-D map. Its centre is the trained
    network's loss."""
    net, data = trained_network()
    layers = [(W.detach(), b.detach()) for W, b in net.layers]
    generator = torch.Generator().manual_seed(context.seed)
    directions = [filter_normalised(layers, generator) for _ in range(4)]
    worst = max(
        float((d.norm(dim=0) / W.norm(dim=0) - 1).abs().max())
        for direction in directions for (d, _), (W, _) in zip(direction, layers, strict=True)
    )  # fmt: skip
    yield compare("filter norms of the directions over the network's, largest difference from 1", 0.0, worst)
    x, y, σ = data.train.x, data.train.y, net.activation
    steps = torch.linspace(-1, 1, 51, dtype=F64)
    curves = [loss_of(along(layers, [d], steps[:, None]), x, y, σ) for d in directions]
    loss = float(by_autograd(layers, x, y, σ).loss)
    for k, curve in enumerate(curves, start=1):
        yield compare(f"direction {k}: loss at the centre", loss, float(curve[25]))
        ends = f"{curve[0]:.3f} and {curve[-1]:.3f}"
        yield holds(
            f"direction {k}: loss at the ends", f"above {loss:.3f}", ends, min(curve[0], curve[-1]) > loss
        )
    if context.draw:
        plane = torch.cartesian_prod(steps[::2], steps[::2])
        values = loss_of(along(layers, directions[:2], plane), x, y, σ).reshape(26, 26)
        context.figures["surface"] = _surface_figure(steps, curves, values)


def _surface_figure(steps: Tensor, curves: Sequence[Tensor], plane: Tensor) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, (curve, colour) in enumerate(
        zip(curves, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True)
    ):
        left.plot(steps, curve, color=colour, label=f"direction {k + 1}")
    left.set(xlabel="step along the direction", ylabel="training loss (nats)", title="1-D, filter-normalised")
    left.set_xticks([-1, -0.5, 0, 0.5, 1])
    right.set_xticks([-1, -0.5, 0, 0.5, 1])
    left.legend()
    axis = steps[::2].numpy()
    image = right.contourf(axis, axis, plane.T.numpy(), levels=24, cmap="viridis")
    right.plot(0, 0, "w+", markersize=10)
    right.set(
        xlabel="direction 1", ylabel="direction 2", title="2-D; + is the trained network", aspect="equal"
    )
    figure.colorbar(image, label="training loss (nats)")
    return figure
