"""In which order an epoch visits the training rows, and how many mini-batches that makes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ffn_bench.seeds import generator


def epoch_order(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which epoch `epoch` (from 1) visits the n training rows: `[n]`.

    A function of (seed, epoch) alone, so that engines, devices and resumed runs share it.
    """
    return generator(seed, "order of an epoch", epoch).permutation(n)


def batch_rows(n: int, batch_size: int | str) -> int:
    """Rows of a mini-batch of n training rows: `full` is all of them."""
    return n if batch_size == "full" else min(n, int(batch_size))


def steps_per_epoch(n: int, batch_size: int | str, drop_last: bool) -> int:
    """Updates that one pass over n training rows makes."""
    if batch_size == "full":
        return 1
    return n // int(batch_size) if drop_last else math.ceil(n / int(batch_size))
