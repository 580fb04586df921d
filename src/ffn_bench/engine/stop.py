"""Graceful stopping: a signal is noted, and the training ends at its next step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ffn_bench import guest, process


class Stop:
    """Whether a signal has requested a stop; as a context manager it listens for signals.

    The first signal sets `requested`, for loops to check. The second ends the process at once, and so does
    taking too long over it (large networks, many runs): files are complete at every instant. In a process of
    another program the second raises KeyboardInterrupt.
    `raise_if_requested` then ends the command with the status of the signal.
    """

    def __init__(self) -> None:
        self.requested = False
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in process.heard()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and guest.is_guest():
            raise KeyboardInterrupt
        if self.requested:
            process.end(number)
        self.requested, self.number = True, number
        process.hurry(number)

    def raise_if_requested(self) -> None:
        """Raise the exception that ends the command, if a signal was received."""
        if self.number:
            process.leave(self.number)
