"""Second derivatives of a scalar (L6, L16): the exact Hessian, and Newton's method with it; for networks too
large for a matrix its products, its extreme eigenvalues from those, and bounds on where all others are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ffn_bench import tags
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.rows import Array, Split
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import loss_of
from ffn_bench.model.layers import joined
from ffn_bench.model.losses import criterion_of
from ffn_bench.model.tensor_losses import penalised


def gradient_and_hessian(
    objective: Tensor, parameters: Sequence[Tensor], chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """g `[P]` and the symmetric H `[P, P]` of a 0-d objective that still has its graph.

    H is exact: its rows are vector-Jacobian products of g with the unit vectors, `chunk` of them at a time.
    """
    gradients = torch.autograd.grad(objective, parameters, create_graph=True)
    g = joined(gradients)
    rows = []
    for units in torch.eye(len(g), dtype=g.dtype, device=g.device).split(chunk):
        if g.requires_grad:
            products = torch.autograd.grad(
                g, parameters, units, is_grads_batched=True, retain_graph=True, materialize_grads=True
            )
            rows.append(torch.cat([p.reshape(len(units), -1) for p in products], dim=1))
        else:  # a linear objective has no second derivative
            rows.append(torch.zeros_like(units))
    H = torch.cat(rows)
    return g.detach(), (H + H.T) / 2


class HessianProduct:
    """v ↦ H v, `[P]` each, of a 0-d objective that still has its graph, and its gradient `g`; never H."""

    def __init__(self, objective: Tensor, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        gradients = torch.autograd.grad(objective, self.parameters, create_graph=True)
        self._g = joined(gradients)
        self.g = self._g.detach()

    def __call__(self, v: Tensor) -> Tensor:
        """The product, by one more pass back through the graph of the gradient."""
        products = torch.autograd.grad(self._g, self.parameters, v, retain_graph=True, materialize_grads=True)
        return joined(products)


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue λ, its unit vector v `[P]`, and ‖H v − λ v‖: some eigenvalue is within that of λ."""

    value: float
    vector: Tensor
    residual: float


def extreme_eigenpairs(
    product: Callable[[Tensor], Tensor], like: Tensor, tolerance: float = 1e-5, seed: int = 0
) -> tuple[Eigenpair, Eigenpair]:
    """The lowest and the highest eigenvalue of a symmetric H by Lanczos (SciPy's ARPACK), from products.

    `like` is a vector `[P]` of the dtype and device that the product takes, P ≥ 3. Residuals are about
    `tolerance` times the largest |λ|, for the lowest too, which near 0 would else hardly converge: it is
    found as the highest of cI − H. Where Lanczos gives up, the best it has is returned, with its residual.
    """
    import numpy as np
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    start = np.random.default_rng(seed).standard_normal(len(like))

    def top(sign: float, shift: float) -> tuple[float, Tensor]:
        def multiply(v: Any) -> Any:
            vector = torch.from_numpy(np.ascontiguousarray(v).reshape(-1)).to(like)
            return shift * v.reshape(-1) + sign * product(vector).double().cpu().numpy()

        operator = LinearOperator((len(like), len(like)), matvec=multiply, dtype=np.float64)
        try:
            values, vectors = eigsh(operator, k=1, which="LM" if not shift else "LA", tol=tolerance, v0=start)
        except ArpackNoConvergence as e:
            if not len(e.eigenvalues):
                return math.nan, torch.full_like(like, math.nan)
            values, vectors = e.eigenvalues, e.eigenvectors
        return float(values[-1]), torch.from_numpy(vectors[:, -1].copy()).to(like)

    def pair(vector: Tensor) -> Eigenpair:
        image = product(vector)
        value = float(vector.double() @ image.double())  # Rayleigh's quotient
        return Eigenpair(value, vector, float((image.double() - value * vector.double()).norm()))

    largest, vector = top(1.0, 0.0)
    first = pair(vector)
    bound = 1.05 * abs(largest) or 1.0
    # The largest |λ| is one end; the other is the far end of the spectrum, seen from there.
    other = pair(top(-1.0 if largest >= 0 else 1.0, bound)[1])
    return (other, first) if largest >= 0 else (first, other)


@dataclass(frozen=True)
class Quadrature:
    """What m steps of Lanczos know of a symmetric H from one random unit vector v: the tridiagonal matrix
    with `diagonal` `[m]` and `off_diagonal` `[m]`, whose last entry couples to the next vector."""

    diagonal: Tensor
    off_diagonal: Tensor

    def bounds(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """F(t−) is at least the first, F(t) at most the second, at each t of `at` `[n]`; nothing is smoothed.

        F is v's spectral distribution, the sum of (v · eigenvector)² over the eigenvalues up to t, in the
        mean over v the proportion of eigenvalues up to t. Of all distributions with the same moments the
        Gauss quadrature with a node put at t has the least mass below t and the most up to t (inequalities of
        Chebyshev, Markov and Stieltjes; Golub and Meurant, 2010).
        """
        m, n = len(self.diagonal), len(at)
        inner = torch.diag(self.diagonal) + _symmetric_off_diagonal(self.off_diagonal[:-1])
        λ, U = torch.linalg.eigh(inner)
        gaps = λ - at[:, None]
        least = 1e-14 * (float(λ.abs().max()) or 1.0)
        gaps = torch.where(gaps.abs() < least, least, gaps)
        extended = torch.zeros(n, m + 1, m + 1, dtype=at.dtype)
        extended[:, :m, :m] = inner
        extended[:, m, m] = at + ((self.off_diagonal[-1] * U[-1]).square() / gaps).sum(
            1
        )  # so that t is a node
        extended[:, m - 1, m] = extended[:, m, m - 1] = self.off_diagonal[-1]
        nodes, vectors = torch.linalg.eigh(extended)
        weights, aside = vectors[:, 0].square(), nodes - at[:, None]
        # The node put at t is the closest; an eigenvalue at t may lie next to it, equal up to rounding.
        rounding = aside.abs().amin(1, keepdim=True).clamp(min=1e4 * least)
        return (weights * (aside < -rounding)).sum(1), (weights * (aside <= rounding)).sum(1)

    def converged(self, tolerance: float) -> Tensor:
        """Eigenvalues of H that have converged, each to within `tolerance`, in order."""
        λ, U = torch.linalg.eigh(torch.diag(self.diagonal) + _symmetric_off_diagonal(self.off_diagonal[:-1]))
        near = (self.off_diagonal[-1] * U[-1]).abs() <= tolerance
        converged: Tensor = λ[near]
        return converged


def _symmetric_off_diagonal(values: Tensor) -> Tensor:
    return torch.diag(values, 1) + torch.diag(values, -1)


def lanczos(
    product: Callable[[Tensor], Tensor], like: Tensor, steps: int, generator: torch.Generator
) -> Quadrature:
    """At most `steps` steps of Lanczos with a symmetric H from a random direction, fewer if that has no
    component in more eigenvectors. `like` is a vector `[P]` of the dtype and device that the product takes.
    Each vector is made orthogonal to all before it, which are kept: steps × P numbers.
    """
    v = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    basis = torch.empty(min(steps, len(like)), len(like), dtype=like.dtype, device=like.device)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    v = v / v.norm()
    for k in range(len(basis)):
        basis[k] = v
        image = product(v)
        diagonal.append(float(v @ image))
        for _ in range(2):  # once is not enough in floating point, twice is (Parlett)
            image = image - (basis[: k + 1] @ image) @ basis[: k + 1]
        off_diagonal.append(float(image.norm()))
        if off_diagonal[-1] <= 1e-12 * max(map(abs, [*diagonal, *off_diagonal])):
            off_diagonal[-1] = 0.0
            break
        v = image / off_diagonal[-1]
    return Quadrature(*(torch.tensor(numbers, dtype=torch.float64) for numbers in (diagonal, off_diagonal)))


ROWS = 10_000
"""Training rows that curvature is measured on while a run trains, at most: the first ones."""


def extremes(
    layers: Sequence[tuple[Array, Array]], train: Split[Array], run: TrainConfig, device: str
) -> dict[str, float]:
    """‖g‖ and the extreme eigenvalues of the objective's Hessian at these weights, by their tags; computed on
    a device."""
    tensors = [(torch.from_numpy(W).to(device), torch.from_numpy(b).to(device)) for W, b in layers]
    rows = train.map(lambda part: torch.from_numpy(part[:ROWS]).to(device))
    product = HessianProduct(*objective_at(tensors, rows, run))
    low, high = extreme_eigenpairs(product, product.g, 1e-4)
    return {
        tags.LAMBDA_MIN.name: low.value,
        tags.LAMBDA_MAX.name: high.value,
        tags.CURVATURE_GRAD_NORM.name: float(product.g.norm()),
    }


def objective_at(
    layers: Sequence[tuple[Tensor, Tensor]], rows: Split[Tensor], run: TrainConfig
) -> tuple[Tensor, list[Tensor]]:
    """The objective of a run's network on these rows, with its graph, and the leaves it is of."""
    leaves = [t.detach().clone().requires_grad_() for layer in layers for t in layer]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
    return objective_of(pairs, rows, run), leaves


def objective_of(layers: Sequence[tuple[Tensor, Tensor]], rows: Split[Tensor], run: TrainConfig) -> Tensor:
    """The objective of a run's network on these rows."""
    x, y, weights = rows
    loss = loss_of(layers, x, y, ACTIVATIONS[run.model.activation], criterion_of(run), weights)
    return penalised(loss, layers, run.l2, run.l1)
