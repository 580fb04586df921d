"""Rows and labels that a person's program hands over: NumPy arrays, or a frame of Polars or pandas."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ffn_bench.configuration.schema import ArraysConfig, DataConfig
from ffn_bench.data.columns import NUMBER, Layout, Table, check_categories
from ffn_bench.data.frames import (
    BLANK,
    NUMERIC,
    features_of,
    is_blank,
    is_frame,
    is_lazy,
    labels_of,
    named,
    names_of,
    table_of,
)
from ffn_bench.data.kept import given
from ffn_bench.data.preparation import categories_of
from ffn_bench.data.rows import Array, Raw
from ffn_bench.data.tables import Columns, classes_of, listed
from ffn_bench.errors import data_error, first_line, nearest


def load_arrays(config: DataConfig) -> Raw:
    """What was given to `ffn_bench.fit`. Raises `UserError` (status 3) where it is there no more: in a
    command, or in a later call."""
    config, raw = cast(ArraysConfig, config), given()
    if raw is None or digest(raw) != config.sha256:
        what = "were given as arrays in Python, and cannot be loaded again"
        raise data_error("data", what, "give them to ffn_bench.fit, or save them and train with data=csv")
    return cast(Raw, raw)


def digest(raw: Raw) -> str:
    """SHA-256 of rows, labels or targets, weights, and the names of classes, columns, targets, categories."""
    names = (raw.classes, raw.columns, raw.x.shape, *([raw.targets] if raw.targets else []))
    content = hashlib.sha256(repr(names).encode())
    for array in (raw.x, raw.y, raw.weights):
        if array is not None:
            content.update(np.ascontiguousarray(array).data)
    if categories := categories_of(raw.kinds):
        content.update(repr(categories).encode())
    return content.hexdigest()


def keys_of(raw: Raw) -> dict[str, Any]:
    """The keys of a run that trains on these rows."""
    task = {"data.task": "regression"} if raw.targets else {}
    return {"data": "arrays", "data.sha256": digest(raw), **task}


def raw_of(data: Any, target: str | Sequence[str] | None, config: ArraysConfig | None = None) -> Raw:
    """The data set of a pair (X, y), or of a frame whose column `target` has the labels; `config` says what
    is done with a frame's columns.

    X is `[n, n_features]`, numbers, or a frame; y `[n]`, labels of any kind, which become classes in their
    natural order, or in a regression numbers, `[n]` or `[n, n_targets]`. Raises `UserError` (status 3) that
    says where they are something else.
    """
    config = config or ArraysConfig(name="arrays")
    if is_frame(data):
        return _framed(data, target, config)
    if is_lazy(data):
        raise data_error("data", "is a lazy frame, which has no rows yet", "give data.collect()")
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        what = f"{type(data).__name__} is neither a name, a pair (X, y) nor a frame"
        raise data_error("data", what, 'write data=(X, y), or data=frame, target="column"')
    if target is not None:
        raise data_error("target", "is given, and data is no frame", "give the labels as y: data=(X, y)")
    x, y = data
    kinds = None
    columns: tuple[str, ...] | None
    if is_frame(x):
        table = _features(x, config)
        features, columns, kinds = table.x, table.columns, table.kinds
    else:
        for key in ("missing", "drop", "categories", "weight"):
            if getattr(config, key) not in ("error", [], None):
                raise data_error(f"data.{key}", "is of the columns of a frame", "give X as a frame")
        features, columns = numbers(x)
    if config.task == "regression":
        return _regression(Raw(features, np.empty(0), (), columns=columns, kinds=kinds), y)
    labels = _labels(y, "y")
    if len(labels) != len(features):
        what = f"has {len(labels)} labels, and X has {len(features)} rows"
        raise data_error("y", what, "give a label for each row")
    if not len(features):
        raise data_error("X", "has no rows", "give some")
    values, codes = np.unique(labels, return_inverse=True)
    classes, order = classes_of(named(values, "y"), len(features), "data", "y")
    return Raw(features, order[codes], classes, columns=columns, kinds=kinds)


def _regression(raw: Raw, y: Any) -> Raw:
    """The data set of these rows with targets y, whose names are those of a frame's columns, else y, or y0,
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
    if len(table) != len(raw.x):
        what = f"has {len(table)} rows, and X has {len(raw.x)}"
        raise data_error("y", what, "give targets for each row")
    if not len(raw.x):
        raise data_error("X", "has no rows", "give some")
    return dataclasses.replace(raw, y=table, targets=names or ())


def _framed(frame: Any, target: str | Sequence[str] | None, config: ArraysConfig) -> Raw:
    """The data set of a frame."""
    names = names_of(frame, "data")
    todo = f"its columns: {listed(names)}"
    if target is None:
        raise data_error("target", "has no value", f'name the column of the labels: target="…"; {todo}')
    given = target if isinstance(target, (list, tuple)) else [target]
    targets = [str(name).strip() for name in given]
    for name in targets:
        if name not in names:
            raise data_error("target", f"the frame has no column {name!r}{nearest(name, names)}", todo)
    if config.task != "regression" and len(targets) > 1:
        raise data_error("target", f"names {len(targets)} columns", "name one, or use data.task=regression")
    columns = Columns(config, targets, "data", "target")
    if not len(frame):
        raise data_error("data", "has no rows", "give some")
    return columns.raw(table_of(frame, columns.layout(list(names)), "data", config.missing == "drop_rows"))


def _features(frame: Any, config: ArraysConfig) -> Table:
    """The features of a frame whose labels are given apart."""
    if config.weight is not None or config.missing == "drop_rows":
        key = "data.missing" if config.weight is None else "data.weight"
        raise data_error(key, "needs labels in the frame", 'give data=frame, target="column"')
    names = names_of(frame, "X")
    if not names:
        raise data_error("X", "has no columns", "give features")
    columns = Columns(config, [], "X")
    table = features_of(frame, columns.layout(list(names)), "X")
    kinds = table.kinds or ()
    check_categories(kinds, table.columns, len(table.x), "X")
    return table._replace(kinds=None if all(kind == NUMBER for kind in kinds) else kinds)


def numbers(x: Any, where: str = "X") -> tuple[Array, tuple[str, ...] | None]:
    """Rows as float64 `[n, n_features]`, C-contiguous, and the names of a frame's columns; None for arrays.
    Those of a frame must be numbers, too.

    Raises `UserError` (status 3), naming row and column, for what is not a table of finite numbers.
    """
    if is_frame(x):
        names = names_of(x, where)
        table = features_of(x, Layout(list(names), list(range(len(names))), None), where).x
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


def _array(x: Any, where: str, blank: str = BLANK) -> Array:
    if is_lazy(x):
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
        if is_blank(value) or isinstance(value, (str, bytes, complex)):
            what = BLANK if is_blank(value) else f"{value!r:.60} is not a number"
        else:
            try:
                converted[row] = float(value)
                continue
            except (TypeError, ValueError, OverflowError):
                what = f"{value!r:.60} is not a number"
        raise data_error(f"{where}, row {row}, column {name!r}", what, f"{of} must be numbers")
    return converted


def _labels(y: Any, where: str) -> Array:
    """Labels `[n]` of one kind, none of them missing."""
    labels = y.to_numpy() if hasattr(y, "to_numpy") else _array(y, where, "blank label")
    if labels.ndim != 1:
        todo = "give one label a row" + (": y.argmax(1) of one-hot rows" if labels.ndim == 2 else "")
        raise data_error(where, f"has {labels.ndim} dimensions, not 1", todo)
    return labels_of(labels, where)
