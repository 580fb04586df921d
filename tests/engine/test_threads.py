"""Threads of a step: no more than help, and none that spin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from ffn_bench.engine import device
from ffn_bench.engine.device import threads_for

SMALL = [64, 10, 20, 15, 10]
WIDE = [784, 512, 512, 10]


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("quiet", "widths", "batch_size", "threads"),
    [
        (True, SMALL, 1257, 1),  # gradient descent on the digits
        (True, [784, 128, 64, 10], 64, 1),
        (True, WIDE, 64, 2),
        (True, [784, 128, 64, 10], 50_000, 2),
        (False, WIDE, 64, 1),
        (False, [784, 128, 64, 10], 50_000, 1),
    ],
)
def test_threads_are_for_large_steps_and_sleep(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, widths: list[int], batch_size: int, threads: int
) -> None:
    monkeypatch.setattr(device, "QUIET", quiet)
    monkeypatch.setattr(device, "THREADS", 2)
    assert threads_for(widths, batch_size) == threads


STEPS = """
import os, subprocess, sys, time
from ffn_bench.engine import device  # before PyTorch
import torch
assert device.QUIET
W, x = torch.randn(512, 512), torch.randn(64, 512)
def steps(threads):
    torch.set_num_threads(threads)
    done, end = 0, time.perf_counter() + 1
    while time.perf_counter() < end:
        h = x
        for _ in range(6):
            h = (h @ W).relu_().mul_(0.06)
        done += 1
    return done
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
try:
    steps(1)
    print(steps(1), max(steps(2) for _ in range(6)))
finally:
    for process in busy:
        process.kill()
        process.wait()
"""


def test_two_threads_do_not_collapse_on_busy_cores() -> None:
    """Threads that spin take a tenth to a fiftieth of the steps of one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP"))}
    command = [sys.executable, "-c", STEPS]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
    one, two = map(int, result.stdout.split())
    assert two > one / 4


def test_a_policy_of_the_persons_own_stays() -> None:
    code = (
        "import os; from ffn_bench.engine import device as d; print(os.environ['OMP_WAIT_POLICY'], d.QUIET)"
    )
    environment = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["ACTIVE", "False"]
