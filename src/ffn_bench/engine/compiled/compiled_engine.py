"""The compiled engine: one network in training on one core."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffn_bench.engine.compiled import loops, machine_code, products
from ffn_bench.engine.compiled.cache import Cache
from ffn_bench.engine.compiled.losses import LOSSES
from ffn_bench.engine.compiled.plan import Plan, aligned, chunk_rows, rounded_up
from ffn_bench.engine.compiled.registers import BYTES
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.optimizers.rule_forms import Rule

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Numbers = NDArray[Any]

TABLE = 1024
"""Steps whose coefficients are computed together."""

EVALUATION_ROWS = 128
"""Rows that are evaluated together."""

_POINTER, _INTEGER, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_TRAIN = ctypes.CFUNCTYPE(
    _INTEGER, *[_POINTER] * 10, *[_INTEGER] * 4, _FLOAT, *[_POINTER] * 4, *[_INTEGER] * 6, *[_POINTER] * 2
)
_EVALUATE = ctypes.CFUNCTYPE(_INTEGER, *[_POINTER] * 9, _INTEGER, *[_POINTER] * 2)
"""`kernels.train` and `evaluate` as C functions, which run without the interpreter's lock."""


class Advanced(NamedTuple):
    """What some steps gave, in float64."""

    losses: Array
    """`[steps, 2]`: the mini-batch's loss and objective, before the step."""
    norms: Array
    """`[log points, 4]`: ‖g‖, ‖θ‖ after the step, ‖θ after − before‖, ‖θ‖ before."""


class CompiledEngine:
    """A network in training: `begin_epoch`, then `advance` as often as one likes.

    widths: `[n_features, …, n_classes]`. x: `[n, n_features]`, float32 or float64, C-contiguous; y: `[n]`,
    int64, from 0 to n_classes − 1; neither is copied or changed. θ: `[P]`, of x's dtype, W `[n_in, n_out]`
    and b layer by layer. `rule` and `hyper`: the update, already the variant that the hyper-parameters
    mean; `rates(steps)` gives the learning rates of some steps, counted from 0. The run has `steps` steps
    of `batch_size` rows; the objective is loss + l2 Σ‖W‖².

    Bits do not depend on how many steps an `advance` makes, on a `restore` in between, or on the processor.
    Raises `ValueError` for arrays that do not fit, `NotCompilableError` for a rule that does not compile.
    """

    name = "compiled"

    def __init__(
        self,
        *,
        widths: Sequence[int],
        activation: str,
        rule: Rule,
        hyper: Mapping[str, Any],
        rates: Callable[[range], Array],
        x: Numbers,
        y: IntArray,
        batch_size: int,
        steps: int,
        l2: float,
        θ: Numbers,
        loss: str = "cross_entropy",
        cache: Cache | None = None,
    ) -> None:
        self.widths = tuple(int(w) for w in widths)
        _check(len(self.widths) >= 2 and min(self.widths) >= 1, f"widths are {list(widths)}")
        _check(x.dtype in (np.dtype(np.float32), np.dtype(np.float64)), f"x is {x.dtype}")
        _check(len(x) > 0 and batch_size >= 1, f"there are {len(x)} rows, in batches of {batch_size}")
        _check(activation in ACTIVATIONS, f"activation {activation!r} is unknown")
        _check(loss in LOSSES, f"loss {loss!r} is unknown")
        self.dtype, self.l2, self.steps, self.batch_size = x.dtype, float(l2), steps, min(batch_size, len(x))
        self._check_rows(x, y)
        self.x, self.y, self.step = x, y, 0
        self._rule, self._hyper, self._rates = rule, dict(hyper), rates
        self.cache = cache or Cache()

        self.P = sum((n_in + 1) * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False))
        lanes = BYTES // self.dtype.itemsize
        self._P_room = rounded_up(self.P, lanes)
        self._θ, self._g, self._before = (aligned(self._P_room, self.dtype) for _ in range(3))
        self._S = aligned(max(1, len(rule.states)) * self._P_room, self.dtype).reshape(-1, self._P_room)
        for row, first in zip(self._S, rule.first(self._hyper) if rule.first else (), strict=False):
            row[: self.P] = first
        self._set(self._θ, θ, "θ")

        self._coefficients, self._table_of = self._table(0), 0
        self._compile(ACTIVATIONS[activation], LOSSES[loss])
        b = chunk_rows(self.batch_size, lanes)
        self._plan = Plan(self.widths, b, self.dtype, self._addresses)
        self._evaluation_plan: Plan | None = None
        self._order: IntArray = np.arange(0)
        self._begin = 0
        arrays = (self._plan.integers, self._θ, self._g, self._S, self._before)
        self._fixed_arguments = (
            *(array.ctypes.data for array in arrays), *self._plan.scratch(),
            self.P, self._P_room, self.batch_size, self._coefficients.shape[1],
            self.l2, self.x.ctypes.data, self.y.ctypes.data,
        )  # fmt: skip

    def _compile(self, activation: Any, loss: Any) -> None:
        kind, cache = self.dtype.name, self.cache
        n_coefficients = self._coefficients.shape[1]
        loop_texts = {
            "function": loops.of_function(activation, kind),
            "derivative": loops.of_derivative(activation, kind),
            "loss": loops.of_loss(loss, kind),
            "rule": loops.of_rule(self._rule, n_coefficients, kind),
        }
        addresses = {name: machine_code.function("loop", text, cache) for name, text in loop_texts.items()}
        tiles = products.tiles_for(machine_code.processor().features)
        texts = {
            "product": products.of_product(kind, tiles),
            "transpose": products.of_transpose(kind),
            "squares": products.of_squares(kind),
        }
        addresses |= {name: machine_code.function(name, text, cache) for name, text in texts.items()}
        self._addresses = addresses
        self._train = _TRAIN(machine_code.kernel("train", kind, cache))
        self._evaluate = _EVALUATE(machine_code.kernel("evaluate", kind, cache))

    # --- training -------------------------------------------------------------------------------------------

    def begin_epoch(self, order: IntArray | None, done: int) -> None:
        """An epoch that visits the rows `order` (`[rows]`, int64; None: all, in their order), and of whose
        steps `done` were made already."""
        if order is None:
            order = np.arange(len(self.x))
        _check(
            order.dtype == np.int64 and order.ndim == 1 and order.flags.c_contiguous,
            "order is not int64 [rows]",
        )
        _check(
            len(order) > 0 and order.min() >= 0 and order.max() < len(self.x), "order has rows that x has not"
        )
        _check(done >= 0 and done * self.batch_size <= len(order), f"an epoch does not have {done} steps")
        self._order, self._begin = order, done * self.batch_size

    def advance(self, count: int, log_every: int) -> Advanced:
        """Up to `count` more steps of this epoch: fewer at its end, or where an objective is not finite.

        Norms are given of each step whose number divides by `log_every`, of the run's last step, and of one
        whose objective is not finite, which is the last one made.
        """
        _check(count >= 0 and log_every >= 1, f"{count} steps, log points every {log_every}")
        left = -(-(len(self._order) - self._begin) // self.batch_size)
        count = max(0, min(count, left, self.steps - self.step))
        losses = np.empty((count, 2))
        norms = np.empty((count // log_every + 3, 4))
        done = 0
        while done < count:
            block = self.step // TABLE
            if block != self._table_of:
                self._coefficients, self._table_of = self._table(block), block
            part = min(count - done, (block + 1) * TABLE - self.step)
            logged = self._log_points(self.step - done, self.step, log_every)
            made = self._steps(part, log_every, losses[done:], norms[logged:])
            done += made
            if made < part or not math.isfinite(losses[done - 1, 1]):
                break
        first = self.step - done
        logged = self._log_points(first, self.step, log_every)
        stopped = done and not math.isfinite(losses[done - 1, 1])
        if stopped and self.step % log_every and self.step != self.steps:
            logged += 1
        return Advanced(losses[:done], np.sqrt(norms[:logged]))

    def _log_points(self, first: int, last: int, log_every: int) -> int:
        """How many of the steps first + 1 … last are log points."""
        points = last // log_every - first // log_every
        return points + (first < self.steps == last and self.steps % log_every != 0)

    def _steps(self, count: int, log_every: int, losses: Array, norms: Array) -> int:
        c = self._coefficients[self.step % TABLE :]
        made = self._train(
            *self._fixed_arguments, c.ctypes.data, self._order.ctypes.data, len(self._order),
            self._begin, count, self.step, self.steps, log_every, losses.ctypes.data, norms.ctypes.data,
        )  # fmt: skip
        self.step += made
        self._begin += made * self.batch_size
        return int(made)

    def _table(self, block: int) -> Numbers:
        """The rule's coefficients of steps TABLE · block …, `[steps, K]`: always of whole blocks, so that
        their bits do not depend on where a call begins."""
        steps = range(TABLE * block, max(1, min(TABLE * (block + 1), self.steps)))
        t = np.arange(steps.start + 1, steps.stop + 1, dtype=np.float64)
        columns = self._rule.coefficients({**self._hyper, "lr": self._rates(steps)}, t)
        table = np.empty((len(t), len(columns)), self.dtype)
        for k, column in enumerate(columns):
            table[:, k] = column
        return table

    # --- state ----------------------------------------------------------------------------------------------

    @property
    def θ(self) -> Numbers:
        """The parameters `[P]`: a view, which changes with the next step."""
        return self._θ[: self.P]

    def state(self) -> dict[str, Numbers]:
        """A copy of θ and the rule's states by their names, `[P]` each."""
        states = zip(self._rule.states, self._S, strict=False)
        return {"θ": self.θ.copy(), **{name: row[: self.P].copy() for name, row in states}}

    def restore(self, state: Mapping[str, Numbers], step: int) -> None:
        """Go on from what `state` gave after `step` steps; `begin_epoch` comes next."""
        names = ("θ", *self._rule.states)
        _check(set(state) == set(names), f"the state has {sorted(state)}, not {sorted(names)}")
        _check(0 <= step <= self.steps, f"a run of {self.steps} steps has no step {step}")
        for name, row in zip(names, (self._θ, *self._S), strict=False):
            self._set(row, state[name], name)
        self.step = step

    def _set(self, row: Numbers, values: Numbers, name: str) -> None:
        fits = values.shape == (self.P,) and values.dtype == self.dtype
        _check(fits, f"{name} is {values.dtype} {list(values.shape)}, not {self.dtype} [{self.P}]")
        row[: self.P] = values

    # --- evaluation -----------------------------------------------------------------------------------------

    def evaluate(self, x: Numbers, y: IntArray) -> tuple[float, Numbers]:
        """The mean loss of some rows and their logits `[n, n_classes]`."""
        self._check_rows(x, y)
        if self._evaluation_plan is None:
            self._evaluation_plan = Plan(self.widths, EVALUATION_ROWS, self.dtype, self._addresses)
        plan, total = self._evaluation_plan, np.zeros(1)
        logits = np.empty((len(x), self.widths[-1]), self.dtype)
        self._evaluate(
            plan.integers.ctypes.data, self._θ.ctypes.data, *plan.scratch(), x.ctypes.data, y.ctypes.data,
            len(x), logits.ctypes.data, total.ctypes.data,
        )  # fmt: skip
        return (float(total[0]) / len(x) if len(x) else math.nan), logits

    def logits(self, x: Numbers) -> Numbers:
        """Logits `[n, n_classes]`."""
        return self.evaluate(x, np.zeros(len(x), np.int64))[1]

    def mean_loss(self, x: Numbers, y: IntArray) -> float:
        """The mean loss of some rows, without the penalty."""
        return self.evaluate(x, y)[0]

    def _check_rows(self, x: Numbers, y: IntArray) -> None:
        """Compiled code reads what it is told: whatever it is told is checked here."""
        fits = x.ndim == 2 and x.shape[1] == self.widths[0] and x.dtype == self.dtype and x.flags.c_contiguous
        _check(fits, f"x is {x.dtype} {list(x.shape)}, not contiguous {self.dtype} [n, {self.widths[0]}]")
        fits = y.shape == x.shape[:1] and y.dtype == np.int64 and y.flags.c_contiguous
        _check(fits, f"y is {y.dtype} {list(y.shape)}, not contiguous int64 [{len(x)}]")
        if len(y):
            in_range = y.min() >= 0 and y.max() < self.widths[-1]
            _check(bool(in_range), f"labels are not between 0 and {self.widths[-1] - 1}")


def _check(right: bool, otherwise: str) -> None:
    """Raise `ValueError` unless it is right; not an assert, which `python -O` leaves out."""
    if not right:
        raise ValueError(otherwise)
