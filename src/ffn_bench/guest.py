"""The package as a guest of another program, a notebook say, whose signals and arguments are its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _State:
    command: Sequence[str] | None = None
    """The command that does what the program asks for."""
    is_guest: bool = False


_state = _State()


@contextmanager
def visit(command: Sequence[str]) -> Iterator[None]:
    """Within this context do what `command` does, for the program that this process belongs to."""
    before = _state.command, _state.is_guest
    _state.command, _state.is_guest = command, True
    try:
        yield
    finally:
        _state.command, _state.is_guest = before


def is_guest() -> bool:
    """Whether this process belongs to another program, which only lends it."""
    return _state.is_guest


def own_process() -> None:
    """For a process that a guest has forked: it belongs to nobody else."""
    _state.is_guest = False


def command_line() -> Sequence[str]:
    """The command that is carried out: what was typed, or what a guest's call amounts to."""
    return sys.argv if _state.command is None else _state.command
