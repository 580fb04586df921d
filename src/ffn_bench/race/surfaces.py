"""Functions of two variables for optimizers to run on. Each takes `θ [..., 2]` and returns `[...]`."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ffn_bench.errors import UserError, nearest


@dataclass(frozen=True)
class Surface:
    """A function, where a race on it starts, and the window a picture shows: (θ1 low, high, θ2 low, high)."""

    function: Callable[[Tensor], Tensor]
    formula: str
    start: tuple[float, float]
    window: tuple[float, float, float, float]
    minima: tuple[tuple[float, float], ...] = ()
    """Its global minima; none where it is unbounded."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise on both components of a gradient."""


def _saddle(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 - θ[..., 1] ** 2


def _monkey(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 3 - 3 * θ[..., 0] * θ[..., 1] ** 2


def _valley(θ: Tensor) -> Tensor:
    return θ[..., 0] ** 2 / 2 + 50 * θ[..., 1] ** 2


def _rosenbrock(θ: Tensor) -> Tensor:
    return (1 - θ[..., 0]) ** 2 + 100 * (θ[..., 1] - θ[..., 0] ** 2) ** 2


def _beale(θ: Tensor) -> Tensor:
    a, b = θ[..., 0], θ[..., 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def _himmelblau(θ: Tensor) -> Tensor:
    a, b = θ[..., 0], θ[..., 1]
    return (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2


def _rastrigin(θ: Tensor) -> Tensor:
    return (10 + θ**2 - 10 * (2 * math.pi * θ).cos()).sum(-1)


SURFACES: dict[str, Surface] = {
    "saddle": Surface(_saddle, "θ1² − θ2²", (1.0, 0.01), (-1.2, 1.2, -1.2, 1.2)),
    "monkey": Surface(_monkey, "θ1³ − 3 θ1 θ2², the monkey saddle", (1.0, 0.01), (-1.2, 1.2, -1.2, 1.2)),
    "valley": Surface(_valley, "θ1²/2 + 50 θ2²", (-1.8, 0.35), (-2.0, 0.6, -0.5, 0.5), ((0.0, 0.0),)),
    "noisy_valley": Surface(
        _valley,
        "θ1²/2 + 50 θ2², gradients + N(0, 2²)",
        (-1.8, 0.35),
        (-2.0, 0.6, -0.5, 0.5),
        ((0.0, 0.0),),
        noise=2.0,
    ),
    "rosenbrock": Surface(
        _rosenbrock, "(1 − θ1)² + 100 (θ2 − θ1²)²", (-1.2, 1.0), (-2.0, 2.0, -1.0, 3.0), ((1.0, 1.0),)
    ),
    "beale": Surface(_beale, "Beale's function", (1.0, 1.3), (-0.5, 4.5, -2.2, 2.0), ((3.0, 0.5),)),
    "himmelblau": Surface(
        _himmelblau,
        "(θ1² + θ2 − 11)² + (θ1 + θ2² − 7)²",
        (-0.5, -0.5),
        (-5.0, 5.0, -5.0, 5.0),
        (
            (3.0, 2.0),
            (-2.8051180869527448, 3.1313125182505730),
            (-3.7793102533777469, -3.2831859912861694),
            (3.5844283403304917, -1.8481265269644036),
        ),
    ),
    "rastrigin": Surface(
        _rastrigin, "20 + Σ (θᵢ² − 10 cos 2πθᵢ)", (3.35, -2.6), (-4.5, 4.5, -4.5, 4.5), ((0.0, 0.0),)
    ),
}
"""Saddles (L9), an ill-conditioned quadratic (condition 100), and test functions of the field, by name.

Sources: Rosenbrock (1960), Beale (1958), Himmelblau (1972), Rastrigin (1974).
"""

PLUGINS = "ffn_bench.surfaces"
"""Entry points of this group are `Surface`s of other installed packages: `surface=<entry point's name>`."""


def find(name: str) -> Surface:
    """The surface of this name, from this package or another one. Raises `UserError` where there is none."""
    if name in SURFACES:
        return SURFACES[name]
    offered = importlib.metadata.entry_points(group=PLUGINS)
    for entry in offered:
        if entry.name != name:
            continue
        try:
            surface = entry.load()
        except Exception as e:
            raise UserError(
                "surface", f"{name} ({entry.value}) cannot be imported: {e}", "fix that package"
            ) from e
        if not isinstance(surface, Surface):
            raise UserError("surface", f"{name} ({entry.value}) is not a Surface", "provide a Surface")
        return surface
    known = (*SURFACES, *(entry.name for entry in offered), "network")
    raise UserError(
        "surface", f"{name!r} is not known{nearest(name, known)}", f"use one of: {', '.join(known)}"
    )
