"""What a person sees of a sweep while its runs are trained."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ffn_bench import tags
from ffn_bench.command_line.console import count, duration, line, make_console, tensorboard, training_bar
from ffn_bench.command_line.run_view import RunView
from ffn_bench.errors import printable

if TYPE_CHECKING:
    from ffn_bench.engine.choice import Choice
    from ffn_bench.engine.loop import Run
    from ffn_bench.engine.metrics import Confusion, Measurement

LINES = 40
"""Runs of a sweep, at most, that each get a line when they end."""

SEND_SECONDS = 0.1
"""Between two messages about a run that another process trains."""

LIVE_RUNS = 2000
"""Runs of a sweep, at most, whose settings are compared live."""


class SweepView:
    """Shows a sweep: what is trained how, a bar and the settings that lead, a line for a run that ended.

    `runs` are their names and swept settings; `warnings` are of their data. In large sweeps only the first
    that go wrong have a line, in a `search`, where rates that diverge are to be expected, those that failed.
    Its methods may be called from several threads.
    """

    def __init__(
        self,
        runs: Sequence[tuple[str, dict[str, str]]],
        folder: Path,
        heading: str = "ffn-train",
        search: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        self.console = make_console()
        self._warnings = warnings
        self.runs = [(printable(name), settings) for name, settings in runs]
        self.folder, self.heading = folder, heading
        self._lock = threading.Lock()
        self._latest: dict[int, Measurement] = {}
        self._ended: dict[int, dict[str, Any]] = {}
        self._steps = [0] * len(runs)
        self._before: dict[str, int] = {}
        self._total: int | None = None
        self._live: Live | None = None
        self._bar: Progress | None = None
        self._width = min(70, max(len(name) for name, _ in self.runs))
        self._lines = len(runs) <= LINES and not search
        self._noted: tuple[str, ...] = ("failed",) if search else ("failed", "diverged")
        self._tenths = self._bad = 0

    def start(self, choices: Counter[Choice], processes: int = 0) -> None:
        """Print how many runs are trained by which engine, in how many processes."""
        self.console.print(Text(self.heading, style="bold"))
        among = f", in {processes} processes" if processes > 1 else ""
        self._fact("sweep", f"{count(len(self.runs))} runs{among}")
        for choice, number in choices.items():
            self._fact(
                choice.engine, f"{count(number)} runs" + (f": {choice.reason}" if choice.reason else "")
            )
        words = {
            "done": "have already ended and are not trained again",
            "left": "are left unchanged",
            "resumed": "have started and are resumed",
        }
        for what, number in self._before.items():
            self._fact(what, f"{count(number)} runs {words[what]}")
        self._fact("folder", str(self.folder))
        self._fact("curves", tensorboard(self.folder))
        for warning in self._warnings:
            self.warn(warning)
        self.console.print()

    def live(self) -> None:
        """Begin the bar, whose thread must not exist when processes are forked."""
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._bar = training_bar(self.console)
            self._task = self._bar.add_task("runs", total=self._total, numbers="", rate=0.0)
            self._started = time.monotonic()
            self._live = Live(
                get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True
            )
            self._live.start()

    def before(self, counts: dict[str, int]) -> None:
        """Take how many runs were done, left unchanged or resumed, to be printed by `start`."""
        self._before = counts

    def note(self, text: str) -> None:
        """Print what a person should know."""
        self._fact("note", text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(line(f"  warning    {text}", "yellow"), soft_wrap=True)

    def expect(self, steps: int) -> None:
        """Say how many steps all runs have together, or, where others train them, how many runs there are."""
        self._total = steps

    def measured(self, run: int, measurements: Sequence[Measurement]) -> None:
        """Take what was measured of a run."""
        with self._lock:
            self._steps[run] = measurements[-1].step
            for measurement in measurements if len(self.runs) <= LIVE_RUNS else ():
                before = self._latest[run].values if run in self._latest else {}
                self._latest[run] = replace(measurement, values=before | measurement.values)

    def ended(self, run: int, summary: dict[str, Any]) -> None:
        """Take a run's end, and print its line."""
        with self._lock:
            self._ended[run] = summary
            status, total = summary["status"], len(self.runs)
            if self._lines or (status in self._noted and self._bad < LINES):
                self._bad += status in self._noted
                self._line(run, summary)
            elif not self._live and total > LINES and len(self._ended) * 10 // total > self._tenths:
                self._tenths = len(self._ended) * 10 // total
                self.console.print(f"  {count(len(self._ended))} of {count(total)} runs have ended")

    def _line(self, run: int, summary: dict[str, Any]) -> None:
        best, final, status = summary["best"] or {}, summary["final"], summary["status"]
        name, total = self.runs[run][0], len(self.runs)
        style = {"finished": "green", "diverged": "yellow"}.get(status, "bold red")
        position = f"[{len(self._ended):>{len(str(total))}}/{total}]"
        text = Text.assemble(f"  {position} {name:<{self._width}}  ", (f"{status:<11}", style))
        if status not in ("failed", "diverged"):
            score = tags.PRIMARY[summary["task"]]
            name = "" if score.is_percent else f" {score.shown}"
            text.append(f" val{name} {score.text(best.get(score.tag('val')))}")
            text.append(f"  test {score.text((best or final).get(score.tag('test')))}")
            text.append(f"  {duration(summary['train_seconds'])}")
        if summary["reason"]:
            text.append(line(f"  {summary['reason']}", style))
        self.console.print(text, soft_wrap=True)

    def _picture(self) -> Group:
        """The settings that lead now, and the bar."""
        assert self._bar is not None
        with self._lock:
            latest, ended, steps = dict(self._latest), len(self._ended), sum(self._steps)
        seconds = time.monotonic() - self._started
        numbers = f"{count(ended)}/{count(len(self.runs))} ended"
        # Runs that other processes train are known when they have ended.
        self._bar.update(self._task, completed=steps or ended, numbers=numbers, rate=steps / seconds)
        if not latest or len(self.runs) > LIVE_RUNS:  # so many would take their time from the training
            return Group(self._bar)
        settings: dict[str, list[Measurement]] = {}
        for run, measurement in latest.items():
            named = {k: v for k, v in self.runs[run][1].items() if k != "seed"}
            own = " ".join(v if k == "optimizer" else f"{k}={v}" for k, v in named.items())
            settings.setdefault(own or "all seeds", []).append(measurement)
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        width = max(24, min(60, self.console.width - 45))
        table.add_column("leading now", no_wrap=True, max_width=width)
        shown = {tags.primary_in(members[0].values) for members in settings.values()}
        names = {tags.SPLITS["val"] if one.is_percent else one.words("val") for one in shown}
        what = names.pop() if len(names) == 1 else tags.SPLITS["val"]
        for column, width in (("runs", 4), ("epoch", 5), (tags.LOSS.name, 8), (what, 10)):
            table.add_column(column, justify="right", no_wrap=True, min_width=width)
        rows = []
        for own, members in settings.items():
            primary = tags.primary_in(members[0].values)
            score = _mean(m.values.get(primary.tag("val"), math.nan) for m in members)
            loss = _mean(m.values.get(tags.LOSS.tag("train"), math.nan) for m in members)
            rows.append((own, len(members), max(m.epoch for m in members), loss, score, primary))
        rows.sort(key=lambda row: -row[5].sign * row[4] if math.isfinite(row[4]) else math.inf)
        for own, n, epoch, loss, score, primary in rows[:10]:
            table.add_row(line(own), str(n), str(epoch), tags.LOSS.text(loss), primary.text(score))
        return Group(table, self._bar)

    def finish(self) -> None:
        """Take the live part away."""
        if self._live:
            self._live.stop()
            self._live = None

    def closing(self, started: int, failures: Sequence[str]) -> None:
        """Say again which runs failed or never started, and where everything is."""
        self.console.print()
        for name in failures[:20]:
            self.console.print(line(f"  failed       {name}", "bold red"), soft_wrap=True)
        if len(failures) > 20:
            self.console.print(Text(f"  failed       and {len(failures) - 20} more", style="bold red"))
        total = len(self.runs)
        if started < total:
            self.console.print(Text(f"  not trained  {total - started} of {total} runs", style="bold red"))
        self.console.print(Text.assemble("  ", ("sweep folder ", "dim"), line(self.folder)), soft_wrap=True)
        self.console.print(
            Text.assemble("  ", ("curves       ", "dim"), tensorboard(self.folder)), soft_wrap=True
        )

    def _fact(self, key: str, value: str) -> None:
        self.console.print(Text.assemble("  ", (f"{key:<10}", "dim"), line(value)), soft_wrap=True)


def _mean(values: Iterable[float]) -> float:
    """Mean of those that are finite, or NaN."""
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


class RunOfSweep(RunView):
    """A run of a sweep that is trained by itself, shown as one of the sweep."""

    def __init__(self, sweep: SweepView, run: int) -> None:
        super().__init__()
        self._sweep, self._run = sweep, run

    def start(self, facts: dict[str, str], run: Run, epochs: int, warnings: Sequence[str] = ()) -> None:
        """Warnings only: the sweep has said the rest."""
        for warning in warnings:
            self._sweep.warn(f"{self._sweep.runs[self._run][0]}: {warning}")

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Hand them to the sweep's view."""
        self._sweep.measured(self._run, measurements)

    def end(self, summary: dict[str, Any], folder: Path, confusion: Confusion | None = None) -> None:
        """Nothing: the sweep prints the line of a run that ended."""


class RunElsewhere(RunView):
    """A run of a sweep in another process than the one that shows it: `send` takes what is to be shown, a
    kind and a content, now and then."""

    def __init__(self, send: Callable[[tuple[str, Any]], None]) -> None:
        super().__init__()
        self._send, self._due, self._values = send, 0.0, dict[str, float]()

    def start(self, facts: dict[str, str], run: Run, epochs: int, warnings: Sequence[str] = ()) -> None:
        """Warnings only: the sweep has said the rest."""
        for warning in warnings:
            self._send(("warning", warning))

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Send the latest values, ten times a second."""
        for measurement in measurements:
            self._values |= measurement.values
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + SEND_SECONDS
            self._send(("measured", [replace(measurements[-1], values=dict(self._values))]))

    def end(self, summary: dict[str, Any], folder: Path, confusion: Confusion | None = None) -> None:
        """Nothing: the sweep prints the line of a run that ended."""
