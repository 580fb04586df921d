"""Networks of tables with text and blanks: predicted and exported, from cells to probabilities, all agree."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest

import ffn_bench
from conftest import call
from ffn_bench.export.command import main as export_main
from ffn_bench.predict.command import main as predict_main
from passengers import write_passengers
from trained_runs import load, train

DROPPED = "data.drop=[id,name]"
NEW = """port,id,title,age,sex,alone,class,fare,survived,name
Cherbourg,P1,Mrs,31.5,female,True,1,80.5,yes,a
,P2,Mr,,male,false,3,7.25,no,b
Atlantis,P3,Captain,55,male,FALSE,2,13,no,c
Southampton,P4,Countess,NA,unknown,true,1,512.33,yes,d
"""
"""Columns in another order, blanks, categories that nobody knows."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on passengers, and a table of new ones."""
    here = tmp_path_factory.mktemp("encoded")
    path = write_passengers(here / "passengers.csv")
    keys = (f"data.path={path}", "data.target=survived", "data.missing=impute", DROPPED, "epochs=20")
    train(here / "run", "data=csv", "name=x", *keys)
    (here / "new.csv").write_text(NEW, encoding="utf-8")
    return here


def predicted(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    rows = list(csv.DictReader(path.read_text().splitlines()))
    names = [name for name in rows[0] if name.startswith("probability_")]
    return [row["prediction"] for row in rows], np.array([[float(row[n]) for n in names] for row in rows])


@pytest.fixture
def from_csv(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[list[str], np.ndarray[Any, Any], str]:
    """What `ffn-predict` makes of the new table, and what it says."""
    out = here / "predictions.csv"
    what = f"run={here / 'run'}", f"data.path={here / 'new.csv'}", f"out={out}"
    result = call(predict_main, "ffn-predict", monkeypatch, capsys, *what)
    assert result.code == 0, result.err
    return *predicted(out), result.out


def test_unseen_categories_are_counted_and_told(from_csv: tuple[list[str], Any, str]) -> None:
    labels, probabilities, told = from_csv
    assert len(labels) == 4 and np.isfinite(probabilities).all()
    for column in ("port", "title", "sex"):
        assert f"1 row has a {column!r} that no training row has" in " ".join(told.split())
    assert "'class'" not in told and "accuracy" in told


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv.gz"])
def test_other_files_are_predicted_alike(
    suffix: str,
    here: Path,
    from_csv: tuple[list[str], Any, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = pl.read_csv(here / "new.csv", null_values=["", "NA"], schema_overrides={"alone": pl.String()})
    path, out = here / f"new{suffix}", here / "others.csv"
    if suffix == ".parquet":
        frame.write_parquet(path)
    elif suffix == ".arrow":
        frame.write_ipc(path)
    else:
        import gzip

        path.write_bytes(gzip.compress((here / "new.csv").read_bytes()))
    what = f"run={here / 'run'}", f"data.path={path}", f"out={out}"
    result = call(predict_main, "ffn-predict", monkeypatch, capsys, *what)
    assert result.code == 0, result.err
    labels, probabilities = predicted(out)
    assert labels == from_csv[0]
    np.testing.assert_array_equal(probabilities, from_csv[1])


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_frames_are_predicted_alike(library: str, here: Path, from_csv: tuple[list[str], Any, str]) -> None:
    frame: Any = pl.read_csv(here / "new.csv", null_values=["", "NA"], infer_schema_length=None)
    if library == "pandas":
        frame = pytest.importorskip("pandas").DataFrame(frame.to_dict(as_series=False))
    run = ffn_bench.load(here / "run")
    assert isinstance(run, ffn_bench.Run)
    with pytest.warns(UserWarning, match=r"known ones: 1 of column 'sex', 1 of column 'port', 1 of") as told:
        np.testing.assert_allclose(run.predict_proba(frame), from_csv[1], rtol=1e-6)
    assert len(told) == 1 and told[0].filename == __file__
    with pytest.warns(UserWarning, match="no training row has"):
        assert run.predict(frame).tolist() == from_csv[0]


def exported(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    result = call(export_main, "ffn-export", monkeypatch, capsys, f"run={here / 'run'}", f"to={here / name}")
    assert result.code == 0, result.err
    return here / name


def cells(here: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((here / "new.csv").read_text().splitlines()))


def test_onnx_takes_a_column_each(
    here: Path,
    from_csv: tuple[list[str], Any, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = exported(here, "model.onnx", monkeypatch, capsys)
    session = onnxruntime.InferenceSession(str(path))
    given: dict[str, Any] = {}
    for column in session.get_inputs():
        texts = [row[column.name] for row in cells(here)]
        if column.type == "tensor(string)":
            given[column.name] = np.array(texts, object)[:, None]
        else:
            words = {"": "nan", "NA": "nan", "true": "1", "false": "0"}
            given[column.name] = np.array(
                [float(words.get(t.lower() if t != "NA" else t, t)) for t in texts]
            )[:, None]
    assert set(given) == set(load(here / "run").fitted.columns)
    labels, probabilities = session.run(None, given)
    assert labels.tolist() == from_csv[0]
    np.testing.assert_allclose(probabilities, from_csv[1], atol=1e-6)


def test_python_reads_the_table_by_itself(
    here: Path,
    from_csv: tuple[list[str], Any, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = exported(here, "model.py", monkeypatch, capsys)
    done = subprocess.run(
        [sys.executable, "-I", str(path), str(here / "new.csv")], check=False, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == from_csv[0]
    columns = load(here / "run").fitted.columns
    rows = [[row[name] for name in columns] for row in cells(here)]
    code = (
        f"import sys, json; sys.path.insert(0, {str(here)!r}); import model; "
        f"print(json.dumps(model.predict_proba(json.loads({json.dumps(rows)!r})).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), from_csv[1], atol=1e-6)


def test_a_column_may_be_called_as_something_in_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("rows", "mean", "W1", "label", "probabilities", "concat_0", "constant_0")
    rng = np.random.default_rng(0)
    lines = [",".join([*names, "y"])]
    for k in range(60):
        values = [f"{v:.3f}" for v in rng.normal(size=len(names) - 1)]
        lines.append(",".join([*values, "ab"[k % 2], "no" if k % 2 else "yes"]))
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    train(
        tmp_path / "run", "data=csv", f"data.path={tmp_path / 't.csv'}", "data.target=y", "epochs=3", "name=x"
    )
    path = exported(tmp_path, "m.onnx", monkeypatch, capsys)
    assert [i.name for i in onnxruntime.InferenceSession(str(path)).get_inputs()] == list(names)


def test_weights_alone_say_what_their_inputs_are(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import safe_open

    with safe_open(exported(here, "model.safetensors", monkeypatch, capsys), "np") as file:
        metadata = file.metadata()
        assert file.get_tensor("0.weight").shape[1] == len(json.loads(metadata["inputs"]))
    assert "sex=male" in json.loads(metadata["inputs"]) and "age is blank" in json.loads(metadata["inputs"])
    assert "age is blank" in metadata["model_card"]


CELLS = {
    "yes and no": ("b", ["true", "FALSE", " True ", "NA", "", "1", "0", "yes"]),
    "numbers": ("n", ["1", " 2.5 ", "NA", "?", "", "inf", "1e999", "1_0", "٣", "true", "0x1", "-nan", "+1"]),
    "categories of numbers": ("c", ["1", "1.0", "01", "+2", "3", "NA", "", "inf", "red", "1_0"]),
    "categories": ("t", ["red", " blue ", "NA", "", "1", "green"]),
}


@pytest.fixture(scope="module", params=["impute", "error"])
def cells_run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with a run on a column of each kind, which may have blanks or not."""
    here = tmp_path_factory.mktemp("cells")
    lines = [
        f"{'tf'[k % 2]},{k},{k % 2 + 1}.0,{('red', 'blue')[k // 2 % 2]},{'xy'[k % 3 > 1]}" for k in range(60)
    ]
    content = "b,n,c,t,y\n" + "\n".join(lines).replace("t,", "true,").replace("f,", "false,") + "\n"
    (here / "t.csv").write_text(content)
    keys = (f"data.path={here / 't.csv'}", "data.target=y", "data.categories=[c]")
    train(here / "run", "data=csv", "name=x", "epochs=3", f"data.missing={request.param}", *keys)
    return here


@pytest.mark.parametrize("case", CELLS)
def test_python_reads_each_cell_as_prediction_does(
    cells_run: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same probabilities, or the same words."""
    column, cells = CELLS[case]
    path = exported(cells_run, "cells.py", monkeypatch, capsys)
    module: dict[str, Any] = {"__name__": "cells"}
    exec(compile(path.read_text(), "cells.py", "exec"), module)  # a file of ours
    for cell in cells:
        row = {"b": "true", "n": "3", "c": "1", "t": "red", column: cell}
        (cells_run / "new.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
        what = f"run={cells_run / 'run'}", f"data.path={cells_run / 'new.csv'}", f"out={cells_run / 'p.csv'}"
        result = call(predict_main, "ffn-predict", monkeypatch, capsys, *what)
        with (cells_run / "new.csv").open(newline="") as file:
            try:
                found = module["predict_proba"](module["read_rows"](file))
            except ValueError as e:
                assert result.code == 3 and str(e) in result.err, (cell, str(e), result.err)
            else:
                assert result.code == 0, (cell, result.err)
                np.testing.assert_allclose(found, predicted(cells_run / "p.csv")[1], atol=1e-6)
