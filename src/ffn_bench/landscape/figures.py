"""The figures of `ffn-landscape`, each with a note on its limits."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from ffn_bench.errors import printable
from ffn_bench.landscape.verdict import Curvature
from ffn_bench.plot_style import GRID, INK, MUTED, PAPER, SERIES, STYLE, colour, dashes, literal
from ffn_bench.tags import LOSS, Quantity

COLOURS = "viridis"
"""Perceptually uniform, and readable with any colour vision."""


@dataclass(frozen=True)
class Trajectory:
    """A run's trajectory on the plane of all runs."""

    name: str
    epochs: Tensor
    coordinates: Tensor
    """`[T, 2]`."""
    true: Tensor
    """The loss at each point, `[T]`."""
    on_plane: Tensor
    """The loss at each point's projection onto the plane."""


def lines(steps: Tensor, losses: Tensor, unit: str, scores: Tensor, score: Quantity, note: str) -> Figure:
    """Loss, with its unit, and a score, `[directions, points]` along random directions."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for k, (loss, values) in enumerate(zip(losses, scores, strict=True)):
            left.plot(steps, loss, color=colour(k), linestyle=dashes(k), label=f"direction {k + 1}")
            right.plot(steps, values, color=colour(k), linestyle=dashes(k))
        if float(losses.max()) > 30 * max(float(losses.min()), 1e-12) > 0:
            left.set_yscale("log")
        extent = float(steps[-1])
        for plot in (left, right):
            plot.set_xticks([-extent, -extent / 2, 0, extent / 2, extent])
            plot.axvline(0, color=MUTED, lw=0.8, zorder=1)
            plot.set_xlabel("step; 1 is the norm of the network's own filters")
        left.set_title(_loss(unit))
        right.set_title(score.shown)
        if score.is_percent:
            right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        elif float(scores.min()) < -1 < float(scores.max()):  # what is far below a constant's tells nothing
            right.set_ylim(-1, 1.05)
        figure.legend(loc="outside upper left", ncols=min(5, len(losses)))
        _note(figure, note)
    return figure


def _loss(unit: str) -> str:
    """The loss with its unit, where it has one."""
    return f"{LOSS.name} ({unit})" if unit else LOSS.name


def surface(axes: Sequence[Tensor], losses: Tensor, unit: str, note: str) -> Figure:
    """Loss `[n, n]`, with its unit, on a plane of two random directions: contour and surface."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.1))
        figure.set_layout_engine("constrained", h_pad=0.12)  # beside axes in 3-D titles get too little room
        left = figure.add_subplot(1, 2, 1)
        _contour(figure, left, axes, losses)
        left.plot(0, 0, "P", color="white", mec=INK, ms=9, mew=1.1)
        left.set(xlabel="direction 1", ylabel="direction 2", title="✚ is the trained network")
        left.set_aspect("equal")
        extent = float(axes[0][-1])
        ticks = [-extent, -extent / 2, 0, extent / 2, extent]
        left.set_xticks(ticks)
        left.set_yticks(ticks)
        right: Any = figure.add_subplot(1, 2, 2, projection="3d")
        a, b = np.meshgrid(axes[0].numpy(), axes[1].numpy(), indexing="ij")
        shades = mpl.colormaps[COLOURS](_levels(losses)[1](losses.numpy()))
        right.plot_surface(a, b, losses.numpy(), facecolors=shades, rcount=60, ccount=60, lw=0, shade=False)
        right.set(xlabel="direction 1", ylabel="direction 2", xticks=ticks, yticks=ticks)
        right.set_title(_loss(unit), loc="left")
        right.view_init(elev=32, azim=-60)
        right.set_facecolor(PAPER)
        _note(figure, note)
    return figure


def plane(
    axes: Sequence[Tensor], losses: Tensor, paths: Sequence[Trajectory], variance: Sequence[float], note: str
) -> Figure:
    """Trajectories on their principal plane, and the loss on the plane against the true one along each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.8, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _contour(figure, left, axes, losses)
        for k, path in enumerate(paths):
            x, y = path.coordinates.T
            left.plot(x, y, "-", color=PAPER, lw=3.4, zorder=3)
            left.plot(x, y, color=colour(k), lw=1.8, marker="o", ms=2.6, zorder=4, label=literal(path.name))
            left.plot(x[-1:], y[-1:], "o", color=colour(k), ms=8, mec=PAPER, mew=1.2, zorder=5)
            right.plot(path.epochs, path.true, color=colour(k), lw=1.8)
            right.plot(path.epochs, path.on_plane, color=colour(k), lw=1.3, linestyle=(0, (1.5, 1.5)))
        for x, y in {tuple(round(v, 6) for v in p.coordinates[0].tolist()) for p in paths}:
            left.plot(x, y, "*", color="white", mec=INK, ms=13, zorder=6)
        total = 100 * sum(variance)
        left.set_title(f"this plane explains {total:.1f} % of the paths' variance")
        left.set_xlabel(f"component 1 ({100 * variance[0]:.1f} %)")
        left.set_ylabel(f"component 2 ({100 * variance[1]:.1f} %)")
        lowest = min(float(v.min()) for p in paths for v in (p.true, p.on_plane))
        if lowest > 0:
            right.set_yscale("log")
        right.set_title("loss at the weights ──, on the plane ┄┄")
        right.set_xlabel("epochs")
        figure.legend(loc="outside upper left", ncols=max(1, min(len(paths), 4)))
        _note(figure, f"{note}; ★ start, ● end, a dot an epoch")
    return figure


def curvature(result: Curvature, name: str, note: str) -> Figure:
    """The spectrum, the line searches, and the verdict with its evidence."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _spectrum(left, result)
        for k, (which, label) in enumerate((("lowest", "λ_min"), ("highest", "λ_max"))):
            steps, along = result.line[which]
            text = f"along the eigenvector of {label}"
            right.plot(steps, along - result.objective, color=SERIES[1 - k], label=text)
        drops = [float(v.sub(result.objective).abs().max()) for _, v in result.line.values()]
        right.set_xscale("symlog", linthresh=1e-4)
        right.set_xticks([-1, -1e-2, -1e-4, 1e-4, 1e-2, 1])
        threshold = max(1e-10, min(result.drop / 3 or math.inf, 1e-6 * max(drops)))
        right.set_yscale("symlog", linthresh=threshold)
        right.set_ylim(-30 * max(result.drop, threshold), 2 * max(drops))
        low, high = right.get_ylim()
        right.set_yticks(
            [t for t in right.get_yticks() if low < t < high and (not t or abs(t) > 3 * threshold)]
        )
        right.axhline(0, color=MUTED, lw=0.8)
        right.set_xlabel("step along a unit vector")
        right.set_title("change of the objective")
        right.legend(loc="upper center")
        figure.suptitle(f"{literal(name)}: {result.verdict}", x=0.01, ha="left", weight="bold", fontsize=12)
        evidence = result.evidence()
        half = (len(evidence) + 1) // 2
        _note(figure, "; ".join(evidence[:half]) + "\n" + "; ".join(evidence[half:]) + f"\n{note}")
    return figure


def _spectrum(plot: Plot, result: Curvature) -> None:
    """The proportion of eigenvalues up to λ: exact, or bounds by Lanczos; each known one is a tick."""
    peak, known = result.peak, result.distribution
    top = max(abs(result.low), abs(result.high)) or 1.0
    if known is None:
        values = result.eigenvalues.numpy()
        plot.step(values, np.arange(1, len(values) + 1) / len(values), where="post", color=SERIES[0])
        plot.set_title(f"eigenvalues of the Hessian, all {len(values):,}")
        near_zero = f"{100 * peak.lower:.1f} %"
    else:
        inside = (known.at >= result.low) & (known.at <= result.high)
        at, lower, upper = (t[inside].numpy() for t in (known.at, known.lower, known.upper))
        plot.fill_between(at, lower, upper, color=SERIES[0], alpha=0.25, lw=0)
        for bound in (lower, upper):
            plot.plot(at, bound, color=SERIES[0], lw=1)
        plot.set_title("eigenvalues of the Hessian: bounds")
        values = np.union1d(known.converged.numpy(), [result.low, result.high])
        near_zero = f"{100 * peak.lower:.1f} to {100 * peak.upper:.1f} %"
    for low, high, shade in ((-np.inf, -result.tolerance, SERIES[1]), (-result.tolerance, np.inf, SERIES[0])):
        some = values[(values >= low) & (values < high)]
        plot.plot(some, np.full(len(some), -0.06), "|", color=shade, ms=8, mew=0.6)
    plot.axvspan(-peak.within, peak.within, color=GRID, lw=0, zorder=0)
    linear = peak.within / 10 if known else max(result.tolerance, 1e-12)
    plot.set_xscale("symlog", linthresh=linear)
    decades = range(math.floor(math.log10(1.5 * top)), -13, -2)
    ticks = [10.0**e for e in decades if 10.0**e >= 3 * linear]
    negative = [-t for t in ticks if t <= -1.5 * result.low]
    plot.set_xticks([*negative, 0.0, *ticks])
    plot.minorticks_off()
    plot.set_ylim(-0.12, 1.03)
    plot.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    plot.set_xlabel(f"λ (a tick is an eigenvalue; shaded: ± {peak.within:.2g} of 0, with {near_zero} of all)")
    plot.set_ylabel("proportion of eigenvalues up to λ")


def _contour(figure: Figure, plot: Plot, axes: Sequence[Tensor], losses: Tensor) -> None:
    """Filled contours, spaced evenly in the logarithm where the loss spans more than a factor of ten."""
    values = losses.numpy()
    levels, norm = _levels(losses)
    low, high = float(levels[0]), float(levels[-1])
    shown = np.clip(np.where(np.isfinite(values), values, high), low, high).T
    a, b = axes[0].numpy(), axes[1].numpy()
    image = plot.contourf(a, b, shown, levels=levels, cmap=COLOURS, norm=norm, extend="neither")
    plot.contour(a, b, shown, levels=levels[::3], colors="white", linewidths=0.35, alpha=0.6)
    plot.grid(False)
    bar = figure.colorbar(image, ax=plot, pad=0.02, shrink=0.9)
    bar.ax.set_title("loss", fontsize=8.5, loc="left")
    ticks = levels[:: max(1, len(levels) // 6)]
    bar.set_ticks([float(t) for t in ticks], labels=[f"{t:.2g}" for t in ticks])
    bar.minorticks_off()


def _levels(losses: Tensor) -> tuple[np.ndarray[Any, Any], Normalize]:
    values = losses.numpy()
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > 10 * low:
        return np.geomspace(low, high, 26), LogNorm(low, high)
    high = high if high > low else low + 1
    return np.linspace(low, high, 26), Normalize(low, high)


def _note(figure: Figure, text: str) -> None:
    """A note below the plots."""
    width = int(18 * figure.get_figwidth())
    lines = [line for paragraph in text.split("\n") for line in textwrap.wrap(printable(paragraph), width)]
    figure.supxlabel("\n".join(lines).replace("$", r"\$"), fontsize=7.5, color=MUTED, x=0.01, ha="left")
