"""What one run leaves in its folder, written as the run goes: identity, metrics, checkpoint, summary."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ffn_bench import config, errors, figures, metrics, runs, schema, writers
from ffn_bench.data import Data
from ffn_bench.metrics import Measurement

FLUSH_SECONDS = 1.0
"""Time after which what has been measured is on the disk."""

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a run that goes on."""

CHECKPOINT_SHARE = 0.02
"""Share of the time that may go into checkpoints."""


class Training(Protocol):
    """A run in training, as a `Record` sees it: an `EagerRun`, or a row of a batched `Tile`."""

    status: str
    """`running`, then `finished` or `diverged`, with its `reason`."""
    reason: str
    step: int
    steps: int
    train_seconds: float

    @property
    def data(self) -> Data:
        """What it trains on."""

    def network(self, x: Tensor, /) -> Tensor:
        """Logits of a mini-batch."""

    def state(self) -> dict[str, Any]:
        """A complete state: nested dicts and lists of tensors and plain values, with its `step`."""


class Record:
    """The folder of one run in training. `write` every measurement, then `close` once, however it ended.

    `device` says in words what it trains on, and `company` how many runs share that device's time with it.
    """

    def __init__(
        self, folder: Path, run: schema.TrainConfig, training: Training, device: str, company: int = 1
    ) -> None:
        self.folder, self.training = folder, training
        self._epochs: list[Measurement] = []
        self._last: dict[str, float] = {}
        self._company = company
        self._checkpoint_due = self._flush_due = float("-inf")
        identity = runs.identity(run, device, training.data.sha256)
        runs.write_json(folder / "run.json", {**identity, "trained_beside": company - 1})
        self._tensorboard, self._log = writers.TensorBoard(folder), writers.TextLog(folder)
        settings = config.flatten(run).items()
        self._tensorboard.write_text("config", "".join(f"    {key}: {value}\n" for key, value in settings))
        self._tensorboard.write_hparams(config.result_keys(run), config.superset_of_keys())
        self._writers: list[writers.Writer] = [writers.JsonLines(folder), self._tensorboard, self._log]
        for warning in training.data.warnings:
            self._log.note("WARNING", warning)
        self._flush()

    def write(self, measurement: Measurement) -> None:
        """Give a measurement to every writer; keep a checkpoint where an epoch ended."""
        for writer in self._writers:
            writer.write(measurement)
        # What a run measured before it diverged is not how it ended.
        diverged = self.training.status == "diverged"
        self._last = measurement.values if diverged else self._last | measurement.values
        now = time.monotonic()
        if now >= self._flush_due:
            self._flush()
        if measurement.ends_epoch:
            self._epochs.append(measurement)
            if now >= self._checkpoint_due and self.training.status == "running":
                self._save_checkpoint()

    def close(self, status: str, reason: str) -> dict[str, Any]:
        """Write what ends a run, summary.json last, and return the summary.

        A disk that fails now is told, unless the run ended badly already: then the first fault is the one
        to tell, and what can still be written is.
        """
        summary = {
            "status": status,
            "reason": reason,
            "epochs": max((m.epoch for m in self._epochs), default=0),
            "steps": self.training.step,
            "train_seconds": self.training.train_seconds,
            "final": self._last,
            "best": metrics.best_of(self._epochs),
        }
        self._log.note("INFO", f"{status} {reason}".rstrip())
        self._tensorboard.write_end(finished=status == "finished")
        acts = [writer.flush for writer in self._writers]
        acts.append(lambda: runs.write_json(self.folder / "summary.json", summary))
        if status == "finished":
            acts = [self._save_checkpoint, self._write_pictures, *acts]
        for act in acts:
            try:
                act()
            except OSError:
                if status not in ("failed", "interrupted"):
                    raise
        return summary

    def fail(self, error: Exception) -> dict[str, Any]:
        """Close with what went wrong; the log has all of it."""
        mistake = errors.explain(error)
        self._log.note("ERROR", "the run failed\n" + "".join(traceback.format_exception(error)).rstrip())
        return self.close("failed", str(mistake) if mistake else f"{type(error).__name__}: {error}")

    def _flush(self) -> None:
        for writer in self._writers:
            writer.flush()
        self._flush_due = time.monotonic() + FLUSH_SECONDS

    def _save_checkpoint(self) -> None:
        """Save a complete state. What it costs decides when the next one is due."""
        start = time.monotonic()
        runs.save_checkpoint(self.folder, self.training.state())
        now = time.monotonic()
        wait = (now - start) * self._company / CHECKPOINT_SHARE
        self._checkpoint_due = now + max(CHECKPOINT_SECONDS, wait)

    def _write_pictures(self) -> None:
        """The confusion matrix, on the test part where there is one; of pictures also the worst mistakes."""
        training, data = self.training, self.training.data
        part = next(part for part in ("test", "val", "train") if len(getattr(data, part).y))
        counts = metrics.confusion_matrix(training.network, getattr(data, part), len(data.classes))
        with figures.DRAWING:
            picture = figures.confusion_matrix(counts, data.classes, part)
        self._tensorboard.write_image(f"confusion matrix/{part}", picture, training.step)
        if data.image_shape and len(data.test.y):
            found = metrics.worst_mistakes(training.network, data.test, 18)
            if len(found[0]):
                with figures.DRAWING:
                    picture = figures.mistakes(data, *found)
                self._tensorboard.write_image("worst mistakes/test", picture, training.step)
