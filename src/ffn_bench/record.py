"""What one run leaves in its folder, written as the run goes: identity, metrics, checkpoint, summary."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ffn_bench import checkpoints, config, curvature, errors, figures, metrics, runs, schema, writers
from ffn_bench.data import Data
from ffn_bench.errors import UserError, printable
from ffn_bench.metrics import Measurement

FLUSH_SECONDS = 1.0
"""Time after which what has been measured is on the disk."""

CHECKPOINT_SHARE = 0.01
"""Share of the time that may go into checkpoints, the last one apart."""


class Training(Protocol):
    """A run in training, as a `Record` sees it: an `EagerRun`, or a row of a batched `Tile`."""

    status: str
    """`running`, then `finished` or `diverged`, with its `reason`."""
    reason: str
    step: int
    steps: int
    train_seconds: float

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training part."""

    @property
    def data(self) -> Data:
        """What it trains on."""

    def network(self, x: Tensor, /) -> Tensor:
        """Logits of a mini-batch."""

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The weights now, (W `[n_in, n_out]`, b `[n_out]`) of every layer; the next step may change them."""

    def state(self) -> dict[str, Any]:
        """A complete state: nested dicts and lists of tensors and plain values, with its `step`."""


class Pace:
    """When checkpoints are due: one clock for runs that advance together, so that they can go on together."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._due = time.monotonic() + pause
        self._step, self._granted, self._cost = -1, False, 0.0

    def is_due(self, step: int) -> bool:
        """Whether runs save a checkpoint at this step: all that ask, or none."""
        if step != self._step:
            self._step, self._granted, self._cost = step, time.monotonic() >= self._due, 0.0
        return self._granted

    def took(self, seconds: float) -> None:
        """Note what a checkpoint cost, which decides when the next is due."""
        self._cost += seconds
        wait = self._cost / CHECKPOINT_SHARE if self._pause else 0.0
        self._due = time.monotonic() + max(self._pause, wait)


class Record:
    """The folder of one run in training. `write` every measurement, then `close` once, however it ended.

    `device` says in words what it trains on, and `company` how many runs share that device's time with it.
    Where the folder holds a run that has begun, that run goes on: from `state`, its checkpoint, or without
    one from the start. What was written after the checkpoint is taken back then. The caller holds the
    folder's lock. Raises `UserError` (status 4) where data, versions or device are no longer those it began
    with.
    """

    def __init__(
        self,
        folder: Path,
        run: schema.TrainConfig,
        training: Training,
        device: str,
        company: int = 1,
        state: dict[str, Any] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.folder, self.training, self._run = folder, training, run
        self._epochs: list[Measurement] = []
        self._last: dict[str, float] = {}
        self._pace = pace or Pace(run.checkpoint_seconds)
        self._flush_due = time.monotonic() + FLUSH_SECONDS
        identity = runs.identity(run, device, training.data.sha256)
        if (folder / "run.json").exists():
            runs.check_surroundings(folder, identity)
            runs.remove_remains(folder)
            (folder / "summary.json").unlink(missing_ok=True)
            self._take_back({} if state is None else state["files"])
        else:
            runs.write_json(folder / "run.json", {**identity, "trained_beside": company - 1})
        events = next((name for name in state["files"] if "tfevents" in name), None) if state else None
        self._tensorboard = writers.TensorBoard(folder, events)
        self._log, lines = writers.TextLog(folder), writers.JsonLines(folder)
        self._writers: list[writers.Writer] = [lines, self._tensorboard, self._log]
        self._trajectory = writers.Trajectory(folder) if run.trajectory else None
        if state is None:
            settings = config.flatten(run).items()
            text = "".join(f"    {printable(f'{key}: {value}')}\n" for key, value in settings)
            self._tensorboard.write_text("config", text)
            self._tensorboard.write_hparams(config.result_keys(run), config.superset_of_keys())
            for warning in training.data.warnings:
                self._log.note("WARNING", warning)
        else:
            self._read_back()
            self._log.note("INFO", f"goes on at step {training.step}")
        self._flush()

    def _take_back(self, sizes: dict[str, int]) -> None:
        """Cut every file that only grows to its size in `sizes`, and remove those that are not there."""
        for pattern in ("metrics.jsonl", "events.out.tfevents.*", "train.log", writers.Trajectory.NAME):
            for file in self.folder.glob(pattern):
                if file.name not in sizes:
                    file.unlink()
                    continue
                if file.stat().st_size < sizes[file.name]:
                    raise UserError(
                        str(file),
                        "is shorter than at the last checkpoint",
                        "force=true trains anew in another folder",
                        errors.RUN_FOLDER,
                    )
                os.truncate(file, sizes[file.name])

    def _read_back(self) -> None:
        """Take what has been measured so far from metrics.jsonl."""
        for text in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            place = (line.pop("step"), line.pop("epoch"), line.pop("time") and line.pop("train_seconds"))
            values = {tag: math.nan if value is None else value for tag, value in line.items()}
            measurement = Measurement(*place, values, "accuracy/train" in values)
            self._last |= values
            if measurement.ends_epoch:
                self._epochs.append(measurement)

    def write(self, measurement: Measurement) -> None:
        """Give a measurement to every writer; keep a checkpoint now and then."""
        if measurement.ends_epoch and self.training.status != "diverged":
            measurement = self._looked_at(measurement)
        for writer in self._writers:
            writer.write(measurement)
        # What a run measured before it diverged is not how it ended.
        diverged = self.training.status == "diverged"
        self._last = measurement.values if diverged else self._last | measurement.values
        if measurement.ends_epoch:
            self._epochs.append(measurement)
        if time.monotonic() >= self._flush_due:
            self._flush()
        # Between an epoch's last step and its evaluation there is no place to go on from.
        settled = measurement.ends_epoch or self.training.step % self.training.steps_per_epoch
        if settled and self.training.status == "running" and self._pace.is_due(measurement.step):
            self._save_checkpoint()

    def _looked_at(self, measurement: Measurement) -> Measurement:
        """Keep the weights at an epoch's end and measure the curvature there, where that is asked for."""
        if self._trajectory:
            self._trajectory.keep(measurement.step, self.training.layers())
        every = self._run.log_curvature
        if not every or measurement.epoch % every:
            return measurement
        found = curvature.extremes(self.training.layers(), self.training.data.train, self._run)
        return replace(measurement, values={**measurement.values, **found})

    def interrupt(self) -> dict[str, Any]:
        """Save a checkpoint at this step and close as interrupted."""
        try:
            self._save_checkpoint()
        except OSError as e:
            self._log.note("ERROR", f"no checkpoint could be written: {e}")
        return self.close("interrupted", f"stopped at step {self.training.step}")

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
        acts: list[Callable[[], object]] = [
            lambda: self._log.note("INFO", f"{status} {reason}".rstrip()),
            lambda: self._tensorboard.write_end(finished=status == "finished"),
            *(file.flush for file in self._files()),
            lambda: runs.write_json(self.folder / "summary.json", summary),
        ]
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

    def _files(self) -> list[writers.Appended]:
        """The files that grow with the run."""
        kept = [self._trajectory.file] if self._trajectory else []
        return [*(writer.file for writer in self._writers), *kept]

    def _flush(self, sync: bool = False) -> None:
        for file in self._files():
            file.flush(sync)
        self._flush_due = time.monotonic() + FLUSH_SECONDS

    def _save_checkpoint(self) -> None:
        """Save a complete state and the sizes of the files that grow with it."""
        start = time.monotonic()
        self._flush(sync=True)
        files = {file.path.name: file.size for file in self._files()}
        checkpoints.save(self.folder, {**self.training.state(), "files": files})
        self._pace.took(time.monotonic() - start)

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
