"""The training loop, for every engine: mini-batches, log points, evaluation, divergence, ends, signals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ffn_bench import tags
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.batches import batch_rows, epoch_order, steps_per_epoch
from ffn_bench.data.rows import Data
from ffn_bench.engine import checkpoint_state, metrics
from ffn_bench.engine.metrics import Measurement, by_tag, log_point, mean
from ffn_bench.engine.monitor import Monitor
from ffn_bench.engine.protocol import Advanced, Array, Engine, Layers, Numbers, Order
from ffn_bench.engine.stop import Stop
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.layers import by_names, from_names
from ffn_bench.model.losses import criterion_of
from ffn_bench.optimizers.schedules import build_schedule

SECONDS = 0.1
"""Of steps between two looks at signals, about."""


class Run:
    """One run in training: what it is and how far it is.

    Raises `UserError` where its configuration names a monitor that its data cannot serve.
    """

    def __init__(self, config: TrainConfig, data: Data[Numbers]) -> None:
        self.config, self.data = config, data
        self.monitor = Monitor(config, data.splits)
        self.criterion = criterion_of(config)
        self._remembered: int | None = None
        """The step at which the engine's copy of its weights was taken."""
        self.steps_per_epoch = steps_per_epoch(len(data.train.y), config.batch_size, config.drop_last)
        self.steps = config.epochs * self.steps_per_epoch
        self._schedule = build_schedule(config.schedule, self.steps, self.steps_per_epoch)
        self.status, self.reason = "running", ""
        """Then `finished` or `diverged`, and why: which loss, which step."""
        self.step = self.epoch = 0
        self.train_seconds = 0.0
        """Of updates, without evaluation and whatever is done between measurements; a share of them where
        several runs train side by side."""
        self.training: Training
        """Set when it becomes part of one, with its `column` there among the runs that have not ended."""
        self.column = 0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.config.lr * self._schedule(step)

    def rates(self, steps: range) -> Array:
        """The learning rates of some steps."""
        if self.config.schedule.name == "constant":
            return np.full(len(steps), self.rate(0))
        return np.array([self.rate(step) for step in steps])

    def network(self, x: Numbers) -> Numbers:
        """Logits `[b, n_classes]` of a mini-batch `[b, n_features]`."""
        return self.training.engine.logits(self.column, x)

    def split_scores(self, quantities: Iterable[tags.Quantity]) -> dict[str, float]:
        """Some of `tags.SPLIT_SCORES` by tag, of the weights now."""
        return metrics.split_scores(self.network, self.data, quantities, self.criterion)

    def layers(self) -> Layers:
        """The weights now: (W `[n_in, n_out]`, b `[n_out]`) of every layer; the next step may change them."""
        return self.training.engine.layers(self.column)

    def best_layers(self) -> Layers | None:
        """The weights of the best epoch; None where they were not kept."""
        if self.monitor.step == self.step:
            return self.layers()
        known = self.monitor.step is not None and self.monitor.step == self._remembered
        return self.training.engine.remembered(self.column) if known else None

    def see(self, values: dict[str, float]) -> bool:
        """Take what is measured at an epoch's end; whether the engine is to remember the weights of now."""
        if not self.monitor.see(self.epoch, self.step, values) or self.config.keep == "last":
            return False
        self._remembered = self.step
        return True

    def look_back(self, epochs: Sequence[Measurement]) -> None:
        """Take what was measured before a checkpoint that does not tell the best epoch, as of an earlier
        release. The weights of that epoch are known where they are those of now."""
        for measurement in epochs:
            if self.monitor.tag is None or math.isfinite(measurement.values.get(self.monitor.tag, math.nan)):
                self.monitor.see(measurement.epoch, measurement.step, measurement.values)
        if self.monitor.step == self.step and self.config.keep == "best":
            self.training.engine.remember([self.column])
            self._remembered = self.step

    def state(self) -> dict[str, Any]:
        """A complete state: the progress of the run, the network's arrays, the optimizer's, the best epoch
        with its weights, unless these are the network's."""
        progress = {"epoch": self.epoch, "step": self.step, "train_seconds": self.train_seconds}
        window = self.training.window(self)
        engine = self.training.engine
        layers = None if self.monitor.step == self.step else self.best_layers()
        best = self.monitor.state()
        if best is not None:
            best["network"] = layers and by_names(layers)
        return {
            "engine": engine.name,
            **progress,
            **engine.state(self.column),
            "window": window,
            "best": best,
        }

    def check(self, state: dict[str, Any]) -> None:
        """Raise `UserError` unless a state is what `state` would give at some step of this run."""
        try:
            self._check(state)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError("checkpoint", f"does not match this run: {e}", "", RUN_FOLDER) from e

    def _check(self, state: dict[str, Any]) -> None:
        engine = self.training.engine
        if state["engine"] != engine.name:
            raise ValueError(f"it is from the {state['engine']} engine")
        checkpoint_state.check_progress(state, self.steps, self.steps_per_epoch)
        like = {**self.state(), **engine.state_like(self.column, state["step"])}
        like |= {key: state[key] for key in checkpoint_state.PROGRESS}
        like["window"] = np.empty((self.waiting(state["step"]), 2))
        like["best"] = None
        if (best := state.get("best")) is not None:
            known = self.monitor.state_like(state["epoch"], self.steps_per_epoch)
            own = isinstance(best, dict) and best.get("network") is not None
            like["best"] = {**known, "network": like["network"] if own else None}
        elif "best" not in state:  # of an earlier release
            del like["best"]
        checkpoint_state.check({key: value for key, value in state.items() if key != "files"}, like)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, which the engine has already."""
        self.step, self.epoch, self.train_seconds = (state[key] for key in checkpoint_state.PROGRESS)
        if (best := state.get("best")) is not None:
            self.monitor.resume(best)
            named = state["network"] if self.monitor.step == self.step else best["network"]
            if named is not None and self.config.keep == "best":
                self.training.engine.recall(self.column, from_names(named))
                self._remembered = self.monitor.step
        if self.step % self.steps_per_epoch == 0:
            self.end_if_due()

    def end_if_due(self) -> None:
        """At an epoch's end: finish after the last one, or where the best one is too long ago."""
        reason = "" if self.step == self.steps else self.monitor.why_stop(self.epoch)
        if reason or self.step == self.steps:
            self.status, self.reason = "finished", reason

    def waiting(self, step: int) -> int:
        """Steps whose losses wait for the next log point, after so many steps."""
        return 0 if step == self.steps else step % self.config.log_every


class Training:
    """Runs that train side by side in one engine. Iterate over `measurements`; states are complete then.

    They have the same data, batch size and `log_every`, and are in the order of the engine's.
    """

    def __init__(self, engine: Engine, runs: Sequence[Run]) -> None:
        first = runs[0]
        n, b = len(first.data.train.y), first.config.batch_size
        self.engine, self.runs, self.stop = engine, runs, Stop()
        self._training_rows, self._full_batch = n, batch_rows(n, b) == n
        self._splits, self._task = first.data.splits, first.data.task
        self._steps_per_epoch, self._log_every = first.steps_per_epoch, first.config.log_every
        self._used_rows = min(n, self._steps_per_epoch * batch_rows(n, b))  # less with drop_last
        self._columns = [*runs]
        for column, run in enumerate(runs):
            run.training, run.column = self, column
        self._window = np.empty((0, 2, len(runs)))  # losses since the last log point
        self._resumed = False
        self._seconds_per_step = math.inf

    def window(self, run: Run) -> Array:
        """Losses and objectives of a run's steps since the last log point: float64 `[steps, 2]`."""
        return self._window[: run.waiting(run.step), :, run.column].copy()

    def resume(self, states: Sequence[dict[str, Any]]) -> None:
        """Let every run resume from what its `state` gave, all of them taken at the same step.

        Raises `UserError` for a state that does not belong to its run.
        """
        for run, state in zip(self.runs, states, strict=True):
            run.check(state)
        step = states[0]["step"]
        assert all(state["step"] == step for state in states)
        try:
            self.engine.resume(states, step)
        except (RuntimeError, ValueError, KeyError, TypeError) as e:
            what = f"does not match this run: {str(e).splitlines()[0]}"
            raise UserError("checkpoint", what, "", RUN_FOLDER) from e
        self._resumed = True
        self._window = np.zeros((step % self._log_every, 2, len(states)))
        for run, state in zip(self.runs, states, strict=True):
            run.resume(state)
            self._window[: len(state["window"]), :, run.column] = state["window"]

    # --- the loop ---------------------------------------------------------------------------------------

    def measurements(self) -> Iterator[dict[Run, list[Measurement]]]:
        """Train, and yield what is measured: before the first update, at log points, after each epoch.

        A run that has ended, or whose status is changed, is trained no more. Ends early, between two steps,
        where a `stop` is requested.
        """
        if not self._resumed:
            yield self._evaluate()
        while self._keep_running() and not self.stop.requested:
            yield from self._epoch()

    def _epoch(self) -> Iterator[dict[Run, list[Measurement]]]:
        """An epoch, or what is left of it, with the evaluation at its end."""
        step = self.engine.step
        done, epoch = step % self._steps_per_epoch, step // self._steps_per_epoch + 1
        for run in self._columns:
            run.epoch = epoch
        self.engine.begin_epoch(self._orders(epoch), done)
        while done < self._steps_per_epoch:
            measured = self._advance(self._steps_per_epoch - done)
            done = (self.engine.step - 1) % self._steps_per_epoch + 1
            if done == self._steps_per_epoch and self._going():
                for run, values in self._evaluate().items():
                    measured.setdefault(run, []).extend(values)
            if measured:
                yield measured
            if not self._keep_running() or self.stop.requested:
                return

    def _orders(self, epoch: int) -> list[Order] | None:
        """The order in which each run visits the training rows."""
        if self._full_batch:
            return None
        n, used = self._training_rows, self._used_rows
        return [epoch_order(n, run.config.seed_of("order"), epoch)[:used] for run in self._columns]

    def _going(self) -> list[Run]:
        return [run for run in self._columns if run.status == "running"]

    def _keep_running(self) -> bool:
        """Go on with the runs that have not ended, if there are any."""
        going = self._going()
        if going and len(going) < len(self._columns):
            columns = [run.column for run in going]
            self.engine.keep(columns)
            self._window = self._window[:, :, columns]
            for column, run in enumerate(going):
                run.column = column
            self._columns = going
        return bool(going)

    def _advance(self, left: int) -> dict[Run, list[Measurement]]:
        """Some of the `left` steps of the epoch, for about `SECONDS`, and what is measured of them."""
        first = self.engine.step
        count = max(1, min(left, int(SECONDS / self._seconds_per_step)))
        ends = any(run.steps == first + count for run in self._columns)
        start = time.perf_counter()
        advanced = self.engine.advance(count, self._log_every, log_last=ends)
        seconds, steps = time.perf_counter() - start, self.engine.step - first
        self._seconds_per_step = max(seconds / steps, 1e-9)
        measured = {}
        losses = np.concatenate([self._window, advanced.losses])
        for run in self._columns:
            if points := self._log_points(run, losses, advanced, seconds / len(self._columns)):
                measured[run] = points
        self._window = losses[len(losses) - self.engine.step % self._log_every :]
        return measured

    def _log_points(self, run: Run, losses: Array, advanced: Advanced, seconds: float) -> list[Measurement]:
        """A run's log points among the steps made, whose losses are the last of `losses`; the run's share of
        the time they took was `seconds`."""
        made, before = len(advanced.losses), run.train_seconds
        first, waiting = self.engine.step - made, len(losses) - made
        bad = np.flatnonzero(~np.isfinite(advanced.losses[:, 1, run.column]))
        last = int(bad[0]) if len(bad) else made - 1
        at = list(range((-first - 1) % self._log_every, last + 1, self._log_every))
        if (len(bad) or first + made == run.steps) and (not at or at[-1] != last):
            at.append(last)
        by_step, objectives = losses[:, :, run.column].T.tolist()
        norms = advanced.norms[at, :, run.column].tolist()
        points, begin = [], 0
        for k, (grad_norm, weight_norm, change, norm_before) in zip(at, norms, strict=True):
            end = waiting + k + 1
            values = log_point(
                loss=mean(by_step[begin:end]),
                objective=mean(objectives[begin:end]),
                lr=run.rate(first + k),
                grad_norm=grad_norm,
                weight_norm=weight_norm,
                change=change,
                norm_before=norm_before,
            )
            begin = end
            points.append(Measurement(first + k + 1, run.epoch, before + seconds * (k + 1) / made, values))
        run.step, run.train_seconds = self.engine.step, before + seconds
        if len(bad):
            value = float(advanced.losses[last, 1, run.column])
            run.step = first + last + 1
            self._diverge(run, f"{tags.OBJECTIVE.tag('train')} is {value} at step {run.step}")
        return points

    def _evaluate(self) -> dict[Run, list[Measurement]]:
        """What is measured at the end of an epoch, and before the first."""
        by_run: list[dict[str, float]] = [{} for _ in self._columns]
        for split in self._splits:
            for values, means in zip(by_run, self.engine.evaluate(split), strict=True):
                values |= by_tag(split, means, self._task)
        measured, best = {}, []
        for run, values in zip(self._columns, by_run, strict=True):
            if run.status != "running":
                continue
            bad = next((tag for tag, value in values.items() if not math.isfinite(value)), None)
            if bad is not None:
                self._diverge(run, f"{bad} is {values[bad]} after step {run.step}")
            else:
                watched = tags.quantity(run.monitor.tag or "")
                if watched.of_split:
                    values |= run.split_scores([watched])
                if run.see(values):
                    best.append(run.column)
                run.end_if_due()
                if run.status == "finished":
                    values |= run.split_scores(tags.SPLIT_SCORES)
            measured[run] = [Measurement(run.step, run.epoch, run.train_seconds, values, ends_epoch=True)]
        if best:
            self.engine.remember(best)
        return measured

    @staticmethod
    def _diverge(run: Run, reason: str) -> None:
        run.status, run.reason = "diverged", f"{reason} (epoch {run.epoch})"
