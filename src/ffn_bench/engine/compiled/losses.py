"""Losses: from a row's logits its loss and the gradient, for a register of rows at a time."""

from __future__ import annotations

from collections.abc import Callable

from ffn_bench.engine.compiled.vector_math import Numbers
from ffn_bench.engine.compiled.writer import Index, Writer


class Logits:
    """The logits of a register of rows, class by class: `z[j]` is read and written."""

    def __init__(self, writer: Writer, row: Index) -> None:
        self._writer, self._row = writer, row

    def _index(self, j: Index) -> Index:
        return self._writer.plus(self._writer.times(j, self._writer["n"]), self._row)

    def __getitem__(self, j: Index) -> Numbers:
        return self._writer.load("z", self._index(j))

    def __setitem__(self, j: Index, value: Numbers) -> None:
        self._writer.store(value, "z", self._index(j))

    def over_classes(self, function: Callable[[Index, Numbers], Numbers], start: Numbers) -> Numbers:
        """x = start; for each class j: x = function(j, x)"""
        return self._writer.fold(0, self._writer["n_classes"], [start], lambda j, x: [function(j, x[0])])[0]


Loss = Callable[[Logits, Numbers, Numbers], Numbers]
"""`loss(z, labelled, weight)`: z, its entry at each row's label, each row's weight in the mean → the rows'
losses. z becomes weight · (∂ loss/∂z + 1 at the label), from which the kernel subtracts the weight there."""


def cross_entropy(z: Logits, labelled: Numbers, weight: Numbers) -> Numbers:
    """−ln softmax(z) at the label = max z − z_y + ln Σ exp(z − max z);
    the gradient is softmax(z) − 1 at y."""
    top = z.over_classes(lambda j, top: z[j].maximum(top), labelled)

    def exponential(j: Index, total: Numbers) -> Numbers:
        z[j] = e = (z[j] - top).exp()
        return total + e

    total = z.over_classes(exponential, labelled.constant(0))
    scale = weight / total

    def probability(j: Index, scale: Numbers) -> Numbers:
        z[j] = z[j] * scale
        return scale

    z.over_classes(probability, scale)
    return (top - labelled) + total.log()


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy}
"""Losses by name."""
