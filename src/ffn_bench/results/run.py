"""A run that was trained: its curves, its settings, its network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffn_bench.checks import check_at, one_of
from ffn_bench.errors import UserError, data_error
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import RecordedRun, read_run
from ffn_bench.tags import Task

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure
    from torch import nn

    from ffn_bench.data.rows import Array
    from ffn_bench.run_folder.trained_network import TrainedNetwork


class Run:
    """A run folder, read when the object is made; nothing in it is executed.

    `at` says which of its weights predict: of the `best` epoch, the `last` checkpoint, or the end of
    `epoch:N` where the run was trained with `trajectory=True`. Raises `UserError` for a folder that is no
    run's, or is damaged; for weights that it has not, when they are asked for."""

    def __init__(self, path: str | Path, at: str = "best") -> None:
        check_at(at)
        self.path, self.at = Path(path), at
        self._recorded = read_run(self.path)
        self._summary = reading.read_summary(Folder(self.path))

    # --- how it went ------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """`finished`, `diverged`, `interrupted`, `failed`, `running` or `killed`."""
        return self._recorded.status

    @property
    def reason(self) -> str:
        """Why it ended so; empty for a run that trained all its epochs."""
        return self._recorded.reason

    @property
    def task(self) -> Task:
        """`classification` or `regression`."""
        return self._recorded.task

    @property
    def config(self) -> dict[str, Any]:
        """Every setting by its key: `{"optimizer.name": "adam", "lr": 0.005, …}`."""
        return dict(self._recorded.config)

    @functools.cached_property
    def history(self) -> pl.DataFrame:
        """A row for each step at which something was measured: `step`, `epoch`, `train_seconds`, and a
        column a tag, such as `loss/train` and `accuracy/val`, in a regression `rmse/val`; null where a tag
        was not measured."""
        from ffn_bench.results.frames import history

        return history(Folder(self.path))

    @functools.cached_property
    def summary(self) -> pl.DataFrame:
        """Two rows, what was measured `at` the `best` epoch and the `final` one; none before the run has
        ended."""
        from ffn_bench.results.frames import summary

        return summary(self._summary)

    def measured(self, at: str = "best") -> dict[str, Any]:
        """A row of `summary` by tag, without what was not measured; empty where there is none. Raises
        `UserError` where `at` is neither `best` nor `final`."""
        one_of(at, ("best", "final"), "at")
        values = (self._summary or {}).get(at) or {}
        return {tag: value for tag, value in values.items() if value is not None}

    def figure(self, *quantities: str) -> Figure:
        """Curves over the epochs, a plot for each quantity: by default of the loss and the
        scores of its task.

        Raises `UserError` for one that the run did not measure.
        """
        from ffn_bench.results.curves import figure

        best = self.measured("best").get("step")
        return figure(self.history, quantities, best, self.task, self._recorded.loss_unit)

    # --- the network ------------------------------------------------------------------------------------

    @functools.cached_property
    def network(self) -> TrainedNetwork:
        """The trained network as arrays, with what was fitted to the data."""
        from ffn_bench.run_folder import trained_network

        return trained_network.load(self.path, self.at)

    @property
    def classes(self) -> Array:
        """What `predict` returns, in the order of the columns of `predict_proba`: integers or truth values
        where all names of classes are, else text; empty in a regression."""
        import numpy as np

        names = self.network.fitted.classes
        if names and all(
            name.isascii() and name.lstrip("-").isdigit() and str(int(name)) == name for name in names
        ):
            return np.array(list(map(int, names)))
        return np.array([False, True]) if names == ("False", "True") else np.array(names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, in the network's order."""
        return self.network.fitted.columns

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of a regression's targets."""
        return self.network.fitted.targets

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, `[n, n_classes]`, in the run's dtype.

        X: rows as they are in the data, before any standardisation: an array `[n, n_features]`, or a frame of
        Polars or pandas, whose columns are matched by name in any order, others ignored. Raises `UserError`
        (status 3) for anything else, and for a regression.
        """
        if self.task == "regression":
            raise UserError("predict_proba", "is of classes, and this run is a regression", "use predict")
        return self.network.predicted(self._outputs(X))

    def predict(self, X: Any) -> Array:
        """The most probable of `classes` for each row of X, `[n]`; in a regression its targets in their own
        unit, float64 `[n]`, or `[n, n_targets]` of several: see `predict_proba`."""
        outputs = self._outputs(X)
        if self.task == "regression":
            targets = self.network.predicted(outputs)
            return targets[:, 0] if targets.shape[1] == 1 else targets
        predicted: Array = self.classes[outputs.argmax(axis=1)]
        return predicted

    def _outputs(self, X: Any) -> Array:
        """Of the last layer."""
        from ffn_bench.run_folder.trained_network import refuse_too_large

        network = self.network
        outputs = network.logits(network.standardise(self._rows(X)))
        refuse_too_large(outputs)
        return outputs

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network as PyTorch's: an `nn.Sequential` of the standardisation, `nn.Linear`s and activations,
        which maps rows `[n, n_features]`, as `predict` takes them, to logits, in a regression to targets in
        their own unit; of a table with categories or blanks, what `network.fitted.encoding` makes of them. It
        is imported only now."""
        from ffn_bench.export.torch_module import module

        return module(self.network)

    def _rows(self, X: Any) -> Array:
        """Rows of features in the network's order."""
        from ffn_bench.data.arrays import numbers
        from ffn_bench.data.frames import features_of, is_frame, names_of
        from ffn_bench.predict.columns import matched

        columns, kinds = self.columns, self.network.fitted.kinds
        if is_frame(X):
            layout = matched(list(names_of(X, "X")), columns, None, "X")
            rows = features_of(X, layout._replace(kinds=kinds), "X", training=False).x
            self._warn_of_unseen(rows)
            return rows
        if kinds is not None:
            what = "is no frame, and the run was trained on a table with categories or blanks"
            raise data_error("X", what, "give a frame of Polars or pandas, whose columns have names")
        rows, _ = numbers(X)
        if rows.shape[1] != len(columns):
            what = f"has {rows.shape[1]} columns, and the run was trained on {len(columns)}"
            raise data_error("X", what, "give as many, in that order")
        return rows

    def _warn_of_unseen(self, rows: Array) -> None:
        """Warn of cells with categories that the training rows did not have, column by column."""
        import warnings

        encoding = self.network.fitted.encoding
        if encoding is None:
            return
        counts = [pair for pair in zip(self.columns, encoding.unseen(rows), strict=True) if pair[1]]
        if counts:
            words = ", ".join(f"{count:,} of column {name!r}" for name, count in counts)
            what = f"categories that no training row has count as none of the known ones: {words}"
            warnings.warn(what, stacklevel=5)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, without what can be read from the folder again."""
        return {key: value for key, value in vars(self).items() if not hasattr(type(self), key)}

    # --- how it is shown --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        from ffn_bench.results.display import run_html

        return run_html(self)


def recorded(runs: Sequence[Run]) -> list[RecordedRun]:
    """What the folders of some runs say."""
    return [run._recorded for run in runs]


def read_all(folders: Sequence[Path], at: str) -> tuple[list[Run], list[str]]:
    """The runs, and a line for each folder that had to be left out."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(Run(folder, at))
        except (UserError, OSError) as e:
            problems.append(str(e))
    return runs, problems
