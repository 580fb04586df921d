"""A table of any size, read block by block, so that it needs no more memory than some of its rows.

What a block means is what `tables` would make of the whole file: the same numbers to the bit, and the same
messages, with line and column.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from ffn_bench.data.careful_csv import TextRows, found_delimiter
from ffn_bench.data.columns import Layout, Table
from ffn_bench.data.files import BEGINNING, check_text
from ffn_bench.data.plain_csv import BYTE_ORDER_MARK, parse_plain
from ffn_bench.errors import data_error

BLOCK = 2**22
"""Bytes that are read at once: enough that Polars' threads are worth starting."""
LONGEST = 2**26
"""Bytes of a row at most."""


class Block(NamedTuple):
    """Some rows of a table."""

    table: Table
    first_line: int
    """Number of the line, in the file, in which they begin."""


def read_blocks(
    stream: BinaryIO, where: str, delimiter: str | None, layout_of: Callable[[list[str]], Layout]
) -> Iterator[Block]:
    """The rows of a stream of CSV, in order; `layout_of` says what the columns of its header are for. Labels
    may be blank. There may be no rows. Without a delimiter it is found out.

    Raises `UserError` (status 3), naming line and column below `where`, for what is no table of numbers.
    """
    text = stream.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    lines, layout, at_end = 0, None, False
    while not at_end:
        chunk = stream.read(BLOCK)
        at_end, text = not chunk, text + chunk
        if layout is None:
            if not at_end and _complete(text, delimiter or ",") == 0:
                continue
            if not text:
                break
            check_text(text[:8], where)
            delimiter = delimiter or found_delimiter(text[:BEGINNING], where)
            header, lines, text = _header_apart(text, delimiter, where)
            layout = layout_of(header)
        assert delimiter is not None
        size = len(text) if at_end else _last_line_end(text)  # a row's end where no cell has line ends
        table = parse_plain(text[:size], delimiter, layout) if size else None
        if table is not None:
            block = Block(table, lines + 1)
            lines += text.count(b"\n", 0, size)
        else:
            size = len(text) if at_end else _complete(text, delimiter)
            if size == 0:
                continue
            rows = TextRows(_Lines(text[:size]), delimiter, where, lines)
            block = Block(rows.table(layout, blank_labels=True), lines + 1)
            lines = rows.line
        text = text[size:]
        yield block
    if layout is None:
        raise data_error(where, "is empty", "give it a header and rows")


class _Lines:
    """The lines of a text with their ends, as `open(newline="")` gives them."""

    def __init__(self, text: bytes) -> None:
        self._lines = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline="")
        self.size = 0
        """Bytes of those that were read."""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.size += len(line.encode())
            yield line


def _header_apart(text: bytes, delimiter: str, where: str) -> tuple[list[str], int, bytes]:
    """The header at the beginning of a text, how many lines it has, and what follows it."""
    lines = _Lines(text)
    rows = TextRows(lines, delimiter, where)
    header = rows.header()
    return header, rows.line, text[lines.size :]


def _last_line_end(text: bytes) -> int:
    """Bytes up to the end of the last line that has one. A carriage return at the end may be half of one."""
    return text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, len(text) - 1) + 1


def _complete(text: bytes, delimiter: str) -> int:
    """Bytes of the rows that are complete, as Python's reader finds them; all where the first is none, or too
    long, so that reading it says what is wrong; 0 where its end is still to come."""
    end = _last_line_end(text)
    if len(text) > LONGEST:
        return end or len(text)
    if b'"' not in text:
        return end
    lines = _Lines(text[:end])
    size = 0
    try:
        for _ in csv.reader(lines, delimiter=delimiter, strict=True):
            size = lines.size
    except UnicodeDecodeError:
        return size or end
    except csv.Error as e:
        return size or (0 if "end of data" in str(e) else end)
    return size
