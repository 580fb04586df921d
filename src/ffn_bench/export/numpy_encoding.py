"""How the columns of a table become a network's inputs, as Python that needs NumPy alone.

It computes what `data.encoding` does, and reads cells as `data.columns` says.
"""

from __future__ import annotations

from collections.abc import Iterator

from ffn_bench.data.columns import BLANK_WORDS, TRUTH_VALUES
from ffn_bench.data.encoding import Encoding


def constants(encoding: Encoding) -> Iterator[str]:
    """The lines of ENCODING."""
    yield "# Of each column what it holds, its categories, what stands in for a blank cell (None: an error),"
    yield "# and whether an input more says that the cell was blank. Another text is none of the categories."
    yield "ENCODING = ["
    for column in encoding.columns:
        fill = column.fill
        if column.holds == "category" and fill is not None:
            fill = int(fill)
        yield f"    ({column.holds!r}, {list(column.categories)!r}, {fill!r}, {column.indicator!r}),"
    yield "]"
    if any(column.fill is not None for column in encoding.columns):
        yield "BLANK_WORDS = {" + ", ".join(map(repr, ["", *sorted(BLANK_WORDS)])) + "}"
    else:
        yield 'BLANK_WORDS = {""}'
    yield "TRUTH_VALUES = {" + ", ".join(f"{word!r}: {value}" for word, value in TRUTH_VALUES.items()) + "}"


ENCODE = '''def is_blank(cell, holds):
    """Whether a cell is None, not a number, or a text that stands for a blank."""
    if isinstance(cell, str):
        return cell.strip() in (BLANK_WORDS if holds == "number" else {""})
    return cell is None or cell != cell


def to_number(cell):
    """The number in a cell, 1 and 0 for true and false; not a number where there is none."""
    try:
        text = cell.strip().lower() if isinstance(cell, str) else ""
        return TRUTH_VALUES[text] if text in TRUTH_VALUES else float(cell)
    except (TypeError, ValueError):
        return np.nan


def encode(rows):
    """Rows of cells in the order of COLUMNS as the network's inputs, [n, inputs]: numbers, texts, truth
    values, and None, "" or NaN where a cell is blank."""
    parts = []
    for k, (holds, categories, fill, indicator) in enumerate(ENCODING):
        cells = [row[k] for row in rows]
        blank = np.array([is_blank(cell, holds) for cell in cells], dtype=bool)
        if fill is None and blank.any():
            raise ValueError(f"row {blank.argmax()}, column {COLUMNS[k]!r}: blank cell")
        if holds == "category":
            texts = [categories[fill] if gone else str(cell).strip() for cell, gone in zip(cells, blank)]
            values = np.array([[text == known for known in categories] for text in texts], dtype=np.float64)
            parts.append(values.reshape(len(cells), len(categories)))
        else:
            values = [fill if gone else to_number(cell) for cell, gone in zip(cells, blank)]
            parts.append(np.array(values, dtype=np.float64)[:, None])
        if indicator:
            parts.append(blank.astype(np.float64)[:, None])
    return np.concatenate(parts, axis=1)
'''
