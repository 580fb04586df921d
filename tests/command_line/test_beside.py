"""Work on another core: its result, and what happens where it fails."""

from __future__ import annotations

import os

import psutil
import pytest

from ffn_bench import process
from ffn_bench.command_line.beside import beside

LARGE = 1_000_000
"""Bytes: more than a pipe holds."""


def test_the_result_is_another_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "cores", lambda: 2)
    with beside(lambda: (os.getpid(), b"x" * LARGE)) as result:
        pid, content = result()
        assert pid != os.getpid() and len(content) == LARGE
        assert result() is result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("fault", ["raises", "dies", "not pickled", "one core"])
def test_the_caller_does_what_the_other_process_cannot(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(process, "cores", lambda: 1 if fault == "one core" else 2)
    parent = os.getpid()

    def work() -> object:
        if os.getpid() == parent:
            return "done here"
        if fault == "raises":
            raise ValueError
        if fault == "dies":
            os._exit(3)
        return lambda: None

    with beside(work) as result:
        assert result() == "done here"


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_no_process_is_left_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "cores", lambda: 2)
    before = children()  # of other tests
    with pytest.raises(KeyError), beside(lambda: b"x" * LARGE):
        raise KeyError
    assert children() <= before
