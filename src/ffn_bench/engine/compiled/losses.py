"""Losses: from a row's logits and targets its loss and the gradient, for a register of rows at a time.

What is summed over the outputs of a row stands here; ρ and σ themselves are those of `model.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ffn_bench.engine.compiled.vector_math import Numbers
from ffn_bench.engine.compiled.writer import Index, Writer
from ffn_bench.model.losses import Criterion


class Outputs:
    """The outputs of a register of rows, one by one: logits `z[j]`, which are read and written, and targets.

    `on_off` are the targets of the label's class and of the others; None in a regression, which has targets
    of its own.
    """

    def __init__(self, writer: Writer, row: Index, on_off: tuple[float, float] | None) -> None:
        self._writer, self._row, self._on_off = writer, row, on_off
        if on_off is not None:
            self._labels = writer.load("targets", row)

    def _index(self, j: Index) -> Index:
        return self._writer.plus(self._writer.times(j, self._writer["n"]), self._row)

    def __getitem__(self, j: Index) -> Numbers:
        return self._writer.load("z", self._index(j))

    def __setitem__(self, j: Index, value: Numbers) -> None:
        self._writer.store(value, "z", self._index(j))

    def target(self, j: Index) -> Numbers:
        """t of output j."""
        if self._on_off is None:
            return self._writer.load("targets", self._index(j))
        on, off = self._on_off
        return self._labels.constant(on).where(self._labels == self._writer.number(j), off)

    def fold(
        self, start: Sequence[Numbers], function: Callable[[Index, Sequence[Numbers]], Sequence[Numbers]]
    ) -> Sequence[Numbers]:
        """x = start; for each output j: x = function(j, x)"""
        return self._writer.fold(0, self._writer["n_outputs"], start, function)


def write_loss(z: Outputs, weight: Numbers, criterion: Criterion) -> Numbers:
    """The rows' losses; z becomes weight · ∂loss/∂z."""
    if not criterion.is_softmax:
        return _elementwise(z, weight, criterion)
    return (_cross_entropy if criterion.is_softmax_cross_entropy else _of_softmax)(z, weight, criterion)


def _elementwise(z: Outputs, weight: Numbers, criterion: Criterion) -> Numbers:
    """Σ ρ(σ(z), t)"""

    def add(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        logit, t = z[j], z.target(j)
        z[j] = criterion.logit_derivative(logit, t) * weight
        return [x[0] + criterion.of_logit(logit, t)]

    return z.fold([weight.constant(0)], add)[0]


def _exponentials(z: Outputs, top: Numbers) -> Numbers:
    """Σ exp(z − max z), whose terms z becomes."""

    def add(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        z[j] = e = (z[j] - top).exp()
        return [x[0] + e]

    return z.fold([top.constant(0)], add)[0]


def _cross_entropy(z: Outputs, weight: Numbers, criterion: Criterion) -> Numbers:
    """−Σ t ln softmax(z) = max z − Σ t z + ln Σ exp(z − max z), as Σ t = 1; the gradient is
    softmax(z) − t."""
    zero = weight.constant(0)

    def look(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        logit, t = z[j], z.target(j)
        # 0 · ∞ would not be 0.
        expected = x[1] + logit * t if criterion.smoothing else logit.where(t == 1, x[1])
        return [logit.maximum(x[0]), expected]

    top, expected = z.fold([weight.constant(-float("inf")), zero], look)
    total = _exponentials(z, top)
    scale = weight / total

    def difference(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        z[j] = z[j] * scale - z.target(j) * weight
        return x

    z.fold([], difference)
    return (top - expected) + total.log()


def _of_softmax(z: Outputs, weight: Numbers, criterion: Criterion) -> Numbers:
    """Σ ρ(f, t) of f = softmax(z); the gradient is fⱼ (dⱼ − Σ dₖ fₖ), d = ∂ρ/∂f."""
    zero = weight.constant(0)
    top = z.fold([weight.constant(-float("inf"))], lambda j, x: [z[j].maximum(x[0])])[0]
    total = _exponentials(z, top)

    def add(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        f, t = z[j] / total, z.target(j)
        z[j] = f
        return [x[0] + criterion.value(f, t), x[1] + f * criterion.derivative(f, t)]

    loss, mean = z.fold([zero, zero], add)

    def difference(j: Index, x: Sequence[Numbers]) -> Sequence[Numbers]:
        f = z[j]
        z[j] = f * (criterion.derivative(f, z.target(j)) - mean) * weight
        return x

    z.fold([], difference)
    return loss
