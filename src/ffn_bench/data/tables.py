"""A person's own table: a CSV file with a header."""

from __future__ import annotations

import csv
import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
import psutil

from ffn_bench.configuration.schema import (
    CsvConfig,
    DataConfig,
)
from ffn_bench.data.plain_csv import Table, read_plain
from ffn_bench.data.splitting import Raw
from ffn_bench.errors import data_error, nearest

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
    size = _check_file(path)
    table = read_plain(path, config.delimiter, config.target) if size >= POLARS_BYTES else None
    return _with_classes(read_carefully(path, config) if table is None else table, config)


def read_carefully(path: Path, config: CsvConfig) -> Table:
    """The rows of any file that is a table, or the `UserError` (status 3) that says where it is none."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            return _read_table(file, config)
        except UnicodeDecodeError as e:
            byte = e.object[e.start]
            raise data_error(config.path, f"is not UTF-8 (byte 0x{byte:02x})", "save it as UTF-8") from e


def expanded(path: str, key: str) -> Path:
    """A path with `~` written out. Raises `UserError` (status 3) for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise data_error(key, f"{path}: this user does not exist", "write the path in full") from e


def _check_file(path: Path) -> int:
    """The size of a file that can be read, in bytes."""
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
    available = psutil.virtual_memory().available
    if status.st_size > available:
        raise data_error(
            str(path),
            f"has {status.st_size / 1e9:.1f} GB, more than the {available / 1e9:.1f} GB of free memory",
            "train on a sample of its rows",
        )
    return status.st_size


def _read_table(file: IO[str], config: CsvConfig) -> Table:
    where = config.path

    def lines() -> Iterator[str]:
        for number, line in enumerate(file, start=1):
            if "\0" in line:
                raise data_error(f"{where}, line {number}", "contains a NUL byte", "export it again as text")
            yield line

    reader = csv.reader(lines(), delimiter=config.delimiter, strict=True)
    values, labels, line_numbers = array("d"), [], array("L")
    try:
        header = [name.strip() for name in next(reader, [])]
        target = _check_header(header, config)
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            location = f"{where}, line {reader.line_num}"
            if len(row) != len(header):
                cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                raise data_error(location, f"has {cells} where the header has {len(header)}", "fix the row")
            label = row.pop(target).strip()
            if not label:
                raise data_error(
                    f"{location}, column {header[target]!r}", "blank label", "fill it in or drop the row"
                )
            labels.append(label)
            line_numbers.append(reader.line_num)
            try:
                values.extend(map(float, row))
            except ValueError:
                _explain_row(row, header, target, location)
            if "_" in (cells := "".join(row)) or not cells.isascii():
                _explain_row(row, header, target, location)  # float() takes 1_0 and other scripts' digits
    except csv.Error as e:
        what = "a quote is opened and never closed" if "end of data" in str(e) else str(e)
        raise data_error(f"{where}, line {reader.line_num}", what, "fix the file") from e

    if not labels:
        raise data_error(where, "has a header and no rows", "add rows")
    x = np.frombuffer(values, dtype=np.float64).reshape(len(labels), len(header) - 1)
    if not np.isfinite(x).all():
        row_number, column = np.argwhere(~np.isfinite(x))[0]
        name = [h for k, h in enumerate(header) if k != target][column]
        raise data_error(
            f"{where}, line {line_numbers[row_number]}, column {name!r}",
            f"{x[row_number, column]} is not a finite number",
            "fill it in or drop the row",
        )
    code = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return Table(x, np.array([code[label] for label in labels], dtype=np.int64), list(code))


def _with_classes(table: Table, config: CsvConfig) -> Raw:
    """The table with its labels as classes in their natural order (numbers by value)."""
    classes, where = sorted(table.labels), config.path
    try:
        classes.sort(key=float)
    except ValueError:
        classes.sort()
    if len(classes) == 1:
        raise data_error(
            where, f"column {config.target!r} has only one class, {classes[0]!r}", "give two or more"
        )
    if len(classes) > max(20, len(table.x) // 2):
        raise data_error(
            where,
            f"column {config.target!r} has {len(classes)} different labels in {len(table.x)} rows",
            "choose a column of classes (measured quantities are not classes)",
        )
    number = {label: k for k, label in enumerate(classes)}
    return Raw(table.x, np.array([number[label] for label in table.labels])[table.codes], tuple(classes))


def _check_header(header: list[str], config: CsvConfig) -> int:
    """The position of the target column."""
    if not header:
        raise data_error(config.path, "has no header line", "name the columns in the first line")
    counts = Counter(header)
    for name in header:
        if not name:
            raise data_error(f"{config.path}, line 1", "a column has no name", "name every column")
        if counts[name] > 1:
            raise data_error(f"{config.path}, line 1", f"column {name!r} is duplicated", "rename one")
    if len(header) == 1:
        guess = next((d for d in ";\t|," if d in header[0] and d != config.delimiter), None)
        if guess:
            shown = {"\t": "tab", ";": "\"';'\"", "|": "\"'|'\""}.get(guess, guess)
            raise data_error(
                f"{config.path}, line 1",
                f"has only one column when split at {config.delimiter!r}",
                f"try data.delimiter={shown}",
            )
        raise data_error(f"{config.path}, line 1", "has only one column", "give features and a target")
    if config.target not in header:
        columns = ", ".join(header[:20]) + (", …" if len(header) > 20 else "")
        raise data_error(
            "data.target",
            f"{config.path} has no column {config.target!r}{nearest(config.target, header)}",
            f"its columns: {columns}",
        )
    return header.index(config.target)


def _explain_row(row: list[str], header: list[str], target: int, location: str) -> None:
    names = [name for k, name in enumerate(header) if k != target]
    for name, cell in zip(names, row, strict=True):
        try:
            float(cell if cell.isascii() and "_" not in cell else "")
        except ValueError:
            what = "blank cell" if not cell.strip() else f"{cell!r} is not a number"
            raise data_error(f"{location}, column {name!r}", what, "features must be numbers") from None
