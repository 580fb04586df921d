"""The runs of a comparison: what cannot be read is left out and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ffn_bench.errors import RUN_FOLDER, UserError, printable
from ffn_bench.run_folder import lock
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import RecordedRun, read_run


def read_all(
    folders: Sequence[Path], on_progress: Callable[[int], object] = lambda n: None
) -> tuple[list[RecordedRun], list[str]]:
    """The runs, and a line for each folder that had to be left out. `on_progress` gets the number
    read so far.

    Raises `UserError` (status 4) where none is left.
    """
    runs, problems, live = [], [], {}
    for number, folder in enumerate(folders, 1):
        if folder.parent not in live:
            live[folder.parent] = lock.holder(Folder(folder.parent)) is not None
        try:
            runs.append(read_run(folder, live[folder.parent]))
        except (UserError, OSError) as e:
            problems.append(printable(str(e)))
        on_progress(number)
    if not runs:
        remaining = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        what = f"none can be read: {problems[0]}{remaining}"
        raise UserError("runs", what, "name other folders", RUN_FOLDER)
    return runs, problems
