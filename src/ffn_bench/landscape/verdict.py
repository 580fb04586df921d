"""Minimum or saddle? The gradient and the Hessian of a trained network, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.landscape.trained import Trained
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import loss_of, penalty
from ffn_bench.model.hessian import (
    HessianProduct,
    extreme_eigenpairs,
    gradient_and_hessian,
    lanczos,
    objective_at,
)
from ffn_bench.model.layers import flat, joined, layered
from ffn_bench.model.network import FFN

EXACT = 3000
"""Parameters up to which the whole Hessian is computed."""
SMALL_GRADIENT = 1e-3
"""A gradient of at most this share of the one at the start counts as 0."""
NEGATIVE = {True: 1e-6, False: 1e-3}
"""An eigenvalue below −this times the largest |λ| counts as negative: if H is exact, and by Lanczos."""
PEAK = 1e-3
"""The peak of eigenvalues at 0 is what is within this times the largest |λ|."""
LANCZOS_STEPS = 200
"""Of each probe: more tell eigenvalues near 0 better apart."""
LANCZOS_NUMBERS = 200_000_000
"""Numbers that a probe's vectors may take, where at least 32 steps are made."""
STEPS = [10 ** (-4 + k / 4) for k in range(21)]
"""Lengths of the line searches, to both sides."""


@dataclass(frozen=True)
class Peak:
    """The share of eigenvalues within ± `within` of 0."""

    within: float
    lower: float
    upper: float
    """Both the share itself if exact, else its bounds by the probes that were drawn."""
    standard_error: float
    """Of the bounds, for the draw of the probes; 0 if exact."""


@dataclass(frozen=True)
class Distribution:
    """Bounds on the share of eigenvalues up to each λ, by Lanczos; nothing is smoothed."""

    at: Tensor
    lower: Tensor
    upper: Tensor
    """Means over the probes, `[n]` like `at`."""
    found: Tensor
    """Eigenvalues that converged, each to 10⁻⁶ of the largest |λ|: those that stand apart."""
    peak: Peak
    steps: int
    probes: int

    @property
    def width(self) -> float:
        """The largest distance of the bounds outside the peak, which they do not look into."""
        return float((self.upper - self.lower)[self.at.abs() >= self.peak.within].max())


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
    distribution: Distribution | None
    """Of large networks, whose eigenvalues are not all known."""
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
    def peak(self) -> Peak:
        """The eigenvalues at 0, to `PEAK` times the largest |λ|: counted, or bounded by Lanczos."""
        if self.distribution:
            return self.distribution.peak
        within = PEAK * max(abs(self.low), abs(self.high))
        share = float((self.eigenvalues.abs() <= within).double().mean())
        return Peak(within, share, share, 0.0)

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
        peak = self.peak
        of = f"within ± {peak.within:.2g} of 0 ({PEAK:g} of the largest |λ|)"
        if self.distribution is None:
            said.append(f"{100 * peak.lower:.1f} % {of}")
        else:
            said.append(
                f"{100 * peak.lower:.1f} to {100 * peak.upper:.1f} % {of}, standard error "
                f"{100 * peak.standard_error:.1g} % (bounds by {self.distribution.probes} × "
                f"{self.distribution.steps} steps of Lanczos, outside at most "
                f"{100 * self.distribution.width:.2g} % apart)"
            )
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
    distribution = None
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
        told("distribution of eigenvalues")
        distribution = _distribution(product, g, max(abs(first.value), abs(last.value)))
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
        distribution,
        line,
    )


def _gradient_norm(layers: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor, run: TrainConfig) -> float:
    objective, leaves = objective_at(layers, x, y, run)
    return float(joined(torch.autograd.grad(objective, leaves)).norm())


def _trace(product: Callable[[Tensor], Tensor], like: Tensor, probes: int = 32) -> tuple[float, float]:
    """Hutchinson's estimate vᵀHv over random signs v, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(probes):
        v = torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
        found.append(float(v @ product(v)))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(probes))


def _distribution(product: Callable[[Tensor], Tensor], like: Tensor, top: float) -> Distribution:
    """Bounds on the shares of eigenvalues by stochastic Lanczos quadrature; `top` is the largest |λ|."""
    size = len(like)
    probes = max(2, math.ceil(20_000 / size))  # the standard error of a share is at most half a per cent
    steps = max(32, min(LANCZOS_STEPS, LANCZOS_NUMBERS // size))
    generator = torch.Generator().manual_seed(0)
    seen = [lanczos(product, like, steps, generator) for _ in range(probes)]
    near = PEAK * (top or 1.0)
    sizes = torch.cat([near * torch.linspace(0.1, 1, 10), near * torch.logspace(0.05, 3.1, 62)]).double()
    sizes[9] = near
    at = torch.cat([-sizes.flip(0), torch.zeros(1), sizes])
    lower, upper = (torch.stack(side) for side in zip(*(q.bounds(at) for q in seen), strict=True))
    left, right = len(sizes) - 10, len(sizes) + 10
    least = max(0.0, float((lower[:, right] - upper[:, left]).mean()))
    most = min(1.0, float((upper[:, right] - lower[:, left]).mean()))
    share = min(max(0.5, least), most)
    error = math.sqrt(2 * share * (1 - share) / (size + 2) / probes)  # a random vector's part in a subspace
    peak = Peak(near, least, most, error)
    found = seen[0].converged(1e-6 * top)
    return Distribution(at, lower.mean(0).clamp(0, 1), upper.mean(0).clamp(0, 1), found, peak, steps, probes)


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
