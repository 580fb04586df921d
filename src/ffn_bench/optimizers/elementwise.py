"""What the equations of update rules may call, beside + − * and /: plain functions of numbers.

A rule's update is one text for torch tensors, NumPy arrays and Python's floats, and the compiled engine makes
a loop over numbers of it, in which these functions are replaced by their compiled versions. An update that
calls anything else does not compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = Any
"""A torch tensor, a NumPy array or a float: what an update computes on, all of one kind in one call."""


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


def toward(a: Numbers, b: Numbers, w: Numbers) -> Numbers:
    """a + w (b − a), which is (1−w) a + w b: an average that forgets a with weight w."""
    return a + w * (b - a)
