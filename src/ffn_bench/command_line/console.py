"""What a person sees: one run on a terminal or in a pipe, a sweep run by run, and its leaderboard.

On a terminal there are colours and a live bar; in a pipe plain lines. Nothing printed is read as markup or as
a terminal's control.
"""

from __future__ import annotations

import math
import shlex
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
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
from rich.table import Table
from rich.text import Text

from ffn_bench.configuration.schema import TrainConfig, count_parameters
from ffn_bench.errors import printable

if TYPE_CHECKING:
    from ffn_bench.data.splitting import Data
    from ffn_bench.engine.metrics import Measurement
    from ffn_bench.run_folder.recorder import Training

PLAIN_LINES = 10
"""Lines of progress that a run prints where there is no live bar."""


LINES = 40
"""Runs of a sweep, at most, that each get a line when they end."""

STATUS_ROWS = 200
"""Runs of a sweep, at most, that are listed one by one when its status is asked for."""

LIVE_RUNS = 2000
"""Runs of a sweep, at most, whose settings are compared live."""


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
    """A bar, on a terminal only: `with progress(…) as told: told(17)`. Told a word, it says that."""
    numbers = MofNCompleteColumn() if total is not None else TimeElapsedColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), numbers)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def told(done: int | str) -> None:
            if isinstance(done, str):
                bar.update(task, description=f"{what}: {done}")
            else:
                bar.update(task, completed=done)

        yield told


def tensorboard(folder: Path) -> str:
    """The command that shows a folder's curves, to be copied."""
    return f"tensorboard --logdir {quoted(str(folder))}"


def quoted(text: str) -> str:
    """A word of a shell's command, which may be copied whatever is in it."""
    return shlex.quote(text) if text.isprintable() else "$'" + printable(text).replace("'", "\\'") + "'"


def count(n: float) -> str:
    """A whole number with separators."""
    return f"{round(n):,}"


def percent(share: Any) -> str:
    """A share as per cent with two decimals, or a dash for what was not measured."""
    return f"{share:.2%}" if isinstance(share, (int, float)) and math.isfinite(share) else "–"


def number(value: Any) -> str:
    """A loss with four significant digits, or a dash."""
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class _Rate(ProgressColumn):
    """Steps a second of training time."""

    def render(self, task: Task) -> Text:
        rate = task.fields.get("rate") or 0.0
        return Text(f"{count(rate)} steps/s" if rate else "", style="cyan")


def _bar(console: Console) -> Progress:
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


class RunView:
    """Shows one run: what it is, how it goes, how it ended."""

    def __init__(self) -> None:
        self.console = make_console()
        self._progress: Progress | None = None
        self._shown: dict[str, float] = {}

    def start(
        self, facts: dict[str, str], training: Training, epochs: int, warnings: Sequence[str] = ()
    ) -> None:
        """Print warnings and facts, a line each, and begin the bar."""
        self._epochs, steps = epochs, training.steps
        for warning in warnings:
            self.console.print(line(f"  warning    {warning}", "yellow"), soft_wrap=True)
        self.console.print(Text("ffn-train", style="bold"))
        for key, value in facts.items():
            self.console.print(Text.assemble("  ", (f"{key:<10}", "dim"), line(value)), soft_wrap=True)
        for warning in training.data.warnings:
            self.console.print(line(f"  warning    {warning}", "yellow"), soft_wrap=True)
        if training.step:
            self.console.print(f"  goes on at step {count(training.step)} of {count(steps)}")
        self.console.print()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._progress = _bar(self.console)
            self._progress.start()
            self._task = self._progress.add_task("epoch", total=steps, numbers="", rate=0.0)

    def write(self, measurement: Measurement) -> None:
        """Bring the bar up to date, or print a line at every tenth of the epochs."""
        self._shown |= measurement.values
        parts = {"loss": number(self._shown["loss/train"])} if "loss/train" in self._shown else {}
        held_out = "val" if "accuracy/val" in self._shown else "test"
        parts[held_out] = percent(self._shown.get(f"accuracy/{held_out}"))
        numbers = "  ".join(f"{key} {value}" for key, value in parts.items())
        if self._progress:
            seconds = measurement.train_seconds
            self._progress.update(
                self._task,
                completed=measurement.step,
                description=f"epoch {measurement.epoch}/{self._epochs}",
                numbers=numbers,
                rate=measurement.step / seconds if seconds else 0.0,
            )
        elif measurement.ends_epoch:
            tenth = max(1, self._epochs // PLAIN_LINES)
            if measurement.epoch % tenth == 0 or measurement.epoch == self._epochs:
                place = f"epoch {measurement.epoch}/{self._epochs}"
                self.console.print(f"  {place:<16} step {measurement.step:<8} {numbers}")

    def close(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def end(self, summary: dict[str, Any], folder: Path) -> None:
        """Print the closing table, the run folder and the TensorBoard line."""
        self.close()
        final, best = summary["final"], summary["best"]
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
        table.add_column("")
        for part in ("training", "validation", "test"):
            table.add_column(part, justify="right")
        tags = ("train", "val", "test")
        table.add_row("  loss (training: of its last steps)", *(number(final.get(f"loss/{t}")) for t in tags))
        table.add_row("  accuracy", *(percent(final.get(f"accuracy/{t}")) for t in tags), style="bold")
        if best:
            name = f"  at the best validation, epoch {best['epoch']}"
            table.add_row(name, *(percent(best.get(f"accuracy/{t}")) for t in tags))
        self.console.print(table)
        self.console.print()
        seconds, steps = summary["train_seconds"], summary["steps"]
        rate = f", {count(steps / seconds)} steps/s" if seconds else ""
        status = summary["status"]
        style = "green" if status == "finished" else "bold red"
        told = Text.assemble(
            "  ", (status, style), line(f": {summary['reason']}" if summary["reason"] else "")
        )
        told.append(f" after {count(steps)} steps in {duration(seconds)} of training{rate}")
        self.console.print(told, soft_wrap=True)
        self.console.print()
        self.console.print(Text.assemble("  ", ("run folder   ", "dim"), line(folder)), soft_wrap=True)
        self._tensorboard(folder)

    def _tensorboard(self, folder: Path) -> None:
        self.console.print(Text.assemble("  ", ("curves       ", "dim"), tensorboard(folder)), soft_wrap=True)


class SweepView:
    """Shows a sweep: what is trained how, a bar and the settings that lead, a line for a run that ended.

    `runs` are their names and swept settings; `warnings` are of their data. In large sweeps only the first
    that go wrong have a line, in a `search`, where rates that diverge are to be expected, those that failed.
    May be told things from several threads.
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
        self._live: Live | None = None
        self._bar: Progress | None = None
        self._width = min(70, max(len(name) for name, _ in self.runs))
        self._lines = len(runs) <= LINES and not search
        self._told_of = ("failed",) if search else ("failed", "diverged")
        self._told = self._bad = 0

    def start(self, groups: Sequence[int], alone: Sequence[str | None]) -> None:
        """Print how many runs are trained in which way, and begin the bar.

        `groups` are sizes of groups that are trained side by side; `alone` has, for every run that is trained
        by itself, the reason.
        """
        self.console.print(Text(self.heading, style="bold"))
        together = sum(groups)
        ways = [f"{count(together)} side by side" + (f" in {len(groups)} groups" if len(groups) > 1 else "")]
        self._fact("sweep", f"{count(len(self.runs))} runs" + (f", {ways[0]}" if together else ""))
        told = {
            "done": "had ended before, and are not trained again",
            "left": "are left as they are",
            "resumed": "had begun, and go on",
        }
        for what, number in self._before.items():
            self._fact(what, f"{count(number)} runs {told[what]}")
        for reason, number in Counter(alone).items():
            self._fact(
                "alone", f"{count(number)} runs" + (f": {reason}" if reason else ", one after the other")
            )
        self._fact("folder", str(self.folder))
        self._fact("curves", tensorboard(self.folder))
        for warning in self._warnings:
            self.warn(warning)
        self.console.print()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._bar = _bar(self.console)
            self._task = self._bar.add_task("runs", total=None, numbers="", rate=0.0)
            self._started = time.monotonic()
            self._live = Live(
                get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True
            )
            self._live.start()

    def before(self, counts: dict[str, int]) -> None:
        """Take how many runs were done, left alone or resumed, to be printed by `start`."""
        self._before = counts

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.console.print(line(f"  warning    {text}", "yellow"), soft_wrap=True)

    def expect(self, steps: int) -> None:
        """Say how many steps all runs have together, or, where others train them, how many runs there are."""
        if self._bar:
            self._bar.update(self._task, total=steps)

    def measured(self, run: int, measurement: Measurement) -> None:
        """Take what was measured of a run."""
        with self._lock:
            self._steps[run] = measurement.step
            if len(self.runs) > LIVE_RUNS:
                return
            before = self._latest.get(run)
            if before is not None:
                measurement = replace(measurement, values=before.values | measurement.values)
            self._latest[run] = measurement

    def ended(self, run: int, summary: dict[str, Any]) -> None:
        """Take a run's end, and print its line."""
        with self._lock:
            self._ended[run] = summary
            status, total = summary["status"], len(self.runs)
            if self._lines or (status in self._told_of and self._bad < LINES):
                self._bad += status in self._told_of
                self._line(run, summary)
            elif not self._live and total > LINES and len(self._ended) * 10 // total > self._told:
                self._told = len(self._ended) * 10 // total
                self.console.print(f"  {count(len(self._ended))} of {count(total)} runs have ended")

    def _line(self, run: int, summary: dict[str, Any]) -> None:
        best, final, status = summary["best"] or {}, summary["final"], summary["status"]
        name, total = self.runs[run][0], len(self.runs)
        style = {"finished": "green", "diverged": "yellow"}.get(status, "bold red")
        place = f"[{len(self._ended):>{len(str(total))}}/{total}]"
        text = Text.assemble(f"  {place} {name:<{self._width}}  ", (f"{status:<11}", style))
        if status not in ("failed", "diverged"):
            text.append(f" val {percent(best.get('accuracy/val'))}")
            text.append(f"  test {percent((best or final).get('accuracy/test'))}")
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
        for column, width in (("runs", 4), ("epoch", 5), ("loss", 8), ("validation", 10)):
            table.add_column(column, justify="right", no_wrap=True, min_width=width)
        rows = []
        for own, members in settings.items():
            accuracy = _mean(m.values.get("accuracy/val", math.nan) for m in members)
            loss = _mean(m.values.get("loss/train", math.nan) for m in members)
            rows.append((own, len(members), max(m.epoch for m in members), loss, accuracy))
        rows.sort(key=lambda row: -row[4] if math.isfinite(row[4]) else math.inf)
        for own, members_count, epoch, loss, accuracy in rows[:10]:
            table.add_row(line(own), str(members_count), str(epoch), number(loss), percent(accuracy))
        return Group(table, self._bar)

    def finish(self) -> None:
        """Take the live part away."""
        if self._live:
            self._live.stop()
            self._live = None

    def closing(self, begun: int, failures: Sequence[str]) -> None:
        """Say again which runs failed or never began, and where everything is."""
        self.console.print()
        for name in failures[:20]:
            self.console.print(line(f"  failed       {name}", "bold red"), soft_wrap=True)
        if len(failures) > 20:
            self.console.print(Text(f"  failed       and {len(failures) - 20} more", style="bold red"))
        total = len(self.runs)
        if begun < total:
            self.console.print(Text(f"  not trained  {total - begun} of {total} runs", style="bold red"))
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
    """A run of a sweep that is trained by itself: shown as a part of the sweep."""

    def __init__(self, sweep: SweepView, run: int) -> None:
        super().__init__()
        self._sweep, self._run = sweep, run

    def start(
        self, facts: dict[str, str], training: Training, epochs: int, warnings: Sequence[str] = ()
    ) -> None:
        """Warnings only: the sweep has said the rest."""
        for warning in warnings:
            self._sweep.warn(f"{self._sweep.runs[self._run][0]}: {warning}")

    def write(self, measurement: Measurement) -> None:
        """Hand it to the sweep's view."""
        self._sweep.measured(self._run, measurement)

    def end(self, summary: dict[str, Any], folder: Path) -> None:
        """Nothing: the sweep prints the line of a run that ended."""


def show_status(
    rows: Iterable[tuple[str, str, dict[str, Any] | None]], folder: Path, holder: str | None, listed: bool
) -> None:
    """How a run, or every run of a sweep, stands: (name, status, summary) each, where they are `listed`, and
    how many stand how. `holder` writes there now."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("run", "status", "steps", "validation", ""):
        table.add_column(column, justify="right" if column in ("steps", "validation") else "left")
    tally: Counter[str] = Counter()
    for name, status, summary in rows:
        tally[status] += 1
        if listed:
            found = summary or {}
            shown = "running" if holder and status in ("begun", "interrupted") else status
            best = (found.get("best") or {}).get("accuracy/val")
            steps = count(found["steps"]) if "steps" in found else "–"
            table.add_row(line(name), line(shown), steps, percent(best), line(found.get("reason") or ""))
    console = make_console()
    console.print(line(f"ffn-train: {folder}" + (f", in use by {holder}" if holder else ""), "bold"))
    if listed:
        console.print(table)
    console.print(line("  " + ", ".join(f"{count(n)} {status}" for status, n in tally.items())))


def show_leaderboard(
    console: Console, rows: Sequence[dict[str, Any]], keys: Sequence[str], seeds: bool
) -> None:
    """The settings of a sweep, best validation accuracy first, at most 30 of them.

    A row has `settings` (key → value), `runs`, `bad` (how many did not finish), and `val`, `test`, `epoch`,
    `seconds` as (mean, standard deviation or NaN).
    """
    table = Table(
        title="leaderboard by validation accuracy",
        title_justify="left",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    table.add_column("", justify="right")
    for key in keys:
        table.add_column(printable(key))
    ranked = any(math.isfinite(row["val"][0]) for row in rows)
    scored = ranked or any(math.isfinite(row["test"][0]) for row in rows)
    table.add_column("validation" if ranked or not scored else "validation (none)", justify="right")
    table.add_column("test", justify="right")
    table.add_column("epoch", justify="right")
    table.add_column("seconds", justify="right")
    if seeds:
        table.add_column("seeds", justify="right")
    table.add_column("")
    for rank, row in enumerate(rows[:30], start=1):
        cells: list[str | Text] = [str(rank), *(line(row["settings"].get(key, "")) for key in keys)]
        cells += [_spread(row["val"], percent), _spread(row["test"], percent)]
        cells += [_spread(row["epoch"], lambda v: f"{v:.0f}"), _spread(row["seconds"], lambda v: f"{v:.1f}")]
        if seeds:
            cells.append(str(row["runs"]))
        cells.append(line(row["bad"], "bold red"))
        table.add_row(*cells, style="bold" if rank == 1 else None)
    console.print()
    console.print(table)
    if len(rows) > 30:
        console.print(f"  … and {len(rows) - 30} more")
    basis = (
        "validation accuracy at the best epoch" if ranked else "test accuracy at the end (no validation part)"
    )
    note = f"  ranked by {basis}" + ("; mean ± standard deviation over seeds" if seeds else "")
    if not scored:
        note = "  no run has finished yet"
    console.print(Text(note + "; test is read at the same epoch" * ranked, style="dim"))


def show_choices(console: Console, rows: Sequence[tuple[str, str, float, str]], notes: Sequence[str]) -> None:
    """What a search chose: name, setting, mean validation accuracy and what went wrong, a row each."""
    table = Table(
        title="chosen settings", title_justify="left", box=None, header_style="dim", padding=(0, 2, 0, 0)
    )
    for column in ("", "setting", "validation", "of its trials"):
        table.add_column(column, justify="right" if column == "validation" else "left")
    for name, setting, accuracy, bad in rows:
        table.add_row(line(name), line(setting, "bold"), percent(accuracy), line(bad, "yellow"))
    console.print()
    console.print(table)
    for note in notes:
        console.print(line(f"  {note}", "yellow"), soft_wrap=True)
    console.print()


def show_gains(console: Console, rows: Sequence[tuple[str, dict[str, list[float]]]], seeds: int) -> None:
    """Tuned less shipped: by name, the differences of accuracy on `val` and `test`, a number a seed."""
    table = Table(
        title="tuned against shipped",
        title_justify="left",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for column in ("", "validation", "test"):
        table.add_column(column, justify="right" if column else "left")
    for name, differences in rows:
        cells = []
        for part in ("val", "test"):
            values = differences[part]
            if len(values) < seeds:
                cells.append("–")
                continue
            deviation = statistics.stdev(values) if seeds > 1 else math.nan
            spread = f" ± {deviation * 100:.2f}" if math.isfinite(deviation) else ""
            mean = round(statistics.fmean(values) * 100, 2) + 0.0  # no negative zero
            cells.append(f"{mean:+.2f}{spread}")
        table.add_row(line(name), *cells)
    console.print()
    console.print(table)
    note = "  accuracy in percentage points, mean ± standard deviation of the differences of the same seed"
    console.print(Text(note + "; diverged counts as 0", style="dim"), soft_wrap=True)


def _spread(value: tuple[float, float], form: Any) -> str:
    mean, deviation = value
    if not math.isfinite(mean):
        return "–"
    return f"{form(mean)} ± {form(deviation)}" if math.isfinite(deviation) else str(form(mean))


def facts_of(run: TrainConfig, data: Data, device: str, folder: Path) -> dict[str, str]:
    """What is about to run, a line a thing."""
    widths = [data.n_features, *run.model.widths(), len(data.classes)]
    rows = [f"{part} {count(len(getattr(data, part).y))}" for part in ("train", "val", "test")]
    settings = run.optimizer.hyperparameters()
    own = ", ".join(f"{k} {v}" for k, v in settings.items() if k != "lr" and v not in (0.0, False, None))
    schedule = "" if run.schedule.name == "constant" else f", {run.schedule.name} schedule"
    batch = "the full batch" if run.batch_size == "full" else f"batches of {run.batch_size}"
    extra = f", l2 {run.l2:g}" if run.l2 else ""
    parameters = count(count_parameters(widths))
    return {
        "data": f"{data.name}: {data.n_features} features, {len(data.classes)} classes; {' / '.join(rows)}",
        "network": f"{' → '.join(map(str, widths))}, {run.model.activation}; {parameters} parameters",
        "optimizer": f"{run.optimizer.name}, lr {run.lr:g}{schedule}{extra}" + (f" ({own})" if own else ""),
        "budget": f"{run.epochs} epochs, {batch}, seed {run.seed}",
        "device": f"{device}, {run.dtype}",
        "folder": str(folder),
    }
