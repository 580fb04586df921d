"""Predictions as CSV: class, label where there is one, a probability for each class."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np

from ffn_bench.data.splitting import Array
from ffn_bench.errors import printable, without_formula

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
        names = [printable(name) for name in classes]
        if len(set(names)) < len(names):  # which were written to look alike
            names = [str(k) for k in range(len(names))]
        self._columns = [f"{PROBABILITY}{name}" for name in names]
        self._with_labels, self._begun = with_labels, False

    def part(self, probabilities: Array, labels: Array | None = None) -> bytes:
        """Some rows: probabilities `[n, n_classes]`, of equal ones the first class is predicted; class
        numbers `labels [n]`."""
        import polars as pl

        columns = {PREDICTION: self._names.gather(probabilities.argmax(1))}
        if self._with_labels:
            assert labels is not None
            columns[LABEL] = self._names.gather(labels)
        by_class = np.ascontiguousarray(probabilities.T)
        columns |= {name: pl.Series(by_class[k]) for k, name in enumerate(self._columns)}
        text = io.BytesIO()
        pl.DataFrame(columns).write_csv(text, include_header=not self._begun)
        self._begun = True
        return text.getvalue()
