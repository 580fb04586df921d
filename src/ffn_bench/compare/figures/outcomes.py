"""Figures of what came out, a row a competitor: final scores, seeds won, failures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from ffn_bench.compare.figures.pieces import (
    Series,
    hide_row_lines,
    label_rows,
    new_figure,
    percent,
    percent_axis,
    series_of,
    zoom,
)
from ffn_bench.compare.study import Study
from ffn_bench.plot_style import MUTED, literal
from ffn_bench.tags import quantity, words


def finals(study: Study) -> Figure | None:
    """Every run's metric at the epoch that validation chose, and their median with its interval."""
    shown = [series for series in series_of(study) if math.isfinite(series.competitor.test.estimate)]
    if not shown:
        return None
    figure, (plot,) = new_figure(0.9 + 0.34 * len(shown))
    everything: list[float] = []
    for row, series in enumerate(shown):
        values, median = _best_values(series), series.competitor.test
        everything += [*values, median.low, median.high]
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
        style: dict[str, Any] = {"color": series.colour, "alpha": 0.55, "lw": 0, "zorder": 2}
        series.mark(plot.scatter(values, row + spread, s=11, **style))
        series.interval(plot, row, median)
    if limits := zoom(everything):
        plot.set_xlim(*limits)
        for row, series in enumerate(shown):
            values = _best_values(series)
            out = int(((values < limits[0]) | (values > limits[1])).sum())
            if out:
                left = quantity(study.metric).higher_is_better
                plot.annotate(
                    f"◂ {out} off the scale or failed" if left else f"{out} off the scale or failed ▸",
                    (0.01 if left else 0.99, row + 0.3),
                    xycoords=("axes fraction", "data"),
                    fontsize=7,
                    color=series.colour,
                    ha="left" if left else "right",
                    va="center",
                )
    label_rows(plot, shown)
    known = any(series.competitor.test.known for series in shown)
    plot.set_xlabel(literal(words(study.metric)))
    plot.set_title("median" + (" and its 95 % interval" if known else "") + ", over the runs")
    percent_axis(plot, "x", study.metric)
    return figure


def _best_values(series: Series) -> NDArray[np.float64]:
    """The metric of each of its runs at the epoch that validation chose."""
    return np.concatenate([cell.values("best") for cell in series.competitor.cells.values() if cell.runs])


def seeds_won(study: Study) -> Figure | None:
    """The share of deciding seeds that the leader wins against each other competitor, and by how much."""
    leader, *others = series_of(study)
    pairs = [(series, study.pair(leader.competitor.name, series.competitor.name)) for series in others]
    decided = [(series, pair) for series, pair in pairs if pair and pair.decided]
    if not decided:
        return None
    figure, (left, right) = new_figure(0.95 + 0.32 * len(decided), 2, sharey=True)
    for row, (series, pair) in enumerate(decided):
        series.interval(left, row, pair.proportion)
        series.interval(right, row, pair.difference)
    label_rows(left, [series for series, _ in decided])
    hide_row_lines(right)
    left.axvline(0.5, color=MUTED, lw=1, zorder=1)
    right.axvline(0.0, color=MUTED, lw=1, zorder=1)
    left.set_xlim(-0.03, 1.03)
    percent(left, "x")
    ends = [v for _, p in decided for v in (p.difference.low, p.difference.high, p.difference.estimate)]
    if limits := zoom([0.0, *ends]):
        right.set_xlim(*limits)
    left.set_title(f"seeds that {leader.label} wins")
    right.set_title(f"by how much {'larger' if study.higher else 'smaller'}")
    left.set_xlabel("share of the seeds that decide")
    in_points = quantity(study.metric).is_percent
    unit = "points of " if in_points else "difference in "
    right.set_xlabel(f"{unit}{literal(words(study.metric))}, median over them")
    if in_points:
        right.xaxis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{100 * v:+g}".replace("-", "−") if v else "0")
        )
    return figure


def failures(study: Study) -> Figure | None:
    """The share of all runs, tuning included, that failed."""
    shown = [series for series in series_of(study) if series.competitor.failed[1]]
    if not any(series.competitor.failed[0] for series in shown):
        return None
    figure, (plot,) = new_figure(0.85 + 0.32 * len(shown))
    for row, series in enumerate(shown):
        series.interval(plot, row, series.competitor.failures)
        plot.annotate(
            "{} of {}".format(*series.competitor.failed),
            (1.0, row),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color=MUTED,
            ha="right",
            va="center",
        )
    label_rows(plot, shown)
    plot.set_xlim(-0.004, max(1.15 * max(s.competitor.failures.high for s in shown), 0.1))
    percent(plot, "x")
    plot.set_xlabel("share of all its runs that failed (95 % interval: Clopper and Pearson)")
    return figure
