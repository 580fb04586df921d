"""NumPy's arrays as the numbers of `activations`: with the methods that tensors and registers have."""

from __future__ import annotations

from typing import Any, Self

import numpy as np


class ArrayNumbers(np.ndarray[Any, np.dtype[Any]]):
    """An array with PyTorch's names for functions of its elements: `x.view(ArrayNumbers)`.

    As with tensors and registers, a NaN stays one, and Python's numbers take the array's precision.
    """

    def where(self, condition: Any, other: Any) -> Self:
        """This where the condition is true, the other elsewhere."""
        return self._of(np.where(condition, self, np.asarray(other, self.dtype)))

    def isnan(self) -> Any:
        """Where x is no number."""
        return np.isnan(self)

    def relu(self) -> Self:
        """max(x, 0)"""
        return self._of(np.maximum(self, 0))

    def exp(self) -> Self:
        """eˣ"""
        return self._of(np.exp(self))

    def expm1(self) -> Self:
        """eˣ − 1, exact near 0."""
        return self._of(np.expm1(self))

    def log(self) -> Self:
        """ln x"""
        return self._of(np.log(self))

    def log1p(self) -> Self:
        """ln(1 + x), exact near 0."""
        return self._of(np.log1p(self))

    def erf(self) -> Self:
        """The error function, of SciPy: NumPy has none."""
        from scipy.special import erf

        return self._of(erf(self.view(np.ndarray)))

    def sigmoid(self) -> Self:
        """1/(1 + e⁻ˣ), by an exponential that cannot overflow."""
        e = np.exp(-np.abs(self))
        return self._of(np.where(self < 0, e, 1) / (1 + e))

    def tanh(self) -> Self:
        """tanh x"""
        return self._of(np.tanh(self))

    def square(self) -> Self:
        """x · x"""
        return self._of(np.square(self))

    def sqrt(self) -> Self:
        """√x"""
        return self._of(np.sqrt(self))

    def sign(self) -> Self:
        """−1, 0 or 1."""
        return self._of(np.sign(self))

    def abs(self) -> Self:
        """|x|"""
        return self._of(np.abs(self))

    def maximum(self, other: Any) -> Self:
        """The larger of two."""
        return self._of(np.maximum(self, other))

    def minimum(self, other: Any) -> Self:
        """The smaller of two."""
        return self._of(np.minimum(self, other))

    def _of(self, values: Any) -> Self:
        """Values in this array's precision."""
        return np.asarray(values, self.dtype).view(type(self))
