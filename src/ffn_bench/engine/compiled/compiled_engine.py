"""The compiled engine: one network in training on one core."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffn_bench.engine.compiled.cache import Cache
from ffn_bench.engine.compiled.loops import NotCompilableError
from ffn_bench.engine.compiled.plan import Located, Plan, address, aligned, chunk_rows, rounded_up
from ffn_bench.engine.compiled.program import program
from ffn_bench.engine.compiled.registers import BYTES
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion
from ffn_bench.optimizers.rule_forms import Rule

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Numbers = NDArray[Any]

TABLE = 1024
"""Steps whose coefficients are computed together."""

EVALUATION_ROWS = 128
"""Rows that are evaluated together."""


class Advanced(NamedTuple):
    """What some steps gave, in float64."""

    losses: Array
    """`[steps, 2]`: the mini-batch's loss and objective, before the step."""
    norms: Array
    """`[log points, 4]`: ‖g‖, ‖θ‖ after the step, ‖θ after − before‖, ‖θ‖ before."""


class Rows:
    """Rows to be evaluated, with room for their logits; `CompiledEngine.rows` checks them, once."""

    def __init__(self, x: Numbers, y: Numbers, weights: Numbers | None, n_outputs: int) -> None:
        self.x, self.y, self.logits = x, y, np.empty((len(x), n_outputs), x.dtype)
        self.weights, self.total = weights, np.zeros(1)
        self.arguments = (
            address(x), *wanted(y), optional(weights), len(x), address(self.logits), address(self.total)
        )  # fmt: skip


def wanted(y: Numbers) -> tuple[int, int]:
    """Where labels lie, and where targets do, one of them nowhere."""
    return (address(y), 0) if y.dtype.kind == "i" else (0, address(y))


def optional(array: Numbers | None) -> int:
    """Where an array lies; 0 for none."""
    return 0 if array is None else address(array)


class CompiledEngine:
    """A network in training: `begin_epoch`, then `advance` as often as one likes.

    widths: `[n_features, …, n_outputs]`. x: `[n, n_features]`, float32 or float64, C-contiguous; y: labels
    `[n]`, int64, from 0 to n_outputs − 1, or targets `[n, n_outputs]`, of x's dtype; weights of the rows in
    the loss: `[n]`, of x's dtype, None: all 1. None of them is copied or changed. θ: `[P]`, of x's dtype,
    W `[n_in, n_out]` and b layer by layer. `rule` and `hyper`: the update, already the variant that the
    hyper-parameters mean; `rates(steps)` gives the learning rates of some steps, counted from 0. The run has
    `steps` steps of `batch_size` rows; the objective is loss + l2 Σ‖W‖² + l1 Σ|W|.

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
        y: Numbers,
        batch_size: int,
        steps: int,
        l2: float,
        θ: Numbers,
        l1: float = 0.0,
        criterion: Criterion = CROSS_ENTROPY,
        weights: Numbers | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.widths = tuple(int(w) for w in widths)
        _check(len(self.widths) >= 2 and min(self.widths) >= 1, f"widths are {list(widths)}")
        _check(x.dtype in (np.dtype(np.float32), np.dtype(np.float64)), f"x is {x.dtype}")
        _check(len(x) > 0 and batch_size >= 1, f"there are {len(x)} rows, in batches of {batch_size}")
        _check(activation in ACTIVATIONS, f"activation {activation!r} is unknown")
        self.dtype, self.steps, self.batch_size = x.dtype, steps, min(batch_size, len(x))
        self._of_targets = y.dtype.kind == "f"
        self._check_rows(x, y, weights)
        self.x, self.y, self.weights, self.step = x, y, weights, 0
        if not isinstance(rule, Rule):
            raise NotCompilableError("the rule is a function of whole tensors")
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

        self._coefficients, self._table_of = Located(self._table(0)), 0
        n_coefficients = self._coefficients.array.shape[1]
        on_off = None if self._of_targets else criterion.targets(self.widths[-1])
        functions = ACTIVATIONS[activation], criterion, on_off, rule
        self._program = program(*functions, n_coefficients, self.dtype.name, self.cache)
        self._n_targets = self.widths[-1] if self._of_targets else 0
        plan = Plan(self.widths, chunk_rows(self.batch_size, lanes), self.dtype, self._program.addresses)
        self._plan = plan
        self._evaluation_plan: Plan | None = None
        self._evaluation_arguments: tuple[int, ...] | None = None
        self._order, self._begin = Located(np.arange(0)), 0  # where in it the next step's rows begin
        self._losses, self._norms = Located(np.empty((0, 2))), Located(np.empty((0, 4)))
        arrays = (plan.integers, self._θ, self._g, self._S, self._before, *plan.scratch)
        self._fixed_arguments = (
            *map(address, arrays), self.P, self._P_room, self.batch_size, n_coefficients, self._n_targets,
            float(l2), float(l1), address(x), *wanted(y), optional(weights),
        )  # fmt: skip

    # --- training -------------------------------------------------------------------------------------------

    def begin_epoch(self, order: IntArray | None, done: int) -> None:
        """An epoch that visits the rows `order` (`[rows]`, int64; None: all, in their order), and of whose
        steps `done` were made already."""
        if order is None:
            order = np.arange(len(self.x))
        fits = order.dtype == np.int64 and order.ndim == 1 and order.flags.c_contiguous
        _check(fits, "order is not contiguous int64 [rows]")
        fits = len(order) > 0 and bool(order.min() >= 0 and order.max() < len(self.x))
        _check(fits, "order has rows that x has not")
        _check(done >= 0 and done * self.batch_size <= len(order), f"an epoch does not have {done} steps")
        self._order, self._begin = Located(order), done * self.batch_size

    def advance(self, count: int, log_every: int) -> Advanced:
        """Up to `count` more steps of this epoch: fewer at its end, or where an objective is not finite.

        Norms are given of each step whose number divides by `log_every`, of the run's last step, and of one
        whose objective is not finite, which is the last one made.
        """
        _check(count >= 0 and log_every >= 1, f"{count} steps, log points every {log_every}")
        left = -(-(len(self._order.array) - self._begin) // self.batch_size)
        count = max(0, min(count, left, self.steps - self.step))
        losses, norms = self._output(count, count // log_every + 2)
        done = logged = 0
        finite = True
        while done < count and finite:
            in_table = self.step % TABLE
            if self._table_of != self.step // TABLE:
                self._table_of = self.step // TABLE
                self._coefficients = Located(self._table(self._table_of))
            part = min(count - done, TABLE - in_table)
            made = self._program.train(
                *self._fixed_arguments, self._coefficients.at(in_table), self._order.at(0),
                len(self._order.array), self._begin, part, self.step, self.steps, log_every,
                losses.at(done), norms.at(logged),
            )  # fmt: skip
            finite = math.isfinite(losses.array[done + made - 1, 1])
            logged += self._log_points(self.step, self.step + made, log_every, finite)
            self.step += made
            self._begin += made * self.batch_size
            done += made
        return Advanced(losses.array[:done].copy(), np.sqrt(norms.array[:logged]))

    def _output(self, n_losses: int, n_norms: int) -> tuple[Located, Located]:
        """Where kernels write losses and norms: arrays that are used again, as finding out where one lies
        costs as much as half a step."""
        if n_losses > len(self._losses.array) or n_norms > len(self._norms.array):
            self._losses, self._norms = Located(np.empty((n_losses, 2))), Located(np.empty((n_norms, 4)))
        return self._losses, self._norms

    def _log_points(self, first: int, last: int, log_every: int, finite: bool) -> int:
        """How many of the steps first + 1 … last are log points."""
        last_is_one = last % log_every == 0 or last == self.steps or not finite
        return (last - 1) // log_every - first // log_every + last_is_one

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
        self._order, self._begin = Located(np.arange(0)), 0

    def _set(self, row: Numbers, values: Numbers, name: str) -> None:
        fits = values.shape == (self.P,) and values.dtype == self.dtype
        _check(fits, f"{name} is {values.dtype} {list(values.shape)}, not {self.dtype} [{self.P}]")
        row[: self.P] = values

    # --- evaluation -----------------------------------------------------------------------------------------

    def rows(self, x: Numbers, y: Numbers, weights: Numbers | None = None) -> Rows:
        """Rows for `evaluate`; like the training rows they are not copied, and must not change."""
        self._check_rows(x, y, weights)
        return Rows(x, y, weights, self.widths[-1])

    def evaluate(self, rows: Rows) -> float:
        """The mean loss of some rows, each times its weight; their logits `[n, n_outputs]` are in
        `rows.logits` afterwards."""
        if self._evaluation_arguments is None:
            self._evaluation_plan = Plan(self.widths, EVALUATION_ROWS, self.dtype, self._program.addresses)
            plan = self._evaluation_plan
            arrays = (plan.integers, self._θ, *plan.scratch)
            self._evaluation_arguments = (*map(address, arrays), self._n_targets)
        self._program.evaluate(*self._evaluation_arguments, *rows.arguments)
        return float(rows.total[0]) / len(rows.x) if len(rows.x) else math.nan

    def logits(self, x: Numbers) -> Numbers:
        """Logits `[n, n_outputs]`."""
        shape = (len(x), self.widths[-1]) if self._of_targets else len(x)
        rows = self.rows(x, np.zeros(shape, self.y.dtype))
        self.evaluate(rows)
        return rows.logits

    def _check_rows(self, x: Numbers, y: Numbers, weights: Numbers | None) -> None:
        """Compiled code reads what it is told: whatever it is told is checked here."""
        fits = x.ndim == 2 and x.shape[1] == self.widths[0] and x.dtype == self.dtype and x.flags.c_contiguous
        _check(fits, f"x is {x.dtype} {list(x.shape)}, not contiguous {self.dtype} [n, {self.widths[0]}]")
        shape: tuple[int, ...] = (len(x), self.widths[-1]) if self._of_targets else (len(x),)
        dtype = self.dtype if self._of_targets else np.dtype(np.int64)
        fits = y.shape == shape and y.dtype == dtype and y.flags.c_contiguous
        _check(fits, f"y is {y.dtype} {list(y.shape)}, not contiguous {dtype} {list(shape)}")
        if weights is not None:
            fits = weights.shape == x.shape[:1] and weights.dtype == x.dtype and weights.flags.c_contiguous
            _check(fits, f"weights are {weights.dtype} {list(weights.shape)}, not {x.dtype} [{len(x)}]")
        if len(y) and not self._of_targets:
            in_range = y.min() >= 0 and y.max() < self.widths[-1]
            _check(bool(in_range), f"labels are not between 0 and {self.widths[-1] - 1}")


def _check(right: bool, otherwise: str) -> None:
    """Raise `ValueError` unless it is right; not an assert, which `python -O` leaves out."""
    if not right:
        raise ValueError(otherwise)
