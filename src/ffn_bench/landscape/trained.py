"""A trained run loaded from its folder: its network at some step, data, trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.rows import Data
from ffn_bench.engine.build import Prepared
from ffn_bench.engine.tensors import on_device, to_tensors
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.losses import criterion_of
from ffn_bench.run_folder import trained_weights
from ffn_bench.run_folder.recorded_run import RecordedRun, prepare_again, read_run
from ffn_bench.run_folder.trained_weights import TrainedWeights


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run as it was at some step."""

    recorded: RecordedRun
    run: TrainConfig
    prepared: Prepared
    data: Data[Tensor]
    weights: TrainedWeights
    layers: list[tuple[Tensor, Tensor]]
    """Those weights as tensors."""
    logged: dict[str, float]
    """What the run measured at that step."""

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.recorded.folder

    @property
    def step(self) -> int:
        """That of the weights."""
        return self.weights.step

    @property
    def widths(self) -> list[int]:
        """Of every layer, the input's first."""
        return self.prepared.widths

    @property
    def steps_per_epoch(self) -> int:
        """Of the run."""
        return self.prepared.steps_per_epoch

    def initial_layers(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Its weights before the first step. Raises `UserError` (status 4) as `check_draws` does."""
        layers = trained_weights.initial_layers_of(self.recorded, self.widths)
        return [(torch.from_numpy(W).to(dtype), torch.from_numpy(b).to(dtype)) for W, b in layers]

    @property
    def name(self) -> str:
        """For legends."""
        return f"{self.run.optimizer.name}, lr {self.run.lr:g}"


def load(folder: Path, at: str = "last") -> Trained:
    """Read a run folder; nothing in it is executed. Everything is on the CPU, in the run's dtype.

    Raises `UserError` (status 4) as `read_run`, `prepare_again` and `weights_at` do.
    """
    recorded = read_run(folder)
    run, prepared = prepare_again(recorded)
    weights = trained_weights.weights_at(recorded, at, prepared)
    logged = {
        tag: float(curve.values[rows[-1]])
        for tag, curve in recorded.curves.items()
        if len(rows := np.flatnonzero(curve.steps == weights.step))
    }
    return Trained(
        recorded=recorded,
        run=run,
        prepared=prepared,
        data=on_device(prepared.data),
        weights=weights,
        layers=to_tensors(weights.layers),
        logged=logged,
    )


def trajectory(trained: Trained) -> tuple[Tensor, Tensor] | None:
    """Steps `[T]` and parameters `[T, P]` that the run saved, up to its last checkpoint; None if it saved
    none. Raises `UserError` (status 4) as `trained_weights.trajectory` does."""
    checkpoint = trained_weights.last_checkpoint(trained.recorded, trained.prepared)
    points = trained_weights.trajectory(trained.recorded, checkpoint, trained.prepared)
    return None if points is None else (torch.from_numpy(points[0]), torch.from_numpy(points[1]))


def check_compatible(trained: Sequence[Trained]) -> None:
    """Raise `UserError` (status 4) unless the runs share data, architecture and dtype."""
    first = trained[0]
    for other in trained[1:]:
        for what, a, b in (
            ("data", first.data.sha256, other.data.sha256),
            ("loss", *((criterion_of(t.run), t.run.loss.class_weight) for t in (first, other))),
            ("split", *((t.run.data.split_seed, t.run.data.duplicates) for t in (first, other))),
            ("widths", first.widths, other.widths),
            ("activation", first.run.model.activation, other.run.model.activation),
            ("dtype", first.run.dtype, other.run.dtype),
        ):
            if a != b:
                raise UserError(
                    str(other.folder),
                    f"differs from {first.folder} in its {what}",
                    "draw them separately",
                    RUN_FOLDER,
                )
