"""Frames of Polars or pandas, given by a program or read from a file, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.data.columns import (
    TRUTH_VALUES,
    Fault,
    Kind,
    Layout,
    Table,
    category_names,
    coder,
    cures,
    number_name,
    sorted_categories,
    without,
)
from ffn_bench.errors import UserError, data_error

Array = npt.NDArray[Any]
NUMERIC = "biuf"
"""Kinds of NumPy's types that are numbers."""
WIDE = ("Decimal", "Int128", "UInt128")
"""Polars' types of numbers that NumPy does not have."""
REAL = (Real, Decimal, np.bool_)
"""Classes of objects that are numbers."""
BLANK = "blank cell"


def is_frame(data: object) -> bool:
    """Whether this is a frame of Polars or pandas, and not a lazy one, which has no rows yet."""
    module = type(data).__module__.partition(".")[0]
    return module in ("polars", "pandas") and hasattr(type(data), "columns") and not is_lazy(data)


def is_lazy(data: object) -> bool:
    """Whether this is a lazy frame."""
    return hasattr(data, "collect")


def names_of(frame: Any, where: str) -> tuple[str, ...]:
    """Names of a frame's columns as text, stripped: pandas numbers them where they are not named. Raises
    `UserError` where two are the same, one is empty, and for text that no file can hold."""
    names = tuple(str(name).strip() for name in frame.columns)
    if not all(names):
        raise data_error(where, "a column has no name", "name every column")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise data_error(where, f"column {twice!r} is duplicated", "rename one")
    check_text(names, f"{where}, name of a column")
    return names


def check_text(texts: Iterable[str], where: str) -> None:
    """Raise `UserError` for a lone surrogate, which UTF-8 has no bytes for."""
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise data_error(where, f"{text!r:.60} cannot be written as UTF-8", "rename it")


def features_of(frame: Any, layout: Layout, where: str, training: bool = True) -> Table:
    """The features of a frame, without its labels. Columns of kind `any` hold what their types say, and
    objects what each of them is. `training`: whether keys of the data can change how cells are read.

    Raises `UserError` (status 3), naming row and column, for a cell that is not what its column holds.
    """
    x = np.empty((len(frame), len(layout.features)))
    kinds = []
    for k, (position, name) in enumerate(zip(layout.features, layout.columns, strict=True)):
        column = _Column(frame[frame.columns[position]], name, where, layout, training)
        kinds.append(column.write(layout.kinds_of_features[k], x[:, k]))
    return Table(x, np.empty(0, np.int64), [], layout.columns, tuple(kinds))


def table_of(
    frame: Any, layout: Layout, where: str, blank_labels: bool = False, training: bool = True
) -> Table:
    """The features and labels of a frame: see `features_of` and `labels_of`; a blank label is empty text."""
    table = features_of(frame, layout, where, training)
    if layout.label is None:
        return table
    values = cells_of(frame[frame.columns[layout.label]])
    blank = np.array(
        [is_blank(v) or _is_nan(v) or (isinstance(v, str) and not v.strip()) for v in values.tolist()]
    )
    column = f"column {layout.header[layout.label]!r}"
    if blank.any() and not blank_labels:
        todo = "fill it in, or use data.missing=drop_rows"
        raise data_error(f"{where}, row {int(blank.argmax())}, {column}", "blank label", todo)
    if not (blank_labels and blank.any()):
        labels, codes = np.unique(labels_of(values, f"{where}, {column}"), return_inverse=True)
        return table._replace(codes=codes.astype(np.int64), labels=named(labels, column))
    codes = np.zeros(len(values), np.int64)
    names: list[str] = []
    if not blank.all():
        labels, present = np.unique(labels_of(values[~blank], f"{where}, {column}"), return_inverse=True)
        names, codes[~blank] = named(labels, column), present + 1
    return table._replace(codes=codes, labels=["", *names])


def named(labels: Array, where: str) -> list[str]:
    """Labels as names of classes."""
    names = list(map(str, labels.tolist()))
    check_text(names, f"{where}, label")
    return names


def cells_of(column: Any) -> Array:
    """The values of a frame's column, those of `WIDE` types as floats; None where a null of Polars or pandas
    would become NaN."""
    if _is_of_polars(column) and str(column.dtype).startswith(WIDE):
        import polars as pl

        column = column.cast(pl.Float64)
    values: Array = column.to_numpy()
    if isinstance(column.dtype, np.dtype):  # of pandas: its NaN is one
        return values
    missing = (column.is_null() if hasattr(column, "is_null") else column.isna()).to_numpy()
    if missing.any():
        values = values.astype(object)
        values[missing] = None
    return values


def _is_of_polars(column: Any) -> bool:
    return type(column).__module__.startswith("polars")


def is_blank(value: object) -> bool:
    """Whether this object stands for a missing value: None, and pandas' NA, which equals nothing."""
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


class _Column:
    """A column's values, as what it holds."""

    def __init__(self, column: Any, name: str, where: str, layout: Layout, training: bool) -> None:
        self.values, self.name, self.where = cells_of(column), name, where
        self._layout, self._training = layout, training
        self._type = str(column.dtype)
        self._is_categorical = type(column.dtype).__name__ == "CategoricalDtype"
        """Whether pandas says so; Polars' categories are texts."""

    def write(self, kind: Kind, out: Array) -> Kind:
        """Write what the column holds to `out [n]`, see `Kind`, and return the kind."""
        if self.values.ndim != 1 or self.values.dtype.kind not in (*NUMERIC, *"OSU"):
            raise self._no_cells(f"{self.where}, column {self.name!r}")
        of_any = kind.holds == "any"
        if of_any:
            kind = kind._replace(holds=self._holds())
        if kind.holds == "category":
            return self._categories(kind, out, by_value=not of_any)
        if self.values.dtype.kind in NUMERIC:
            with np.errstate(over="ignore", invalid="ignore"):
                out[:] = self.values
        else:
            for row, value in enumerate(self.values.tolist()):
                out[row] = self._number(row, value, kind)
        self._check_numbers(kind, out)
        return kind

    def _error(self, row: int, what: str, fault: Fault = "text") -> UserError:
        todo = cures(fault, self.name, self._layout, self._training)
        return data_error(f"{self.where}, row {row}, column {self.name!r}", what, todo)

    def _no_cells(self, where: str, value: object = None) -> UserError:
        """The error of a type, or of a value, that is neither a number nor text."""
        module = type(value).__module__
        dates = self.values.dtype.kind in "mM" or module.startswith(("datetime", "pandas._libs.tslibs"))
        of = type(value).__name__ if self._type in ("object", "Object") else self._type
        what = f"has the type {of}{', dates or times,' if dates else ','} which is neither a number nor text"
        todo = "turn it into numbers or text"
        if self._training and self._layout.is_feature(self.name):
            todo += f", or {without(self.name)}"
        return data_error(where, what, todo)

    def _holds(self) -> Any:
        """What a column holds by its type, and objects by theirs: text is a category."""
        if self._is_categorical:
            return "category"
        if self.values.dtype.kind in NUMERIC:
            return "boolean" if self.values.dtype.kind == "b" else "number"
        present = [value for value in self.values.tolist() if not (is_blank(value) or _is_nan(value))]
        n_texts = sum(isinstance(value, str) for value in present)
        if n_texts and n_texts >= len(present) - n_texts:
            return "category"
        return "boolean" if present and all(isinstance(value, bool) for value in present) else "number"

    def _number(self, row: int, value: Any, kind: Kind) -> float:
        if is_blank(value):
            if kind.blank:
                return math.nan
            raise self._error(row, BLANK, "blank")
        if isinstance(value, str):
            if kind.holds == "boolean" and value.strip().lower() in TRUTH_VALUES:
                return TRUTH_VALUES[value.strip().lower()]
            what = "neither true nor false" if kind.holds == "boolean" else "not a number"
            raise self._error(row, f"{value!r:.60} is {what}")
        if not isinstance(value, REAL):
            raise self._no_cells(f"{self.where}, row {row}, column {self.name!r}", value)
        try:
            return float(value)
        except OverflowError:
            raise self._error(row, f"{value!r:.60} is not a finite number", "infinite") from None

    def _check_numbers(self, kind: Kind, out: Array) -> None:
        """Raise `UserError` for what is not finite, or neither true nor false."""
        finite = np.isfinite(out) | (np.isnan(out) if kind.blank else False)
        if not finite.all():
            row = int(np.argmin(finite))
            fault: Fault = "blank" if np.isnan(out[row]) else "infinite"
            raise self._error(row, f"{out[row]} is not a finite number", fault)
        if kind.holds == "boolean":
            truth = (out == 0) | (out == 1) | np.isnan(out)
            if not truth.all():
                row = int(np.argmin(truth))
                raise self._error(row, f"{out[row]:g} is neither true nor false")
        out[np.isnan(out)] = np.nan  # one of them, for equal rows have equal bytes

    def _categories(self, kind: Kind, out: Array, by_value: bool) -> Kind:
        """Categories, `by_value` where texts that are all numbers are categories as numbers are."""
        code = None if kind.categories is None else coder(kind)
        places: dict[str, float] = {}
        for row, value in enumerate(self.values.tolist()):
            if is_blank(value) or _is_nan(value) or not (text := self._text(row, value)):
                if not kind.blank:
                    raise self._error(row, BLANK, "blank")
                out[row] = math.nan
            else:
                out[row] = code(text) if code else places.setdefault(text, float(len(places)))
        if code:
            return kind
        check_text(places, f"{self.where}, column {self.name!r}")
        names = category_names(places, kind.blank) if by_value else {text: text for text in places}
        return kind._replace(categories=sorted_categories(out, names))

    def _text(self, row: int, value: Any) -> str:
        """The name of a category: a number's without decimals where it has none."""
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, bool) or (self._is_categorical and not isinstance(value, REAL)):
            return str(value)
        if not isinstance(value, REAL):
            raise self._no_cells(f"{self.where}, row {row}, column {self.name!r}", value)
        return number_name(str(value)) or str(value)


def _check_label(value: object, where: str) -> None:
    """Raise `UserError` for an object that is no label."""
    if isinstance(value, bytes):
        raise data_error(where, f"{value!r:.60} is bytes, not text", "decode the labels")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise data_error(where, f"{value!r:.60} has more than 64 bits", "make the labels text")
    if is_blank(value) or (isinstance(value, float) and math.isnan(value)):
        raise data_error(where, "blank label", "fill it in or drop the row")
    if not isinstance(value, (str, bool, int, float, np.generic)):
        raise data_error(where, f"{value!r:.60} is not a label", "give text or integers")


def labels_of(labels: Array, where: str) -> Array:
    """Labels `[n]` of one kind, none of them missing."""
    if labels.dtype.kind == "O":
        values = labels.tolist()
        kinds = {type(value) for value in values}
        for row, value in enumerate(values):
            _check_label(value, f"{where}, row {row}")
        values = [value.strip() if isinstance(value, str) else value for value in values]
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
    if labels.dtype.kind == "U":
        labels = np.char.strip(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "biufUS":
        of = f"{labels.dtype} are" if labels.ndim == 1 else "several values a row are"
        raise data_error(where, f"{of} no labels", "give text or integers")
    return labels
