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

    One that is begun must not be there yet, and is noted by `Folder.note_logs`; `resume` goes on with one
    that is there. `strict` says that nobody else may write to it.
    """

    def __init__(self, folder: Folder, name: str, strict: bool = True) -> None:
        self.folder, self.name, self.size = folder, name, 0
        self._there = 0  # its size on the disk, which is larger where it has to be cut first
        self._begun, self._strict = False, strict
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
        """Go on with the file that is there: the next `flush` cuts it to `size` first; by default all of it
        stays.

        Raises `UserError` where it is missing, or where its first bytes are not what was written (do not have
        the hash, if one is known).
        """
        where = f"{self.folder}/{self.name}"
        todo = "restore it, or train anew in another folder with force=true"
        if self.folder.kind(self.name) is None:
            raise UserError(where, "is missing", todo, errors.RUN_FOLDER)
        with self.folder.open_file(self.name, os.O_RDWR) as file:
            self._there = os.fstat(file).st_size
            self.size = self._there if size is None else size
            if self._there < self.size:
                raise UserError(where, "is shorter than at the last checkpoint", todo, errors.RUN_FOLDER)
            if size is not None:
                self._digest = sha256_of(file, self.size)
            if sha256 not in (None, self._digest.hexdigest()):
                raise UserError(where, "is not what was written: it was changed", todo, errors.RUN_FOLDER)
        self._begun = True

    def flush(self, sync: bool = False) -> None:
        """Append what waits, all of it or, where that fails, nothing: an `OSError` then, and it waits on.

        With `sync` it is on the disk afterwards.
        """
        if not self._waiting and not sync:
            return
        flags = os.O_WRONLY | os.O_APPEND | (0 if self._begun else os.O_CREAT | os.O_EXCL)
        with self.folder.open_file(self.name, flags) as file:
            self._begun = True
            there = os.fstat(file).st_size
            if there != self._there and self._strict:
                what = "was changed by another program while it was written"
                raise UserError(f"{self.folder}/{self.name}", what, "train again", errors.RUN_FOLDER)
            if self._there > self.size:
                os.ftruncate(file, self.size)
                there = self.size
            content = b"".join(self._waiting)
            append(file, content, there)
            self._digest.update(content)
            self.size = self._there = there + len(content)
            self._waiting.clear()
            if sync:
                os.fsync(file)
