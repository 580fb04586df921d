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
from ffn_bench.command_line.analysis import words
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder import files, finding
from ffn_bench.run_folder.files import Folder
from ffn_bench.tags import NOT_MEASURED, quantity

if TYPE_CHECKING:
    from rich.console import Console

    from ffn_bench.compare.study import Study
    from ffn_bench.run_folder.recorded_run import RecordedRun


def report(given: DictConfig, typed: str) -> None:
    """Compare the runs that `given` names and write everything; `typed` is the command, for the record.

    Raises `UserError` for runs that cannot be read or compared, and for a folder that cannot be written.
    """
    cfg = parsing.typed(given, schema.CompareConfig)
    patterns = words(cfg.runs)
    if not patterns:
        raise UserError("runs", "has no value", "name folders of runs or sweeps: runs=outputs/sweeps/study")
    check(cfg)
    folders = finding.find(patterns)
    folder = analysis.report_folder(cfg.save, default_folder(patterns))

    from ffn_bench.command_line.console import count, line, make_console, progress, tensorboard
    from ffn_bench.compare import read

    console, start = make_console(), time.perf_counter()
    with progress(console, "reading", len(folders)) as on_progress:
        runs, problems = read.read_all(folders, on_progress)
    result = study_of(cfg, runs, problems)
    show(console, result)
    with analysis.writing(folder):
        written = write(result, folder, console, typed, cfg.tensorboard)
    number = f"{count(len(runs))} run{'s' * (len(runs) > 1)}"
    console.print(f"\n  {number} in {time.perf_counter() - start:.1f} s", style="dim")
    analysis.say_renamed(console, written)
    for what, name in (("report", written["report.html"]), ("figures", "figures"), ("tables", "tables")):
        console.print(line(f"  {what:<12} {folder}/{name}"), soft_wrap=True)
    if cfg.tensorboard:
        shown = tensorboard(folder.path.parent if cfg.save is None else folder.path)
        console.print(f"  {'bands':<12} {shown}", soft_wrap=True)


def check(cfg: schema.CompareConfig) -> None:
    """Raise `UserError` for a target that cannot be one."""
    if cfg.target is not None and not math.isfinite(cfg.target):
        raise UserError("target", f"{cfg.target} is not a finite number", "use one such as 0.97")
    if cfg.metric is not None:
        _check_target(cfg.target, cfg.metric)


def _check_target(target: float | None, tag: str) -> None:
    metric = quantity(tag)
    if target is None or metric.lowest <= target <= metric.highest:
        return
    what = f"{target:g} is outside the range of {metric.shown}"
    if metric.is_percent:
        raise UserError("target", what, "use a number between 0 and 1, such as 0.97")
    bound = "at least 0" if target < metric.lowest else f"at most {metric.highest:g}"
    raise UserError("target", what, f"use a number of {bound}")


def study_of(cfg: schema.CompareConfig, runs: Sequence[RecordedRun], problems: Sequence[str]) -> Study:
    """What some runs come to, with its notes; `problems` say which could not be read. Raises `UserError`."""
    from ffn_bench.command_line.console import count
    from ffn_bench.compare import axes, notes, study

    by, tune, workloads = words(cfg.by), words(cfg.tuned), words(cfg.workloads)
    metric = study.metric_of(runs, cfg.metric)
    _check_target(cfg.target, metric)
    roles = axes.find(runs, by, tune, workloads)
    result = study.analyse(runs, roles, metric, cfg.aggregate, cfg.reference, cfg.target, cfg.candidate)
    result.notes.extend(notes.notes(result))
    if problems:
        remaining = f" (and {count(len(problems) - 3)} more)" if problems[3:] else ""
        result.notes.append(f"Left out: {'. '.join(problems[:3])}{remaining}.")
    return result


def default_folder(patterns: Sequence[str]) -> Folder:
    """Where a report goes without `save`: `compare/` in the sweep's folder, or in outputs/."""
    if len(patterns) == 1:
        folder = Path(patterns[0])
        if folder.is_dir() and not (folder / "run.json").exists():
            return Folder(folder, ("compare",))
    return Folder(Path("outputs/compare"))


def show(console: Console, study: Study) -> None:
    """The verdict, the ranking and the notes."""
    from rich.table import Table
    from rich.text import Text

    from ffn_bench.compare import tables, verdict, wording

    width = min(console.width, 118)
    console.print(Text(wording.title(study), style="bold"))
    sentences = verdict.sentences(study)
    is_claimed = not study.running and any(pair.ahead for pair in study.pairs)
    for number, line in enumerate(sentences):
        console.print(Text(line, style="bold green" if is_claimed and number == 0 else ""), width=width)
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
        "default settings",
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
        table.add_row(*(Text(row[i]) for i in keep), style="bold" if is_claimed and number == 0 else None)
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


REPORT_FILES = re.compile(
    r"report(-\d+)?\.html|comparison(-\d+)?\.json|figures/[^/]+\.(png|svg)|tables/[^/]+\.(csv|md|tex)"
    r"|tensorboard/.+/events\.out\.tfevents\.[^/]+"
)
"""Names of a report's files: a later report replaces them."""


def write(study: Study, folder: Folder, console: Console, typed: str, tensorboard: bool) -> dict[str, str]:
    """The report, figures, tables, numbers and, if asked for, TensorBoard's bands; the names they went to.

    Raises `OSError`. Nothing is written before everything is drawn.
    """
    from ffn_bench.compare import figures, numbers, report, tables

    contents: dict[str, bytes] = {}
    every_table = tables.all_tables(study)
    for name, table in every_table.items():
        contents[f"tables/{name}.csv"] = table.csv().encode()
        if name != "runs":
            contents[f"tables/{name}.md"] = table.markdown().encode()
            contents[f"tables/{name}.tex"] = table.latex().encode()
    drawn = figures.draw_all(study)
    pictures = analysis.render(console, drawn, typed)
    contents |= {f"figures/{name}": content for name, content in pictures.items()}
    drawings = {name: pictures[f"{name}.svg"] for name in drawn}
    created = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    contents["comparison.json"] = files.to_json(numbers.as_dict(study))
    contents["report.html"] = report.html(study, drawings, every_table, typed, created).encode()
    if tensorboard:
        from ffn_bench.compare import bands  # which needs PyTorch

        contents |= bands.event_files(study)
    return folder.publish(contents, REPORT_FILES)


def rewrite(argument: str) -> str:
    """An argument in Hydra's syntax: `tune` is a group of ffn-train, so that Hydra would look for an option
    of it; `a,b` is a list."""
    argument = re.sub(r"^tune=", "tuned=", analysis.quote(argument))
    return analysis.comma_list(argument, "by", "tuned", "workloads")


def main() -> None:
    """The console script `ffn-compare`."""
    several = "runs=[one,two] for several folders"
    analysis.run_analysis("compare", schema.CompareConfig, report, rewrite, several)


if __name__ == "__main__":
    main()
