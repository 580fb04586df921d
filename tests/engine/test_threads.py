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


def test_idle_threads_of_a_product_sleep() -> None:
    """Threads that spin beside a busy core take a tenth to a fiftieth of the steps of one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP"))}
    result = subprocess.run(
        [sys.executable, "-c", "from ffn_bench.engine import device; assert device.QUIET; import torch"],
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    policies = [line.split("=")[1].strip() for line in result.stderr.splitlines() if "WAIT_POLICY" in line]
    assert set(policies) == {"'PASSIVE'"}, result.stderr
    assert "GOMP_SPINCOUNT = '0'" in result.stderr


def test_a_policy_of_the_persons_own_stays() -> None:
    code = (
        "import os; from ffn_bench.engine import device as d; print(os.environ['OMP_WAIT_POLICY'], d.QUIET)"
    )
    environment = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.split() == ["ACTIVE", "False"]
