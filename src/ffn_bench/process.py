"""The process as the system hands it over: its streams, its signals, its limits.

Nothing but the standard library is imported here: `begin` comes before everything else.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import functools
import gc
import importlib.abc
import io
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO, NoReturn, ParamSpec, TypeVar

from ffn_bench import errors, guest

P = ParamSpec("P")
R = TypeVar("R")
COMMANDS = (
    "ffn-train",
    "ffn-lecture",
    "ffn-compare",
    "ffn-race",
    "ffn-landscape",
    "ffn-predict",
    "ffn-export",
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 1.3
"""Seconds that a process may take to leave in good order once a signal has come."""


@dataclass
class _State:
    is_command: bool = False
    """Whether this process is one of the commands, and not one that only uses the package."""
    output_closed: bool = False
    """Whether it was started without standard output (`>&-`)."""
    left: int = 0
    """The signal that it leaves for."""
    announced: bool = False
    ending: bool = False
    busy: set[int] = field(default_factory=set)
    """Threads that are in a function which tidies up."""


_state = _State()


def name() -> str:
    """The command as it was called, for messages."""
    return Path(sys.argv[0]).stem


def begin() -> None:
    """What a command does before it imports anything that may take long or fail.

    Called when the package is imported; does nothing in a process that was not started as a command.
    """
    script = next((word for word in sys.orig_argv[1:] if not word.startswith("-")), "")
    if Path(script).name in COMMANDS or script.startswith("ffn_bench."):
        _state.is_command = True
        gc.disable()  # imports make no garbage; `start.collector_put_off` ends this
        open_streams()
        last()
        listen()
        sys.excepthook = _last_resort
        atexit.register(_skip_teardown)
        check_limits()


def _last_resort(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an uncaught exception in one line: while a command is being imported nothing else does yet."""
    if isinstance(error, KeyboardInterrupt):
        end(signal.SIGINT)
    mistake = errors.of_system(error)
    if mistake:
        print(f"{name()}: error: {mistake}", file=sys.stderr)
        os._exit(mistake.status)
    sys.__excepthook__(kind, error, trace)


# --- signals --------------------------------------------------------------------------------------------


def listen() -> None:
    """Leave when a signal comes."""
    for number in heard():
        signal.signal(number, _leave)


def heard() -> list[signal.Signals]:
    """The signals that stop a command: not SIGHUP where it is ignored, as below nohup. Of another program
    only ^C: what the others mean is for it to say."""
    if guest.is_guest():
        return [signal.SIGINT]
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if not (ignored and number == signal.SIGHUP)]


def tidies(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that cleans up after an exception: a signal is raised in it as one.

    Anywhere else a signal ends the process at once. Libraries swallow exceptions that come from nowhere (an
    import that is half done, OmegaConf, destructors) and fail later, in another way. Other threads may finish
    such functions that they have entered, and enter no more.
    """

    @functools.wraps(function)
    def tidied(*args: P.args, **kwargs: P.kwargs) -> R:
        thread = threading.get_ident()
        _state.busy.add(thread)
        try:
            if _state.ending and threading.current_thread() is not threading.main_thread():
                _state.busy.discard(thread)
                threading.Event().wait()  # for the end of the process
            return function(*args, **kwargs)
        finally:
            _state.busy.discard(thread)

    return tidied


def _leave(number: int, frame: FrameType | None) -> None:
    """Handle a signal: end the process, but let a function that tidies up finish first."""
    if _state.is_command and not _is_tidying(frame):
        end(number)
    leave(number)


def _is_tidying(frame: FrameType | None) -> bool:
    while frame is not None and (frame.f_code.co_name, frame.f_code.co_filename) != ("tidied", __file__):
        frame = frame.f_back
    return frame is not None


def leave(number: int) -> None:
    """Raise what ends the command for a signal. Another signal, or too long a wait, ends it at once."""
    if _state.is_command:
        for other in heard():
            signal.signal(other, lambda *_: end(number))
        hurry(number)
        hush()
        _state.left = number
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def hurry(number: int) -> None:
    """End the process for a signal in a while, whatever it does by then but writing a file."""

    def late(_: int, frame: FrameType | None) -> None:
        if _is_tidying(frame):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            end(number)

    if _state.is_command and not signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)


def hush() -> None:
    """Silence errors of destructors and exit handlers: the command is being interrupted."""
    if _state.is_command:
        sys.unraisablehook = lambda _: None


def end(number: int) -> NoReturn:
    """End the process now, for a signal: files are complete at every instant."""
    tell(number)
    _state.ending, latest = True, time.monotonic() + 0.4
    while _state.busy - {threading.get_ident()} and time.monotonic() < latest:
        time.sleep(0.005)
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h\n")  # the cursor, which a live display hides
    os._exit(128 + number)


def tell(number: int) -> None:
    """Say once that the command was interrupted, on a line of its own behind the ^C that a terminal shows."""
    if number == signal.SIGINT and not _state.announced:
        _state.announced = _state.is_command
        with contextlib.suppress(OSError):
            print("\n" * sys.stderr.isatty() + f"{name()}: interrupted", file=sys.stderr, flush=True)


def _skip_teardown() -> None:
    """Runs after all other exit handlers: interpreter shutdown takes up to a second and ignores signals."""
    if _state.left:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(128 + _state.left)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # all is done; the status says how


# --- streams --------------------------------------------------------------------------------------------

PLAIN = {
    "–": "-", "−": "-", "─": "-", "→": "->", "×": "x", "·": "*", "…": "...", "±": "+-", "∞": "inf",
    "η": "eta", "θ": "theta", "λ": "lambda", "σ": "sigma", "τ": "tau", "✓": "+", "✗": "x",
}  # fmt: skip
"""What stands for the signs that we write where a terminal does not have them."""


def _without(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that the stream's encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    unencodable = error.object[error.start : error.end]
    text = "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unencodable)
    return text, error.end


codecs.register_error("ffn_bench.plain", _without)


def open_streams() -> None:
    """Open what was closed (`>&-`): the next file would become standard output, and be written into."""
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            file = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(file, True)
            assert file == number
            _state.output_closed |= stream == "stdout"
        if getattr(sys, stream) is None:
            setattr(sys, stream, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


class _Lasting(io.RawIOBase):
    """A file descriptor that takes everything, and notes what was wrong when it could not write it.

    What a command leaves in its folder matters, and a reader that has gone (`| head -1`) or a full disk
    behind `>` must not end a training.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.fault: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, content: Any) -> int:
        rest = memoryview(content).cast("B")
        size = len(rest)
        while rest and self.fault is None:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # of a pipe that somebody made so: wait for its reader
                import select

                select.select([], [self._number], [])
            except OSError as e:
                self.fault = e
        return size


def last() -> None:
    """Make standard output and error streams that never raise, whatever is written and wherever it goes."""
    for stream in ("stdout", "stderr"):
        old = getattr(sys, stream)
        lines = old.isatty() or stream == "stderr"
        lasting = io.BufferedWriter(_Lasting(old.fileno()))
        setattr(sys, stream, io.TextIOWrapper(lasting, old.encoding, "ffn_bench.plain", line_buffering=lines))


class _Waiting(io.RawIOBase):
    """Standard input, which is waited for a moment at a time, so that a signal is heard: Polars has the
    system go on reading after a SIGINT."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import select

        while not select.select([0], [], [], 0.2)[0]:
            pass
        return os.readv(0, [buffer])


def standard_input() -> BinaryIO:
    """The bytes of standard input."""
    buffer = sys.stdin.buffer
    if not isinstance(getattr(buffer, "raw", None), io.FileIO):  # a test's
        return buffer
    return io.BufferedReader(_Waiting(), 2**16)


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Raise `UserError` (status 5) at the end of what succeeded but for its standard output.

    A reader that has gone wants no more, and is no fault.
    """
    try:
        yield
    except SystemExit as e:
        if e.code not in (None, 0):
            raise
        _check_output()
        raise
    _check_output()


def output_fault() -> OSError | None:
    """What keeps standard output from being written, if anything does: nobody gets what is written now."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.fault if isinstance(raw, _Lasting) else None


def check_output_open() -> None:
    """Raise `UserError` (status 5) where what a command is for would be written to nothing (`>&-`)."""
    if _state.output_closed:
        raise errors.UserError("standard output", "is closed", "open it, or name a file", errors.RESOURCE)


def _check_output() -> None:
    sys.stdout.flush()
    fault = output_fault()
    if fault and fault.errno not in (errno.EPIPE, errno.ECONNRESET):
        what = f"cannot be written ({str(fault.strerror).lower()})"
        raise errors.UserError("standard output", what, "everything else is done", errors.RESOURCE)


# --- limits ---------------------------------------------------------------------------------------------

LEAST = 96 * 2**20
"""Bytes of address space below which the interpreter itself breaks in odd ways."""
MARGIN = 256 * 2**20
"""Bytes of address space that must be left once everything is imported."""
TRIALS = {
    "torch": "import ffn_bench.sweeps.sweep, torch._dynamo as t; x = t.torch.ones(64, 64); x @ x",
    "numpy": "import numpy, scipy.linalg, matplotlib.figure; x = numpy.ones((64, 64)); x @ x",
}  # fmt: skip
"""What is run in another process before a library is imported where memory is limited."""


class _Trial(importlib.abc.MetaPathFinder):
    """Where the address space is limited, finds out whether a library can be imported before it is.

    Native code that gets no memory aborts, or tries for minutes; its process is lost then. How much is needed
    depends on how the library was built and on the number of cores, so it is tried.
    """

    def __init__(self) -> None:
        self.tried: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Nothing, or `UserError` (status 5)."""
        if fullname not in TRIALS or fullname in self.tried:
            return
        self.tried.add(fullname)
        import subprocess

        lower = {kind: (max(0, soft - MARGIN), hard) for kind, (soft, hard) in limits().items()}
        code = "".join(f"resource.setrlimit({kind}, {both})\n" for kind, both in lower.items())
        code = f"import resource\n{code}{TRIALS[fullname]}"
        quiet: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        try:
            subprocess.run([sys.executable, "-c", code], timeout=60, check=True, **quiet)
        except (OSError, subprocess.SubprocessError) as e:
            raise too_low(f"to import {fullname}") from e


def limits() -> dict[int, tuple[int, int]]:
    """The memory limits that are set: soft and hard one, bytes."""
    memory = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    return {kind: both for kind, both in memory.items() if both[0] != resource.RLIM_INFINITY}


def descriptors(wanted: int) -> int:
    """How many files may be open at a time; the limit is raised towards `wanted` as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # of systems that have a lower one of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def end_with(parent: int) -> None:
    """Have the system kill this process, which that one has forked, when that one ends, however it does."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def cores() -> int:
    """Cores that this process may use, or what OMP_NUM_THREADS says."""
    try:
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    except (KeyError, ValueError):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_limits() -> None:
    """Raise `UserError` (status 5) where memory is limited too much: at once, or when a library that needs
    more is imported."""
    if limits():
        if min(limits().values())[0] < LEAST:
            raise too_low("to start")
        sys.meta_path.insert(0, _Trial())


def too_low(what_for: str) -> errors.UserError:
    """The mistake of a memory limit that is too low."""
    low = min(limits().values())[0] / 2**20
    what = f"its limit of {low:,.0f} MiB is too low {what_for}"
    return errors.UserError("memory", what, "raise it (ulimit -v, ulimit -d)", errors.RESOURCE)
