"""The tables of a comparison: CSV with plain numbers, Markdown and LaTeX with intervals.

Names come from untrusted folders and files. In each format they are text: no formula, markup or command.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from ffn_bench.compare import verdict, wording
from ffn_bench.compare.axes import shown
from ffn_bench.compare.pairs import Pair
from ffn_bench.compare.results import result_of
from ffn_bench.compare.statistics import Interval
from ffn_bench.compare.study import Study
from ffn_bench.compare.wording import AGGREGATES
from ffn_bench.errors import printable, without_formula
from ffn_bench.tags import NOT_MEASURED, quantity, words


@dataclass(frozen=True)
class Table:
    """Named columns, each with a way to show its values, and rows of plain values and intervals."""

    title: str
    columns: list[tuple[str, Callable[[Any], str]]]
    rows: list[list[Any]]

    def cells(self) -> list[list[str]]:
        """Every value as people read it."""
        return [
            [form(value) for (_, form), value in zip(self.columns, row, strict=True)] for row in self.rows
        ]

    def csv(self) -> str:
        """Plain numbers; an interval is three columns."""
        spread = [any(isinstance(row[i], Interval) for row in self.rows) for i in range(len(self.columns))]
        header: list[str] = []
        for (name, _), wide in zip(self.columns, spread, strict=True):
            header += [name, f"{name} low", f"{name} high"] if wide else [name]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(_plain, header))
        for row in self.rows:
            values: list[Any] = []
            for value, wide in zip(row, spread, strict=True):
                if isinstance(value, Interval):
                    values += [_plain(value.estimate), _plain(value.low), _plain(value.high)]
                else:
                    values += [_plain(value), "", ""] if wide else [_plain(value)]
            writer.writerow(values)
        return text.getvalue()

    def markdown(self) -> str:
        """For a page or an issue."""
        cells = [[_marked(cell) for cell in row] for row in self.cells()]
        header = [_marked(name) for name in self.header]
        return str(tabulate(cells, header, "github", disable_numparse=True)) + "\n"

    def latex(self) -> str:
        """For a paper; needs the package booktabs."""
        cells = [[_tex(cell) for cell in row] for row in self.cells()]
        table = tabulate(cells, [_tex(h) for h in self.header], "latex_raw", disable_numparse=True)
        for rule in ("toprule", "midrule", "bottomrule"):
            table = table.replace("\\hline", f"\\{rule}", 1)
        return str(table) + "\n"

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return [name for name, _ in self.columns]


TEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "∞": r"$\infty$",
    "−": r"$-$",
    "–": "--",
    "·": r"$\cdot$",
    "<": r"$<$",
    ">": r"$>$",
}


def _tex(text: str) -> str:
    """Text for LaTeX. A row that begins with a bracket or a star would be read with the `\\\\` before it."""
    text = printable(text)
    return "{}" * text.startswith(("[", "*")) + "".join(TEX.get(c, c) for c in text)


MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{c: f"\\{c}" for c in "\\`*_~|$#"}}


def _marked(text: str) -> str:
    """Text for Markdown. Entities and not backslashes before what would be HTML: not all readers know those.

    Brackets stay, as intervals have them; they make a link only where a parenthesis or a colon follows.
    """
    text = "".join(MARKDOWN.get(c, c) for c in printable(text))
    text = re.sub(r"\](?=[(\[:])", r"\]", text)
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])|@", lambda word: f"{word[0]}&#8203;", text)


def _plain(value: Any) -> Any:
    """A value for CSV: NaN is empty; text that a spreadsheet would compute has an apostrophe before it."""
    if isinstance(value, str):
        return without_formula(printable(value))
    return "" if isinstance(value, float) and math.isnan(value) else value


def all_tables(study: Study) -> dict[str, Table]:
    """Every table, by the name of its file."""
    tables = {"summary": summary(study), "aggregates": aggregates(study)}
    if study.pairs:
        tables["pairs"] = pairs(study)
    if any(len(cell.trials) > 1 for c in study.competitors for cell in c.cells.values()):
        tables["trials"] = trials(study)
    tables["runs"] = runs(study)
    return tables


def summary(study: Study) -> Table:
    """The ranking: a row a competitor."""
    metric = words(study.metric)
    several = len(study.competitors) > 1
    columns: list[tuple[str, Callable[[Any], str]]] = [("", str), (_heads(study), str)]
    if study.axes.tuned:
        columns.append(("chosen", str))
    if several:
        columns.append(("share of seeds (ties half)", _per_cent))
    columns.append((f"median {metric}", lambda v: wording.between(study.metric, v)))
    columns.append(("at the end", lambda v: wording.value(study.metric, v)))
    separate = study.selecting != study.metric
    if separate:
        selecting = words(study.selecting).replace("validation", "val.")
        lost = any(run.failed for c in study.competitors for run in c.runs)
        at_chance = ", failed runs at chance" if lost else ""
        columns.append((f"mean {selecting}{at_chance}", lambda v: wording.value(study.selecting, v)))
    if several:
        columns += [("the first against it", str), ("ahead of it", str)]
    defaults = any(not math.isnan(c.default.estimate) for c in study.competitors)
    if defaults:
        columns.append(("default settings", lambda v: wording.value(study.metric, v)))
    if study.targets:
        columns.append(("epochs to target", wording.amount))
    columns.append(("failed", str))
    columns.append(("runs", str))
    others = any(c.failed[1] > c.n for c in study.competitors)
    if others:
        columns.append(("failed of its other runs", str))
    rows = []
    leader = study.competitors[0]
    for rank, c in enumerate(study.competitors, 1):
        row: list[Any] = [rank if rank <= study.complete else "", c.name]
        if study.axes.tuned:
            row.append(wording.settings_of(c))
        if several:
            row.append(c.proportion)
        row += [c.test, c.end.estimate]
        if separate:
            row.append(c.validation)
        if several:
            pair = study.pair(leader.name, c.name) if rank > 1 else None
            own_pairs = [p for p in study.pairs if c.name in (p.first, p.second)]
            rivals_ahead = sum(p.ahead not in (None, c.name) for p in own_pairs)
            row += [_score(pair) if pair else "", rivals_ahead or ""]
        if defaults:
            row.append(c.default.estimate)
        if study.targets:
            row.append(c.times["epochs"].estimate)
        failed = sum(run.failed for run in c.runs)
        row += [f"{failed} of {c.n}" if failed else "", c.n]
        if others:
            rest = c.failed[0] - failed
            row.append(f"{rest} of {c.failed[1] - c.n}" if rest else "")
        rows.append(row)
    return Table("Ranking", columns, rows)


def _heads(study: Study) -> str:
    return " · ".join(key.removesuffix(".name") for key in study.axes.compared)


def _per_cent(x: float) -> str:
    return NOT_MEASURED if math.isnan(x) else f"{100 * x:.0f} %"


def _score(pair: Pair) -> str:
    """`7–2`, and ties if any: seeds won and lost."""
    return f"{pair.won}–{pair.lost}" + (f", {pair.tied} tied" if pair.tied else "")


def aggregates(study: Study) -> Table:
    """Mean, median and interquartile mean, and the optimality gap to the target: a description, no
    verdict."""

    def metric(x: float) -> str:
        return wording.value(study.metric, x)

    columns: list[tuple[str, Callable[[Any], str]]] = [(_heads(study), str)]
    columns += [(AGGREGATES[by], metric) for by in study.competitors[0].described]
    columns.append(("median at the end", lambda v: wording.between(study.metric, v)))
    if study.targets:
        gap = "points" if quantity(study.selecting).is_percent else ""
        columns.append((f"optimality gap {gap}".strip(), lambda v: _gap(study, v)))
        columns += [(f"{axis} to target", wording.amount_between) for axis in study.competitors[0].times]
    if study.scores is not None:
        from ffn_bench.compare.statistics import profile_score

        scores = [float(s) for s in profile_score(study.scores)]
        columns.append(("profile score", lambda v: wording.probability(v)))
    rows = []
    for k, c in enumerate(study.competitors):
        row: list[Any] = [c.name, *c.described.values(), c.end]
        if study.targets:
            row += [c.gap, *c.times.values()]
        if study.scores is not None:
            row.append(scores[k] if k < len(scores) else math.nan)
        rows.append(row)
    return Table("Over seeds: a description (failed runs at chance), no verdict", columns, rows)


def _gap(study: Study, gap: float) -> str:
    if math.isnan(gap):
        return NOT_MEASURED
    return f"{100 * gap:.3f}" if quantity(study.selecting).is_percent else f"{gap:.4g}"


def pairs(study: Study) -> Table:
    """Every two competitors, seed by seed."""
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("of these", str),
        ("and", str),
        ("ahead", str),
        ("seeds", str),
        ("won", str),
        ("lost", str),
        ("tied", str),
        ("share won", _chance),
        ("median difference", lambda v: wording.apart(study.metric, v)),
        ("difference of means", lambda v: wording.apart(study.metric, Interval(v))),
        ("p of the first", wording.probability),
        ("p of the second", wording.probability),
        ("failed", str),
        ("but", str),
    ]
    sign = quantity(study.metric).sign
    rows = [
        [
            p.first,
            p.second,
            p.ahead or "",
            p.seeds,
            p.won,
            p.lost,
            p.tied,
            p.proportion,
            p.difference,
            sign * (p.means[0] - p.means[1]) if all(map(math.isfinite, p.means)) else math.nan,
            *p.adjusted,
            f"{p.failed[0]} and {p.failed[1]}" if any(p.failed) else "",
            verdict.reservation(study, p.seen_from(p.ahead)).removeprefix(", but ") if p.ahead else "",
        ]
        for p in study.pairs
    ]
    title = "Pairs, seed by seed; differences are positive where the first is better"
    return Table(f"{title}; p-values corrected for all statements (Holm)", columns, rows)


def _chance(proportion: Interval) -> str:
    ends = f" [{proportion.low:.2f}, {proportion.high:.2f}]" if proportion.known else ""
    return NOT_MEASURED if math.isnan(proportion.estimate) else f"{proportion.estimate:.2f}{ends}"


def trials(study: Study) -> Table:
    """Every setting that was tried, best first within a competitor."""
    keys = study.axes.tuned
    several = len(study.workloads) > 1
    columns: list[tuple[str, Callable[[Any], str]]] = [(_heads(study), str)]
    columns += [("workload", str)] if several else []
    columns += [(key, shown) for key in keys]
    columns += [
        (
            f"mean best {words(study.selecting)}, failed runs {wording.worst(study.selecting)}",
            lambda v: wording.value(study.selecting, v),
        ),
        ("runs", str),
        ("diverged", lambda v: str(v or "")),
        ("", str),
    ]
    rows = []
    for c in study.competitors:
        for workload, cell in c.cells.items():
            sign = quantity(study.metric).sign
            for trial in sorted(
                cell.trials, key=lambda t: -sign * t.score if not math.isnan(t.score) else math.inf
            ):
                values = dict(trial.setting)
                diverged = sum(run.status == "diverged" for run in trial.runs)
                row = [c.name, *([workload] if several else []), *(values.get(key, "") for key in keys)]
                chosen = "chosen" if trial.setting == cell.setting else ""
                rows.append([*row, trial.score, len(trial.runs), diverged, chosen])
    return Table("Settings that were tried", columns, rows)


def runs(study: Study) -> Table:
    """Every run."""
    keys = [*study.axes.tuned]
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("folder", str),
        (_heads(study), str),
        ("workload", str),
        *((key, shown) for key in keys),
        ("seed", str),
        ("stage", str),
        ("status", str),
        (words(study.selecting), lambda v: wording.value(study.selecting, v)),
        (words(study.metric), lambda v: wording.value(study.metric, v)),
        ("at the end", lambda v: wording.value(study.metric, v)),
        ("epoch", wording.amount),
        ("reason", str),
    ]
    rows: list[list[Any]] = []
    for run in study.runs:
        result = result_of(run, study.metric, study.selecting)
        rows.append(
            [
                run.folder.name,
                study.axes.competitor(run),
                study.axes.workload(run),
                *(run.config.get(key, "") for key in keys),
                run.config.get("seed"),
                run.config.get("stage") or "",
                run.status,
                result.selected,
                result.best,
                result.end,
                result.epoch,
                run.reason,
            ]
        )
    return Table("Runs", columns, rows)
