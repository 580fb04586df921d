"""`ffn-compare`: read run folders, compare, print the answer, write the report."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig

from ffn_bench import cli, runs, schema
from ffn_bench.errors import RESOURCE, RUN_FOLDER, UserError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from ffn_bench.compare.study import Study


def report(cfg: DictConfig, typed: str) -> None:
    """Compare the runs that `cfg` names and write everything; `typed` is the command, for the record.

    Raises `UserError` for runs that cannot be read or compared, and for a folder that cannot be written.
    """
    known = [f.name for f in dataclasses.fields(schema.CompareConfig)]
    for key in cfg:
        if key not in known:
            raise UserError(str(key), f"no such key{nearest(str(key), known)}", f"keys: {', '.join(known)}")
    patterns = words(cfg.runs)
    if not patterns:
        raise UserError("runs", "has no value", "name folders of runs or sweeps: runs=outputs/sweeps/study")
    if cfg.target is not None and not math.isfinite(cfg.target):
        raise UserError("target", f"{cfg.target} is not a finite number", "give one such as 0.97")
    if cfg.target is not None and cfg.metric.startswith("accuracy") and not 0 <= cfg.target <= 1:
        raise UserError("target", f"{cfg.target:g} is no accuracy", "give a share such as 0.97")
    folder = folder_of(cfg.save, patterns)

    from ffn_bench.compare import axes, read, study
    from ffn_bench.console import count, line, make_console, progress, tensorboard

    console, start = make_console(), time.perf_counter()
    folders = read.find(patterns)
    with progress(console, "reading", len(folders)) as told:
        found, problems = read.read_all(folders, told)
    by, tune, workloads = words(cfg.by), words(cfg.tuned), words(cfg.workloads)
    roles = axes.find(found, by, tune, workloads)
    result = study.analyse(found, roles, cfg.metric, cfg.aggregate, cfg.reference, cfg.target)
    if problems:
        more = f" (and {count(len(problems) - 3)} more)" if problems[3:] else ""
        result.notes.append(f"Left out: {'. '.join(problems[:3])}{more}.")
    show(console, result)
    try:
        write(result, folder, console, typed, cfg.tensorboard)
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        status = RESOURCE if e.errno == 28 else RUN_FOLDER
        raise UserError(
            str(folder), f"cannot be written ({reason})", "name another with save=…", status
        ) from e
    number = f"{count(len(found))} run{'s' * (len(found) > 1)}"
    console.print(f"\n  {number} in {time.perf_counter() - start:.1f} s", style="dim")
    for what, path in (
        ("report", folder / "report.html"),
        ("figures", folder / "figures"),
        ("tables", folder / "tables"),
    ):
        console.print(line(f"  {what:<12} {path}"), soft_wrap=True)
    if cfg.tensorboard:
        shown = tensorboard(folder.parent if cfg.save is None else folder)
        console.print(f"  {'bands':<12} {shown}", soft_wrap=True)


def words(value: Any) -> list[str]:
    """A word or a list of words, as a list."""
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, ListConfig) else [str(value)]


def folder_of(save: str | None, patterns: Sequence[str]) -> Path:
    """Where the report goes: into `save`, else into `compare/` in the sweep's folder, or in outputs/."""
    if save is not None:
        if not save.strip():
            raise UserError("save", "is empty", "name a folder")
        folder = Path(save)
    else:
        one = (
            len(patterns) == 1
            and Path(patterns[0]).is_dir()
            and not (Path(patterns[0]) / "run.json").exists()
        )
        folder = Path(patterns[0]) / "compare" if one else Path("outputs/compare")
    if any(p.is_file() for p in (folder, *folder.parents)):
        raise UserError(str(folder), "is below a file, or is one", "name another with save=…", RUN_FOLDER)
    return folder


def show(console: Console, study: Study) -> None:
    """The verdict, the ranking and the notes."""
    from rich.table import Table
    from rich.text import Text

    from ffn_bench.compare import tables, wording
    from ffn_bench.compare.wording import NOTHING

    width = min(console.width, 118)
    console.print(Text(wording.title(study), style="bold"))
    for number, line in enumerate(wording.verdict(study)):
        console.print(Text(line, style="bold green" if number == 0 else ""), width=width)
    console.print()
    full = tables.summary(study)
    cells = full.cells()
    keep = [i for i in range(len(full.header)) if i < 2 or any(row[i] not in ("", NOTHING) for row in cells)]
    widths = [max(map(len, (name, *(row[i] for row in cells)))) + 2 for i, name in enumerate(full.header)]
    for name in ("runs", "at the end", "as shipped", "epochs to target", "val. accuracy", "shown", "behind"):
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


def write(study: Study, folder: Path, console: Console, typed: str, tensorboard: bool) -> None:
    """The report, figures, tables, numbers and, if asked for, TensorBoard's bands. Raises `OSError`."""
    from ffn_bench import style
    from ffn_bench.compare import figures, report, tables
    from ffn_bench.console import progress

    for part in ("figures", "tables"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).iterdir():  # of an earlier report, which may have had others
            if old.suffix in (".png", ".svg", ".csv", ".md", ".tex"):
                old.unlink()
    found = tables.all_tables(study)
    for name, table in found.items():
        runs.write_whole(folder / "tables" / f"{name}.csv", table.csv().encode())
        if name != "runs":
            runs.write_whole(folder / "tables" / f"{name}.md", table.markdown().encode())
            runs.write_whole(folder / "tables" / f"{name}.tex", table.latex().encode())
    drawings = {}
    drawn = figures.draw_all(study)
    with progress(console, "drawing", len(drawn)) as told:
        for number, (name, figure) in enumerate(drawn.items(), 1):
            png, svg = style.save(figure, typed)
            runs.write_whole(folder / "figures" / f"{name}.png", png)
            runs.write_whole(folder / "figures" / f"{name}.svg", svg)
            drawings[name] = svg
            told(number)
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    page = report.html(study, drawings, found, typed, made)
    runs.write_json(folder / "comparison.json", tables.as_dict(study))
    runs.write_whole(folder / "report.html", page.encode())
    if tensorboard:
        from ffn_bench.compare import bands  # which needs PyTorch

        bands.write(study, folder / "tensorboard")


def quote(argument: str) -> str:
    """Quote a path in `runs=…`, `run=…` or `save=…`: it may hold what Hydra reads otherwise. Not a list."""
    from ffn_bench.compare.read import matching

    match = re.fullmatch(r"(runs?|save)=([^\['\"].*)", argument)
    if not match or match[2] == "null":
        return argument
    key, text = match[1], match[2]
    parts = text.split(",")
    several = key != "save" and len(parts) > 1 and not matching(text)
    quoted = ["'" + part.replace("'", "\\'") + "'" for part in (parts if several else [text])]
    return f"{key}=[{','.join(quoted)}]" if several else f"{key}={quoted[0]}"


def rewrite(argument: str) -> str:
    """An argument as Hydra takes it: `tune` is a group of ffn-train's, of which Hydra would look for an
    option; `a,b` is a list."""
    argument = re.sub(r"^tune=", "tuned=", quote(argument))
    return re.sub(r"^(by|tuned|workloads)=([\w./]+(?:,[\w./]+)+)$", r"\1=[\2]", argument)


def main() -> None:
    """The console script `ffn-compare`."""
    several = "runs=[one,two] for several folders"
    cli.run_analysis("compare", schema.CompareConfig, report, rewrite, several)


if __name__ == "__main__":
    main()
