"""Figures that sum up over workloads: performance profiles, and ranks."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ffn_bench.compare import statistics
from ffn_bench.compare.figures.pieces import Series, label_rows, new_figure, percent, series_of
from ffn_bench.compare.study import Study


def profile(study: Study) -> Figure | None:
    """Performance profiles of the steps to the target, over workloads."""
    if study.scores is None:
        return None
    figure, (plot,) = new_figure(3.4)
    tau = np.linspace(1, 4, 601)
    rho = statistics.profile(study.scores, tau)
    scores = statistics.profile_score(study.scores)
    for column, series in enumerate(series_of(study)[: study.scores.shape[1]]):
        series.line(plot, tau, rho[:, column], label=f"{series.label}  {scores[column]:.3f}")
    plot.set_xlim(1, 4)
    plot.set_ylim(-0.02, 1.03)
    plot.set_xlabel("τ: steps to the target over those of the fastest")
    plot.set_title(f"share of {len(study.workloads)} workloads within a factor τ; score in the legend")
    percent(plot, "y")
    plot.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def critical_difference(study: Study) -> Figure | None:
    """Mean ranks over workloads; what a bar joins does not differ significantly (Nemenyi)."""
    if study.ranks is None:
        return None
    ranks = study.ranks
    ranked = [Series(int(i), study.competitors[int(i)]) for i in np.argsort(ranks.mean)]
    figure, (plot,) = new_figure(0.9 + 0.26 * (len(ranked) + 2))
    for row, series in enumerate(ranked):
        mean = ranks.mean[series.number]
        series.mark(*plot.plot([mean], [row], "o", color=series.colour, ms=7, zorder=4))
        ends = [mean, mean + ranks.critical_difference]
        series.mark(*plot.plot(ends, [row, row], color=series.colour, lw=2, alpha=0.5))
    label_rows(plot, ranked)
    plot.set_xlabel(
        f"mean rank over {len(study.workloads)} workloads (1 is best); a bar reaches as far as is not "
        f"shown to be worse.\nFriedman p = {ranks.p_value:.3g}, critical difference "
        f"{ranks.critical_difference:.2f} (Nemenyi)"
    )
    return figure
