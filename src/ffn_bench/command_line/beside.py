"""Work that another core does meanwhile: a forked process that draws, and sends what it drew."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ffn_bench import process

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Have a forked process do `work`; what is yielded waits for its result, and may be called again.

    Where there is one core, or the process dies or raises, the caller does the work itself when it wants the
    result. The process never outlives the block. No thread of ours may run yet: a live display, for one.
    """
    if process.cores() == 1:
        yield cache(work)
        return
    context: Any = multiprocessing.get_context("fork")
    ours, its = context.Pipe(duplex=False)
    sys.stdout.flush()
    child = context.Process(target=_serve, args=(work, its, os.getpid()), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where PyTorch has threads
        child.start()
    its.close()

    @cache
    def wait() -> T:
        try:
            result: T = ours.recv()
        except (EOFError, OSError):
            return work()
        return result

    try:
        yield wait
    finally:
        ours.close()
        child.kill()
        child.join()


def _serve(work: Callable[[], object], connection: Connection, parent: int) -> None:
    """Do the work and send its result, without a word: the parent repeats what fails."""
    for number in process.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # a ^C is for the parent
    process.end_with(parent)
    gc.disable()
    with suppress(Exception):
        connection.send(work())
