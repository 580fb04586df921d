"""Loss and scores of predictions, added up part by part."""

from __future__ import annotations

import numpy as np

from ffn_bench import tags
from ffn_bench.data.rows import Array
from ffn_bench.engine.metrics import Scoring
from ffn_bench.model.inference import row_losses
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion


class Scores:
    """Sums over all rows whose label, or targets, are known."""

    def __init__(self, scoring: Scoring | None = None, criterion: Criterion = CROSS_ENTROPY) -> None:
        self.rows = 0
        """Rows that are scored."""
        self.unscored = 0
        """Rows whose label is no class, or of whose targets one is blank."""
        self._scoring, self._criterion = scoring or Scoring(), criterion
        self._loss = 0.0
        self._sums: list[Array] = [np.zeros(()) for _ in self._scoring.quantities]
        self._mean, self._squares = np.zeros(()), np.zeros(())
        """Of the targets: their mean, and the sum of their squared distances from it."""

    def add(self, logits: Array, y: Array, weights: Array | None = None) -> None:
        """Add rows: outputs `[n, n_outputs]` and class numbers `y [n]`, below 0 for a row that is not scored,
        or standardised targets `y [n, n_outputs]`, NaN in such a row; what each row counts in the loss,
        `[n]`."""
        of_targets = y.dtype.kind == "f"
        known = np.isfinite(y).all(axis=1) if of_targets else y >= 0
        self.unscored += int((~known).sum())
        logits, y = logits[known].astype(np.float64), y[known]
        weights = None if weights is None else weights[known]
        if len(y) == 0:
            return
        if of_targets:
            self._add_targets(y)
        self.rows += len(y)
        losses = row_losses(logits, y, self._criterion)
        self._loss += float((losses if weights is None else losses * weights).sum())
        for k, score in enumerate(self._scoring.quantities):
            assert score.of_rows is not None
            self._sums[k] = self._sums[k] + np.sum(score.of_rows(logits, y), axis=0, dtype=np.float64)

    def _add_targets(self, y: Array) -> None:
        """Mean and squared distances with those of more rows (Chan et al., 1979)."""
        n, more = self.rows, len(y)
        mean = y.mean(axis=0, dtype=np.float64)
        apart = mean - self._mean
        self._squares = self._squares + np.square(y - mean).sum(axis=0, dtype=np.float64)
        self._squares = self._squares + np.square(apart) * (n * more / (n + more))
        self._mean = self._mean + apart * (more / (n + more))

    def means(self) -> dict[str, float]:
        """Loss and scores by name; nothing where no row is scored."""
        if not self.rows:
            return {}
        values = self._scoring.of_means(
            [total / self.rows for total in self._sums], self._squares / self.rows
        )
        names = [score.name for score in self._scoring.quantities]
        return {**dict(zip(names, values, strict=True)), tags.LOSS.name: self._loss / self.rows}
