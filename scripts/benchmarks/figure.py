"""The picture of speed: model-steps per second against the number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CURVES = {
    # title: (the program of one run, what those of many are called, colour, marker)
    "compiled": ("compiled", "compiled, ", "#0072B2", "o"),
    "batched": ("batched, 1 runs", "batched, ", "#0072B2", "o"),
    "JAX, scan and vmap": ("JAX scan", "JAX vmap", "#D55E00", "s"),
}
POINTS = {
    # program of one run: (colour, marker)
    "C, one core": ("#CC79A7", "*"),
    "torch, fused, 1 thread": ("#009E73", "D"),
    "torch engine": ("#E69F00", "^"),
    "lecture's loop": ("#000000", "v"),
}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel for each network, from the rows of the table `speed`; bands are the least and the greatest."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    works = list(dict.fromkeys(row["work"] for row in rows))
    figure = Figure(figsize=(5.4 * len(works), 4.4), layout="constrained")
    for axes, work in zip(figure.subplots(1, len(works), squeeze=False)[0], works, strict=True):
        own = [row for row in rows if row["work"] == work]
        counts = sorted({row["runs"] for row in own})
        for title, (single, many, colour, marker) in CURVES.items():
            curve = [row for row in own if row["program"] == single or row["program"].startswith(many)]
            curve.sort(key=lambda row: int(row["runs"]))
            if curve:
                at, speeds = [row["runs"] for row in curve], [row["model-steps/s"] for row in curve]
                axes.fill_between(
                    at,
                    [v["least"] for v in speeds],
                    [v["greatest"] for v in speeds],
                    color=colour,
                    alpha=0.2,
                    lw=0,
                )
                medians = [v["median"] for v in speeds]
                axes.plot(at, medians, marker + "-", color=colour, label=title)
        for name, (colour, marker) in POINTS.items():
            for row in own:
                if row["program"] == name:
                    median = row["model-steps/s"]["median"]
                    axes.plot(1, median, marker, color=colour, ms=9, ls="none", label=name)
        axes.set(xscale="log", yscale="log", xlabel="runs", ylabel="model-steps per second", title=work)
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(alpha=0.3)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6, fontsize=9)
    figure.savefig(path, dpi=150)
