"""The device that PyTorch trains on: found by name and described, and its threads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ffn_bench import errors
from ffn_bench.errors import UserError


def find_device(name: str, dtype: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`; auto takes a GPU where there is one.

    Raises `UserError` (status 5) for one that is not available: there is no silent fallback.
    """
    available = (
        ["cpu"] + [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else ["cpu"]
    )
    mps = torch.backends.mps.is_available()
    if name == "auto":
        # mps has no float64, and auto must not choose what cannot run.
        name = "cuda" if len(available) > 1 else "mps" if mps and dtype == "float32" else "cpu"
    if mps:
        available.append("mps")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise UserError(
            "device",
            f"{name!r} is not available",
            f"this machine has {', '.join(available)}",
            errors.RESOURCE,
        )
    if wanted == "mps" and dtype == "float64":
        raise UserError("dtype", "mps has no float64", "use dtype=float32 or device=cpu")
    return torch.device(name)


THREADS = torch.get_num_threads()
"""Threads that PyTorch uses by itself: the cores, or what OMP_NUM_THREADS says."""

QUIET = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" and "GOMP_SPINCOUNT" not in os.environ
"""Whether threads sleep while they wait for each other, as `ffn_bench` sets it if imported before torch."""

LARGE_STEP = 30_000_000
"""Multiply-adds of a mini-batch's forward pass from which on a second thread is worth waking."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let CPU operations use so many threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(widths: Sequence[int], batch_size: int) -> int:
    """Threads for the steps of one run: one, or all of them for large steps, if they sleep while they wait.

    Threads that spin collapse on busy cores. Steps/s of Adam in float32 on two cores, worst and best of 2 or
    3; busy: two other processes compute all the time, loaded: the machine had a load of 4.

    | network, rows of a batch | one thread | two that spin | two that sleep |
    |---|---|---|---|
    | 64-10-20-15-10, 1,257, busy | 167–254 | 1.2–15 | 235–910 |
    | the same, loaded | 894–956 | 2.4–4.8 | 532–568 |
    | 784-128-64-10, 64, busy | 232–233 | 4.9–11 | 596–716 |
    | the same, loaded | 1,247–1,901 | 33–371 | 667–1,441 |
    | 784-512-512-10, 64, busy | 65–69 | 1.5–3.5 | 82–147 |
    | the same, loaded | 346–391 | 13–601 | 166–329 |
    | 784-128-64-10, 20,000, busy | 1.6–1.9 | 0.7–0.8 | 2.6–3.1 |
    | the same, loaded | 6.3–6.6 | 1.5–3.2 | 6.4 |
    """
    large = multiply_adds(widths, batch_size) >= LARGE_STEP
    return THREADS if QUIET and large else 1


def multiply_adds(widths: Sequence[int], batch_size: int) -> int:
    """Of a mini-batch's forward pass."""
    return batch_size * sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))


def describe(name: str) -> str:
    """The device in words."""
    device = torch.device(name)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        n = torch.get_num_threads()
        return f"cpu ({n} thread{'s' * (n > 1)})"
    return str(device)
