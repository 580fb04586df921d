"""Files in run, sweep and report folders: the one place that opens, writes, replaces and deletes them.

A `Folder` is opened by its descriptor and everything in it relative to that, never through a link: a folder
may come from anywhere. What we write enters the folder's manifest (see `manifest`) before it is put there,
so that a kill in between leaves it known as ours.

Only what the manifest names, with the content that it names, is ever replaced or deleted. Anything else is
left alone, and ours goes to the next free name; where a name is fixed, as those of a run folder are, what
stands there is moved to the next free name instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ffn_bench import errors, process
from ffn_bench.errors import UserError
from ffn_bench.run_folder import manifest

MANIFEST = ".ffn-bench.jsonl"

LARGE = 2**26
"""Bytes of a JSON file at most; ours are far smaller."""

_INSIDE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Never through a link, and never waiting for the other end of a pipe."""


@functools.lru_cache(256)
def _parts(name: str) -> tuple[str, ...]:
    """The folders that a name goes through, and the file. The files of all runs have the same names."""
    return PurePosixPath(name).parts


@dataclass(frozen=True)
class Folder:
    """A folder of ours: `root` is what a person named, `parts` are below it.

    Links on the way to `root` are the person's business; from there on none is followed. Names of files may
    be in folders below (`figures/curves.png`). Methods raise `UserError` (status 4), naming the file, for a
    link, and for something of another kind than what is asked for; `OSError` for what a disk refuses.
    """

    root: Path
    parts: tuple[str, ...] = ()

    @staticmethod
    def below(root: Path, relative: str) -> Folder:
        """A folder below a root. Raises `UserError` for a path that leaves it."""
        parts = PurePosixPath(relative).parts
        if ".." in parts or relative.startswith("/"):
            raise UserError(relative, f"is outside {root}", "name a folder below it", errors.RUN_FOLDER)
        return Folder(root, parts)

    @property
    def path(self) -> Path:
        """Where it is, for people."""
        return self.root.joinpath(*self.parts)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    # --- looking ----------------------------------------------------------------------------------------

    def kind(self, name: str) -> str | None:
        """`file`, `folder`, `link` or `other`; None where there is nothing of that name."""
        try:
            with self._parent(name) as (parent, leaf):
                mode = os.stat(leaf, dir_fd=parent, follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        return kinds.get(stat.S_IFMT(mode), "other")

    def names(self, below: str = ".") -> list[str]:
        """What a folder below contains, sorted; nothing where it does not exist."""
        try:
            with self._opened(_parts(below)) as descriptor:
                return sorted(os.listdir(descriptor))  # noqa: PTH208  # of a descriptor
        except FileNotFoundError:
            return []

    def read(self, name: str, limit: int = LARGE) -> bytes | None:
        """A file's content; None where it does not exist. Raises `UserError` above `limit` bytes."""
        try:
            with self.open_file(name, os.O_RDONLY) as file:
                size = os.fstat(file).st_size
                if size > limit:
                    what = f"is too large ({size:,} bytes)"
                    raise UserError(f"{self}/{name}", what, "leave it out", errors.RUN_FOLDER)
                with os.fdopen(os.dup(file), "rb") as stream:
                    return stream.read(limit + 1)
        except FileNotFoundError:
            return None
        except PermissionError as e:
            what = (e.strerror or "").lower()
            raise UserError(f"{self}/{name}", what, "make it readable", errors.RUN_FOLDER) from e

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The object that a JSON file contains, or None where it does not exist.

        Raises `UserError` for a file that contains no object.
        """
        content = self.read(name)
        if content is None:
            return None
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise UserError(f"{self}/{name}", "is damaged", "restore or remove it", errors.RUN_FOLDER)
        return parsed

    # --- whose it is ------------------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        """Whether a file is what the manifest says we wrote."""
        return self._owns("file", name)

    def _owns(self, kind: str, name: str) -> bool:
        known = self._manifest()[kind].get(name, set())
        if self.kind(name) != "file":
            return False
        with self.open_file(name, os.O_RDONLY) as file:
            size = os.fstat(file).st_size
            return any(size == one for one, _ in known) and (size, _digest(file)) in known

    def owns_log(self, name: str) -> bool:
        """Whether a file that grows is one that the manifest names."""
        return name in self._manifest()["log"]

    def note_logs(self, *names: str) -> None:
        """Let the manifest name files that grow, before they are created."""
        known = self._manifest()["log"]
        if missing := [name for name in names if name not in known]:
            self._note(*({"log": name} for name in missing))

    def has_manifest(self) -> bool:
        """Whether anything was noted here; folders of earlier releases have no manifest."""
        return self.kind(MANIFEST) is not None

    def check_manifest(self) -> None:
        """Raise `UserError` for a manifest that is none, or that cannot be added to."""
        if self.has_manifest():
            self._manifest()
            with self.open_file(MANIFEST, os.O_RDWR):
                pass

    def owned(self) -> list[str]:
        """Names of the files that the manifest names, in the order they were noted."""
        return [*self._manifest()["file"]]

    def _manifest(self) -> manifest.Entries:
        content = self.read(MANIFEST, 2**28) or b""
        self._check_header(content)
        return manifest.entries(content)

    def _note(self, *entries: dict[str, Any]) -> None:
        """Add lines to the manifest."""
        line = b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries)
        with self.open_file(MANIFEST, os.O_RDWR | os.O_APPEND | os.O_CREAT) as file:
            size = os.fstat(file).st_size
            self._check_header(os.pread(file, 200, 0))
            if not size:
                line = json.dumps(manifest.HEADER).encode() + b"\n" + line
            elif os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # of a line that was torn
            append(file, line, size)

    def _check_header(self, content: bytes) -> None:
        if content and not manifest.has_header(content):
            what = "is not a manifest of ffn-bench"
            raise UserError(f"{self}/{MANIFEST}", what, "move it away", errors.RUN_FOLDER)

    # --- atomic files -----------------------------------------------------------------------------------

    def put(self, name: str, content: bytes) -> str:
        """Write a file, replacing ours of that name; where a file that is not ours has it, use the next free
        name. Returns the name."""
        return self.put_all({name: content})[name]

    def put_all(self, contents: Mapping[str, bytes]) -> dict[str, str]:
        """`put` several files; the names under which they went."""
        written = {
            name: next(other for other in _names(name) if self.kind(other) is None or self.owns(other))
            for name in contents
        }
        if contents:
            self._write({written[name]: content for name, content in contents.items()})
        return written

    def put_before(self, name: str) -> Iterator[str]:
        """The names under which `put` may have written a file: its own, `…-2` and so on, as far as they are
        taken; regular files only."""
        taken = itertools.takewhile(lambda other: self.kind(other) is not None, _names(name))
        return (other for other in taken if self.kind(other) == "file")

    def publish(self, contents: Mapping[str, bytes], ours: re.Pattern[str]) -> dict[str, str]:
        """`put` the files of a report, and delete those of an earlier one that it does not have, of the names
        that `ours` matches. Returns the names under which they went."""
        with self._opened((), create=True) as descriptor:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # another report of the same folder is done first
            self.remove_temporary_files()
            written = self.put_all(contents)
            for name in self.owned():
                if ours.fullmatch(name) and name not in written.values():
                    self.remove_owned(name)
        return written

    def replace(self, name: str, content: bytes) -> str | None:
        """Write a file under exactly this name. What is not ours is moved to the next free name first,
        which is returned."""
        return self.replace_all({name: content})[name]

    def replace_all(self, contents: Mapping[str, bytes]) -> dict[str, str | None]:
        """`replace` several files, which appear in this order; where what was not ours has gone."""
        moved = {
            name: self._move_aside(name) if self.kind(name) is not None and not self.owns(name) else None
            for name in contents
        }
        self._write(contents)
        return moved

    def retire(self, name: str) -> str | None:
        """Delete a file of ours; what is not ours is moved to the next free name, which is returned."""
        if self.kind(name) is None:
            return None
        if not self.owns(name):
            return self._move_aside(name)
        self._unlink(name)
        return None

    def remove_temporary_files(self) -> None:
        """Delete what a killed process of ours left unfinished."""
        for name in self._manifest()["temporary"]:
            if self.kind(name) == "file" and not self._is_locked(name):
                self._unlink(name)

    def _is_locked(self, name: str) -> bool:
        """Whether a process holds a file's lock: it is writing it, see `write_output`."""
        with self.open_file(name, os.O_RDONLY) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:  # file systems without locks
                return False
        return False

    def retire_log(self, name: str) -> str | None:
        """`retire` for a file that grows."""
        if self.kind(name) is None:
            return None
        if self.kind(name) == "folder" or not self.owns_log(name):
            return self._move_aside(name)
        self._unlink(name)
        return None

    def remove_owned(self, name: str) -> None:
        """Delete a file if it is ours."""
        if self.owns(name):
            self._unlink(name)

    @process.tidies
    def _write(self, contents: Mapping[str, bytes]) -> None:
        """Write to temporary names, flush, rename, so that every file exists completely or not at all."""
        temporary = {name: manifest.temporary_name(name) for name in contents}
        entries = []
        for name, content in contents.items():
            digest = hashlib.sha256(content).hexdigest()
            own = {"temporary": str(PurePosixPath(name).with_name(temporary[name]))}
            entries.append({"file": name, "size": len(content), "sha256": digest, **own})
        self._note(*entries)
        for folder, names in itertools.groupby(contents, key=lambda name: _parts(name)[:-1]):
            with self._opened(folder, create=True) as parent:
                waiting = []
                try:
                    for name in names:
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _INSIDE
                        file = os.open(temporary[name], flags, 0o666, dir_fd=parent)
                        waiting.append(name)
                        try:
                            write_all(file, contents[name])
                            os.fsync(file)
                        finally:
                            os.close(file)
                    for name in list(waiting):
                        leaf = _parts(name)[-1]
                        os.rename(temporary[name], leaf, src_dir_fd=parent, dst_dir_fd=parent)
                        waiting.remove(name)
                except BaseException:
                    for name in waiting:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(temporary[name], dir_fd=parent)
                    raise
                os.fsync(parent)

    def check_output(self, name: str) -> None:
        """Raise `UserError` where something has this name that `write_output` did not write."""
        kind = self.kind(name)
        if kind is None or (kind == "file" and self._owns("output", name)):
            return
        what = {
            "file": "exists, and was not written by this command",
            "folder": "is a folder",
            "link": "is a link, which is not followed",
        }.get(kind, "is not a file")
        raise UserError(str(self.path / name), what, "name another file", errors.RUN_FOLDER)

    @process.tidies
    def write_output(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write the file that a person has named, replacing only what this wrote there before. It exists
        completely or not at all; `pieces`, which may compute them one by one, are never all in memory.

        Raises as `check_output` does.
        """
        self.check_output(name)
        self.remove_temporary_files()
        temporary = manifest.temporary_name(name)
        own = {"output": name, "temporary": str(PurePosixPath(name).with_name(temporary))}
        self._note(own)
        digest, size = hashlib.sha256(), 0
        with self._parent(name, create=True) as (parent, leaf):
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _INSIDE, 0o666, dir_fd=parent)
            try:
                with contextlib.suppress(OSError):  # file systems without locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for piece in pieces:
                    write_all(file, piece)
                    digest.update(piece)
                    size += len(piece)
                os.fsync(file)
                self._note({**own, "size": size, "sha256": digest.hexdigest()})
                self.check_output(name)  # once more: something else may be there meanwhile
                os.rename(temporary, leaf, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            finally:
                os.close(file)
            os.fsync(parent)

    def _unlink(self, name: str) -> None:
        with self._parent(name) as (parent, leaf):
            os.unlink(leaf, dir_fd=parent)

    def _move_aside(self, name: str) -> str:
        free = next(other for other in _names(name) if self.kind(other) is None)
        with self._parent(name) as (parent, leaf):
            os.rename(leaf, _parts(free)[-1], src_dir_fd=parent, dst_dir_fd=parent)
        return free

    # --- descriptors ------------------------------------------------------------------------------------

    def open_lock(self, create: bool = True) -> int:
        """A descriptor of the file `.lock`, which is created where it is missing, for the caller to close."""
        with self.open_file(".lock", os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) as file:
            return os.dup(file)

    @contextmanager
    def open_file(self, name: str, flags: int) -> Iterator[int]:
        """A descriptor of a regular file. One that is written in place must have no other name, which may lie
        anywhere. Raises `FileNotFoundError` where it does not exist."""
        writing = flags & (os.O_WRONLY | os.O_RDWR)
        with self._parent(name, create=bool(flags & os.O_CREAT)) as (parent, leaf):
            try:
                file = os.open(leaf, flags | _INSIDE, 0o666, dir_fd=parent)
            except OSError as e:
                raise self._explained(e, name) from e
        try:
            info = os.fstat(file)
            if not stat.S_ISREG(info.st_mode):
                raise UserError(f"{self}/{name}", "is not a file", "move it away", errors.RUN_FOLDER)
            if writing and info.st_nlink > 1:
                what = "has another name (a hard link), whose content would also change"
                raise UserError(f"{self}/{name}", what, "make a copy of it", errors.RUN_FOLDER)
            yield file
        finally:
            os.close(file)

    @contextmanager
    def _parent(self, name: str, create: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that holds `name`, and the last part of the name."""
        *folders, leaf = _parts(name)
        with self._opened(tuple(folders), create) as descriptor:
            yield descriptor, leaf

    @contextmanager
    def _opened(self, below: tuple[str, ...], create: bool = False) -> Iterator[int]:
        """A descriptor of this folder or one below it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            descriptor = os.open(self.root, flags)
        except FileNotFoundError:
            if not create:
                raise
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root, flags)
        try:
            for k, component in enumerate(components := (*self.parts, *below)):
                if component in ("", ".", "..") or "/" in component:
                    raise UserError(f"{self}/{component}", "is outside the folder", "", errors.RUN_FOLDER)
                try:
                    try:
                        inner = os.open(component, flags | _INSIDE, dir_fd=descriptor)
                    except FileNotFoundError:
                        if not create:
                            raise
                        with contextlib.suppress(FileExistsError):
                            os.mkdir(component, dir_fd=descriptor)
                        inner = os.open(component, flags | _INSIDE, dir_fd=descriptor)
                except OSError as e:
                    raise self._explained(
                        e, "/".join(components[len(self.parts) : k + 1]), components[: k + 1]
                    ) from e
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _explained(self, e: OSError, name: str, parts: tuple[str, ...] = ()) -> Exception:
        """What to raise for a file or folder that cannot be opened."""
        path = self.root.joinpath(*parts) if parts else self.path / name
        known = {
            errno.ELOOP: "is a link, which is not followed",
            errno.EISDIR: "is not a file",
            errno.EEXIST: "already exists",
            errno.ENXIO: "is not a file",
        }
        what = known.get(e.errno or 0)
        if e.errno in (errno.ENOTDIR, errno.EMLINK):  # how open says that it is no folder, or a link (BSD)
            what = "is a link, which is not followed" if path.is_symlink() else "is a file, not a folder"
        if what is None:
            e.filename = str(path)
            return e
        return UserError(str(path), what, "move it away", errors.RUN_FOLDER)


def _names(name: str) -> Iterator[str]:
    """The name, then `<stem>-2.<suffix>`, `<stem>-3.<suffix>`, …"""
    path = PurePosixPath(name)
    yield name
    yield from (str(path.with_name(f"{path.stem}-{k}{path.suffix}")) for k in itertools.count(2))


def write_all(file: int, content: bytes) -> None:
    """Write all of it: the system may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def append(file: int, content: bytes, size: int) -> None:
    """Write at the end of a file of this size, all or, where that fails, nothing."""
    try:
        write_all(file, content)
    except OSError:
        os.ftruncate(file, size)
        raise


def sha256_of(file: int, size: int) -> Any:
    """The SHA-256 of the first bytes of a file."""
    digest, offset = hashlib.sha256(), 0
    while offset < size:
        block = os.pread(file, min(2**20, size - offset), offset)
        if not block:
            break
        digest.update(block)
        offset += len(block)
    return digest


def _digest(file: int) -> str:
    return str(sha256_of(file, os.fstat(file).st_size).hexdigest())


# --- JSON -----------------------------------------------------------------------------------------------


def to_json(content: Any) -> bytes:
    """Strict JSON: numbers that are not finite become null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"  # of a path that is not UTF-8


def finite(content: Any) -> Any:
    """The same structure with NaN and infinities replaced by None, which JSON can say."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
