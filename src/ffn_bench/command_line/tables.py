"""The tables of `ffn-train`: the status of runs, the leaderboard of a sweep, and what a search chose."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffn_bench import tags
from ffn_bench.command_line.console import count, line, make_console
from ffn_bench.errors import printable, short

if TYPE_CHECKING:
    from ffn_bench.engine.metrics import Confusion

MOST_CLASSES, WORST = 20, 10
"""Classes, at most, that are shown one by one when a run has finished, and how many of more."""

STATUS_ROWS = 200
"""Runs of a sweep, at most, that are listed one by one when its status is asked for."""


def show_status(
    rows: Iterable[tuple[str, str, dict[str, Any] | None]], folder: Path, holder: str | None, listed: bool
) -> None:
    """The status of a run, or of every run of a sweep: (name, status, summary) each, where they are `listed`,
    and how many have which status. `holder` is the process that writes there."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("run", "status", "steps", "validation", ""):
        table.add_column(column, justify="right" if column in ("steps", "validation") else "left")
    tally: Counter[str] = Counter()
    for name, status, summary in rows:
        tally[status] += 1
        if listed:
            known = summary or {}
            shown = "running" if holder and status in ("begun", "interrupted") else status
            score = tags.PRIMARY[known.get("task", "classification")]
            best = score.text((known.get("best") or {}).get(score.tag("val")))
            steps = count(known["steps"]) if "steps" in known else tags.NOT_MEASURED
            table.add_row(line(name), line(shown), steps, best, line(known.get("reason") or ""))
    console = make_console()
    console.print(line(f"ffn-train: {folder}" + (f", in use by {holder}" if holder else ""), "bold"))
    if listed:
        console.print(table)
    console.print(line("  " + ", ".join(f"{count(n)} {status}" for status, n in tally.items())))


def class_table(confusion: Confusion) -> Text:
    """Precision, recall and F1 of every class, or of those of the lowest F1; not by rich's tables, which take
    milliseconds."""
    from ffn_bench.engine.scores import by_class

    scores, n_classes = by_class(confusion.counts), len(confusion.classes)
    shown: Sequence[int] = range(n_classes)
    title = f"{tags.SPLITS[confusion.split]} by class"
    if n_classes > MOST_CLASSES:
        shown = scores.f1.argsort(kind="stable")[:WORST].tolist()  # NaN last
        title += f", {WORST} lowest F1 of {n_classes}"
    names = [short(confusion.classes[k], 30) for k in shown]
    columns = {
        "precision": [tags.SCORE.text(value) for value in scores.precision[shown].tolist()],
        "recall": [tags.SCORE.text(value) for value in scores.recall[shown].tolist()],
        "F1": [tags.SCORE.text(value) for value in scores.f1[shown].tolist()],
        "rows": [count(rows) for rows in scores.rows[shown].tolist()],
    }
    width = max(map(cell_len, (title, *names)))
    widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    lines = [(title, [*columns]), *zip(names, zip(*columns.values(), strict=True), strict=True)]
    texts = [
        "   ".join(["  " + set_cell_size(name, width), *map(str.rjust, cells, widths)])
        for name, cells in lines
    ]
    return Text.assemble((texts[0], "dim"), *("\n" + text for text in texts[1:]))


def show_leaderboard(
    console: Console, rows: Sequence[dict[str, Any]], keys: Sequence[str], seeds: bool
) -> None:
    """The settings of a sweep, best score first, at most 30 of them.

    A row has `settings` (key → value), `runs`, `bad` (how many did not finish), the `tag` that is ranked by,
    the `primary` score, which `val` and `test` are of, and `score`, `val`, `test`, `epoch`, `seconds` as
    (mean, standard deviation or NaN).
    """
    tag, primary = rows[0]["tag"], rows[0]["primary"]
    own = tags.words(tag) if tag != primary.tag("val") else None
    table = Table(
        title=f"leaderboard by {tags.words(tag)}",
        title_justify="left",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    table.add_column("", justify="right")
    for key in keys:
        table.add_column(printable(key))
    ranked = any(math.isfinite(row["score"][0]) for row in rows)
    scored = ranked or any(math.isfinite(row["test"][0]) for row in rows)
    if own:
        table.add_column(own, justify="right")
    table.add_column("validation" if ranked or not scored else "validation (none)", justify="right")
    table.add_column("test", justify="right")
    table.add_column("epoch", justify="right")
    table.add_column("seconds", justify="right")
    if seeds:
        table.add_column("seeds", justify="right")
    table.add_column("")
    for rank, row in enumerate(rows[:30], start=1):
        cells: list[str | Text] = [str(rank), *(line(row["settings"].get(key, "")) for key in keys)]
        if own:
            cells.append(_spread(row["score"], tags.quantity(tag).text))
        cells += [_spread(row["val"], primary.text), _spread(row["test"], primary.text)]
        cells += [_spread(row["epoch"], lambda v: f"{v:.0f}"), _spread(row["seconds"], lambda v: f"{v:.1f}")]
        if seeds:
            cells.append(str(row["runs"]))
        cells.append(line(row["bad"], "bold red"))
        table.add_row(*cells, style="bold" if rank == 1 else None)
    console.print()
    console.print(table)
    if len(rows) > 30:
        console.print(f"  … and {len(rows) - 30} more")
    basis = f"{tags.words(tag)} at the best epoch"
    if not ranked:
        basis = f"{primary.words('test')} at the end (no validation part)"
    note = f"  ranked by {basis}" + ("; mean ± standard deviation over seeds" if seeds else "")
    if not scored:
        note = "  no run has finished yet"
    note += "; test is read at the same epoch" * ranked
    if any(key.partition(".")[0] == "loss" for key in keys):
        note += "; values of different losses are not compared"
    console.print(Text(note, style="dim"))


def show_choices(
    console: Console, rows: Sequence[tuple[str, str, tuple[str, float], str]], notes: Sequence[str]
) -> None:
    """What a search chose: name, setting, (tag, mean) of its score and what went wrong, a row each."""
    table = Table(
        title="chosen settings", title_justify="left", box=None, header_style="dim", padding=(0, 2, 0, 0)
    )
    chosen_by = {tag for _, _, (tag, _), _ in rows}
    what = tags.short_words(chosen_by.pop()) if len(chosen_by) == 1 else "score"
    for column in ("", "setting", what, "of its trials"):
        table.add_column(column, justify="right" if column == what else "left")
    for name, setting, (tag, score), bad in rows:
        shown = tags.quantity(tag).text(score)
        table.add_row(line(name), line(setting, "bold"), shown, line(bad, "yellow"))
    console.print()
    console.print(table)
    for note in notes:
        console.print(line(f"  {note}", "yellow"), soft_wrap=True)
    console.print()


def show_gains(
    console: Console, rows: Sequence[tuple[str, tags.Quantity, dict[str, list[float]]]], seeds: int
) -> None:
    """Tuned minus default settings: by name, differences of a score on `val` and `test`, one a seed."""
    table = Table(
        title="tuned against default settings",
        title_justify="left",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for column in ("", "validation", "test"):
        table.add_column(column, justify="right" if column else "left")
    for name, score, differences in rows:
        cells = []
        for split in ("val", "test"):
            values = differences[split]
            if len(values) < seeds:
                cells.append(tags.NOT_MEASURED)
                continue
            if lost := sum(not math.isfinite(value) for value in values):
                cells.append(f"{lost} diverged")
                continue
            deviation = statistics.stdev(values) if seeds > 1 else math.nan
            spread = f" ± {score.digits(deviation)}" if math.isfinite(deviation) else ""
            mean = score.difference(statistics.fmean(values))
            cells.append((mean if float(mean) else score.difference(0.0)) + spread)  # no negative zero
        table.add_row(line(name), *cells)
    console.print()
    console.print(table)
    for score in dict.fromkeys(score for _, score, _ in rows):
        unit = " in percentage points" if score.is_percent else ""
        note = f"  {score.shown}{unit}, mean ± standard deviation of the differences of the same seed"
        note += "" if score.higher_is_better else "; below 0 the tuned ones are better"
        note += f"; diverged counts as {score.worst:g}" if math.isfinite(score.worst) else ""
        console.print(Text(note, style="dim"), soft_wrap=True)


def _spread(value: tuple[float, float], form: Any) -> str:
    mean, deviation = value
    if not math.isfinite(mean):
        return tags.NOT_MEASURED
    text = str(form(mean))
    if not math.isfinite(deviation):
        return text
    if text.replace(".", "").replace("-", "").isdigit():  # a plain number: with as many decimals as it has
        return f"{text} ± {deviation:.{len(text.partition('.')[2])}f}"
    return f"{text} ± {form(deviation)}"
