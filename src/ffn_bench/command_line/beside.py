"""Work that another core does meanwhile: a forked process that draws, and sends what it drew."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from ffn_bench import process

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Have a forked process do `work`; what is yielded waits for its result, which is pickled,
    and may be called again.

    Where there is one core, or the process dies or raises, the caller does the work itself when it wants the
    result. The process never outlives the block. No thread of ours may run yet: a live display, for one.
    """
    if process.cores() == 1:
        yield cache(work)
        return
    reading, writing = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where PyTorch has threads
        child = os.fork()
    if child == 0:
        os.close(reading)
        _serve(work, writing, parent)
    os.close(writing)
    result = open(reading, "rb")  # noqa: SIM115, PTH123

    @cache
    def wait() -> T:
        content = result.read()
        try:
            kept: T = pickle.loads(content)
        except (EOFError, pickle.UnpicklingError):
            return work()
        return kept

    try:
        yield wait
    finally:
        result.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(work: Callable[[], object], writing: int, parent: int) -> None:
    """Do the work, send its result and end, without a word: the parent repeats what fails."""
    try:
        for number in process.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)  # a ^C is for the parent
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the parent
            if os.getppid() != parent:
                os._exit(1)
        gc.disable()
        content = pickle.dumps(work())
        with open(writing, "wb") as pipe:
            pipe.write(content)
    finally:
        os._exit(0)
