"""Estimators are what scikit-learn calls so, and the networks that `ffn_bench.fit` trains."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_backend
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_linnerud, make_friedman1
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ffn_bench import FFNClassifier, FFNRegressor
from ffn_bench.estimator import InvalidSettingError
from ffn_bench.results.run import Run

X, Y = load_iris(return_X_y=True)
ROWS, TARGET = make_friedman1(300, noise=1.0, random_state=0)


@parametrize_with_checks([FFNClassifier(), FFNRegressor()])  # type: ignore[untyped-decorator]
def test_it_is_an_estimator(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of scikit-learn's checks; none is expected to fail. The one of array-API input runs only with this
    variable."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    check(estimator)


def test_it_leaves_nothing_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FFNClassifier(epochs=2).fit(X, Y)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::ffn_bench.command_line.python_view.DataWarning")  # two equal flowers
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"hidden": (), "optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 0.1},
        {"validation_fraction": 0.2, "patience": 3, "activation": "tanh", "batch_size": "full", "lr": 0.05},
        {"l2": 0.01, "optimizer": "nesterov", "batch_size": 7},
    ],
    ids=str,
)
def test_it_is_the_network_of_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> None:
    """With a name, the run that `fit` trains; without one the same numbers."""
    monkeypatch.chdir(tmp_path)
    own = FFNClassifier(epochs=12, random_state=3, **parameters).fit(X, Y)
    named = FFNClassifier(epochs=12, random_state=3, name="it", **parameters).fit(X, Y)
    run = Run("outputs/it")
    assert pickle.loads(pickle.dumps(named)).predict_proba(X).tobytes() == named.predict_proba(X).tobytes()
    assert named.predict_proba(X).tobytes() == own.predict_proba(X).tobytes()
    assert (named.n_iter_, named.best_epoch_) == (own.n_iter_, own.best_epoch_)
    assert np.abs(run.predict_proba(X) - own.predict_proba(X)).max() < 1e-5
    assert run.predict(X).tolist() == own.predict(X).tolist()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"validation_fraction": 0.2, "patience": 3, "activation": "tanh", "batch_size": "full", "lr": 0.05},
        {"hidden": (), "l2": 0.01, "optimizer": "nesterov", "batch_size": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("n_targets", [None, 1, 2])
def test_a_regressor_is_the_network_of_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], n_targets: int | None
) -> None:
    """With a name, the run that `fit` trains; without one the same numbers; in the targets' own units."""
    monkeypatch.chdir(tmp_path)
    y = TARGET if n_targets is None else np.stack([TARGET, 1000 * ROWS[:, 0] - 5], axis=1)[:, :n_targets]
    own = FFNRegressor(epochs=12, random_state=3, **parameters).fit(ROWS, y)
    named = FFNRegressor(epochs=12, random_state=3, name="it", **parameters).fit(ROWS, y)
    predicted = own.predict(ROWS)
    assert predicted.shape == y.shape and predicted.dtype == np.float64
    assert pickle.loads(pickle.dumps(named)).predict(ROWS).tobytes() == predicted.tobytes()
    assert (named.n_iter_, named.best_epoch_) == (own.n_iter_, own.best_epoch_)
    assert own.score(ROWS, y) == r2_score(y, predicted)
    if "validation_fraction" not in parameters:
        measured = Run("outputs/it").measured("final")
        assert measured["r2/train"] == pytest.approx(own.score(ROWS, y), abs=1e-4)
        assert measured["rmse/train"] == pytest.approx(
            np.sqrt(np.square(predicted - y).mean(0)).mean(), rel=1e-4
        )


def test_a_linear_regressor_is_least_squares() -> None:
    """Trained to the end without hidden layers, with several targets of very different sizes."""
    x, y = load_linnerud(return_X_y=True)
    y = y * [1.0, 1e6, 1e-6]
    network = FFNRegressor((), optimizer="lbfgs", lr=1.0, batch_size="full", epochs=50, random_state=0).fit(
        x, y
    )
    least = LinearRegression().fit(x, y)
    assert np.abs(network.predict(x) - least.predict(x)).max(0) / y.std(0) == pytest.approx([0] * 3, abs=1e-3)


def test_a_regressor_comes_close_to_what_can_be_known() -> None:
    """Friedman's function has a variance of 23.8 beside noise of 1; a straight line explains 70 to 75 %."""
    x, y = make_friedman1(2000, noise=1.0, random_state=1)
    scores = cross_val_score(FFNRegressor((64, 32), l2=1e-4, epochs=60, random_state=0), x, y, cv=3)
    lines = cross_val_score(LinearRegression(), x, y, cv=3)
    assert scores.min() > 0.9 and lines.max() < 0.8


def test_a_named_one_keeps_names_of_columns_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes are in their natural order in the folder, and sorted as text in `classes_`."""
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    labels = np.array(["9", "10", "11"])[Y]
    named = FFNClassifier(epochs=30, random_state=0, name="it").fit(frame, labels)
    assert named.classes_.tolist() == ["10", "11", "9"] and named.score(frame, labels) > 0.9
    run = Run("outputs/it")
    assert run.classes.tolist() == [9, 10, 11] and run.columns == ("a", "b", "c", "d")
    assert run.predict(frame[["d", "a", "c", "b"]]).astype(str).tolist() == named.predict(frame).tolist()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_search_over_rate_and_layers(jobs: int) -> None:
    grid = {"lr": [0.001, 0.02], "hidden": [(), (8,), (16, 8)]}
    search = GridSearchCV(FFNClassifier(epochs=20, random_state=0), grid, cv=3, n_jobs=jobs).fit(X, Y)
    assert search.best_params_["lr"] == 0.02 and search.best_score_ > 0.9
    scores = search.cv_results_["mean_test_score"]
    again = GridSearchCV(FFNClassifier(epochs=20, random_state=0), grid, cv=3).fit(X, Y)
    assert scores.tolist() == again.cv_results_["mean_test_score"].tolist()


def test_threads_train_at_once_and_get_the_same() -> None:
    estimator = FFNClassifier(epochs=30, random_state=0)
    alone = cross_val_score(estimator, X, Y, cv=4)
    with parallel_backend("threading", n_jobs=4):
        assert cross_val_score(estimator, X, Y, cv=4).tolist() == alone.tolist()


def test_a_pipeline_a_clone_and_a_copy() -> None:
    pixels, digits = load_digits(return_X_y=True)
    pipeline = make_pipeline(MinMaxScaler(), FFNClassifier((32,), epochs=20, random_state=0))
    assert cross_val_score(pipeline, pixels, digits, cv=3).mean() > 0.9
    pipeline.fit(pixels, digits)
    copied = pickle.loads(pickle.dumps(pipeline))
    assert copied.predict_proba(pixels).tobytes() == pipeline.predict_proba(pixels).tobytes()
    again = clone(pipeline).fit(pixels, digits)
    assert again.predict_proba(pixels).tobytes() == pipeline.predict_proba(pixels).tobytes()


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1}, "lr: -1"),
    ({"lr": "fast"}, "lr: 'fast' is not a number"),
    ({"lr": 1e30, "optimizer": "sgd"}, "fit: diverged: "),
    ({"epochs": 0}, "epochs: 0"),
    ({"epochs": 1.5}, "epochs: 1.5 is not an integer"),
    ({"batch_size": "all"}, "batch_size: 'all' is not an integer or full"),
    ({"hidden": (5, 0)}, "hidden: 0"),
    ({"hidden": 5}, "hidden: 5 is not a list"),
    ({"hidden": (2.5,)}, "hidden: "),
    ({"activation": "ReLU"}, "activation: 'ReLU' is not known (did you mean 'relu'?)"),
    ({"optimizer": "adm"}, "optimizer: 'adm' is not known (did you mean 'adam'?)"),
    ({"optimizer": "torch"}, "optimizer: 'torch' is not known"),
    (
        {"optimizer": {"name": "sgd", "momentun": 1}},
        "optimizer.momentun: no such key (did you mean 'momentum'?)",
    ),
    ({"optimizer": "lbfgs", "batch_size": 32}, "batch_size: 32 cannot be combined with optimizer=lbfgs"),
    ({"patience": 3}, "patience: needs rows that are held out; set validation_fraction, such as 0.1"),
    ({"validation_fraction": 1.5}, "validation_fraction: leaves nothing to train on"),
    (
        {"validation_fraction": 0.001},
        "data: class 'seed' has 50 rows and none of them is in the validation split; "
        "add rows, merge rare classes, or change validation_fraction",
    ),
    ({"random_state": -1}, "random_state: -1 is not between 0"),
    ({"l2": float("nan")}, "l2: nan is not a finite number"),
    ({"name": "../x"}, "name: '../x' is outside the outputs folder"),
]


REGRESSION_MISTAKES: list[tuple[dict[str, Any], Any, str]] = [
    ({"lr": 1e30, "optimizer": "sgd"}, TARGET, "fit: diverged: "),
    ({"patience": 3}, TARGET, "patience: needs rows that are held out"),
    ({"validation_fraction": 0.001}, TARGET, "data: the validation split has no rows"),
    ({}, np.ones(300), "data: target 'y' is constant"),
    ({}, np.stack([TARGET, np.ones(300)], axis=1), "data: target 'y1' is constant"),
    ({}, np.ma.masked_equal(TARGET, TARGET[7]), "y, row 7: blank target (masked)"),
    (
        {},
        np.ma.masked_equal(np.stack([ROWS[:, 0], TARGET], axis=1), TARGET[7]),
        "y, row 7, column 'y1': blank target (masked)",
    ),
]


@pytest.mark.parametrize(
    ("parameters", "y", "text"), REGRESSION_MISTAKES, ids=[text for *_, text in REGRESSION_MISTAKES]
)
@pytest.mark.parametrize("name", [None, "it"])
def test_mistakes_of_a_regression(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    parameters: dict[str, Any],
    y: Any,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettingError) as mistake:
        FFNRegressor(name=name, **parameters).fit(ROWS, y)
    assert str(mistake.value).startswith(text)
    assert list(tmp_path.iterdir()) == [] or "diverged" in text


@pytest.mark.parametrize(("parameters", "text"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettingError) as mistake:
        FFNClassifier(**parameters).fit(X, np.array(["seed", "setosa", "virginica"])[Y])
    assert isinstance(mistake.value, ValueError) and str(mistake.value).startswith(text)
    assert list(tmp_path.iterdir()) == []


def test_another_one_of_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FFNClassifier((4,), epochs=1, name="it", random_state=0).fit(X, Y)
    others = {
        "hidden was": (FFNClassifier((5,), epochs=1, name="it", random_state=0), X),
        "random_state was 0, now 1": (FFNClassifier((4,), epochs=1, name="it", random_state=1), X),
        "the hash of X and y was": (FFNClassifier((4,), epochs=1, name="it", random_state=0), X + 1),
    }
    for text, (other, rows) in others.items():
        with pytest.raises(InvalidSettingError, match=rf"holds another run: {text}.*; use another name$"):
            other.fit(rows, Y)


def test_rows_that_it_cannot_take() -> None:
    fitted = FFNClassifier(epochs=1, random_state=0).fit(X, Y)
    with pytest.raises(InvalidSettingError, match="X: the values of row 1 are too large for this network"):
        fitted.predict(np.array([X[0], [1.7e308, -1.7e308, 1.7e308, -1.7e308]]))
    masked = np.ma.masked_greater(X, 7)
    for method in (lambda: fitted.predict(masked), lambda: clone(fitted).fit(masked, Y)):
        with pytest.raises(InvalidSettingError, match=r"X, row \d+, column 'x0': blank cell \(masked\)"):
            method()
    with pytest.raises(InvalidSettingError, match=r"y, row 50: blank label \(masked\)"):
        clone(fitted).fit(X, np.ma.masked_equal(Y, 1))


def test_it_trains_without_torch_and_numba() -> None:
    code = (
        "import sys; from ffn_bench import FFNClassifier, FFNRegressor; import numpy as np\n"
        "for kind in FFNClassifier, FFNRegressor:\n"
        "    kind(epochs=2).fit(np.random.rand(20, 2), [0, 1] * 10).predict([[0, 0]])\n"
        "print({'torch', 'numba', 'polars', 'matplotlib', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
