"""The eager engine: the lecture's training loop, one run, any optimizer of `torch.optim`."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ffn_bench import tags
from ffn_bench.data.splitting import Data, batch_rows, epoch_order
from ffn_bench.engine import checkpoint_state
from ffn_bench.engine.metrics import Measurement, evaluate_all, log_point
from ffn_bench.engine.stop import Stop
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.backprop import by_hand, penalty
from ffn_bench.model.network import FFN
from ffn_bench.model.torch_internals import foreach_norm
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.newton import Newton
from ffn_bench.optimizers.schedules import Schedule

FETCH = 2**18
"""Features fetched at once from the training set: 1 MB in float32."""


def _is_rate(value: Any) -> bool:
    return type(value) is float and 0 <= value < math.inf


def steps_per_epoch(n: int, batch_size: int | str, drop_last: bool) -> int:
    """Updates that one pass over n training rows makes."""
    if batch_size == "full":
        return 1
    assert isinstance(batch_size, int)
    return n // batch_size if drop_last else math.ceil(n / batch_size)


class EagerRun:
    """One network in training. Iterate over `measurements`; in between, the state is a complete one.

    `status` is `running`, then `finished` or `diverged` (with the `reason`: which loss, which step).
    `train_seconds` counts the updates only, not the evaluation and whatever the caller does between
    measurements.
    """

    def __init__(
        self,
        network: FFN,
        data: Data,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        lr: float,
        epochs: int,
        batch_size: int | str,
        drop_last: bool,
        seed: int,
        l2: float,
        log_every: int,
        gradient: str,
    ) -> None:
        self.network, self.data, self.optimizer, self.schedule = network, data, optimizer, schedule
        self.lr, self.epochs, self.seed, self.l2, self.log_every = lr, epochs, seed, l2, log_every
        n = len(data.train.y)
        self._gradient = self._gradient_by_hand if gradient == "manual" else self._gradient_by_autograd
        self.steps_per_epoch = steps_per_epoch(n, batch_size, drop_last)
        self.steps = epochs * self.steps_per_epoch
        self.batch_size = batch_rows(n, batch_size)
        self.step = self.epoch = 0
        self.train_seconds = 0.0
        self.status, self.reason = "running", ""
        self.stop = Stop()
        self._resumed = False
        self.parameters: list[Tensor] = list(network.parameters())
        self._on_cpu = data.train.x.device.type == "cpu"
        self._one = torch.ones((), device=data.train.x.device, dtype=data.train.x.dtype)  # ∂J/∂J
        # A step's hooks for profilers and torch.compile cost as much as the fused update of a small network.
        self._optimizer_step = inspect.unwrap(type(optimizer).step)
        self._losses: list[Tensor] = []
        self._objectives: list[Tensor] = []

    def measurements(self) -> Iterator[Measurement]:
        """Train, and yield what is measured: before the first update, at log points, after each epoch.

        Ends early, between two steps, where a `stop` is requested.
        """
        if not self._resumed:
            yield self._evaluate()
        done = self.step % self.steps_per_epoch  # steps of an epoch that a checkpoint was taken in
        for epoch in range(self.step // self.steps_per_epoch + 1, self.epochs + 1):
            if self.stop.requested or self.status == "diverged":
                return
            self.epoch = epoch
            self._start_clock()
            for x, y in self._batches(done):
                log_point = (self.step + 1) % self.log_every == 0 or self.step + 1 == self.steps
                before = [p.detach().clone() for p in self.parameters] if log_point else None
                self._update(x, y)
                self.step += 1
                # On a GPU reading every loss would synchronise every step; there the next log point finds it.
                if log_point or (self._on_cpu and not math.isfinite(self._objectives[-1].item())):
                    self._stop_clock()
                    yield self._log_point(before)
                    if self.status == "diverged":
                        return
                    self._start_clock()
                if self.stop.requested and self.step % self.steps_per_epoch:
                    self._stop_clock()
                    return
            self._stop_clock()
            done = 0
            yield self._evaluate()
            if self.status == "diverged":
                return
        self.status = "finished"

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The current weights: (W `[n_in, n_out]`, b `[n_out]`) of every layer, detached."""
        return [(W.detach(), b.detach()) for W, b in self.network.layers]

    def state(self) -> dict[str, Any]:
        """A complete state: the progress of the run, the network's tensors, the optimizer's."""
        progress = {"epoch": self.epoch, "step": self.step, "train_seconds": self.train_seconds}
        states = {"network": dict(self.network.state_dict()), "optimizer": self.optimizer.state_dict()}
        window = [torch.stack(losses) for losses in (self._losses, self._objectives) if losses]
        return {"engine": "eager", **progress, **states, "window": window}

    def resume(self, state: dict[str, Any]) -> None:
        """Resume from what `state` gave. Raises `UserError` for a state that does not belong to this run."""
        try:
            self._check(state)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as e:
            raise UserError(
                "checkpoint", f"does not match this run: {str(e).splitlines()[0]}", "", RUN_FOLDER
            ) from e
        self._resumed = True
        self.step, self.epoch, self.train_seconds = state["step"], state["epoch"], state["train_seconds"]
        losses, objectives = state["window"] or [torch.empty(0)] * 2
        device = self.data.train.x.device
        self._losses, self._objectives = list(losses.to(device)), list(objectives.to(device))

    def _check(self, state: dict[str, Any]) -> None:
        """Raise `ValueError` unless a state is what `state` would give at some step of this run."""
        if state["engine"] != "eager":
            raise ValueError(f"it is from the {state['engine']} engine")
        checkpoint_state.check_progress(state, self.steps, self.steps_per_epoch)
        step = state["step"]
        like = {**self.state(), **{key: state[key] for key in checkpoint_state.PROGRESS}}
        waiting = 0 if step == self.steps else step % self.log_every
        losses = torch.empty(waiting, dtype=self._one.dtype)
        like["window"] = (lambda window: window == []) if waiting == 0 else lambda window: len(window) == 2
        inner = registry.state_after(self.optimizer, step)
        groups = [{**group, "lr": _is_rate} for group in self.optimizer.state_dict()["param_groups"]]
        like["optimizer"] = {"state": inner, "param_groups": groups}
        checkpoint_state.check({key: value for key, value in state.items() if key != "files"}, like)
        for values in state["window"]:
            checkpoint_state.check(values, losses, "window")

    def _batches(self, done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This epoch's mini-batches from the one after `done` on: slices of the permuted training rows."""
        train, b = self.data.train, self.batch_size
        if b == len(train.y):
            yield train.x, train.y
            return
        order = epoch_order(len(train.y), self.seed, self.epoch)[done * b : self.steps_per_epoch * b]
        order = order.to(train.y.device)
        # Rows are fetched for several batches at once, but no more than a cache holds.
        fetched = b * max(1, FETCH // (b * train.x.shape[1]))
        for rows in order.split(fetched):
            yield from zip(train.x.index_select(0, rows).split(b), train.y[rows].split(b), strict=True)

    def _update(self, x: Tensor, y: Tensor) -> None:
        """One step of the optimizer on one mini-batch; its losses stay on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.schedule(self.step)
        if isinstance(self.optimizer, (torch.optim.LBFGS, Newton)):
            evaluate = self._objective if isinstance(self.optimizer, Newton) else self._gradient
            evaluations = []

            def closure() -> Tensor:
                evaluations.append(evaluate(x, y))
                return evaluations[-1][1]

            self.optimizer.step(closure)
            loss, objective = (value.detach() for value in evaluations[0])  # later ones are at trial points
        else:
            loss, objective = self._gradient(x, y)
            with torch.no_grad():
                self._optimizer_step(self.optimizer)
        self._losses.append(loss)
        self._objectives.append(objective)

    def _gradient_by_autograd(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The lecture's forward and backward pass (L1), Ω added to the loss (L5): loss, objective."""
        loss, objective = self._objective(x, y)
        for parameter in self.parameters:  # optimizer.zero_grad(), without its bookkeeping
            parameter.grad = None
        objective.backward(self._one)
        detached = loss.detach()
        return detached, objective.detach() if self.l2 else detached

    def _gradient_by_hand(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The same by the lecture's equations (L11)."""
        gradients = by_hand(self.network.layers, x, y, self.network.activation, self.l2)
        for (W, b), (dW, db) in zip(self.network.layers, gradients.layers, strict=True):
            W.grad, b.grad = dW, db
        return gradients.loss, gradients.objective

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Forward pass: loss and objective, with their graph."""
        loss = F.cross_entropy(self.network.forward(x), y)
        return loss, loss + self.l2 * penalty(self.network.layers) if self.l2 else loss

    def _log_point(self, before: list[Tensor] | None) -> Measurement:
        """Means over the window since the last point, and this step's norms: the one synchronisation.

        Where a divergence is found between log points, the weights `before` the step are not known.
        """
        with torch.no_grad():
            if before is None:
                before = [torch.full_like(p, math.nan) for p in self.parameters]
            changes = [after - start for after, start in zip(self.parameters, before, strict=True)]
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            groups = (gradients, self.parameters, changes, before)
            norms = [n for group in groups for n in foreach_norm(group)]
        numbers = torch.stack([*self._losses, *self._objectives, *norms]).tolist()
        n = len(self._losses)
        losses, objectives = numbers[:n], numbers[n : 2 * n]
        k = len(self.parameters)
        grad_norm, weight_norm, change, norm_before = (
            math.hypot(*numbers[2 * n + j * k : 2 * n + (j + 1) * k]) for j in range(4)
        )
        self._losses.clear()
        self._objectives.clear()
        for k, objective in enumerate(objectives):
            if not math.isfinite(objective):
                at = self.step - n + k + 1
                self._diverge(f"{tags.OBJECTIVE.tag('train')} is {objective} at step {at}")
                break
        return self._measurement(
            log_point(
                loss=sum(losses) / n,
                objective=sum(objectives) / n,
                lr=self.lr * self.schedule(self.step - 1),
                grad_norm=grad_norm,
                weight_norm=weight_norm,
                change=change,
                norm_before=norm_before,
            )
        )

    def _evaluate(self) -> Measurement:
        values = evaluate_all(self.network, self.data)
        for tag, value in values.items():
            if not math.isfinite(value):
                self._diverge(f"{tag} is {value} after step {self.step}")
                break
        return self._measurement(values, ends_epoch=True)

    def _diverge(self, reason: str) -> None:
        self.status, self.reason = "diverged", f"{reason} (epoch {self.epoch})"

    def _measurement(self, values: dict[str, float], ends_epoch: bool = False) -> Measurement:
        return Measurement(self.step, self.epoch, self.train_seconds, values, ends_epoch)

    def _start_clock(self) -> None:
        self._started = time.perf_counter()

    def _stop_clock(self) -> None:
        if self.data.train.y.is_cuda:
            torch.cuda.synchronize(self.data.train.y.device)
        self.train_seconds += time.perf_counter() - self._started
