"""From Python: the same runs as from the command line, the same texts, and the process as it was."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from omegaconf import OmegaConf
from scipy.sparse import csr_array

import ffn_bench as ffn
from conftest import Command
from ffn_bench import errors
from ffn_bench.command_line.hydra_internals import singletons
from ffn_bench.command_line.python_view import DataWarning
from ffn_bench.errors import UserError
from ffn_bench.run_folder import lock
from ffn_bench.run_folder.files import Folder

SMALL: dict[str, Any] = {"data": "moons", "epochs": 3}
X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.arange(60) % 2
TIMES = re.compile(
    r'"(time|train_seconds)":\s*[\d.e-]+|\d{4}-\d\d-\d\d[ T][\d:]+(,\d+|[+-][\d:]+)?'
    r'|"(sha256|temporary)": "[^"]*"'
    r"|step-(\d+)-[0-9a-f]{64}|tfevents\.[^\"]*|\"size\": \d+"
)
"""What differs between two trainings of the same run."""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def texts(folder: Path) -> dict[str, str]:
    """Every text of a folder, without times and paths; of binary files that they are there."""
    contents, root = {}, Path.cwd().parent / folder.relative_to(Path.cwd().parent).parts[0]
    for path in sorted(folder.rglob("*")):
        name = TIMES.sub("", str(path.relative_to(folder)))
        if path.is_file():
            binary = path.suffix == ".safetensors" or "tfevents" in path.name
            text = "" if binary else path.read_text().replace(str(root), "")
            contents[name] = TIMES.sub("", text)
    return contents


# --- the same as the command ----------------------------------------------------------------------------

SAME: list[tuple[list[str], dict[str, Any]]] = [
    (["data=moons", "epochs=3"], {"data": "moons", "epochs": 3}),
    (
        ["data=moons", "data.noise=0.2", "model.hidden=[8,4]", "model.activation=tanh", "epochs=3"],
        {
            "data": {"name": "moons", "noise": 0.2},
            "model": {"hidden": [8, 4], "activation": "tanh"},
            "epochs": 3,
        },
    ),
    (
        ["data=moons", "optimizer=sgd", "optimizer.momentum=0.9", "lr=0.1", "epochs=3"],
        {"data": "moons", "optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 0.1, "epochs": 3},
    ),
    (
        [
            "data=moons",
            "optimizer=torch",
            "optimizer.name=ASGD",
            "+optimizer.options.lambd=0.001",
            "epochs=2",
        ],
        {
            "data": "moons",
            "optimizer": "torch",
            "optimizer.name": "ASGD",
            "optimizer.options": {"lambd": 0.001},
            "epochs": 2,
        },
    ),
    (["data=moons", "lr=0.02", "epochs=2"], {"data": "moons", "optimizer.lr": 0.02, "epochs": 2}),
    (
        ["data=moons", "batch_size=full", "seed=7", "dtype=float64", "epochs=2"],
        {"data": "moons", "batch_size": "full", "seed": np.int64(7), "dtype": "float64", "epochs": 2},
    ),
    (["+experiment=lecture", "epochs=1"], {"experiment": "lecture", "epochs": 1}),
]


@pytest.mark.parametrize(("typed", "keys"), SAME, ids=[" ".join(typed) for typed, _ in SAME])
def test_a_run_from_python_is_the_commands(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], keys: dict[str, Any]
) -> None:
    import ffn_bench

    for name in ("typed", "python"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "typed")
    assert ffn(*typed, "name=x").code == 0
    monkeypatch.chdir(tmp_path / "python")
    run = ffn_bench.fit(**keys, name="x")
    assert run.path == Path("outputs/x") and run.status == "finished"
    by_command, by_python = texts(tmp_path / "typed"), texts(tmp_path / "python")
    assert by_command.keys() == by_python.keys()
    for name in by_command:
        assert by_command[name] == by_python[name], name
    assert_same_weights(tmp_path / "typed/outputs/x", tmp_path / "python/outputs/x")


def assert_same_weights(one: Path, other: Path) -> None:
    from ffn_bench.run_folder import trained_network

    for at in ("best", "last"):
        pairs = zip(
            trained_network.load(one, at).weights.layers,
            trained_network.load(other, at).weights.layers,
            strict=True,
        )
        for (W, b), (V, c) in pairs:
            assert W.tobytes() == V.tobytes() and b.tobytes() == c.tobytes()


def test_a_sweep_from_python_is_the_commands(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ffn_bench

    for name in ("typed", "python"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "typed")
    swept = ("seed=range(0,3)", "optimizer=sgd,adam", "model.hidden=[4],[8,8]")
    assert ffn("-m", "data=moons", "epochs=2", *swept, "name=s").code == 0
    monkeypatch.chdir(tmp_path / "python")
    sweep = ffn_bench.sweep(
        "moons",
        epochs=2,
        seed=range(3),
        optimizer=["sgd", "adam"],
        model={"hidden": [[4], [8, 8]]},
        name="s",
    )
    assert len(sweep) == 12
    folders = [tmp_path / name / "outputs/sweeps/s" for name in ("typed", "python")]
    one, other = (sorted(path.name for path in folder.iterdir() if path.is_dir()) for folder in folders)
    assert one == other and len(one) == 12
    by_command, by_python = map(texts, folders)
    assert by_command.keys() == by_python.keys()
    for name in by_command:
        if not name.endswith("multirun.yaml"):
            same = re.sub(r'"trained_beside": \d+|"command": \[[^]]*\]', "", by_command[name])
            assert same == re.sub(r'"trained_beside": \d+|"command": \[[^]]*\]', "", by_python[name]), name
    assert_same_weights(folders[0] / one[0], folders[1] / one[0])


def test_a_run_that_has_ended_is_returned_and_not_trained_again() -> None:
    first = ffn.fit(**SMALL, name="x")
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    again = ffn.fit(**SMALL, name="x")
    assert again.history.equals(first.history)
    assert {p: p.stat().st_mtime_ns for p in first.path.rglob("*")} == before
    other = ffn.fit(**SMALL, name="x", force=True)
    assert other.path == Path("outputs/x-2")


def test_a_run_that_diverges_is_returned() -> None:
    run = ffn.fit(**SMALL, optimizer="sgd", lr=1e30)
    assert run.status == "diverged" and "step" in run.reason


def test_failed_runs_of_a_sweep_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from ffn_bench import train

    real = train.train_run

    def failing(run: Any, folder: Folder, *arguments: Any) -> Any:
        if run.seed == 1:
            raise MemoryError("no room")
        return real(run, folder, *arguments)

    monkeypatch.setattr(train, "train_run", failing)
    with pytest.warns(DataWarning, match="failed; see its train.log"):
        sweep = ffn.sweep(**SMALL, seed=range(3), name="s")
    assert sorted(sweep.frame()["seed"].to_list()) == [0, 2]


def test_mappings_are_swept_one_after_the_other_under_a_name() -> None:
    """What the message for mappings in a list says to do."""
    ffn.sweep(**SMALL, optimizer={"name": "sgd", "momentum": 0.9}, seed=range(2), name="s")
    sweep = ffn.sweep(**SMALL, optimizer="adam", seed=range(2), name="s")
    assert sorted(sweep.frame()["optimizer.name"]) == ["adam", "adam", "sgd", "sgd"]


# --- mistakes -------------------------------------------------------------------------------------------

TYPED_TOO: list[tuple[list[str], dict[str, Any]]] = [
    (["lrr=1"], {"lrr": 1}),
    (["optimizer=adm"], {"optimizer": "adm"}),
    (["lr=-1"], {"lr": -1}),
    (["lr=inf"], {"lr": float("inf")}),
    (["lr=null"], {"lr": None}),
    (["epochs=1.5"], {"epochs": 1.5}),
    (["epochs=true"], {"epochs": True}),
    (["batch_size='all of them'"], {"batch_size": "all of them"}),
    (["model.hidden=5"], {"model": {"hidden": 5}}),
    (["model.hidden=[10,-2]"], {"model.hidden": [10, -2]}),
    (["model.activation=ReLU"], {"model": {"activation": "ReLU"}}),
    (["optimizer=sgd", "optimizer.betas=[0.9,0.99]"], {"optimizer": {"name": "sgd", "betas": (0.9, 0.99)}}),
    (["optimizer=lbfgs", "batch_size=32"], {"optimizer": "lbfgs", "batch_size": 32}),
    (["device=cuda:77"], {"device": "cuda:77"}),
    (
        ["data=csv", "data.path=none.csv", "data.target=y"],
        {"data": {"name": "csv", "path": "none.csv", "target": "y"}},
    ),
    (["data=csv"], {"data": "csv"}),
    (["name=../x"], {"name": "../x"}),
    (["patience=3", "data.val_fraction=0"], {"patience": 3, "data.val_fraction": 0}),
    (["keep=worst"], {"keep": "worst"}),
    (["data=arrays"], {"data": "arrays"}),
    (["data=moons", "data._target_=os.system"], {"data": {"name": "moons", "_target_": "os.system"}}),
]


@pytest.mark.parametrize(("typed", "keys"), TYPED_TOO, ids=[" ".join(typed) for typed, _ in TYPED_TOO])
def test_a_mistake_is_the_commands(
    ffn: Command, tmp_path: Path, typed: list[str], keys: dict[str, Any]
) -> None:
    import ffn_bench

    result = ffn(*typed)
    assert result.code in range(2, 6) and result.err.count("\n") == 1
    with pytest.raises(UserError) as mistake:
        ffn_bench.fit(**keys)
    assert f"ffn-train: error: {mistake.value}\n" == result.err
    assert mistake.value.status == result.code
    assert list(tmp_path.iterdir()) == []


class Odd:
    """No value of any setting."""


FRAME = pl.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [1, 2, 3, 4], "kind": ["x", "y", "x", "y"]})
OF_PYTHON: list[tuple[dict[str, Any], int, str]] = [
    ({"lr": [0.1, 0.2]}, 2, "lr: lists several values; use ffn_bench.sweep to try them one by one"),
    ({"seed": range(3)}, 2, "seed: lists several values; use ffn_bench.sweep"),
    ({"lr": Odd()}, 2, "lr: Odd is not a value of a setting; use a number, text"),
    ({"optimizer": {"name": "sgd", 3: 1}}, 2, "3: is not a key; use names of keys"),
    ({"a b": 1}, 2, "'a b': is not a key"),
    ({"hydra.run.dir": "x"}, 2, "hydra.run.dir: is a setting of the command; name=… says where"),
    ({"hydra": {"launcher": "joblib"}}, 2, "hydra: is a setting of the command"),
    ({"tune": "random_25"}, 2, "tune: is a setting of the command; run ffn-train +tune=…"),
    ({"status": True}, 2, "status: is a setting of the command; use ffn_bench.load"),
    (
        {"data": {"name": "csv", "path": "a\nb"}},
        2,
        r"data.path: 'a\nb' holds a line break or a control character",
    ),
    ({"data": "moons", "target": "y"}, 2, "target: is given, and data is no frame; for a file write"),
    (
        {"data": "my.csv"},
        2,
        "data: 'my.csv' is a path, not the name of a data set; for a file write data=dict(",
    ),
    (
        {"data": "/etc/passwd"},
        2,
        "data: '/etc/passwd' is a path, not the name of a data set; for a file write",
    ),
    (
        {"data": Path("rows")},
        2,
        "data: 'rows' is a path, not the name of a data set; for a file write data=d",
    ),
    (
        {"data": {"path": "a.csv"}},
        2,
        'data: has a path and no name; for a file write data=dict(name="csv", p',
    ),
    ({"data": 3}, 3, "data: int is neither a name, a pair (X, y) nor a frame; write data=(X, y)"),
    ({"data": (X, Y), "target": "y"}, 3, "target: is given, and data is no frame; give the labels as y"),
    ({"data": (X, Y[:-1])}, 3, "y: has 59 labels, and X has 60 rows; give a label for each row"),
    ({"data": (X[:, 0], Y)}, 3, "X: has 1 dimensions (60), not 2; give rows"),
    ({"data": (X.reshape(60, 3, 1), Y)}, 3, "X: has 3 dimensions (60×3×1), not 2; give rows"),
    ({"data": (X[:, :0], Y)}, 3, "X: has no columns; give features"),
    ({"data": (X[:0], Y[:0])}, 3, "X: has no rows; give some"),
    ({"data": ([[1.0, 2.0], [3.0]], [0, 1])}, 3, "X: has rows of different lengths; give each"),
    ({"data": ([[1.0, "two"], [3.0, 4.0]], [0, 1])}, 3, "X, row 0, column 'x1': 'two' is not a number"),
    (
        {"data": (np.array([[1.0, np.nan], [3.0, 4.0]]), [0, 1])},
        3,
        "X, row 0, column 'x1': nan is not a finite number",
    ),
    ({"data": (csr_array(X), Y)}, 3, "X: is a sparse matrix; give X.toarray()"),
    (
        {"data": (torch.ones(4, 2, requires_grad=True), [0, 1, 0, 1])},
        3,
        "X: is no array: Can't call numpy() on Tensor",
    ),
    ({"data": (X, np.full(60, "a"))}, 3, "data: y has only one class, 'a'; give two or more"),
    ({"data": (X, X[:, 0])}, 3, "data: y has 60 different labels in 60 rows; choose a column of classes"),
    (
        {"data": (X, np.eye(2)[Y])},
        3,
        "y: has 2 dimensions, not 1; give one label a row: y.argmax(1) of one-hot rows",
    ),
    ({"data": (X, [None, *["a"] * 59])}, 3, "y, row 0: blank label; fill it in or drop the row"),
    ({"data": (X, np.where(Y, np.nan, 1.0))}, 3, "y, row 1: blank label"),
    (
        {"data": (X, np.array([1, "a"] * 30, dtype=object))},
        3,
        "y: labels are of several kinds: int, str; make",
    ),
    (
        {"data": FRAME},
        3,
        'target: has no value; name the column of the labels: target="…"; its columns: a, b, kind',
    ),
    ({"data": FRAME, "target": "kin"}, 3, "target: the frame has no column 'kin' (did you mean 'kind'?)"),
    (
        {"data": pd.DataFrame({"a": [1, 2, "x"], "kind": ["x", "y", "x"]}), "target": "kind"},
        3,
        "data, row 2, column 'a': 'x' is not a number; correct it, use data.missing=impute when it is blank",
    ),
    (
        {"data": FRAME.with_columns(a=None), "target": "kind"},
        3,
        "data, row 0, column 'a': blank cell; fill it in, use data.missing=impute",
    ),
    (
        {"data": FRAME.with_columns(b=pl.Series([1, 2, None, 4])), "target": "kind"},
        3,
        "data, row 2, column 'b': blank cell",
    ),
    (
        {
            "data": pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "kind": ["x", "y"]}),
            "target": "kind",
        },
        3,
        "data, row 1, column 'a': blank cell",
    ),
    (
        {
            "data": pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 2), "kind": ["x", "y"]}),
            "target": "kind",
        },
        3,
        "data, column 'a': has the type datetime64",
    ),
    (
        {"data": FRAME.lazy(), "target": "kind"},
        3,
        "data: is a lazy frame, which has no rows yet; give data.coll",
    ),
    ({"data": (FRAME.lazy(), Y)}, 3, "X: is a lazy frame, which has no rows yet; give X.collect()"),
    ({"data": pd.DataFrame(X), "target": 7}, 3, "target: the frame has no column '7'; its columns: 0, 1, 2"),
    (
        {"data": pd.DataFrame(X, columns=[0, "0", 1]), "target": 0},
        3,
        "data: column '0' is duplicated; rename",
    ),
    (
        {"data": (np.ma.masked_less(np.arange(120.0).reshape(60, 2), 1), Y)},
        3,
        "X, row 0, column 'x0': blank cell (masked); fill it in or drop the row",
    ),
    (
        {"data": (X, np.ma.masked_equal(Y, 1))},
        3,
        "y, row 1: blank label (masked); fill it in or drop the row",
    ),
    ({"data": (X, ["a", float("nan")] * 30)}, 3, "y, row 1: blank label"),
    (
        {"data": (X, [2**70, 1] * 30)},
        3,
        "y, row 0: 1180591620717411303424 has more than 64 bits; make the lab",
    ),
    ({"data": (X, [b"a", b"b"] * 30)}, 3, "y, row 0: b'a' is bytes, not text; decode the labels"),
    ({"data": (X, [b"a", "b"] * 30)}, 3, "y, row 0: b'a' is bytes, not text; decode the labels"),
    ({"data": (X, [(1,), (2,)] * 30)}, 3, "y: has 2 dimensions"),
    ({"data": (X, ["a\ud800", "b"] * 30)}, 3, "y, label: 'a\\ud800' cannot be written as UTF-8; rename it"),
    (
        {"data": pd.DataFrame({"a\udfff": [1, 2], "kind": ["x", "y"]}), "target": "kind"},
        3,
        "data, name of a column: 'a\\udfff' cannot be written as UTF-8",
    ),
    (
        {"data": ([[1, None], [3, 4]], [0, 1])},
        3,
        "X, row 0, column 'x1': blank cell; features must be numbers",
    ),
    ({"data": (X, Y), "task": "regresion"}, 2, "task: 'regresion' is not known (did you mean 'regression'?)"),
    (
        {"data": (X, X[:-1, 0]), "task": "regression"},
        3,
        "y: has 59 rows, and X has 60; give targets for each",
    ),
    (
        {"data": (X, np.ones((60, 1, 1))), "task": "regression"},
        3,
        "y: has the shape (60, 1, 1); give targets",
    ),
    ({"data": (X, X[:, :0]), "task": "regression"}, 3, "y: has the shape (60, 0); give targets [n], or"),
    (
        {"data": (X, ["one"] * 60), "task": "regression"},
        3,
        "y, row 0, column 'y': 'one' is not a number; targ",
    ),
    (
        {"data": (X, np.where(X > 0, X, np.inf)), "task": "regression"},
        3,
        "y, row 0, column 'y1': inf is not a finite number",
    ),
    (
        {"data": (X, pd.Series([1.0, None] * 30, dtype="Float64")), "task": "regression"},
        3,
        "y, row 1, column 'y': ",
    ),
    ({"data": (X, np.ones(60)), "task": "regression"}, 3, "data: target 'y' is constant in the training"),
    ({"data": "iris", "task": "regression"}, 2, "data.task: regression cannot be learned from data=iris"),
    (
        {"data": (X, Y), "data.sha256": "0"},
        3,
        "data: were given as arrays in Python, and cannot be loaded again",
    ),
]


@pytest.mark.parametrize(("keys", "status", "text"), OF_PYTHON, ids=[text for *_, text in OF_PYTHON])
def test_mistakes_that_only_python_can_make(
    tmp_path: Path, keys: dict[str, Any], status: int, text: str
) -> None:
    with pytest.raises(UserError) as mistake:
        ffn.fit(**keys)
    assert str(mistake.value).startswith(text) and mistake.value.status == status
    assert "\n" not in str(mistake.value) and list(tmp_path.iterdir()) == []


OF_SWEEPS: list[tuple[dict[str, Any], str]] = [
    ({"seed": []}, "seed: contains no value; give values in the list"),
    ({"seed": range(0)}, "seed: "),
    ({"seed": [1, 1]}, "seed: 1 is duplicated; give each value once"),
    (
        {"seed": range(20), "max_runs": 10},
        "max_runs: the sweep has at least 20 runs, the limit is 10; raise max_runs",
    ),
    ({"optimizer": ["adam", "admm"]}, "optimizer: 'admm' is not known (did you mean 'adam'?); use one of: "),
    (
        {"optimizer": ["adam", {"name": "sgd"}]},
        "optimizer: a mapping cannot stand in a list of values; make a sweep of each, under the same name",
    ),
    (
        {"data": ["moons", {"name": "csv", "path": "a.csv"}]},
        "data: a mapping cannot stand in a list of values; make a sweep of each",
    ),
    ({"data": ["moons", "a.csv"]}, "data: 'a.csv' is a path, not the name of a data set; for a file write"),
    ({"data": [Path("a"), Path("b")]}, "data: 'a' is a path, not the name of a data set; for a file write"),
    ({"lr": [0.1, "fast"]}, "lr: 'fast' is not a number"),
    ({"name": "q-${oc.env:HOME}", "seed": [0, 1]}, "name: 'q-${oc.env:HOME}' contains '$'"),
]


@pytest.mark.parametrize(("keys", "text"), OF_SWEEPS, ids=[text for _, text in OF_SWEEPS])
def test_mistakes_of_sweeps(tmp_path: Path, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as mistake:
        ffn.sweep(**{**SMALL, **keys})
    assert str(mistake.value).startswith(text) and mistake.value.status == errors.CONFIGURATION
    assert list(tmp_path.iterdir()) == []


LOADED: list[tuple[str, Any, str]] = [
    ("nowhere", "best", "nowhere: does not exist; name folders of runs or sweeps"),
    ("empty", "best", "empty: contains no run (no run.json in it or below)"),
    ("a_file", "best", "a_file: is a file; name folders of runs or sweeps"),
    ("", "best", "path: is empty; name a folder of runs or sweeps"),
    ("damaged", "best", "damaged/run.json: "),
    ("empty", "first", "at: 'first' is not known"),
    ("empty", 3, "at: 3 is not known; use one of: last, best, epoch:N"),
    ("empty", None, "at: None is not known; use one of: last, best, epoch:N"),
]


@pytest.mark.parametrize(("path", "at", "text"), LOADED, ids=[text for *_, text in LOADED])
def test_folders_that_cannot_be_loaded(tmp_path: Path, path: str, at: Any, text: str) -> None:
    Path("empty").mkdir()
    Path("a_file").touch()
    Path("damaged").mkdir()
    Path("damaged/run.json").write_text("{")
    with pytest.raises(UserError) as mistake:
        ffn.load(path, at)
    assert str(mistake.value).startswith(text)


# --- values ---------------------------------------------------------------------------------------------

HOSTILE = [
    "a,b", "[1,2]", "{a:1}", "it's", '"quoted"', "a=b", "${lr}", "$HOME", "\\${lr}", "\\\\", "a\\'b", "true",
    "1e3", "null", "", " ", "a b", "ü日本", "${oc.env:HOME}", "a'${now:%Y}", "range(1,3)", "x\\", "'", "\\'",
    "#",
]  # fmt: skip


AS_A_PATH: dict[str, Callable[[str], object]] = {
    "a run": lambda text: ffn.fit(data={"name": "csv", "path": text, "target": "y"}),
    "a sweep": lambda text: ffn.sweep(data={"name": "csv", "path": text, "target": "y"}, seed=[0, 1]),
    "a swept value": lambda text: ffn.sweep(data={"name": "csv", "path": [text, "x"], "target": "y"}),
}


@pytest.mark.parametrize("text", [*HOSTILE, "${oops}", "a,b=[${epochs}]"])
@pytest.mark.parametrize("way", AS_A_PATH)
def test_text_arrives_as_it_is(way: str, text: str) -> None:
    """As a path: the message says which file was looked for."""
    with pytest.raises(UserError) as mistake:
        AS_A_PATH[way](text)
    expected = f"{text}: no such file" if text.strip() else "data.path: is empty"
    assert str(mistake.value).startswith(expected), str(mistake.value)


@pytest.mark.parametrize("number", [1e-5, 1e16, 1e-300, 0.1 + 0.2, 3, np.float32(0.1), np.float64(1e-7)])
def test_numbers_arrive_to_the_last_bit(number: Any) -> None:
    assert ffn.fit(**{**SMALL, "epochs": 1}, lr=0.001, l2=number).config["l2"] == float(number)


# --- data -----------------------------------------------------------------------------------------------


def test_arrays_and_frames_are_the_same_data() -> None:
    labels = np.where(Y, "yes", "no")
    columns = {f"x{k}": X[:, k] for k in range(3)}
    frames = [kind({**columns, "kind": labels}) for kind in (pl.DataFrame, pd.DataFrame)]
    given: list[dict[str, Any]] = [{"data": (X, labels)}, *({"data": f, "target": "kind"} for f in frames)]
    runs = [ffn.fit(**data, epochs=2) for data in given]
    identities = [json.loads((run.path / "run.json").read_text()) for run in runs]
    assert len({identity["data_sha256"] for identity in identities}) == 1
    assert len({run.history["loss/train"].to_numpy().tobytes() for run in runs}) == 1
    for run in runs:
        assert run.predict(X).tolist() == runs[0].predict(frames[1][["x2", "x0", "kind", "x1"]]).tolist()
        assert set(run.classes) == {"no", "yes"}


def test_a_regression_on_arrays_is_one_on_any_that_hold_the_same() -> None:
    y = X @ [[1.0, 0.0], [-2.0, 3.0], [0.5, 7.0]]
    named = ["height", "weight"]
    forms: list[Any] = [y, y.tolist(), pd.DataFrame(y, columns=named), pl.DataFrame(y, schema=named)]
    runs = [ffn.fit((X, form), task="regression", epochs=30) for form in forms]
    assert [run.status for run in runs] == ["finished"] * 4
    assert len({run.history["loss/train"].to_numpy().tobytes() for run in runs}) == 1
    assert len({run.config["data.sha256"] for run in runs}) == 2  # names are part of it
    for flat in (y[:, 1], pl.Series(y[:, 1]), pd.Series(y[:, 1])):
        run = ffn.fit((X, flat), task="regression", epochs=30)
        assert run.measured("final")["r2/train"] > 0.5


def test_regressions_that_have_ended_are_returned_and_swept() -> None:
    y = X[:, 0] ** 2
    run = ffn.fit((X, y), task="regression", name="it", epochs=3)
    written = (run.path / "summary.json").stat().st_mtime_ns
    again = ffn.fit((X, y), task="regression", name="it", epochs=3)
    assert again.history.equals(run.history)
    assert (run.path / "summary.json").stat().st_mtime_ns == written
    sweep = ffn.sweep((X, y), task="regression", seed=range(2), epochs=2)
    assert [run.status for run in sweep] == ["finished"] * 2


def test_pandas_numbers_columns_that_have_no_names() -> None:
    frame = pd.DataFrame(np.column_stack([X, Y]))
    run = ffn.fit(frame, target=3, epochs=1)  # type: ignore[arg-type]  # no text
    assert run.columns == ("0", "1", "2")
    assert run.predict(frame).tolist() == run.predict(X).tolist()


def test_other_arrays_are_another_run() -> None:
    ffn.fit((X, Y), epochs=1, name="x")
    with pytest.raises(UserError, match=r"holds another run: data.sha256 was"):
        ffn.fit((X + 1, Y), epochs=1, name="x")
    assert ffn.fit((X, Y), epochs=1, name="x").status == "finished"


def test_a_sweep_over_arrays() -> None:
    splits: dict[str, Any] = {"data.split_seed": [0, 1]}
    sweep = ffn.sweep((X, Y), epochs=1, seed=range(3), **splits)
    assert len(sweep) == 6 and len({run.config["data.sha256"] for run in sweep}) == 1
    names = {run.path.name.rpartition("-")[0] for run in sweep}
    assert names == {f"data.split_seed={k},data=arrays,epochs=1,seed={n}" for k in (0, 1) for n in range(3)}
    assert "data.sha256" not in sweep.frame().columns


def test_a_command_that_would_load_arrays_again_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from conftest import call
    from ffn_bench.landscape.command import main
    from ffn_bench.predict.command import main as predict

    ffn.fit((X, Y), epochs=1, name="x")
    for command, name, more in ((main, "ffn-landscape", ()), (predict, "ffn-predict", ("split=test",))):
        result = call(command, name, monkeypatch, capsys, "run=outputs/x", *more)
        said = "outputs/x: data: were given as arrays in Python, and cannot be loaded again; give them to"
        assert result.code == errors.DATA and result.err.startswith(f"{name}: error: {said}")
        assert result.err.count("\n") == 1


# --- the process ----------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    """What belongs to the program that calls us."""
    root = logging.getLogger()
    return {
        "folder": Path.cwd(),
        "arguments": list(sys.argv),
        "signals": {number: signal.getsignal(number) for number in (*signal.valid_signals(),)},
        "environment": dict(os.environ),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "store": json.dumps(ConfigStore.instance().repo, default=lambda node: str(id(node))),
        "hydra": (GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        "singletons": {kind: id(one) for kind, one in singletons().items()},
        "resolvers": sorted(name for name in ("now", "run_folder", "theirs") if OmegaConf.has_resolver(name)),
        "warnings": list(warnings.filters),
        "threads": (torch.get_num_threads(), threading.active_count()),
        "collector": (gc.isenabled(), gc.get_freeze_count()),
        "hook": sys.excepthook,
        "streams": (sys.stdout, sys.stderr),
        "errors": np.geterr(),
    }


WAYS: dict[str, Callable[[], object]] = {
    "a run": lambda: ffn.fit(**SMALL),
    "a run of PyTorch's": lambda: ffn.fit(**SMALL, engine="torch"),
    "a sweep": lambda: ffn.sweep(**SMALL, seed=range(2)),
    "a mistake": lambda: ffn.fit(lrr=1),
    "a mistake of the data": lambda: ffn.fit({"name": "csv", "path": "none", "target": "y"}),
    "a run that diverges": lambda: ffn.fit(**SMALL, optimizer="sgd", lr=1e30),
    "a run of a program's own arrays": lambda: ffn.fit((X, Y), epochs=1),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_process_is_afterwards_as_before(way: str) -> None:
    ffn.fit("digits", epochs=1, engine="torch")  # imports libraries, of which some set variables
    importlib.import_module("threadpoolctl")
    Singleton.set_state(dict(Singleton.get_state()))  # as jobs of launchers do
    ConfigStore.instance().store("mine", {"a": 1}, group="optimizer")
    OmegaConf.register_new_resolver("theirs", lambda: 1, replace=True)
    try:
        before = state()
        try:
            WAYS[way]()
        except UserError:
            assert "mistake" in way
        after = state()
    finally:
        ConfigStore.instance().repo.pop("optimizer")
        OmegaConf.clear_resolver("theirs")
    for name in before:
        assert after[name] == before[name], name


def test_two_calls_see_nothing_of_each_other() -> None:
    frame = FRAME.sample(60, with_replacement=True, seed=0)
    with pytest.warns(DataWarning, match="are also in training"):
        first = ffn.fit(frame, target="kind", epochs=1)
    second = ffn.fit(**SMALL)
    assert first.classes.tolist() == ["x", "y"] and second.classes.tolist() == ["upper", "lower"]
    with pytest.raises(UserError, match="cannot be loaded again"):
        ffn.fit("arrays")


def test_threads_take_turns() -> None:
    runs: dict[int, Any] = {}

    def train(seed: int) -> None:
        runs[seed] = ffn.fit(**SMALL, seed=seed, name=f"t{seed}")

    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        alone = ffn.fit(**SMALL, seed=seed)
        assert runs[seed].history["loss/train"].equals(alone.history["loss/train"])


INTERRUPTED = """
import os, signal, sys, threading, time
import ffn_bench as ffn

def interrupt():
    while not os.path.exists("outputs/x/metrics.jsonl"):
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
run = ffn.load("outputs/x")
print(run.status)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A program of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100
    )


def test_an_interrupt_saves_the_run() -> None:
    done = python(INTERRUPTED.format(call='ffn.fit("moons", epochs=1000000, name="x")'))
    assert done.stdout.splitlines() == ["interrupted True", "interrupted"], done.stderr
    assert lock.holder(Folder(Path("outputs/x"))) is None
    assert list(Path("outputs/x/checkpoint").iterdir())


FORKS = """
import os, threading
import ffn_bench as ffn
forks = []
os.register_at_fork(before=lambda: forks.append(1))
{before}
ffn.sweep("moons", epochs=1, seed=range(3), progress=False)
print(len(forks))
"""
WAITING = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.parametrize(("before", "forks"), [("", True), (WAITING, False), ("import polars", False)])
def test_no_worker_is_forked_once_threads_exist(before: str, forks: bool) -> None:
    done = python(FORKS.format(before=before))
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (int(done.stdout) > 0) == (forks and (os.cpu_count() or 1) > 1)


def test_importing_it_is_light() -> None:
    heavy = "{'torch', 'numpy', 'polars', 'hydra', 'omegaconf', 'sklearn', 'rich', 'matplotlib'}"
    code = f"import sys, ffn_bench; print(dir(ffn_bench)); print({heavy} & set(sys.modules))"
    done = python(code)
    names, modules = done.stdout.splitlines()
    assert modules == "set()" and {"fit", "sweep", "load", "FFNClassifier"} <= set(eval(names))
    fits = "import sys, ffn_bench as ffn; r = ffn.fit('moons', epochs=1); r.predict([[0, 0]]); r.history"
    assert (
        python(f"{fits}; print({{'torch', 'sklearn', 'matplotlib'}} & set(sys.modules))").stdout == "set()\n"
    )
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        ffn.fitt  # type: ignore[attr-defined]  # noqa: B018


def test_the_stub_names_what_the_package_offers() -> None:
    stub = Path(ffn.__file__).with_suffix(".pyi").read_text()
    offered = {*re.findall(r"as (\w+)$", stub, re.MULTILINE), "__version__"}
    assert offered == set(ffn.__all__)  # type: ignore[attr-defined]


def test_nothing_is_printed_and_data_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    constant = np.column_stack([X, np.ones(60)])
    with pytest.warns(DataWarning, match="1 of 4 features are constant") as caught:
        ffn.fit((constant, Y), epochs=1)
    assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match="1 of 4 features are constant"):
        ffn.sweep((constant, Y), epochs=1, seed=range(2))
    ffn.fit(**SMALL)
    assert capsys.readouterr() == ("", "")


def test_a_run_in_use_is_refused_at_once() -> None:
    holding = lock.Lock(Folder(Path("outputs/x")))
    start = time.perf_counter()
    try:
        with pytest.raises(UserError, match="is in use by process"):
            ffn.fit(**SMALL, name="x")
    finally:
        holding.release()
    assert time.perf_counter() - start < 5
