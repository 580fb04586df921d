"""What one run leaves in its folder, written as the run goes: identity, metrics, checkpoint, summary."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from ffn_bench import config, figures, metrics, runs, schema, writers
from ffn_bench.eager import EagerRun
from ffn_bench.metrics import Measurement

log = logging.getLogger("ffn_bench")

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a run that goes on."""


class Record:
    """The folder of one run in training. `write` every measurement, then `close` once, however it ended."""

    def __init__(self, folder: Path, run: schema.TrainConfig, engine: EagerRun, device: str) -> None:
        self.folder, self.engine = folder, engine
        self._epochs: list[Measurement] = []
        self._last: dict[str, float] = {}
        self._checkpoints = Checkpoints(folder, engine)
        runs.write_json(folder / "run.json", runs.identity(run, device, engine.data.sha256))
        self._tensorboard = writers.TensorBoard(folder)
        settings = config.flatten(run).items()
        self._tensorboard.write_text("config", "".join(f"    {key}: {value}\n" for key, value in settings))
        self._tensorboard.write_hparams(config.result_keys(run), config.superset_of_keys())
        self._writers: list[writers.Writer] = [writers.JsonLines(folder), self._tensorboard]
        for warning in engine.data.warnings:
            log.warning(warning)

    def write(self, measurement: Measurement) -> None:
        """Give a measurement to every writer; keep a checkpoint where an epoch ended."""
        for writer in self._writers:
            writer.write(measurement)
        # What a run measured before it diverged is not how it ended.
        diverged = self.engine.status == "diverged"
        self._last = measurement.values if diverged else self._last | measurement.values
        if measurement.ends_epoch:
            self._epochs.append(measurement)
            values = " ".join(f"{tag} {value:.6g}" for tag, value in measurement.values.items())
            log.info("epoch %d step %d %s", measurement.epoch, measurement.step, values)
            self._checkpoints.at_epoch_end()

    def close(self, status: str, reason: str) -> dict[str, Any]:
        """Write what ends a run, summary.json last, and return the summary.

        A disk that fails now is told, unless the run ended badly already: then the first fault is the one
        to tell, and what can still be written is.
        """
        summary = {
            "status": status,
            "reason": reason,
            "epochs": max((m.epoch for m in self._epochs), default=0),
            "steps": self.engine.step,
            "train_seconds": self.engine.train_seconds,
            "final": self._last,
            "best": metrics.best_of(self._epochs),
        }
        acts = [writer.close for writer in self._writers]
        acts.append(lambda: runs.write_json(self.folder / "summary.json", summary))
        if status == "finished":
            acts = [self._checkpoints.save, self._write_pictures, *acts]
        acts.insert(0, lambda: self._tensorboard.write_end(finished=status == "finished"))
        for act in acts:
            try:
                act()
            except OSError:
                if status not in ("failed", "interrupted"):
                    raise
        log.info("%s %s", status, reason)
        return summary

    def _write_pictures(self) -> None:
        """The confusion matrix, on the test part where there is one; of pictures also the worst mistakes."""
        engine, data = self.engine, self.engine.data
        part = next(part for part in ("test", "val", "train") if len(getattr(data, part).y))
        counts = metrics.confusion_matrix(engine.network, getattr(data, part), len(data.classes))
        picture = figures.confusion_matrix(counts, data.classes, part)
        self._tensorboard.write_image(f"confusion matrix/{part}", picture, engine.step)
        if data.image_shape and len(data.test.y):
            rows, predicted, losses = metrics.worst_mistakes(engine.network, data.test, 18)
            if len(rows):
                picture = figures.mistakes(data, rows, predicted, losses)
                self._tensorboard.write_image("worst mistakes/test", picture, engine.step)


class Checkpoints:
    """Keeps the last complete state of a run: after an epoch, but at most every few seconds."""

    def __init__(self, folder: Path, engine: EagerRun) -> None:
        self.folder, self.engine = folder, engine
        self._saved_at = float("-inf")

    def at_epoch_end(self) -> None:
        """Save, unless that was done a moment ago or the run has just diverged."""
        if self.engine.status != "diverged" and time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self.save()
            self._saved_at = time.monotonic()

    def save(self) -> None:
        """Save the network, the optimizer's state and the place in the run."""
        tensors: dict[str, Any] = {f"network/{k}": v for k, v in self.engine.network.state_dict().items()}
        optimizer = runs.pack(self.engine.optimizer.state_dict(), tensors, "optimizer")
        place = {
            "epoch": self.engine.epoch,
            "step": self.engine.step,
            "train_seconds": self.engine.train_seconds,
        }
        runs.save_checkpoint(self.folder, tensors, {**place, "optimizer": optimizer})
