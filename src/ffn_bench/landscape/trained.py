"""A trained run loaded from its folder: the network at the last checkpoint, data, trajectory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from ffn_bench.configuration.schema import TrainConfig, count_parameters
from ffn_bench.data.splitting import Data
from ffn_bench.engine import checkpoint_state
from ffn_bench.engine.tensors import on_device, to_tensors
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.layers import flat
from ffn_bench.model.network import FFN
from ffn_bench.run_folder import checkpoints, identity
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import prepare_again, read_run
from ffn_bench.run_folder.writers import Trajectory

LARGEST = 1e15
"""A weight beyond this has diverged: float32 cannot square it."""


@dataclass(frozen=True)
class Trained:
    """A run as it was at its last checkpoint."""

    folder: Path
    run: TrainConfig
    data: Data[Tensor]
    widths: list[int]
    layers: list[tuple[Tensor, Tensor]]
    step: int
    steps_per_epoch: int
    checkpoint: str
    """Name of the file, which holds its checksum."""
    logged: dict[str, float]
    """What the run measured at that step."""
    trajectory: tuple[int, str | None] | None
    """Size and SHA-256 of its file at that step, if the run writes one."""
    format: int
    """Of its folder."""

    def initial_layers(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Its weights before the first step. Raises `UserError` (status 4) as `check_draws` does."""
        identity.check_draws(Folder(self.folder), self.format)
        network = FFN(self.widths, self.run.model, self.run.seed_of("init"), dtype)
        return [(W.detach(), b.detach()) for W, b in network.layers]

    @property
    def name(self) -> str:
        """For legends."""
        return f"{self.run.optimizer.name}, lr {self.run.lr:g}"


def load(folder: Path) -> Trained:
    """Read a run folder; nothing in it is executed. Everything is on the CPU, in the run's dtype.

    Raises `UserError` (status 4) as `read_run` and `prepare_again` do, and where it has no checkpoint.
    """
    recorded = read_run(folder)
    run, prepared = prepare_again(recorded)
    inside = Folder(folder)
    try:
        name, _ = checkpoints.find(inside)
    except UserError as e:
        raise UserError(e.where, e.what, "use another run, or train it again", e.status) from e
    if name is None:
        raise UserError(str(folder), "has no checkpoint", "use a run that has finished", RUN_FOLDER)
    state = checkpoints.load(inside, name)
    shapes = list(itertools.pairwise(prepared.widths))
    try:
        checkpoint_state.check_progress(
            state, run.epochs * prepared.steps_per_epoch, prepared.steps_per_epoch
        )
        file_state = state["files"].get(Trajectory.NAME) if isinstance(state.get("files"), dict) else None
        file_size = None if file_state is None else checkpoints.noted_size(file_state)
        network = state["network"]
        layers = [(network[f"weights.{k}"], network[f"biases.{k}"]) for k in range(len(shapes))]
        fits = all(
            tuple(W.shape) == shape and tuple(b.shape) == shape[1:] and W.dtype == b.dtype == prepared.dtype
            for (W, b), shape in zip(layers, shapes, strict=True)
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"{inside}/{name}", "does not fit the run's configuration", "", RUN_FOLDER)
    logged = {
        tag: float(curve.values[at[-1]])
        for tag, curve in recorded.curves.items()
        if len(at := np.flatnonzero(curve.steps == state["step"]))
    }
    return Trained(
        folder,
        run,
        on_device(prepared.data),
        prepared.widths,
        to_tensors(layers),
        int(state["step"]),
        prepared.steps_per_epoch,
        name.rpartition("/")[2],
        logged,
        file_size,
        recorded.format,
    )


def trajectory(trained: Trained) -> tuple[Tensor, Tensor] | None:
    """Steps `[T]` and parameters `[T, P]` that the run saved, up to its checkpoint; None if it saved none.

    Raises `UserError` (status 4) for a file that is not a trajectory of this network, from its initialisation
    through every epoch's end to the weights of the checkpoint.
    """
    path = trained.folder / Trajectory.NAME
    content = Folder(trained.folder).read(Trajectory.NAME, psutil.virtual_memory().available // 2)
    if trained.trajectory is None:
        return None
    size, digest = trained.trajectory
    if content is None or len(content) < size:
        raise UserError(
            str(path), "is shorter than the checkpoint records: it was truncated", identity.REPAIR, RUN_FOLDER
        )
    content = content[:size]
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        what = "does not match its checksum: it was modified"
        raise UserError(str(path), what, identity.REPAIR, RUN_FOLDER)
    number = np.dtype(np.float64 if trained.run.dtype == "float64" else np.float32).newbyteorder("<")
    record = np.dtype([("step", "<i8"), ("theta", number, (count_parameters(trained.widths),))])

    def invalid(what: str) -> UserError:
        return UserError(str(path), what, "leave it out", RUN_FOLDER)

    if len(content) % record.itemsize:
        raise invalid("is not a trajectory of this network")
    records = np.frombuffer(content, record)
    if records["step"].tolist() != [*range(0, trained.step + 1, trained.steps_per_epoch)]:
        raise invalid("is not a trajectory of this run: its steps are not the ends of its epochs")
    θ = torch.from_numpy(records["theta"].astype(number.newbyteorder("=")))
    if not bool((θ.abs() <= LARGEST).all()):  # false for NaN, too
        raise invalid("contains weights that are not finite or are too large for a loss")
    if len(θ) > 1 and bool((θ == θ[0]).all()):
        raise invalid("is constant: all its weights are the initial ones")
    if not torch.allclose(θ[0], flat(trained.initial_layers(θ.dtype)), rtol=1e-4, atol=1e-6):
        raise invalid("does not start at the run's initialisation")
    if int(records["step"][-1]) == trained.step and not torch.equal(θ[-1], flat(trained.layers)):
        raise invalid("does not end at the weights of the checkpoint")
    return torch.from_numpy(records["step"].astype(np.int64)), θ


def check_compatible(trained: Sequence[Trained]) -> None:
    """Raise `UserError` (status 4) unless the runs share data, architecture and dtype."""
    first = trained[0]
    for other in trained[1:]:
        for what, a, b in (
            ("data", first.data.sha256, other.data.sha256),
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
