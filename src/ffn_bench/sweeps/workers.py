"""Worker processes that train the runs of a sweep, one whole run after the other in each.

They are forked, so they begin within milliseconds and share what the parent has loaded: data, configurations,
code. Each run writes its own folder; only what is shown comes back. A run is the same bits in any of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ffn_bench import guest, process
from ffn_bench.engine.stop import Stop
from ffn_bench.process import SIGNALS

LOOK_SECONDS = 0.1
"""Between two looks at signals."""

Send = Callable[[Any], None]
"""Hands a message to the parent."""


@dataclass(frozen=True)
class Worker:
    """A process, and what it is asked to train."""

    process: Any
    connection: Connection
    number: int


class Lost(Exception):
    """A worker ended while it trained a run: the system killed it, or a library did."""

    def __init__(self, number: int, exit_code: int | None) -> None:
        cause = f"signal {-exit_code}" if exit_code and exit_code < 0 else f"status {exit_code}"
        self.number = number
        super().__init__(
            f"its process ended ({cause}): perhaps too little memory; the same command resumes it"
        )


def count() -> int:
    """How many processes train a sweep: one a core, none in a process of another program that has threads.

    A fork has the thread that forked and no other, and for ever the locks that those held.
    """
    if guest.is_guest() and _other_threads():
        return 0
    return process.cores()


def _other_threads() -> bool:
    """Whether this process has threads but for this one and OpenBLAS', which end theirs before a fork."""
    import threadpoolctl

    try:
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208  # names only
    except OSError:  # of systems that do not tell
        return True
    pools = threadpoolctl.threadpool_info()
    blas: int = sum(pool["num_threads"] - 1 for pool in pools if pool["internal_api"] == "openblas")
    return threads - 1 > blas


def train(
    numbers: Iterable[int],
    count: int,
    work: Callable[[int, Send], None],
    on_start: Callable[[], None],
    on_message: Callable[[int, Any], None],
    on_lost: Callable[[Lost], None],
    stop: Stop,
) -> None:
    """Let `count` processes call `work(number, send)` for every number, each for one at a time.

    `on_start` is called once they exist; what they send is handed to `on_message`. Where a `stop` is
    requested, workers are asked to stop, too: they leave their runs in good order, and no other is begun.
    """
    left, workers = deque(numbers), list[Worker]()
    try:
        while len(workers) < count and left:
            workers.append(_start(left.popleft(), work))
        on_start()
        asked = False
        while workers:
            if stop.requested and not asked:
                asked = True
                left.clear()
                for worker in workers:
                    with suppress(ProcessLookupError):
                        os.kill(worker.process.pid, signal.SIGTERM)
            ready = wait([worker.connection for worker in workers], LOOK_SECONDS)
            for worker in [w for w in workers if w.connection in ready]:
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):
                    kind, content = "ended", None
                if kind == "message":
                    on_message(worker.number, content)
                    continue
                workers.remove(worker)
                if kind == "done":
                    number = left.popleft() if left else None
                    try:
                        worker.connection.send(number)
                    except OSError:  # it was killed meanwhile, and lost nothing
                        if number is not None:
                            workers.append(_start(number, work))
                    else:
                        if number is not None:
                            workers.append(Worker(worker.process, worker.connection, number))
                            continue
                worker.process.join()
                worker.connection.close()
                if kind == "ended" and not stop.requested:
                    on_lost(Lost(worker.number, worker.process.exitcode))
                    if left:
                        workers.append(_start(left.popleft(), work))
    finally:
        for worker in workers:  # after an exception of ours
            worker.process.kill()


def _start(number: int, work: Callable[[int, Send], None]) -> Worker:
    """A process that begins with a number."""
    context: Any = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    child = context.Process(target=_serve, args=(its, ours, os.getpid(), number, work), daemon=True)
    sys.stdout.flush()
    # A signal that comes before the process listens must not be one for its copy of our `stop`.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    its.close()
    return Worker(child, ours, number)


def _serve(connection: Connection, parents: Connection, parent: int, number: int | None, work: Any) -> None:
    """What a worker does: train until there is no number left, or a signal has come."""
    parents.close()
    guest.own_process()
    os.setpgid(0, 0)  # a ^C is for the parent, which tells its workers once
    process.end_with(parent)

    def send(content: Any) -> None:
        try:
            connection.send(("message", content))
        except BrokenPipeError:  # the parent has ended
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which forgets one that came before we left its group
    with suppress(BrokenPipeError, EOFError, ConnectionResetError), Stop() as stop:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while number is not None and not stop.requested:
            work(number, send)
            connection.send(("done", None))
            number = connection.recv()
