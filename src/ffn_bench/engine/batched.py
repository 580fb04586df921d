"""The batched engine: the training loop with a leading run axis; many runs advance in one tensor program.

A `Tile` trains runs that share data, layer widths, activation, batch size and dtype. Everything that tells
them apart (weights, data order, learning rate and its schedule, optimizer, λ) is a row of a tensor. All
parameters are one buffer `[runs, P]`, of which each layer's W `[runs, n_in, n_out]` and b are views; forward
and backward are the lecture's equations on these (the legible version is `backprop.by_hand`), and the update
rules work on rows (`inplace`).

Activations are kept transposed, `[runs, features, b]`: a product whose last dimension is the batch, a
multiple of 32, takes half the time of one that is 10 or 15 wide. A batch is filled up to such a multiple with
rows that weigh nothing, so every element has its place in a vector register whatever the other runs are, and
a run's bits do not depend on its company.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench import tags
from ffn_bench.configuration.schema import TorchOptimizerConfig, TrainConfig, count_parameters
from ffn_bench.configuration.validation import FULL_BATCH_ONLY
from ffn_bench.data.splitting import Data, Split, epoch_order
from ffn_bench.engine import checkpoint_state
from ffn_bench.engine.device import SMALL_STEP, THREADS, multiply_adds
from ffn_bench.engine.inplace import InPlace, first_state, in_place
from ffn_bench.engine.metrics import Measurement, by_name, by_tag, log_point
from ffn_bench.engine.stop import Stop
from ffn_bench.engine.torch_engine import steps_per_epoch
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.network import FFN, forward
from ffn_bench.optimizers import registry, schedules
from ffn_bench.optimizers.rule_forms import State

ALIGNED = 32
"""Batches are filled up to a multiple of this: two AVX-512 registers of float32, what PyTorch's loops take.
"""

COEFFICIENT_STEPS = 256
"""Steps for which coefficients (learning rates, bias corrections) are computed at once."""

EVALUATED_ROWS = {True: 256, False: 8192}
"""Rows evaluated at once on a CPU, where activations should stay in the cache, and elsewhere."""

FETCHED = 512
"""Steps whose batches are laid out at once."""


def reason_not_batchable(run: TrainConfig) -> str | None:
    """Why a run cannot be trained in the batched engine, or None where it can."""
    name = run.optimizer.name
    if isinstance(run.optimizer, TorchOptimizerConfig):
        return f"optimizer=torch is torch.optim's {name}, which trains one network"
    if name in FULL_BATCH_ONLY and name != "gd":
        return f"{name} looks at the loss several times a step"
    return registry.sequential_reason(run.optimizer, run.model.widths())


def group_key(run: TrainConfig) -> tuple[Any, ...]:
    """Runs with equal keys can share a tile."""
    model = (tuple(run.model.widths()), run.model.activation)
    loop = (run.batch_size, run.drop_last, run.log_every, run.dtype, run.device, run.compile)
    return repr(run.data), *model, *loop


def bytes_of_a_run(widths: Sequence[int], batch_size: int, dtype: torch.dtype) -> int:
    """Memory that one row's steps touch: parameters, gradient, two moments, scratch, and activations."""
    b = _aligned(batch_size)
    return dtype.itemsize * (5 * count_parameters(list(widths)) + b * (widths[0] + 3 * sum(widths[1:])))


def _aligned(n: int) -> int:
    return -(-n // ALIGNED) * ALIGNED


@dataclass
class BatchRow:
    """One run of a tile: what it is and how it goes. A `Record` takes it as it takes an `EagerRun`."""

    run: TrainConfig
    tile: Tile
    index: int
    """Its current row in the tile's tensors; rows that have ended may leave the tile."""
    schedule: schedules.Schedule
    steps: int
    status: str = "running"
    reason: str = ""
    step: int = 0
    epoch: int = 0
    train_seconds: float = 0.0
    """This row's share: the tile's seconds of updates over the rows that were in training."""
    before: float = 0.0
    """Of those, the seconds before the checkpoint it was resumed from."""

    @property
    def data(self) -> Data:
        """What it trains on."""
        return self.tile.data

    def network(self, x: Tensor) -> Tensor:
        """Logits `[b, n_classes]` of a mini-batch `[b, n_features]`."""
        return self.tile.logits(self.index, x)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The weights now: (W `[n_in, n_out]`, b `[n_out]`) of every layer."""
        return self.tile.layers(self.index)

    @property
    def steps_per_epoch(self) -> int:
        """Of its tile."""
        return self.tile.steps_per_epoch

    @property
    def stop(self) -> Stop:
        """Its tile's."""
        return self.tile.stop

    @stop.setter
    def stop(self, stop: Stop) -> None:
        self.tile.stop = stop

    def state(self) -> dict[str, Any]:
        """A complete state: the progress of the run, the network's tensors, the optimizer's."""
        self.step, self.train_seconds = self.tile.step, self.before + self.tile.share
        progress = {"epoch": self.epoch, "step": self.step, "train_seconds": self.train_seconds}
        return {"engine": "batched", **progress, **self.tile.tensors(self.index)}

    def resume(self, state: dict[str, Any]) -> None:
        """Resume from what `state` gave, where it is the tile's only row."""
        self.tile.resume([state])

    def check(self, state: dict[str, Any]) -> None:
        """Raise `UserError` unless a state is what `state` would give at some step of this run."""
        try:
            if state["engine"] != "batched":
                raise ValueError(f"it is from the {state['engine']} engine")
            checkpoint_state.check_progress(state, self.steps, self.steps_per_epoch)
            like = {**self.state(), **{key: state[key] for key in checkpoint_state.PROGRESS}}
            waiting = state["step"] % self.tile.log_every
            like["window"] = like["window"].new_empty(waiting, 2)
            checkpoint_state.check({key: value for key, value in state.items() if key != "files"}, like)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError("checkpoint", f"does not match this run: {e}", "", RUN_FOLDER) from e

    def measurements(self) -> Iterator[Measurement]:
        """Train it, where it is the tile's only row."""
        for measured in self.tile.measurements():
            yield from (measurement for _, measurement in measured)

    def diverge(self, reason: str) -> None:
        """End it; the other rows continue."""
        self.status, self.reason = "diverged", f"{reason} (epoch {self.epoch})"


@dataclass
class Segment:
    """Rows of a tile that lie side by side and share an update rule."""

    rows: list[BatchRow]
    rule: InPlace
    hyper: dict[str, Any]
    """Numbers, and float64 columns `[rows, 1]` of those in which the rows differ."""
    state: State
    θ: Tensor
    g: Tensor
    spare: Tensor
    c: dict[str, Any] = field(default_factory=dict)
    """This step's coefficients: numbers, and views of `now`."""
    now: Tensor | None = None
    """Those that are no constants, `[coefficients, rows, 1]`, always in the same memory."""
    ahead: Tensor | None = None
    """Those of the steps ahead, `[steps, coefficients, rows, 1]`."""

    def look_ahead(self, steps: range, device: torch.device, dtype: torch.dtype) -> None:
        """Compute the coefficients of the steps `steps`, counted from 0."""
        lr: Any = self.hyper["lr"]
        if any(row.run.schedule.name != "constant" for row in self.rows):
            lr = lr * np.array([[[row.schedule(t)] for row in self.rows] for t in steps])
        t = np.array(steps, dtype=np.float64)[:, None, None] + 1
        coefficients = self.rule.coefficients({**self.hyper, "lr": lr}, t)
        names = [name for name, value in coefficients.items() if isinstance(value, np.ndarray)]
        if not names:
            self.c = coefficients
            return
        shape = (len(steps), len(self.rows), 1)
        columns = np.stack([np.broadcast_to(coefficients[name], shape) for name in names], 1)
        self.ahead = torch.from_numpy(columns).to(device, dtype)
        if self.now is None:
            self.now = torch.empty_like(self.ahead[0])
            self.c = {**coefficients, **dict(zip(names, self.now, strict=True))}


def _segment_key(run: TrainConfig) -> tuple[Any, ...]:
    """Runs with equal keys share a rule and which of its terms there are; with a rule as it is, all settings
    but the learning rate."""
    rule = registry.rule_of(run.optimizer)
    assert rule is not None
    as_it_is = in_place(rule).as_it_is
    shape: list[Any] = []
    for key, value in sorted(run.optimizer.hyperparameters().items()):
        numbers = value if isinstance(value, (tuple, list)) else (value,)
        if as_it_is and key == "lr":
            continue
        if not as_it_is and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
            shape.append((key, *(n == 0 for n in numbers)))
        else:
            shape.append((key, repr(value)))
    return id(rule), repr(shape)


def _columns(values: Sequence[Any]) -> Any:
    """One number where all are equal, else a float64 column `[rows, 1]`; of tuples, a tuple of those."""
    if isinstance(values[0], (tuple, list)):
        return tuple(_columns(v) for v in zip(*values, strict=True))
    if all(v == values[0] for v in values):
        return values[0]
    return np.array(values, dtype=np.float64)[:, None]


class Tile:
    """Runs in training side by side. Iterate over `measurements`; in between, every row's state is complete.

    `data` is on the device and in the dtype of the runs, which must have equal `group_key`s. `rows` are in
    the order of `runs`.
    """

    def __init__(self, runs: Sequence[TrainConfig], data: Data) -> None:
        first, x = runs[0], data.train.x
        self.data, self.log_every = data, first.log_every
        self.device, self.dtype = x.device, x.dtype
        self.widths = [data.n_features, *first.model.widths(), len(data.classes)]
        self.activation = ACTIVATIONS[first.model.activation]
        n = len(data.train.y)
        self.batch_size = n if first.batch_size == "full" else min(n, int(first.batch_size))
        self.steps_per_epoch = steps_per_epoch(n, first.batch_size, first.drop_last)
        self.step = self.epoch = 0
        self.stop = Stop()
        self._resumed = False
        self.share = 0.0  # seconds of updates, divided by the rows in training

        # Runs of one rule must lie side by side.
        order = sorted(range(len(runs)), key=lambda k: _segment_key(runs[k]))
        self._stacked = [self._row(runs[k], index) for index, k in enumerate(order)]
        self.rows = sorted(self._stacked, key=lambda row: order[row.index])
        θ = torch.stack([self._start(row.run) for row in self._stacked])
        self._weight = torch.cat([_ones_for_weights(a, b) for a, b in itertools.pairwise(self.widths)])
        self._weight = self._weight.to(self.device, self.dtype)
        self._compiled = first.compile
        self._plain = self.device.type == "cpu" and not first.compile
        self._set_up(θ.to(self.device, self.dtype), None)

    def resume(self, states: Sequence[dict[str, Any]]) -> None:
        """Let every row of `rows` resume from what its `state` gave, all of them taken at the same step.

        Raises `UserError` for a state that does not belong to its row.
        """
        for row, state in zip(self.rows, states, strict=True):
            row.check(state)
        self._resumed = True
        self.step, self.epoch = states[0]["step"], states[0]["epoch"]
        window = self._window.clone()
        of_index: list[dict[str, Tensor]] = [{} for _ in states]
        for row, state in zip(self.rows, states, strict=True):
            assert state["step"] == self.step
            row.step, row.epoch, row.before = state["step"], state["epoch"], state["train_seconds"]
            row.train_seconds = row.before
            for k, (W, b) in enumerate(self._layers):
                W[row.index].copy_(state["network"][f"weights.{k}"])
                b[row.index, :, 0].copy_(state["network"][f"biases.{k}"])
            of_index[row.index] = {k: v.to(self.device) for k, v in state["optimizer"].items()}
            window[: len(state["window"]), :, row.index] = state["window"]
            if row.step == row.steps:
                row.status = "finished"
        self._set_up(self.θ, of_index)
        self._window.copy_(window)

    def close(self) -> None:
        """Let go of every tensor. The tile and its rows, which refer to each other, are of no use then.

        On a GPU the next one needs the memory, and garbage collection may come later.
        """
        vars(self).clear()

    def _row(self, run: TrainConfig, index: int) -> BatchRow:
        steps = run.epochs * self.steps_per_epoch
        schedule = schedules.build_schedule(run.schedule, steps, self.steps_per_epoch)
        return BatchRow(run, self, index, schedule, steps)

    def _start(self, run: TrainConfig) -> Tensor:
        """A run's first parameters, `[P]`: those of its eager run."""
        network = FFN(self.widths, run.model, run.seed, self.dtype)
        return torch.cat([t.detach().reshape(-1) for layer in network.layers for t in layer])

    # --- what a step works on ---------------------------------------------------------------------------

    def _set_up(self, θ: Tensor, states: list[dict[str, Tensor]] | None) -> None:
        """Lay out every buffer for the rows in `_stacked`, whose parameters are θ."""
        R, b = len(self._stacked), _aligned(self.batch_size)
        like: Any = {"device": self.device, "dtype": self.dtype}
        self.θ, self._g, self._spare = θ, torch.empty_like(θ), torch.empty_like(θ)
        self._layers, self._gradients = self._views(self.θ), self._views(self._g)
        self._h_bars = [torch.empty(R, n, b, **like) for n in self.widths[1:]]
        self._g_bars = [torch.empty(R, n, b, **like) for n in self.widths[1:-1]]
        # Losses and objectives of this step and of the steps since the last log point.
        self._now = torch.zeros(2, R, **like)
        self._window = torch.zeros(self.log_every, 2, R, **like)
        decay = torch.tensor([row.run.l2 for row in self._stacked], **like)
        self._decay = 2 * decay[:, None] * self._weight if decay.any() else None

        train = self.data.train
        if self.batch_size == len(train.y):
            index = _filled(torch.arange(b, device=self.device), self.batch_size)
            self._x = train.x[index].mT.expand(R, -1, -1)
            self._y = train.y[index].expand(R, 1, -1)
        else:
            self._x_rows = torch.empty(R * b, self.widths[0], **like)
            self._x = self._x_rows.view(R, b, -1).mT
            self._y = torch.empty(R, 1, b, device=self.device, dtype=torch.int64)
        self._weights, self._minus = torch.empty(1, 1, b, **like), torch.empty(R, 1, b, **like)
        self._weigh(self.batch_size)

        self._segments: list[Segment] = []
        for _, group in itertools.groupby(self._stacked, key=lambda row: _segment_key(row.run)):
            members = list(group)
            part = slice(members[0].index, members[-1].index + 1)
            rule = registry.rule_of(members[0].run.optimizer)
            assert rule is not None
            settings = [row.run.optimizer.hyperparameters() for row in members]
            hyper = {key: _columns([s[key] for s in settings]) for key in settings[0]}
            if states is None:
                columns = {key: self._tensor(value) for key, value in hyper.items()}
                state = first_state(rule, θ[part], columns)
            else:
                state = {key: torch.stack([s[key] for s in states[part]]) for key in states[part.start]}
            mine = (self.θ[part], self._g[part], self._spare[part])
            self._segments.append(Segment(members, in_place(rule), hyper, state, *mine))
        self._chunk_ends = self.step
        self._update_active()
        self._step_functions = self._prepare_step()

    def _tensor(self, value: Any) -> Any:
        """A column in the runs' dtype; numbers stay."""
        if isinstance(value, tuple):
            return tuple(self._tensor(v) for v in value)
        return torch.from_numpy(value).to(self.device, self.dtype) if isinstance(value, np.ndarray) else value

    def _views(self, buffer: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(W `[runs, n_in, n_out]`, b `[runs, n_out, 1]`) of every layer inside `[runs, P]`."""
        views, at = [], 0
        for n_in, n_out in itertools.pairwise(self.widths):
            W = buffer[:, at : at + n_in * n_out].view(-1, n_in, n_out)
            at += n_in * n_out
            views.append((W, buffer[:, at : at + n_out].unsqueeze(-1)))
            at += n_out
        return views

    def _weigh(self, n: int) -> None:
        """Give the first n columns of a batch the weight 1/n and the rest, which fill it up, none."""
        self._weighed = n
        self._weights.zero_()[..., :n] = 1 / n
        self._minus.copy_(-self._weights)

    # --- one step ---------------------------------------------------------------------------------------

    def _prepare_step(self) -> list[Callable[[], None]]:
        """`_backward` and `_update` as they are run: plainly, compiled, as CUDA graphs."""
        functions: list[Callable[[], None]] = [self._backward, self._update]
        fixed = 1 if any(s.rule.as_it_is for s in self._segments) else 2
        if self._compiled:
            functions[:fixed] = [torch.compile(function, dynamic=False) for function in functions[:fixed]]
        if self.device.type == "cuda":
            functions[:fixed] = [_Captured(function) for function in functions[:fixed]]
        return functions

    def _backward(self) -> None:
        """Losses of the batch in `_x`, `_y`, and every row's gradient into `_g` (L11)."""
        h, hs, last = self._x, [self._x], len(self._layers) - 1
        for k, (W, b) in enumerate(self._layers):
            h_bar = torch.baddbmm(b, W.mT, h, out=self._h_bars[k])
            if k < last:
                h = self.activation.function(h_bar)
                hs.append(h)
        # log Σ exp, with exp as a power of 2, which PyTorch has vectorised.
        h_bar.sub_(h_bar.amax(1, keepdim=True))
        of_label = h_bar.gather(1, self._y)
        p = h_bar.mul_(math.log2(math.e)).exp2_()
        total = p.sum(1, keepdim=True)
        loss = ((total.log() - of_label) * self._weights).sum((1, 2))
        g_bar = p.mul_(self._weights / total).scatter_add_(1, self._y, self._minus)
        for k in range(last, -1, -1):
            W, _ = self._layers[k]
            dW, db = self._gradients[k]
            _into(dW, torch.bmm, hs[k], g_bar.mT)
            _into(db, torch.sum, g_bar, 2, keepdim=True)
            if k:
                g = torch.bmm(W, g_bar, out=self._g_bars[k - 1])
                g_bar = self.activation.fused(g, self._h_bars[k - 1], hs[k])
        self._now.copy_(loss.expand(2, -1))
        if self._decay is not None:  # ∂/∂θ λ‖W‖² = 2 λ W
            decayed = torch.mul(self._decay, self.θ, out=self._spare)
            self._g.add_(decayed)
            self._now[1].add_(decayed.mul_(self.θ).sum(1), alpha=0.5)

    def _update(self) -> None:
        """Every rule on its own rows."""
        for s in self._segments:
            s.rule.step(s.θ, s.g, s.state, s.c, s.spare)

    def _fetch_coefficients(self) -> None:
        """Bring this step's learning rates, bias corrections and so on to where `_update` looks for them."""
        if self.step >= self._chunk_ends:
            self._chunk_begins, self._chunk_ends = self.step, self.step + COEFFICIENT_STEPS
            for s in self._segments:
                s.look_ahead(range(self._chunk_begins, self._chunk_ends), self.device, self.dtype)
        for s in self._segments:
            if s.now is not None and s.ahead is not None:
                s.now.copy_(s.ahead[self.step - self._chunk_begins])
            if s.rule.as_it_is:
                s.c["t"] = self.step + 1

    # --- the loop ---------------------------------------------------------------------------------------

    def measurements(self) -> Iterator[list[tuple[BatchRow, Measurement]]]:
        """Train, and yield what is measured of which row: before the first update, at log points, after each
        epoch. A row that has ended, or whose status is changed, is measured no more. Ends early, between two
        steps, where a `stop` is requested.
        """
        if not self._resumed:
            yield self._evaluate()
        done = self.step % self.steps_per_epoch  # steps of an epoch that a checkpoint was taken in
        while self._active_rows() and not self.stop.requested:
            self.epoch = self.step // self.steps_per_epoch + 1
            for row in self._active_rows():
                row.epoch = self.epoch
            self._start_clock()
            for batch in self._batches(done):
                measured = self._take(batch)
                if measured:
                    self._stop_clock()
                    yield measured
                    if not self._active_rows():
                        return
                    self._start_clock()
                if self.stop.requested and self.step % self.steps_per_epoch:
                    self._stop_clock()
                    return
            self._stop_clock()
            done = 0
            yield self._evaluate()
            self._drop_ended_rows()

    def _active_rows(self) -> list[BatchRow]:
        return [row for row in self._stacked if row.status == "running"]

    def _batches(self, done: int) -> Iterator[tuple[Tensor, Tensor, int] | None]:
        """This epoch's mini-batches from the one after `done` on: rows `[runs × b]` of the training set,
        labels `[runs, 1, b]`, and how many columns count. None stands for the full batch, which is there
        already.
        """
        n, b = len(self.data.train.y), self.batch_size
        if b == n:
            yield None
            return
        order = torch.stack([epoch_order(n, row.run.seed, self.epoch) for row in self._stacked])
        used = self.steps_per_epoch * b
        for first in range(done * b, used, FETCHED * b):
            part = order[:, first : min(first + FETCHED * b, used)]
            for size, rows in _in_batches(part, b, _aligned(b)):
                rows = rows.to(self.device)
                labels = self.data.train.y[rows].unsqueeze(2)
                yield from zip(rows.flatten(1), labels, itertools.repeat(size))

    def _take(self, batch: tuple[Tensor, Tensor, int] | None) -> list[tuple[BatchRow, Measurement]]:
        """One step of every row on its own mini-batch; what is measured then, if anything is."""
        if batch is not None:
            rows, labels, size = batch
            torch.index_select(self.data.train.x, 0, rows, out=self._x_rows)
            self._y.copy_(labels)
            if size != self._weighed:
                self._weigh(size)
        self._fetch_coefficients()
        backward, update = self._step_functions
        log_point = (self.step + 1) % self.log_every == 0
        measure = log_point or self.step + 1 in self._ends
        backward()
        norms = [_norms(self._g)] if measure else []
        before = self.θ.clone() if measure else None
        update()
        self._window[self.step % self.log_every].copy_(self._now)
        self.step += 1
        if before is not None:
            norms += [_norms(t) for t in (self.θ, torch.sub(self.θ, before, out=self._spare), before)]
            return self._log_point(log_point, norms)
        # On a GPU a look at every loss would stop it every time; there the next log point finds it.
        if self.device.type == "cpu" and not math.isfinite(self._watched().sum().item()):
            return self._log_point(False, [])
        return []

    def _watched(self) -> Tensor:
        """The objectives of the rows in training."""
        objectives = self._now[1]
        return objectives if self._all_going else objectives[self._active_indices]

    def _log_point(self, for_all: bool, norms: list[Tensor]) -> list[tuple[BatchRow, Measurement]]:
        """Means over the window since the last point, and this step's norms: the one synchronisation.

        Of all rows at a log point, else of those whose last step this was. `norms` are those of the gradient,
        the weights, their change and the weights before; none where a divergence comes unexpected.
        """
        length = (self.step - 1) % self.log_every + 1
        window = self._window[:length].double()
        finite = window[:, 1].isfinite().tolist()
        # Step after step: `mean` sums in blocks, in an order that depends on how many rows there are.
        means = (window.cumsum(0)[-1] / length).tolist()
        columns = torch.stack(norms).tolist() if norms else None
        measured = []
        for row in self._active_rows():
            k = row.index
            row.step, row.train_seconds = self.step, row.before + self.share
            bad = next((i for i in range(length) if not finite[i][k]), None)
            if bad is not None:
                at = self.step - length + bad + 1
                row.diverge(f"{tags.OBJECTIVE.tag('train')} is {window[bad, 1, k].item()} at step {at}")
            elif not (for_all or self.step == row.steps):
                continue
            grad_norm, weight_norm, change, before = (c[k] for c in columns) if columns else [math.nan] * 4
            values = log_point(
                loss=means[0][k],
                objective=means[1][k],
                lr=row.run.lr * row.schedule(self.step - 1),
                grad_norm=grad_norm,
                weight_norm=weight_norm,
                change=change,
                norm_before=before,
            )
            measured.append((row, Measurement(self.step, self.epoch, row.train_seconds, values)))
        self._update_active()
        return measured

    @torch.no_grad()
    def _evaluate(self) -> list[tuple[BatchRow, Measurement]]:
        """Losses and scores of the splits that have rows, as `metrics.evaluate_all`, for every row."""
        by_row: list[dict[str, float]] = [{} for _ in self._stacked]
        for name in tags.SPLITS:
            split: Split = getattr(self.data, name)
            if len(split.y):
                for values, (loss, *scores) in zip(by_row, self._evaluate_part(split), strict=True):
                    values |= by_tag(name, by_name(loss, scores))
        measured = []
        for row in self._active_rows():
            values = by_row[row.index]
            row.step, row.train_seconds = self.step, row.before + self.share
            for tag, value in values.items():
                if not math.isfinite(value):
                    row.diverge(f"{tag} is {value} after step {self.step}")
                    break
            else:
                if self.step == row.steps:
                    row.status = "finished"
            measured.append((row, Measurement(self.step, self.epoch, row.train_seconds, values, True)))
        self._update_active()
        return measured

    def _evaluate_part(self, split: Split) -> list[list[float]]:
        """For every row its means over a split: cross-entropy, then each of `tags.SCORES`."""
        R, n = len(self._stacked), len(split.y)
        sums = torch.zeros(1 + len(tags.SCORES), R, device=self.device, dtype=torch.float64)
        chunk = EVALUATED_ROWS[self.device.type == "cpu"]
        for first in range(0, n, chunk):
            size = min(chunk, n - first)
            index = first + _filled(torch.arange(_aligned(size), device=self.device), size)
            logits = self._logits(split.x[index].mT.expand(R, -1, -1))
            y = split.y[index].expand(R, 1, -1)
            logits.sub_(logits.amax(1, keepdim=True))
            for k, score in enumerate(tags.SCORES, start=1):
                assert score.of_rows is not None
                sums[k] += score.of_rows(logits, y[:, 0])[:, :size].sum(1)
            of_label = logits.gather(1, y)
            loss = logits.mul_(math.log2(math.e)).exp2_().sum(1, keepdim=True).log_().sub_(of_label)
            sums[0] += loss[:, 0, :size].sum(1, dtype=torch.float64)
        means: list[list[float]] = (sums / n).T.tolist()
        return means

    def _logits(self, x: Tensor) -> Tensor:
        """Logits `[runs, n_classes, b]` of `x [runs, n_features, b]`."""
        *hidden, (W_out, b_out) = self._layers
        h = x
        for W, b in hidden:
            h = self.activation.function(torch.baddbmm(b, W.mT, h))
        logits: Tensor = torch.baddbmm(b_out, W_out.mT, h)
        return logits

    # --- rows -------------------------------------------------------------------------------------------

    def _update_active(self) -> None:
        going = [row.index for row in self._active_rows()]
        self._all_going = len(going) == len(self._stacked)
        self._active_indices = torch.tensor(going, device=self.device)
        self._ends = {self._stacked[k].steps for k in going}

    def _drop_ended_rows(self) -> None:
        """Go on without the rows that have ended. The others' bits are the same with them and without.

        A compiled or captured step would have to be made anew, so there half of the rows must have ended.
        """
        going = self._active_rows()
        worth = len(going) < len(self._stacked) if self._plain else 2 * len(going) <= len(self._stacked)
        if not going or not worth:
            return
        θ = self.θ[self._active_indices]
        states = [self._state(row.index) for row in going]
        window = self._window[:, :, self._active_indices]
        self._stacked = going
        for index, row in enumerate(going):
            row.index = index
        self._set_up(θ, states)
        self._window.copy_(window)

    def _state(self, index: int) -> dict[str, Tensor]:
        """A row of the optimizer's state."""
        segment = next(s for s in self._segments if index <= s.rows[-1].index)
        return {key: value[index - segment.rows[0].index] for key, value in segment.state.items()}

    def tensors(self, index: int) -> dict[str, Any]:
        """A row's network, by the names of an `FFN`'s state_dict, its optimizer's state, and its losses and
        objectives since the last log point, `[steps, 2]`."""
        network = {}
        for k, (W, b) in enumerate(self._layers):
            network[f"weights.{k}"], network[f"biases.{k}"] = W[index], b[index, :, 0]
        window = self._window[: self.step % self.log_every, :, index]
        return {"network": network, "optimizer": self._state(index), "window": window}

    def logits(self, index: int, x: Tensor) -> Tensor:
        """A row's logits `[b, n_classes]` of `x [b, n_features]`."""
        return forward(self.layers(index), x, self.activation)

    def layers(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """A row's (W `[n_in, n_out]`, b `[n_out]`): views that the next step changes."""
        return [(W[index], b[index, :, 0]) for W, b in self._layers]

    # --- time -------------------------------------------------------------------------------------------

    def _start_clock(self) -> None:
        self._started = time.perf_counter()

    def _stop_clock(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.share += (time.perf_counter() - self._started) / max(1, len(self._active_rows()))


def _into(out: Tensor, function: Callable[..., Tensor], *arguments: Any, **keywords: Any) -> None:
    """Compute into a view; torch.compile knows that as a copy only."""
    if torch.compiler.is_compiling():
        out.copy_(function(*arguments, **keywords))
    else:
        function(*arguments, **keywords, out=out)


def _norms(rows: Tensor) -> Tensor:
    """‖·‖ of every row of `[runs, P]`."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _filled(index: Tensor, n: int) -> Tensor:
    """`index` with its entries from n on replaced by the first."""
    return torch.where(index < n, index, 0)


def _in_batches(order: Tensor, b: int, width: int) -> Iterator[tuple[int, Tensor]]:
    """Cut `order [runs, n]` into batches: (batch size, rows `[steps, runs, width]`), the last one apart where
    it is smaller; batches are filled up to `width` with their first row."""
    runs, n = order.shape
    whole = n // b
    for size, part in (
        (b, order[:, : whole * b].view(runs, whole, b)),
        (n - whole * b, order[:, whole * b :]),
    ):
        if part.numel():
            part = part.reshape(runs, -1, size).transpose(0, 1)
            filling = part[:, :, :1].expand(-1, -1, width - size)
            yield size, torch.cat([part, filling], 2)


def _ones_for_weights(n_in: int, n_out: int) -> Tensor:
    """1 for every entry of a layer's W, 0 for those of b."""
    return torch.cat([torch.ones(n_in * n_out), torch.zeros(n_out)])


class _Captured:
    """A function on tensors that stay at their addresses, as a CUDA graph from its fourth call on."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls, self.graph = function, 0, torch.cuda.CUDAGraph()

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= 3:  # PyTorch wants a few calls on another stream first; they are steps like others
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self.function()
            torch.cuda.current_stream().wait_stream(stream)
            return
        if self.calls == 4:
            with torch.cuda.graph(self.graph):
                self.function()
        self.graph.replay()


# --- tiles ----------------------------------------------------------------------------------------------

CACHE = 6 * 2**20
"""Bytes of a CPU's cache that one thread may count on."""


def tile_sizes(
    count: int,
    widths: Sequence[int],
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
    compiled: bool = False,
) -> list[int]:
    """How many of `count` runs each tile takes: as many as a cache (on a GPU: half its memory) holds.

    On a CPU there are as many tiles as threads, if each has enough to do; a compiled step uses all threads.
    """
    per_run = bytes_of_a_run(widths, batch_size, dtype)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        tiles = -(-count // max(1, free // 2 // per_run))
    elif compiled:
        tiles = -(-count // max(1, THREADS * CACHE // per_run))
    else:
        tiles = -(-count // max(1, CACHE // per_run))
        enough = -(-SMALL_STEP // multiply_adds(widths, batch_size))
        tiles = max(tiles, min(THREADS, count // enough))
        if tiles > 1:
            tiles = min(count, -(-tiles // THREADS) * THREADS)
    return [count // tiles + (k < count % tiles) for k in range(tiles)]
