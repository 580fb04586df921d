"""A person's own table: a CSV file with a header."""

from __future__ import annotations

import csv
import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import psutil

from ffn_bench.configuration.schema import (
    CsvConfig,
    DataConfig,
)
from ffn_bench.data.plain_csv import Layout, Table, read_plain
from ffn_bench.data.splitting import Raw
from ffn_bench.errors import UserError, data_error, nearest

IntArray = npt.NDArray[np.int64]

POLARS_BYTES = 4_000_000
"""Files from this size on are worth the import of Polars (0.2 s)."""

# --- a person's own table -------------------------------------------------------------------------------


def load_csv(config: DataConfig) -> Raw:
    """A delimited text file with a header, numeric features and one label column of any kind.

    Strict: a row that is short or long, a cell that is blank, not a number or not finite, a quote left
    open, a column named twice are each an error that names line and column.
    """
    config = cast(CsvConfig, config)
    path = expanded(config.path, "data.path")
    size = check_file(path)
    if size > (available := psutil.virtual_memory().available):
        what = f"has {size / 1e9:.1f} GB, more than the {available / 1e9:.1f} GB of free memory"
        raise data_error(str(path), what, "train on a sample of its rows")
    table = read_plain(path, config.delimiter, config.target) if size >= POLARS_BYTES else None
    return _with_classes(read_carefully(path, config) if table is None else table, config)


def read_carefully(path: Path, config: CsvConfig) -> Table:
    """The rows of any file that is a table, or the `UserError` (status 3) that says where it is none."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = Rows(file, config.delimiter, config.path)
        header = reader.header()
        label = _find_target(header, config)
        features = [k for k in range(len(header)) if k != label]
        table = reader.table(Layout(header, features, label))
    if not len(table.x):
        raise data_error(config.path, "has a header and no rows", "add rows")
    return table


def expanded(path: str, key: str) -> Path:
    """A path with `~` written out. Raises `UserError` (status 3) for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise data_error(key, f"{path}: this user does not exist", "write the path in full") from e


def check_file(path: Path) -> int:
    """The size of a file that can be read, in bytes. Raises `UserError` (status 3) for anything else."""
    try:
        status = path.stat()
    except OSError as e:
        reason = "no such file" if isinstance(e, FileNotFoundError) else (e.strerror or str(e)).lower()
        raise data_error(str(path), reason, f"data.path is read from {Path.cwd()}") from e
    if stat.S_ISDIR(status.st_mode):
        raise data_error(str(path), "is a folder", "name a CSV file")
    if not stat.S_ISREG(status.st_mode):
        raise data_error(str(path), "is not a regular file", "save the table to a file first")
    if not os.access(path, os.R_OK):
        raise data_error(str(path), "cannot be read", "check its permissions")
    if status.st_size == 0:
        raise data_error(str(path), "is empty", "give it a header and rows")
    return status.st_size


class Rows:
    """Rows of lines of text, by Python's reader: what they hold, or a `UserError` (status 3) that says where
    they hold something else."""

    def __init__(self, lines: Iterable[str], delimiter: str, where: str, lines_before: int = 0) -> None:
        """`where` names the file, of which `lines_before` lines come before these."""
        self.where, self.delimiter, self._before = where, delimiter, lines_before
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
        counts = Counter(header)
        for name in header:
            if not name:
                raise data_error(f"{self.where}, line 1", "a column has no name", "name every column")
            if counts[name] > 1:
                raise data_error(f"{self.where}, line 1", f"column {name!r} is duplicated", "rename one")
        if len(header) == 1:
            guess = next((d for d in ";\t|," if d in header[0] and d != self.delimiter), None)
            if guess:
                shown = {"\t": "tab", ";": "\"';'\"", "|": "\"'|'\""}.get(guess, guess)
                raise data_error(
                    f"{self.where}, line 1",
                    f"has only one column when split at {self.delimiter!r}",
                    f"try data.delimiter={shown}",
                )
        return header

    def table(self, layout: Layout, blank_labels: bool = False) -> Table:
        """All rows that follow; none need follow. `blank_labels` lets a row have no label."""
        values, labels, line_numbers = array("d"), [], array("L")
        header = layout.header
        with self._explained():
            for row in self.reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if len(row) != len(header):
                    cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                    what = f"has {cells} where the header has {len(header)}"
                    raise data_error(f"{self.where}, line {self.line}", what, "fix the row")
                if layout.label is not None:
                    label = row[layout.label].strip()
                    if not (label or blank_labels):
                        raise self._cell_error(header[layout.label], "blank label")
                    labels.append(label)
                line_numbers.append(self.line)
                features = [row[k] for k in layout.features]
                try:
                    values.extend(map(float, features))
                except ValueError:
                    self._explain_row(features, layout)
                if "_" in (cells := "".join(features)) or not cells.isascii():
                    self._explain_row(features, layout)  # float() takes 1_0 and other scripts' digits

        x = np.frombuffer(values, dtype=np.float64).reshape(len(line_numbers), len(layout.features))
        if not np.isfinite(x).all():
            row_number, k = np.argwhere(~np.isfinite(x))[0]
            name, what = layout.columns[k], f"{x[row_number, k]} is not a finite number"
            raise self._cell_error(name, what, line_numbers[row_number])
        code = {label: k for k, label in enumerate(dict.fromkeys(labels))}
        codes = np.array([code[label] for label in labels], dtype=np.int64)
        return Table(x, codes, list(code), layout.columns)

    def _cell_error(self, column: str, what: str, line: int | None = None) -> UserError:
        location = f"{self.where}, line {self.line if line is None else line}, column {column!r}"
        return data_error(location, what, "fill it in or drop the row")

    def _explain_row(self, cells: list[str], layout: Layout) -> None:
        """Raise what is wrong with the first cell that is no number, if there is one."""
        for name, cell in zip(layout.columns, cells, strict=True):
            try:
                float(cell if cell.isascii() and "_" not in cell else "")
            except ValueError:
                what = "blank cell" if not cell.strip() else f"{cell!r} is not a number"
                location = f"{self.where}, line {self.line}, column {name!r}"
                raise data_error(location, what, "features must be numbers") from None


def _with_classes(table: Table, config: CsvConfig) -> Raw:
    """The table with its labels as classes."""
    classes, numbers = classes_of(table.labels, len(table.x), config.path, f"column {config.target!r}")
    return Raw(table.x, numbers[table.codes], classes, columns=table.columns)


def classes_of(
    labels: Sequence[str], n_rows: int, where: str, column: str
) -> tuple[tuple[str, ...], IntArray]:
    """Different labels in their natural order (numbers by value), and for each one given its number there.

    Raises `UserError` (status 3) where they are no classes of so many rows; `column` is what has them.
    """
    classes = sorted(labels)
    try:
        classes.sort(key=float)
    except ValueError:
        classes.sort()
    if len(classes) == 1:
        raise data_error(where, f"{column} has only one class, {classes[0]!r}", "give two or more")
    if len(classes) > max(20, n_rows // 2):
        what = f"{column} has {len(classes)} different labels in {n_rows} rows"
        todo = "choose a column of classes (measured quantities are not classes)"
        raise data_error(where, what, todo)
    number = {label: k for k, label in enumerate(classes)}
    return tuple(classes), np.array([number[label] for label in labels])


def _find_target(header: list[str], config: CsvConfig) -> int:
    """The position of the target column, beside which there must be others."""
    if len(header) == 1:
        raise data_error(f"{config.path}, line 1", "has only one column", "give features and a target")
    if config.target not in header:
        raise data_error(
            "data.target",
            f"{config.path} has no column {config.target!r}{nearest(config.target, header)}",
            f"its columns: {listed(header)}",
        )
    return header.index(config.target)


def listed(names: Sequence[str]) -> str:
    """Names of columns, as far as a line holds them."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
