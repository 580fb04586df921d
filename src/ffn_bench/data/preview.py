"""What each column of a person's table is taken for, before anything is trained."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data.careful_csv import found_delimiter
from ffn_bench.data.columns import (
    MISREAD,
    THOUSANDS,
    Array,
    Kind,
    Layout,
    Table,
    is_id_like,
    misread,
    natural_order,
)
from ffn_bench.data.files import BEGINNING, FRAMES, expanded, text_file
from ffn_bench.data.rows import Raw
from ffn_bench.data.tables import Columns, IntArray, read_table, targets_of
from ffn_bench.errors import UserError, short

SHOWN = 4
"""Categories that are named."""
LONGEST = 24
"""Characters of one."""


class ColumnFacts(NamedTuple):
    """One column of a table."""

    name: str
    taken_for: str
    """number, yes/no, category; target, weight, left out."""
    values: str
    """The range of numbers, or the categories, most frequent first."""
    blanks: int
    note: str


class Preview(NamedTuple):
    """A table as it would be read."""

    rows: int
    columns: list[ColumnFacts]
    """In the order of the table."""


def preview(config: CsvConfig) -> Preview:
    """What each column is taken for, where a cell that is blank, or a column like an id, is no mistake yet.

    Raises `UserError` (status 3) for what is no table.
    """
    targets = targets_of(config)
    columns = Columns(config, targets, config.path)
    header: list[str] = []

    def layout_of(names: list[str]) -> Layout:
        header[:] = names
        return columns.layout(names, lenient=True)

    table = read_table(config.path, "data.path", config, layout_of, blank_labels=True)
    facts = {}
    for k, (name, kind) in enumerate(zip(table.columns, table.kinds or (), strict=True)):
        facts[name] = _facts(name, kind, table.x[:, k], config.missing, name in targets)
    if table.labels:
        facts[targets[0]] = _label_facts(targets[0], table)
    for name in columns.others:
        role = "weight" if name == config.weight else "target"
        note = "blank: an error" if facts[name].blanks and config.missing != "drop_rows" else ""
        facts[name] = facts[name]._replace(taken_for=role, note=note or facts[name].note)
        if name == config.weight:
            facts[name] = _weight_facts(facts[name], table, columns)
    for name, cell in _thousands(config, header).items():
        if facts[name].taken_for == "number":
            note = f"{cell} is read as {cell}, not as {cell.replace('.', ',')}"
            facts[name] = facts[name]._replace(note="; ".join(filter(None, [facts[name].note, note])))
    if config.test_path is not None:
        _check_test(config, table)
    left_out = [ColumnFacts(name, "left out", "", 0, "") for name in columns.config.drop]
    facts |= {one.name: one for one in left_out}
    return Preview(len(table.x), [facts[name] for name in header])


def _weight_facts(facts: ColumnFacts, table: Table, columns: Columns) -> ColumnFacts:
    """The same, with what is wrong with the weights."""
    try:
        columns.check_weights(np.nan_to_num(table.x[:, table.columns.index(facts.name)]))
    except UserError as e:
        return facts._replace(note=f"{e.what}: an error")
    return facts


def _thousands(config: CsvConfig, header: list[str]) -> dict[str, str]:
    """Of columns that may have thousands with points such a cell, in a file whose cells are separated by
    semicolons, as where commas are for decimals; by its first rows."""
    path = expanded(config.path, "data.path")
    if path.suffix.lower() in FRAMES:
        return {}
    beginning = text_file(path).beginning(BEGINNING)
    if (config.delimiter or found_delimiter(beginning, config.path)) != ";":
        return {}
    lines = beginning.decode("utf-8-sig", "ignore").splitlines()[1:-1]
    rows = [row for row in csv.reader(lines, delimiter=";") if len(row) == len(header)]
    found = {}
    for name, cells in zip(header, zip(*rows, strict=True), strict=bool(rows)):
        said = [cell.strip() for cell in cells if cell.strip()]
        points = [cell for cell in said if re.fullmatch(THOUSANDS, cell)]
        if points and all(re.fullmatch(rf"{THOUSANDS}|[+-]?[0-9]{{1,3}}", cell) for cell in said):
            found[name] = points[0]
    return found


def _check_test(config: CsvConfig, table: Table) -> None:
    """Raise `UserError` (status 3) for a test file that is no table of the same columns and labels."""
    assert config.test_path is not None
    test = Columns(config, targets_of(config), config.test_path)
    n_columns = len(table.columns) - len(test.others)
    kinds = None if table.kinds is None else table.kinds[:n_columns]
    raw = Raw(table.x, table.codes, (), columns=table.columns[:n_columns], kinds=kinds)
    rows = read_table(config.test_path, "data.test_path", config, lambda header: test.again(header, raw))
    test.rows(rows, natural_order({*table.labels} - {""}))


def _facts(name: str, kind: Kind, values: Array, missing: str, is_target: bool = False) -> ColumnFacts:
    present = values[~np.isnan(values)]
    blanks = len(values) - len(present)
    notes = []
    if blanks and missing == "error":
        notes.append("blank: an error without data.missing")
    if len(present) == 0:
        return ColumnFacts(name, "nothing", "", blanks, "blank in every row: leave it out")
    if kind.holds == "category":
        categories = kind.categories or ()
        counts = np.bincount(present.astype(np.int64), minlength=len(categories))
        shown = _frequent(categories, counts)
        if sort := misread(categories):
            notes.append(f"{sort}: {MISREAD[sort][1]}")
            shown = f"{len(categories):,} different ones, such as {', '.join(categories[:2])}"
        elif len(categories) == 1:
            notes.append("constant")
        elif is_id_like(len(categories), len(values)):
            notes.append("like an id: leave it out")
            examples = ", ".join(short(name, LONGEST) for name in categories[:2])
            shown = f"{len(categories):,} different ones, such as {examples}"
        return ColumnFacts(name, "category", shown, blanks, "; ".join(notes))
    low, high = present.min(), present.max()
    if low == high:
        notes.append("constant")
    if kind.holds == "boolean":
        share = 100 * present.mean()
        return ColumnFacts(name, "yes/no", f"yes in {share:.0f} %", blanks, "; ".join(notes))
    different = np.unique(present)
    whole = bool((different == np.round(different)).all())
    whole = whole and not is_target  # which may count, and is no category
    if whole and len(different) == len(present) > 20 and high - low == len(present) - 1:
        notes.append("counts the rows: leave it out?")
    elif whole and 2 < len(different) <= SHOWN + 1:
        notes.append("few different numbers: categories?")
    return ColumnFacts(
        name, "number", f"{_shown(low, high)} to {_shown(high, low)}", blanks, "; ".join(notes)
    )


def _shown(number: float, other: float) -> str:
    """A number with at least six digits, and as many as tell how far it is from the other one."""
    digits = 6
    if number != other and np.isfinite(number - other):
        digits = max(6, 3 + math.ceil(math.log10(max(abs(number), abs(other)) / abs(number - other))))
    return f"{number:.{min(17, digits)}g}"


def _label_facts(name: str, table: Table) -> ColumnFacts:
    counts = np.bincount(table.codes, minlength=len(table.labels))
    blanks = int(counts[table.labels.index("")]) if "" in table.labels else 0
    kept = [k for k, label in enumerate(table.labels) if label]
    note = "blank: an error without data.missing=drop_rows" if blanks else ""
    if len(kept) == 1:
        note = "constant"
    shown = _frequent([table.labels[k] for k in kept], counts[kept])
    return ColumnFacts(name, "target", shown, blanks, note)


def _frequent(names: Sequence[str], counts: IntArray) -> str:
    """The most frequent of some categories, with how many rows have each, and how many others there are."""
    order = np.argsort(-counts, kind="stable")[:SHOWN].tolist()
    shown = ", ".join(f"{short(names[k], LONGEST)} ({counts[k]:,})" for k in order)
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
