"""The figures of optimizers on surfaces."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ffn_bench.lecture.topic import F64
from ffn_bench.race.surfaces import SURFACES, Surface

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B0A000")
"""Okabe and Ito's palette, readable with any colour vision; its yellow is darkened for white paper."""


def _contours(axes: Any, surface: Surface) -> None:
    low1, high1, low2, high2 = surface.window
    a, b = torch.linspace(low1, high1, 121, dtype=F64), torch.linspace(low2, high2, 121, dtype=F64)
    grid = torch.stack(torch.meshgrid(a, b, indexing="ij"), -1)
    values = surface.function(grid)
    levels = torch.quantile(values.flatten(), torch.linspace(0, 1, 22, dtype=F64)).unique()
    axes.contour(a, b, values.T, levels=levels.tolist(), colors="0.75", linewidths=0.7)
    axes.set(xlim=(low1, high1), ylim=(low2, high2), xlabel="θ1", ylabel="θ2")


def _draw_paths(axes: Any, surface: Surface, paths: dict[str, Tensor]) -> None:
    _contours(axes, surface)
    for k, ((name, path), colour) in enumerate(zip(paths.items(), COLOURS, strict=False)):
        width = 4.0 if k == 0 and len(paths) == 2 else 1.5  # of two paths the second may lie on the first
        axes.plot(path[:, 0], path[:, 1], color=colour, lw=width, label=name)
        axes.plot(path[-1, 0], path[-1, 1], "o", color=colour, ms=4)
    axes.plot(*surface.start, "k*", ms=10)


def paths(surface: Surface, named_paths: dict[str, Tensor]) -> Figure:
    """Paths `[steps + 1, 2]` on a surface, by their names."""
    figure = Figure(figsize=(5.5, 4.6), layout="constrained")
    axes = figure.subplots()
    _draw_paths(axes, surface, named_paths)
    axes.set_title(f"f = {surface.formula}; ★ is the start")
    axes.legend()
    return figure


def race(all_paths: dict[str, dict[str, Tensor]], curves: dict[str, list[float]]) -> Figure:
    """The paths on three surfaces, and the losses of a network step by step."""
    figure = Figure(figsize=(11, 8.6), layout="constrained")
    panels = figure.subplots(2, 2).flatten()
    for axes, (name, surface_paths) in zip(panels, all_paths.items(), strict=False):
        _draw_paths(axes, SURFACES[name], surface_paths)
        axes.set_title(f"{name}: {SURFACES[name].formula}, 150 steps")
    for (who, curve), colour in zip(curves.items(), COLOURS, strict=False):
        panels[3].plot(range(1, len(curve) + 1), curve, color=colour, lw=1.5, label=who)
    panels[3].set(
        yscale="log",
        xlabel="step (full batch)",
        ylabel="training loss (nats)",
        title="the digits network, one start",
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(
        "★ start, ● after the last step; learning rates set by hand for each panel: this ranks nothing"
    )
    return figure
