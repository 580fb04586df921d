"""The batched engine: many runs advance in one tensor program, for sweeps on a GPU.

A `BatchedEngine` trains runs that share data, layer widths, activation, batch size and dtype. What tells them
apart (weights, data order, learning rate and its schedule, hyper-parameters, λ) is a row of a tensor: all
parameters are one buffer `[runs, P]`, of which each layer's W `[runs, n_in, n_out]` and b `[runs, n_out]` are
views. Back-propagation is `backprop.by_hand` with a leading run axis, the update rules are those of
`optimizers.rules` with a coefficient for every row. On CUDA a step is captured in a graph and replayed.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffn_bench.configuration.schema import TrainConfig, count_parameters
from ffn_bench.data.batches import batch_rows
from ffn_bench.data.rows import Array, Data
from ffn_bench.engine.evaluation import scored
from ffn_bench.engine.metrics import Scoring
from ffn_bench.engine.protocol import Advanced, Layers, Order
from ffn_bench.engine.tensors import to_arrays, to_tensors
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import by_hand
from ffn_bench.model.layers import by_names, flat, layered
from ffn_bench.model.losses import criterion_of
from ffn_bench.model.network import FFN, forward
from ffn_bench.model.tensor_losses import absolute_penalty, penalty, row_losses
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.rule_forms import Rule

COEFFICIENT_STEPS = 256
"""Steps for which coefficients (learning rates, bias corrections) are computed at once."""

FETCHED = 512
"""Steps whose batches are laid out at once."""

EVALUATED_NUMBERS = 2**26
"""Logits that are computed at once."""


def bytes_of_a_run(widths: Sequence[int], batch_size: int, dtype: str) -> int:
    """Memory that one row's steps touch: parameters, gradient, two moments, scratch, the best weights,
    and activations."""
    numbers = 9 * count_parameters(list(widths)) + batch_size * (widths[0] + 6 * sum(widths[1:]))
    return np.dtype(dtype).itemsize * numbers


def group_sizes(count: int, widths: Sequence[int], batch_size: int, dtype: str, device: str) -> list[int]:
    """Into which numbers `count` runs are divided: as many together as half of a GPU's free memory holds."""
    groups = 1
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        groups = -(-count // max(1, free // 2 // bytes_of_a_run(widths, batch_size, dtype)))
    return [count // groups + (k < count % groups) for k in range(groups)]


class Row(Protocol):
    """One run of the engine: a `loop.Run`."""

    config: TrainConfig

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""


@dataclass
class Segment:
    """Rows that lie side by side and share an update rule."""

    rows: list[Row]
    rule: Rule
    hyper: dict[str, Any]
    """Values, and float64 columns `[rows, 1]` of those in which the rows differ."""
    θ: Tensor
    g: Tensor
    states: tuple[Tensor, ...]
    """`[rows, P]` each, always in the same memory, as is all that a captured step reads."""
    now: tuple[Any, ...] = ()
    """This step's coefficients: numbers, and columns `[rows, 1]` of those that are not constant."""
    ahead: tuple[Any, ...] = ()
    """Those of the steps ahead: numbers, and `[steps, rows, 1]`."""

    def look_ahead(self, steps: range) -> None:
        """Compute the coefficients of some steps, counted from 0."""
        t = np.array(steps, dtype=np.float64)[:, None, None] + 1
        lr = np.array([[[row.rate(step)] for row in self.rows] for step in steps])
        shape = (len(steps), len(self.rows), 1)
        coefficients = self.rule.coefficients({**self.hyper, "lr": lr}, t)
        self.ahead = tuple(
            torch.from_numpy(np.broadcast_to(c, shape).copy()).to(self.θ) if np.ndim(c) else float(c)
            for c in coefficients
        )
        if not self.now:
            self.now = tuple(c[0].clone() if isinstance(c, Tensor) else c for c in self.ahead)

    def fetch(self, k: int) -> None:
        """Bring the coefficients of the k-th step ahead to where `update` looks for them."""
        for now, ahead in zip(self.now, self.ahead, strict=True):
            if isinstance(now, Tensor):
                now.copy_(ahead[k])

    def update(self) -> None:
        """Move the rows' parameters."""
        θ, states = self.rule.update(self.g, self.θ, self.states, self.now)
        self.θ.copy_(θ)
        for state, after in zip(self.states, states, strict=True):
            state.copy_(after)


def _segment_key(run: TrainConfig) -> tuple[Any, ...]:
    """Runs with equal keys share a rule, and what is not a number of its hyper-parameters."""
    hyper = run.optimizer.hyperparameters()
    rule = registry.elementwise_rule(run.optimizer)
    assert rule is not None
    others = [(k, repr(v)) for k, v in sorted(hyper.items()) if not isinstance(v, (float, tuple))]
    return rule.update.__qualname__, id(rule.update), repr(others)


def _columns(values: Sequence[Any]) -> Any:
    """One value where all are equal, else a float64 column `[rows, 1]`; of tuples, a tuple of those."""
    if isinstance(values[0], tuple):
        return tuple(_columns(v) for v in zip(*values, strict=True))
    if all(v == values[0] for v in values):
        return values[0]
    return np.array(values, dtype=np.float64)[:, None]


class BatchedEngine:
    """Runs in training side by side, which must have equal `group_key`s; see `protocol.Engine`.

    `data` is on the device and in the dtype of the runs.
    """

    name = "batched"

    def __init__(self, runs: Sequence[Row], data: Data[Tensor]) -> None:
        first, x = runs[0].config, data.train.x
        self.data, self.step = data, 0
        self._device, self.dtype = x.device, x.dtype
        self.device = str(x.device)
        self.widths = [data.n_features, *first.model.widths(), data.n_outputs]
        self.activation, self.criterion = ACTIVATIONS[first.model.activation], criterion_of(first)
        self._scoring = Scoring.of_data(data)
        self.batch_size = batch_rows(len(data.train.y), first.batch_size)

        # Runs of one rule must lie side by side: `_columns` says where each of `runs` is.
        order = sorted(range(len(runs)), key=lambda k: _segment_key(runs[k].config))
        self._rows = [runs[k] for k in order]
        self._columns = [order.index(k) for k in range(len(runs))]
        self._set_up(torch.stack([self._start(row.config) for row in self._rows]), None)
        self._remembered = torch.zeros_like(self._θ)

    def _start(self, config: TrainConfig) -> Tensor:
        """A run's first parameters, `[P]`: those of the torch engine."""
        network = FFN(self.widths, config.model, config.seed_of("init"), self.dtype)
        return flat(network.layers).detach().to(self._device)

    def _set_up(self, θ: Tensor, states: list[dict[str, Tensor]] | None) -> None:
        """Lay out every buffer for the rows in `_rows`, whose parameters are θ."""
        self._θ, self._g = θ, torch.empty_like(θ)
        self._layers = layered(θ, self.widths)
        self._λ = self._column([row.config.l2 for row in self._rows])
        self._λ1 = self._column([row.config.l1 for row in self._rows])
        self._is_weight = flat([(torch.ones_like(W[0]), torch.zeros_like(b[0])) for W, b in self._layers])
        self._now = torch.zeros(2, len(θ), device=self._device, dtype=self.dtype)  # this step's losses
        self._segments: list[Segment] = []
        begin = 0
        for _, group in itertools.groupby(self._rows, key=lambda row: _segment_key(row.config)):
            members = list(group)
            part = slice(begin, begin + len(members))
            begin = part.stop
            settings = [row.config.optimizer.hyperparameters() for row in members]
            hyper = {key: _columns([s[key] for s in settings]) for key in settings[0]}
            rule = registry.elementwise_rule(members[0].config.optimizer)
            assert rule is not None
            if states is None:
                first = rule.first(hyper) if rule.first else (0.0,) * len(rule.states)
                begins = [torch.zeros_like(θ[part]) + torch.as_tensor(v).to(θ) for v in first]
            else:
                begins = [torch.stack([s[name] for s in states[part]]) for name in rule.states]
            own = Segment(members, rule, hyper, self._θ[part], self._g[part], tuple(begins))
            self._segments.append(own)
        self._chunk_ends = self.step
        self._watched = torch.tensor(self._columns, device=self._device)
        self._steps: dict[int, Callable[[], None]] = {}

    def _column(self, values: list[float]) -> Tensor | None:
        """A number for each row, `[rows, 1]`; None where all are 0."""
        column = torch.tensor(values, device=self._device, dtype=self.dtype)[:, None]
        return column if bool(column.any()) else None

    # --- steps ------------------------------------------------------------------------------------------

    def begin_epoch(self, orders: Sequence[Order] | None, done: int) -> None:
        """Visit the training rows in these orders, one for each run, from the mini-batch after `done` on."""
        self._drop_others()
        self._batches = self._mini_batches(orders, done)

    def _mini_batches(self, orders: Sequence[Order] | None, done: int) -> Iterator[Tensor | None]:
        """Mini-batches: numbers of training rows `[runs, b]`. None stands for the full batch."""
        if orders is None:
            yield None
            return
        b = self.batch_size
        of_row = dict(zip(self._columns, orders, strict=True))  # a run that has ended takes any
        order = np.stack([of_row.get(row, orders[0]) for row in range(len(self._rows))])
        for first in range(done * b, order.shape[1], FETCHED * b):
            rows = torch.from_numpy(order[:, first : first + FETCHED * b]).to(self._device)
            yield from rows.split(b, 1)

    def advance(self, count: int, log_every: int, log_last: bool) -> Advanced:
        """Make steps; on a CPU none after one with an objective that is not finite. Reads losses once."""
        losses = torch.empty(count, 2, len(self._rows), device=self._device, dtype=self.dtype)
        norms: dict[int, Tensor] = {}
        made = 0
        for rows in itertools.islice(self._batches, count):
            is_logged = (self.step + 1) % log_every == 0 or (log_last and made + 1 == count)
            before = self._θ.clone() if is_logged else None
            self._step(rows)
            losses[made].copy_(self._now)
            # On a GPU a look at every loss would stop it every time; there it is seen after the last step.
            ends = self._device.type == "cpu" and not bool(self._now[1, self._watched].isfinite().all())
            if is_logged or ends:
                norms[made] = self._norms(before)
            made += 1
            if ends:
                break
        measured = np.full((made, 4, len(self._columns)), math.nan)
        for k, values in norms.items():
            measured[k] = values[:, self._watched].double().cpu().numpy()
        return Advanced(losses=losses[:made, :, self._watched].double().cpu().numpy(), norms=measured)

    def _step(self, rows: Tensor | None) -> None:
        """One step of every row on its own mini-batch."""
        if self.step >= self._chunk_ends:
            self._chunk_begins, self._chunk_ends = self.step, self.step + COEFFICIENT_STEPS
            for segment in self._segments:
                segment.look_ahead(range(self._chunk_begins, self._chunk_ends))
        for segment in self._segments:
            segment.fetch(self.step - self._chunk_begins)
        size = len(self.data.train.y) if rows is None else rows.shape[1]
        if size not in self._steps:  # an epoch's last batch may be smaller
            self._steps[size] = self._prepared_step(size, rows is None)
        if rows is not None:
            self._indices[:, :size].copy_(rows)
        self._steps[size]()
        self.step += 1

    def _prepared_step(self, size: int, full_batch: bool) -> Callable[[], None]:
        """A step on mini-batches of a size, whose rows stand in `_indices`; on CUDA captured in a graph."""
        if not self._steps and not full_batch:
            shape = len(self._rows), self.batch_size
            self._indices = torch.zeros(shape, device=self._device, dtype=torch.int64)
        train = self.data.train

        def step() -> None:
            self._backward(*(train if rows is None else train.map(operator.itemgetter(rows))))
            for segment in self._segments:
                segment.update()

        rows = None if full_batch else self._indices[:, :size]
        return _Captured(step) if self._device.type == "cuda" else step

    def _backward(self, x: Tensor, y: Tensor, weights: Tensor | None) -> None:
        """Losses and every run's gradient (L11) of `x [runs, b, n_features]`, `y [runs, b, …]`, whose rows
        have `weights [runs, b]`."""
        gradients = by_hand(self._layers, x, y, self.activation, criterion=self.criterion, weights=weights)
        torch.cat([t.flatten(1) for layer in gradients.layers for t in layer], 1, out=self._g)
        self._now.copy_(gradients.loss.expand(2, -1))
        if self._λ is not None:
            self._g.add_(2 * self._λ * self._is_weight * self._θ)
            self._now[1].add_(self._λ[:, 0] * penalty(self._layers))
        if self._λ1 is not None:
            self._g.add_(self._λ1 * self._is_weight * self._θ.sign())
            self._now[1].add_(self._λ1[:, 0] * absolute_penalty(self._layers))

    def _norms(self, before: Tensor | None) -> Tensor:
        """`[4, runs]`: ‖g‖, ‖θ‖, how far θ went from where it was `before`, if that is known, ‖θ‖ there."""
        start = torch.full_like(self._θ, math.nan) if before is None else before
        rows = (self._g, self._θ, self._θ - start, start)
        return torch.stack([torch.linalg.vector_norm(row, dim=1) for row in rows])

    # --- evaluation -------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, split: str) -> list[list[float]]:
        """Means of loss and scores over a split, for every run."""
        everything = getattr(self.data, split)
        R, n = len(self._rows), len(everything.y)
        loss = torch.zeros(R, device=self._device, dtype=torch.float64)
        sums = [torch.zeros((), device=self._device, dtype=torch.float64) for _ in self._scoring.quantities]
        rows = max(1, EVALUATED_NUMBERS // (R * max(self.widths)))
        for first in range(0, n, rows):
            x, y, weights = everything.map(operator.itemgetter(slice(first, first + rows)))
            outputs = forward(self._layers, x.expand(R, -1, -1), self.activation)  # [runs, n, n_outputs]
            losses = row_losses(outputs, y.expand(R, *y.shape), self.criterion)
            losses = losses if weights is None else losses * weights
            # Along rows of memory: the order of a sum down its columns depends on how many there are.
            loss += losses.contiguous().sum(1, dtype=torch.float64)
            outputs, y = outputs.permute(1, 2, 0), y[..., None].expand(*y.shape, R)
            for k, score in enumerate(self._scoring.quantities):
                assert score.of_rows is not None
                by_rows = score.of_rows(*scored(outputs, y)).movedim(0, -1).contiguous()
                sums[k] = sums[k] + by_rows.sum(-1, dtype=torch.float64)
        variances = everything.y.double().var(0, correction=0).cpu()
        mean_losses, means = (loss / n).tolist(), [(total / n).cpu() for total in sums]
        return [
            [mean_losses[run], *self._scoring.of_means([values[..., run] for values in means], variances)]
            for run in self._columns
        ]

    # --- runs -------------------------------------------------------------------------------------------

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs only; the others leave with an epoch to come."""
        self._columns = [self._columns[run] for run in runs]
        self._watched = torch.tensor(self._columns, device=self._device)

    def _drop_others(self) -> None:
        """Go on without the rows that have ended, once they are half: a captured step must be made anew."""
        going = sorted(self._columns)
        if 2 * len(going) > len(self._rows):
            return
        θ, states = self._θ[going], [self._state(index) for index in going]
        self._remembered = self._remembered[going]
        self._rows = [self._rows[index] for index in going]
        self._columns = [going.index(index) for index in self._columns]
        self._set_up(θ, states)

    def _state(self, index: int) -> dict[str, Tensor]:
        """A row of the optimizer's states."""
        for segment in self._segments:
            if index < len(segment.rows):
                return {n: s[index] for n, s in zip(segment.rule.states, segment.states, strict=True)}
            index -= len(segment.rows)
        raise IndexError

    def remember(self, runs: Sequence[int]) -> None:
        """Keep a copy of the weights that these runs have now."""
        rows = torch.tensor([self._columns[run] for run in runs], device=self._device)
        self._remembered[rows] = self._θ[rows]

    def remembered(self, run: int) -> Layers:
        """The layers of a run's copy."""
        layers: Layers = to_arrays(layered(self._remembered[self._columns[run]], self.widths))
        return layers

    def recall(self, run: int, layers: Layers) -> None:
        """Let these layers be a run's copy."""
        self._remembered[self._columns[run]] = flat(to_tensors(layers)).to(self._device)

    def state(self, run: int) -> dict[str, Any]:
        """A run's network, by the names of an `FFN`'s state_dict, and its optimizer's states."""
        optimizer = to_arrays(self._state(self._columns[run]))
        return {"network": by_names(self.layers(run)), "optimizer": optimizer}

    def state_like(self, run: int, step: int) -> dict[str, Any]:
        """What `state` must be like after so many steps."""
        return self.state(run)

    def resume(self, states: Sequence[dict[str, Any]], step: int) -> None:
        """Let every run go on from what its `state` gave."""
        self.step = step
        of_row: list[dict[str, Tensor]] = [{} for _ in states]
        for index, state in zip(self._columns, states, strict=True):
            tensors = to_tensors(state)
            for name, parameter in by_names(self._layers).items():
                parameter[index].copy_(tensors["network"][name])
            of_row[index] = {k: v.to(self._device) for k, v in tensors["optimizer"].items()}
        self._set_up(self._θ, of_row)

    def logits(self, run: int, x: Array) -> Array:
        """A run's logits `[b, n_classes]` of `x [b, n_features]`."""
        logits = forward(self._layers_of(run), torch.from_numpy(x).to(self._device), self.activation)
        return logits.cpu().numpy()

    def layers(self, run: int) -> Layers:
        """A run's (W `[n_in, n_out]`, b `[n_out]`); on a CPU views, which the next step changes."""
        layers: Layers = to_arrays(self._layers_of(run))
        return layers

    def _layers_of(self, run: int) -> list[tuple[Tensor, Tensor]]:
        index = self._columns[run]
        return [(W[index], b[index]) for W, b in self._layers]

    def close(self) -> None:
        """Let go of every tensor: the next engine needs the memory, and garbage collection may come later."""
        vars(self).clear()


class _Captured:
    """A function on tensors that stay at their addresses, as a CUDA graph from its fourth call on."""

    def __init__(self, function: Callable[[], None]) -> None:
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
