"""What a person sees of training that their own program has asked for: a bar while it goes on, in a notebook
or on a terminal, and what is wrong with the data as Python's warnings; nothing else is printed."""

from __future__ import annotations

import html
import importlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ffn_bench.command_line.console import count, make_console, training_bar
from ffn_bench.command_line.run_view import RunView
from ffn_bench.command_line.sweep_view import SweepView

if TYPE_CHECKING:
    from ffn_bench.engine.choice import Choice
    from ffn_bench.engine.loop import Run
    from ffn_bench.engine.metrics import Confusion, Measurement

UPDATE_SECONDS = 0.1
"""Between two pictures of a notebook's bar."""


OURS = ("ffn_bench", "hydra_plugins", "contextlib")
"""Beginnings of the names of modules between the program and a warning."""


class DataWarning(UserWarning):
    """What a person should know of their data or their run's folder."""


@contextmanager
def noted() -> Iterator[list[str]]:
    """A list that takes notes, which are warnings at the end, whatever else happens."""
    notes: list[str] = []
    try:
        yield notes
    finally:
        for text in dict.fromkeys(notes):
            _warn(text)


def _warn(text: str) -> None:
    """A warning, where the program that called us stands."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, DataWarning, stacklevel=level)


def is_notebook() -> bool:
    """Whether a notebook's kernel runs this, which shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A bar in the output of a notebook's cell, with the methods of rich's that training uses. It is taken
    away at the end."""

    def __init__(self) -> None:
        self._ipython: Any = importlib.import_module("IPython.display")
        self._handle: Any = None
        self._total, self._due = 1.0, 0.0
        self._shown: dict[str, Any] = {"completed": 0.0, "description": ""}

    def start(self) -> None:
        """Nothing: it is there once there is a task."""

    def add_task(self, description: str, total: float | None, **fields: Any) -> int:
        """Show it."""
        self._total = total or 1.0
        self._handle = self._ipython.display(self._ipython.HTML(self._html()), display_id=True)
        return 0

    def update(self, task: int, **fields: Any) -> None:
        """Take what is new, and show it now and then."""
        self._shown |= fields
        if time.monotonic() >= self._due and self._handle is not None:
            self._due = time.monotonic() + UPDATE_SECONDS
            self._handle.update(self._ipython.HTML(self._html()))

    def stop(self) -> None:
        """Take it away."""
        if self._handle is not None:
            self._handle.update(self._ipython.HTML(""))
            self._handle = None

    def _html(self) -> str:
        shown = self._shown
        rate = f"{count(shown['rate'])} steps/s" if shown.get("rate") else ""
        texts = [str(shown.get(key) or "") for key in ("description", "numbers")]
        text = " · ".join(html.escape(each) for each in (*texts, rate) if each)
        value = min(1.0, float(shown["completed"]) / self._total)
        style = "font-family: monospace; white-space: pre"
        return f'<div style="{style}"><progress value="{value:.4f}" max="1"></progress>  {text}</div>'


class PythonRunView(RunView):
    """A run that a program trains. `progress`: whether it is shown while it goes on. `notes` takes what is to
    be warned of when it has ended: a program may make exceptions of warnings."""

    def __init__(self, progress: bool, notes: list[str]) -> None:
        super().__init__()
        self._wanted, self._notes = progress, notes

    def say(self, text: str) -> None:
        """Nothing: what is true before a run starts is in what is returned."""

    def start(self, facts: dict[str, str], run: Run, epochs: int, notes: Sequence[str] = ()) -> None:
        """Note what is to be warned of, and begin the bar."""
        self._epochs = epochs
        self._notes += [*notes, *run.data.warnings]
        if bar := live_bar(self.console, self._wanted):
            self._progress = bar
            bar.start()
            self._task = bar.add_task("epoch", total=run.steps, numbers="", rate=0.0)

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Bring the bar up to date, if there is one."""
        if self._progress:
            super().write(measurements)

    def end(self, summary: dict[str, Any], folder: Path, confusion: Confusion | None = None) -> None:
        """Take the bar away."""
        self.close()


def live_bar(console: Console, wanted: bool) -> Any:
    """A bar where somebody sees it move; None elsewhere."""
    if not wanted:
        return None
    if is_notebook():
        return NotebookBar()
    return training_bar(console) if console.is_terminal and not console.is_dumb_terminal else None


class PythonSweepView(SweepView):
    """A sweep that a program trains; `progress` and `notes` as for one run."""

    def __init__(self, progress: bool, notes: list[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._wanted, self._notes = progress, notes
        self._shown_on, self.console = make_console(), Console(quiet=True)
        self._lines, self._noted = False, ()

    def start(self, choices: Counter[Choice], processes: int = 0) -> None:
        """Note what is to be warned of."""
        self._notes += self._warnings

    def live(self) -> None:
        """Begin the bar, whose thread must not exist when processes are forked."""
        self._bar = live_bar(self._shown_on, self._wanted)
        if self._bar:
            self._started = time.monotonic()
            self._bar.start()
            self._task = self._bar.add_task("runs", total=self._total, numbers="", rate=0.0)

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Note what is to be warned of."""
        self._notes.append(text)

    def measured(self, run: int, measurements: Sequence[Measurement]) -> None:
        """Bring the bar up to date."""
        super().measured(run, measurements)
        self._update()

    def ended(self, run: int, summary: dict[str, Any]) -> None:
        """Bring the bar up to date."""
        super().ended(run, summary)
        self._update()

    def finish(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _update(self) -> None:
        if self._bar:
            steps, seconds = sum(self._steps), time.monotonic() - self._started
            numbers = f"{count(len(self._ended))}/{count(len(self.runs))} ended"
            self._bar.update(self._task, completed=steps, numbers=numbers, rate=steps / max(seconds, 1e-9))
