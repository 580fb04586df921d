"""`ffn-predict`: what it predicts is what PyTorch does; every bad input is one line; nothing of a person's is
lost."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import ffn_bench.export.command
import ffn_bench.predict.command
from conftest import MNIST, Result, call, needs_mnist
from ffn_bench.configuration.fingerprint import fingerprint_of
from ffn_bench.data import blocks
from ffn_bench.errors import without_formula
from ffn_bench.predict.scores import Scores
from ffn_bench.run_folder.files import MANIFEST
from ffn_bench.run_folder.trained_network import data_again
from hostile import DAMAGES, make_outside
from trained_runs import (
    MOONS,
    ODD_COLUMNS,
    ODD_LABELS,
    by_pytorch,
    load,
    rows_of_test,
    train,
    train_on,
    write_table,
)

DATA = ["digits", "csv", pytest.param("mnist", marks=needs_mnist)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on three data sets, and on moons: one with a trajectory, and the same of an earlier release."""
    here = tmp_path_factory.mktemp("predictions")
    for data in ("digits", "csv", *(["mnist"] if (MNIST / "MNIST" / "raw").is_dir() else [])):
        train_on(data, here / data)
    train(here / "moons", *MOONS, "trajectory=true")
    shutil.copytree(here / "moons", here / "old")
    identity = json.loads((here / "old" / "run.json").read_text())
    del identity["fitted"]
    (here / "old" / "run.json").write_text(json.dumps(identity))
    return here


Command = Callable[..., Result]


@pytest.fixture
def predict(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command, in an empty folder, on a run of `folder`."""
    monkeypatch.chdir(tmp_path)

    def run(data: str, *arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        main = ffn_bench.predict.command.main
        return call(main, "ffn-predict", monkeypatch, capsys, f"run={folder / data}", *arguments)

    yield run


def read(text: str) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    """Header, predicted classes and probabilities of predictions as CSV."""
    header, *rows = csv.reader(io.StringIO(text))
    first = next(k for k, name in enumerate(header) if name.startswith("probability_"))
    return header, [row[0] for row in rows], np.array([row[first:] for row in rows], dtype=float)


# --- what is predicted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", DATA)
def test_predictions_are_pytorchs_on_every_test_row(
    folder: Path, data: str, predict: Command, tmp_path: Path
) -> None:
    """From a table, whose columns have another order, from standard input, and by the name of the split."""
    network = load(folder / data)
    rows, y = rows_of_test(network)
    classes = network.fitted.classes
    expected = by_pytorch(network, data_again(network.recorded).test.x)
    order = np.random.default_rng(0).permutation(len(network.fitted.columns))
    header = ["row", *(network.fitted.columns[k] for k in order)]
    lines = [[k, *row[order].tolist()] for k, row in enumerate(rows)]
    write_table(tmp_path / "rows.csv", header, lines)
    from_file = predict(data, "data.path=rows.csv", "out=out.csv")
    assert from_file.code == 0 and from_file.err == ""
    assert (
        "ignored, as the run was not trained on them: row" in from_file.out
        and "accuracy" not in from_file.out
    )
    text = (tmp_path / "out.csv").read_text()
    from_stdin = predict(data, "data.path=-", "out=-", stdin=(tmp_path / "rows.csv").read_bytes())
    assert from_stdin.out == text
    split = predict(data, "split=test")
    for header, labels, probabilities in map(read, (text, split.out)):
        assert header[-len(classes) :] == [f"probability_{name.replace(chr(1), '')}" for name in classes]
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
        assert labels == [without_formula(classes[k]) for k in expected.argmax(1)]
    best = json.loads((folder / data / "summary.json").read_text())["best"]
    given = [row["label"] == row["prediction"] for row in csv.DictReader(io.StringIO(split.out))]
    assert np.mean(given) == best["accuracy/test"] == np.mean(expected.argmax(1) == y)
    assert f"accuracy     {100 * best['accuracy/test']:.2f}%" in split.err
    assert f"loss         {best['loss/test']:.4g}" in split.err


def test_scores_where_the_labels_are_there(folder: Path, predict: Command, tmp_path: Path) -> None:
    network = load(folder / "csv")
    rows, y = rows_of_test(network)
    labels = [network.fitted.classes[k] for k in y]
    table = [[f" {label} ", *row] for label, row in zip(labels, rows.tolist(), strict=True)]
    table += [["unheard of", *rows[0]], ["", *rows[0]]]
    write_table(tmp_path / "rows.csv", ["kind of", *network.fitted.columns], table)
    result = predict("csv", "data.path=rows.csv")
    best = json.loads((folder / "csv" / "summary.json").read_text())["best"]
    assert f"accuracy     {100 * best['accuracy/test']:.2f}%" in result.err
    assert f"loss         {best['loss/test']:.4g}" in result.err
    assert "not scored   2 rows, whose label is none of the run's classes" in result.err
    assert len(read(result.out)[1]) == len(y) + 2
    write_table(tmp_path / "one.csv", ["kind of", *network.fitted.columns], table[:-1])
    assert "not scored   1 row, whose label is" in predict("csv", "data.path=one.csv").err
    write_table(tmp_path / "other.csv", ["truth", *network.fitted.columns], table[:-2])
    assert "accuracy" in predict("csv", "data.path=other.csv", "data.target=truth").err


@pytest.mark.parametrize("tab", ["tab", r"\t", r"'\t'", "'\t'"])
def test_a_tab_between_cells(predict: Command, tmp_path: Path, tab: str) -> None:
    """Named as in training."""
    (tmp_path / "rows.csv").write_text("x0,x1\n1,2\n")
    (tmp_path / "rows.tsv").write_text("x0\tx1\n1\t2\n")
    with_tab = predict("moons", "data.path=rows.tsv", f"data.delimiter={tab}")
    assert with_tab.code == 0 and with_tab.out == predict("moons", "data.path=rows.csv").out


def test_scores_are_sums_over_parts() -> None:
    draws = np.random.default_rng(0)
    logits, y = draws.normal(size=(50, 4)).astype(np.float32), draws.integers(4, size=50)
    scores = Scores()
    for part in (slice(0, 20), slice(20, 20), slice(20, 50)):
        scores.add(logits[part], y[part])
    loss = float(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(y)))
    assert scores.means() == {"loss": pytest.approx(loss, 1e-6), "accuracy": (logits.argmax(1) == y).mean()}
    scores.add(logits, np.full(50, -1))
    assert scores.rows == 50 and not Scores().means()


@pytest.mark.parametrize("at", ["last", "best", "epoch:0", "epoch:2"])
def test_weights_of_other_epochs(folder: Path, predict: Command, at: str) -> None:
    network = load(folder / "moons", at)
    result = predict("moons", "split=val", f"at={at}")
    expected = by_pytorch(network, data_again(network.recorded).val.x)
    np.testing.assert_allclose(read(result.out)[2], expected, rtol=0, atol=1e-6)
    assert network.weights.words in result.err


UNFINISHED: dict[str, tuple[dict[str, Any] | None, str]] = {
    "diverged": ({"reason": "the loss is nan"}, "the run diverged: the loss is nan"),
    "failed": ({"reason": "a disk"}, "the run failed: a disk"),
    "interrupted": ({}, "the run has not finished (interrupted): epoch 3 of 3"),
    "killed": (None, "the run has not finished (killed): epoch 3 of 3"),
}


@pytest.mark.parametrize("status", UNFINISHED)
def test_a_run_that_did_not_finish_is_noted(
    folder: Path,
    predict: Command,
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By prediction, by export, and in the model card."""
    changes, text = UNFINISHED[status]
    shutil.copytree(folder / "moons", tmp_path / "x")
    summary = tmp_path / "x" / "summary.json"
    if changes is None:
        summary.unlink()
    else:
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": status, **changes}))
    result = predict(str(tmp_path / "x"), "split=test")
    assert result.code == 0 and f"note         {text}\n" in result.err
    main = ffn_bench.export.command.main
    result = call(main, "ffn-export", monkeypatch, capsys, "run=x", "to=m.pt")
    assert result.code == 0 and f"note         {text}\n" in result.out
    assert f"note     {text}\n" in (tmp_path / "m.card.md").read_text()


def test_a_run_of_an_earlier_release(folder: Path, predict: Command, tmp_path: Path) -> None:
    """Its standardisation is worked out again from its data."""
    write_table(tmp_path / "rows.csv", ["x1", "x0"], [[0.1, 0.2], [3, -1]])
    first, again = predict("moons", "data.path=rows.csv"), predict("old", "data.path=rows.csv")
    assert first.code == again.code == 0 and first.out == again.out


def test_the_training_data_need_not_be_there(folder: Path, predict: Command, tmp_path: Path) -> None:
    shutil.copytree(folder / "csv", tmp_path / "moved")
    identity = json.loads((tmp_path / "moved" / "run.json").read_text())
    identity["config"]["data.path"] = "gone.csv"
    identity["fingerprint"] = fingerprint_of(identity["config"])
    (tmp_path / "moved" / "run.json").write_text(json.dumps(identity))
    table = f"data.path={folder / 'csv.csv'}"
    assert predict(str(tmp_path / "moved"), table).out == predict("csv", table).out != ""
    result = predict(str(tmp_path / "moved"), "split=test")
    assert result.code == 3 and "gone.csv: no such file" in result.err
    del identity["fitted"]
    (tmp_path / "moved" / "run.json").write_text(json.dumps(identity))
    result = predict(str(tmp_path / "moved"), table)
    assert result.code == 3 and result.err.count("\n") == 1
    assert "gone.csv: no such file (an earlier release trained this run, and" in result.err


def test_blocks_of_any_size_give_the_same(
    folder: Path, predict: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"data.path={folder / 'csv.csv'}"
    whole = predict("csv", table)
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    in_blocks = predict("csv", table)
    assert whole.err == in_blocks.err
    np.testing.assert_allclose(read(whole.out)[2], read(in_blocks.out)[2], rtol=0, atol=1e-6)
    assert read(whole.out)[1] == read(in_blocks.out)[1] and whole.out.count("\n") == 401


def test_numbers_read_back_to_the_last_bit(folder: Path, predict: Command) -> None:
    network = load(folder / "digits")
    expected = network.predictions(rows_of_test(network)[0])
    predicted = pl.read_csv(io.StringIO(predict("digits", "split=test").out))
    ours = predicted.select(pl.col("^probability_.*$").cast(pl.Float32)).to_numpy()
    np.testing.assert_allclose(ours, expected, rtol=3e-6)
    assert (ours > 0).all()


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_weights_of_the_best_epoch(how: str, folder: Path, predict: Command, tmp_path: Path) -> None:
    """The checkpoint is another file."""
    make_outside(tmp_path / "outside")
    shutil.copytree(folder / "moons", tmp_path / "damaged")
    DAMAGES[how](tmp_path / "damaged" / "best.safetensors", tmp_path / "outside")
    result = predict(str(tmp_path / "damaged"), "split=test")
    harmless = how == "a hard link"
    assert (result.code, result.err.count("\n") == 1) == ((0, False) if harmless else (4, True)), result.err
    assert not list(tmp_path.rglob("*canary*"))
    assert predict(str(tmp_path / "damaged"), "split=test", "at=last").code == 0


# --- where predictions go -------------------------------------------------------------------------------


def test_a_file_of_ours_is_replaced_and_a_persons_is_not(predict: Command, tmp_path: Path) -> None:
    for split in ("val", "test", "test"):
        assert predict("digits", f"split={split}", "out=below/p.csv").code == 0
    text = (tmp_path / "below" / "p.csv").read_bytes()
    assert text.count(b"\n") == 271
    (tmp_path / "below" / "p.csv").write_bytes(text + b"a remark\n")
    result = predict("digits", "split=test", "out=below/p.csv")
    assert result.code == 4 and result.err.count("\n") == 1
    assert "below/p.csv: exists, and was not written by this command; name another with out=" in result.err
    assert (tmp_path / "below" / "p.csv").read_bytes() == text + b"a remark\n"


def test_an_error_in_the_last_row_leaves_nothing(
    folder: Path, predict: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    lines = [[k / 100, 1] for k in range(100)]
    write_table(tmp_path / "rows.csv", ["x0", "x1"], [*lines, [1, "many"]])
    result = predict("moons", "data.path=rows.csv", "out=p.csv")
    assert result.code == 3
    place = "rows.csv, line 102, column 'x1'"
    what = "'many' is not a number; correct it, or leave its row out"
    assert result.err == f"ffn-predict: error: {place}: {what}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [MANIFEST, "rows.csv"]


def test_text_for_a_terminal_is_printable(
    folder: Path, predict: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes of a foreign folder may hold what a terminal would do."""
    shutil.copytree(folder / "moons", Path("evil"))
    identity = json.loads(Path("evil/run.json").read_text())
    identity["fitted"]["classes"] = ["\x1b[31m", "=A1"]
    Path("evil/run.json").write_text(json.dumps(identity))
    header = read(predict(str(Path("evil").absolute()), "split=test").out)
    assert header[0] == ["prediction", "label", "probability_\\x1b[31m", "probability_=A1"]
    assert set(header[1]) == {"\x1b[31m", "'=A1"}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    from ffn_bench.errors import printable
    from ffn_bench.predict.csv_text import CsvWriter

    text = CsvWriter(identity["fitted"]["classes"], False, printable).part(
        np.arange(2), np.eye(2, dtype=np.float32)
    )
    assert b"\x1b" not in text and b"\\x1b[31m" in text


def test_the_names_are_odd_enough() -> None:
    assert any(without_formula(label) != label for label in ODD_LABELS)
    assert any("," in name for name in ODD_COLUMNS) and any('"' in name for name in ODD_COLUMNS)
