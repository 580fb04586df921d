"""`ffn-compare`: read run folders, compare, print the answer, write the report."""

from __future__ import annotations

import datetime
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ffn_bench.command_line import analysis
from ffn_bench.command_line.analysis import quote, tell_moved, words
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import RESOURCE, RUN_FOLDER, UserError
from ffn_bench.run_folder import files
from ffn_bench.run_folder.files import Folder
from ffn_bench.tags import NOT_MEASURED, quantity

if TYPE_CHECKING:
    from rich.console import Console

    from ffn_bench.compare.study import Study


def report(given: DictConfig, typed: str) -> None:
    """Compare the runs that `given` names and write everything; `typed` is the command, for the record.

    Raises `UserError` for runs that cannot be read or compared, and for a folder that cannot be written.
    """
    cfg = parsing.typed(given, schema.CompareConfig)
    patterns = words(cfg.runs)
    if not patterns:
        raise UserError("runs", "has no value", "name folders of runs or sweeps: runs=outputs/sweeps/study")
    if cfg.target is not None and not math.isfinite(cfg.target):
        raise UserError("target", f"{cfg.target} is not a finite number", "give one such as 0.97")
    metric = quantity(cfg.metric)
    if cfg.target is not None and metric.is_percent and not metric.lowest <= cfg.target <= metric.highest:
        raise UserError("target", f"{cfg.target:g} is no {metric.name}", "give a share such as 0.97")
    folder = folder_of(cfg.save, patterns)

    from ffn_bench.command_line.console import count, line, make_console, progress, tensorboard
    from ffn_bench.compare import axes, notes, read, study
    from ffn_bench.run_folder import finding

    console, start = make_console(), time.perf_counter()
    folders = finding.find(patterns)
    with progress(console, "reading", len(folders)) as told:
        found, problems = read.read_all(folders, told)
    by, tune, workloads = words(cfg.by), words(cfg.tuned), words(cfg.workloads)
    roles = axes.find(found, by, tune, workloads)
    result = study.analyse(found, roles, cfg.metric, cfg.aggregate, cfg.reference, cfg.target, cfg.candidate)
    result.notes.extend(notes.notes(result))
    if problems:
        more = f" (and {count(len(problems) - 3)} more)" if problems[3:] else ""
        result.notes.append(f"Left out: {'. '.join(problems[:3])}{more}.")
    show(console, result)
    try:
        written = write(result, folder, console, typed, cfg.tensorboard)
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        status = RESOURCE if e.errno == 28 else RUN_FOLDER
        raise UserError(
            str(folder), f"cannot be written ({reason})", "name another with save=…", status
        ) from e
    number = f"{count(len(found))} run{'s' * (len(found) > 1)}"
    console.print(f"\n  {number} in {time.perf_counter() - start:.1f} s", style="dim")
    tell_moved(console, written)
    for what, name in (("report", written["report.html"]), ("figures", "figures"), ("tables", "tables")):
        console.print(line(f"  {what:<12} {folder}/{name}"), soft_wrap=True)
    if cfg.tensorboard:
        shown = tensorboard(folder.path.parent if cfg.save is None else folder.path)
        console.print(f"  {'bands':<12} {shown}", soft_wrap=True)


def folder_of(save: str | None, patterns: Sequence[str]) -> Folder:
    """Where the report goes: into `save`, else into `compare/` in the sweep's folder, or in outputs/."""
    if save is not None:
        if not save.strip():
            raise UserError("save", "is empty", "name a folder")
        folder = Folder(Path(save))
    else:
        one = (
            len(patterns) == 1
            and Path(patterns[0]).is_dir()
            and not (Path(patterns[0]) / "run.json").exists()
        )
        folder = Folder(Path(patterns[0]), ("compare",)) if one else Folder(Path("outputs/compare"))
    if any(p.is_file() for p in (folder.path, *folder.path.parents)):
        raise UserError(str(folder), "is below a file, or is one", "name another with save=…", RUN_FOLDER)
    return folder


def show(console: Console, study: Study) -> None:
    """The verdict, the ranking and the notes."""
    from rich.table import Table
    from rich.text import Text

    from ffn_bench.compare import tables, verdict, wording

    width = min(console.width, 118)
    console.print(Text(wording.title(study), style="bold"))
    for number, line in enumerate(verdict.sentences(study)):
        console.print(Text(line, style="bold green" if number == 0 else ""), width=width)
    console.print()
    full = tables.summary(study)
    cells = full.cells()
    keep = [
        i for i in range(len(full.header)) if i < 2 or any(row[i] not in ("", NOT_MEASURED) for row in cells)
    ]
    widths = [max(map(len, (name, *(row[i] for row in cells)))) + 2 for i, name in enumerate(full.header)]
    for name in (
        "runs",
        "at the end",
        "as shipped",
        "epochs to target",
        "mean val.",
        "ahead",
        "the first against",
    ):
        if sum(min(widths[i], 42) if i == 2 else widths[i] for i in keep) > console.width:
            keep = [i for i in keep if not full.header[i].startswith(name)]
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for i in keep:
        table.add_column(full.header[i], no_wrap=i != 2, max_width=40 if i == 2 else None)
    for number, row in enumerate(cells[:40]):
        table.add_row(*(Text(row[i]) for i in keep), style="bold" if number == 0 else None)
    console.print(table)
    if len(keep) < len(full.header):
        console.print("  tables/summary.csv has more columns", style="dim")
    if len(cells) > 40:
        console.print(f"  … and {len(cells) - 40} more, in tables/summary.csv")
    console.print()
    around = Table.grid(padding=(0, 2, 0, 0))
    for key, text in wording.facts(study).items():
        around.add_row(Text(f"  {key}", style="dim"), Text(text))
    for note in study.notes:
        around.add_row(Text("  note", style="yellow"), Text(note, style="yellow"))
    console.print(around)


OURS = re.compile(
    r"report(-\d+)?\.html|comparison(-\d+)?\.json|figures/[^/]+\.(png|svg)|tables/[^/]+\.(csv|md|tex)"
    r"|tensorboard/.+/events\.out\.tfevents\.[^/]+"
)
"""Names of a report's files."""


def write(study: Study, folder: Folder, console: Console, typed: str, tensorboard: bool) -> dict[str, str]:
    """The report, figures, tables, numbers and, if asked for, TensorBoard's bands; the names they went to.

    Raises `OSError`. Nothing is written before all is drawn.
    """
    from ffn_bench.command_line import plot_style
    from ffn_bench.command_line.console import progress
    from ffn_bench.compare import figures, numbers, report, tables

    contents: dict[str, bytes] = {}
    found = tables.all_tables(study)
    for name, table in found.items():
        contents[f"tables/{name}.csv"] = table.csv().encode()
        if name != "runs":
            contents[f"tables/{name}.md"] = table.markdown().encode()
            contents[f"tables/{name}.tex"] = table.latex().encode()
    drawings = {}
    drawn = figures.draw_all(study)
    with progress(console, "drawing", len(drawn)) as told:
        for number, (name, figure) in enumerate(drawn.items(), 1):
            contents[f"figures/{name}.png"], drawings[name] = plot_style.save(figure, typed)
            contents[f"figures/{name}.svg"] = drawings[name]
            told(number)
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    contents["comparison.json"] = files.to_json(numbers.as_dict(study))
    contents["report.html"] = report.html(study, drawings, found, typed, made).encode()
    if tensorboard:
        from ffn_bench.compare import bands  # which needs PyTorch

        contents |= bands.event_files(study)
    return folder.publish(contents, OURS)


def rewrite(argument: str) -> str:
    """An argument as Hydra takes it: `tune` is a group of ffn-train's, of which Hydra would look for an
    option; `a,b` is a list."""
    argument = re.sub(r"^tune=", "tuned=", quote(argument))
    return re.sub(r"^(by|tuned|workloads)=([\w./]+(?:,[\w./]+)+)$", r"\1=[\2]", argument)


def main() -> None:
    """The console script `ffn-compare`."""
    several = "runs=[one,two] for several folders"
    analysis.run_analysis("compare", schema.CompareConfig, report, rewrite, several)


if __name__ == "__main__":
    main()
