"""The torch engine: the lecture's forward and backward pass, one run, any optimizer of `torch.optim`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.data.rows import Array, Data
from ffn_bench.engine.evaluation import means
from ffn_bench.engine.metrics import Scoring
from ffn_bench.engine.protocol import Advanced, Layers, Order
from ffn_bench.engine.tensors import to_arrays, to_tensors
from ffn_bench.model.backprop import by_hand
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion
from ffn_bench.model.network import FFN
from ffn_bench.model.tensor_losses import mean_loss, penalised
from ffn_bench.model.torch_internals import foreach_norm
from ffn_bench.optimizers import torch_optimizers
from ffn_bench.optimizers.newton import Newton

FETCH = 2**18
"""Features fetched at once from the training set, 1 MB in float32: one gather for several mini-batches takes
less time than one for each, and a megabyte is still in the processor's cache when its batches are used."""


Batch = tuple[Tensor, Tensor, Tensor | None]
"""Features, labels or targets, weights."""


class TorchEngine:
    """One network in training; see `protocol.Engine`.

    `rate` gives the learning rate of a step, counted from 0; `batch_size` is in rows. `gradient` is
    `manual`, by the lecture's equations, or `autograd`, which is what `auto` means here.
    """

    name = "torch"

    def __init__(
        self,
        network: FFN,
        data: Data[Tensor],
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        *,
        batch_size: int,
        l2: float,
        gradient: str,
        l1: float = 0.0,
        criterion: Criterion = CROSS_ENTROPY,
    ) -> None:
        self.network, self.data, self.optimizer, self.rate = network, data, optimizer, rate
        self.batch_size, self.l2, self.l1, self.step = batch_size, l2, l1, 0
        self.criterion, self._scoring = criterion, Scoring.of_data(data)
        self._gradient = self._gradient_by_hand if gradient == "manual" else self._gradient_by_autograd
        self._parameters: list[Tensor] = list(network.parameters())
        self._device = data.train.x.device
        self.device = str(self._device)
        self._one = torch.ones((), device=self._device, dtype=data.train.x.dtype)  # ∂J/∂J
        # A step's hooks for profilers and torch.compile cost as much as the fused update of a small network.
        self._optimizer_step = inspect.unwrap(type(optimizer).step)

    # --- the steps --------------------------------------------------------------------------------------

    def begin_epoch(self, orders: Sequence[Order] | None, done: int) -> None:
        """Visit the training rows in an order, from the mini-batch after `done` on."""
        self._batches = self._mini_batches(orders[0][done * self.batch_size :] if orders else None)

    def _mini_batches(self, order: Order | None) -> Iterator[Batch]:
        """Slices of the permuted training rows: `x [b, n_features]`, `y [b, …]`, their weights `[b]`."""
        train, b = self.data.train, self.batch_size
        if order is None:
            yield train.x, train.y, train.weights
            return
        # Rows are fetched for several batches at once, but no more than a cache holds.
        fetched = b * max(1, FETCH // (b * train.x.shape[1]))
        for rows in torch.from_numpy(order).to(self._device).split(fetched):
            parts = rows.split(b)
            weights = [None] * len(parts) if train.weights is None else train.weights[rows].split(b)
            yield from zip(
                train.x.index_select(0, rows).split(b), train.y[rows].split(b), weights, strict=True
            )

    def advance(self, count: int, log_every: int, log_last: bool) -> Advanced:
        """Make steps; on a CPU none after one whose objective is not finite. Reads from the device once."""
        losses, objectives, norms = [], [], {}
        for made, batch in enumerate(islice(self._batches, count), start=1):
            is_logged = (self.step + 1) % log_every == 0 or (log_last and made == count)
            before = [p.detach().clone() for p in self._parameters] if is_logged else None
            loss, objective = self._update(*batch)
            self.step += 1
            losses.append(loss)
            objectives.append(objective)
            # A run ends with the step whose objective is NaN or ∞; that step is a log point, too. On a GPU
            # reading every loss would synchronise every step; there it is seen after the last one.
            ends = self._device.type == "cpu" and not math.isfinite(objective.item())
            if is_logged or ends:
                norms[made - 1] = self._norms(before)
            if ends:
                break
        # All numbers in one tensor, so that the device is waited for once: first the losses, then the
        # objectives, then of each log point ‖g‖, ‖θ‖ …, each of them one number for every parameter tensor,
        # whose squares add up: ‖θ‖² = Σ ‖W‖² + Σ ‖b‖².
        values = torch.stack([*losses, *objectives, *(n for four in norms.values() for n in four)]).tolist()
        made = len(losses)
        measured = np.full((made, 4, 1), math.nan)
        k, at = len(self._parameters), 2 * made
        for row in norms:
            for which in range(4):
                measured[row, which, 0] = math.hypot(*values[at : at + k])
                at += k
        both = np.array([values[:made], values[made : 2 * made]])
        return Advanced(losses=both.T[:, :, None], norms=measured)

    def _update(self, x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step of the optimizer on one mini-batch: loss and objective before it, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        if not isinstance(self.optimizer, (torch.optim.LBFGS, Newton)):
            loss, objective = self._gradient(x, y, weights)
            with torch.no_grad():
                self._optimizer_step(self.optimizer)
            return loss, objective
        # These look at the objective several times: first where the step begins, then at trial points.
        evaluate = self._objective if isinstance(self.optimizer, Newton) else self._gradient
        evaluations = []

        def closure() -> Tensor:
            evaluations.append(evaluate(x, y, weights))
            return evaluations[-1][1]

        self.optimizer.step(closure)
        loss, objective = evaluations[0]
        return loss.detach(), objective.detach()

    def _gradient_by_autograd(self, x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The lecture's forward and backward pass (L1), Ω added to the loss (L5): loss, objective."""
        loss, objective = self._objective(x, y, weights)
        for parameter in self._parameters:  # optimizer.zero_grad(), without its bookkeeping
            parameter.grad = None
        objective.backward(self._one)
        detached = loss.detach()
        return detached, objective.detach() if self.l2 or self.l1 else detached

    def _gradient_by_hand(self, x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same by the lecture's equations (L11)."""
        net = self.network
        gradients = by_hand(net.layers, x, y, net.activation, self.l2, self.l1, self.criterion, weights)
        for (W, b), (dW, db) in zip(self.network.layers, gradients.layers, strict=True):
            W.grad, b.grad = dW, db
        return gradients.loss, gradients.objective

    def _objective(self, x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Forward pass: loss and objective, with their graph."""
        loss = mean_loss(self.network.forward(x), y, self.criterion, weights)
        return loss, penalised(loss, self.network.layers, self.l2, self.l1)

    def _norms(self, before: list[Tensor] | None) -> list[Tensor]:
        """Of every parameter: ‖g‖, ‖θ‖, how far it went from where it was `before`, if that is known, and
        ‖θ‖ there."""
        with torch.no_grad():
            if before is None:
                before = [torch.full_like(p, math.nan) for p in self._parameters]
            changes = [after - start for after, start in zip(self._parameters, before, strict=True)]
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            groups = (gradients, self._parameters, changes, before)
            return [n for group in groups for n in foreach_norm(group)]

    # --- what there is besides --------------------------------------------------------------------------

    def evaluate(self, split: str) -> list[list[float]]:
        """Means of loss and scores over a split."""
        return [means(self.network, getattr(self.data, split), self._scoring, self.criterion)]

    @torch.no_grad()
    def logits(self, run: int, x: Array) -> Array:
        """Logits `[b, n_classes]` of `x [b, n_features]`."""
        logits: Array = self.network(torch.from_numpy(x).to(self._device)).cpu().numpy()
        return logits

    def layers(self, run: int = 0) -> Layers:
        """The weights now: (W `[n_in, n_out]`, b `[n_out]`) of every layer."""
        layers: Layers = to_arrays(self.network.layers)
        return layers

    def remember(self, runs: Sequence[int]) -> None:
        """Keep a copy of the weights."""
        self._remembered = [(W.detach().clone(), b.detach().clone()) for W, b in self.network.layers]

    def remembered(self, run: int = 0) -> Layers:
        """The layers of the copy."""
        layers: Layers = to_arrays(self._remembered)
        return layers

    def recall(self, run: int, layers: Layers) -> None:
        """Let these layers be the copy."""
        self._remembered = to_tensors(layers)

    def state(self, run: int = 0) -> dict[str, Any]:
        """The network's parameters, and the optimizer's state."""
        state = {"network": dict(self.network.state_dict()), "optimizer": self.optimizer.state_dict()}
        return {name: to_arrays(part) for name, part in state.items()}

    def state_like(self, run: int, step: int) -> dict[str, Any]:
        """What `state` must be like after so many steps."""
        groups = [{**group, "lr": _is_rate} for group in self.optimizer.state_dict()["param_groups"]]
        optimizer = {"state": torch_optimizers.state_after(self.optimizer, step), "param_groups": groups}
        return {"network": to_arrays(dict(self.network.state_dict())), "optimizer": to_arrays(optimizer)}

    def resume(self, states: Sequence[dict[str, Any]], step: int) -> None:
        """Go on from what `state` gave."""
        state = to_tensors(states[0])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = step

    def keep(self, runs: Sequence[int]) -> None:
        """Nothing: there is one run."""

    def close(self) -> None:
        """Let go of every tensor."""
        vars(self).clear()


def _is_rate(value: Any) -> bool:
    return type(value) is float and 0 <= value < math.inf
