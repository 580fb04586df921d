"""Loss and scores of predictions, added up part by part."""

from __future__ import annotations

import numpy as np

from ffn_bench import tags
from ffn_bench.data.splitting import Array
from ffn_bench.model.inference import row_losses


class Scores:
    """Sums over all rows whose label is one of the classes."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows that are scored."""
        self._sums = dict.fromkeys((tags.LOSS.name, *(score.name for score in tags.SCORES)), 0.0)

    def add(self, logits: Array, y: Array) -> None:
        """Add rows: logits `[n, n_classes]`, class numbers `y [n]`, below 0 for a row that is not scored."""
        logits, y = logits[y >= 0], y[y >= 0]
        self.rows += len(y)
        if len(y) == 0:
            return
        self._sums[tags.LOSS.name] += float(row_losses(logits.astype(np.float64), y).sum())
        for score in tags.SCORES:
            assert score.of_rows is not None
            self._sums[score.name] += float(np.sum(score.of_rows(logits, y), dtype=np.float64))

    def means(self) -> dict[str, float]:
        """Loss and scores by name; nothing where no row is scored."""
        return {name: total / self.rows for name, total in self._sums.items()} if self.rows else {}
