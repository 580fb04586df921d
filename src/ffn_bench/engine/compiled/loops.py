"""Loops over whole registers, written from plain Python functions: σ, σ', update rules, losses.

Each becomes an LLVM module with one function `loop(a, b, c, d, n, m)`: four arrays, whose memory does not
overlap, and two numbers. The kernels call it by its address, so a new rule or activation compiles this and
nothing else. All arrays have room for whole registers: no loop has a tail.
"""

from __future__ import annotations

import functools

from llvmlite import ir

from ffn_bench.engine.compiled.activations import Activation
from ffn_bench.engine.compiled.loop_writer import LoopWriter
from ffn_bench.engine.compiled.losses import Logits, Loss
from ffn_bench.engine.compiled.registers import INT64
from ffn_bench.engine.compiled.vector_math import Numbers
from ffn_bench.optimizers.rules import Rule


class NotCompilableError(Exception):
    """An update rule that is not plain elementwise arithmetic, and why. Another engine can train with it."""


@functools.cache
def of_function(activation: Activation, dtype: str) -> str:
    """a = h̄, b = h: h ← σ(h̄)"""
    writer = LoopWriter(dtype)
    return writer.each(lambda i: writer.store(activation.function(writer.load(0, i)), 1, i))


@functools.cache
def of_derivative(activation: Activation, dtype: str) -> str:
    """a = g, b = h̄, c = h: g ← g ⊙ σ'(h̄)"""
    writer = LoopWriter(dtype)

    def body(i: ir.Value) -> None:
        derivative = activation.derivative(writer.load(1, i), writer.load(2, i))
        writer.store(writer.load(0, i) * derivative, 0, i)

    return writer.each(body)


def of_rule(rule: Rule, n_coefficients: int, dtype: str) -> str:
    """a = θ, b = g, c = the states, m numbers each, d = the coefficients.

    Raises `NotCompilableError` where the rule's update is not plain elementwise arithmetic.
    """
    writer, n_states = LoopWriter(dtype), len(rule.states)
    coefficients = tuple(writer.coefficient(3, k) for k in range(n_coefficients))
    starts = [writer.builder.mul(writer.m, ir.Constant(INT64, k)) for k in range(n_states)]

    def body(i: ir.Value) -> None:
        at = [writer.builder.add(start, i) for start in starts]
        g, θ, state = writer.load(1, i), writer.load(0, i), tuple(writer.load(2, k) for k in at)
        θ, state = rule.update(g, θ, state, coefficients)
        for value, array, index in zip((θ, *state), (0, *[2] * n_states), (i, *at), strict=True):
            writer.store(value if isinstance(value, Numbers) else g.constant(value), array, index)

    try:
        return writer.each(body)
    except Exception as error:
        name = getattr(rule.update, "__qualname__", "the update")
        raise NotCompilableError(f"{name} is not plain elementwise arithmetic: {error}") from error


@functools.cache
def of_loss(loss: Loss, dtype: str) -> str:
    """a = z of n rows and m classes, b = the rows' weights, c = z of their labels, then their losses."""
    writer = LoopWriter(dtype)

    def body(i: ir.Value) -> None:
        labelled, weight = writer.load(2, i), writer.load(1, i)
        writer.store(loss(Logits(writer, i), labelled, weight), 2, i)

    return writer.each(body)
