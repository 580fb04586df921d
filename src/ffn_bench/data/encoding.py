"""What becomes of a table's columns on their way into a network: categories are one-hot, blanks are filled.

All of it is fitted to the training rows once, and used for every other row as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.data.columns import UNSEEN, Holds, Kind, without
from ffn_bench.errors import data_error

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class EncodedColumn:
    """What becomes of one column."""

    holds: Holds = "number"
    categories: tuple[str, ...] = ()
    """Of a column of categories those among the training rows: an input each, 1 where it is this one. One
    that is none of them has 0 in all."""
    fill: float | None = None
    """What stands in for a blank, as a matrix has it (see `Kind`): the median, or what is most
    frequent, of the training rows; None: blanks are an error."""
    indicator: bool = False
    """Whether there is an input more, 1 where the cell is blank: where cells of the training rows are."""

    @property
    def width(self) -> int:
        """The number of its inputs."""
        return (len(self.categories) if self.holds == "category" else 1) + self.indicator


@dataclass(frozen=True)
class Encoding:
    """What becomes of a table's columns, in their order."""

    columns: tuple[EncodedColumn, ...]

    @property
    def n_inputs(self) -> int:
        """Inputs of the network."""
        return sum(column.width for column in self.columns)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """How the columns of new rows are to be read: codes are places among the categories known here."""
        return tuple(
            Kind(c.holds, c.categories if c.holds == "category" else None, blank=c.fill is not None)
            for c in self.columns
        )

    @property
    def standardised(self) -> Array:
        """Of each input whether it is a number, to be standardised; others are 0 and 1: bool `[n_inputs]`."""
        return np.array([flag for c in self.columns for flag in _flags(c)], dtype=bool)

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Names of the inputs, from the columns': `age`, `age is blank`, `sex=male`."""
        names: list[str] = []
        for name, column in zip(columns, self.columns, strict=True):
            own = [f"{name}={c}" for c in column.categories] if column.holds == "category" else [name]
            names += [*own, f"{name} is blank"] if column.indicator else own
        return tuple(names)

    def inputs(self, x: Array, kinds: Sequence[Kind] | None = None) -> Array:
        """Rows `x [n, n_columns]` as inputs `[n, n_inputs]`, float64, not yet standardised. `kinds` say which
        categories the codes in `x` are of; None: of those known here.

        Raises `UserError` (status 3) for a blank where there was to be none.
        """
        inputs = np.zeros((len(x), self.n_inputs))
        at = 0
        for k, column in enumerate(self.columns):
            values = x[:, k]
            blank = np.isnan(values)
            if blank.any():
                if column.fill is None:
                    raise data_error(f"row {int(blank.argmax())}", "blank cell", "fill it in or drop the row")
                if column.indicator:
                    inputs[:, at + column.width - 1] = blank
            if column.holds == "category":
                codes = recoded(values, kinds[k], column) if kinds else values
                codes = np.where(blank, UNSEEN if column.fill is None else column.fill, codes)
                rows = np.flatnonzero(codes >= 0)
                inputs[rows, at + codes[rows].astype(np.int64)] = 1.0
            elif blank.any():
                inputs[:, at] = np.where(blank, float(column.fill or 0.0), values)
            else:
                inputs[:, at] = values
            at += column.width
        return inputs

    def unseen(self, x: Array, kinds: Sequence[Kind] | None = None) -> list[int]:
        """Of each column how many of the rows `x` have a category that is none of the known ones."""
        counts = []
        for k, column in enumerate(self.columns):
            if column.holds != "category":
                counts.append(0)
                continue
            codes = recoded(x[:, k], kinds[k], column) if kinds else x[:, k]
            counts.append(int((codes < 0).sum()))
        return counts


def _flags(column: EncodedColumn) -> list[bool]:
    own = [False] * len(column.categories) if column.holds == "category" else [True]
    return [*own, False] if column.indicator else own


def recoded(values: Array, kind: Kind, column: EncodedColumn) -> Array:
    """Codes of `kind`'s categories as codes of the column's; NaN and `UNSEEN` stay."""
    known = {category: float(k) for k, category in enumerate(column.categories)}
    lookup = np.array([*(known.get(category, UNSEEN) for category in kind.categories or ()), UNSEEN])
    codes = values.copy()
    present = ~np.isnan(values)
    codes[present] = lookup[values[present].astype(np.int64)]  # -1 is the last one
    return codes


def fit(x: Array, kinds: Sequence[Kind], columns: Sequence[str]) -> Encoding:
    """The encoding of training rows `x [n, n_columns]`, whose columns have these kinds and names; where a
    kind permits blanks they are filled.

    Raises `UserError` (status 3) for a column that is blank in all of them.
    """
    fitted = []
    for values, kind, name in zip(x.T, kinds, columns, strict=True):
        blank = np.isnan(values)
        present = values[~blank] if blank.any() else values
        if len(present) == 0:
            todo = f"leave it out: {without(name)}"
            raise data_error(f"column {name!r}", "is blank in every training row", todo)
        indicator = kind.blank and bool(blank.any())
        if kind.holds == "category":
            categories = kind.categories or ()
            counts = np.bincount(present.astype(np.int64), minlength=len(categories))
            known = np.flatnonzero(counts)
            fill = float(counts[known].argmax()) if kind.blank else None
            names = tuple(categories[code] for code in known)
            fitted.append(EncodedColumn(holds=kind.holds, categories=names, fill=fill, indicator=indicator))
        else:
            middle = np.median(present) if kind.holds == "number" else present.mean() > 0.5
            fill = float(middle) if kind.blank else None
            fitted.append(EncodedColumn(holds=kind.holds, fill=fill, indicator=indicator))
    return Encoding(tuple(fitted))
