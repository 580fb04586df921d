"""Minimum or saddle? The gradient and the Hessian of a trained network, and the verdict that follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.rows import Split
from ffn_bench.landscape.trained import Trained
from ffn_bench.model.hessian import (
    HessianProduct,
    extreme_eigenpairs,
    gradient_and_hessian,
    lanczos,
    objective_at,
    objective_of,
)
from ffn_bench.model.layers import flat, joined, layered

EXACT = 3000
"""Parameters up to which the whole Hessian is computed."""
SMALL_GRADIENT = 1e-3
"""A gradient norm of at most this fraction of the one at the start counts as 0."""
NEGATIVE = {True: 1e-6, False: 1e-3}
"""An eigenvalue below −this times the largest |λ| counts as negative: with the exact H, and by Lanczos."""
PEAK = 1e-3
"""The peak at 0 are the eigenvalues within this times the largest |λ|."""
LANCZOS_STEPS = 200
"""Per probe: more steps resolve eigenvalues near 0 better."""
LANCZOS_NUMBERS = 200_000_000
"""Numbers that a probe's vectors may take in memory; at least 32 steps are made."""
STEPS = [10 ** (-4 + k / 4) for k in range(21)]
"""Lengths of the line searches, to both sides."""


@dataclass(frozen=True)
class Peak:
    """The proportion of eigenvalues within ± `within` of 0."""

    within: float
    lower: float
    upper: float
    """Both the proportion itself if exact, else its bounds from the probes."""
    standard_error: float
    """Of the bounds, for the draw of the probes; 0 if exact."""


@dataclass(frozen=True)
class Distribution:
    """Bounds on the proportion of eigenvalues up to each λ, by Lanczos; nothing is smoothed."""

    at: Tensor
    lower: Tensor
    upper: Tensor
    """Means over the probes, `[n]` like `at`."""
    converged: Tensor
    """Eigenvalues that converged, each to 10⁻⁶ of the largest |λ|: the isolated ones."""
    peak: Peak
    steps: int
    probes: int

    @property
    def width(self) -> float:
        """The largest distance of the bounds outside the peak; inside it they resolve nothing."""
        return float((self.upper - self.lower)[self.at.abs() >= self.peak.within].max())


@dataclass(frozen=True)
class Curvature:
    """The objective (the loss with Ω) at a network's weights on `rows` training rows, and its derivatives."""

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
        proportion = float((self.eigenvalues.abs() <= within).double().mean())
        return Peak(within, proportion, proportion, 0.0)

    @property
    def drop(self) -> float:
        """The largest decrease of the objective along the lowest eigenvector; 0 if it does not decrease."""
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
        """The reasons of the verdict, one sentence each."""
        ratio = self.gradient / self.gradient_at_start if self.gradient_at_start else math.nan
        sign = "≤" if self.critical else ">"
        relative = f"{ratio:.2g} of its value at the start ({sign} {SMALL_GRADIENT:g})"
        reasons = [f"‖g‖ = {self.gradient:.3g}, {relative}"]
        how = "all eigenvalues" if self.exact else "the two ends, by Lanczos"
        worst = max(self.residuals)
        reasons.append(f"λ from {self.low:.4g} to {self.high:.4g} ({how}; residuals ≤ {worst:.1g})")
        count = "some" if self.negative else "none"
        if self.exact:
            count = f"{self.negative:,} of {self.parameters:,}"
        reasons.append(f"{count} below −{self.tolerance:.2g}")
        if self.exact:
            near = f"within ± {self.tolerance:.2g} of 0, where the objective is flat"
            reasons.append(f"{self.near_zero:,} {near}")
        peak = self.peak
        of = f"within ± {peak.within:.2g} of 0 ({PEAK:g} of the largest |λ|)"
        if self.distribution is None:
            reasons.append(f"{100 * peak.lower:.1f} % {of}")
        else:
            reasons.append(
                f"{100 * peak.lower:.1f} to {100 * peak.upper:.1f} % {of}, standard error "
                f"{100 * peak.standard_error:.1g} % (bounds by {self.distribution.probes} × "
                f"{self.distribution.steps} steps of Lanczos, outside at most "
                f"{100 * self.distribution.width:.2g} % apart)"
            )
        if self.falls:
            reasons.append(f"along the lowest eigenvector the objective falls by {self.drop:.3g}")
        else:
            reasons.append("along the lowest eigenvector the objective does not fall")
        return reasons


def look(
    trained: Trained, rows: int | None = None, on_progress: Callable[[str], object] = lambda what: None
) -> Curvature:
    """Gradient and curvature of the run's objective on its (first `rows`) training rows, in float64."""
    run = trained.run
    first = trained.data.train.map(lambda part: _double(part[:rows]))
    layers = [(W.double(), b.double()) for W, b in trained.layers]
    on_progress("gradient")
    at_start = _gradient_norm(trained.initial_layers(torch.float64), first, run)
    curvature = at(layers, first, run, at_start, on_progress=on_progress)
    return replace(curvature, rows=len(first.y))


def at(
    layers: list[tuple[Tensor, Tensor]],
    rows: Split[Tensor],
    run: TrainConfig,
    gradient_at_start: float,
    exact_up_to: int = EXACT,
    on_progress: Callable[[str], object] = lambda what: None,
) -> Curvature:
    """The same at any weights, float64; networks of more than `exact_up_to` parameters by Lanczos."""
    objective, leaves = objective_at(layers, rows, run)
    size = sum(leaf.numel() for leaf in leaves)
    value, exact = float(objective.detach()), size <= exact_up_to
    distribution = None
    if exact:
        on_progress("Hessian")
        g, H = gradient_and_hessian(objective, leaves)
        eigenvalues, vectors = torch.linalg.eigh(H)
        ends = vectors[:, [0, -1]]
        gaps = (H @ ends - eigenvalues[[0, -1]] * ends).norm(dim=0)
        low, high = (float(gap) for gap in gaps)
        trace, error = float(H.trace()), 0.0
    else:
        on_progress("eigenvalues")
        product = HessianProduct(objective, leaves)
        g = product.g
        first, last = extreme_eigenpairs(product, g, 1e-6)
        eigenvalues = torch.tensor([first.value, last.value], dtype=torch.float64)
        ends = torch.stack([first.vector, last.vector], 1)
        low, high = first.residual, last.residual
        on_progress("trace")
        trace, error = _trace(product, g)
        on_progress("distribution of eigenvalues")
        distribution = _distribution(product, g, max(abs(first.value), abs(last.value)))
    tolerance = NEGATIVE[exact] * max(abs(float(eigenvalues[0])), abs(float(eigenvalues[-1])))
    on_progress("line search")
    line = {name: _along(layers, ends[:, k], rows, run) for k, name in enumerate(("lowest", "highest"))}
    return Curvature(
        size,
        len(rows.y),
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


def _double(part: Tensor) -> Tensor:
    """Labels stay integers."""
    return part.double() if part.is_floating_point() else part


def _gradient_norm(layers: list[tuple[Tensor, Tensor]], rows: Split[Tensor], run: TrainConfig) -> float:
    objective, leaves = objective_at(layers, rows, run)
    return float(joined(torch.autograd.grad(objective, leaves)).norm())


def _trace(product: Callable[[Tensor], Tensor], like: Tensor, probes: int = 32) -> tuple[float, float]:
    """Hutchinson's estimate vᵀHv over random signs v, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    estimates = []
    for _ in range(probes):
        v = torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1
        estimates.append(float(v @ product(v)))
    values = torch.tensor(estimates, dtype=torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(probes))


def _distribution(product: Callable[[Tensor], Tensor], like: Tensor, top: float) -> Distribution:
    """Bounds on the proportions of eigenvalues by stochastic Lanczos quadrature; `top` is the largest |λ|."""
    size = len(like)
    probes = max(2, math.ceil(20_000 / size))  # the standard error is at most half a per cent
    steps = max(32, min(LANCZOS_STEPS, LANCZOS_NUMBERS // size))
    generator = torch.Generator().manual_seed(0)
    quadratures = [lanczos(product, like, steps, generator) for _ in range(probes)]
    near = PEAK * (top or 1.0)
    sizes = torch.cat([near * torch.linspace(0.1, 1, 10), near * torch.logspace(0.05, 3.1, 62)]).double()
    sizes[9] = near
    at = torch.cat([-sizes.flip(0), torch.zeros(1), sizes])
    lower, upper = (torch.stack(side) for side in zip(*(q.bounds(at) for q in quadratures), strict=True))
    left, right = len(sizes) - 10, len(sizes) + 10
    least = max(0.0, float((lower[:, right] - upper[:, left]).mean()))
    most = min(1.0, float((upper[:, right] - lower[:, left]).mean()))
    proportion = min(max(0.5, least), most)
    # Of the squared norm of a random unit vector's projection onto a subspace.
    error = math.sqrt(2 * proportion * (1 - proportion) / (size + 2) / probes)
    peak = Peak(near, least, most, error)
    converged = quadratures[0].converged(1e-6 * top)
    lower, upper = (bound.mean(0).clamp(0, 1) for bound in (lower, upper))
    return Distribution(at, lower, upper, converged, peak, steps, probes)


@torch.no_grad()
def _along(
    layers: list[tuple[Tensor, Tensor]], direction: Tensor, rows: Split[Tensor], run: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Steps in both directions along a unit vector, including 0, and the objective there."""
    widths = [layers[0][0].shape[0], *(b.shape[0] for _, b in layers)]
    steps = torch.tensor([-s for s in reversed(STEPS)] + [0.0] + STEPS, dtype=torch.float64)
    values = []
    for step in steps:
        moved = layered(flat(layers) + step * direction, widths)
        values.append(float(objective_of(moved, rows, run)))
    return steps, torch.tensor(values, dtype=torch.float64)
