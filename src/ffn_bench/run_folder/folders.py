"""The run folder: where runs live, what they are called, and where one may begin.

    <folder>/run.json          who this run is: config fingerprint, versions, device, data hash
    <folder>/metrics.jsonl     a line a measurement
    <folder>/checkpoint/       the last two complete states, see `checkpoints`
    <folder>/best.safetensors  the weights of the best epoch, see `best_weights`
    <folder>/.lock             held (flock) by the process that writes here
    <folder>/summary.json      how it ended, written last

Files are opened and written by `files`.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from pathlib import Path

from ffn_bench import errors
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.identity import FORMAT, check_draws, unowned
from ffn_bench.run_folder.reading import ENDED, read_identity, started_and_summary

LOGS = ("metrics.jsonl", "train.log", "trajectory.bin")
"""Files of a run that only grow, beside its event file."""

BEST = "best.safetensors"

CHECKPOINT = re.compile(r"step-(\d{10})-([0-9a-f]{64})\.safetensors")
"""Names in the folder checkpoint: the step, and the SHA-256 of the content."""

# --- names ----------------------------------------------------------------------------------------------


HASH_DIGITS = (12, 8)
"""Of the fingerprint at the end of a run's name: now, and as runs were named before."""


def run_name(overrides: str, run: schema.TrainConfig) -> str:
    """A sweep's folder for one run: what was overridden, readable and short, and a hash of its config."""
    readable = "".join(c if c.isalnum() or c in "=,._-" else "_" for c in overrides)[:100].strip(",.")
    tail = fingerprint.fingerprint(run)[: HASH_DIGITS[0]]
    return f"{readable}-{tail}" if readable else tail


def check_location(folder: Path) -> None:
    """Raise `UserError` (status 4) where no run or sweep can be written, or would be inside another run."""
    if ".." in folder.parts:
        raise UserError(str(folder), "contains '..'", "name the folder itself", errors.RUN_FOLDER)
    check_writable(folder)
    below_here = [p for p in folder.parents if not Path.cwd().is_relative_to(p.absolute())]
    if inside := next((p for p in below_here if (p / "run.json").exists()), None):
        raise UserError(str(folder), f"is inside the run {inside}", "use another name", errors.RUN_FOLDER)


def check_writable(folder: Path) -> None:
    """Raise `UserError` (status 4) unless files can be written to a folder, which need not exist yet."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as e:
        raise UserError(str(folder.absolute()), "is not UTF-8", "use another name", errors.RUN_FOLDER) from e
    if (
        any(len(component.encode()) > 255 for component in folder.parts)
        or len(str(folder.absolute()).encode()) > 4000
    ):
        raise UserError(str(folder)[:80] + "…", "is too long", "use a shorter name", errors.RUN_FOLDER)
    existing = folder
    while True:
        try:
            if existing.exists():
                break
            if existing.is_symlink():
                what = "is a broken link"
                raise UserError(str(existing), what, "use another name", errors.RUN_FOLDER)
        except OSError as e:
            raise UserError(
                str(folder), (e.strerror or str(e)).lower(), "use another", errors.RUN_FOLDER
            ) from e
        existing = existing.parent
    if ".." in folder.relative_to(existing).parts:  # in the part that does not exist yet and would be created
        raise UserError(str(folder), "contains '..'", "name the folder itself", errors.RUN_FOLDER)
    if not existing.is_dir():
        raise UserError(str(existing), "is a file, not a folder", "use another name", errors.RUN_FOLDER)
    try:
        Path(tempfile.mkdtemp(dir=existing)).rmdir()  # root and odd file systems make os.access lie
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise UserError(
            str(existing), f"cannot be written to ({why})", "use another", errors.RUN_FOLDER
        ) from e


def check_run(folder: Folder, run: schema.TrainConfig) -> None:
    """Raise `UserError` (status 4) unless a run may start, or be resumed, in its folder.

    Nothing is guessed: a folder that contains files under our names and no run.json is somebody else's.
    """
    started, summary = started_and_summary(folder, run)
    if started:
        if summary is None or summary["status"] not in ENDED:
            check_draws(folder, (read_identity(folder) or {}).get("format", FORMAT))
        return
    existing = [name for name in (*LOGS, BEST, "summary.json") if folder.kind(name) is not None]
    if existing == ["summary.json"] and folder.owns("summary.json"):
        return  # of a run that failed before it started
    existing += [f"checkpoint/{name}" for name in folder.names("checkpoint") if CHECKPOINT.fullmatch(name)]
    if existing:
        raise unowned(folder, existing[0])


def next_free_folder(folder: Path) -> Path:
    """The first of `<folder>-2`, `<folder>-3`, … that does not exist."""
    names = (folder.with_name(f"{folder.name}-{k}") for k in itertools.count(2))
    return next(path for path in names if not os.path.lexists(path))
