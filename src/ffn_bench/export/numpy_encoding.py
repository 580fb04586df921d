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


ENCODE = '''def number_name(cell):
    """A number as the name of a category: of 1, "1.0" and "01" it is "1"; None for any other text."""
    text = str(cell).strip()
    try:
        number = float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return None
    if not np.isfinite(number):
        return None
    if abs(number) >= 2**53 and text.lstrip("+-").isdigit():
        return str(int(text))
    return str(int(number)) if number.is_integer() else repr(number)


# Of each column whether it has categories that are numbers, which are known by their value.
BY_VALUE = [h == "category" and all(number_name(c) == c for c in known) for h, known, _, _ in ENCODING]


def read_cell(cell, k, where):
    """What a cell of column k holds: None where it is blank, a category's place (-1: none of the known ones),
    1 or 0 for true or false, or a number. Raises ValueError for anything else."""
    holds, categories, fill, _ = ENCODING[k]
    is_text = isinstance(cell, str)
    text = cell.strip() if is_text else str(cell)
    words = BLANK_WORDS if fill is not None and (holds != "category" or BY_VALUE[k]) else {""}
    if cell is None or cell != cell or (is_text and text in words):
        if fill is None:
            what = "blank cell" if cell is None or is_text else f"{cell} is not a finite number"
            raise ValueError(f"{where}: {what}")
        return None
    if holds == "category":
        if text not in categories and (BY_VALUE[k] or not (is_text or isinstance(cell, bool))):
            text = number_name(cell)
        return categories.index(text) if text in categories else -1
    if holds == "boolean":
        value = TRUTH_VALUES.get(text.lower()) if is_text else cell
        if value not in (0, 1):
            raise ValueError(f"{where}: {cell!r} is neither true nor false")
        return value
    return read_number(cell, where)


def encode(rows):
    """Rows of cells in the order of COLUMNS as the network's inputs, [n, inputs]: numbers, texts, truth
    values, and None, "" or NaN where a cell is blank."""
    parts = []
    for k, (holds, categories, fill, indicator) in enumerate(ENCODING):
        name = f"column {COLUMNS[k]!r}"
        cells = [read_cell(row[k], k, f"row {number}, {name}") for number, row in enumerate(rows)]
        values = np.array([fill if cell is None else cell for cell in cells], dtype=np.float64)[:, None]
        parts.append((values == np.arange(len(categories))).astype(float) if holds == "category" else values)
        if indicator:
            parts.append(np.array([cell is None for cell in cells], dtype=np.float64)[:, None])
    return np.concatenate(parts, axis=1)
'''
