"""Predictions as CSV: class, label where there is one, a probability for each class; or
predicted targets, and the true ones."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ffn_bench.data.rows import Array
from ffn_bench.errors import printable, without_formula

if TYPE_CHECKING:
    import polars as pl

PREDICTION, LABEL, PROBABILITY = "prediction", "label", "probability_"
"""Names of the columns; the last is followed by a class."""


class CsvWriter:
    """Parts of a table of predictions, its header before the first. Probabilities read back to the last
    bit."""

    def __init__(
        self, classes: Sequence[str], with_labels: bool, shown: Callable[[str], str] = without_formula
    ) -> None:
        """`shown` is what becomes of a class's name in a cell."""
        import polars as pl

        self._names = pl.Series([shown(name) for name in classes], dtype=pl.String())
        self._columns = [f"{PROBABILITY}{name}" for name in _distinct(classes)]
        self._with_labels, self._begun = with_labels, False

    def part(self, predicted: Array, probabilities: Array, labels: Array | None = None) -> bytes:
        """Some rows: class numbers `predicted [n]`, probabilities `[n, n_classes]`, class numbers
        `labels [n]`."""

        columns = {PREDICTION: self._names.gather(predicted)}
        if self._with_labels:
            assert labels is not None
            columns[LABEL] = self._names.gather(labels)
        columns |= dict(zip(self._columns, _columns(probabilities), strict=True))
        text = _csv(columns, not self._begun)
        self._begun = True
        return text


class TargetWriter:
    """The same of a regression: predicted targets in their own unit, and true ones. Where there are several,
    each has a column with its name."""

    def __init__(self, targets: Sequence[str]) -> None:
        names = _distinct(targets)
        self._heads = [f"_{name}" for name in names] if len(names) > 1 else [""]
        self._begun = False

    def part(self, predicted: Array, labels: Array | None = None) -> bytes:
        """Some rows: predicted targets and true ones, `[n, n_targets]` each."""
        tables = {PREDICTION: predicted, **({} if labels is None else {LABEL: labels})}
        columns = {
            f"{what}{head}": column
            for what, table in tables.items()
            for head, column in zip(self._heads, _columns(table), strict=True)
        }
        text = _csv(columns, not self._begun)
        self._begun = True
        return text


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as they are in a header; numbers where two were written to look alike."""
    shown = [printable(name) for name in names]
    return shown if len(set(shown)) == len(shown) else [str(k) for k in range(len(shown))]


def _columns(table: Array) -> list[pl.Series]:
    """Of an array `[n, columns]`."""
    import polars as pl

    return [pl.Series(column) for column in np.ascontiguousarray(table.T)]


def _csv(columns: Mapping[str, pl.Series], with_header: bool) -> bytes:
    import polars as pl

    text = io.BytesIO()
    pl.DataFrame(dict(columns)).write_csv(text, include_header=with_header)
    return text.getvalue()
