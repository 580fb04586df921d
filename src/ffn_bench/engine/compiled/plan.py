"""Where everything lies in memory: the layout of the arrays that the kernels work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffn_bench.engine.compiled.registers import BYTES

IntArray = NDArray[np.int64]
Numbers = NDArray[Any]

FUNCTIONS = ("function", "derivative", "loss", "rule", "product", "transpose", "squares")
"""What is compiled beside the kernels, which call it by its address."""

HEADER = 2 + len(FUNCTIONS)
"""Integers of a plan before its lists of integers."""


def aligned(count: int, dtype: np.dtype[Any]) -> Numbers:
    """`count` zeros that begin on a cache line: a vector over two lines is loaded at half the speed."""
    raw = np.zeros(count * dtype.itemsize + BYTES, np.uint8)
    skip = -raw.ctypes.data % BYTES
    return raw[skip : skip + count * dtype.itemsize].view(dtype)


def address(array: Numbers) -> int:
    """Where an array begins in memory."""
    begin: int = array.__array_interface__["data"][0]
    return begin


class Located:
    """An array, and where it lies in memory, which NumPy takes a microsecond to say."""

    def __init__(self, array: Numbers) -> None:
        self.array, self._begin, self._stride = array, address(array), array.strides[0]

    def at(self, row: int) -> int:
        """Where one of its rows begins."""
        return self._begin + row * self._stride


def rounded_up(n: int, unit: int) -> int:
    """The smallest multiple of `unit` that is at least n."""
    return -(-n // unit) * unit


def chunk_rows(batch_size: int, lanes: int, largest: int = 128) -> int:
    """Rows that go through the network together: equal parts of a batch, in whole registers."""
    parts = -(-batch_size // largest)
    return rounded_up(-(-batch_size // parts), lanes)


class Plan:
    """A network's arrays for chunks of `b` rows, and their layout as the integers that the kernels read.

    In `H` lie, one after another and each `[room][b]`, room = width + 1 filled up to whole registers:
    h⁰ … h^L and h̄⁰ … h̄^L (h^L and h̄⁰ unused), two ḡ, and one ḡ transposed, `[b][room]`.
    """

    def __init__(
        self, widths: Sequence[int], b: int, dtype: np.dtype[Any], addresses: Mapping[str, int]
    ) -> None:
        lanes, n_layers = BYTES // dtype.itemsize, len(widths) - 1
        room = [rounded_up(w + 1, lanes) for w in widths]
        largest = max(room)
        starts = np.cumsum([0, *(r * b for r in room * 2), *[largest * b] * 3])
        h, h_bar, others = starts[: n_layers + 1], starts[n_layers + 1 : -4], starts[-4:-1]
        header = [n_layers, b, *(addresses[name] for name in FUNCTIONS)]
        lists = [header, widths, room, h, h_bar, others, np.arange(largest) * b]
        self.integers: IntArray = np.concatenate([np.asarray(x, np.int64) for x in lists])
        self.H = aligned(int(starts[-1]), dtype)
        self.weights, self.losses = aligned(b, dtype), aligned(b, dtype)
        self.targets = aligned(room[-1] * b, dtype)
        self.starts = np.zeros(b, np.int64)
        self.scratch = (self.H, self.weights, self.losses, self.targets, self.starts)
        """What a kernel works on, in its order."""
        for k in range(1, n_layers):  # the bias as a row of W: every h has a row of ones behind it
            begin = int(h[k]) + widths[k] * b
            self.H[begin : begin + b] = 1
