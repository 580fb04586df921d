"""Plain CSV files, read by Polars on all cores; None where there is any doubt what a file means.

`tables.py` defines what a table means and explains what is wrong with one. Here a table is read only where
its bytes prove that Polars must come to the same numbers and labels, to the last bit (Polars rounds decimal
numbers correctly, as Python does). Everything else is left to `tables.py`, which is slower and never wrong.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from ffn_bench.data.columns import (
    BLANK_WORDS,
    MOST_CATEGORIES,
    NUMBER,
    TRUTH_VALUES,
    Array,
    Kind,
    Layout,
    Table,
    category_names,
    coder,
    kind_of,
    natural_order,
    number_in,
)
from ffn_bench.data.files import TextFile
from ffn_bench.errors import UserError

if TYPE_CHECKING:
    import polars as pl

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPRESSED = (b"x\x01", b"x\xda")
"""What zlib writes first and is UTF-8: Polars would unpack the file."""
DELIMITERS = ",;\t|"
"""Those that are no part of a number."""
SAMPLE = 100
"""Rows by which kinds of columns are guessed."""
TEXTS_TOGETHER = 4
"""Columns of text that are read at a time."""


def read_plain(
    file: TextFile,
    delimiter: str,
    layout_of: Callable[[list[str]], Layout],
    blank_labels: bool = False,
) -> Table | None:
    """The rows of a file with a header, all cells what their columns hold and all labels stripped, and not
    blank but for `blank_labels`; None where the file may be damaged, or unusual, or memory too small."""
    if delimiter not in DELIMITERS or not may_use_polars():
        return None
    if 3 * file.size > psutil.virtual_memory().available:  # the text, and the numbers twice
        return None
    text = file.read()
    begin = text.find(b"\n") + 1
    if not _is_clean(text[:begin]):
        return None
    header = _header(text[:begin].decode("utf-8-sig"), delimiter)
    if len(header) < 2 or not all(header) or len(set(header)) < len(header):
        return None
    try:
        layout = layout_of(header)
    except UserError:
        return None
    text = text[begin:]  # and no more of the whole
    return parse_plain(text, delimiter, layout, blank_labels)


def parse_plain(text: bytes, delimiter: str, layout: Layout, blank_labels: bool = False) -> Table | None:
    """The same of rows without their header."""
    if delimiter not in DELIMITERS or not may_use_polars():
        return None
    if text.endswith((b"\n\n", b"\n\r\n")):
        text = text.rstrip(b"\r\n")
    if text.startswith((*COMPRESSED, BYTE_ORDER_MARK)) or not _is_clean(text):
        return None
    n_rows = text.count(b"\n") + (not text.endswith(b"\n"))
    n_delimiters = len(layout.header) - 1
    if not text or not _cells_are_plain(text, delimiter, n_rows * n_delimiters):
        return None
    if _may_be_ragged(layout, blank_labels) and not _rows_are_even(text, delimiter, n_delimiters):
        return None
    return _parse(text, delimiter, layout, n_rows, blank_labels)


def may_use_polars() -> bool:
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


def _may_be_ragged(layout: Layout, blank_labels: bool) -> bool:
    """Whether a row that is too short may go unnoticed, as its last cell may be blank, or is not looked at;
    and so one that is too long, as their cells are as many as they must be together."""
    last = len(layout.header) - 1
    if last in layout.features:
        return layout.kinds_of_features[layout.features.index(last)].blank
    return blank_labels or last != layout.label


def _rows_are_even(text: bytes, delimiter: str, n_delimiters: int) -> bool:
    """Whether each line has so many delimiters outside quotes, in a text whose cells are plain."""
    characters = np.frombuffer(text, np.uint8)
    separators = characters == ord(delimiter)
    ends = np.flatnonzero(characters == ord("\n"))
    begins = np.concatenate([[0], ends + 1])
    begins = begins[begins < len(text)]
    counts = np.add.reduceat(separators.view(np.uint8), begins, dtype=np.int64)
    if b'"' in text:
        quotes = np.flatnonzero(characters == ord('"'))
        quoted = np.add.reduceat(separators.view(np.uint8), quotes, dtype=np.int64)[::2]
        lines = np.searchsorted(begins, quotes[::2], "right") - 1
        np.subtract.at(counts, lines, quoted)
    return bool((counts == n_delimiters).all())


# --- cells ----------------------------------------------------------------------------------------------


def _parse(text: bytes, delimiter: str, layout: Layout, n_rows: int, blank_labels: bool) -> Table | None:
    """What Polars reads, if that is `n_rows` rows whose cells are what their columns hold."""
    import polars as pl

    names = [str(k) for k in range(len(layout.header))]
    quote = '"' if b'"' in text else None

    def read(positions: Sequence[int], numbers: Container[int]) -> pl.DataFrame | None:
        """Columns at some positions, `numbers` among them as such and the others as text."""
        schema: dict[str, pl.DataType] = {
            name: pl.Float64() if k in numbers else pl.String() for k, name in enumerate(names)
        }
        wanted = sorted(positions)
        try:
            frame = pl.read_csv(
                text, separator=delimiter, quote_char=quote, has_header=False, schema=schema, columns=wanted
            )
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            return None
        return frame if frame.height == n_rows else None

    wanted = layout.kinds_of_features
    guessed = _guessed(text, delimiter, layout)
    numbers = [k for k, kind in enumerate(guessed) if kind.holds == "number"]
    labels = [] if layout.label is None else [layout.label]
    at = layout.features
    x = np.empty((n_rows, len(wanted)))  # which takes memory when it is written to
    kinds: dict[int, Kind] = {}
    coded = None if labels else (np.empty(0, np.int64), list[str]())
    # Beside texts numbers are read by halves: what is freed of one frame is of no use to NumPy.
    half = len(numbers) // 2 + 1
    for group in _in_turn(numbers, half if len(numbers) < len(wanted) else 2 * half):
        more = labels if coded is None else []
        frame = read([*(at[k] for k in group), *more], {at[k] for k in group})
        if frame is None and all(kind == NUMBER for kind in wanted):
            return None
        if frame is None:
            continue
        if more and (coded := _labels(frame.drop_in_place(names[more[0]]), blank_labels)) is None:
            return None
        for k in [k for k in group if _is_finite(frame[names[at[k]]])]:
            column = _of_numbers(frame.drop_in_place(names[at[k]]), guessed[k])
            if not _write(x, kinds, [k], [column]):
                return None
        del frame
    if coded is None:
        of_labels = read(labels, ())
        if of_labels is None or (coded := _labels(of_labels[names[labels[0]]], blank_labels)) is None:
            return None
    rest = [k for k in range(len(wanted)) if k not in kinds]  # texts, and numbers with words among them
    for some in _in_turn(rest, TEXTS_TOGETHER):
        as_text = read([at[k] for k in some], ())
        if as_text is None:
            return None
        columns = [_from_text(as_text.drop_in_place(names[at[k]]), wanted[k]) for k in some]
        if not _write(x, kinds, some, columns):
            return None
        columns.clear()
    return Table(x, *coded, layout.columns, tuple(kinds[k] for k in range(len(wanted))))


def _is_finite(column: pl.Series) -> bool:
    """Whether there are no other numbers than finite ones, and blanks."""
    return bool(column.is_finite().all())


def _in_turn(columns: Sequence[int], count: int) -> Iterator[Sequence[int]]:
    """So many columns at a time."""
    for start in range(0, len(columns), count):
        yield columns[start : start + count]


def _write(
    x: Array, kinds: dict[int, Kind], positions: Sequence[int], columns: Sequence[Column | None]
) -> bool:
    """Write columns to x, rows together that fit into the processor's cache, and their kinds to `kinds`;
    False where one is none."""
    for k, column in zip(positions, columns, strict=True):
        if column is None:
            return False
        kinds[k] = column.kind
    for start in range(0, len(x), 2048):
        block = x[start : start + 2048]
        for k, column in zip(positions, columns, strict=True):
            assert column is not None
            block[:, k] = column.values[start : start + 2048]
    return True


class Column(NamedTuple):
    """A column as it is read."""

    values: Array
    """`[n]`, see `Kind`; codes of categories in float32."""
    kind: Kind


def _guessed(text: bytes, delimiter: str, layout: Layout) -> list[Kind]:
    """The kinds of the features, where they are to be found out a guess from the first rows: numbers, or
    texts of kind `any`."""
    kinds = list(layout.kinds_of_features)
    if all(kind.holds != "any" for kind in kinds):
        return kinds
    end = -1
    for _ in range(SAMPLE):
        end = text.find(b"\n", end + 1)
        if end < 0:
            break
    lines = text[: end + 1 or len(text)].decode().splitlines(keepends=True)
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if len(row) == len(layout.header)]
    except csv.Error:
        rows = []
    for k, (position, kind) in enumerate(zip(layout.features, kinds, strict=True)):
        cells = [row[position].strip() for row in rows]
        said = [cell for cell in cells if cell and cell not in BLANK_WORDS]
        if kind.holds == "any" and (not said or any(number_in(cell) is not None for cell in said)):
            kinds[k] = Kind("number", blank=kind.blank)
    return kinds


def _of_numbers(column: pl.Series, kind: Kind) -> Column | None:
    """A column that was read as numbers, all finite; None where a cell is blank and must not be."""
    if column.null_count() and not kind.blank:
        return None
    return Column(column.to_numpy(), kind)


def _from_text(column: pl.Series, kind: Kind) -> Column | None:
    """What the cells of a column of text hold; None where there may be a mistake."""
    import polars as pl

    if kind.holds == "number":
        return _numbers_from_text(column, kind.blank)
    column = column.fill_null("")
    counted = column.value_counts(name="count")
    if kind.holds == "any" and counted.height > MOST_CATEGORIES:
        numbers = _numbers_from_text(column, kind.blank)
        if numbers is not None:
            return numbers
    cells: list[str] = counted[column.name].to_list()
    if max(map(len, cells)) > csv.field_size_limit():
        return None
    texts = [cell.strip() for cell in cells]
    if kind.holds == "any":
        kind = _kind_of(texts, counted["count"].to_list(), kind.blank)
        if kind.holds == "number":
            return _numbers_from_text(column, kind.blank)
    values: list[float]
    if kind.holds == "boolean":
        known = {text: TRUTH_VALUES.get(text.lower()) for text in texts}
        known |= dict.fromkeys(("", *BLANK_WORDS), math.nan if kind.blank else None)
        if any(known[text] is None for text in texts):
            return None
        values = [known[text] for text in texts]  # type: ignore[misc]  # none is None
    else:
        if "" in texts and not kind.blank:
            return None
        names = {text: text for text in texts}
        if kind.categories is None:
            names = {"": "", **category_names({*texts} - {""}, kind.blank)}
            kind = kind._replace(categories=tuple(natural_order({*names.values()} - {""})))
        code = coder(kind)
        values = [code(names[text]) if names[text] else math.nan for text in texts]
    if len(cells) > 2**24:
        return None
    return Column(column.replace_strict(cells, values, return_dtype=pl.Float32()).to_numpy(), kind)


def _kind_of(texts: list[str], counts: list[int], blank: bool) -> Kind:
    """`kind_of` a column with these different texts, so many of each."""
    n_numbers = n_texts = n_booleans = 0
    for text, count in zip(texts, counts, strict=True):
        if not text or text in BLANK_WORDS:
            continue
        if number_in(text) is not None:
            n_numbers += count
        else:
            n_texts += count
            n_booleans += count * (text.lower() in TRUTH_VALUES)
    return kind_of(n_numbers, n_texts, n_booleans, blank)


def _numbers_from_text(column: pl.Series, blanks: bool) -> Column | None:
    """The numbers of a column of text, NaN for `blanks`. None where there may be a mistake, or a number that
    Polars does not take for one."""
    import polars as pl

    numbers = column.cast(pl.Float64(), strict=False)
    rest = column.filter(~numbers.is_finite().fill_null(value=False)).fill_null("").unique().to_list()
    blank = [cell for cell in rest if not (text := cell.strip()) or text in BLANK_WORDS]
    if len(blank) < len(rest) or (rest and not blanks):
        return None
    values: Array = numbers.to_numpy()
    return Column(np.where(np.isfinite(values), values, np.nan) if rest else values, Kind(blank=blanks))


def _labels(column: pl.Series, blank: bool) -> tuple[npt.NDArray[np.int64], list[str]] | None:
    """Of each row the number of its label, and the labels; None where one is blank and must not be."""
    import polars as pl

    column = column.fill_null("")
    cells = column.unique().to_list()
    labels = sorted({cell.strip() for cell in cells})
    if not (blank or all(labels)) or max(map(len, cells)) > csv.field_size_limit():
        return None
    code = {label: k for k, label in enumerate(labels)}
    codes = column.replace_strict(cells, [code[cell.strip()] for cell in cells], return_dtype=pl.Int64())
    return codes.to_numpy(writable=True), labels
