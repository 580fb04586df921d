"""Figures of tuning: scores against a tuned number, against the budget, and over all swept keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffn_bench.compare import statistics
from ffn_bench.compare.axes import short, shown
from ffn_bench.compare.figures.pieces import (
    add_legend,
    cells_of,
    is_logarithmic,
    new_figure,
    percent_axis,
    zoom,
)
from ffn_bench.compare.results import Cell
from ffn_bench.compare.study import Study
from ffn_bench.plot_style import MUTED, literal
from ffn_bench.tags import quantity, words


def sensitivity(study: Study, workload: str) -> Figure | None:
    """The validation metric against the learning rate (or the first number that is tuned)."""
    keys = [key for key in study.axes.tuned if _numeric(study, workload, key)]
    if not keys:
        return None
    key = "lr" if "lr" in keys else keys[0]
    figure, (plot,) = new_figure(3.8)
    higher = quantity(study.selecting).higher_is_better
    scores: list[float] = []
    tried: set[float] = set()
    crossed = False
    for series, cell in cells_of(study, workload):
        best = _best_by_value(cell, key, higher)
        if not best:
            continue
        x = np.asarray(sorted(best))
        y = np.asarray([best[v] for v in sorted(best)])
        tried |= set(x)
        scores += [v for v in y if math.isfinite(v)]
        series.line(plot, x, np.where(np.isfinite(y), y, np.nan), marker="o", ms=2.6, lw=1.3)
        chosen = dict(cell.setting).get(key)
        if isinstance(chosen, (int, float)) and float(chosen) in best:
            style: dict[str, Any] = {"ms": 8, "mfc": "none", "mec": series.colour, "mew": 1.8, "zorder": 4}
            series.mark(*plot.plot([chosen], [best[float(chosen)]], "o", **style))
        lost = [v for v in x if _all_diverged(cell, key, v)]
        crossed = crossed or bool(lost)
        if lost:
            border = plot.get_xaxis_transform()  # a loss of ∞ has its cross on the upper border
            shown_at = math.isfinite(quantity(study.selecting).worst)
            height = [best[v] for v in lost] if shown_at else [0.015 if higher else 0.985] * len(lost)
            style = {"ms": 6, "mew": 1.6, "transform": plot.transData if shown_at else border, "zorder": 4}
            series.mark(*plot.plot(lost, height, "x", color=series.colour, **style))
    if len(tried) < 2:
        return None
    if min(tried) > 0 and len(tried) > 2:
        plot.set_xscale("log")
    if is_logarithmic(study.selecting, scores):
        plot.set_yscale("log")
    name = {"lr": "learning rate"}.get(key, key)
    plot.set_xlabel(f"{literal(name)} (○ chosen{', × every run diverged' if crossed else ''})")
    plot.set_title(
        f"best {literal(words(study.selecting))}" + (", mean over seeds" if _seeds(study) > 1 else "")
    )
    percent_axis(plot, "y", study.selecting)
    add_legend(figure, study)
    return figure


def _best_by_value(cell: Cell, key: str, higher: bool) -> dict[float, float]:
    """The best score of the trials at each value of a key, whatever else they tried."""
    best: dict[float, float] = {}
    for trial in cell.trials:
        value = dict(trial.setting).get(key)
        if isinstance(value, (int, float)) and not math.isnan(trial.score):
            old = best.get(float(value))
            if old is None or (trial.score > old) == higher:
                best[float(value)] = trial.score
    return best


def _seeds(study: Study) -> int:
    return max(len(t.runs) for c in study.competitors for cell in c.cells.values() for t in cell.trials)


def _numeric(study: Study, workload: str, key: str) -> bool:
    values = {
        value
        for c in study.competitors
        if workload in c.cells
        for trial in c.cells[workload].trials
        for k, value in trial.setting
        if k == key
    }
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return len(numbers) > 1 and len(numbers) == len(values)


def _all_diverged(cell: Cell, key: str, value: float) -> bool:
    runs = [run for trial in cell.trials if dict(trial.setting).get(key) == value for run in trial.runs]
    return bool(runs) and all(run.status == "diverged" for run in runs)


def budget(study: Study, workload: str) -> Figure | None:
    """The best score among the first k trials: median and quartiles over all orders of the trials."""
    figure, (plot,) = new_figure(3.3)
    higher = quantity(study.selecting).higher_is_better
    longest, ends, few = 0, [], len(study.competitors) <= 4
    for series, cell in cells_of(study, workload):
        scores = np.asarray([t.score for t in cell.trials if not math.isnan(t.score)])
        if len(scores) < 3:
            continue
        low, median, high = statistics.best_of_budget(scores, higher).T
        x = np.arange(1, len(scores) + 1)
        longest = max(longest, len(scores))
        ends += [*median[len(median) // 8 :]]
        series.steps(plot, x, median)
        if few:
            series.band(plot, x, low, high, step="post", alpha=0.13)
    if longest < 3:
        return None
    if limits := zoom(ends):
        plot.set_ylim(*limits)
    plot.set_xlim(1, longest)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("trials of tuning")
    what = f"median {'and quartiles ' * few}over orders of trials"
    plot.set_title(f"best {literal(words(study.selecting))} so far: {what}")
    percent_axis(plot, "y", study.selecting)
    add_legend(figure, study)
    return figure


def parallel_coordinates(study: Study, workload: str) -> Figure | None:
    """Every trial as a line through the values of the keys that were swept, the better the stronger."""
    keys = [*study.axes.compared, *study.axes.tuned]
    rows = [
        ({key: trial.runs[0].config.get(key) for key in keys}, trial.score, series)
        for series, cell in cells_of(study, workload)
        for trial in cell.trials
    ]
    keys = [key for key in keys if len({str(row.get(key)) for row, _, _ in rows}) > 1]
    finite = [score for _, score, _ in rows if math.isfinite(score)]
    if len(keys) < 2 or len(rows) < 4 or not finite:
        return None
    figure, (plot,) = new_figure(3.8)
    positions = {
        key: _axis_of_key(plot, at, [row.get(key) for row, _, _ in rows]) for at, key in enumerate(keys)
    }
    higher = quantity(study.selecting).higher_is_better
    limits = zoom(finite, 0.0) or (0.0, 1.0)
    low, high = limits if limits[0] < limits[1] else (limits[0] - 0.5, limits[0] + 0.5)
    at = len(keys)
    heights = [
        min(1.0, max(0.0, (score - low) / (high - low))) if math.isfinite(score) else float(not higher)
        for _, score, _ in rows
    ]
    ranks = np.argsort(np.argsort([h if higher else -h for h in heights])) / (len(rows) - 1)
    for (row, _, series), height, rank in sorted(zip(rows, heights, ranks, strict=True), key=lambda x: x[2]):
        y = [*(positions[key][str(row.get(key))] for key in keys), height]
        style = {"alpha": 0.12 + 0.85 * rank**3, "lw": 0.8 + 1.2 * rank**3, "zorder": 3}
        series.mark(*plot.plot(range(at + 1), y, color=series.colour, **style))
    plot.vlines(range(at + 1), 0, 1, color=MUTED, lw=1, zorder=5)
    for height in np.linspace(0, 1, 5):
        text = quantity(study.selecting).text(low + height * (high - low), space=" ", decimals=1)
        plot.text(at + 0.03, height, text, fontsize=7.5, va="center")
    plot.set_xticks(range(at + 1), [*(literal(short(key)) for key in keys), literal(words(study.selecting))])
    plot.set_yticks([])
    plot.grid(False)
    plot.spines[["left", "bottom"]].set_visible(False)
    plot.tick_params(axis="x", length=0)
    plot.set_xlim(-0.35, at + 0.35)
    return figure


def _axis_of_key(plot: Plot, at: int, values: Sequence[Any]) -> dict[str, float]:
    """Where each value of a key stands on its axis, from 0 to 1; its ticks are written beside it."""
    known = {str(v): v for v in values}
    numbers = {
        t: float(v) for t, v in known.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
    }
    if len(numbers) == len(known) and len(known) > 1:
        scale: Callable[[float], float] = math.log10 if min(numbers.values()) > 0 else float
        low, high = scale(min(numbers.values())), scale(max(numbers.values()))
        heights = {text: (scale(v) - low) / (high - low) for text, v in numbers.items()}
        ticks = sorted(heights, key=lambda t: heights[t])
        ticks = [ticks[i] for i in np.unique(np.linspace(0, len(ticks) - 1, 6).round().astype(int))]
    else:
        ticks = sorted(known)
        heights = {text: i / max(1, len(ticks) - 1) for i, text in enumerate(ticks)}
    style: dict[str, Any] = {"fontsize": 7.5, "ha": "right", "va": "center", "zorder": 6}
    for text in ticks:
        plot.text(at - 0.03, heights[text], literal(shown(known[text])), **style)
    return heights
