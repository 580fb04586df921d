"""An activation as a formula: its plain Python, run once on a symbol, which notes what is done to it.

So the one text of `model.activations` is also what exported files compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Expression:
    """An operation and what it is applied to: expressions, or numbers of the network's precision.

    It has the operators and methods that tensors, registers and `model.array_numbers` have.
    """

    operation: str
    """`add`, `exp`, `where`, …; `symbol` is the unknown itself."""
    arguments: tuple[Any, ...] = ()

    # + − · /, and with numbers on the left

    def __add__(self, x: Any) -> Expression:
        return Expression("add", (self, x))

    def __radd__(self, x: Any) -> Expression:
        return Expression("add", (x, self))

    def __sub__(self, x: Any) -> Expression:
        return Expression("subtract", (self, x))

    def __rsub__(self, x: Any) -> Expression:
        return Expression("subtract", (x, self))

    def __mul__(self, x: Any) -> Expression:
        return Expression("multiply", (self, x))

    def __rmul__(self, x: Any) -> Expression:
        return Expression("multiply", (x, self))

    def __truediv__(self, x: Any) -> Expression:
        return Expression("divide", (self, x))

    def __rtruediv__(self, x: Any) -> Expression:
        return Expression("divide", (x, self))

    def __neg__(self) -> Expression:
        return Expression("negative", (self,))

    def __abs__(self) -> Expression:
        return Expression("abs", (self,))

    # comparisons, and what combines them

    def __gt__(self, x: Any) -> Expression:
        return Expression("greater", (self, x))

    def __ge__(self, x: Any) -> Expression:
        return Expression("greater_equal", (self, x))

    def __lt__(self, x: Any) -> Expression:
        return Expression("less", (self, x))

    def __le__(self, x: Any) -> Expression:
        return Expression("less_equal", (self, x))

    def __invert__(self) -> Expression:
        return Expression("logical_not", (self,))

    def __and__(self, x: Any) -> Expression:
        return Expression("logical_and", (self, x))

    def __or__(self, x: Any) -> Expression:
        return Expression("logical_or", (self, x))

    def __bool__(self) -> bool:
        raise TypeError("a branch on computed values cannot be exported: use where(condition, other)")

    def where(self, condition: Expression, other: Any) -> Expression:
        """This where the condition is true, the other elsewhere."""
        return Expression("where", (condition, self, other))

    def square(self) -> Expression:
        """x · x"""
        return self * self

    def __getattr__(self, name: str) -> Callable[..., Expression]:
        if name not in FUNCTIONS:
            raise AttributeError(name)
        return lambda *others: Expression(name, (self, *others))


FUNCTIONS = (
    "isnan", "relu", "exp", "expm1", "log", "log1p", "erf", "sigmoid", "tanh", "sqrt", "sign", "abs",
    "maximum", "minimum",
)  # fmt: skip
"""Methods of numbers that have an operation of their own."""


def written(function: Callable[[Any], Any]) -> Expression:
    """What a function of numbers computes, as a formula in one symbol."""
    result = function(Expression("symbol"))
    assert isinstance(result, Expression)
    return result
