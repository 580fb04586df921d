"""`ffn-lecture`: run topics, show their tables, write their figures; exit 1 if a number disagrees."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ffn_bench import checks
from ffn_bench.command_line import analysis
from ffn_bench.command_line.beside import beside
from ffn_bench.configuration import parsing, schema, validation
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

if TYPE_CHECKING:
    from rich.console import Console

    from ffn_bench.lecture.topic import Context, Row, Topic


MODULES = (
    "derivatives", "curvature", "descent", "training", "update_rules", "side_by_side", "second_order",
)  # fmt: skip
"""Modules that register topics when they are imported."""
LATE = 14
"""The number in the lecture from which on topics take as long as all before: another core computes them."""


def lecture(given: DictConfig, typed: str) -> None:
    """Hydra's task function."""
    sys.exit(0 if show(given) else 1)


def show(given: DictConfig) -> bool:
    """Run and print the topics that `given` names; True when every row of them holds.

    Raises `UserError` for an unknown topic, data that cannot be loaded and folders that cannot be written.
    """
    from rich.text import Text

    from ffn_bench.command_line.console import duration, make_console
    from ffn_bench.lecture.topic import Context

    cfg = parsing.typed(given, schema.LectureConfig)
    validation.check_data(cfg.data)
    validation.check_model(cfg.model)
    checks.check_seed(cfg.seed, "seed")
    topics = chosen(cfg.topic)

    from ffn_bench.model.torch_internals import put_compiler_off

    put_compiler_off()
    folder = None if cfg.save is None else analysis.report_folder(cfg.save, Folder(Path(cfg.save)))
    for topic in topics:
        topic.check(Context(cfg.data, cfg.model, cfg.seed))
    console = make_console()
    start = time.perf_counter()
    disagreeing, count = [], 0
    late = [topic for topic in topics if int(topic.number[1:]) >= LATE]
    if folder or late == topics:  # figures stay here
        late = []

    def late_rows() -> list[list[Row]]:
        return [rows_of(topic, Context(cfg.data, cfg.model, cfg.seed)) for topic in late]

    with beside(late_rows) if late else nullcontext(list) as others:
        for topic in topics:
            context = Context(cfg.data, cfg.model, cfg.seed, draw=folder is not None)
            rows = others()[late.index(topic)] if topic in late else rows_of(topic, context)
            print_topic(console, topic, rows)
            disagreeing += [f"{topic.name}: {row.what}" for row in rows if not row.ok]
            count += len(rows)
            if folder:
                save_figures(console, folder, topic, context)
    for line in disagreeing:
        console.print(Text(f"✗ {line}", style="bold red"), soft_wrap=True)
    summary = (
        f"{count - len(disagreeing)} of {count} numbers agree, in {duration(time.perf_counter() - start)}"
    )
    console.print(Text(summary, style="bold green" if not disagreeing else "bold red"))
    return not disagreeing


def rows_of(topic: Topic, context: Context) -> list[Row]:
    """All rows of a topic."""
    from ffn_bench.engine.device import threads

    with threads(1):  # for networks so small, others would only be waited for
        return list(topic.rows(context))


def chosen(names: str | list[str]) -> list[Topic]:
    """The topics called `names` (`all`, one, or a list), in the lecture's order."""
    from ffn_bench.lecture.topic import TOPICS

    for module in MODULES:
        importlib.import_module(f"ffn_bench.lecture.{module}")
    in_order = sorted(TOPICS.values(), key=lambda topic: int(topic.number[1:]))
    known = ("all", *(topic.name for topic in in_order))
    wanted = analysis.words(names)
    if not wanted:
        raise UserError("topic", "is empty", f"use one of: {', '.join(known)}")
    for name in wanted:
        checks.one_of(name, known, "topic")
    return [topic for topic in in_order if "all" in wanted or topic.name in wanted]


def print_topic(console: Console, topic: Topic, rows: list[Row]) -> None:
    """The topic's claim and its table."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(
        Text(f"{topic.number} · {topic.title}  ", style="bold").append(f"topic={topic.name}", style="dim")
    )
    width = min(console.width, 140)
    console.print(Padding(Text(topic.claim, style="italic"), (0, 0, 0, 2)), width=min(width, 110))
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for name, proportion in (("", None), ("what", 0.5), ("expected", 0.22), ("computed", 0.22)):
        table.add_column(name, max_width=int(proportion * width) if proportion else None, overflow="fold")
    for row in rows:
        mark = Text("✓", style="green") if row.ok else Text("✗", style="bold red")
        table.add_row(mark, row.what, row.expected, row.computed, style=None if row.ok else "red")
    console.print(Padding(table, (0, 0, 0, 2), expand=False))


def save_figures(console: Console, folder: Folder, topic: Topic, context: Context) -> None:
    """Each figure as PNG and SVG, with the command that created it in the metadata."""
    from ffn_bench.command_line.console import line

    command = f"ffn-lecture topic={topic.name} save={folder} seed={context.seed}"
    with analysis.writing(folder):
        written = folder.put_all(analysis.render(console, context.figures, command))
    for name in written.values():
        console.print(line(f"  figure  {folder.path / name}", style="dim"), soft_wrap=True)


def rewrite(argument: str) -> str:
    """An argument in Hydra's syntax: paths in quotes, `topic=a,b` as a list."""
    return analysis.comma_list(analysis.quote(argument), "topic")


def main() -> None:
    """The console script `ffn-lecture`."""
    several = "topic=rules,newton for several topics"
    analysis.run_analysis("lecture", schema.LectureConfig, lecture, rewrite, several)


if __name__ == "__main__":
    main()
