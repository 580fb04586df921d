"""What a person sees of one run: what it is, how it goes, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ffn_bench import tags
from ffn_bench.command_line.console import count, duration, line, make_console, tensorboard, training_bar
from ffn_bench.command_line.tables import class_table
from ffn_bench.configuration.schema import LOSS_OF_TASK, TrainConfig, count_parameters, default_output
from ffn_bench.errors import short
from ffn_bench.model.losses import Criterion, criterion_of

if TYPE_CHECKING:
    from ffn_bench.data.rows import Data
    from ffn_bench.engine.choice import Choice
    from ffn_bench.engine.loop import Run
    from ffn_bench.engine.metrics import Confusion, Measurement

PLAIN_LINES = 10
"""Lines of progress that a run prints where there is no live bar."""
MOST_TARGETS = 4
"""Targets at most whose names are shown."""


class RunView:
    """Shows one run: what it is, how it goes, how it ended."""

    def __init__(self) -> None:
        self.console = make_console()
        self._progress: Progress | None = None
        self._shown: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print what a person should know before it starts."""
        self.console.print(f"ffn-train: {text}", soft_wrap=True)

    def start(self, facts: dict[str, str], run: Run, epochs: int, warnings: Sequence[str] = ()) -> None:
        """Print warnings and facts, a line each, and begin the bar."""
        self._epochs, steps = epochs, run.steps
        for warning in warnings:
            self.console.print(line(f"  warning    {warning}", "yellow"), soft_wrap=True)
        self.console.print(Text("ffn-train", style="bold"))
        for key, value in facts.items():
            self.console.print(Text.assemble("  ", (f"{key:<10}", "dim"), line(value)), soft_wrap=True)
        for warning in run.data.warnings:
            self.console.print(line(f"  warning    {warning}", "yellow"), soft_wrap=True)
        if run.step:
            self.console.print(f"  resuming from step {count(run.step)} of {count(steps)}")
        self.console.print()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._progress = training_bar(self.console)
            self._progress.start()
            self._task = self._progress.add_task("epoch", total=steps, numbers="", rate=0.0)

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Bring the bar up to date, or print a line at every tenth of the epochs."""
        for measurement in measurements:
            self._shown |= measurement.values
        loss = tags.LOSS.tag("train")
        fields = {tags.LOSS.name: tags.LOSS.text(self._shown[loss])} if loss in self._shown else {}
        primary = tags.primary_in(self._shown)
        held_out = next((s for s in ("val", "test") if primary.tag(s) in self._shown), "train")
        what = held_out if primary.is_percent else f"{held_out} {primary.shown}"
        fields[what] = primary.text(self._shown.get(primary.tag(held_out)))
        numbers = "  ".join(f"{key} {value}" for key, value in fields.items())
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
                epoch = f"epoch {measurement.epoch}/{self._epochs}"
                self.console.print(f"  {epoch:<16} step {measurement.step:<8} {numbers}")

    def close(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def end(self, summary: dict[str, Any], folder: Path, confusion: Confusion | None = None) -> None:
        """Print the table of the classes, where their confusion matrix is given, the closing table, which is
        on the screen then, the run folder and the TensorBoard line."""
        self.close()
        if confusion is not None:
            if not self.console.is_terminal:  # where lines of progress stand before it
                self.console.print()
            self.console.print(class_table(confusion), soft_wrap=True)
            self.console.print()
        final, best = summary["final"], summary["best"]
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
        table.add_column("")
        for split in tags.SPLITS.values():
            table.add_column(split, justify="right")

        def cells(quantity: tags.Quantity, values: dict[str, Any]) -> list[str]:
            return [
                quantity.text(values.get(quantity.tag(split))) if split in quantity.splits else ""
                for split in tags.SPLITS
            ]

        table.add_row(f"  {tags.LOSS.name} (training: of its last steps)", *cells(tags.LOSS, final))
        primary, scores = tags.PRIMARY[summary["task"]], tags.SCORES_OF[summary["task"]]
        for score in scores:
            table.add_row(
                f"  {score.shown}", *cells(score, final), style="bold" if score is primary else None
            )
        if best and (tag := summary["monitor"]):
            epoch = f"epoch {best['epoch']}"
            if (monitored := tags.quantity(tag)).of_split:
                table.add_row(f"  {monitored.shown} at its best, {epoch}", *cells(monitored, best))
                table.add_row(f"  {primary.shown} there", *cells(primary, best))
            else:
                of = f"{primary.shown} " if len(scores) > 1 else ""
                table.add_row(f"  {of}at the best {tags.short_words(tag)}, {epoch}", *cells(primary, best))
        loss = cells(tags.LOSS, final)
        for score in tags.SPLIT_SCORES:
            row = cells(score, final)
            if {*row} - {"", tags.NOT_MEASURED} and row[1:] != loss[1:]:  # the log loss may be the loss
                table.add_row(f"  {score.shown}", *row, style="dim")
        self.console.print(table)
        self.console.print()
        seconds, steps = summary["train_seconds"], summary["steps"]
        rate = f", {count(steps / seconds)} steps/s" if seconds else ""
        status = summary["status"]
        style = "green" if status == "finished" else "bold red"
        outcome = Text.assemble(
            "  ", (status, style), line(f": {summary['reason']}" if summary["reason"] else "")
        )
        outcome.append(f" after {count(steps)} steps in {duration(seconds)} of training{rate}")
        self.console.print(outcome, soft_wrap=True)
        self.console.print()
        self.console.print(Text.assemble("  ", ("run folder   ", "dim"), line(folder)), soft_wrap=True)
        self._tensorboard(folder)

    def _tensorboard(self, folder: Path) -> None:
        self.console.print(Text.assemble("  ", ("curves       ", "dim"), tensorboard(folder)), soft_wrap=True)


IDLE = "; a GPU is idle: device=cuda uses it"


def has_idle_gpu(device: str) -> bool:
    """Whether there is a GPU while a run trains elsewhere, without asking a library that takes seconds."""
    return device.startswith("cpu") and any(Path("/proc/driver/nvidia/gpus").glob("*"))


def _loss_of(run: TrainConfig) -> dict[str, str]:
    """What is minimised, where it is not the task's usual loss."""
    criterion = criterion_of(run)
    usual = LOSS_OF_TASK[run.task]
    if criterion == Criterion(usual, default_output(usual)):
        words = ""
    else:
        output = "" if run.task == "regression" else f" on {criterion.output} outputs"
        smoothing = f", label smoothing {criterion.smoothing:g}" if criterion.smoothing else ""
        words = f"{criterion.loss.replace('_', '-')}{output}{smoothing}"
    weights = run.loss.class_weight
    if weights != "none":
        each = weights if isinstance(weights, str) else ", ".join(f"{k} {v:g}" for k, v in weights.items())
        words = f"{words or criterion.loss.replace('_', '-')}, class weights {each}"
    return {"loss": words} if words else {}


def _monitor_of(run: TrainConfig, data: Data[Any]) -> dict[str, str]:
    """What says which epoch is the best and when the run ends, where that is not as usual."""
    if run.monitor is None and not len(data.val.y):
        return {"best": "the last epoch: there is no validation part"}
    if run.monitored == tags.PRIMARY[run.task].tag("val") and run.patience is None:
        return {}
    by = tags.words(run.monitored)
    delta = f" by more than {run.min_delta:g}" if run.min_delta else ""
    ends = f"; ends after {run.patience} epochs without an improvement{delta}" if run.patience else ""
    on_test = ": its test scores are no longer of unseen data" if run.monitored.endswith("/test") else ""
    return {"best": f"the epoch of the best {by}{on_test}{ends}"}


def counted_targets(targets: Sequence[str]) -> str:
    """How many targets a regression has, and where there are few their names."""
    names = f" ({', '.join(short(name, 24) for name in targets)})" if len(targets) <= MOST_TARGETS else ""
    return f"{len(targets)} target{'s' * (len(targets) > 1)}{names}"


def facts_of(run: TrainConfig, data: Data[Any], choice: Choice, device: str, folder: Path) -> dict[str, str]:
    """What is about to run, a line a thing."""
    features = f"{data.n_features} features"
    if data.encoding is not None:
        features = f"{len(data.encoding.columns)} columns as {data.n_features} features"
    widths = [data.n_features, *run.model.widths(), data.n_outputs]
    what = f"{len(data.classes)} classes" if data.classes else counted_targets(data.targets)
    rows = [f"{split} {count(len(getattr(data, split).y))}" for split in ("train", "val", "test")]
    settings = run.optimizer.hyperparameters()
    own = ", ".join(f"{k} {v}" for k, v in settings.items() if k != "lr" and v not in (0.0, False, None))
    schedule = "" if run.schedule.name == "constant" else f", {run.schedule.name} schedule"
    batch = "the full batch" if run.batch_size == "full" else f"batches of {run.batch_size}"
    extra = "".join(f", {name} {value:g}" for name, value in (("l2", run.l2), ("l1", run.l1)) if value)
    parameters = count(count_parameters(widths))
    idle = IDLE if run.device == "auto" and has_idle_gpu(device) else ""
    return {
        "data": f"{data.name}: {features}, {what}; {' / '.join(rows)}",
        "network": f"{' → '.join(map(str, widths))}, {run.model.activation}; {parameters} parameters",
        "optimizer": f"{run.optimizer.name}, lr {run.lr:g}{schedule}{extra}" + (f" ({own})" if own else ""),
        "budget": f"{run.epochs} epochs, {batch}, seed {run.seed}",
        **_loss_of(run),
        **_monitor_of(run, data),
        "engine": choice.engine + (f": {choice.reason}" if choice.reason else ""),
        "device": f"{device}, {run.dtype}{idle}",
        "folder": str(folder),
    }
