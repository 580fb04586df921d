"""A trained network brought back from its run folder to be used, as arrays: nothing is executed, and neither
the training data nor PyTorch are needed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffn_bench.data import datasets
from ffn_bench.data.rows import Array, Data, in_dtype, weighted
from ffn_bench.errors import DATA, RUN_FOLDER, UserError, data_error
from ffn_bench.model import inference
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.losses import Criterion, criterion_of
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.fitted import Fitted, fitted_to, from_record
from ffn_bench.run_folder.recorded_run import RecordedRun, check_data, config_of, read_run
from ffn_bench.run_folder.trained_weights import TrainedWeights, weights_at

if TYPE_CHECKING:
    from ffn_bench.configuration.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A run's network at some step, with what was fitted to its training rows."""

    recorded: RecordedRun
    config: TrainConfig
    weights: TrainedWeights
    fitted: Fitted

    @property
    def caution(self) -> str:
        """What a person must know before using a network whose run did not finish; empty where it did."""
        run = self.recorded
        if run.status in ("diverged", "failed"):
            return f"the run {run.status}: {run.reason}"
        if run.status == "finished":
            return ""
        epoch = max((int(curve.epochs[-1]) for curve in run.curves.values()), default=0)
        return f"the run has not finished ({run.status}): epoch {epoch} of {self.config.epochs}"

    def logits(self, x: Array) -> Array:
        """Outputs of the last layer `[n, n_outputs]`, in the run's dtype, of standardised rows
        `x [n, n_features]`."""
        return inference.logits(self.weights.layers, x, ACTIVATIONS[self.config.model.activation])

    def standardise(self, x: Array) -> Array:
        """Rows `x [n, n_features]` as they are in a table, as the network takes them."""
        return self.fitted.standardise(x, self.config.dtype)

    @functools.cached_property
    def criterion(self) -> Criterion:
        """The loss that it was trained by, which says what its outputs are."""
        return criterion_of(self.config)

    def predicted(self, logits: Array) -> Array:
        """What logits say: probabilities of the classes, `[n, n_classes]`; in a regression targets in their
        own unit, float64 `[n, n_targets]`."""
        if self.fitted.task == "regression":
            return self.fitted.in_own_unit(logits)
        return inference.probabilities(logits, self.criterion)

    def predictions(self, x: Array) -> Array:
        """The same for rows as they are in a table."""
        return self.predicted(self.logits(self.standardise(x)))


def load(folder: Path, at: str | None) -> TrainedNetwork:
    """The network of a run `at` its `last` checkpoint, its `best` epoch, or the end of `epoch:N`. None is the
    best epoch, but not the initial weights of a run that diverged.

    Raises `UserError` (status 4) for these, and as `read_run` and `weights_at` do; for a run of an earlier
    release also where its data cannot be loaded again (3), or are others (4).
    """
    recorded = read_run(folder)
    config, weights = config_of(recorded), weights_at(recorded, at or "best")
    if at is None and recorded.status == "diverged" and weights.step == 0:
        what = "diverged, and its best weights are the initial ones"
        raise UserError(str(folder), what, "use another run, or these with at=best", RUN_FOLDER)
    if not all(np.isfinite(array).all() for layer in weights.layers for array in layer):
        what = f"has weights at {weights.words} that are not finite: it diverged"
        raise UserError(str(folder), what, "use another run", RUN_FOLDER)
    n_features, *_, n_outputs = weights.widths
    record = (reading.read_identity(Folder(folder)) or {}).get("fitted")
    if record is not None:
        fitted = from_record(record, n_features, n_outputs, f"{folder}/run.json")
    else:
        fitted = _fitted_again(recorded, n_features, n_outputs)
    if fitted.task != config.task:
        raise UserError(
            f"{folder}/run.json", "has what was fitted for another task", "use another", RUN_FOLDER
        )
    return TrainedNetwork(recorded=recorded, config=config, weights=weights, fitted=fitted)


def _fitted_again(recorded: RecordedRun, n_features: int, n_outputs: int) -> Fitted:
    """What was fitted, from the data, for a run of an earlier release."""
    try:
        data = data_again(recorded)
    except UserError as e:
        what = f"{e.what} (an earlier release trained this run, and recorded no standardisation)"
        raise UserError(e.where, what, e.todo, e.status) from e
    if (data.n_features, data.n_outputs) != (n_features, n_outputs):
        raise UserError(str(recorded.folder), "has weights of another network", "use another", RUN_FOLDER)
    return fitted_to(data)


def data_again(recorded: RecordedRun) -> Data[Array]:
    """The data that a run was trained on, weighted by its classes, in its dtype.

    Raises `UserError`: status 3 where they cannot be loaded, 4 where they are others.
    """
    config = config_of(recorded)
    try:
        data = datasets.load(config.data)
    except UserError as e:
        raise UserError(f"{recorded.folder}: {e.where}", e.what, e.todo, DATA) from e
    check_data(recorded, data)
    return in_dtype(weighted(data, config.loss.class_weight), config.dtype)


def refuse_too_large(logits: Array) -> None:
    """Raise `UserError` (status 3), naming the row of X, where logits are not finite: see `check_finite`."""
    if (row := check_finite(logits)) is not None:
        what = f"the values of row {row} are too large for this network"
        raise data_error("X", what, "correct them, or drop the row")


def check_finite(logits: Array) -> int | None:
    """The first row whose logits are not finite: its values are too large for the network. None where all
    are."""
    finite = np.isfinite(logits).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))
