"""A user's mistake as one line: where it is, what it is, what to do.

`UserError` is raised by our own checks. `of_system` turns what the system lacks into the same form, and
returns None for anything else, which is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path

CONFIGURATION, DATA, RUN_FOLDER, RESOURCE = 2, 3, 4, 5
"""Exit statuses: configuration, data, run folder, and disk, memory or device."""


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)
"""Errors of the disk and its limits, which a bug does not cause."""


class UserError(Exception):
    """A person's mistake: `where` it is, `what` it is, what to do (`todo`), and the exit `status`."""

    def __init__(self, where: str, what: str, todo: str = "", status: int = CONFIGURATION) -> None:
        super().__init__(where, what, todo, status)
        self.where, self.what, self.todo, self.status = where, what, todo, status

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.what}" + (f"; {self.todo}" if self.todo else ""))


def data_error(where: str, what: str, todo: str) -> UserError:
    """A mistake in a person's data (status 3)."""
    return UserError(where, what, todo, DATA)


def printable(text: str) -> str:
    """Any text as one line that every terminal, file and font can show: `\\n` for a line feed, `\\x1b`.

    A file's name, a label or a cell may contain control characters, bidirectional marks, lone surrogates.
    Different texts stay different unless they were written to look alike.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


FORMULA = tuple("=+-@＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula."""


def without_formula(text: str) -> str:
    """Text for a cell of a CSV file: what a spreadsheet would compute has an apostrophe before it; numbers
    stay numbers."""
    if not text.startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def short(text: str, longest: int) -> str:
    """The same, cut where it is longer: a label in a picture."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'adam'?)`, or nothing where no known name is close."""
    lower = {k.lower(): k for k in known}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), list(lower), n=1)]
    return f" (did you mean {close[0]!r}?)" if close else ""


def of_system(error: BaseException) -> UserError | None:
    """The mistake behind an exception: a `UserError` itself, or what the system lacks (memory, disk space,
    descriptors, a working folder); None for a bug."""
    if isinstance(error, UserError):
        return error
    if is_memory_error(error):
        what = str(error).partition("DefaultCPUAllocator: ")[2] or str(error) or "is not sufficient"
        return UserError("memory", first_line(what), "use a smaller network or less data", RESOURCE)
    if isinstance(error, OSError) and error.errno in DISK:
        todo = "free resources and run again"
        return UserError(str(error.filename or "disk"), str(error.strerror).lower(), todo, RESOURCE)
    if isinstance(error, FileNotFoundError) and not _working_directory_exists():
        return UserError("working directory", "has been deleted", "change to one that exists", RUN_FOLDER)
    return None


def _working_directory_exists() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


NO_MEMORY = re.compile(
    "DefaultCPUAllocator|failed to map segment|cannot allocate memory|can't start new thread", re.I
)
"""What PyTorch, the linker and the interpreter say where memory or its limits are too small."""


def is_memory_error(error: BaseException) -> bool:
    """Whether memory, the CPU's or a GPU's, was too small. PyTorch raises
    RuntimeError for the CPU's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, ImportError)) and bool(NO_MEMORY.search(str(error)))


def first_line(text: str) -> str:
    """The first line that says something, without its full stop."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "cannot be read"
