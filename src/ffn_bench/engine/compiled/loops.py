"""Loops over whole registers from plain Python functions: σ, σ', update rules, losses.

Each becomes an LLVM module with one function `loop`, of four arrays and two integers, which the kernels
call by its address. All arrays have room for whole registers: no loop has a tail.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable

from ffn_bench.engine.compiled.losses import Outputs, write_loss
from ffn_bench.engine.compiled.vector_math import Numbers
from ffn_bench.engine.compiled.writer import Index, Writer
from ffn_bench.model.activations import Activation
from ffn_bench.model.losses import Criterion
from ffn_bench.optimizers.rule_forms import Rule, Update


class NotCompilableError(Exception):
    """An update rule that is not plain elementwise arithmetic, and why. Another engine can train with it."""


def _writer(dtype: str, arrays: str, integers: str) -> Writer:
    return Writer("loop", dtype, dict.fromkeys(arrays.split(), "numbers"), integers.split())


@functools.cache
def of_function(activation: Activation, dtype: str) -> str:
    """h = σ(h̄)"""
    writer = _writer(dtype, "h_bar h _1 _2", "n _3")

    def body(i: Index) -> None:
        writer.store(activation.function(writer.load("h_bar", i)), "h", i)

    writer.loop(0, writer["n"], writer.emitter.lanes, body)
    return writer.text()


@functools.cache
def of_derivative(activation: Activation, dtype: str) -> str:
    """g = g ⊙ σ'(h̄)"""
    writer = _writer(dtype, "g h_bar h _1", "n _2")

    def body(i: Index) -> None:
        derivative = activation.derivative(writer.load("h_bar", i), writer.load("h", i))
        writer.store(writer.load("g", i) * derivative, "g", i)

    writer.loop(0, writer["n"], writer.emitter.lanes, body)
    return writer.text()


@functools.cache
def of_loss(criterion: Criterion, on_off: tuple[float, float] | None, dtype: str) -> str:
    """From z and the targets of n rows: the rows' losses, and in z the gradient. `on_off` as in `Outputs`:
    then a row's target is its label, else there is one for each output."""
    writer = _writer(dtype, "z weights losses targets", "n n_outputs")

    def body(i: Index) -> None:
        value = write_loss(Outputs(writer, i, on_off), writer.load("weights", i), criterion)
        writer.store(value, "losses", i)

    writer.loop(0, writer["n"], writer.emitter.lanes, body)
    return writer.text()


def of_rule(rule: Rule, n_coefficients: int, dtype: str) -> str:
    """θ and the states, in `S` one behind another at distances of `room`, by the rule's update.

    Raises `NotCompilableError` where that is not plain elementwise arithmetic.
    """
    write = _of_update if isinstance(rule.update, Hashable) else _of_update.__wrapped__
    return write(rule.update, len(rule.states), n_coefficients, dtype)


@functools.cache
def _of_update(update: Update, n_states: int, n_coefficients: int, dtype: str) -> str:
    writer = _writer(dtype, "θ g S c", "n room")
    c = tuple(writer.repeated("c", writer.integer(k)) for k in range(n_coefficients))

    def body(i: Index) -> None:
        at = [writer.plus(writer.times(writer["room"], k), i) for k in range(n_states)]
        g, θ, state = writer.load("g", i), writer.load("θ", i), tuple(writer.load("S", k) for k in at)
        θ, state = update(g, θ, state, c)
        arrays = ["θ", *["S"] * n_states]
        for value, array, index in zip((θ, *state), arrays, (i, *at), strict=True):
            writer.store(value if isinstance(value, Numbers) else g.constant(value), array, index)

    try:
        writer.loop(0, writer["n"], writer.emitter.lanes, body)
    except Exception as error:
        name = getattr(update, "__qualname__", "the update")
        raise NotCompilableError(f"{name} is not plain elementwise arithmetic: {error}") from error
    return writer.text()
