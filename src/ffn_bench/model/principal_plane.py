"""The plane through the space of parameters that holds most of some trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUMBERS = 2**24
"""Numbers of points that are held in float64 at once: 128 MB."""


@dataclass(frozen=True)
class Principal:
    """The plane that holds most of some trajectories."""

    origin: Tensor
    """`[P]`, the mean of all points."""
    directions: Tensor
    """`[2, P]`, orthonormal; what the points do not span is 0."""
    variance: tuple[float, float]
    """The proportions of the total variance along the two directions."""

    def project(self, θ: Tensor) -> Tensor:
        """Coordinates `[…, 2]` of points `[…, P]`, float64."""
        return (θ.double() - self.origin.double()) @ self.directions.double().T

    def points(self, coordinates: Tensor) -> Tensor:
        """The points `[…, P]` of the plane with these coordinates `[…, 2]`, float64."""
        return self.origin.double() + coordinates.double() @ self.directions.double()


def principal_plane(points: Tensor) -> Principal:
    """The first two principal components of points `[T, P]` (Lorch, 2016; Li et al., 2018).

    Computed in float64; origin and directions then have the points' dtype, that of the network they are of.
    """
    count, size = points.shape
    origin = points.mean(0, dtype=torch.float64)
    columns = max(1, NUMBERS // count)
    blocks = [slice(at, at + columns) for at in range(0, size, columns)]

    def away(block: slice) -> Tensor:
        return points[:, block].double() - origin[block]

    # T is small where P may not be: the Gram matrix has the same spectrum.
    gram = torch.zeros(max(count, 2), max(count, 2), dtype=torch.float64)  # two eigenvalues of one point, too
    for block in blocks:
        gram[:count, :count] += away(block) @ away(block).T
    values, vectors = torch.linalg.eigh(gram)
    values, top = values.flip(0).clamp_min(0), vectors.flip(1)[:count, :2]
    directions = torch.cat([top.T @ away(block) for block in blocks], 1) / values[:2].sqrt()[:, None]
    spanned = values[:2] > count * torch.finfo(torch.float64).eps * values[0]
    directions = torch.where(spanned[:, None], directions, 0.0)
    total = float(values.sum()) or 1.0
    variance = (float(values[0]) / total, float(values[1]) / total)
    return Principal(origin.to(points.dtype), directions.to(points.dtype), variance)
