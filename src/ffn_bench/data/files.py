"""A person's files: found, checked, unpacked."""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, cast

import psutil

from ffn_bench.errors import DISK, data_error, first_line

PACKED = (".gz", ".bz2", ".xz")
"""Suffixes of files that are unpacked as they are read."""
FRAMES = (".parquet", ".feather", ".arrow")
"""Suffixes of tables that are no text."""
OTHER_FORMATS = {
    b"PK\x03\x04": ("a workbook or a zip archive", "save its table as CSV"),
    b"\xd0\xcf\x11\xe0": ("a workbook", "save its table as CSV"),
    b"PAR1": ("a Parquet file", "name it ….parquet"),
    b"ARROW1": ("an Arrow file", "name it ….arrow"),
    b"\x1f\x8b": ("packed by gzip", "name it ….csv.gz"),
    b"BZh": ("packed by bzip2", "name it ….csv.bz2"),
    b"\xfd7zXZ\0": ("packed by xz", "name it ….csv.xz"),
}
"""What files begin with that are no text, whatever their names."""
CHUNK = 2**22
BEGINNING = 2**16
"""Bytes of a text by which its delimiter is found."""


def expanded(path: str, key: str) -> Path:
    """A path with `~` written out. Raises `UserError` (status 3) for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise data_error(key, f"{path}: this user does not exist", "write the path in full") from e


def check_file(path: Path, key: str = "data.path") -> int:
    """The size of a file that can be read, in bytes. Raises `UserError` (status 3) for anything else; `key`
    is what names it."""
    try:
        status = path.stat()
    except OSError as e:
        reason = "no such file" if isinstance(e, FileNotFoundError) else (e.strerror or str(e)).lower()
        raise data_error(str(path), reason, f"{key} is read from {Path.cwd()}") from e
    if stat.S_ISDIR(status.st_mode):
        raise data_error(str(path), "is a folder", "name a CSV file")
    if not stat.S_ISREG(status.st_mode):
        raise data_error(str(path), "is not a regular file", "save the table to a file first")
    if not os.access(path, os.R_OK):
        raise data_error(str(path), "cannot be read", "check its permissions")
    if status.st_size == 0:
        raise data_error(str(path), "is empty", "give it a header and rows")
    return status.st_size


class TextFile(NamedTuple):
    """A file of text, perhaps unpacked into memory."""

    path: Path
    size: int
    """Bytes of the text."""
    unpacked: bytes | None = None

    def read(self) -> bytes:
        """All of the text."""
        return self.path.read_bytes() if self.unpacked is None else self.unpacked

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """The text, line by line with their ends, without a byte order mark."""
        if self.unpacked is None:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            yield io.TextIOWrapper(io.BytesIO(self.unpacked), encoding="utf-8-sig", newline="")

    def beginning(self, size: int) -> bytes:
        """The first `size` bytes."""
        if self.unpacked is not None:
            return self.unpacked[:size]
        with self.path.open("rb") as file:
            return file.read(size)


def text_file(path: Path, key: str = "data.path") -> TextFile:
    """A file of text, unpacked where its name ends in one of `PACKED`. Raises `UserError` (status 3) for a
    file that cannot be read, is larger than free memory, or of a format that is no text."""
    size = check_file(path, key)
    available = psutil.virtual_memory().available
    if size > available:
        what = f"has {size / 1e9:.1f} GB, more than the {available / 1e9:.1f} GB of free memory"
        raise data_error(str(path), what, "train on a sample of its rows")
    file = TextFile(path, size)
    if path.suffix.lower() in PACKED:
        with unpacked_stream(path) as stream:
            chunks, total = [], 0
            while chunk := stream.read(CHUNK):
                chunks.append(chunk)
                if (total := total + len(chunk)) > available:
                    what = f"has more than the {available / 1e9:.1f} GB of free memory when unpacked"
                    raise data_error(str(path), what, "train on a sample of its rows")
            content = b"".join(chunks)
        if not content:
            raise data_error(str(path), "is empty", "give it a header and rows")
        file = TextFile(path, len(content), content)
    check_text(file.beginning(8), str(path))
    return file


def check_text(beginning: bytes, where: str) -> None:
    """Raise `UserError` (status 3) for the first bytes of a file of `OTHER_FORMATS`."""
    for magic, (format_, todo) in OTHER_FORMATS.items():
        if beginning.startswith(magic):
            raise data_error(where, f"is {format_}, not text", todo)


@contextmanager
def unpacked_stream(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its name ends in one of `PACKED`. Raises `UserError` (status 3)
    where that is damaged, also while it is read."""
    if path.suffix.lower() not in PACKED:
        with path.open("rb") as stream:
            yield stream
        return
    from lzma import LZMAError

    try:
        with _open_packed(path) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, LZMAError) as e:
        if isinstance(e, OSError) and e.errno in DISK:
            raise
        what = f"is damaged, or not packed as its name says ({first_line(str(e))})"
        raise data_error(str(path), what, "pack it again") from e


def _open_packed(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        import gzip

        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".bz2":
        import bz2

        return cast(BinaryIO, bz2.open(path, "rb"))
    import lzma

    return cast(BinaryIO, lzma.open(path, "rb"))
