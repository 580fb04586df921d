"""A figure of a run's curves."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffn_bench import tags
from ffn_bench.errors import UserError, nearest
from ffn_bench.plot_style import MUTED, STYLE, colour

SIZE = (4.2, 3.0)
"""Inches of a plot."""


def shown(figure: Figure) -> Figure:
    """The same figure, which a notebook shows, whether or not pyplot was imported."""

    def png() -> bytes:
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=100)
        return content.getvalue()

    vars(figure)["_repr_png_"] = png
    return figure


def figure(
    history: pl.DataFrame,
    quantities: Sequence[str] = (),
    best_step: int | None = None,
    task: tags.Task = "classification",
    loss_unit: str = "",
) -> Figure:
    """A plot for each quantity over the epochs, by default of the loss and the task's scores, a line for each
    split; the best epoch is marked.

    Raises `UserError` for a quantity that was not measured.
    """
    names = {tag.partition("/")[0] if tags.quantity(tag).splits else tag for tag in history.columns[3:]}
    for name in quantities:
        if name not in names:
            known = ", ".join(sorted(names)) or "nothing"
            raise UserError(
                "figure", f"{name!r} was not measured{nearest(name, names)}", f"use one of: {known}"
            )
    chosen = quantities or [q.name for q in (tags.LOSS, *tags.SCORES_OF[task]) if q.name in names]
    with mpl.rc_context(STYLE):
        width, height = SIZE
        drawn = Figure(figsize=(width * max(1, len(chosen)), height), layout="constrained")
        for k, name in enumerate(chosen):
            _plot(drawn.add_subplot(1, len(chosen), k + 1), history, name, best_step, loss_unit)
    return shown(drawn)


def _plot(axes: Axes, history: pl.DataFrame, name: str, best_step: int | None, loss_unit: str) -> None:
    quantity = tags.quantity(name)
    lines = (
        {quantity.tag(split): words for split, words in tags.SPLITS.items()}
        if quantity.splits
        else {name: name}
    )
    per_epoch = steps_per_epoch(history)
    for k, (tag, label) in enumerate(lines.items()):
        if tag not in history.columns:
            continue
        curve = history.select("step", tag).drop_nulls()
        values = curve[tag].to_numpy() * (100 if quantity.is_percent else 1)
        axes.plot(curve["step"].to_numpy() / per_epoch, values, color=colour(k), label=label, lw=1.3)
    if quantity.name == tags.LOSS.name and all(
        (history[tag].drop_nulls() > 0).all() for tag in lines if tag in history
    ):
        axes.set_yscale("log")
    if best_step is not None:
        axes.axvline(best_step / per_epoch, color=MUTED, lw=1, ls=":", label="best epoch")
    unit = loss_unit if quantity in (tags.LOSS, tags.OBJECTIVE) else quantity.unit
    axes.set(title=(quantity.shown or name) + (f" ({unit})" if unit else ""), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.get_lines()) > 1:
        axes.legend(frameon=False, fontsize=8)


def steps_per_epoch(history: pl.DataFrame) -> float:
    """Steps of an epoch of a run that has made some."""
    epochs, steps = history["epoch"].max(), history["step"].max()
    whole = history.filter(pl.col("epoch") == 1)["step"].max()
    if isinstance(whole, int) and whole > 0:
        return whole
    return steps / epochs if isinstance(steps, int) and isinstance(epochs, int) and epochs else 1.0
