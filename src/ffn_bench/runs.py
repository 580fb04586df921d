"""The run folder: where runs live, who may write there, their identity, and reading them back.

    <folder>/run.json          who this run is: config fingerprint, versions, device, data hash
    <folder>/metrics.jsonl     a line a measurement
    <folder>/checkpoint/       the last two complete states, see `checkpoints`
    <folder>/.lock             held (flock) by the process that writes here
    <folder>/summary.json      how it ended, written last

Every file but the append-only logs is written whole: to a temporary name, flushed, renamed.
"""

from __future__ import annotations

import datetime
import fcntl
import itertools
import json
import math
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ffn_bench import config, errors, process, schema
from ffn_bench.errors import UserError

FORMAT = 1
"""Of the run folder."""

PROTOCOL = 1
"""Of how runs are measured and compared; results of different versions are never put side by side."""

# --- names ----------------------------------------------------------------------------------------------


def register_resolvers() -> None:
    """Make `${run_folder:name}` and `${run_name:overrides}` known to OmegaConf, for conf/config.yaml."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def _run_folder(name: str | None) -> str:
    """A run's or sweep's own name, or date/time with a tail that keeps starts in one second apart."""
    if name:
        return name
    return datetime.datetime.now().strftime("%Y-%m-%d/%H-%M-%S-") + secrets.token_hex(2)


SUBDIR = "${run_name:${hydra.job.override_dirname}}"
"""A run's folder below its sweep's, unless somebody wants another (conf/config.yaml)."""

HASH_DIGITS = (12, 8)
"""Of the fingerprint at the end of a run's name: now, and as runs were named before."""


def _run_name(overrides: str, *, _root_: DictConfig) -> str:
    return run_name(overrides, config.parse(_root_))


def run_name(overrides: str, run: schema.TrainConfig) -> str:
    """A sweep's folder for one run: what was overridden, readable and short, and a hash of its config."""
    readable = "".join(c if c.isalnum() or c in "=,._-" else "_" for c in overrides)[:100].strip(",.")
    tail = config.fingerprint(run)[: HASH_DIGITS[0]]
    return f"{readable}-{tail}" if readable else tail


def check_folder(folder: Path, run: schema.TrainConfig | None) -> None:
    """Raise `UserError` (status 4) where a run, or a sweep when `run` is None, cannot or must not write."""
    if ".." in folder.parts:
        raise UserError(str(folder), "contains '..'", "name the folder itself", errors.RUN_FOLDER)
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as e:
        raise UserError(str(folder.absolute()), "is not UTF-8", "use another name", errors.RUN_FOLDER) from e
    if any(len(part.encode()) > 255 for part in folder.parts) or len(str(folder.absolute()).encode()) > 4000:
        raise UserError(str(folder)[:80] + "…", "is too long a path", "use a shorter name", errors.RUN_FOLDER)
    existing = folder
    while True:
        try:
            if existing.exists():
                break
        except OSError as e:
            raise UserError(
                str(folder), (e.strerror or str(e)).lower(), "use another", errors.RUN_FOLDER
            ) from e
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(str(existing), "is a file, not a folder", "use another name", errors.RUN_FOLDER)
    try:
        Path(tempfile.mkdtemp(dir=existing)).rmdir()  # root and odd file systems make os.access lie
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise UserError(
            str(existing), f"cannot be written to ({why})", "use another", errors.RUN_FOLDER
        ) from e
    below_here = [p for p in folder.parents if not Path.cwd().is_relative_to(p.absolute())]
    if inside := next((p for p in below_here if (p / "run.json").exists()), None):
        raise UserError(str(folder), f"is inside the run {inside}", "use another name", errors.RUN_FOLDER)
    if run is not None and (folder / "run.json").exists():
        noted = (read_json(folder / "run.json") or {}).get("config")
        if not isinstance(noted, dict):
            raise UserError(
                str(folder / "run.json"), "is damaged", "use another name, or force=true", errors.RUN_FOLDER
            )
        then = {key: value for key, value in noted.items() if key not in config.NOT_RESULTS}
        check_same(folder, config.result_keys(run), then)


# --- who may write --------------------------------------------------------------------------------------


class Lock:
    """The right to write into a folder, held by one process at a time and lost with it, however it ends.

    Raises `UserError` (status 4) at once where another process has it, and where the file system has no
    locks.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        """Take it at once. Those that are `shared` go together, and exclude those that are not."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as e:
            held = isinstance(e, BlockingIOError)
            what = (
                f"is in use by {holder(folder) or 'another process'}"
                if held
                else f"cannot be locked ({e.strerror})"
            )
            todo = "wait for it, or use another name" if held else "use a folder on another file system"
            os.close(self._file)
            raise UserError(str(folder), what, todo, errors.RUN_FOLDER) from e
        self._shared = shared
        if not shared:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Let others write."""
        if not self._shared:
            os.ftruncate(self._file, 0)
        os.close(self._file)


def holder(folder: Path) -> str | None:
    """Which process is writing into a folder now, in words; None where none is."""
    try:
        file = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
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


def check_free(folder: Path) -> None:
    """Raise `UserError` (status 4) where another process writes now. `Lock` decides; this tells early."""
    if by := holder(folder):
        todo = "wait for it, or use another name"
        raise UserError(str(folder), f"is in use by {by}", todo, errors.RUN_FOLDER)


def remove_remains(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for part in (*folder.glob("*.tmp"), *folder.glob("checkpoint/*.tmp")):
        part.unlink(missing_ok=True)


def another_folder(folder: Path) -> Path:
    """The first of `<folder>-2`, `<folder>-3`, … that is not there."""
    return next(p for k in itertools.count(2) if not (p := folder.with_name(f"{folder.name}-{k}")).exists())


# --- whole files ----------------------------------------------------------------------------------------


@process.tidies
def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even across a power cut."""
    part = path.with_name(path.name + ".tmp")
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            write_all(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_all(file: int, content: bytes) -> None:
    """Write all of it: the system may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, whole: numbers that are not finite become null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode(errors="backslashreplace") + b"\n")  # of a path that is not UTF-8


def finite(content: Any) -> Any:
    """The same structure with NaN and infinities replaced by None, which JSON can say."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


# --- identity -------------------------------------------------------------------------------------------


def check_surroundings(folder: Path, identity: dict[str, Any]) -> None:
    """Raise `UserError` (status 4) where data, versions or the device are not those a run began with."""

    def essence(found: dict[str, Any]) -> dict[str, Any]:
        versions = found.get("versions", {})
        device = str(found.get("device")).partition(" ")[0]  # what follows are words about it
        same = {"data": found.get("data_sha256"), "device": device}
        return {**same, **{key: versions.get(key) for key in ("ffn_bench", "torch")}}

    check_same(folder, essence(identity), essence(read_json(folder / "run.json") or {}))


def identity(run: schema.TrainConfig, device: str, data_sha256: str) -> dict[str, Any]:
    """What run.json says: enough to tell whether two runs are the same one, and to repeat one."""
    import platform
    import sys

    import torch

    from ffn_bench import __version__

    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "fingerprint": config.fingerprint(run),
        "config": config.flatten(run),
        "data_sha256": data_sha256,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {
            "ffn_bench": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.platform(),
        "command": sys.argv,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def check_same(folder: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raise `UserError` (status 4), naming what differs, unless a run may go on in `folder`.

    `now` is compared with what was noted `then`; keys that only one of them has count, too.
    """
    now = json.loads(json.dumps(now))  # tuples are lists in a file
    if different := [key for key in {**then, **now} if then.get(key) != now.get(key)]:
        key = different[0]
        more = f" (and {', '.join(different[1:4])})" if different[1:] else ""
        what = f"holds another run: {key} was {then.get(key)}, now {now.get(key)}{more}"
        todo = "it is never overwritten: use another name, or force=true, which trains anew beside it"
        raise UserError(str(folder), what, todo, errors.RUN_FOLDER)


# --- reading back ---------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any] | None:
    """The object a JSON file holds, or None where there is no such thing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What summary.json says, or None where the run has not ended."""
    return read_json(folder / "summary.json")


ENDED = ("finished", "diverged")
"""Statuses of runs that are never trained again."""


def standing_of(folder: Path) -> tuple[str, dict[str, Any] | None]:
    """How a run stands, and its summary if it has ended.

    It is `missing`, `begun`, or as it ended: `finished`, `diverged`, `interrupted` or `failed`.
    """
    summary = read_summary(folder)
    if summary is not None:
        return str(summary.get("status")), summary
    return "begun" if (folder / "run.json").exists() else "missing", None


def status_of(folder: Path) -> str:
    """The first of `standing_of`."""
    return standing_of(folder)[0]
