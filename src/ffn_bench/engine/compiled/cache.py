"""Compiled code on disk, for later processes.

A folder of the user's cache directory holds one file for each compiled module; its name is a digest of all
that the code depends on, so a file is never out of date, only unused. A file begins with a digest of its
content: what is damaged is compiled again. Files are written under another name and renamed, so that of two
processes at once each sees the other's complete or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

OURS = re.compile(r"[0-9a-f]{64}\.(code|\w+\.new)")
"""Names of files that we write."""

UNUSED_DAYS = 60
"""A file that nobody has read for so long is removed when another one is written."""


def digest_of(*parts: str | bytes) -> str:
    """A digest of some texts; not that of their concatenation."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def default_folder() -> Path:
    """`FFN_BENCH_CACHE_DIR`, or `ffn-bench` in the user's cache directory, `XDG_CACHE_HOME` or `~/.cache`."""
    if explicit := os.environ.get("FFN_BENCH_CACHE_DIR"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ffn-bench"


class Cache:
    """Compiled code in `folder` (None: the user's). `problem` says why nothing is kept there, if so.

    `on_compile` is called before something is compiled for the first time.
    """

    def __init__(self, folder: Path | None = None, on_compile: Callable[[], object] = lambda: None) -> None:
        self.problem, self._on_compile, self._has_compiled = "", on_compile, False
        try:
            self.folder = folder or default_folder()
        except RuntimeError:  # no home directory
            self.folder, self.problem = Path(), "compiled code is not kept: no cache directory is known"

    def has(self, key: str) -> bool:
        """Whether an undamaged content is kept under a key."""
        return not self.problem and _read(self._path(key)) is not None

    def get(self, key: str, compile_: Callable[[], bytes]) -> bytes:
        """The content kept under a key; where there is none or it is damaged, what `compile_` gives."""
        path = self._path(key)
        if not self.problem:
            content = _read(path)
            if content is not None:
                return content
        if not self._has_compiled:
            self._has_compiled = True
            self._on_compile()
        content = compile_()
        self._write(path, content)
        return content

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.code"

    def _write(self, path: Path, content: bytes) -> None:
        if self.problem:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_unused(self.folder)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=f"{path.stem}.", suffix=".new")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self.problem = f"compiled code is not kept: {self.folder} cannot be written ({reason})"


def _read(path: Path) -> bytes | None:
    """A file's content, or None where it is missing, damaged, or such that another user could have written
    it: it will run as this user."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
        return None
    with contextlib.suppress(OSError):  # where it is another user's, its time stays
        os.utime(path)
    size = hashlib.sha256().digest_size
    return data[size:] if hashlib.sha256(data[size:]).digest() == data[:size] else None


def _remove_unused(folder: Path) -> None:
    """Remove files that were not used for UNUSED_DAYS, and what an interrupted process left."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in (path for path in folder.iterdir() if OURS.fullmatch(path.name)):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if path.stat().st_mtime < oldest:
                path.unlink()
