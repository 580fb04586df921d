"""The contents of a race's figures as plain arrays: `figures` only draws a `Scene`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ffn_bench.race.paths import F64, Raced, inside, leaves
from ffn_bench.race.surfaces import Surface

Array = NDArray[np.float64]
NOTHING_RANKED = "Paths from one start illustrate how update rules move: this ranks nothing."


@dataclass(frozen=True)
class Track:
    """One optimizer's path in the plane of the picture and its curve: arrays of one length."""

    name: str
    rate: float
    tuned: bool
    note: str
    """What the plot does not show: it leaves the window, it diverges, its rate is on the edge."""
    xy: Array
    """`[points, 2]`"""
    steps: Array
    values: Array
    """The curve's: f − min f, f where it has no minimum, or a network's loss."""


@dataclass(frozen=True)
class Scene:
    """A race, ready to be drawn."""

    title: str
    x: str
    y: str
    z: str
    """Labels of the plane's axes and of the function."""
    window: tuple[float, float, float, float]
    a: Array
    b: Array
    grid: Array
    """`[len(a), len(b)]`: the function on the plane, minus its minimum where it has one."""
    height: Callable[[Array], Array]
    """The same function at points `[n, 2]`."""
    start: Array
    minima: tuple[tuple[float, float], ...]
    bounded: bool
    tracks: Sequence[Track]
    last: int
    """The last step shown."""
    remarks: tuple[str, ...]
    """The remarks below the figure."""


def about_rate(one: Raced) -> str:
    """A remark on the chosen rate, if one is needed."""
    return "" if one.met and not one.on_edge else "η on the edge" if one.met else "no η fits the rule"


def of_surface(
    name: str, surface: Surface, raced: Sequence[Raced], steps: int, remarks: Sequence[str]
) -> Scene:
    """The scene of a race on a surface."""
    low1, high1, low2, high2 = surface.window
    a, b = np.linspace(low1, high1, 161), np.linspace(low2, high2, 161)
    floor = 0.0
    if surface.minima:
        floor = min(float(surface.function(torch.tensor(m, dtype=F64))) for m in surface.minima)

    def height(xy: Array) -> Array:
        heights: Array = surface.function(torch.from_numpy(np.asarray(xy))).numpy() - floor
        return heights

    tracks = []
    for racer in raced:
        path, note = racer.path, ""
        finite = torch.isfinite(path).all(1) & torch.isfinite(surface.function(path))
        end = len(path) if bool(finite.all()) else int((~finite).nonzero()[0])
        left = leaves(surface, path[:end])
        outside = (~inside(surface, path[:end])).nonzero()
        if not surface.minima and left is not None:
            note, end = f"leaves at step {left}", left + 1
        elif end < len(path):
            note = f"diverges, step {end}"
        elif len(outside):
            home = bool(inside(surface, path[-1:]).all())
            note = f"outside at step {int(outside[0])}" + (", comes back" if home else "")
        note = ", ".join(filter(None, (note, about_rate(racer))))
        xy = path[:end].numpy()
        tracks.append(
            Track(
                racer.name, racer.rate, racer.tuned, note, xy, racer.steps[:end].double().numpy(), height(xy)
            )
        )
    last = steps
    if not surface.minima:
        last = min(steps, math.ceil(1.08 * max(int(t.steps[-1]) for t in tracks)))
    points = np.stack(np.meshgrid(a, b, indexing="ij"), -1)
    return Scene(
        f"{name}: f = {surface.formula}",
        "θ1",
        "θ2",
        "f − min f" if surface.minima else "f",
        surface.window,
        a,
        b,
        height(points),
        height,
        np.asarray(surface.start),
        surface.minima,
        bool(surface.minima),
        tracks,
        last,
        (*remarks, NOTHING_RANKED),
    )
