"""What is trained: a network's shape, its rows and mini-batches, the same for every program."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Epoch = Callable[[], tuple[int, float]]
"""Trains an epoch, of all its runs; returns the model-steps made and the seconds they took."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network to be trained on random rows with random labels by Adam, and how."""

    widths: tuple[int, ...]
    rows: int
    batch_size: int
    activation: str = "relu"
    dtype: str = "float32"
    l2: float = 0.0

    def __str__(self) -> str:
        batch = "full" if self.batch_size == self.rows else f"{self.batch_size:,}"
        return f"{'-'.join(map(str, self.widths))}, batch {batch}"

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(n_in, n_out) of every layer."""
        return list(itertools.pairwise(self.widths))

    @property
    def steps(self) -> int:
        """Of an epoch of one run."""
        return self.rows // self.batch_size

    def data(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Features `[rows, n_features]`, labels `[rows]`."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.widths[0])).astype(self.dtype)
        return x, rng.integers(self.widths[-1], size=self.rows)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64] | None:
        """The order in which our engines visit the rows in an epoch, from 1; None for a full batch.

        Every program visits them so, or, where it shuffles by itself, in an order of its own.
        """
        if self.batch_size == self.rows:
            return None
        from ffn_bench.seeds import (
            generator,
        )  # sets environment variables: PyTorch's programs import it after torch

        return generator(seed, "order of an epoch", epoch).permutation(self.rows)


SMALL = Work(widths=(16, 10, 20, 15, 26), rows=9_600, batch_size=32)
MIDDLE = Work(widths=(784, 128, 64, 10), rows=3_200, batch_size=64)
WIDE = (
    Work(widths=(784, 1000, 500, 100, 10), rows=2_560, batch_size=128),
    Work(widths=(784, 2048, 2048, 10), rows=768, batch_size=128),
)
"""Rows divide by the batch size: JAX's `scan` knows no smaller last batch."""
