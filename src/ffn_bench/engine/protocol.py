"""What an engine is: it advances networks, and knows nothing of log points, epochs' ends or signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]
"""In the dtype of the run."""
Layers = list[tuple[Numbers, Numbers]]
"""(W `[n_in, n_out]`, b `[n_out]`) of every layer."""
Order = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Steps that an engine has made, k of them, for each of its runs."""

    losses: Array
    """`[k, 2, runs]`: loss and objective of every step's mini-batch, before its update."""
    norms: Array
    """`[k, 4, runs]`: ‖g‖, ‖θ‖ after the step, how far θ went, and ‖θ‖ before it. NaN where not measured."""


class Engine(Protocol):
    """Networks in training, one or several side by side, each a column of what is returned.

    Between two calls its state is complete: what follows depends on it alone, to the last bit, and not on
    how the steps are divided into calls.
    """

    name: str
    """As checkpoints have it; only the engine that took a state resumes from it."""
    device: str
    """As PyTorch names it."""

    @property
    def step(self) -> int:
        """Updates made so far."""

    def begin_epoch(self, orders: Sequence[Order] | None, done: int) -> None:
        """Visit the training rows in these orders `[n]`, one for each run; None is the full batch.

        `done` mini-batches of them were trained on before.
        """

    def advance(self, count: int, log_every: int, log_last: bool) -> Advanced:
        """Make `count` steps, all in this epoch; fewer where an objective is no longer finite.

        Norms are measured at steps whose number divides by `log_every`, at the last one if `log_last`, and at
        one that is the last for its objective, as far as they are known there.
        """

    def evaluate(self, split: str) -> Sequence[Sequence[float]]:
        """Means over a split, which has rows: the loss, then each of the task's scores; for each run."""

    def logits(self, run: int, x: Numbers) -> Numbers:
        """A run's logits `[b, n_classes]` of `x [b, n_features]`."""

    def layers(self, run: int) -> Layers:
        """A run's weights now: (W `[n_in, n_out]`, b `[n_out]`) of every layer. The next step may change
        them."""

    def remember(self, runs: Sequence[int]) -> None:
        """Keep a copy of the weights that these runs have now, in place of an earlier one."""

    def remembered(self, run: int) -> Layers:
        """The layers of a run's copy, which it must have."""

    def recall(self, run: int, layers: Layers) -> None:
        """Let these layers be a run's copy."""

    def state(self, run: int) -> dict[str, Any]:
        """A run's network and optimizer, as nested dicts of arrays and plain values."""

    def state_like(self, run: int, step: int) -> dict[str, Any]:
        """What `state` must be like after so many steps, for `checkpoint_state.check`."""

    def resume(self, states: Sequence[dict[str, Any]], step: int) -> None:
        """Go on from what `state` gave for each run after so many steps.

        Raises `ValueError` for a state that it cannot take.
        """

    def keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs only, in this order."""

    def close(self) -> None:
        """Let go of every tensor; it is of no use then."""
