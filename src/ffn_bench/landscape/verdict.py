"""Minimum or saddle? The gradient and the Hessian of a trained network, and what they say together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffn_bench.backprop import loss_of, penalty
from ffn_bench.curvature import HessianProduct, extreme_eigenpairs, gradient_and_hessian, objective_at
from ffn_bench.landscape.trained import Trained, flat, layered
from ffn_bench.network import ACTIVATIONS, FFN
from ffn_bench.schema import TrainConfig

EXACT = 3000
"""Parameters up to which the whole Hessian is computed."""
SMALL_GRADIENT = 1e-3
"""A gradient of at most this share of the one at the start counts as 0."""
NEGATIVE = {True: 1e-6, False: 1e-3}
"""An eigenvalue below −this times the largest |λ| counts as negative: if H is exact, and by Lanczos."""
STEPS = [10 ** (-4 + k / 4) for k in range(21)]
"""Lengths of the line searches, to both sides."""


@dataclass(frozen=True)
class Curvature:
    """What was found at a network's weights, on `rows` training rows, of the objective (the loss with Ω)."""

    parameters: int
    rows: int
    objective: float
    gradient: float
    """‖g‖."""
    gradient_at_start: float
    exact: bool
    eigenvalues: Tensor
    """All of them in order if exact, else the lowest and the highest."""
    residuals: tuple[float, float]
    """‖H v − λ v‖ of those two."""
    trace: float
    trace_error: float
    """One standard error; 0 if exact."""
    tolerance: float
    """Eigenvalues below its negative count as negative."""
    density: tuple[Tensor, Tensor] | None
    """λ and the spectral density there, of large networks."""
    line: dict[str, tuple[Tensor, Tensor]]
    """By `lowest` and `highest` eigenvector: steps to both sides, and the objective there."""

    @property
    def low(self) -> float:
        """λ_min."""
        return float(self.eigenvalues[0])

    @property
    def high(self) -> float:
        """λ_max."""
        return float(self.eigenvalues[-1])

    @property
    def negative(self) -> int:
        """How many eigenvalues are below −tolerance (of those that were computed)."""
        return int((self.eigenvalues < -self.tolerance).sum())

    @property
    def near_zero(self) -> int:
        """How many are within ± tolerance of 0."""
        return int((self.eigenvalues.abs() <= self.tolerance).sum())

    @property
    def drop(self) -> float:
        """By how much the objective falls along the lowest eigenvector, at best; 0 where it does not."""
        return max(0.0, self.objective - float(self.line["lowest"][1].min()))

    @property
    def falls(self) -> bool:
        """Whether that is more than rounding."""
        return self.drop > 1e-9 * max(1.0, abs(self.objective))

    @property
    def critical(self) -> bool:
        """Whether the gradient counts as 0."""
        return self.gradient <= SMALL_GRADIENT * self.gradient_at_start

    @property
    def verdict(self) -> str:
        """`minimum`, `saddle`, `flat` or `not a critical point`."""
        if not self.critical:
            return "not a critical point"
        if max(abs(self.low), abs(self.high)) <= 1e-12:
            return "flat"
        if self.negative:
            return "saddle" if self.falls else "flat"
        return "minimum"

    def evidence(self) -> list[str]:
        """The verdict's reasons, a sentence each."""
        share = self.gradient / self.gradient_at_start if self.gradient_at_start else math.nan
        sign = "≤" if self.critical else ">"
        said = [f"‖g‖ = {self.gradient:.3g}, {share:.2g} of the start's ({sign} {SMALL_GRADIENT:g})"]
        how = "all eigenvalues" if self.exact else "the two ends, by Lanczos"
        worst = max(self.residuals)
        said.append(f"λ from {self.low:.4g} to {self.high:.4g} ({how}; residuals ≤ {worst:.1g})")
        count = "some" if self.negative else "none"
        if self.exact:
            count = f"{self.negative:,} of {self.parameters:,}"
        said.append(f"{count} below −{self.tolerance:.2g}")
        if self.exact:
            said.append(f"{self.near_zero:,} within ± {self.tolerance:.2g} of 0, where the objective is flat")
        if self.falls:
            said.append(f"along the lowest eigenvector the objective falls by {self.drop:.3g}")
        else:
            said.append("along the lowest eigenvector the objective does not fall")
        return said


def look(
    trained: Trained, rows: int | None = None, told: Callable[[str], object] = lambda what: None
) -> Curvature:
    """Gradient and curvature of the run's objective on its (first `rows`) training rows, in float64."""
    run = trained.run
    x, y = trained.data.train.x[:rows].double(), trained.data.train.y[:rows]
    layers = [(W.double(), b.double()) for W, b in trained.layers]
    start = FFN(trained.widths, run.model, run.seed, torch.float64)
    told("gradient")
    at_start = _gradient_norm([(W.detach(), b.detach()) for W, b in start.layers], x, y, run)
    found = at(layers, x, y, run, at_start, told=told)
    return replace(found, rows=len(y))


def at(
    layers: list[tuple[Tensor, Tensor]],
    x: Tensor,
    y: Tensor,
    run: TrainConfig,
    gradient_at_start: float,
    exact_up_to: int = EXACT,
    told: Callable[[str], object] = lambda what: None,
) -> Curvature:
    """The same at any weights, float64; networks of more than `exact_up_to` parameters by Lanczos."""
    objective, leaves = objective_at(layers, x, y, run)
    size = sum(leaf.numel() for leaf in leaves)
    value, exact = float(objective.detach()), size <= exact_up_to
    density = None
    if exact:
        told("Hessian")
        g, H = gradient_and_hessian(objective, leaves)
        eigenvalues, vectors = torch.linalg.eigh(H)
        ends = vectors[:, [0, -1]]
        gaps = (H @ ends - eigenvalues[[0, -1]] * ends).norm(dim=0)
        low, high = (float(gap) for gap in gaps)
        trace, error = float(H.trace()), 0.0
    else:
        told("eigenvalues")
        product = HessianProduct(objective, leaves)
        g = product.g
        first, last = extreme_eigenpairs(product, g, 1e-6)
        eigenvalues = torch.tensor([first.value, last.value], dtype=torch.float64)
        ends = torch.stack([first.vector, last.vector], 1)
        low, high = first.residual, last.residual
        told("trace")
        trace, error = _trace(product, g)
        told("density")
        density = _density(layers, x, y, run, (first.value, last.value))
    tolerance = NEGATIVE[exact] * max(abs(float(eigenvalues[0])), abs(float(eigenvalues[-1])))
    told("line search")
    line = {name: _along(layers, ends[:, k], x, y, run) for k, name in enumerate(("lowest", "highest"))}
    return Curvature(
        size,
        len(y),
        value,
        float(g.norm()),
        gradient_at_start,
        exact,
        eigenvalues,
        (low, high),
        trace,
        error,
        tolerance,
        density,
        line,
    )


def _gradient_norm(layers: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor, run: TrainConfig) -> float:
    objective, leaves = objective_at(layers, x, y, run)
    return float(torch.cat([g.reshape(-1) for g in torch.autograd.grad(objective, leaves)]).norm())


def _trace(product: Callable[[Tensor], Tensor], like: Tensor, probes: int = 32) -> tuple[float, float]:
    """Hutchinson's estimate vᵀHv over random signs v, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(probes):
        v = torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
        found.append(float(v @ product(v)))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(probes))


def _density(
    layers: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor, run: TrainConfig, ends: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The spectral density by Lanczos quadrature (Papyan, 2020), with curvlinops."""
    leaves = [torch.nn.Parameter(t.clone()) for layer in layers for t in layer]
    activation = ACTIVATIONS[run.model.activation]

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaves = torch.nn.ParameterList(leaves)

        def forward(self, x: Tensor) -> Tensor:
            h = x
            for k in range(0, len(leaves), 2):
                h = torch.addmm(self.leaves[k + 1], h if k == 0 else activation.function(h), self.leaves[k])
            return h

    shift = 2 * run.l2  # of the weights, which are nearly all of the parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of libraries below it
        from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum

        loss, rows = torch.nn.CrossEntropyLoss(), [(x, y)]
        operator = HessianLinearOperator(Net(), loss, leaves, rows, check_deterministic=False)
        torch.manual_seed(0)
        where, density = lanczos_approximate_spectrum(
            operator,
            ncv=min(64, len(flat(layers)) - 1),
            num_points=512,
            num_repeats=2,
            boundaries=(ends[0] - shift, ends[1] - shift),
        )
    return where.detach().double() + shift, density.detach().double()


@torch.no_grad()
def _along(
    layers: list[tuple[Tensor, Tensor]], direction: Tensor, x: Tensor, y: Tensor, run: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Steps to both sides along a unit vector, 0 among them, and the objective there."""
    widths = [layers[0][0].shape[0], *(b.shape[0] for _, b in layers)]
    steps = torch.tensor([-s for s in reversed(STEPS)] + [0.0] + STEPS, dtype=torch.float64)
    values = []
    for step in steps:
        moved = layered(flat(layers) + step * direction, widths)
        loss = loss_of(moved, x, y, ACTIVATIONS[run.model.activation])
        values.append(float(loss + run.l2 * penalty(moved) if run.l2 else loss))
    return steps, torch.tensor(values, dtype=torch.float64)
