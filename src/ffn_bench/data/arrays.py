"""Rows and labels that a person's program hands over: NumPy arrays, or a frame of Polars or pandas."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from ffn_bench.configuration.schema import ArraysConfig, DataConfig
from ffn_bench.data.kept import given
from ffn_bench.data.splitting import Array, Raw
from ffn_bench.data.tables import classes_of, listed
from ffn_bench.errors import data_error, first_line, nearest

NUMERIC = "biuf"
"""Kinds of NumPy's types that are numbers."""
BLANK = "blank cell"


def load_arrays(config: DataConfig) -> Raw:
    """What was given to `ffn_bench.fit`. Raises `UserError` (status 3) where it is there no more: in a
    command, or in a later call."""
    config, raw = cast(ArraysConfig, config), given()
    if raw is None or digest(raw) != config.sha256:
        what = "were given as arrays in Python, and cannot be loaded again"
        raise data_error("data", what, "give them to ffn_bench.fit, or save them and train with data=csv")
    return cast(Raw, raw)


def digest(raw: Raw) -> str:
    """SHA-256 of rows, labels or targets, and the names of classes, columns and targets."""
    names = (raw.classes, raw.columns, raw.x.shape, *([raw.targets] if raw.targets else []))
    content = hashlib.sha256(repr(names).encode())
    for array in (raw.x, raw.y):
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def keys_of(raw: Raw) -> dict[str, Any]:
    """The keys of a run that trains on these rows."""
    task = {"data.task": "regression"} if raw.targets else {}
    return {"data": "arrays", "data.sha256": digest(raw), **task}


def is_frame(data: object) -> bool:
    """Whether this is a frame of Polars or pandas, and not a lazy one, which has no rows yet."""
    module = type(data).__module__.partition(".")[0]
    return module in ("polars", "pandas") and hasattr(type(data), "columns") and not _is_lazy(data)


def _is_lazy(data: object) -> bool:
    return hasattr(data, "collect")


def raw_of(data: Any, target: str | None, config: ArraysConfig | None = None) -> Raw:
    """The data set of a pair (X, y), or of a frame whose column `target` has the labels.

    X is `[n, n_features]`, numbers; y `[n]`, labels of any kind, which become classes in their natural order.
    In a regression, as `config` says, y is numbers, `[n]` or `[n, n_targets]`.
    Raises `UserError` (status 3) that says where they are something else.
    """
    if is_frame(data):
        x, y, where = *_apart(data, target), f"column {str(target)!r}"
    elif _is_lazy(data):
        raise data_error("data", "is a lazy frame, which has no rows yet", "give data.collect()")
    else:
        if not (isinstance(data, (tuple, list)) and len(data) == 2):
            what = f"{type(data).__name__} is neither a name, a pair (X, y) nor a frame"
            raise data_error("data", what, 'write data=(X, y), or data=frame, target="column"')
        if target is not None:
            raise data_error("target", "is given, and data is no frame", "give the labels as y: data=(X, y)")
        (x, y), where = data, "y"
    features, columns = numbers(x)
    if config is not None and config.task == "regression" and where == "y":
        return _regression(features, columns, y)
    labels = _labels(y, where)
    if len(labels) != len(features):
        what = f"has {len(labels)} labels, and X has {len(features)} rows"
        raise data_error(where, what, "give a label for each row")
    if not len(features):
        raise data_error("X", "has no rows", "give some")
    values, codes = np.unique(labels, return_inverse=True)
    names = list(map(str, values.tolist()))
    _check_text(names, f"{where}, label")
    classes, order = classes_of(names, len(features), "data", where)
    return Raw(features, order[codes], classes, columns=columns)


def _regression(features: Array, columns: tuple[str, ...] | None, y: Any) -> Raw:
    """The data set of these rows and targets y, whose names are those of a frame's columns, else y, or y0,
    y1, …"""
    if is_frame(y):
        table, names = numbers(y, "y")
    else:
        values = y.to_numpy() if hasattr(y, "to_numpy") else _array(y, "y")
        if values.ndim not in (1, 2) or values.shape[1:] == (0,):
            what = f"has the shape {values.shape}"
            raise data_error("y", what, "give targets [n], or [n, n_targets]")
        values = values.reshape(len(values), -1)
        width = values.shape[1]
        names = ("y",) if width == 1 else tuple(f"y{k}" for k in range(width))
        if values.dtype.kind not in NUMERIC:
            columns_of_y = zip(values.T, names, strict=True)
            values = np.column_stack([_column(cells, name, "y", "targets") for cells, name in columns_of_y])
        table = _finite(values, names, "y")
    if len(table) != len(features):
        what = f"has {len(table)} rows, and X has {len(features)}"
        raise data_error("y", what, "give targets for each row")
    if not len(features):
        raise data_error("X", "has no rows", "give some")
    return Raw(features, table, (), columns=columns, targets=names or ())


def _names(frame: Any, where: str) -> tuple[str, ...]:
    """Names of a frame's columns as text: pandas numbers them where they are not named. Raises `UserError`
    where two are the same, and for text that no file can hold."""
    names = tuple(map(str, frame.columns))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise data_error(where, f"column {twice!r} is duplicated", "rename one")
    _check_text(names, f"{where}, name of a column")
    return names


def _check_text(texts: Iterable[str], where: str) -> None:
    """Raise `UserError` for a lone surrogate, which UTF-8 has no bytes for."""
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise data_error(where, f"{text!r:.60} cannot be written as UTF-8", "rename it")


def _apart(frame: Any, target: str | None) -> tuple[Any, Any]:
    """The features of a frame, as a frame, and its labels."""
    names = _names(frame, "data")
    todo = f"its columns: {listed(names)}"
    if target is None:
        raise data_error("target", "has no value", f'name the column of the labels: target="…"; {todo}')
    target = str(target)
    if target not in names:
        raise data_error("target", f"the frame has no column {target!r}{nearest(target, names)}", todo)
    others = [name for name in frame.columns if str(name) != target]
    return frame[others], frame[frame.columns[names.index(target)]]


def numbers(x: Any, where: str = "X") -> tuple[Array, tuple[str, ...] | None]:
    """Rows as float64 `[n, n_features]`, C-contiguous, and the names of a frame's columns; None for arrays.

    Raises `UserError` (status 3), naming row and column, for what is not a table of finite numbers.
    """
    if is_frame(x):
        names = _names(x, where)
        columns = [_column(_cells(x[name]), str(name), where) for name in x.columns]
        table = np.column_stack(columns) if columns else np.empty((len(x), 0))
    else:
        names = None
        table = _array(x, where)
        if table.ndim != 2:
            shape = "×".join(map(str, table.shape)) or "a single number"
            todo = "give rows [n, n_features]: X.reshape(len(X), -1)" if table.ndim > 2 else "give rows"
            raise data_error(where, f"has {table.ndim} dimensions ({shape}), not 2", todo)
        if table.dtype.kind not in NUMERIC:
            table = np.column_stack([_column(column, f"x{k}", where) for k, column in enumerate(table.T)])
    if table.shape[1] == 0:
        raise data_error(where, "has no columns", "give features")
    return _finite(table, names, where), names


def _finite(numbers: Array, names: Sequence[str] | None, where: str) -> Array:
    """The same as float64, C-contiguous. Raises `UserError` where a number is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        table = np.ascontiguousarray(numbers, dtype=np.float64)
    if not (finite := np.isfinite(table)).all():
        row, k = np.argwhere(~finite)[0]
        column = names[k] if names else f"x{k}"
        what = f"{table[row, k]} is not a finite number"
        raise data_error(f"{where}, row {row}, column {column!r}", what, "fill it in or drop the row")
    return table


def check_masked(x: Any, where: str, what: str = BLANK) -> None:
    """Raise `UserError` (status 3) where an array has masked values: NumPy drops masks without a word."""
    if np.ma.is_masked(x):
        row, *column = np.argwhere(np.ma.getmaskarray(x))[0].tolist()
        at = "".join(f", column '{where.lower()}{k}'" for k in column[:1])
        raise data_error(f"{where}, row {row}{at}", f"{what} (masked)", "fill it in or drop the row")


def _cells(column: Any) -> Array:
    """The values of a frame's column; None where a null of Polars or pandas would become NaN."""
    values: Array = column.to_numpy()
    if isinstance(column.dtype, np.dtype):  # of pandas: its NaN is one
        return values
    missing = (column.is_null() if hasattr(column, "is_null") else column.isna()).to_numpy()
    if missing.any():
        values = values.astype(object)
        values[missing] = None
    return values


def _is_blank(value: object) -> bool:
    """Whether this object stands for a missing value: None, and pandas' NA, which equals nothing."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _array(x: Any, where: str, blank: str = BLANK) -> Array:
    if _is_lazy(x):
        raise data_error(where, "is a lazy frame, which has no rows yet", f"give {where}.collect()")
    check_masked(x, where, blank)
    if hasattr(x, "toarray"):
        raise data_error(where, "is a sparse matrix", f"give {where}.toarray()")
    try:
        array = np.asarray(x)
        return (
            np.asarray(x, dtype=object) if array.dtype.kind in "SU" else array
        )  # numbers beside text stay some
    except ValueError as e:
        raise data_error(where, "has rows of different lengths", "give each as many numbers") from e
    except (RuntimeError, TypeError) as e:  # such as a tensor's on a GPU
        raise data_error(where, f"is no array: {first_line(str(e))}", "give one of NumPy's") from e


def _column(values: Array, name: str, where: str, of: str = "features") -> Array:
    """A column's numbers; those of objects one by one."""
    if values.dtype.kind in NUMERIC:
        return values
    if values.dtype.kind in "mM":
        what = f"{values.dtype} is not a number"
        raise data_error(f"{where}, column {name!r}", what, f"{of} must be numbers")
    converted = np.empty(len(values))
    for row, value in enumerate(values.tolist()):
        if _is_blank(value) or isinstance(value, (str, bytes, complex)):
            what = BLANK if _is_blank(value) else f"{value!r:.60} is not a number"
        else:
            try:
                converted[row] = float(value)
                continue
            except (TypeError, ValueError, OverflowError):
                what = f"{value!r:.60} is not a number"
        raise data_error(f"{where}, row {row}, column {name!r}", what, f"{of} must be numbers")
    return converted


def _check_label(value: object, where: str) -> None:
    """Raise `UserError` for an object that is no label."""
    if isinstance(value, bytes):
        raise data_error(where, f"{value!r:.60} is bytes, not text", "decode the labels")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise data_error(where, f"{value!r:.60} has more than 64 bits", "make the labels text")
    if _is_blank(value) or (isinstance(value, float) and math.isnan(value)):
        raise data_error(where, "blank label", "fill it in or drop the row")
    if not isinstance(value, (str, bool, int, float, np.generic)):
        raise data_error(where, f"{value!r:.60} is not a label", "give text or integers")


def _labels(y: Any, where: str) -> Array:
    """Labels `[n]` of one kind, none of them missing."""
    labels = y.to_numpy() if hasattr(y, "to_numpy") else _array(y, where, "blank label")
    if labels.ndim != 1:
        todo = "give one label a row" + (": y.argmax(1) of one-hot rows" if labels.ndim == 2 else "")
        raise data_error(where, f"has {labels.ndim} dimensions, not 1", todo)
    if labels.dtype.kind == "O":
        values = labels.tolist()
        kinds = {type(value) for value in values}
        for row, value in enumerate(values):
            _check_label(value, f"{where}, row {row}")
        if len(kinds) > 1 and str in kinds:
            what = f"labels are of several kinds: {', '.join(sorted(kind.__name__ for kind in kinds))}"
            raise data_error(where, what, "make them all text")
        labels = np.array(values)
    if labels.dtype.kind == "f":
        if (missing := ~np.isfinite(labels)).any():
            row = int(missing.argmax())
            raise data_error(f"{where}, row {row}", "blank label", "fill it in or drop the row")
        if (labels == labels.round()).all() and len(labels) and np.abs(labels).max() < 2**53:
            labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biufUS":
        raise data_error(where, f"{labels.dtype} are no labels", "give text or integers")
    return labels
