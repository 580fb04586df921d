"""The weights that a recorded run has kept, as arrays: of its last checkpoint, of its best epoch, of any
epoch where it saved its trajectory. Nothing of them is executed, and all are checked against the run.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil

from ffn_bench import checks
from ffn_bench.data.rows import Array
from ffn_bench.engine import checkpoint_state
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.initialisation import initial_layers
from ffn_bench.model.layers import from_names, layered
from ffn_bench.run_folder import best_weights, checkpoints, identity, reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import RecordedRun, config_of
from ffn_bench.run_folder.writers import Trajectory

if TYPE_CHECKING:
    from ffn_bench.configuration.schema import TrainConfig
    from ffn_bench.engine.build import Prepared

Layers = list[tuple[Array, Array]]
"""(W `[n_in, n_out]`, b `[n_out]`) of every layer, in the dtype of the run."""

LARGEST = 1e15
"""A weight beyond this has diverged: float32 cannot square it."""


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """The weights of a run at some step."""

    layers: Layers
    step: int
    epoch: int
    """The epoch that the step is in; for `best` and `epoch:N` the step is its last one."""
    at: str
    """What was asked for: `last`, `best` or `epoch:N`."""

    @property
    def widths(self) -> list[int]:
        """Of every layer, the input's first."""
        return [len(self.layers[0][0]), *(len(b) for _, b in self.layers)]

    @property
    def words(self) -> str:
        """For captions: `step 1,200`, `step 880, the best epoch (22)`, `step 80, epoch 2`."""
        epoch = {"last": "", "best": f", the best epoch ({self.epoch})"}.get(self.at, f", epoch {self.epoch}")
        return f"step {self.step:,}{epoch}"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The last checkpoint of a run."""

    weights: TrainedWeights
    trajectory: tuple[int, str | None] | None
    """Size and SHA-256 of its file at that step, if the run writes one."""


def weights_at(run: RecordedRun, at: str = "last", prepared: Prepared | None = None) -> TrainedWeights:
    """The weights of a run `at` its `last` checkpoint, its `best` epoch, or the end of `epoch:N`.

    With `prepared`, what the run trained with, widths and steps are checked against its data, too; without,
    against its configuration only, and the first and last width are the file's.

    Raises `UserError`: status 2 for another `at`; 4, saying what to do, for weights that were not kept, and
    for files that are damaged or of another network.
    """
    checks.check_at(at)
    if at == "last":
        return last_checkpoint(run, prepared).weights
    if at == "best":
        return _best(run, prepared)
    return _of_epoch(run, int(at.partition(":")[2]), prepared)


# --- the last checkpoint --------------------------------------------------------------------------------


def last_checkpoint(run: RecordedRun, prepared: Prepared | None = None) -> Checkpoint:
    """The last intact checkpoint of a run.

    Raises `UserError` (status 4) where there is none, or it is not of this run.
    """
    config, folder = config_of(run), Folder(run.folder)
    try:
        name, _ = checkpoints.find(folder)
    except UserError as e:
        raise UserError(e.where, e.what, "use another run, or train it again", e.status) from e
    if name is None:
        raise UserError(str(folder), "has no checkpoint", "use a run that has finished", RUN_FOLDER)
    state = checkpoints.load(folder, name)
    try:
        _check_progress(state, config, prepared)
        layers = from_names(state["network"])
        trajectory = state["files"].get(Trajectory.NAME) if isinstance(state.get("files"), dict) else None
        noted = None if trajectory is None else checkpoints.noted_size(trajectory)
        _check_layers(layers, config, prepared)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as e:
        what = "does not fit the run's configuration"
        raise UserError(f"{folder}/{name}", what, "", RUN_FOLDER) from e
    weights = TrainedWeights(layers=layers, step=state["step"], epoch=state["epoch"], at="last")
    return Checkpoint(weights=weights, trajectory=noted)


def _check_progress(state: dict[str, Any], config: TrainConfig, prepared: Prepared | None) -> None:
    """Raise `ValueError` or `KeyError` unless a run has a step such as the state's."""
    per_epoch = prepared.steps_per_epoch if prepared else _steps_per_epoch(state["step"], state["epoch"])
    checkpoint_state.check_progress(state, config.epochs * per_epoch, per_epoch)


def _steps_per_epoch(step: Any, epoch: Any) -> int:
    """What it may be for a step in an epoch, where the data do not tell."""
    return max(1, -(-step // epoch)) if type(step) is type(epoch) is int and epoch > 0 else 1


def _check_layers(layers: Layers, config: TrainConfig, prepared: Prepared | None) -> None:
    """Raise `ValueError` unless layers are of a run's network, in its dtype."""
    if not all(
        isinstance(array, np.ndarray) and array.dtype == config.dtype for row in layers for array in row
    ):
        raise ValueError
    n_in, n_out = layers[0][0].shape[0], layers[-1][1].shape[0]
    widths = prepared.widths if prepared else [n_in, *config.model.widths(), n_out]
    shapes = [(W.shape, b.shape) for W, b in layers]
    if min(widths) < 1 or shapes != [(pair, pair[1:]) for pair in itertools.pairwise(widths)]:
        raise ValueError


# --- the best epoch -------------------------------------------------------------------------------------


def _best(run: RecordedRun, prepared: Prepared | None) -> TrainedWeights:
    """The weights of `best.safetensors`. Raises `UserError` (status 4)."""
    config, folder = config_of(run), Folder(run.folder)
    best = best_weights.read(folder)
    if best is None:
        raise UserError(str(folder), *_why_no_best(run), RUN_FOLDER)
    try:
        progress = {"step": best.step, "epoch": best.epoch, "train_seconds": 0.0}
        _check_progress(progress, config, prepared)
        if prepared and best.step != best.epoch * prepared.steps_per_epoch:
            raise ValueError
        _check_layers(best.layers, config, prepared)
    except (ValueError, IndexError) as e:
        what = "does not fit the run's configuration"
        raise UserError(f"{folder}/{best_weights.NAME}", what, "use at=last", RUN_FOLDER) from e
    summary = reading.read_summary(folder)
    chosen = summary["best"] if summary else None
    if chosen and (chosen["epoch"] != best.epoch or (best.tag and chosen.get(best.tag) != best.value)):
        what = f"is of epoch {best.epoch}, and summary.json names epoch {chosen['epoch']} the best"
        raise UserError(f"{folder}/{best_weights.NAME}", what, "use at=last", RUN_FOLDER)
    return TrainedWeights(layers=best.layers, step=best.step, epoch=best.epoch, at="best")


def _why_no_best(run: RecordedRun) -> tuple[str, str]:
    """Why a run has no weights of its best epoch, and what to do."""
    if run.config.get("keep") == "last":
        what = "was trained with keep=last, which keeps no weights of the best epoch"
        return what, "use at=last, or train it with keep=best"
    what = f"has no {best_weights.NAME}: it is of an earlier release, or ended before it wrote one"
    return what, "use at=last, or train it again"


# --- the trajectory -------------------------------------------------------------------------------------


def _of_epoch(run: RecordedRun, epoch: int, prepared: Prepared | None) -> TrainedWeights:
    """The weights at the end of an epoch, from the trajectory. Raises `UserError` (status 4)."""
    checkpoint = last_checkpoint(run, prepared)
    points = trajectory(run, checkpoint, prepared)
    if points is None:
        what = f"keeps no weights of epoch {epoch}: it was trained without trajectory=true"
        raise UserError(str(run.folder), what, "use at=last or at=best, or train it so", RUN_FOLDER)
    steps, θ = points
    if epoch >= len(steps):
        what = f"keeps no weights of epoch {epoch}: its trajectory has epochs 0 to {len(steps) - 1}"
        raise UserError(str(run.folder), what, "name one of them", RUN_FOLDER)
    layers = layered(θ[epoch], checkpoint.weights.widths)
    return TrainedWeights(layers=layers, step=int(steps[epoch]), epoch=epoch, at=f"epoch:{epoch}")


def trajectory(
    run: RecordedRun, checkpoint: Checkpoint, prepared: Prepared | None = None
) -> tuple[npt.NDArray[np.int64], Array] | None:
    """Steps `[T]` and parameters `[T, P]` that a run saved, up to its checkpoint, in its dtype; None if it
    saved none. A row of the parameters is W and b, layer by layer.

    Raises `UserError` (status 4) for a file that is not a trajectory of this network, from its initialisation
    through every epoch's end to the weights of the checkpoint.
    """
    path = run.folder / Trajectory.NAME
    content = Folder(run.folder).read(Trajectory.NAME, psutil.virtual_memory().available // 2)
    if checkpoint.trajectory is None:
        return None
    size, digest = checkpoint.trajectory
    if content is None or len(content) < size:
        what = "is shorter than the checkpoint records: it was truncated"
        raise UserError(str(path), what, identity.REPAIR, RUN_FOLDER)
    content = content[:size]
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        what = "does not match its checksum: it was modified"
        raise UserError(str(path), what, identity.REPAIR, RUN_FOLDER)
    weights = checkpoint.weights
    end = _flat(weights.layers)
    number = end.dtype.newbyteorder("<")
    record = np.dtype([("step", "<i8"), ("theta", number, end.shape)])

    def invalid(what: str) -> UserError:
        return UserError(str(path), what, "leave it out", RUN_FOLDER)

    if len(content) % record.itemsize:
        raise invalid("is not a trajectory of this network")
    records = np.frombuffer(content, record)
    steps = records["step"].tolist()
    per_epoch = prepared.steps_per_epoch if prepared else max([1, *steps[1:2]])
    if steps != [*range(0, weights.step + 1, per_epoch)]:
        raise invalid("is not a trajectory of this run: its steps are not the ends of its epochs")
    θ = records["theta"].astype(end.dtype)
    if not (np.abs(θ) <= LARGEST).all():  # false for NaN, too
        raise invalid("contains weights that are not finite or are too large for a loss")
    if len(θ) > 1 and (θ == θ[0]).all():
        raise invalid("is constant: all its weights are the initial ones")
    start = _flat(initial_layers_of(run, weights.widths)).astype(end.dtype)
    if not np.allclose(θ[0], start, rtol=1e-4, atol=1e-6):
        raise invalid("does not start at the run's initialisation")
    if steps[-1] == weights.step and not np.array_equal(θ[-1], end):
        raise invalid("does not end at the weights of the checkpoint")
    return records["step"].astype(np.int64), θ


def initial_layers_of(run: RecordedRun, widths: Sequence[int]) -> Layers:
    """A run's weights before the first step, float64.

    Raises `UserError` (status 4) as `identity.check_draws` does.
    """
    identity.check_draws(Folder(run.folder), run.format)
    config = config_of(run)
    return initial_layers(widths, config.model, config.seed_of("init"))


def _flat(layers: Layers) -> Array:
    """θ `[P]`: W and b, layer by layer."""
    return np.concatenate([array.ravel() for layer in layers for array in layer])
