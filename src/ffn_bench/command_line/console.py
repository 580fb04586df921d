"""What all output to a person has in common: the console, bars, and how numbers are written.

On a terminal there are colours and a live bar; in a pipe plain lines. Nothing printed is read as markup or as
a terminal's control.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from ffn_bench.errors import printable


class _Plain(Console):
    """A console to which text is text: what it holds for a terminal (colours, titles, other directions of
    writing) is shown, not done."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of which those that are text are printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = map(printable, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)


def make_console() -> Console:
    """Standard output; in a pipe without a width of its own, so that no line is broken."""
    console = _Plain(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = _Plain(markup=False, highlight=False, emoji=False, width=200)
    return console


def line(text: object, style: str = "") -> Text:
    """Text of anywhere, such as a name or a reason, as one line."""
    return Text(printable(str(text)), style=style)


@contextmanager
def progress(console: Console, what: str, total: int | None) -> Iterator[Callable[[int | str], None]]:
    """A bar, on a terminal only: `with progress(…) as report: report(17)`. Of a word it says that."""
    numbers = MofNCompleteColumn() if total is not None else TimeElapsedColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), numbers)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def report(done: int | str) -> None:
            if isinstance(done, str):
                bar.update(task, description=f"{what}: {done}")
            else:
                bar.update(task, completed=done)

        yield report


def tensorboard(folder: Path) -> str:
    """The command that shows a folder's curves, to be copied."""
    return f"tensorboard --logdir {quoted(str(folder))}"


def quoted(text: str) -> str:
    """A word of a shell's command, which may be copied whatever is in it."""
    return shlex.quote(text) if text.isprintable() else "$'" + printable(text).replace("'", "\\'") + "'"


def count(n: float) -> str:
    """An integer with separators."""
    return f"{round(n):,}"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Rate(ProgressColumn):
    """Steps a second of training time."""

    def render(self, task: Task) -> Text:
        rate = task.fields.get("rate") or 0.0
        return Text(f"{count(rate)} steps/s" if rate else "", style="cyan")


def training_bar(console: Console) -> Progress:
    """The bar of training: its task has fields `numbers`, shown as they are, and `rate`, steps a second."""
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}", markup=False),
        _Rate(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        expand=True,
    )
