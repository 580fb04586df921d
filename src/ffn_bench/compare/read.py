"""Run folders read back for a comparison: their JSON only, so that nothing in a foreign folder is executed.

What cannot be read is left out and named. Runs may be live: what they have written so far is read.
"""

from __future__ import annotations

import functools
import glob
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ffn_bench import runs
from ffn_bench.errors import RUN_FOLDER, UserError, printable
from ffn_bench.files import Folder

COMPARED = ("loss/", "accuracy/")
"""Beginnings of the tags that are read."""


@dataclass(frozen=True)
class Curve:
    """Measurements of one tag: arrays of one length, in the order of training."""

    steps: NDArray[np.float64]
    epochs: NDArray[np.float64]
    """The epoch that a measurement was made in, whole."""
    seconds: NDArray[np.float64]
    """Of training; evaluation and logging are not in it."""
    values: NDArray[np.float64]
    """NaN where the number was not finite."""


@dataclass(frozen=True)
class Run:
    """What one folder says."""

    folder: Path
    config: dict[str, Any]
    """Flat keys, as in `run.json`."""
    status: str
    """`finished`, `diverged`, `interrupted`, `failed`, `running` (a process holds it) or `killed`."""
    reason: str
    data: str
    """The hash of its data."""
    protocol: int | None
    machine: str
    """Operating system, device and threads: seconds are compared within one of them only."""
    company: int
    """Runs that shared the device's time."""
    chance: dict[str, float]
    """What predicting the same for every row comes to, by kind of metric: `accuracy`, `loss`."""
    curves: dict[str, Curve] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether it has a result: it finished, or diverged, which is one."""
        return self.status in runs.ENDED

    @property
    def failed(self) -> bool:
        """Whether it began and came to no result: it diverged, ended in an error, or was stopped or
        killed."""
        return self.status not in ("finished", "running")

    @property
    def seed(self) -> tuple[Any, Any]:
        """What two runs must share to be a pair."""
        return self.config.get("seed"), self.config.get("data.split_seed")


def find(patterns: Sequence[str]) -> list[Path]:
    """Run folders at or below the folders that paths and globs name, each once, sorted.

    Raises `UserError` (status 4) where a pattern matches nothing, or no run is below.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise UserError("runs", "is empty", "name folders of runs or sweeps")
        paths = matching(pattern)
        if not paths:
            raise UserError(pattern, "there is no such folder", "name folders of runs or sweeps", RUN_FOLDER)
        folders = [p for path in paths if path.is_dir() for p in _below(path)]
        if not folders:
            what = (
                "is a file"
                if all(p.is_file() for p in paths)
                else "holds no run (no run.json in it or below)"
            )
            raise UserError(pattern, what, "name folders of runs or sweeps", RUN_FOLDER)
        for folder in folders:
            found.setdefault(folder.resolve(), None)
    return sorted(found)


def matching(pattern: str) -> list[Path]:
    """The paths that a path or a glob names."""
    if os.path.lexists(pattern):
        return [Path(pattern)]
    return [Path(p) for p in sorted(glob.glob(pattern))]  # noqa: PTH207  # may be absolute


def _below(folder: Path) -> Iterator[Path]:
    """The folder if it is a run, else the runs in its folders; links to folders are not followed."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        try:
            if (place / "run.json").exists():
                yield place
                continue
            inner = [p for p in place.iterdir() if p.is_dir() and not p.is_symlink()]
        except OSError as e:
            why = (e.strerror or str(e)).lower()
            raise UserError(str(place), why, "check permissions", RUN_FOLDER) from e
        waiting += sorted(inner, reverse=True)


def read_all(
    folders: Sequence[Path], told: Callable[[int], object] = lambda n: None
) -> tuple[list[Run], list[str]]:
    """The runs, and a line for each folder that had to be left out. `told` hears how many are read.

    Raises `UserError` (status 4) where none is left.
    """
    found, problems, live = [], [], {}
    for number, folder in enumerate(folders, 1):
        if folder.parent not in live:
            live[folder.parent] = runs.holder(Folder(folder.parent)) is not None
        try:
            found.append(read(folder, live[folder.parent]))
        except (UserError, OSError) as e:
            problems.append(clean(str(e)))
        told(number)
    if not found:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise UserError("runs", f"none can be read: {problems[0]}{more}", "name other folders", RUN_FOLDER)
    return found, problems


def read(folder: Path, live: bool = False) -> Run:
    """One run. `live` says that a process holds its sweep. Raises `UserError` (status 4)."""
    inside = Folder(folder)
    identity = runs.read_identity(inside)
    if identity is None:
        raise UserError(f"{inside}/run.json", "is missing", "leave this run out", RUN_FOLDER)
    # texts that all runs share
    config = {sys.intern(key): value for key, value in identity["config"].items()}
    curves = _read_curves(inside)
    summary, reason = runs.read_summary(inside), ""
    if summary is None:
        status = "running" if live or runs.holder(inside) else "killed"
    else:
        status, reason = summary["status"], clean(summary["reason"])
        if status == runs.DAMAGED:
            raise UserError(f"{inside}/summary.json", "is damaged", "leave this run out", RUN_FOLDER)
    device = f"{identity.get('device')}, {identity.get('threads')} threads"
    return Run(
        folder,
        config,
        status,
        reason,
        identity["data_sha256"],
        identity.get("protocol"),
        clean(f"{identity.get('machine')}, {device}"),
        identity.get("trained_beside", 0),
        identity.get("chance", {}),
        curves,
    )


@functools.cache
def _readable() -> int:
    """Bytes of a metrics.jsonl that memory can hold as numbers, too."""
    return psutil.virtual_memory().available // 4


def _read_curves(folder: Folder) -> dict[str, Curve]:
    """metrics.jsonl by tag. A torn last line is not there yet; a faulty line before it is damage."""
    path, name = folder.path / "metrics.jsonl", "metrics.jsonl"
    lines = (folder.read(name, _readable()) or b"").split(b"\n")
    found: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}
    for number, text in enumerate(lines, 1):
        if not text:
            continue
        try:
            line = json.loads(text)
            step, epoch, seconds = (
                runs.value_of(key, line[key]) for key in ("step", "epoch", "train_seconds")
            )
            if not (0 <= step < math.inf and 0 <= epoch < math.inf and 0 <= seconds < math.inf):
                raise ValueError
            for tag, value in line.items():
                if not tag.startswith(COMPARED):
                    continue
                columns = found.get(tag)
                if columns is None:
                    columns = found[tag] = ([], [], [], [])
                if columns[0] and step <= columns[0][-1]:
                    raise ValueError  # time goes forward
                found_value = runs.value_of(tag, value)
                if found_value > 1e30:
                    raise ValueError
                for column, entry in zip(columns, (step, epoch, seconds, found_value), strict=True):
                    column.append(entry)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as e:
            if number == len(lines):
                break
            raise UserError(str(path), f"line {number} is damaged", "leave this run out", RUN_FOLDER) from e
    kept: dict[tuple[float, ...], NDArray[np.float64]] = {}  # most tags are measured at the same steps

    def once(column: list[float]) -> NDArray[np.float64]:
        return kept.setdefault(tuple(column), np.asarray(column))

    return {tag: Curve(*map(once, columns)) for tag, columns in found.items()}


def clean(text: str) -> str:
    """Text of a foreign file, fit for one line."""
    return printable(text)
