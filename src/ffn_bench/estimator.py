"""Feed-forward networks as estimators of scikit-learn's: `FFNClassifier` and `FFNRegressor`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ffn_bench.configuration import parsing, rule_files, schema
from ffn_bench.configuration.validation import FULL_BATCH_ONLY
from ffn_bench.data import arrays, preparation
from ffn_bench.data.rows import Array, Data, Raw
from ffn_bench.errors import UserError, nearest
from ffn_bench.model import inference
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.tags import Task

if TYPE_CHECKING:
    from ffn_bench.results.run import Run

Layers = list[tuple[Array, Array]]


class InvalidSettingError(UserError, ValueError):
    """A mistake in a parameter or the data, which scikit-learn's tools expect to be a `ValueError`."""


class _Network(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A feed-forward network: its parameters, how it is trained, what it computes."""

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        *,
        activation: str = "relu",
        optimizer: str | Mapping[str, Any] = "adam",
        lr: float = 0.005,
        epochs: int = 100,
        batch_size: int | str = 32,
        l2: float = 0.0,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
        name: str | None = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.l2 = l2
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.name = name

    # --- training ---------------------------------------------------------------------------------------

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _settings(self) -> dict[str, Any]:
        """Its parameters as keys of a run, all but those of the data and the network."""
        return {
            "lr": self.lr,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "l2": self.l2,
            "patience": self.patience,
            "seed": self._seed(),
        }

    def _own_optimizer(self) -> tuple[str, dict[str, Any]]:
        """The name of the optimizer and the hyper-parameters that are given."""
        if isinstance(self.optimizer, Mapping):
            given = dict(self.optimizer)
            return str(given.pop("name", "adam")), given
        return str(self.optimizer), {}

    def _config(self, task: Task) -> schema.TrainConfig:
        """The run that its parameters describe. Raises `UserError`."""
        name, given = self._own_optimizer()
        kind = rule_files.optimizer_keys(name)
        if kind is None or name == "torch":
            known = sorted({*rule_files.optimizer_files()} - {"torch"})
            what = f"{name!r} is not known{nearest(name, known)}"
            raise UserError("optimizer", what, f"use one of: {', '.join(known)}")
        lr = parsing.fitted(_plain(self.lr), float, "lr")
        plain = schema.TrainConfig(
            data=schema.ArraysConfig(name="arrays", task=task, test_fraction=0.0, val_fraction=0.0),
            model=schema.HiddenConfig(name="lecture"),
            optimizer=kind(name=name, lr=lr),
            schedule=schema.ScheduleConfig(name="constant"),
            loss=schema.LossConfig(),
            lr=lr,
            batch_size="full" if name in FULL_BATCH_ONLY else 32,
            device="cpu",
        )
        known_keys = {f.name for f in dataclasses.fields(kind)} - {"name", "lr"}
        for key in given:
            if key not in known_keys:
                what = f"no such key{nearest(key, known_keys)}"
                raise UserError(f"optimizer.{key}", what, f"keys here: {', '.join(sorted(known_keys))}")
        values: dict[tuple[str, ...], Any] = {(key,): value for key, value in self._settings().items()}
        values |= {("optimizer", key): value for key, value in given.items()}
        values[("model", "hidden")] = self.hidden
        values[("model", "activation")] = self.activation
        values[("data", "val_fraction")] = self.validation_fraction
        config = parsing.set_values(plain, {path: _plain(value) for path, value in values.items()})
        if config.patience is not None and not self.validation_fraction:
            raise UserError(
                "patience", "needs rows that are held out", "set validation_fraction, such as 0.1"
            )
        return config

    def _train(self, raw: Raw, task: Task) -> Data[Array]:
        """Train in memory: no folder, and nothing that the process keeps. What it was trained on."""
        from ffn_bench.engine.build import build

        config = self._config(task)
        data = preparation.prepare(raw, config.data)
        training, prepared = build(config, data=data)
        (run,) = training.runs
        with prepared.limited_threads():
            for _ in training.measurements():
                pass
        if run.status == "diverged":
            raise UserError("fit", f"diverged: {run.reason}", "use a smaller lr")
        layers = [(np.array(W), np.array(b)) for W, b in run.best_layers() or run.layers()]
        self._take(layers, data.mean, data.std, run.epoch, run.monitor.epoch)
        return data

    def _train_named(self, raw: Raw, task: Task) -> Data[Array]:
        """Train into the folder of its name. What it was trained on."""
        from ffn_bench import api
        from ffn_bench.run_folder.recorded_run import read_run
        from ffn_bench.run_folder.trained_weights import weights_at

        config = self._config(task)  # its mistakes are those without a name, too
        columns = getattr(self, "feature_names_in_", None)
        if columns is not None:
            raw = dataclasses.replace(raw, columns=tuple(map(str, columns)))
        name, given = self._own_optimizer()
        keys = {
            **arrays.keys_of(raw),
            "data.test_fraction": 0.0,
            "data.val_fraction": self.validation_fraction,
            "model.hidden": _plain(self.hidden),
            "model.activation": self.activation,
            "optimizer": {"name": name, **given},
            "device": "cpu",
            "name": self.name,
            **self._settings(),
        }
        self.run_: Run = api.fit_rows(raw, False, keys)
        if self.run_.status != "finished":
            raise UserError("fit", f"{self.run_.status}: {self.run_.reason}", "use a smaller lr")
        weights = weights_at(read_run(self.run_.path), "best")
        data = preparation.prepare(raw, config.data)
        epochs = int(self.run_.history["epoch"].max())  # type: ignore[arg-type]  # of a column of integers
        self._take(list(weights.layers), data.mean, data.std, epochs, weights.epoch)
        return data

    def _take(self, layers: Layers, mean: Array, scale: Array, epochs: int, best_epoch: int) -> None:
        self.layers_ = [(W.astype(np.float64), b.astype(np.float64)) for W, b in layers]
        self.mean_, self.scale_ = mean, scale
        self.n_iter_, self.best_epoch_ = epochs, best_epoch

    def _outputs(self, X: Any) -> Array:
        """The last layer's h̄ for rows X, float64 `[n, n_outputs]`."""
        from ffn_bench.run_folder.trained_network import refuse_too_large

        check_is_fitted(self)
        with _as_value_errors():
            arrays.check_masked(X, "X")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with np.errstate(over="ignore"):  # which is seen in the outputs
            rows = preparation.standardised(X, self.mean_, self.scale_, np.float64)
        outputs = inference.logits(self.layers_, rows, ACTIVATIONS[self.activation])
        with _as_value_errors():
            refuse_too_large(outputs)
        return outputs


class FFNClassifier(ClassifierMixin, _Network):  # type: ignore[misc]  # scikit-learn has no types
    """A feed-forward network, trained with mini-batches on the cross-entropy of its softmax.

    Features are standardised. Parameters are those of `ffn_bench.fit`, under the names that follow.

    hidden: widths of the hidden layers; none is logistic regression. optimizer: a name, or a mapping with
    `name` and hyper-parameters, `dict(name="sgd", momentum=0.9)`. l2: λ of λ Σ‖W‖². validation_fraction: of
    the rows, held out; then the weights are those of the best epoch on them, and `patience` epochs without
    improvement end the training. random_state: an integer is the seed of initial weights and order. name:
    `fit` leaves the run folder `outputs/<name>`, as `ffn_bench.fit` does; without one it leaves nothing.

    Attributes after `fit`: `classes_ [n_classes]`, `layers_` (W `[n_in, n_out]`, b `[n_out]` of every layer,
    float64), `mean_` and `scale_` of the features, `n_iter_` (epochs trained), `best_epoch_`,
    `n_features_in_`, `feature_names_in_`, and `run_` where there is a `name`."""

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X `[n, n_features]` and labels y `[n]`, of any kind.

        Raises `ValueError` for data and parameters that cannot be, and where the training diverges.
        """
        with _as_value_errors():
            arrays.check_masked(X, "X")
            arrays.check_masked(y, "y", "blank label")
        X, y = validate_data(self, X, y, dtype=np.float64, order="C")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            what = f"has only one class, {self.classes_.tolist()[0]!r}"
            raise InvalidSettingError("y", what, "give two or more")
        with _as_value_errors():
            if self.name is None:
                names = tuple(map(str, self.classes_.tolist()))
                self._train(Raw(X, codes.astype(np.int64), names), "classification")
            else:
                raw = arrays.raw_of((X, y), None)
                self._train_named(raw, "classification")
                first_rows = [int(np.argmax(codes == k)) for k in range(len(self.classes_))]
                order = raw.y[first_rows]  # the folder's classes are in their natural order
                *hidden, (W, b) = self.layers_
                self.layers_ = [*hidden, (W[:, order], b[order])]
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of `classes_`, float64 `[n, n_classes]`, for rows X `[n, n_features]`.

        Raises `ValueError` for rows that are too large for the network, and for what scikit-learn refuses.
        """
        return inference.softmax(self._outputs(X))

    def predict(self, X: Any) -> Array:
        """The most probable of `classes_` for each row of X, `[n]`."""
        probabilities = self.predict_proba(X)
        predicted: Array = self.classes_[probabilities.argmax(axis=1)]
        return predicted


class FFNRegressor(RegressorMixin, _Network):  # type: ignore[misc]  # scikit-learn has no types
    """A feed-forward network, trained with mini-batches on ½‖f − y‖² of one target or several.

    Features and targets are standardised; predictions are in the targets' own units. Parameters and
    attributes are those of `FFNClassifier`, but that no hidden layers are linear regression, and there are
    `target_mean_` and `target_scale_ [n_targets]` in place of classes. `score` is R², the mean of several
    targets."""

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows X `[n, n_features]` and targets y, `[n]` or `[n, n_targets]`, numbers.

        Raises `ValueError` for data and parameters that cannot be, and where the training diverges.
        """
        with _as_value_errors():
            arrays.check_masked(X, "X")
            arrays.check_masked(y, "y", "blank target")
        X, y = validate_data(
            self, X, y, dtype=np.float64, order="C", multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        self._is_flat = y.ndim == 1
        with _as_value_errors():
            raw = arrays.raw_of((X, y), None, schema.ArraysConfig(name="arrays", task="regression"))
            train = self._train if self.name is None else self._train_named
            data = train(raw, "regression")
        self.target_mean_, self.target_scale_ = data.target_mean, data.target_std
        return self

    def predict(self, X: Any) -> Array:
        """The targets for each row of X, float64, `[n]` or `[n, n_targets]`, as they were given.

        Raises `ValueError` for rows that are too large for the network, and for what scikit-learn refuses.
        """
        predicted: Array = self._outputs(X) * self.target_scale_ + self.target_mean_
        return predicted[:, 0] if self._is_flat else predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _plain(value: Any) -> Any:
    """NumPy's numbers, and lists of them, as Python's own."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


OWN_NAMES = {
    "data.val_fraction and data.test_fraction": "validation_fraction",
    "data.val_fraction": "validation_fraction",
    "data.sha256": "the hash of X and y",
    "model.hidden": "hidden",
    "model.activation": "activation",
    "seed": "random_state",
}
"""Its parameters by the keys of a run that messages name."""
KEYS = re.compile(rf"(?<![\w.'])({'|'.join(map(re.escape, OWN_NAMES))})(?![\w.'])")
"""Keys in a message, but not in what it quotes."""


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Mistakes as `ValueError`s, which name its own parameters."""
    try:
        yield
    except UserError as e:
        todo = "use another name" if "force=true" in e.todo else e.todo
        where, what, todo = (
            KEYS.sub(lambda key: OWN_NAMES[key[0]], text) for text in (e.where, e.what, todo)
        )
        raise InvalidSettingError(where, what, todo, e.status) from None
