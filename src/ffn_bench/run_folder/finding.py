"""Which folders a person means by paths and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ffn_bench.errors import RUN_FOLDER, UserError


def find(patterns: Sequence[str]) -> list[Path]:
    """Run folders at or below the folders that paths and globs name, each once, sorted.

    Raises `UserError` (status 4) where a pattern matches nothing, or no run is below.
    """
    runs: dict[Path, None] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise UserError("runs", "is empty", "name folders of runs or sweeps")
        paths = matching(pattern)
        if not paths:
            raise UserError(pattern, "does not exist", "name folders of runs or sweeps", RUN_FOLDER)
        folders = [p for path in paths if path.is_dir() for p in _below(path)]
        if not folders:
            what = (
                "is a file"
                if all(p.is_file() for p in paths)
                else "contains no run (no run.json in it or below)"
            )
            raise UserError(pattern, what, "name folders of runs or sweeps", RUN_FOLDER)
        for folder in folders:
            runs.setdefault(folder.resolve(), None)
    return sorted(runs)


def find_one(path: str) -> Path:
    """The folder of the one run that a path names, as `from_here` gives it.

    Raises `UserError` (status 4) for none, and for several.
    """
    runs = find([path])
    if len(runs) > 1:
        what = f"{path} contains {len(runs)} runs"
        raise UserError("run", what, f"name one of them, such as {from_here(runs[0])}", RUN_FOLDER)
    return from_here(runs[0])


def from_here(folder: Path) -> Path:
    """The same folder as a person in the working directory names it, for messages."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def matching(pattern: str) -> list[Path]:
    """The paths that a path or a glob names."""
    if os.path.lexists(pattern):
        return [Path(pattern)]
    return [Path(p) for p in sorted(glob.glob(pattern))]  # noqa: PTH207  # may be absolute


def _below(folder: Path) -> Iterator[Path]:
    """The folder if it is a run, else the runs in its folders; links to folders are not followed."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            if (current / "run.json").exists():
                yield current
                continue
            inner = [p for p in current.iterdir() if p.is_dir() and not p.is_symlink()]
        except OSError as e:
            why = (e.strerror or str(e)).lower()
            raise UserError(str(current), why, "check permissions", RUN_FOLDER) from e
        waiting += sorted(inner, reverse=True)
