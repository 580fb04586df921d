"""Who may write into a folder: one process at a time."""

from __future__ import annotations

import fcntl
import os
import re
import socket

from ffn_bench import errors
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

HOLDER = re.compile(rb"(process \d+ on [^\n]{0,300})?")
"""The content of a lock file of ours."""


# --- who may write --------------------------------------------------------------------------------------


class InUse(UserError):
    """Another process writes into a folder."""

    def __init__(self, folder: Folder, by: str) -> None:
        super().__init__(
            str(folder), f"is in use by {by}", "wait for it, or use another name", errors.RUN_FOLDER
        )


class Lock:
    """The right to write into a folder, held by one process at a time and lost with it, however it ends.

    Raises `InUse` at once where another process has it, and `UserError` (status 4) where the file system has
    no locks, or no file can be one.
    """

    def __init__(self, folder: Folder, shared: bool = False) -> None:
        """Take it at once. Those that are `shared` go together, and exclude those that are not."""
        self._file = folder.open_lock()
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as e:
            os.close(self._file)
            if isinstance(e, BlockingIOError):
                raise InUse(folder, holder(folder) or "another process") from e
            what, todo = f"cannot be locked ({e.strerror})", "use a folder on another file system"
            raise UserError(str(folder), what, todo, errors.RUN_FOLDER) from e
        self._names_holder = not shared and HOLDER.fullmatch(os.pread(self._file, 400, 0)) is not None
        if self._names_holder:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Let others write."""
        if self._names_holder:
            os.ftruncate(self._file, 0)
        os.close(self._file)


def holder(folder: Folder) -> str | None:
    """Which process is writing into a folder now, in words; None where none is."""
    try:
        file = folder.open_lock(create=False)
    except (OSError, UserError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(file, 200, 0).decode(errors="replace")
        return "".join(c for c in said if c.isprintable()) or "another process"
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def check_free(folder: Folder) -> None:
    """Raise `UserError` (status 4) where another process writes now. `Lock` decides; this tells early."""
    if by := holder(folder):
        raise InUse(folder, by)
