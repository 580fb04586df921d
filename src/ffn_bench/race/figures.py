"""Pictures of a race: the paths on contours next to their curves, and the paths in 3-D."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ffn_bench.errors import printable
from ffn_bench.plot_style import INK, MUTED, PAPER, STYLE, colour, dashes, literal
from ffn_bench.race.scene import Array, Scene, Track

SIZE = (12.0, 6.75)
"""Inches: a slide's shape."""
RAMP = LinearSegmentedColormap.from_list("low to high", ["#93a9c0", "#c9d5e1", "#f6f8fa"])
"""Low values are darker; all are light enough for paths of any colour."""
LINES = "#8796a8"
"""Of contours."""
KEY = "★ start   ● last step"
SMALLEST = 1e-10
"""The lowest value on a logarithmic axis."""


def draw_all(scene: Scene) -> dict[str, Figure]:
    """The still pictures by the names of their files."""
    with mpl.rc_context(STYLE):
        return {"race": contour_figure(scene).figure, "race-3d": surface_3d(scene)}


# --- pieces ---------------------------------------------------------------------------------------------


def _line_style(k: int) -> dict[str, Any]:
    """Of the k-th path. Earlier ones are thicker, so that they show below a later one."""
    return {
        "color": colour(k),
        "linestyle": dashes(k),
        "linewidth": max(1.6, 3.6 - 0.24 * k),
        "zorder": 4 + k / 100,
        "solid_capstyle": "round",
    }


def _frame(scene: Scene, words: bool = True) -> tuple[Figure, Any]:
    """A figure with room for the plots on the left, names on the right, remarks below."""
    figure = Figure(figsize=SIZE)
    FigureCanvasAgg(figure)
    figure.suptitle(
        literal(scene.title, 120), x=0.04, y=0.965, ha="left", fontsize=13, fontweight="bold", color=INK
    )
    lines = [line for remark in scene.remarks for line in textwrap.wrap(printable(remark), 172)]
    for k, line in enumerate(reversed(lines)):
        figure.text(0.04, 0.022 + 0.026 * k, line.replace("$", r"\$"), fontsize=8.5, color=MUTED)
    bottom = 0.115 + 0.026 * len(lines)
    return figure, {"left": 0.065, "right": 0.765, "bottom": bottom, "top": 0.9}


def _names(figure: Figure, scene: Scene, top: float, bottom: float) -> None:
    """The optimizers with their learning rates, next to the plots."""
    pitch = min((top - bottom) / len(scene.tracks), 0.074)
    large, small = (9.0, 7.5) if pitch > 0.046 else (7.5, 6.0)
    below = (large + small) / 2 / (72 * SIZE[1])  # from the middle of a line to that of the next
    figure.text(0.797, top + 0.01, "optimizer, learning rate η", fontsize=8.5, color=MUTED)
    for k, track in enumerate(scene.tracks):
        y = top - pitch * (k + 0.5)
        figure.add_artist(Line2D([0.797, 0.823], [y, y], transform=figure.transFigure, **_line_style(k)))
        figure.text(0.83, y, literal(track.name), fontsize=large, va="center", color=INK)
        figure.text(0.985, y, f"{track.rate:.3g}", fontsize=large, va="center", ha="right", color=INK)
        figure.text(0.83, y - 1.12 * below, track.note, fontsize=small, va="center", color=MUTED)


def _is_log(scene: Scene) -> bool:
    """Whether heights span so much that they need a logarithmic scale."""
    if not scene.bounded:
        return False
    low, high = np.quantile(scene.grid, (0.02, 0.98))
    return bool(high > (50 if scene.minima else 5) * max(low, 0.0))  # a network's loss spans less


def _shading(scene: Scene) -> tuple[Any, Array]:
    """The mapping of heights to shades, and the contour levels."""
    finite = scene.grid[np.isfinite(scene.grid)]
    if _is_log(scene):
        low, high = _apart(max(float(np.quantile(finite, 0.003)), SMALLEST), float(finite.max()))
        return LogNorm(low, high), np.geomspace(low, high, 17)
    high = float(np.quantile(finite, 0.995)) if scene.bounded else float(finite.max())
    low, high = _apart(float(finite.min()), high)
    return Normalize(low, high), np.linspace(low, high, 17)


def _apart(low: float, high: float) -> tuple[float, float]:
    """The bounds of heights, kept distinct where the function is constant."""
    return low, max(high, low + 1e-6 * max(abs(low), SMALLEST))


def _contours(figure: Figure, plot: Plot, scene: Scene) -> None:
    norm, levels = _shading(scene)
    heights = np.clip(scene.grid.T, levels[0], levels[-1])
    shades = plot.contourf(scene.a, scene.b, heights, levels=levels, norm=norm, cmap=RAMP, zorder=0)
    lines: dict[str, Any] = {"colors": LINES, "linewidths": 0.4, "linestyles": "solid"}
    plot.contour(scene.a, scene.b, heights, levels=levels[1:-1], **lines, zorder=1)
    low1, high1, low2, high2 = scene.window
    plot.set(xlim=(low1, high1), ylim=(low2, high2), xlabel=scene.x, ylabel=scene.y)
    plot.grid(False)
    bar = figure.colorbar(shades, ax=plot, pad=0.02, aspect=34, fraction=0.045)
    if len(scene.z) < 12:
        bar.ax.set_title(scene.z, fontsize=8.5, fontweight="normal", color=INK, loc="left")
    else:
        bar.set_label(scene.z, fontsize=8.5)
    if _is_log(scene):
        decades = np.arange(np.ceil(np.log10(levels[0])), np.floor(np.log10(levels[-1])) + 1)
        bar.set_ticks([10.0**d for d in decades], labels=[f"$10^{{{int(d)}}}$" for d in decades])
        bar.ax.minorticks_off()
    else:
        bar.set_ticks(MaxNLocator(7).tick_values(levels[0], levels[-1])[1:-1])
    bar.ax.tick_params(labelsize=7.5)
    bar.outline.set_visible(False)
    plot.plot(*scene.start, "*", color=INK, ms=13, mec=PAPER, mew=0.8, zorder=6)
    for minimum in scene.minima:
        plot.plot(*minimum, "x", color=INK, ms=8, mew=1.8, zorder=3)
    plot.set_title(KEY + "   × minimum" * bool(scene.minima), fontsize=8.5, fontweight="normal", color=MUTED)


def _curves(plot: Plot, scene: Scene) -> Callable[[Array], Array]:
    """Set up the axes of the curves; returns a function that clips values to them."""
    plot.set(xlabel="step", ylabel=scene.z, xlim=(0, max(1, scene.last)))
    finite = np.concatenate([t.values[np.isfinite(t.values)] for t in scene.tracks])
    if scene.bounded:
        first = scene.tracks[0].values[0]
        low = max(SMALLEST, float(finite[finite > 0].min()) if (finite > 0).any() else SMALLEST)
        plot.set_yscale("log")
        plot.set_ylim(low / 1.5, 1.5 * max(low, min(float(finite.max()), first * 1e3)))
        return lambda values: np.maximum(values, SMALLEST**3)  # a line that ends at 0 leaves the plot
    deepest = min(float(scene.grid.min()), -1e-2)
    plot.set_yscale("symlog", linthresh=1e-3, linscale=0.6)
    plot.set_ylim(3 * deepest, 3 * max(float(scene.tracks[0].values[0]), 1e-2))
    plot.axhline(0, color=MUTED, lw=0.8, zorder=1)
    return lambda values: values


@dataclass(frozen=True)
class ContourFigure:
    """The contour figure and the lines that a film animates."""

    figure: Figure
    paths: list[Line2D]
    heads: list[Line2D]
    curves: list[Line2D]
    ends: list[Line2D]
    drawn: list[Array]
    """Paths as they are drawn: clipped far outside the window."""
    values: list[Array]


def _cut(track: Track, window: tuple[float, float, float, float]) -> Array:
    """A path whose far points are moved nearer in their direction, as renderers cannot draw huge numbers."""
    low1, high1, low2, high2 = window
    center = np.asarray([(low1 + high1) / 2, (low2 + high2) / 2])
    reach = 20 * max(high1 - low1, high2 - low2)
    away = track.xy - center
    far = np.abs(away).max(1, keepdims=True)
    cut: Array = center + away * np.minimum(1, reach / np.maximum(far, 1e-300))
    return cut


def contour_figure(scene: Scene) -> ContourFigure:
    """Contours with all paths, next to the curves."""
    figure, room = _frame(scene)
    plot, curve_plot = figure.subplots(1, 2, gridspec_kw={**room, "width_ratios": [1.25, 1], "wspace": 0.36})
    _contours(figure, plot, scene)
    fit = _curves(curve_plot, scene)
    contours = ContourFigure(figure, [], [], [], [], [], [])
    for k, track in enumerate(scene.tracks):
        xy, values = _cut(track, scene.window), fit(track.values)
        contours.drawn.append(xy)
        contours.values.append(values)
        dot = {"marker": "o", "ms": 6.5, "mec": PAPER, "mew": 0.9, "color": colour(k), "zorder": 5 + k / 100}
        contours.paths.extend(plot.plot(xy[:, 0], xy[:, 1], **_line_style(k)))
        contours.heads.extend(plot.plot(xy[-1:, 0], xy[-1:, 1], **dot))
        contours.curves.extend(curve_plot.plot(track.steps, values, **_line_style(k)))
        ends = track.steps[-1] < scene.last
        end = (track.steps[-1:], values[-1:]) if ends else ([], [])
        contours.ends.extend(curve_plot.plot(*end, **dot))
    _names(figure, scene, room["top"] - 0.02, room["bottom"])
    return contours


def _dense(xy: Array, window: tuple[float, float, float, float]) -> Array:
    """A path with points close enough to follow the surface, NaN outside the window."""
    low1, high1, low2, high2 = window
    size = np.asarray([high1 - low1, high2 - low2])
    pieces = [xy[:1]]
    for p, q in itertools.pairwise(xy):
        count = int(np.clip(np.ceil(np.abs((q - p) / size).max() * 150), 1, 400))
        pieces.append(p + (q - p) * np.linspace(0, 1, count + 1)[1:, None])
    dense = np.concatenate(pieces)
    out = (dense[:, 0] < low1) | (dense[:, 0] > high1) | (dense[:, 1] < low2) | (dense[:, 1] > high2)
    dense[out] = np.nan
    return dense


def surface_3d(scene: Scene) -> Figure:
    """The surface in 3-D with all paths on it."""
    figure, room = _frame(scene)
    box = (0.0, room["bottom"] - 0.07, 0.78, 1.0 - room["bottom"])
    plot: Any = figure.add_axes(box, projection="3d", computed_zorder=False)
    log = _is_log(scene)
    norm, _ = _shading(scene)

    def z(heights: Array) -> Array:
        if log:
            return np.asarray(np.log10(1 + np.maximum(heights, 0)))
        return np.asarray(np.minimum(heights, norm.vmax))

    A, B = np.meshgrid(scene.a, scene.b, indexing="ij")
    Z = z(scene.grid)
    low1, high1, low2, high2 = scene.window
    steep = np.gradient(Z / (np.ptp(Z) or 1.0), scene.a / (high1 - low1), scene.b / (high2 - low2))
    light = 1 / np.sqrt(1 + 0.15 * (steep[0] ** 2 + steep[1] ** 2))  # from above, so that slopes are darker
    shades = RAMP(norm(scene.grid))
    shades[..., :3] *= 0.72 + 0.28 * light[..., None]
    stride = max(1, len(scene.a) // 80)
    patches = plot.plot_surface(
        A, B, Z, rstride=stride, cstride=stride, color=PAPER, lw=0, antialiased=False, shade=False,
        rasterized=True, zorder=0,
    )  # fmt: skip
    corners = shades[:-1:stride, :-1:stride].reshape(-1, 4)  # as an array: lists of colours take 0.2 s
    patches.set_facecolor(corners)
    patches.set_edgecolor(corners)
    plot.contour(A, B, Z, levels=14, colors=LINES, linewidths=0.5, linestyles="solid", zorder=1)
    lift = 0.01 * float(np.ptp(Z))
    for k, track in enumerate(scene.tracks):
        xy = _dense(_cut(track, scene.window), scene.window)
        heights = z(scene.height(np.nan_to_num(xy))) + lift
        plot.plot(xy[:, 0], xy[:, 1], np.where(np.isnan(xy[:, 0]), np.nan, heights), **_line_style(k))
        here = xy[~np.isnan(xy[:, 0])][-1:]
        plot.plot(here[:, 0], here[:, 1], z(scene.height(here)) + lift, "o", color=colour(k), ms=6, mec=PAPER,
                  mew=0.8, zorder=5 + k / 100)  # fmt: skip
    top = z(scene.height(scene.start[None])) + lift
    plot.plot(*scene.start[:, None], top, "*", color=INK, ms=14, mec=PAPER, mew=0.8, zorder=7)
    plot.set(xlabel=scene.x, ylabel=scene.y)
    plot.set_zlabel(f"log₁₀(1 + {scene.z})" if log else scene.z)
    for axis in (plot.xaxis, plot.yaxis, plot.zaxis):
        axis.pane.set_facecolor(PAPER)
        axis._axinfo["grid"]["linewidth"] = 0.4
    plot.tick_params(labelsize=7.5)
    ends = np.mean([np.clip(t.xy[-1], (low1, low2), (high1, high2)) for t in scene.tracks], axis=0)
    toward = ends - np.asarray([(low1 + high1) / 2, (low2 + high2) / 2])
    plot.view_init(elev=42, azim=np.degrees(np.arctan2(toward[1], toward[0])) + 20)  # seen from their ends
    plot.set_box_aspect((1, 1, 0.62), zoom=1.02)
    figure.text(0.04, 0.91, KEY, fontsize=8.5, color=MUTED)
    _names(figure, scene, 0.88, room["bottom"])
    return figure
