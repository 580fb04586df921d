"""A file that only grows: what it holds already is never written again."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ffn_bench import errors
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder, append, sha256_of


class Appended:
    """A file that only grows. What `write` takes waits for `flush`.

    A new one must not exist yet, and is noted by `Folder.note_logs`; `resume` continues an existing one.
    `strict` says that nobody else may write to it.
    """

    def __init__(self, folder: Folder, name: str, strict: bool = True) -> None:
        self.folder, self.name, self.size = folder, name, 0
        self._disk_size = 0  # its size on the disk, which is larger where it has to be truncated first
        self._exists, self._strict = False, strict
        self._waiting: list[bytes] = []
        self._digest = hashlib.sha256()

    @property
    def state(self) -> dict[str, Any]:
        """Its size and the SHA-256 of its content, as far as it is flushed."""
        return {"size": self.size, "sha256": self._digest.hexdigest()}

    def write(self, content: bytes) -> None:
        """Take some bytes."""
        self._waiting.append(content)

    def resume(self, size: int | None = None, sha256: str | None = None) -> None:
        """Continue the existing file: the next `flush` truncates it to `size` first; by default it does not.

        Raises `UserError` where it is missing, or where its first bytes differ from what was written (by
        their hash, if one is known).
        """
        where = f"{self.folder}/{self.name}"
        todo = "restore it, or train again in a new folder with force=true"
        if self.folder.kind(self.name) is None:
            raise UserError(where, "is missing", todo, errors.RUN_FOLDER)
        with self.folder.open_file(self.name, os.O_RDWR) as file:
            self._disk_size = os.fstat(file).st_size
            self.size = self._disk_size if size is None else size
            if self._disk_size < self.size:
                raise UserError(where, "is shorter than at the last checkpoint", todo, errors.RUN_FOLDER)
            if size is not None:
                self._digest = sha256_of(file, self.size)
            if sha256 not in (None, self._digest.hexdigest()):
                raise UserError(
                    where, "does not match its checkpoint: it was changed", todo, errors.RUN_FOLDER
                )
        self._exists = True

    def flush(self, sync: bool = False) -> None:
        """Append what waits, all of it or, where that fails, nothing: an `OSError` then, and it waits on.

        With `sync` it is on the disk afterwards.
        """
        if not self._waiting and not sync:
            return
        flags = os.O_WRONLY | os.O_APPEND | (0 if self._exists else os.O_CREAT | os.O_EXCL)
        with self.folder.open_file(self.name, flags) as file:
            self._exists = True
            disk_size = os.fstat(file).st_size
            if disk_size != self._disk_size and self._strict:
                what = "was changed by another program while it was written"
                raise UserError(f"{self.folder}/{self.name}", what, "train again", errors.RUN_FOLDER)
            if self._disk_size > self.size:
                os.ftruncate(file, self.size)
                disk_size = self.size
            content = b"".join(self._waiting)
            append(file, content, disk_size)
            self._digest.update(content)
            self.size = self._disk_size = disk_size + len(content)
            self._waiting.clear()
            if sync:
                os.fsync(file)
