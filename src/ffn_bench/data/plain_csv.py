"""Plain CSV files, read by Polars on all cores; None where there is any doubt what a file means.

`tables.py` defines what a table means and explains what is wrong with one. Here a table is read only where
its bytes prove that Polars must come to the same numbers and labels, to the last bit (Polars rounds decimal
numbers correctly, as Python does). Everything else is left to `tables.py`, which is slower and never wrong.
"""

from __future__ import annotations

import csv
import multiprocessing
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSED = (b"x\x01", b"x\xda")
"""What zlib writes first and is UTF-8: Polars would unpack the file."""
DELIMITERS = ",;\t|"
"""Those that are no part of a number."""


class Layout(NamedTuple):
    """What the columns of a table are for."""

    header: list[str]
    features: list[int]
    """Positions of the features, in the order of `Table.x`; other columns may hold anything."""
    label: int | None
    """Position of the label, if there is one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self.header[k] for k in self.features)


class Table(NamedTuple):
    """Rows `x [n, n_features]`, float64, and of each row the label `labels[codes]`, `codes [n]`, int64.
    Labels are distinct, in any order; without a column of labels both are empty."""

    x: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]
    labels: list[str]
    columns: tuple[str, ...]
    """Names of the features."""


def read_plain(path: Path, delimiter: str, target: str) -> Table | None:
    """The rows of a file with a header, all numbers finite and all labels stripped and not blank; None where
    the file may be damaged, or unusual, or memory too small."""
    if delimiter not in DELIMITERS or not _may_use_polars():
        return None
    if 3 * path.stat().st_size > psutil.virtual_memory().available:  # the text, and the numbers twice
        return None
    text = path.read_bytes()
    begin = text.find(b"\n") + 1
    if not _is_clean(text[:begin]):
        return None
    header = _header(text[:begin].decode("utf-8-sig"), delimiter)
    if len(header) < 2 or not all(header) or len(set(header)) < len(header) or target not in header:
        return None
    label = header.index(target)
    features = [k for k in range(len(header)) if k != label]
    return parse_plain(text[begin:], delimiter, Layout(header, features, label))


def parse_plain(text: bytes, delimiter: str, layout: Layout) -> Table | None:
    """The same of rows without their header; a label may be missing only where `layout` has none."""
    if delimiter not in DELIMITERS or not _may_use_polars():
        return None
    if text.endswith((b"\n\n", b"\n\r\n")):
        text = text.rstrip(b"\r\n")
    if text.startswith((*COMPRESSED, BYTE_ORDER_MARK)) or not _is_clean(text):
        return None
    n_rows = text.count(b"\n") + (not text.endswith(b"\n"))
    if not text or not _cells_are_plain(text, delimiter, n_rows * (len(layout.header) - 1)):
        return None
    return _parse(text, delimiter, layout, n_rows)


def _may_use_polars() -> bool:
    """Not where the process may be the copy of one that had imported Polars: its threads are not copied, and
    Polars would wait for them forever."""
    return multiprocessing.parent_process() is None or "polars" not in sys.modules


def _is_clean(text: bytes) -> bool:
    """Whether this is UTF-8 without NUL, and a carriage return only ever a part of a line's end."""
    if b"\0" in text or (b"\r" in text and text.count(b"\r") != text.count(b"\r\n")):
        return False
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True


def _header(line: str, delimiter: str) -> list[str]:
    """The names in the first line, or none where it is malformed or does not end there."""
    try:
        reader = csv.reader([line], delimiter=delimiter, strict=True)
        return [name.strip() for name in next(reader, [])]
    except csv.Error:
        return []


def _cells_are_plain(text: bytes, delimiter: str, n_delimiters: int) -> bool:
    """Whether no cell is longer than Python's reader permits, each quote is the first or the last character
    of a cell, and there are `n_delimiters` apart from those in quotes."""
    separator, half = delimiter.encode(), csv.field_size_limit() // 2
    for start in range(0, len(text) - half, half):  # a cell that is too long covers such a block
        if text.find(separator, start, start + half) < 0 and text.find(b"\n", start, start + half) < 0:
            return False
    characters = np.frombuffer(text, np.uint8)
    blocks = np.array_split(characters, len(text) // 2**18 + 1)  # that fit into the processor's cache
    counted = sum(np.count_nonzero(block == separator[0]) for block in blocks)
    if b'"' not in text:
        return counted == n_delimiters

    # The first quote is the first character of its cell, which it opens. The next one closes that cell, as it
    # is not doubled; then the third opens one, and so on.
    quotes = np.flatnonzero(characters == ord('"'))
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    begins = np.isin(characters[np.maximum(opening - 1, 0)], [ord(delimiter), ord("\n")])
    begins[0] |= opening[0] == 0
    ends = np.isin(characters[np.minimum(closing + 1, len(text) - 1)], [ord(delimiter), ord("\n"), ord("\r")])
    ends[-1] |= closing[-1] == len(text) - 1
    if not (begins.all() and ends.all()):
        return False
    if counted > n_delimiters:
        counted -= np.add.reduceat(characters == separator[0], quotes, dtype=np.int64)[::2].sum()
    return counted == n_delimiters


def _parse(text: bytes, delimiter: str, layout: Layout, n_rows: int) -> Table | None:
    """What Polars reads, if that is `n_rows` rows without a blank, text or infinite feature, or a blank
    label."""
    import polars as pl

    names = [str(k) for k in range(len(layout.header))]
    features = [names[k] for k in layout.features]
    schema: dict[str, pl.DataType] = {name: pl.String() for name in names} | dict.fromkeys(
        features, pl.Float64()
    )
    label = [] if layout.label is None else [names[layout.label]]
    quote = '"' if b'"' in text else None
    try:
        frame = pl.read_csv(text, separator=delimiter, quote_char=quote, has_header=False, schema=schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if frame.height != n_rows or any(frame[name].null_count() for name in features + label):
        return None
    x = np.require(frame.select(features).to_numpy(order="c"), np.float64, ["C", "W"])
    if not np.isfinite(x).all():
        return None
    if layout.label is None:
        return Table(x, np.empty(0, np.int64), [], layout.columns)
    column = frame[label[0]]
    cells = column.unique().to_list()
    labels = sorted({cell.strip() for cell in cells})
    if not all(labels) or max(map(len, cells)) > csv.field_size_limit():
        return None
    code = {label: k for k, label in enumerate(labels)}
    codes = column.replace_strict(cells, [code[cell.strip()] for cell in cells], return_dtype=pl.Int64())
    return Table(x, codes.to_numpy(writable=True), labels, layout.columns)
