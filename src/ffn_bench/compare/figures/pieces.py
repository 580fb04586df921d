"""What the figures of a comparison share: how a competitor is drawn, their axes, their legend.

Every colour is one of `plot_style.COLOURS`, so that the report can swap them for a dark page. Everything
of the k-th competitor has the id `series-k`, by which the report hides and shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ffn_bench.compare import statistics
from ffn_bench.compare.results import Cell
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.plot_style import PAPER, colour, dashes, literal
from ffn_bench.tags import LOSS, quantity

MAX_SERIES = 16
"""Competitors that a figure shows; the tables have all."""
WIDTH = 7.4
"""Inches."""


@dataclass(frozen=True)
class Series:
    """A competitor as every figure draws it: its colour, its dashes, its label, its id."""

    number: int
    competitor: Competitor

    @property
    def colour(self) -> str:
        """Of its lines and points."""
        return colour(self.number)

    @property
    def stroke(self) -> dict[str, Any]:
        """Colour and dashes of a line."""
        return {"color": self.colour, "linestyle": dashes(self.number)}

    @property
    def label(self) -> str:
        """Its name, escaped for matplotlib."""
        return literal(self.competitor.name)

    def mark(self, *artists: Artist) -> None:
        """Give these its id."""
        for artist in artists:
            artist.set_gid(f"series-{self.number}")

    def line(self, plot: Plot, x: Any, y: Any, **style: Any) -> None:
        """A line in its colour and dashes."""
        self.mark(*plot.plot(x, y, **self.stroke, **{"zorder": 3, **style}))

    def steps(self, plot: Plot, x: Any, y: Any) -> None:
        """The same as a staircase."""
        self.mark(*plot.step(x, y, where="post", **self.stroke, zorder=3))

    def band(self, plot: Plot, x: Any, low: Any, high: Any, **style: Any) -> None:
        """The area between two curves, shaded."""
        self.mark(plot.fill_between(x, low, high, color=self.colour, lw=0, zorder=2, **style))

    def interval(self, plot: Plot, y: float, interval: statistics.Interval) -> None:
        """A point with its interval, horizontally."""
        style: dict[str, Any] = {"color": self.colour, "ms": 7, "mec": PAPER, "mew": 0.8, "zorder": 4}
        self.mark(*plot.plot([interval.estimate], [y], "o", **style))
        low, high = interval.low, interval.high
        if interval.known and math.isfinite(low) and math.isfinite(high):
            self.mark(*plot.plot([low, high], [y, y], "-", color=self.colour, lw=2.4, zorder=3))


def series_of(study: Study) -> list[Series]:
    """The competitors that figures have room for."""
    return [Series(k, competitor) for k, competitor in enumerate(study.competitors[:MAX_SERIES])]


def cells_of(study: Study, workload: str) -> Iterator[tuple[Series, Cell]]:
    """Those that were run on a workload, with their results on it."""
    for series in series_of(study):
        if (cell := series.competitor.cells.get(workload)) is not None:
            yield series, cell


def new_figure(height: float, columns: int = 1, **options: Any) -> tuple[Figure, list[Plot]]:
    """A figure of this height in inches, and its plots, side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    plots = figure.subplots(1, columns, squeeze=False, **options)
    return figure, [*plots[0]]


def add_legend(figure: Figure, study: Study) -> None:
    """One legend above the plots."""
    shown = series_of(study)
    labels = [series.label for series in shown]
    columns = max(1, min(len(shown), int(92 / (max(map(len, labels)) + 7))))
    handles = [Line2D([], [], **series.stroke, linewidth=2) for series in shown]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns).set_gid("legend")


def label_rows(plot: Plot, shown: Sequence[Series]) -> None:
    """Competitors as rows, the best on top."""
    plot.set_yticks(range(len(shown)), [series.label for series in shown])
    plot.set_ylim(len(shown) - 0.4, -0.6)
    hide_row_lines(plot)


def hide_row_lines(plot: Plot) -> None:
    """Neither a grid nor ticks for rows."""
    plot.grid(False, axis="y")
    plot.tick_params(axis="y", length=0)


def percent(plot: Plot, axis: str) -> None:
    """Proportions in whole per cent."""
    formatter = FuncFormatter(lambda v, _: f"{100 * v:.0f} %")
    getattr(plot, f"{axis}axis").set_major_formatter(formatter)


def percent_axis(plot: Plot, axis: str, tag: str) -> None:
    """Accuracies as per cent, with the digits that the limits need."""
    if quantity(tag).is_percent:
        low, high = (plot.get_xlim if axis == "x" else plot.get_ylim)()
        digits = 0 if high - low > 0.06 else 1 if high - low > 0.006 else 2
        formatter = FuncFormatter(lambda v, _: f"{100 * v:.{digits}f} %")
        getattr(plot, f"{axis}axis").set_major_formatter(formatter)


def is_logarithmic(tag: str, values: Sequence[float]) -> bool:
    """Whether values of a metric are shown on a logarithmic axis: losses above 0, and what else is better the
    lower, where it spans more than a factor of ten."""
    measured = quantity(tag)
    finite = [v for v in values if math.isfinite(v)]
    if measured.higher_is_better or measured.is_percent or not finite or min(finite) <= 0:
        return False
    return measured == LOSS or max(finite) > 10 * min(finite)


def zoom(values: Sequence[float], margin: float = 0.06) -> tuple[float, float] | None:
    """Limits around finite values, without those more than six quartile ranges away from the middle half."""
    finite = np.asarray([v for v in values if math.isfinite(v)])
    if len(finite) == 0:
        return None
    q1, q3 = np.quantile(finite, (0.25, 0.75))
    spread = max(q3 - q1, 1e-9)
    inside = finite[(finite >= q1 - 6 * spread) & (finite <= q3 + 6 * spread)]
    low, high = float(inside.min()), float(inside.max())
    pad = margin * (high - low) if high > low else 0.01 * abs(high) or 0.01
    return low - pad, high + pad
