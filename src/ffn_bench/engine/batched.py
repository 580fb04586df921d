"""The batched engine: mini-batches with a leading run axis; many runs advance in one tensor program.

A `BatchedEngine` trains runs that share data, layer widths, activation, batch size and dtype. What tells
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffn_bench import tags
from ffn_bench.configuration.schema import TorchOptimizerConfig, TrainConfig, count_parameters
from ffn_bench.configuration.validation import FULL_BATCH_ONLY
from ffn_bench.data.splitting import Data, Split, batch_rows
from ffn_bench.engine.device import SMALL_STEP, THREADS, multiply_adds
from ffn_bench.engine.inplace import InPlace, first_state, in_place
from ffn_bench.engine.metrics import by_name, by_tag
from ffn_bench.engine.protocol import Advanced, Order
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.layers import flat
from ffn_bench.model.network import FFN, forward
from ffn_bench.optimizers import registry
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


class Row(Protocol):
    """One run of the engine: a `loop.Run`."""

    config: TrainConfig

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""


@dataclass
class Segment:
    """Rows of a tile that lie side by side and share an update rule."""

    rows: list[Row]
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
        if any(row.config.schedule.name != "constant" for row in self.rows):
            lr = np.array([[[row.rate(t)] for row in self.rows] for t in steps])
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


class BatchedEngine:
    """Runs in training side by side, which must have equal `group_key`s; see `protocol.Engine`.

    `data` is on the device and in the dtype of the runs.
    """

    name = "batched"

    def __init__(self, runs: Sequence[Row], data: Data) -> None:
        first, x = runs[0].config, data.train.x
        self.data, self.step = data, 0
        self.device, self.dtype = x.device, x.dtype
        self.widths = [data.n_features, *first.model.widths(), len(data.classes)]
        self.activation = ACTIVATIONS[first.model.activation]
        self.batch_size = batch_rows(len(data.train.y), first.batch_size)

        # Runs of one rule must lie side by side: `_columns` says where each of `runs` is.
        order = sorted(range(len(runs)), key=lambda k: _segment_key(runs[k].config))
        self._rows = [runs[k] for k in order]
        self._columns = [order.index(k) for k in range(len(runs))]
        θ = torch.stack([self._start(row.config) for row in self._rows])
        self._weight = torch.cat([_ones_for_weights(a, b) for a, b in itertools.pairwise(self.widths)])
        self._weight = self._weight.to(self.device, self.dtype)
        self._compiled = first.compile
        self._plain = self.device.type == "cpu" and not first.compile
        self._set_up(θ.to(self.device, self.dtype), None)

    def resume(self, states: Sequence[dict[str, Any]], step: int) -> None:
        """Let every run go on from what its `state` gave."""
        self.step = step
        of_row: list[dict[str, Tensor]] = [{} for _ in states]
        for index, state in zip(self._columns, states, strict=True):
            for k, (W, b) in enumerate(self._layers):
                W[index].copy_(state["network"][f"weights.{k}"])
                b[index, :, 0].copy_(state["network"][f"biases.{k}"])
            of_row[index] = {k: v.to(self.device) for k, v in state["optimizer"].items()}
        self._set_up(self.θ, of_row)

    def close(self) -> None:
        """Let go of every tensor. On a GPU the next engine needs the memory, and garbage collection may come
        later."""
        vars(self).clear()

    def _start(self, config: TrainConfig) -> Tensor:
        """A run's first parameters, `[P]`: those of the torch engine."""
        network = FFN(self.widths, config.model, config.seed_of("init"), self.dtype)
        return flat(network.layers).detach()

    # --- what a step works on ---------------------------------------------------------------------------

    def _set_up(self, θ: Tensor, states: list[dict[str, Tensor]] | None) -> None:
        """Lay out every buffer for the rows in `_rows`, whose parameters are θ."""
        R, b = len(self._rows), _aligned(self.batch_size)
        like: Any = {"device": self.device, "dtype": self.dtype}
        self.θ, self._g, self._spare = θ, torch.empty_like(θ), torch.empty_like(θ)
        self._layers, self._gradients = self._views(self.θ), self._views(self._g)
        self._h_bars = [torch.empty(R, n, b, **like) for n in self.widths[1:]]
        self._g_bars = [torch.empty(R, n, b, **like) for n in self.widths[1:-1]]
        self._now = torch.zeros(2, R, **like)  # losses and objectives of this step
        decay = torch.tensor([row.config.l2 for row in self._rows], **like)
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
        begin = 0
        for _, group in itertools.groupby(self._rows, key=lambda row: _segment_key(row.config)):
            members = list(group)
            part = slice(begin, begin + len(members))
            begin = part.stop
            rule = registry.rule_of(members[0].config.optimizer)
            assert rule is not None
            settings = [row.config.optimizer.hyperparameters() for row in members]
            hyper = {key: _columns([s[key] for s in settings]) for key in settings[0]}
            if states is None:
                columns = {key: self._tensor(value) for key, value in hyper.items()}
                state = first_state(rule, θ[part], columns)
            else:
                state = {key: torch.stack([s[key] for s in states[part]]) for key in states[part.start]}
            mine = (self.θ[part], self._g[part], self._spare[part])
            self._segments.append(Segment(members, in_place(rule), hyper, state, *mine))
        self._chunk_ends = self.step
        self._watched = torch.tensor(self._columns, device=self.device)
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

    # --- steps ------------------------------------------------------------------------------------------

    def begin_epoch(self, orders: Sequence[Order] | None, done: int) -> None:
        """Visit the training rows in these orders, one for each run, from the mini-batch after `done` on."""
        self._drop_others()
        self._batches = self._mini_batches(orders, done)

    def _mini_batches(
        self, orders: Sequence[Order] | None, done: int
    ) -> Iterator[tuple[Tensor, Tensor, int] | None]:
        """Mini-batches: rows `[runs × b]` of the training set, labels `[runs, 1, b]`, and how many columns
        count. None stands for the full batch, which is there already.
        """
        if orders is None:
            yield None
            return
        b = self.batch_size
        of_row = dict(zip(self._columns, orders, strict=True))  # a run that has ended takes any
        order = torch.from_numpy(np.stack([of_row.get(row, orders[0]) for row in range(len(self._rows))]))
        for first in range(done * b, order.shape[1], FETCHED * b):
            for size, rows in _in_batches(order[:, first : first + FETCHED * b], b, _aligned(b)):
                rows = rows.to(self.device)
                labels = self.data.train.y[rows].unsqueeze(2)
                yield from zip(rows.flatten(1), labels, itertools.repeat(size))

    def advance(self, count: int, log_every: int, log_last: bool) -> Advanced:
        """Make steps; on a CPU none after one with an objective that is not finite. Reads losses once."""
        losses = torch.empty(count, 2, len(self._rows), device=self.device, dtype=self.dtype)
        norms: dict[int, Tensor] = {}
        made = 0
        for batch in itertools.islice(self._batches, count):
            is_logged = (self.step + 1) % log_every == 0 or (log_last and made + 1 == count)
            before = self.θ.clone() if is_logged else None
            self._step(batch, is_logged)
            losses[made].copy_(self._now)
            # On a GPU a look at every loss would stop it every time; there it is seen after the last step.
            ends = self.device.type == "cpu" and not bool(self._now[1, self._watched].isfinite().all())
            if is_logged or ends:
                norms[made] = self._norms(before)
            made += 1
            if ends:
                break
        measured = np.full((made, 4, len(self._columns)), math.nan)
        for k, values in norms.items():
            measured[k] = values[:, self._watched].double().cpu().numpy()
        return Advanced(losses=losses[:made, :, self._watched].double().cpu().numpy(), norms=measured)

    def _step(self, batch: tuple[Tensor, Tensor, int] | None, is_logged: bool) -> None:
        """One step of every row on its own mini-batch."""
        if batch is not None:
            rows, labels, size = batch
            torch.index_select(self.data.train.x, 0, rows, out=self._x_rows)
            self._y.copy_(labels)
            if size != self._weighed:
                self._weigh(size)
        self._fetch_coefficients()
        backward, update = self._step_functions
        backward()
        self._g_norm = _norms(self._g) if is_logged else None  # the update overwrites g
        update()
        self.step += 1

    def _norms(self, before: Tensor | None) -> Tensor:
        """`[4, runs]`: ‖g‖, ‖θ‖, how far θ went from where it was `before`, ‖θ‖ there; where that is not
        known, ‖θ‖ alone."""
        if before is None or self._g_norm is None:
            unknown = torch.full_like(self.θ[:, 0], math.nan)
            return torch.stack([unknown, _norms(self.θ), unknown, unknown])
        change = torch.sub(self.θ, before, out=self._spare)
        return torch.stack([self._g_norm, *map(_norms, (self.θ, change, before))])

    @torch.no_grad()
    def evaluate(self) -> list[dict[str, float]]:
        """Losses and scores of the splits that have rows, as `metrics.evaluate_all`, for every run."""
        by_row: list[dict[str, float]] = [{} for _ in self._rows]
        for name in tags.SPLITS:
            split: Split = getattr(self.data, name)
            if len(split.y):
                for values, (loss, *scores) in zip(by_row, self._evaluate_part(split), strict=True):
                    values |= by_tag(name, by_name(loss, scores))
        return [by_row[index] for index in self._columns]

    def _evaluate_part(self, split: Split) -> list[list[float]]:
        """For every row its means over a split: cross-entropy, then each of `tags.SCORES`."""
        R, n = len(self._rows), len(split.y)
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

    # --- runs -------------------------------------------------------------------------------------------

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs only; the others leave with the next epoch."""
        self._columns = [self._columns[run] for run in runs]
        self._watched = torch.tensor(self._columns, device=self.device)

    def _drop_others(self) -> None:
        """Go on without the rows that have ended. The others' bits are the same with them and without.

        A compiled or captured step would have to be made anew, so there half of the rows must have ended.
        """
        going = sorted(self._columns)
        worth = len(going) < len(self._rows) if self._plain else 2 * len(going) <= len(self._rows)
        if not worth:
            return
        θ, states = self.θ[going], [self._state(index) for index in going]
        self._rows = [self._rows[index] for index in going]
        self._columns = [going.index(index) for index in self._columns]
        self._set_up(θ, states)

    def _state(self, index: int) -> dict[str, Tensor]:
        """A row of the optimizer's state."""
        for segment in self._segments:
            if index < len(segment.rows):
                return {key: value[index] for key, value in segment.state.items()}
            index -= len(segment.rows)
        raise IndexError

    def state(self, run: int) -> dict[str, Any]:
        """A run's network, by the names of an `FFN`'s state_dict, and its optimizer's state."""
        network = {}
        for k, (W, b) in enumerate(self.layers(run)):
            network[f"weights.{k}"], network[f"biases.{k}"] = W, b
        return {"network": network, "optimizer": self._state(self._columns[run])}

    def state_like(self, run: int, step: int) -> dict[str, Any]:
        """What `state` must be like after so many steps."""
        return self.state(run)

    def logits(self, run: int, x: Tensor) -> Tensor:
        """A run's logits `[b, n_classes]` of `x [b, n_features]`."""
        return forward(self.layers(run), x, self.activation)

    def layers(self, run: int) -> list[tuple[Tensor, Tensor]]:
        """A run's (W `[n_in, n_out]`, b `[n_out]`): views that the next step changes."""
        index = self._columns[run]
        return [(W[index], b[index, :, 0]) for W, b in self._layers]


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
