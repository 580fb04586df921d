"""The run folder: where runs live, who may write there, their identity, and reading them back.

    <folder>/run.json          who this run is: config fingerprint, versions, device, data hash
    <folder>/metrics.jsonl     a line a measurement
    <folder>/checkpoint/       the last two complete states, see `checkpoints`
    <folder>/.lock             held (flock) by the process that writes here
    <folder>/summary.json      how it ended, written last

Files are opened and written by `files`.
"""

from __future__ import annotations

import datetime
import fcntl
import itertools
import json
import math
import os
import re
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ffn_bench import config, errors, schema
from ffn_bench.errors import UserError
from ffn_bench.files import Folder

FORMAT = 1
"""Of the run folder."""

PROTOCOL = 2
"""Of how runs are measured and compared; results of different versions are never put side by side."""

LOGS = ("metrics.jsonl", "train.log", "trajectory.bin")
"""Files of a run that only grow, beside its event file."""

CHECKPOINT = re.compile(r"step-(\d{10})-([0-9a-f]{64})\.safetensors")
"""Names in the folder checkpoint: the step, and the SHA-256 of the content."""

HOLDER = re.compile(rb"(process \d+ on [^\n]{0,300})?")
"""What a lock's file of ours says."""

REPAIR = "restore it, or train anew in another folder with force=true"

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


def check_place(folder: Path) -> None:
    """Raise `UserError` (status 4) where no run or sweep can be written, or would be inside another run."""
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
            if existing.is_symlink():
                what = "is a link that leads nowhere"
                raise UserError(str(existing), what, "use another name", errors.RUN_FOLDER)
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


def check_run(folder: Folder, run: schema.TrainConfig) -> None:
    """Raise `UserError` (status 4) unless a run may begin, or go on, in its folder.

    Nothing there is guessed: a folder that holds files under our names and no run.json is somebody else's.
    """
    if _begun_and_summary(folder, run)[0]:
        return
    found = [name for name in (*LOGS, "summary.json") if folder.kind(name) is not None]
    if found == ["summary.json"] and folder.owns("summary.json"):
        return  # of a run that failed before it had begun
    found += [f"checkpoint/{name}" for name in folder.names("checkpoint") if CHECKPOINT.fullmatch(name)]
    if found:
        raise unowned(folder, found[0])


def unowned(folder: Folder, name: str) -> UserError:
    """The mistake of a file under one of our names where no run has begun."""
    what = "is there, and no run.json that says whose it is"
    return UserError(f"{folder}/{name}", what, "use another name", errors.RUN_FOLDER)


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
        self._told = not shared and HOLDER.fullmatch(os.pread(self._file, 400, 0)) is not None
        if self._told:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Let others write."""
        if self._told:
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


def another_folder(folder: Path) -> Path:
    """The first of `<folder>-2`, `<folder>-3`, … that is not there."""
    names = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return next(path for path in names if not os.path.lexists(path))


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


# --- identity -------------------------------------------------------------------------------------------


def check_surroundings(folder: Folder, identity: dict[str, Any]) -> None:
    """Raise `UserError` (status 4) where data, versions or the device are not those a run began with."""

    def essence(found: dict[str, Any]) -> dict[str, Any]:
        versions = found.get("versions", {})
        device = str(found.get("device")).partition(" ")[0]  # what follows are words about it
        same = {"data": found.get("data_sha256"), "device": device}
        return {**same, **{key: versions.get(key) for key in ("ffn_bench", "torch")}}

    check_same(folder, essence(identity), essence(read_identity(folder) or {}))


def check_identity(folder: Folder, identity: dict[str, Any], run: schema.TrainConfig) -> None:
    """Raise `UserError` (status 4) unless what run.json says is this run."""
    then = {key: value for key, value in identity["config"].items() if key not in config.NOT_RESULTS}
    check_same(folder, config.result_keys(run), then)


def identity(
    run: schema.TrainConfig, device: str, data_sha256: str, chance: dict[str, float]
) -> dict[str, Any]:
    """What run.json says: enough to tell whether two runs are the same one, and to repeat one.

    `chance` is what a constant prediction comes to, by kind of metric: what a failed run counts as in a mean.
    """
    import platform

    import torch

    from ffn_bench import __version__

    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "fingerprint": config.fingerprint(run),
        "config": config.flatten(run),
        "data_sha256": data_sha256,
        "chance": chance,
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


def check_same(folder: Folder, now: dict[str, Any], then: dict[str, Any]) -> None:
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


def read_identity(folder: Folder) -> dict[str, Any] | None:
    """What run.json says of the run, or None where none has begun.

    Its configuration has the keys that are `config.LATER` than the run, too.

    Raises `UserError` (status 4) for one that is damaged or of another format.
    """
    found = folder.read_json("run.json")
    if found is None:
        return None
    where = f"{folder}/run.json"
    if type(found.get("format")) is int and found["format"] != FORMAT:
        what = f"has format {found['format']}, known is {FORMAT}"
        raise UserError(where, what, "use the version that wrote it", errors.RUN_FOLDER)
    kinds = {"config": dict, "data_sha256": str, "format": int}
    optional = {"versions": dict, "trained_beside": int, "fingerprint": str, "chance": dict}
    sound = all(type(found.get(key)) is kind for key, kind in kinds.items())
    sound = sound and all(type(found.get(key, kind())) is kind for key, kind in optional.items())
    numbers = sound and all(
        type(value) in (int, float) and 0 <= value < 1e30 for value in found.get("chance", {}).values()
    )
    if not (numbers and _is_plain(found["config"])):
        raise UserError(where, "is damaged", "restore it, or use another name", errors.RUN_FOLDER)
    return {**found, "config": config.LATER | found["config"]}


def _is_plain(config: dict[str, Any]) -> bool:
    """Whether a configuration holds what ours do: plain values and lists of them, seeds that are numbers."""

    def plain(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(plain, value))
        if isinstance(value, (int, float)):
            return abs(value) < math.inf if isinstance(value, float) else abs(value) < 2**63
        return value is None or isinstance(value, str)

    for key, value in config.items():
        if key == "optimizer.options" and isinstance(value, dict):
            if not all(map(plain, value.values())):
                return False
        elif not plain(value):
            return False
    names = all(isinstance(config.get(f"{group}.name", ""), str) for group in ("data", "model", "optimizer"))
    return names and all(type(config.get(key, 0)) is int for key in ("seed", "data.split_seed"))


def value_of(tag: str, value: Any) -> float:
    """A measured value of JSON, null being NaN. Raises `TypeError` or `ValueError` for what cannot be one."""
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise TypeError
    found = float(value)
    if (tag.startswith(("loss/", "accuracy/")) and found < 0) or (tag.startswith("accuracy/") and found > 1):
        raise ValueError
    return found


DAMAGED = "damaged"
"""The status of a summary that is none."""
STATUSES = ("finished", "diverged", "interrupted", "failed")


def read_summary(folder: Folder) -> dict[str, Any] | None:
    """What summary.json says, or None where the run has not ended.

    One that is damaged has the status `damaged`, with the reason. Raises `OSError` for a disk that fails.
    """
    try:
        found = folder.read_json("summary.json")
        if found is None:
            return None
        empty = {"reason": "", "epochs": 0, "steps": 0, "train_seconds": 0.0, "final": {}, "best": None}
        found = {**empty, **found}
        if _is_sound_summary(found):
            return found
        reason = f"{folder}/summary.json is damaged"
    except UserError as e:
        reason = str(e)
    return {**failure(reason), "status": DAMAGED}


def failure(reason: str) -> dict[str, Any]:
    """The summary of a run that failed before anything was measured."""
    nothing: dict[str, Any] = {"epochs": 0, "steps": 0, "train_seconds": 0.0, "final": {}, "best": None}
    return {"status": "failed", "reason": reason, **nothing}


def _is_sound_summary(summary: dict[str, Any]) -> bool:
    def number(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) < sys.float_info.max

    def values(found: Any) -> bool:
        try:
            return isinstance(found, dict) and all(
                v is None or (number(v) and value_of(tag, v) >= -math.inf) for tag, v in found.items()
            )
        except ValueError:
            return False

    status, epochs, steps = summary.get("status"), summary["epochs"], summary["steps"]
    best, final = summary["best"], summary["final"]
    return (
        status in STATUSES
        and isinstance(summary["reason"], str)
        and all(type(n) is int and n >= 0 for n in (epochs, steps))
        and number(summary["train_seconds"])
        and values(final)
        and (best is None or (values(best) and type(best.get("epoch")) is int))
    )


def _is_of(summary: dict[str, Any], run: schema.TrainConfig) -> bool:
    """Whether a summary says what can become of this run."""
    status, epochs, steps = summary["status"], summary["epochs"], summary["steps"]
    best, final = summary["best"], summary["final"]
    if (epochs != run.epochs if status == "finished" else epochs > run.epochs) or summary[
        "train_seconds"
    ] < 0:
        return False
    # A checkpoint's name has ten digits for its step; every epoch has a step, and as many as any other.
    if steps >= 10**10 or (run.batch_size == "full" and steps > run.epochs):
        return False
    if status in ENDED and steps < epochs:
        return False
    if status == "finished" and (epochs < 1 or steps % epochs or final.get("accuracy/train") is None):
        return False
    if best is None:  # there is one wherever anything was measured on a validation part
        return bool(status != "finished" or final.get("accuracy/val") is None)
    at_most = epochs if status == "finished" else epochs + 1
    return bool(0 <= best["epoch"] <= at_most and best.get("accuracy/val") is not None)


ENDED = ("finished", "diverged")
"""Statuses of runs that are never trained again."""


def standing_of(folder: Folder, run: schema.TrainConfig) -> tuple[str, dict[str, Any] | None]:
    """How a run stands, and its summary if it has ended.

    It is `missing`, `begun`, or as it ended: `finished`, `diverged`, `interrupted` or `failed`; or `damaged`,
    where files are not what we write, or are those of another run.
    """
    try:
        begun, summary = _begun_and_summary(folder, run)
    except UserError as e:
        return DAMAGED, {**failure(str(e)), "status": DAMAGED}
    if summary is not None:
        return str(summary["status"]), summary
    return "begun" if begun else "missing", None


def _begun_and_summary(folder: Folder, run: schema.TrainConfig) -> tuple[bool, dict[str, Any] | None]:
    """Whether a run has begun, and its summary if it has ended. Raises `UserError` (status 4) where one of
    the two is damaged, or another run's."""
    identity, summary = read_identity(folder), read_summary(folder)
    if identity is None:
        if summary and summary["status"] in ENDED:
            raise unowned(folder, "summary.json")
        return False, summary
    check_identity(folder, identity, run)
    if summary and (summary["status"] == DAMAGED or not _is_of(summary, run)):
        raise UserError(f"{folder}/summary.json", "is damaged", REPAIR, errors.RUN_FOLDER)
    return True, summary
