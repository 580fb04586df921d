"""One self-contained HTML file with rotatable surfaces; it needs no internet access."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ffn_bench.errors import printable
from ffn_bench.landscape.figures import Trajectory
from ffn_bench.plot_style import INK, MUTED, PAPER, colour

TEXT, GRID = "#808080", "#a0a0a0"
"""Greys that are readable on light and dark pages."""
COLOUR_BAR = {"thickness": 12, "len": 0.6, "orientation": "h", "y": 0.0, "yanchor": "top"}


class Page:
    """Collects plots; `render` gives the page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._sections: list[str] = []

    def surface(self, heading: str, axes: Sequence[Tensor], losses: Tensor, note: str) -> None:
        """A loss surface `[n, n]`."""
        import plotly.graph_objects as go

        figure = go.Figure(self._surface(axes, losses))
        self._add(heading, figure, note)

    def plane(
        self, heading: str, axes: Sequence[Tensor], losses: Tensor, paths: Sequence[Trajectory], note: str
    ) -> None:
        """Trajectories over the surface of their plane, at the height of the loss on the plane."""
        import plotly.graph_objects as go

        figure = go.Figure(self._surface(axes, losses))
        for k, path in enumerate(paths):
            x, y = path.coordinates.T.numpy()
            text = [f"epoch {e:g}: loss {v:.4g}" for e, v in zip(path.epochs, path.true, strict=True)]
            line = {"color": colour(k), "width": 6}
            figure.add_trace(
                go.Scatter3d(
                    x=x,
                    y=y,
                    z=_height(path.on_plane, losses),
                    mode="lines+markers",
                    name=_escaped(path.name),
                    text=text,
                    hoverinfo="text+name",
                    line=line,
                    marker={"size": 3, "color": colour(k)},
                )
            )
        self._add(heading, figure, note)

    def _surface(self, axes: Sequence[Tensor], losses: Tensor) -> Any:
        import plotly.graph_objects as go

        values = losses.T.numpy()
        return go.Surface(
            x=axes[0].numpy(),
            y=axes[1].numpy(),
            z=_height(losses, losses).T,
            surfacecolor=_height(losses, losses).T,
            customdata=values,
            hovertemplate="%{x:.3g}, %{y:.3g}: loss %{customdata:.4g}<extra></extra>",
            colorscale="Viridis",
            opacity=0.92,
            colorbar={"title": _scale_name(losses), **COLOUR_BAR},
            contours={"z": {"show": True, "color": GRID, "width": 1, "project_z": True}},
        )

    def _add(self, heading: str, figure: Any, note: str) -> None:
        axis = {"showbackground": False, "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID}
        figure.update_layout(
            template="plotly_white",
            margin={"l": 0, "r": 0, "t": 10, "b": 0},
            paper_bgcolor="rgba(0,0,0,0)",
            font_color=TEXT,
            legend={"orientation": "h", "y": 1.0},
            scene={
                "xaxis": {"title": "1", **axis},
                "yaxis": {"title": "2", **axis},
                "zaxis": {"title": "", **axis},
                "camera": {"eye": {"x": 1.45, "y": -1.7, "z": 1.2}},
            },
        )
        config = {"displaylogo": False, "responsive": True}
        height = "min(36rem, 110vw)"  # a scene is as large as it is high
        plot = figure.to_html(full_html=False, include_plotlyjs=False, config=config, default_height=height)
        self._sections.append(f"<h2>{_escaped(heading)}</h2>{plot}<p>{_escaped(note)}</p>")

    def render(self, command: str) -> str:
        """The page; `command` is the command that created it."""
        from plotly.offline import get_plotlyjs

        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{_escaped(self.title)}</title><link rel="icon" href="data:,">'
            "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1em;"
            f"background:{PAPER};color:{INK}}}p{{color:{MUTED};font-size:.9rem}}h1{{font-size:1.4rem}}"
            "@media (prefers-color-scheme:dark){body{background:#16181d;color:#e8e6e3}p{color:#a3a09b}}"
            "h2{font-size:1.1rem}code{overflow-wrap:anywhere}</style>"
            f"<script>{get_plotlyjs()}</script></head><body><h1>{_escaped(self.title)}</h1>"
            f"{''.join(self._sections)}<p>Created with <code>{_escaped(command)}</code></p></body></html>"
        )


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _is_wide(losses: Tensor) -> bool:
    low, high = float(losses.min()), float(losses.max())
    return low > 0 and high > 10 * low


def _height(values: Tensor, losses: Tensor) -> Any:
    """Heights: the loss, or its logarithm where it spans more than a factor of ten."""
    return np.log10(values.numpy()) if _is_wide(losses) else values.numpy()


def _scale_name(losses: Tensor) -> str:
    return "log10 loss" if _is_wide(losses) else "loss"
