"""What one run leaves in its folder, written as the run goes: identity, metrics, checkpoint, summary."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ffn_bench import errors, tags
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.engine import metrics
from ffn_bench.engine.choice import Choice
from ffn_bench.engine.loop import Run
from ffn_bench.engine.metrics import Measurement
from ffn_bench.errors import UserError, printable
from ffn_bench.model.losses import criterion_of
from ffn_bench.run_folder import best_weights, checkpoints, fitted, folders, pictures, reading, writers
from ffn_bench.run_folder.appended import Appended
from ffn_bench.run_folder.files import Folder, to_json
from ffn_bench.run_folder.identity import REPAIR, identity

FLUSH_SECONDS = 1.0
"""Time after which what has been measured is on the disk."""

CHECKPOINT_TIME_FRACTION = 0.01
"""Share of the time that may go into checkpoints, the last one apart."""


class CheckpointSchedule:
    """When checkpoints are due: one clock for runs that advance together, so that they resume together."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._due = time.monotonic() + pause
        self._step, self._granted, self._cost = -1, False, 0.0

    def is_due(self, step: int) -> bool:
        """Whether runs save a checkpoint at this step: all that ask, or none."""
        if step != self._step:
            self._step, self._granted, self._cost = step, time.monotonic() >= self._due, 0.0
        return self._granted

    def record_cost(self, seconds: float) -> None:
        """Note what a checkpoint cost, which decides when the next is due."""
        self._cost += seconds
        wait = self._cost / CHECKPOINT_TIME_FRACTION if self._pause else 0.0
        self._due = time.monotonic() + max(self._pause, wait)


LARGE = 2**31
"""Bytes of metrics.jsonl at most."""


def _sizes(folder: Folder, state: dict[str, Any], needed: Sequence[str]) -> dict[str, tuple[int, str | None]]:
    """Size and SHA-256 of every file that grows, as a checkpoint has noted them; earlier ones have no hash.

    Names that come from a file are of the few there can be. Raises `UserError` (status 4).
    """

    def bad(what: str) -> UserError:
        todo = "force=true trains again in a new folder"
        return UserError(f"{folder}/checkpoint", what, todo, errors.RUN_FOLDER)

    noted, sizes = state.get("files"), {}
    for name, value in (noted if isinstance(noted, dict) else {}).items():
        if name not in folders.LOGS and not (isinstance(name, str) and writers.EVENTS.fullmatch(name)):
            raise bad(f"names {str(name)[:80]!r}, which is not a file of a run")
        try:
            sizes[name] = checkpoints.noted_size(value)
        except ValueError:
            raise bad(f"gives no size for {name}") from None
        if folder.kind(name) is not None and folder.has_manifest() and not folder.owns_log(name):
            raise bad(f"names {name}, which ffn-bench did not write here")
    if missing := [name for name in needed if name not in sizes]:
        raise bad(f"gives no size for {missing[0]}")
    return sizes


class Record:
    """The folder of one run in training. `write` every measurement, then `close` once, however it ended.

    `choice` is of its engine, `device` says in words what it trains on, with so many
    `threads`; `co_trained_runs` is how many runs
    share that device's time. A run that has started in the folder is resumed: from `state`, its checkpoint,
    or without one from the start. What was written after the checkpoint is discarded then; `notes` says which
    of the folder's files were not as expected. The caller holds the folder's lock. Raises `UserError` (4)
    where data, versions or device are no longer those it began with, and for files that are not what was
    written.
    """

    def __init__(
        self,
        folder: Folder,
        run: Run,
        choice: Choice,
        device: str,
        threads: int,
        co_trained_runs: int = 1,
        state: dict[str, Any] | None = None,
        schedule: CheckpointSchedule | None = None,
    ) -> None:
        self.folder, self.run, self._config, self._threads = folder, run, run.config, threads
        self.notes: list[str] = []
        self._epochs: list[Measurement] = []
        self._last: dict[str, float] = {}
        self._best_written: int | None = None  # the step of the weights in best.safetensors
        self.confusion: metrics.Confusion | None = None
        """Of a run that has finished."""
        self._schedule = schedule or CheckpointSchedule(run.config.checkpoint_seconds)
        self._flush_due = time.monotonic() + FLUSH_SECONDS
        self._log, lines = writers.TextLog(folder), writers.JsonLines(folder)
        self._trajectory = writers.Trajectory(folder) if run.config.trajectory else None
        kept = [lines.file, *([self._trajectory.file] if self._trajectory else [])]

        # First everything is checked, then something is changed.
        folder.check_manifest()
        chance = metrics.chance(run.data, criterion_of(run.config))
        described = identity(run.config, choice, device, threads, run.data.sha256, chance)
        started = reading.read_identity(folder) is not None
        if started:
            reading.check_surroundings(folder, described)
        event_file, resumed = Appended(folder, writers.event_name()), False
        if state is not None:
            sizes = _sizes(folder, state, [file.name for file in kept])
            for file in kept:
                file.resume(*sizes[file.name])
            self._read_back(sizes["metrics.jsonl"][0], run.step)
            if state.get("best") is None:
                run.look_back(self._epochs)
            for name in filter(writers.EVENTS.fullmatch, sizes):
                if folder.kind(name) is None:
                    note = f"{name} is missing: TensorBoard shows the run from step {run.step} on"
                    self.notes.append(note)
                else:
                    event_file, resumed = Appended(folder, name), True
                    event_file.resume(*sizes[name])
        ours = folder.owns_log("train.log") or (started and not folder.has_manifest())
        if ours and folder.kind("train.log") is not None:
            self._log.file.resume()

        folder.remove_temporary_files()
        if started:
            self._retire("summary.json")
            if state is None:
                self._remove_outputs()
            elif run.config.keep == "last":  # one of before would not be brought up to date
                self._retire(best_weights.NAME)
        else:
            further = {"trained_beside": co_trained_runs - 1, "fitted": fitted.to_record(run.data)}
            folder.replace("run.json", to_json({**described, **further}))
        if not ours:
            self._retire("train.log")
        self._tensorboard = writers.TensorBoard(event_file)
        self._files: list[Appended] = [*kept, event_file, self._log.file]
        folder.note_logs(*(file.name for file in self._files))
        self._writers: list[writers.Writer] = [lines, self._tensorboard, self._log]
        if not resumed:
            self._tensorboard.begin()
            settings = schema.flatten(run.config).items()
            text = "".join(f"    {printable(f'{key}: {value}')}\n" for key, value in settings)
            self._tensorboard.write_text("config", text)
            self._tensorboard.write_hparams(
                fingerprint.result_keys(run.config), fingerprint.superset_of_keys()
            )
        for warning in (*self.notes, *(run.data.warnings if state is None else ())):
            self._log.note("WARNING", warning)
        if state is not None:
            self._log.note("INFO", f"resuming from step {run.step}")
        self._flush()

    def _remove_outputs(self) -> None:
        """Remove what a run wrote that has no checkpoint and starts again."""
        for name in self.folder.names():
            events = writers.EVENTS.fullmatch(name) and self.folder.owns_log(name)
            if events or name in ("metrics.jsonl", writers.Trajectory.NAME, best_weights.NAME):
                self._retire(name)

    def _retire(self, name: str) -> None:
        """Make room for a file of ours."""
        grows = name in folders.LOGS or writers.EVENTS.fullmatch(name)
        moved = self.folder.retire_log(name) if grows else self.folder.retire(name)
        if moved is not None:
            self.notes.append(f"{name} was not written by ffn-bench; it was renamed to {moved}")

    def _read_back(self, size: int, until: int) -> None:
        """Take what has been measured so far from the first bytes of metrics.jsonl.

        Raises `UserError` (status 4) where a line of it is damaged.
        """
        content, before = self.folder.read("metrics.jsonl", LARGE) or b"", -1
        for number, text in enumerate(content[:size].splitlines(), 1):
            try:
                line = json.loads(text)
                step, epoch, seconds = (line.pop(key) for key in ("step", "epoch", "train_seconds"))
                del line["time"]
                seconds = float(seconds)
                values = {tag: reading.value_of(tag, value) for tag, value in line.items()}
                epochs = range(self._config.epochs + 1)
                if type(step) is not int or type(epoch) is not int or epoch not in epochs:
                    raise ValueError
                if not before <= step <= until or not 0 <= seconds < math.inf:
                    raise ValueError
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as e:
                where, what = f"{self.folder}/metrics.jsonl", f"line {number} is damaged"
                raise UserError(where, what, REPAIR, errors.RUN_FOLDER) from e
            before = step
            ends_epoch = tags.PRIMARY[self._config.task].tag("train") in values
            measurement = Measurement(step, epoch, seconds, values, ends_epoch)
            self._last |= values
            if measurement.ends_epoch:
                self._epochs.append(measurement)

    def write(self, measurements: Sequence[Measurement]) -> None:
        """Give measurements to every writer, the last of them of now; keep a checkpoint now and then."""
        diverged = self.run.status == "diverged"
        for measurement in measurements:
            if measurement.ends_epoch and not diverged:
                measurement = self._measure_at_epoch_end(measurement)
            for writer in self._writers:
                writer.write(measurement)
            self._last |= measurement.values
            if measurement.ends_epoch:
                self._epochs.append(measurement)
        if diverged:  # what a run measured before is not how it ended
            self._last = measurements[-1].values
        if time.monotonic() >= self._flush_due:
            self._flush()
        if self.run.status == "running" and self._schedule.is_due(self.run.step):
            start = time.monotonic()
            self._save_checkpoint()
            self._write_with_best({})
            self._schedule.record_cost(time.monotonic() - start)

    def _measure_at_epoch_end(self, measurement: Measurement) -> Measurement:
        """Keep the weights at an epoch's end and measure the curvature there, where that is asked for."""
        if self._trajectory:
            self._trajectory.keep(measurement.step, self.run.layers())
        every = self._config.log_curvature
        if not every or measurement.epoch % every:
            return measurement
        from ffn_bench.engine.device import threads
        from ffn_bench.model import hessian

        device = self.run.training.engine.device
        with threads(self._threads):
            curvature = hessian.extremes(self.run.layers(), self.run.data.train, self._config, device)
        return replace(measurement, values={**measurement.values, **curvature})

    def interrupt(self) -> dict[str, Any]:
        """Save a checkpoint at this step and close as interrupted."""
        try:
            self._save_checkpoint()
        except OSError as e:
            self._log.note("ERROR", f"no checkpoint could be written: {e}")
        return self.close("interrupted", f"stopped at step {self.run.step}")

    def close(self, status: str, reason: str) -> dict[str, Any]:
        """Write what ends a run, summary.json last, and return the summary.

        A disk that fails now is reported, unless the run had already failed: then the first fault is
        reported, and what can still be written is.
        """
        best = self._best()
        if best and status == "finished" and self._config.keep == "best" and self.run.best_layers() is None:
            what = f"there is no {best_weights.NAME} of the best epoch, {best['epoch']}"
            self._log.note("WARNING", f"{what}: the run was resumed from a checkpoint without its weights")
        summary = {
            "status": status,
            "reason": reason,
            "epochs": max((m.epoch for m in self._epochs), default=0),
            "steps": self.run.step,
            "train_seconds": self.run.train_seconds,
            "final": self._last,
            "task": self._config.task,
            "monitor": self.run.monitor.tag,
            "best": best,
        }
        # What a failed run has reached since its checkpoint is not trusted.
        write_last = self.folder.replace_all if status == "failed" else self._write_with_best
        acts: list[Callable[[], object]] = [
            lambda: self._log.note("INFO", f"{status} {reason}".rstrip()),
            lambda: self._tensorboard.write_end(finished=status == "finished"),
            *(file.flush for file in self._files),
            lambda: write_last({"summary.json": to_json(summary)}),
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

    def _best(self) -> dict[str, Any] | None:
        """The best epoch with all that was measured at its end; None where nothing was."""
        monitor = self.run.monitor
        if monitor.step is None:
            return None
        known = {} if monitor.tag is None else {monitor.tag: monitor.value}
        measured = next((m.values for m in self._epochs if m.step == monitor.step), known)
        return {"epoch": monitor.epoch, "step": monitor.step, **measured}

    def fail(self, error: Exception) -> dict[str, Any]:
        """Close with what went wrong; the log has all of it."""
        mistake = errors.of_system(error)
        self._log.note("ERROR", "the run failed\n" + "".join(traceback.format_exception(error)).rstrip())
        return self.close("failed", str(mistake) if mistake else f"{type(error).__name__}: {error}")

    def _flush(self, sync: bool = False) -> None:
        for file in self._files:
            file.flush(sync and file is not self._log.file)  # no checkpoint depends on the log's lines
        self._flush_due = time.monotonic() + FLUSH_SECONDS

    def _save_checkpoint(self) -> None:
        """Save a complete state and the sizes of the files that grow with it."""
        self._flush(sync=True)
        files = {file.name: file.state for file in self._files if file is not self._log.file}
        checkpoints.save(self.folder, {**self.run.state(), "files": files})

    def _write_with_best(self, contents: dict[str, bytes]) -> None:
        """Write files, before them best.safetensors where there are better weights than it holds."""
        monitor = self.run.monitor
        layers = self.run.best_layers() if self._config.keep == "best" else None
        if layers is not None and monitor.step is not None and monitor.step != self._best_written:
            best = best_weights.to_bytes(layers, monitor.epoch, monitor.step, monitor.tag, monitor.value)
            contents = {best_weights.NAME: best, **contents}
            self._best_written = monitor.step
        if contents:
            self.folder.replace_all(contents)

    def _write_pictures(self) -> None:
        """The confusion matrix, or predicted against true targets, on the test part where there is one; how
        far its probabilities can be relied on, where that is asked for; the worst mistakes there, where they
        are and it is of pictures."""
        run, data = self.run, self.run.data
        split = next(split for split in ("test", "val", "train") if len(getattr(data, split).y))
        if data.task == "regression":
            true, predicted = metrics.targets_and_predictions(run.network, getattr(data, split), data)
            with pictures.DRAWING:
                picture = pictures.predictions(true, predicted, data.targets, split)
            self._tensorboard.write_image(f"predictions/{split}", picture, run.step)
            return
        counts = metrics.confusion_matrix(run.network, getattr(data, split), len(data.classes))
        self.confusion = metrics.Confusion(counts, data.classes, split)
        with pictures.DRAWING:
            picture = pictures.confusion_matrix(counts, data.classes, split)
        self._tensorboard.write_image(f"confusion matrix/{split}", picture, run.step)
        if self._config.log_scores:
            from ffn_bench.run_folder import score_figures

            predictions = metrics.predictions(run.network, getattr(data, split), run.criterion)
            with pictures.DRAWING:
                drawn = {
                    "reliability": score_figures.reliability(predictions, split),
                    "precision and recall": score_figures.precision_recall(predictions, data.classes, split),
                }
                for name, figure in drawn.items():
                    self._tensorboard.write_image(f"{name}/{split}", score_figures.png(figure), run.step)
        if self._config.log_mistakes and data.image_shape and len(data.test.y):
            worst = metrics.worst_mistakes(run.network, data.test, 18, criterion_of(run.config))
            if len(worst[0]):
                with pictures.DRAWING:
                    picture = pictures.mistakes(data, *worst)
                self._tensorboard.write_image("worst mistakes/test", picture, run.step)
