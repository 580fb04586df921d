"""The command, run inside the test process, and where real data lies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import hypothesis
import pytest
import torch

import ffn_bench.train
from ffn_bench.command_line import resolvers
from ffn_bench.configuration import parsing

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")
torch.set_num_threads(1)  # the suite runs a process a core; more threads than cores is 50 times slower

MNIST = Path(__file__).parents[2] / "shared" / "data"
needs_mnist = pytest.mark.skipif(
    not (MNIST / "MNIST" / "raw").is_dir(), reason="the MNIST files are not here"
)


@dataclass
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


def call(
    main: Callable[[], None],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> Result:
    """Run a console script inside the test process."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    finally:
        torch.set_num_threads(1)
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


@pytest.fixture(autouse=True)
def registered() -> None:
    parsing.register()
    resolvers.register_resolvers()


@pytest.fixture
def ffn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """`ffn("lr=0.1")` runs `ffn-train lr=0.1` in an empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}

    yield partial(call, ffn_bench.train.main, "ffn-train", monkeypatch, capsys)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def files_below(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())
