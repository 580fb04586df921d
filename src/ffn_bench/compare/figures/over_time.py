"""Figures over steps, epochs and seconds: learning curves, and when runs meet the target."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ffn_bench.compare.figures.pieces import (
    add_legend,
    cells_of,
    is_logarithmic,
    new_figure,
    percent,
    percent_axis,
    series_of,
    zoom,
)
from ffn_bench.compare.study import Study
from ffn_bench.compare.wording import value
from ffn_bench.plot_style import MUTED, literal
from ffn_bench.tags import LOSS, quantity, words


def curves(study: Study, workload: str, axis: str = "epochs") -> Figure | None:
    """Training loss and the validation metric against steps, epochs or seconds, with bands over seeds."""
    bands = study.bands[workload]
    tags = [tag for tag in (LOSS.tag("train"), study.selecting) if bands.get(tag)]
    if not tags and bands.get(study.metric):
        tags = [study.metric]
    if not tags:
        return None
    figure, plots = new_figure(3.5, len(tags))
    alpha = 0.15 if len(study.competitors) <= 4 else 0.1 if len(study.competitors) <= 8 else 0.05
    for plot, tag in zip(plots, tags, strict=True):
        ends = []
        for series in series_of(study):
            band = bands[tag].get(series.competitor.name)
            if band is None:
                continue
            x = band.x[axis]
            series.line(plot, x, band.center)
            if not np.isnan(band.low).all():
                low, high = (np.where(np.isinf(end), np.nan, end) for end in (band.low, band.high))
                series.band(plot, x, low, high, alpha=alpha)
            finite = band.center[np.isfinite(band.center)]
            ends += [*finite[len(finite) // 10 :], *finite[-1:]]
        plot.set_title(literal(words(tag)))
        plot.set_xlabel(_name_of_time(axis))
        if is_logarithmic(tag, ends):
            plot.set_yscale("log")
            plot.yaxis.set_minor_formatter(NullFormatter())
        elif limits := zoom(ends):
            bottom, top = limits
            plot.set_ylim(max(bottom, quantity(tag).lowest), min(top, quantity(tag).highest + 0.005))
        percent_axis(plot, "y", tag)
        plot.set_xlim(left=0)
    add_legend(figure, study)
    return figure


def time_to_target(study: Study, workload: str) -> Figure | None:
    """The share of runs that have met the target, against epochs and seconds."""
    if workload not in study.targets:
        return None
    figure, plots = new_figure(3.1, 2, sharey=True)
    some = False
    for plot, axis in zip(plots, ("epochs", "seconds"), strict=True):
        last = 0.0
        arrivals = []
        for series, cell in cells_of(study, workload):
            if not cell.runs:
                continue
            times = np.sort(cell.times[axis])
            met = times[np.isfinite(times)]
            arrivals.append((series, met, len(times)))
            last = max([last, *met])
            some = some or len(met) > 0
        for series, met, n in arrivals:
            x = np.concatenate([[0.0], met, [last * 1.04]])
            y = np.concatenate([[0.0], np.arange(1, len(met) + 1), [len(met)]]) / n
            series.steps(plot, x, y)
        plot.axhline(0.5, color=MUTED, lw=0.8, zorder=1)
        plot.set_xlabel(_name_of_time(axis))
        plot.set_ylim(-0.02, 1.04)
        if last:
            plot.set_xlim(0, last * 1.04)
    if not some:
        return None
    percent(plots[0], "y")
    target = study.targets[workload]
    text = f"{words(study.selecting)} {value(study.selecting, target)}"
    plots[0].set_title(f"runs that have met {literal(text)}")
    add_legend(figure, study)
    return figure


def _name_of_time(axis: str) -> str:
    return {"seconds": "seconds of training"}.get(axis, axis)
