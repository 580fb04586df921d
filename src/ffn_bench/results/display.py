"""What a notebook shows of runs, sweeps and comparisons: small HTML that needs nothing else. What comes from
files is text in it, never markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ffn_bench import tags
from ffn_bench.errors import printable

if TYPE_CHECKING:
    import polars as pl

    from ffn_bench.results.run import Run
    from ffn_bench.results.sweep import Comparison, Sweep

WIDTH, HEIGHT, MARGIN = 260, 110, 4
"""Of a plot, in pixels."""
SERIES = ("#0072b2", "#d55e00", "#009e73")
"""Training, validation, test, as in figures."""
MOST_ROWS, MOST_POINTS = 12, 300
CELL = "padding: 1px 10px 1px 0; border: 0; text-align: left; white-space: nowrap; background: none"
NUMBER = CELL.replace("left", "right")
TABLE = "border: 0; margin: 0 0 6px 0; font-size: inherit; line-height: inherit"


def run_html(run: Run) -> str:
    """A run: what it is, how it ended, its scores and curves."""
    config = run.config
    hidden = config.get("model.hidden")
    network = [config.get("model.name"), hidden if hidden is not None else "", config.get("model.activation")]
    facts = {
        "run": run.path,
        "status": f"{run.status}: {run.reason}" if run.reason else run.status,
        "data": config.get("data.name"),
        "network": " ".join(str(part) for part in network if part not in (None, "")),
        "optimizer": f"{config.get('optimizer.name')}, lr {config.get('lr')}, seed {config.get('seed')}",
    }
    plots = "".join(
        _plot(run.history, name) for name in (tags.LOSS.name, *(s.name for s in tags.SCORES_OF[run.task]))
    )
    return _box(_facts(facts) + _scores(run) + f"<div>{plots}</div>")


def sweep_html(sweep: Sweep) -> str:
    """A sweep: its runs, the best first."""
    frame = sweep.frame()
    score = tags.PRIMARY[sweep[0].task]
    tag = score.tag("val")
    tag = tag if frame[tag].null_count() < len(frame) else score.tag("test")
    frame = frame.sort(tag, descending=score.higher_is_better, nulls_last=True)
    shown = [name for name in frame.columns if name != "run" and frame[name].null_count() < len(frame)]
    facts = {"sweep": sweep.path, "runs": len(sweep)}
    if sweep.problems:
        facts["left out"] = f"{len(sweep.problems)}: {sweep.problems[0]}"
    return _box(_facts(facts) + _table(frame.select(shown)))


def comparison_html(comparison: Comparison) -> str:
    """A comparison: the verdict, the ranking, the notes."""
    from ffn_bench.compare import tables

    first, *others = comparison.sentences or [""]
    sentences = f"<p><b>{_text(first)}</b></p>" + "".join(f"<p>{_text(each)}</p>" for each in others)
    notes = "".join(f"<li>{_text(note)}</li>" for note in comparison.notes)
    ranking = tables.summary(comparison.study)
    rows = ranking.cells()
    shown = [
        k for k in range(len(ranking.header)) if any(row[k] not in ("", tags.NOT_MEASURED) for row in rows)
    ]
    table = _rows([ranking.header[k] for k in shown], [[row[k] for k in shown] for row in rows[:MOST_ROWS]])
    return _box(sentences + table + f'<ul style="opacity: .75">{notes}</ul>')


def _text(value: object) -> str:
    return html.escape(printable(str(value)))


def _box(content: str) -> str:
    return f'<div style="font-size: 13px; line-height: 1.5; max-width: 60em">{content}</div>'


def _facts(facts: Mapping[str, object]) -> str:
    rows = (
        f'<tr style="background: none"><td style="{CELL}; opacity: .65">{_text(key)}</td>'
        f'<td style="{CELL}">{_text(value)}</td></tr>'
        for key, value in facts.items()
    )
    return f'<table style="{TABLE}">{"".join(rows)}</table>'


def _scores(run: Run) -> str:
    """Loss and scores of every split, at the best epoch and at the end."""
    columns = ["", *tags.SPLITS.values()]
    rows = []
    for at in ("best", "final"):
        values = run.measured(at)
        where = f"best epoch, {values['epoch']}" if "epoch" in values else "final"
        measured = {tags.quantity(tag) for tag in values}
        for quantity in (tags.LOSS, *tags.SCORES_OF[run.task], *tags.SPLIT_SCORES) if values else ():
            if quantity in measured or not quantity.of_split:
                cells = [quantity.text(values.get(quantity.tag(split))) for split in tags.SPLITS]
                rows.append([f"{quantity.shown}, {where}", *cells])
    return _rows(columns, rows) if rows else ""


def _table(frame: pl.DataFrame) -> str:
    """A frame's first rows."""
    rows = [
        [_cell(name, value) for name, value in row.items()]
        for row in frame.head(MOST_ROWS).iter_rows(named=True)
    ]
    more = (
        f'<div style="opacity: .65">and {len(frame) - MOST_ROWS} more</div>' if len(frame) > MOST_ROWS else ""
    )
    return _rows(frame.columns, rows) + more


def _cell(name: str, value: Any) -> str:
    if value is None:
        return tags.NOT_MEASURED
    if isinstance(value, float):
        return tags.quantity(name).text(value) if "/" in name else f"{value:.4g}"
    return str(value)


def _rows(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    rows, columns = list(rows), list(columns)
    styles = [NUMBER if all(_is_number(row[k]) for row in rows) else CELL for k in range(len(columns))]
    head = "".join(
        f'<th style="{style}; white-space: normal; opacity: .65; font-weight: normal">{_text(name)}</th>'
        for style, name in zip(styles, columns, strict=True)
    )
    body = "".join(
        '<tr style="background: none">'
        + "".join(f'<td style="{style}">{_text(cell)}</td>' for style, cell in zip(styles, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<table style="{TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _is_number(cell: str) -> bool:
    return cell in ("", tags.NOT_MEASURED) or cell[:1].isdigit() or cell[:1] in ("-", "−", "∞")


def _plot(history: pl.DataFrame, name: str) -> str:
    """Curves of a quantity on its splits as SVG, with the highest and lowest value beside them."""
    quantity = tags.quantity(name)
    curves = []
    for split, colour in zip(tags.SPLITS, SERIES, strict=True):
        tag = quantity.tag(split)
        if tag in history.columns:
            curve = history.select("step", tag).drop_nulls()
            curves.append((tags.SPLITS[split], colour, curve["step"].to_list(), curve[tag].to_list()))
    values = [value for *_, numbers in curves for value in numbers]
    last = max((steps[-1] for _, _, steps, _ in curves if steps), default=0)
    if not values or not last:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    lines, legend = [], []
    for words, colour, steps, numbers in curves:
        every = max(1, len(steps) // MOST_POINTS)
        points = " ".join(
            f"{MARGIN + (WIDTH - 2 * MARGIN) * step / last:.1f},"
            f"{MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / span:.1f}"
            for step, value in zip(steps[::every], numbers[::every], strict=True)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        legend.append(f'<span style="color: {colour}">{words}</span>')
    frame = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" fill="none" stroke="#8888"/>'
    bounds = f"{quantity.text(low)} to {quantity.text(high)}"
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return (
        '<div style="display: inline-block; margin-right: 16px">'
        f"<div>{_text(quantity.shown)}, {bounds}: {' '.join(legend)}</div>"
        f"<svg {size}>{frame}{''.join(lines)}</svg></div>"
    )
