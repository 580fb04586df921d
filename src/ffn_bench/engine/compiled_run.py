"""A run in the compiled engine: its data, measurements and state as the rest of the program knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ffn_bench.data.batches import batch_rows
from ffn_bench.data.rows import Array, Data
from ffn_bench.engine.compiled.cache import Cache
from ffn_bench.engine.compiled.compiled_engine import CompiledEngine, Rows
from ffn_bench.engine.metrics import Scoring
from ffn_bench.engine.protocol import Advanced, Layers, Order
from ffn_bench.model.initialisation import initial_layers
from ffn_bench.model.layers import by_names, from_names, layered
from ffn_bench.model.losses import criterion_of
from ffn_bench.optimizers import registry

if TYPE_CHECKING:
    from ffn_bench.engine.loop import Run


class CompiledRun:
    """One network in training on one core; see `protocol.Engine`."""

    name, device = "compiled", "cpu"

    def __init__(self, run: Run, data: Data[Array], say: Callable[[str], object]) -> None:
        """`say` takes what a person should know of the compiling, a line each."""
        cache = Cache(on_compile=lambda: say("compiling for this processor, once; later runs find it ready"))
        config, x = run.config, data.train.x
        self.data, self._steps = data, run.steps
        self._splits: dict[str, Rows] = {}
        self._scoring = Scoring.of_data(data)
        self.widths = [data.n_features, *config.model.widths(), data.n_outputs]
        layers = initial_layers(self.widths, config.model, config.seed_of("init"))
        rule = registry.elementwise_rule(config.optimizer)
        assert rule is not None
        self._engine = CompiledEngine(
            widths=self.widths,
            activation=config.model.activation,
            rule=rule,
            hyper=config.optimizer.hyperparameters(),
            rates=run.rates,
            x=x,
            y=data.train.y,
            batch_size=batch_rows(len(x), config.batch_size),
            steps=run.steps,
            weights=data.train.weights,
            criterion=criterion_of(config),
            l2=config.l2,
            l1=config.l1,
            θ=np.concatenate([t.ravel() for layer in layers for t in layer]).astype(x.dtype),
            cache=cache,
        )
        if cache.problem:
            say(cache.problem)

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._engine.step

    def begin_epoch(self, orders: Sequence[Order] | None, done: int) -> None:
        """Visit the training rows in an order, from the mini-batch after `done` on."""
        self._engine.begin_epoch(orders[0] if orders else None, done)

    def advance(self, count: int, log_every: int, log_last: bool) -> Advanced:
        """Make steps; none after one whose objective is not finite. The run's last step is always logged."""
        first = self._engine.step
        losses, norms = self._engine.advance(count, log_every)
        made = len(losses)
        at = [k for k in range(made) if (first + k + 1) % log_every == 0 or first + k + 1 == self._steps]
        if made and not math.isfinite(losses[-1, 1]) and made - 1 not in at:
            at.append(made - 1)
        measured = np.full((made, 4, 1), math.nan)
        measured[at, :, 0] = norms
        return Advanced(losses=losses[:, :, None], norms=measured)

    def evaluate(self, split: str) -> list[list[float]]:
        """Means of loss and scores over a split."""
        if split not in self._splits:
            self._splits[split] = self._engine.rows(*getattr(self.data, split))
        rows = self._splits[split]
        loss = self._engine.evaluate(rows)
        return [[loss, *self._scoring.scores(rows.logits, rows.y)]]

    def logits(self, run: int, x: Array) -> Array:
        """Logits `[b, n_classes]` of `x [b, n_features]`."""
        return self._engine.logits(np.ascontiguousarray(x))

    def layers(self, run: int = 0) -> Layers:
        """The weights now: views, (W `[n_in, n_out]`, b `[n_out]`) of every layer."""
        return layered(self._engine.θ, self.widths)

    def remember(self, runs: Sequence[int]) -> None:
        """Keep a copy of the weights."""
        self._remembered = self._engine.θ.copy()

    def remembered(self, run: int = 0) -> Layers:
        """The layers of the copy."""
        return layered(self._remembered, self.widths)

    def recall(self, run: int, layers: Layers) -> None:
        """Let these layers be the copy."""
        self._remembered = np.concatenate([t.ravel() for layer in layers for t in layer])

    def state(self, run: int = 0) -> dict[str, Any]:
        """The network by the names of an `FFN`'s state_dict, and the rule's states."""
        states = self._engine.state()
        return {"network": by_names(layered(states.pop("θ"), self.widths)), "optimizer": states}

    def state_like(self, run: int, step: int) -> dict[str, Any]:
        """What `state` must be like after so many steps."""
        return self.state()

    def resume(self, states: Sequence[dict[str, Any]], step: int) -> None:
        """Go on from what `state` gave."""
        (state,) = states
        θ = np.concatenate([t.ravel() for layer in from_names(state["network"]) for t in layer])
        self._engine.restore({"θ": θ, **state["optimizer"]}, step)

    def keep(self, runs: Sequence[int]) -> None:
        """Nothing: there is one run."""

    def close(self) -> None:
        """Nothing: its memory is the garbage collector's."""
