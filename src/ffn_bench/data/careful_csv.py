"""Delimited text by Python's own reader: it defines what a table means, and says what is wrong with one."""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TextIO

import numpy as np

from ffn_bench.data.columns import (
    BLANK_WORDS,
    NUMBER,
    TRUTH_VALUES,
    Array,
    Fault,
    Kind,
    Layout,
    Table,
    category_names,
    coder,
    cures,
    kind_of,
    number_in,
    sorted_categories,
)
from ffn_bench.errors import DATA, UserError, data_error

DELIMITERS = ",;\t|"
"""Those that are looked for."""
SAMPLE = 20
"""Rows by which a delimiter is found."""


NOT_FINITE = "not finite"


class CellError(UserError):
    """A cell that is not what its column holds."""


def read_carefully(
    opened: Callable[[], AbstractContextManager[TextIO]],
    delimiter: str,
    where: str,
    layout_of: Callable[[list[str]], Layout],
    blank_labels: bool = False,
) -> Table:
    """The rows of any text that is a table, or the `UserError` (status 3) that says where it is none.

    Columns of kind `any` are read as numbers until one of their cells is none; then all cells are looked at,
    and read once more.
    """

    def rows_of(file: TextIO) -> tuple[TextRows, Layout]:
        rows = TextRows(file, delimiter, where, training=True)
        return rows, layout_of(rows.header())

    with opened() as file:
        rows, layout = rows_of(file)
        kinds = layout.kinds_of_features
        numbers = [Kind("number", blank=kind.blank) if kind.holds == "any" else kind for kind in kinds]
        try:
            table = rows.table(layout._replace(kinds=tuple(numbers)), blank_labels)
        except CellError:
            if all(kind.holds != "any" for kind in kinds):
                raise
            table = None
    if table is None:
        with opened() as file:
            rows, layout = rows_of(file)
            kinds = rows.kinds(layout)
        with opened() as file:
            rows, layout = rows_of(file)
            table = rows.table(layout._replace(kinds=kinds), blank_labels)
    if not len(table.x):
        raise data_error(where, "has a header and no rows", "add rows")
    return table


class _Cells:
    """What cells hold as numbers of a matrix, column by column, by functions that raise `ValueError` for a
    cell that is not what its column holds."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self._categories: list[dict[str, float]] = [{} for _ in kinds]
        """Of each column the texts that were found, where its categories are not known."""
        readers = {"number": self._number, "boolean": self._boolean, "category": self._category}
        self.readers = [readers[kind.holds](k) for k, kind in enumerate(kinds)]

    def sorted_kinds(self, x: Array) -> tuple[Kind, ...]:
        """The kinds with the categories that were found, in natural order, as which `x` has them now."""
        kinds = list(self._kinds)
        for k, kind in enumerate(kinds):
            if kind.holds == "category" and kind.categories is None:
                names = category_names(self._categories[k], kind.blank)
                kinds[k] = kind._replace(categories=sorted_categories(x[:, k], names))
        return tuple(kinds)

    def _number(self, k: int) -> Callable[[str], float]:
        blank = self._kinds[k].blank

        def read(cell: str) -> float:
            if blank and (not (text := cell.strip()) or text in BLANK_WORDS):
                return math.nan
            number = number_in(cell)
            if number is None:
                raise ValueError
            if blank and not math.isfinite(number):  # NaN is a blank then
                raise ValueError(NOT_FINITE)
            return number

        return read

    def _boolean(self, k: int) -> Callable[[str], float]:
        blank = self._kinds[k].blank

        def read(cell: str) -> float:
            text = cell.strip()
            if blank and (not text or text in BLANK_WORDS):
                return math.nan
            if (value := TRUTH_VALUES.get(text.lower())) is None:
                raise ValueError
            return value

        return read

    def _category(self, k: int) -> Callable[[str], float]:
        kind, found = self._kinds[k], self._categories[k]
        code = None if kind.categories is None else coder(kind)

        def read(cell: str) -> float:
            text = cell.strip()
            if not text:
                if kind.blank:
                    return math.nan
                raise ValueError
            return code(text) if code else found.setdefault(text, float(len(found)))

        return read


def found_delimiter(beginning: bytes, where: str) -> str:
    """The delimiter of a table that begins with these bytes, by its header and its first rows; a comma where
    there is none. Raises `UserError` (status 3) where it may be one or another."""
    text = beginning.decode("utf-8-sig", "replace")
    counts = {}
    for delimiter in DELIMITERS:
        lines = text.splitlines(keepends=True)
        try:
            rows = [row for row in islice(csv.reader(lines, delimiter=delimiter), SAMPLE + 1) if row]
        except csv.Error:
            continue
        if rows and len(rows[0]) > 1:
            counts[delimiter] = [len(row) for row in rows]
    if len(counts) <= 1:
        return next(iter(counts), ",")
    even = [delimiter for delimiter, cells in counts.items() if len(set(cells[:-1] or cells)) == 1]
    if len(even) == 1:
        return even[0]
    words = " or ".join(repr(delimiter) for delimiter in even or counts)
    what = f"cells may be separated by {words}"
    raise data_error(f"{where}, line 1", what, f"say which: data.delimiter={typed(next(iter(counts)))}")


def typed(delimiter: str) -> str:
    """A delimiter as a person types it."""
    return {"\t": "tab", ";": "\"';'\"", "|": "\"'|'\"", ",": "\"','\""}.get(delimiter, delimiter)


class TextRows:
    """Rows of lines of text, by Python's reader: what they hold, or a `UserError` (status 3) that says where
    they hold something else."""

    def __init__(
        self,
        lines: Iterable[str],
        delimiter: str,
        where: str,
        lines_before: int = 0,
        training: bool = False,
    ) -> None:
        """`where` names the file, of which `lines_before` lines come before these. `training`: whether keys
        of the data can change how cells are read."""
        self.where, self.delimiter, self._before, self._training = where, delimiter, lines_before, training
        self.reader = csv.reader(self._checked(lines), delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """The number, in the file, of the last line that was read."""
        return self._before + self.reader.line_num

    def _checked(self, lines: Iterable[str]) -> Iterator[str]:
        for number, line in enumerate(lines, start=self._before + 1):
            if "\0" in line:
                location = f"{self.where}, line {number}"
                raise data_error(location, "contains a NUL byte", "export it again as text")
            yield line

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Faults of the text, with their place."""
        try:
            yield
        except UnicodeDecodeError as e:
            byte = e.object[e.start]
            raise data_error(self.where, f"is not UTF-8 (byte 0x{byte:02x})", "save it as UTF-8") from e
        except csv.Error as e:
            what = "a quote is opened and never closed" if "end of data" in str(e) else str(e)
            raise data_error(f"{self.where}, line {self.line}", what, "fix the file") from e

    def header(self) -> list[str]:
        """The names in the first line: each different, none blank."""
        with self._explained():
            header = [name.strip() for name in next(self.reader, [])]
        if not header:
            raise data_error(self.where, "has no header line", "name the columns in the first line")
        if header[0].lower().startswith("sep=") and not any(header[1:]):
            what = "is no header: it tells a spreadsheet what separates cells"
            raise data_error(f"{self.where}, line 1", what, "delete this line")
        counts = Counter(header)
        for name in header:
            if not name:
                raise data_error(f"{self.where}, line 1", "a column has no name", "name every column")
            if counts[name] > 1:
                raise data_error(f"{self.where}, line 1", f"column {name!r} is duplicated", "rename one")
        if len(header) == 1:
            guess = next((d for d in ";\t|," if d in header[0] and d != self.delimiter), None)
            if guess:
                raise data_error(
                    f"{self.where}, line 1",
                    f"has only one column when split at {self.delimiter!r}",
                    f"try data.delimiter={typed(guess)}",
                )
        return header

    def _rows(self, n_cells: int) -> Iterator[list[str]]:
        """All rows that follow, but for blank lines, each with so many cells."""
        with self._explained():
            for row in self.reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if len(row) != n_cells:
                    cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                    what = f"has {cells} where the header has {n_cells}"
                    raise data_error(f"{self.where}, line {self.line}", what, "fix the row")
                yield row

    def kinds(self, layout: Layout) -> tuple[Kind, ...]:
        """The kinds of the features by all rows that follow: those of kind `any` by their cells."""
        kinds = layout.kinds_of_features
        found = [k for k, kind in enumerate(kinds) if kind.holds == "any"]
        positions = [layout.features[k] for k in found]
        numbers, texts, booleans = ([0] * len(found) for _ in range(3))
        for row in self._rows(len(layout.header)):
            for i, position in enumerate(positions):
                cell = row[position].strip()
                if not cell or cell in BLANK_WORDS:
                    continue
                if number_in(cell) is not None:
                    numbers[i] += 1
                else:
                    texts[i] += 1
                    booleans[i] += cell.lower() in TRUTH_VALUES
        held = list(kinds)
        for i, k in enumerate(found):
            held[k] = kind_of(numbers[i], texts[i], booleans[i], kinds[k].blank)
        return tuple(held)

    def table(self, layout: Layout, blank_labels: bool = False) -> Table:
        """All rows that follow; none need follow. `blank_labels` lets a row have no label."""
        values, labels, line_numbers = array("d"), [], array("L")
        header, kinds = layout.header, layout.kinds_of_features
        cells = _Cells(kinds)
        plain = all(kind == NUMBER for kind in kinds)
        for row in self._rows(len(header)):
            if layout.label is not None:
                label = row[layout.label].strip()
                if not (label or blank_labels):
                    location = f"{self.where}, line {self.line}, column {header[layout.label]!r}"
                    todo = "fill it in, or use data.missing=drop_rows"
                    raise data_error(location, "blank label", todo)
                labels.append(label)
            line_numbers.append(self.line)
            features = [row[k] for k in layout.features]
            if not plain:
                try:
                    values.extend([read(cell) for read, cell in zip(cells.readers, features, strict=True)])
                except ValueError:
                    self._explain_row(features, layout)
                continue
            try:
                values.extend(map(float, features))
            except ValueError:
                self._explain_row(features, layout)
            if "_" in (joined := "".join(features)) or not joined.isascii():
                self._explain_row(features, layout)  # float() takes 1_0 and other scripts' digits

        x = np.frombuffer(values, dtype=np.float64).reshape(len(line_numbers), len(layout.features))
        strict = [k for k, kind in enumerate(kinds) if kind.holds == "number" and not kind.blank]
        if not np.isfinite(x[:, strict]).all():
            row_number, k = np.argwhere(~np.isfinite(x[:, strict]))[0]
            k = strict[k]
            name, what = layout.columns[k], f"{x[row_number, k]} is not a finite number"
            location = f"{self.where}, line {line_numbers[row_number]}, column {name!r}"
            fault: Fault = "blank" if np.isnan(x[row_number, k]) else "infinite"
            raise data_error(location, what, cures(fault, name, layout, self._training))
        code = {label: k for k, label in enumerate(dict.fromkeys(labels))}
        codes = np.array([code[label] for label in labels], dtype=np.int64)
        return Table(x, codes, list(code), layout.columns, cells.sorted_kinds(x))

    def _explain_row(self, features: list[str], layout: Layout) -> None:
        """Raise what is wrong with the first cell that is not what its column holds, if there is one."""
        readers = _Cells(layout.kinds_of_features).readers
        for name, kind, cell, read in zip(
            layout.columns, layout.kinds_of_features, features, readers, strict=True
        ):
            try:
                read(cell)
            except ValueError as e:
                location = f"{self.where}, line {self.line}, column {name!r}"
                what, fault = _fault(cell, kind, str(e))
                todo = cures(fault, name, layout, self._training)
                raise CellError(location, what, todo, DATA) from None


def _fault(cell: str, kind: Kind, reason: str) -> tuple[str, Fault]:
    """What is wrong with a cell, in words, and of which sort that is."""
    text = cell.strip()
    if not text:
        return "blank cell", "blank"
    if reason == NOT_FINITE:
        return f"{number_in(text)} is not a finite number", "infinite"
    what = "neither true nor false" if kind.holds == "boolean" else "not a number"
    return f"{cell!r} is {what}", "blank" if text in BLANK_WORDS else "text"
