"""How every figure looks, and how it is saved."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ffn_bench.errors import printable, short

INK, MUTED, GRID, PAPER = "#1b1f24", "#5c6570", "#dfe3e8", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc6699", "#b8860b", "#3aa6dd", "#7b5ea7", "#7f7f7f")
"""Told apart by people with any colour vision: after Okabe and Ito (2008), darkened where white would drown
them; past the eighth the line's dashes change."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
DPI = 160
"""Of PNGs."""
COLOURS = (INK, MUTED, GRID, PAPER, *SERIES)
STYLE: dict[Any, Any] = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}


def colour(k: int) -> str:
    """Of the k-th competitor."""
    return SERIES[k % len(SERIES)]


def dashes(k: int) -> Any:
    """Of the k-th competitor's line."""
    return DASHES[k // len(SERIES) % len(DASHES)]


def slug(text: str) -> str:
    """Text fit for a file's name."""
    short = re.sub(r"[^\w.=-]+", "_", text)[:60]
    return short.encode()[:120].decode(errors="ignore")


def slugs(names: Sequence[str]) -> dict[str, str]:
    """A slug of its own for every name: two that look alike get a number behind them."""
    slug_of: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        first = slug(name)
        tries = itertools.chain([first], (f"{first}-{k}" for k in itertools.count(2)))
        slug_of[name] = next(one for one in tries if one.lower() not in taken)
        taken.add(slug_of[name].lower())
    return slug_of


def literal(text: str, longest: int = 60) -> str:
    """The same for matplotlib, which reads what stands between dollars as mathematics, and leaves out of
    legends what is empty or begins with an underscore."""
    return ("\N{HAIR SPACE}" * (not text or text.startswith("_")) + short(text, longest)).replace("$", r"\$")


def save(figure: Figure, command: str) -> tuple[bytes, bytes]:
    """PNG and SVG, with the command that made them inside."""
    kinds = []
    command = printable(command)
    with mpl.rc_context({**STYLE, "svg.hashsalt": command}), warnings.catch_warnings():
        for words in ("Glyph .* missing from font", "constrained_layout not applied"):
            warnings.filterwarnings("ignore", words)  # names may be of any script and any length
        _lay_out(figure)
        for kind, metadata in (
            ("png", {"Description": command}),
            ("svg", {"Description": command, "Date": None}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
            kinds.append(buffer.getvalue())
    return kinds[0], kinds[1]


def _lay_out(figure: Figure) -> None:
    """Give the plots of a figure their places once: a layout left on would draw all twice for each file."""
    if engine := figure.get_layout_engine():
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine(None)  # a "none" would draw twice, too
