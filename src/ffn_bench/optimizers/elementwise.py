"""What the equations of update rules may call, beside + − * and /: plain functions of numbers.

A rule's update is one text for torch tensors, NumPy arrays, Python's floats, and the registers of the
compiled engine, which calls it once: each operation on a register writes an instruction, and what was written
becomes the body of a loop (`engine.compiled.registers`). These functions call the method of their name where
an argument has one, and NumPy's function else. Whatever else registers can do compiles, too, such as
`np.exp(g)`; a branch on a computed value does not: `where`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = Any
"""A torch tensor, a NumPy array, a float or a register: what an update computes on, all of one kind in one
call."""


def sqrt(x: Numbers) -> Numbers:
    """√x, NaN below 0."""
    return x.sqrt() if hasattr(x, "sqrt") else np.sqrt(x)


def absolute(x: Numbers) -> Numbers:
    """|x|."""
    return abs(x)


def sign(x: Numbers) -> Numbers:
    """−1, 0 or 1."""
    return x.sign() if hasattr(x, "sign") else np.sign(x)


def maximum(x: Numbers, y: Numbers) -> Numbers:
    """The larger of two numbers, NaN where one is."""
    return x.maximum(y) if hasattr(x, "maximum") else np.maximum(x, y)


def where(condition: Any, a: Numbers, b: Numbers) -> Numbers:
    """a where the condition holds, b elsewhere. Both are computed, and one of them from g, θ or a state: a
    condition has no precision that two plain numbers could take. Raises `TypeError` for these."""
    if isinstance(condition, (bool, np.bool_)):  # of single numbers
        return a if condition else b
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.where(condition, a, b)
    if hasattr(a, "where"):
        return a.where(condition, b)
    if hasattr(b, "where"):
        return b.where(~condition, a)
    raise TypeError("where(condition, a, b): a and b are plain numbers; compute one of them from g or θ")


def toward(a: Numbers, b: Numbers, w: Numbers) -> Numbers:
    """a + w (b − a), which is (1−w) a + w b: an average that forgets a with weight w."""
    return a + w * (b - a)
