"""A run as an object of Python: its frames are its files, its predictions PyTorch's, its figures numbers."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import ffn_bench as ffn
import ffn_bench.predict.command
from conftest import MNIST, call, needs_mnist
from ffn_bench.errors import UserError
from ffn_bench.results.run import Run
from hostile import DAMAGES, STATES, make_outside, rewrite_checkpoints
from trained_runs import MOONS, by_pytorch, load, rows_of_test, train, train_on

DATA = ["digits", "csv", pytest.param("mnist", marks=needs_mnist)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on three data sets, and one on moons with its trajectory."""
    here = tmp_path_factory.mktemp("results")
    for data in ("digits", "csv", *(["mnist"] if (MNIST / "MNIST" / "raw").is_dir() else [])):
        train_on(data, here / data)
    train(here / "moons", *MOONS, "trajectory=true")
    return here


# --- predictions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", DATA)
def test_probabilities_are_pytorchs_and_the_commands_on_every_test_row(
    folder: Path, data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, network = ffn.load(folder / data), load(folder / data)
    assert isinstance(run, Run)
    rows, labels = rows_of_test(network)
    probabilities = run.predict_proba(rows)
    expected = by_pytorch(network, network.standardise(rows))
    assert probabilities.shape == (len(labels), len(run.classes)) and len(labels) > 50
    assert np.abs(probabilities - expected).max() < 1e-5
    with torch.no_grad():
        assert np.abs(np.asarray(run.model(torch.from_numpy(rows)).softmax(1)) - expected).max() < 1e-5
    of_test = (f"run={folder / data}", "split=test")
    result = call(ffn_bench.predict.command.main, "ffn-predict", monkeypatch, capsys, *of_test)
    _, *lines = csv.reader(io.StringIO(result.out))
    typed = np.array([[float(cell) for cell in line[2:]] for line in lines])
    assert np.abs(probabilities - typed).max() < 1e-5
    assert (run.predict(rows) == run.classes[expected.argmax(1)]).all()


def test_the_score_is_that_of_the_summary(folder: Path) -> None:
    run = Run(folder / "digits")
    rows, labels = rows_of_test(load(folder / "digits"))
    assert run.classes.dtype == np.int64
    assert (run.predict(rows) == labels).mean() == run.measured("best")["accuracy/test"]


@pytest.mark.parametrize("at", ["best", "last", "epoch:0", "epoch:2"])
def test_weights_of_other_epochs(folder: Path, at: str) -> None:
    run, network = Run(folder / "moons", at), load(folder / "moons", at)
    rows = np.random.default_rng(0).normal(size=(9, 2))
    expected = by_pytorch(network, network.standardise(rows))
    assert np.abs(run.predict_proba(rows) - expected).max() < 1e-5
    assert run.network.weights.step == network.weights.step


def test_frames_are_matched_by_name(folder: Path) -> None:
    run = Run(folder / "csv")
    rows, _ = rows_of_test(load(folder / "csv"))
    frame = pl.DataFrame({name: rows[:, k] for k, name in enumerate(run.columns)})
    other = frame.select(*reversed(frame.columns), pl.lit("x").alias("not a feature"))
    for given in (frame, other, pd.DataFrame(other.to_dict(as_series=False))):
        assert run.predict_proba(given).tobytes() == run.predict_proba(rows).tobytes()


TABLE = pl.DataFrame({"x0": [1.0], "x1": [2.0]})
ROWS: list[tuple[Any, str]] = [
    ([[1.0, 2.0, 3.0]], "X: has 3 columns, and the run was trained on 2; give as many, in that order"),
    ([1.0, 2.0], "X: has 1 dimensions (2), not 2; give rows"),
    ([[1.0, float("inf")]], "X, row 0, column 'x1': inf is not a finite number"),
    ([["a", "b"]], "X, row 0, column 'x0': 'a' is not a number; features must be numbers"),
    ([[1.0, None]], "X, row 0, column 'x1': blank cell"),
    ([[1.0], [2.0, 3.0]], "X: has rows of different lengths"),
    ([[1j, 2j]], "X, row 0, column 'x0': 1j is not a number"),
    ([[1e300, 1e300]], "X: the values of row 0 are too large for this network"),
    (TABLE.select("x0"), "X: lacks 1 of the 2 columns that the run was trained on: 'x1'"),
    (
        TABLE.rename({"x1": "x_1"}),
        "X: lacks 1 of the 2 columns that the run was trained on: 'x1' (did you mean 'x_1'?)",
    ),
    (pd.DataFrame([[1, 2, 3]], columns=["x0", "x1", "x1"]), "X: column 'x1' is duplicated"),
    (TABLE.with_columns(x1=pl.Series(["two"])), "X, row 0, column 'x1': 'two' is not a number"),
]


@pytest.mark.parametrize(("rows", "text"), ROWS, ids=[text for _, text in ROWS])
def test_rows_that_cannot_be_predicted(folder: Path, rows: Any, text: str) -> None:
    with pytest.raises(UserError) as mistake:
        Run(folder / "moons").predict(rows)
    assert str(mistake.value).startswith(text) and mistake.value.status == 3


def test_a_run_is_pickled_without_what_its_folder_has(folder: Path) -> None:
    run, rows = Run(folder / "moons"), np.zeros((1, 2))
    fresh = len(pickle.dumps(run))
    used = uses(run)
    assert len(pickle.dumps(run)) == fresh
    assert pickle.loads(pickle.dumps(run)).predict(rows).tolist() == np.asarray(used[0]).tolist()
    assert pickle.loads(pickle.dumps(run.network)).config == run.network.config


def test_no_rows_have_no_predictions(folder: Path) -> None:
    assert Run(folder / "moons").predict_proba(np.empty((0, 2))).shape == (0, 2)


# --- what was measured ----------------------------------------------------------------------------------


def test_the_history_is_metrics_jsonl(folder: Path) -> None:
    history = Run(folder / "digits").history
    measured: dict[int, dict[str, float]] = {}
    for line in (folder / "digits" / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        del values["time"]
        measured.setdefault(values["step"], {}).update(values)
    assert history["step"].to_list() == sorted(measured)
    for row in history.iter_rows(named=True):
        assert {tag: value for tag, value in row.items() if value is not None} == measured[row["step"]]


def test_the_summary_is_summary_json(folder: Path) -> None:
    run, content = Run(folder / "digits"), json.loads((folder / "digits" / "summary.json").read_text())
    best, final = (
        {k: v for k, v in row.items() if v is not None} for row in run.summary.iter_rows(named=True)
    )
    assert best == {"at": "best", **content["best"]}
    assert final == {"at": "final", "epoch": content["epochs"], "step": content["steps"], **content["final"]}
    assert (run.status, run.reason) == (content["status"], content["reason"])
    assert run.config == json.loads((folder / "digits" / "run.json").read_text())["config"]


def test_a_figure_shows_the_numbers(folder: Path) -> None:
    run = Run(folder / "digits")
    loss, accuracy = run.figure().axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in accuracy.get_lines()}
    values = run.history["accuracy/val"].drop_nulls().to_numpy()
    assert lines["validation"].tolist() == (100 * values).tolist()
    assert [line.get_label() for line in loss.get_lines()] == ["training", "validation", "test", "best epoch"]
    best = loss.get_lines()[-1].get_xdata()
    assert np.asarray(best).tolist() == [run.measured("best")["epoch"]] * 2
    assert len(run.figure("lr", "grad_norm").axes) == 2
    shown = run.figure("lr")._repr_png_()  # type: ignore[attr-defined]  # what a notebook asks for
    assert shown.startswith(b"\x89PNG")
    for at in ("x", None):
        with pytest.raises(UserError, match=rf"at: {at!r} is not known; use one of: best, final"):
            run.measured(at)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"figure: 'acuracy' was not measured \(did you mean 'accuracy'\?\)"):
        run.figure("acuracy")


def test_a_run_that_has_not_ended(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "digits", tmp_path / "killed")
    (tmp_path / "killed" / "summary.json").unlink()
    run = Run(tmp_path / "killed")
    assert run.status == "killed" and len(run.summary) == 0 and len(run.history) > 10
    assert "killed" in run._repr_html_()


# --- folders of strangers -------------------------------------------------------------------------------


def uses(run: Run) -> list[object]:
    """All that can be asked of a run."""
    rows = np.zeros((1, len(run.columns)))
    return [run.predict(rows), run.history, run.summary, run._repr_html_(), run.figure(), run.model]


FILES = ("run.json", "metrics.jsonl", "summary.json", "best.safetensors")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line_or_works(folder: Path, tmp_path: Path, file: str, damage: str) -> None:
    shutil.copytree(folder / "moons", tmp_path / "it")
    make_outside(tmp_path / "outside")
    DAMAGES[damage](tmp_path / "it" / file, tmp_path / "outside")
    try:
        run = ffn.load(tmp_path / "it")
        assert isinstance(run, Run)
        uses(run)
    except UserError as e:
        assert "\n" not in str(e) and e.status in (3, 4)


@pytest.mark.parametrize("state", STATES)
def test_a_changed_checkpoint_is_one_line_or_works(folder: Path, tmp_path: Path, state: str) -> None:
    shutil.copytree(folder / "moons", tmp_path / "it")
    rewrite_checkpoints(tmp_path / "it", STATES[state])
    try:
        uses(Run(tmp_path / "it", "last"))
    except UserError as e:
        assert "\n" not in str(e) and e.status == 4


MARKUP = "<script>alert(1)</script>"


def test_what_is_shown_is_text(folder: Path, tmp_path: Path) -> None:
    """Names of folders and whatever a folder says."""
    here = tmp_path / "<b>&"
    shutil.copytree(folder / "moons", here)
    identity = json.loads((here / "run.json").read_text())
    identity["config"]["optimizer.name"] = identity["config"]["data.name"] = MARKUP
    (here / "run.json").write_text(json.dumps(identity))
    summary = json.loads((here / "summary.json").read_text())
    (here / "summary.json").write_text(json.dumps({**summary, "reason": MARKUP}))
    pages = [Run(here)._repr_html_(), ffn.load(tmp_path)._repr_html_()]
    for page in pages:
        assert not re.search(r"<script|<b>&(?!lt;|amp;)", page.replace("<p><b>", ""))
    assert "&lt;script&gt;" in pages[0] and "&lt;b&gt;&amp;" in pages[0]


def test_nothing_heavy_is_imported_before_it_is_needed(folder: Path) -> None:
    asked: dict[str, set[str]] = {
        "run.config, run.status, run.measured()": set(),
        "run.predict([[0, 0]])": set(),
        "run.history, run._repr_html_()": {"polars"},
        "run.figure()": {"polars", "matplotlib"},
        "run.model": {"torch"},
    }
    for expression, expected in asked.items():
        heavy = "{'torch', 'polars', 'matplotlib', 'sklearn'}"
        code = (
            f"import sys, ffn_bench as ffn; run = ffn.load({str(folder / 'moons')!r}); {expression}; "
            f"print(sorted({heavy} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == str(sorted(expected)), expression
