"""What each column of a person's table is taken for, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data.columns import Array, Kind, Layout, Table, is_id_like
from ffn_bench.data.tables import Columns, IntArray, read_table, targets_of
from ffn_bench.errors import short

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
        facts[name] = _facts(name, kind, table.x[:, k], config.missing)
    if table.labels:
        facts[targets[0]] = _label_facts(targets[0], table)
    for name in columns.others:
        role = "weight" if name == config.weight else "target"
        note = "blank: an error" if facts[name].blanks and config.missing != "drop_rows" else ""
        facts[name] = facts[name]._replace(taken_for=role, note=note or facts[name].note)
    left_out = [ColumnFacts(name, "left out", "", 0, "") for name in config.drop]
    facts |= {one.name: one for one in left_out}
    return Preview(len(table.x), [facts[name] for name in header])


def _facts(name: str, kind: Kind, values: Array, missing: str) -> ColumnFacts:
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
        if len(categories) == 1:
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
    if whole and len(different) == len(present) > 20 and high - low == len(present) - 1:
        notes.append("counts the rows: leave it out?")
    elif whole and 2 < len(different) <= SHOWN + 1:
        notes.append("few different numbers: categories?")
    return ColumnFacts(name, "number", f"{low:g} to {high:g}", blanks, "; ".join(notes))


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
