"""The columns of a table, found by the names that a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from ffn_bench.data.columns import Layout
from ffn_bench.data.tables import listed
from ffn_bench.errors import data_error, nearest


def matched(header: Sequence[str], columns: Sequence[str], label: str | None, where: str) -> Layout:
    """Where `columns` are in a header, whatever their order and what else there is; and the label, if it is
    there.

    Raises `UserError` (status 3) that names what is missing, or a label that is a feature; `where` names the
    table.
    """
    positions = {name: k for k, name in enumerate(header)}
    if missing := [name for name in columns if name.strip() not in positions]:
        names = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        of = f"{len(missing)} of the {len(columns)} columns that the run was trained on"
        hint = nearest(missing[0], [name for name in header if name not in columns])
        raise data_error(where, f"lacks {of}: {names}{hint}", f"its columns: {listed(header)}")
    label = None if label is None else label.strip()
    if label in columns:
        what = f"{label!r} is a feature that the run was trained on"
        raise data_error("data.target", what, "name the column of labels")
    position = None if label is None else positions.get(label)
    return Layout(list(header), [positions[name.strip()] for name in columns], position)


def unused(layout: Layout) -> list[str]:
    """Names of the columns that are neither a feature nor the label."""
    used = {*layout.features, layout.label}
    return [name for k, name in enumerate(layout.header) if k not in used]
