"""The figures of a comparison: each a function from a `Study` to a figure, or None where it says nothing.

Every colour is one of `style.COLOURS`, so that the report can swap them for a dark page. All that belongs to
the k-th competitor carries the id `series-k`, by which the report hides and shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ffn_bench.command_line.plot_style import MUTED, PAPER, STYLE, colour, dashes, literal, slugs
from ffn_bench.compare import statistics
from ffn_bench.compare.axes import short, shown
from ffn_bench.compare.curves import AXES_OF_TIME
from ffn_bench.compare.study import Competitor, Study
from ffn_bench.compare.wording import value
from ffn_bench.tags import LOSS, quantity, words

MANY = 16
"""Competitors that a figure holds; the tables have all."""
WIDTH = 7.4
"""Inches."""


def draw_all(study: Study) -> dict[str, Figure]:
    """Every figure that has something to say, by the name of its file."""
    found: dict[str, Figure] = {}
    with mpl.rc_context(STYLE):
        for workload, tail in slugs(study.workloads).items():
            tail = f"-{tail}" if len(study.workloads) > 1 else ""
            for axis in AXES_OF_TIME:
                _add(found, f"curves-{axis}{tail}", curves(study, workload, axis))
            _add(found, f"sensitivity{tail}", sensitivity(study, workload))
            _add(found, f"budget{tail}", budget(study, workload))
            _add(found, f"time-to-target{tail}", time_to_target(study, workload))
            _add(found, f"parallel{tail}", parallel_coordinates(study, workload))
        for function in (finals, seeds_won, failures, profile, critical_difference):
            _add(found, function.__name__.replace("_", "-"), function(study))
    return found


def _add(found: dict[str, Figure], name: str, figure: Figure | None) -> None:
    if figure is not None:
        found[name] = figure


# --- pieces ---------------------------------------------------------------------------------------------


def _figure(height: float, columns: int = 1, width: float = WIDTH, **more: Any) -> tuple[Figure, list[Plot]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    plots = figure.subplots(1, columns, squeeze=False, **more)
    return figure, [*plots[0]]


def _shown(study: Study) -> list[tuple[int, Competitor]]:
    """The competitors that have a place in figures, with their number."""
    return list(enumerate(study.competitors))[:MANY]


def _percent(plot: Plot, axis: str, tag: str) -> None:
    """Proportions as per cent."""
    if quantity(tag).is_percent:
        low, high = (plot.get_xlim if axis == "x" else plot.get_ylim)()
        digits = 0 if high - low > 0.06 else 1 if high - low > 0.006 else 2
        getattr(plot, f"{axis}axis").set_major_formatter(
            FuncFormatter(lambda v, _: f"{100 * v:.{digits}f} %")
        )


def _legend(figure: Figure, study: Study, extra: int = 0) -> None:
    """One legend above the plots, where it hides nothing."""
    from matplotlib.lines import Line2D

    shown_ = _shown(study)
    handles = [Line2D([], [], color=colour(k), linestyle=dashes(k), linewidth=2) for k, _ in shown_]
    longest = max(len(literal(c.name)) for _, c in shown_)
    columns = max(1, min(len(shown_), int(92 / (longest + 7))))
    legend = figure.legend(
        handles, [literal(c.name) for _, c in shown_], loc="outside upper left", ncols=columns
    )
    legend.set_gid("legend")


def _interval(plot: Plot, y: float, found: statistics.Interval, k: int, size: float = 7) -> list[Any]:
    """A point with its interval, lying."""
    drawn = [plot.plot([found.estimate], [y], "o", color=colour(k), ms=size, mec=PAPER, mew=0.8, zorder=4)[0]]
    if found.known and math.isfinite(found.low) and math.isfinite(found.high):
        drawn += plot.plot([found.low, found.high], [y, y], "-", color=colour(k), lw=2.4, zorder=3)
    for artist in drawn:
        artist.set_gid(f"series-{k}")
    return drawn


def _rows(plot: Plot, names: Sequence[str]) -> None:
    """Competitors as rows, the best on top."""
    plot.set_yticks(range(len(names)), [*map(literal, names)])
    plot.set_ylim(len(names) - 0.4, -0.6)
    plot.grid(False, axis="y")
    plot.tick_params(axis="y", length=0)


def _zoom(values: Sequence[float], share: float = 0.06) -> tuple[float, float] | None:
    """Limits around finite values, without those more than six quartile ranges away from the middle half."""
    finite = np.asarray([v for v in values if math.isfinite(v)])
    if len(finite) == 0:
        return None
    q1, q3 = np.quantile(finite, (0.25, 0.75))
    spread = max(q3 - q1, 1e-9)
    inside = finite[(finite >= q1 - 6 * spread) & (finite <= q3 + 6 * spread)]
    low, high = float(inside.min()), float(inside.max())
    pad = share * (high - low) if high > low else 0.01 * abs(high) or 0.01
    return low - pad, high + pad


# --- the figures ----------------------------------------------------------------------------------------


def curves(study: Study, workload: str, axis: str = "epochs") -> Figure | None:
    """Training loss and the validation metric against steps, epochs or seconds, with bands over seeds."""
    bands = study.bands[workload]
    tags = [tag for tag in (LOSS.tag("train"), study.selecting) if bands.get(tag)]
    if not tags and bands.get(study.metric):
        tags = [study.metric]
    if not tags:
        return None
    figure, plots = _figure(3.5, len(tags))
    alpha = 0.15 if len(study.competitors) <= 4 else 0.1 if len(study.competitors) <= 8 else 0.05
    for plot, tag in zip(plots, tags, strict=True):
        ends = []
        for k, competitor in _shown(study):
            band = bands[tag].get(competitor.name)
            if band is None:
                continue
            x = band.x[axis]
            (line,) = plot.plot(x, band.center, color=colour(k), linestyle=dashes(k), zorder=3)
            line.set_gid(f"series-{k}")
            if not np.isnan(band.low).all():
                top = np.where(np.isposinf(band.high), np.nan, band.high)
                fill = plot.fill_between(x, band.low, top, color=colour(k), alpha=alpha, lw=0, zorder=2)
                fill.set_gid(f"series-{k}")
            finite = band.center[np.isfinite(band.center)]
            ends += [*finite[len(finite) // 10 :], *finite[-1:]]
        plot.set_title(literal(words(tag)))
        plot.set_xlabel({"seconds": "seconds of training"}.get(axis, axis))
        if not quantity(tag).is_percent and ends and min(ends) > 0:
            plot.set_yscale("log")
            plot.yaxis.set_minor_formatter(NullFormatter())
        elif limits := _zoom(ends):
            low, high = limits
            plot.set_ylim(max(low, 0.0), min(high, 1.005))
        _percent(plot, "y", tag)
        plot.set_xlim(left=0)
    _legend(figure, study)
    return figure


def finals(study: Study) -> Figure | None:
    """Every run's metric at the epoch that validation chose, and their median with its interval."""
    shown_ = [(k, c) for k, c in _shown(study) if math.isfinite(c.test.estimate)]
    if not shown_:
        return None
    figure, (plot,) = _figure(0.9 + 0.34 * len(shown_))
    everything: list[float] = []
    for row, (k, competitor) in enumerate(shown_):
        values = np.concatenate([c.values("best") for c in competitor.cells.values() if c.runs])
        everything += [*values, competitor.test.low, competitor.test.high]
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
        dots = plot.scatter(values, row + spread, s=11, color=colour(k), alpha=0.55, lw=0, zorder=2)
        dots.set_gid(f"series-{k}")
        _interval(plot, row, competitor.test, k)
    if limits := _zoom(everything):
        plot.set_xlim(*limits)
        for row, (k, competitor) in enumerate(shown_):
            values = np.concatenate([c.values("best") for c in competitor.cells.values() if c.runs])
            out = int(((values < limits[0]) | (values > limits[1])).sum())
            if out:
                left = quantity(study.metric).higher_is_better
                plot.annotate(
                    f"◂ {out} off the scale or failed" if left else f"{out} off the scale or failed ▸",
                    (0.01 if left else 0.99, row + 0.3),
                    xycoords=("axes fraction", "data"),
                    fontsize=7,
                    color=colour(k),
                    ha="left" if left else "right",
                    va="center",
                )
    _rows(plot, [c.name for _, c in shown_])
    known = any(c.test.known for _, c in shown_)
    plot.set_xlabel(literal(words(study.metric)))
    plot.set_title("median" + (" and its 95 % interval" if known else "") + ", over the runs")
    _percent(plot, "x", study.metric)
    return figure


def seeds_won(study: Study) -> Figure | None:
    """The share of deciding seeds that the leader wins against each other competitor, and by how much."""
    leader = study.competitors[0].name
    found = [(k, p) for k, c in _shown(study)[1:] if (p := study.pair(leader, c.name)) and p.decided]
    if not found:
        return None
    figure, plots = _figure(0.95 + 0.32 * len(found), 2, sharey=True)
    for row, (k, pair) in enumerate(found):
        _interval(plots[0], row, pair.share, k)
        _interval(plots[1], row, pair.difference, k)
    _rows(plots[0], [p.second for _, p in found])
    plots[1].grid(False, axis="y")
    plots[1].tick_params(axis="y", length=0)
    plots[0].axvline(0.5, color=MUTED, lw=1, zorder=1)
    plots[1].axvline(0.0, color=MUTED, lw=1, zorder=1)
    plots[0].set_xlim(-0.03, 1.03)
    plots[0].xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    ends = [v for _, p in found for v in (p.difference.low, p.difference.high, p.difference.estimate)]
    if limits := _zoom([0.0, *ends]):
        plots[1].set_xlim(*limits)
    plots[0].set_title(f"seeds that {literal(leader)} wins")
    plots[1].set_title(f"by how much {'larger' if study.higher else 'smaller'}")
    plots[0].set_xlabel("share of the seeds that decide")
    percent = quantity(study.metric).is_percent
    unit = "points of " if percent else "difference in "
    plots[1].set_xlabel(f"{unit}{literal(words(study.metric))}, median over them")
    if percent:
        plots[1].xaxis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{100 * v:+g}".replace("-", "−") if v else "0")
        )
    return figure


def time_to_target(study: Study, workload: str) -> Figure | None:
    """The share of runs that have met the target, against epochs and steps."""
    if workload not in study.targets:
        return None
    figure, plots = _figure(3.1, 2, sharey=True)
    some = False
    for plot, axis in zip(plots, ("epochs", "seconds"), strict=True):
        last = 0.0
        steps = []
        for k, competitor in _shown(study):
            cell = competitor.cells.get(workload)
            if cell is None or not cell.runs:
                continue
            times = np.sort(cell.times[axis])
            met = times[np.isfinite(times)]
            steps.append((k, met, len(times)))
            last = max([last, *met])
            some = some or len(met) > 0
        for k, met, n in steps:
            x = np.concatenate([[0.0], met, [last * 1.04]])
            y = np.concatenate([[0.0], np.arange(1, len(met) + 1), [len(met)]]) / n
            (line,) = plot.step(x, y, where="post", color=colour(k), linestyle=dashes(k), zorder=3)
            line.set_gid(f"series-{k}")
        plot.axhline(0.5, color=MUTED, lw=0.8, zorder=1)
        plot.set_xlabel({"seconds": "seconds of training"}.get(axis, axis))
        plot.set_ylim(-0.02, 1.04)
        if last:
            plot.set_xlim(0, last * 1.04)
    if not some:
        return None
    plots[0].yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    target = study.targets[workload]
    text = f"{words(study.selecting)} {value(study.selecting, target)}"
    plots[0].set_title(f"runs that have met {literal(text)}")
    _legend(figure, study)
    return figure


def sensitivity(study: Study, workload: str) -> Figure | None:
    """The validation metric against the learning rate (or the first number that is tuned)."""
    keys = [key for key in study.axes.tuned if _numeric(study, workload, key)]
    if not keys:
        return None
    key = "lr" if "lr" in keys else keys[0]
    figure, (plot,) = _figure(3.8)
    higher = quantity(study.selecting).higher_is_better
    everything: list[float] = []
    positive = True
    tried: set[float] = set()
    crossed = False
    for k, competitor in _shown(study):
        cell = competitor.cells.get(workload)
        if cell is None:
            continue
        best: dict[float, float] = {}
        for trial in cell.trials:
            value = dict(trial.setting).get(key)
            if isinstance(value, (int, float)) and not math.isnan(trial.score):
                old = best.get(float(value))
                if old is None or (trial.score > old) == higher:
                    best[float(value)] = trial.score
        if not best:
            continue
        x = np.asarray(sorted(best))
        y = np.asarray([best[v] for v in sorted(best)])
        positive, tried = positive and bool((x > 0).all()), tried | set(x)
        everything += [v for v in y if math.isfinite(v)]
        (line,) = plot.plot(
            x,
            np.where(np.isfinite(y), y, np.nan),
            color=colour(k),
            linestyle=dashes(k),
            marker="o",
            ms=2.6,
            lw=1.3,
            zorder=3,
        )
        line.set_gid(f"series-{k}")
        chosen = dict(cell.setting).get(key)
        if isinstance(chosen, (int, float)) and float(chosen) in best:
            (star,) = plot.plot(
                [chosen], [best[float(chosen)]], "o", ms=8, mfc="none", mec=colour(k), mew=1.8, zorder=4
            )
            star.set_gid(f"series-{k}")
        lost = [v for v in x if _all_diverged(cell.trials, key, v)]
        crossed = crossed or bool(lost)
        if lost:
            border = plot.get_xaxis_transform()  # a loss of ∞ has no place but the upper border
            height = [best[v] for v in lost] if higher else [0.985] * len(lost)
            place = plot.transData if higher else border
            (crosses,) = plot.plot(
                lost, height, "x", ms=6, mew=1.6, color=colour(k), transform=place, zorder=4
            )
            crosses.set_gid(f"series-{k}")
    if len(tried) < 2:
        return None
    if positive and len(tried) > 2:
        plot.set_xscale("log")
    if not quantity(study.selecting).is_percent and everything and min(everything) > 0:
        plot.set_yscale("log")
    plot.set_xlabel(f"{literal(_long(key))} (○ chosen{', × every run diverged' if crossed else ''})")
    plot.set_title(
        f"best {literal(words(study.selecting))}" + (", mean over seeds" if _seeds(study) > 1 else "")
    )
    _percent(plot, "y", study.selecting)
    _legend(figure, study)
    return figure


def _long(key: str) -> str:
    return {"lr": "learning rate"}.get(key, key)


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


def _all_diverged(trials: Sequence[Any], key: str, value: float) -> bool:
    runs = [run for trial in trials if dict(trial.setting).get(key) == value for run in trial.runs]
    return bool(runs) and all(run.status == "diverged" for run in runs)


def budget(study: Study, workload: str) -> Figure | None:
    """The best score among the first k trials: median and quartiles over all orders of the trials."""
    figure, (plot,) = _figure(3.3)
    higher = quantity(study.selecting).higher_is_better
    longest, ends, few = 0, [], len(study.competitors) <= 4
    for k, competitor in _shown(study):
        cell = competitor.cells.get(workload)
        scores = (
            np.asarray([t.score for t in cell.trials if not math.isnan(t.score)]) if cell else np.zeros(0)
        )
        if len(scores) < 3:
            continue
        low, median, high = statistics.best_of_budget(scores, higher).T
        x = np.arange(1, len(scores) + 1)
        longest = max(longest, len(scores))
        ends += [*median[len(median) // 8 :]]
        (line,) = plot.step(x, median, where="post", color=colour(k), linestyle=dashes(k), zorder=3)
        line.set_gid(f"series-{k}")
        if few:
            fill = plot.fill_between(x, low, high, step="post", color=colour(k), alpha=0.13, lw=0, zorder=2)
            fill.set_gid(f"series-{k}")
    if longest < 3:
        return None
    if limits := _zoom(ends):
        plot.set_ylim(*limits)
    plot.set_xlim(1, longest)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("trials of tuning")
    told = f"median {'and quartiles ' * few}over orders of trials"
    plot.set_title(f"best {literal(words(study.selecting))} so far: {told}")
    _percent(plot, "y", study.selecting)
    _legend(figure, study)
    return figure


def failures(study: Study) -> Figure | None:
    """The share of all runs, tuning included, that failed."""
    shown_ = [(k, c) for k, c in _shown(study) if c.failed[1]]
    if not any(c.failed[0] for _, c in shown_):
        return None
    figure, (plot,) = _figure(0.85 + 0.32 * len(shown_))
    for row, (k, competitor) in enumerate(shown_):
        _interval(plot, row, competitor.failures, k)
        plot.annotate(
            f"{competitor.failed[0]} of {competitor.failed[1]}",
            (1.0, row),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color=MUTED,
            ha="right",
            va="center",
        )
    _rows(plot, [c.name for _, c in shown_])
    plot.set_xlim(-0.004, max(1.15 * max(c.failures.high for _, c in shown_), 0.1))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    plot.set_xlabel("share of all its runs that failed (95 % interval: Clopper and Pearson)")
    return figure


def profile(study: Study) -> Figure | None:
    """Performance profiles of the steps to the target, over workloads."""
    if study.scores is None:
        return None
    complete = [(k, c) for k, c in enumerate(study.competitors)][: study.scores.shape[1]]
    figure, (plot,) = _figure(3.4)
    tau = np.linspace(1, 4, 601)
    rho = statistics.profile(study.scores, tau)
    scores = statistics.profile_score(study.scores)
    for column, (k, competitor) in enumerate(complete[:MANY]):
        label = f"{literal(competitor.name)}  {scores[column]:.3f}"
        (line,) = plot.plot(tau, rho[:, column], color=colour(k), linestyle=dashes(k), label=label, zorder=3)
        line.set_gid(f"series-{k}")
    plot.set_xlim(1, 4)
    plot.set_ylim(-0.02, 1.03)
    plot.set_xlabel("τ: steps to the target over those of the fastest")
    plot.set_title(f"share of {len(study.workloads)} workloads within a factor τ; score in the legend")
    plot.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    plot.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def critical_difference(study: Study) -> Figure | None:
    """Mean ranks over workloads; what a bar joins does not differ significantly (Nemenyi)."""
    if study.ranks is None:
        return None
    ranks = study.ranks
    order = np.argsort(ranks.mean)
    k = len(order)
    figure, (plot,) = _figure(0.9 + 0.26 * (k + 2))
    for row, i in enumerate(order):
        (dot,) = plot.plot([ranks.mean[i]], [row], "o", color=colour(int(i)), ms=7, zorder=4)
        dot.set_gid(f"series-{i}")
        (bar,) = plot.plot(
            [ranks.mean[i], ranks.mean[i] + ranks.critical_difference],
            [row, row],
            color=colour(int(i)),
            lw=2,
            alpha=0.5,
        )
        bar.set_gid(f"series-{i}")
    _rows(plot, [study.competitors[int(i)].name for i in order])
    plot.set_xlabel(
        f"mean rank over {len(study.workloads)} workloads (1 is best); a bar reaches as far as is not "
        f"shown to be worse.\nFriedman p = {ranks.p_value:.3g}, critical difference "
        f"{ranks.critical_difference:.2f} (Nemenyi)"
    )
    return figure


def parallel_coordinates(study: Study, workload: str) -> Figure | None:
    """Every trial as a line through the values of the keys that were swept, the better the stronger."""
    keys = [*study.axes.compared, *study.axes.tuned]
    trials = [(c.cells[workload].trials, k) for k, c in _shown(study) if workload in c.cells]
    rows: list[tuple[dict[str, Any], float, int]] = []
    for found, k in trials:
        for trial in found:
            config = trial.runs[0].config
            rows.append(({key: config.get(key) for key in keys}, trial.score, k))
    keys = [key for key in keys if len({str(row.get(key)) for row, _, _ in rows}) > 1]
    finite = [score for _, score, _ in rows if math.isfinite(score)]
    if len(keys) < 2 or len(rows) < 4 or not finite:
        return None
    figure, (plot,) = _figure(3.8)
    positions = {key: _place(plot, at, [row.get(key) for row, _, _ in rows]) for at, key in enumerate(keys)}
    higher = quantity(study.selecting).higher_is_better
    limits = _zoom(finite, 0.0) or (0.0, 1.0)
    low, high = limits if limits[0] < limits[1] else (limits[0] - 0.5, limits[0] + 0.5)
    at = len(keys)
    heights = [
        min(1.0, max(0.0, (score - low) / (high - low))) if math.isfinite(score) else float(not higher)
        for _, score, _ in rows
    ]
    ranks = np.argsort(np.argsort([h if higher else -h for h in heights])) / (len(rows) - 1)
    for (row, _, k), height, rank in sorted(zip(rows, heights, ranks, strict=True), key=lambda x: x[2]):
        y = [*(positions[key][str(row.get(key))] for key in keys), height]
        (line,) = plot.plot(
            range(at + 1), y, color=colour(k), alpha=0.12 + 0.85 * rank**3, lw=0.8 + 1.2 * rank**3, zorder=3
        )
        line.set_gid(f"series-{k}")
    plot.vlines(range(at + 1), 0, 1, color=MUTED, lw=1, zorder=5)
    for share in np.linspace(0, 1, 5):
        text = quantity(study.selecting).text(low + share * (high - low), space=" ", decimals=1)
        plot.text(at + 0.03, share, text, fontsize=7.5, va="center")
    plot.set_xticks(range(at + 1), [*(literal(short(key)) for key in keys), literal(words(study.selecting))])
    plot.set_yticks([])
    plot.grid(False)
    plot.spines[["left", "bottom"]].set_visible(False)
    plot.tick_params(axis="x", length=0)
    plot.set_xlim(-0.35, at + 0.35)
    return figure


def _place(plot: Plot, at: int, values: Sequence[Any]) -> dict[str, float]:
    """Where each value of a key stands on its axis, from 0 to 1; its ticks are written beside it."""
    known = {str(v): v for v in values}
    numbers = {
        t: float(v) for t, v in known.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
    }
    if len(numbers) == len(known) and len(known) > 1:
        scale: Callable[[float], float] = math.log10 if min(numbers.values()) > 0 else float
        low, high = scale(min(numbers.values())), scale(max(numbers.values()))
        found = {text: (scale(v) - low) / (high - low) for text, v in numbers.items()}
        ticks = sorted(found, key=lambda t: found[t])
        ticks = [ticks[i] for i in np.unique(np.linspace(0, len(ticks) - 1, 6).round().astype(int))]
    else:
        ticks = sorted(known)
        found = {text: i / max(1, len(ticks) - 1) for i, text in enumerate(ticks)}
    for text in ticks:
        plot.text(
            at - 0.03,
            found[text],
            literal(shown(known[text])),
            fontsize=7.5,
            ha="right",
            va="center",
            zorder=6,
        )
    return found
