"""Figures of a run's probabilities for TensorBoard: whether they are calibrated, and what
precision each recall costs.

They are drawn where `log_scores=true` asks for them: matplotlib takes half a second to import, and a tenth
for a figure.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffn_bench import tags
from ffn_bench.engine import scores
from ffn_bench.plot_style import MUTED, PAPER, STYLE, colour, dashes, literal

MOST_CURVES = 10
"""Classes with a curve of their own; of more those with the lowest average precision."""
DPI = 120
ACCURACY, GAP, ALSO_CORRECT = colour(0), colour(1), "#b3d4e8"
"""Of bars: as far as accuracy and confidence agree, between them, and there where more rows are correct."""


def reliability(predictions: scores.Predictions, split: str) -> Figure:
    """Accuracy by confidence, with its distance from the confidence, and how many rows have which."""
    bins = scores.reliability(predictions)
    filled = bins.rows > 0
    middle, width = (scores.EDGES[:-1] + scores.EDGES[1:]) / 2, 1 / scores.BINS
    accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 5.0), dpi=DPI, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        bar = {"width": 0.92 * width, "linewidth": 0}
        above.bar(
            middle[filled], np.minimum(accuracy, confidence), color=ACCURACY, label=tags.SCORE.name, **bar
        )
        above.bar(
            middle[filled],
            np.abs(confidence - accuracy),
            bottom=np.minimum(accuracy, confidence),
            width=0.92 * width,
            color=[ALSO_CORRECT if more else PAPER for more in accuracy > confidence],
            edgecolor=GAP,
            hatch="////",
            linewidth=1,
            label="gap to the mean confidence",
        )
        above.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (4, 2)), linewidth=1, label="calibrated")
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel=tags.SCORE.name)
        error = tags.quantity(scores.calibration_error.__name__)
        above.set_title(f"{split} part: {error.label} {error.text(bins.error)}")
        above.legend(loc="upper left", handlelength=1.6)
        below.bar(middle, bins.rows, color=MUTED, **bar)
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        below.set(xlabel="confidence: probability of the predicted class", ylabel="rows")
        return figure


def precision_recall(predictions: scores.Predictions, classes: Sequence[str], split: str) -> Figure:
    """Precision by recall of each class against the rest, the best average first."""
    curves = []
    for k in np.unique(predictions.y).tolist():
        precision, recall = scores.precision_recall(predictions, k)
        curves.append((scores.average_precision(precision, recall), k, precision, recall))
    curves.sort(key=lambda curve: (-curve[0], curve[1]))
    left_out, shown = len(curves) - MOST_CURVES, curves[-MOST_CURVES:]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.4), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        for index, (average, k, precision, recall) in enumerate(shown):
            # from the left to its first point: what few rows predict is as precise as that
            axes.step(
                [0, *recall],
                [precision[0], *precision],
                where="pre",
                color=colour(index),
                linestyle=dashes(index),
                linewidth=1.5,
                label=f"{average:.3f}  {literal(classes[k], 20)}",
                clip_on=False,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.0), xlabel="recall", ylabel="precision")
        worst = f", {MOST_CURVES} worst of {len(curves)} classes" if left_out > 0 else ""
        axes.set_title(f"{split} part: precision by recall{worst}")
        title = {"title": "average precision, class", "title_fontsize": 8.5}
        figure.legend(loc="outside right center", alignment="left", **title)
        return figure


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    content = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        for words in ("Glyph .* missing from font", "constrained_layout not applied"):
            warnings.filterwarnings("ignore", words)  # names may be of any script and any length
        figure.savefig(content, format="png")
    return content.getvalue()
