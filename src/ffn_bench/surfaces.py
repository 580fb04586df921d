"""Functions of two variables on which optimizers are watched. Each takes `θ [..., 2]` and returns `[...]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """A function, where a race on it starts, and the window a picture shows: (θ1 low, high, θ2 low, high)."""

    function: Callable[[Tensor], Tensor]
    formula: str
    start: tuple[float, float]
    window: tuple[float, float, float, float]


def _saddle(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 - θ[..., 1] ** 2


def _valley(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 / 2 + 50 * θ[..., 1] ** 2


def _beale(θ: Tensor) -> Tensor:
    a, b = θ[..., 0], θ[..., 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


SURFACES: dict[str, Surface] = {
    "saddle": Surface(_saddle, "θ1² − θ2²", (1.0, 0.01), (-1.2, 1.2, -1.2, 1.2)),
    "valley": Surface(_valley, "θ1²/2 + 50 θ2²", (-1.8, 0.35), (-2.0, 0.6, -0.5, 0.5)),
    "beale": Surface(_beale, "Beale's function", (1.0, 1.3), (-0.5, 4.5, -2.2, 2.0)),
}
"""The lecture's surfaces by name: a saddle, an ill-conditioned valley (condition 100), Beale's function."""
