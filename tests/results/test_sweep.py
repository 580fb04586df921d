"""A sweep as an object of Python: a frame of what its folders say; what `ffn-compare` says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ffn_bench as ffn
import ffn_bench.compare.command
from conftest import call
from ffn_bench.errors import UserError
from ffn_bench.results.run import Run
from ffn_bench.results.sweep import Sweep

SEEDS = 3


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        trained = ffn.sweep("moons", epochs=4, optimizer=["sgd", "adam"], seed=range(SEEDS), name="s")
        path = trained.path.absolute()
    loaded = ffn.load(path)
    assert isinstance(loaded, Sweep)
    return loaded


def test_a_row_a_run(sweep: Sweep) -> None:
    frame = sweep.frame()
    assert frame.columns[:5] == ["run", "optimizer.name", "lr", "seed", "status"]
    assert len(frame) == len(sweep) == 2 * SEEDS
    for row in frame.iter_rows(named=True):
        folder = sweep.path / row["run"]
        best = json.loads((folder / "summary.json").read_text())["best"]
        config = json.loads((folder / "run.json").read_text())["config"]
        assert {tag: row[tag] for tag in best if tag in row} == {tag: best[tag] for tag in best if tag in row}
        assert row["accuracy/val"] == best["accuracy/val"] and row["epoch"] == best["epoch"]
        assert (row["optimizer.name"], row["seed"]) == (config["optimizer.name"], config["seed"])


def test_it_is_a_sequence_of_runs(sweep: Sweep) -> None:
    assert all(isinstance(run, Run) for run in sweep)
    assert sweep[0].path.name == sweep.frame()["run"][0] and len(sweep[1:3]) == 2
    assert repr(sweep).endswith("6 runs)") and "optimizer.name" in sweep._repr_html_()


def test_settings_that_differ_have_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    momentum: Any = {"optimizer": "sgd", "optimizer.momentum": [0.0, 0.9]}
    own = ffn.sweep("moons", epochs=1, model={"hidden": [[4], [8, 8]]}, **momentum, name="s").frame()
    assert sorted(zip(own["model.hidden"], own["optimizer.momentum"], strict=True)) == [
        ("[4]", 0.0), ("[4]", 0.9), ("[8, 8]", 0.0), ("[8, 8]", 0.9),
    ]  # fmt: skip
    assert "optimizer.nesterov" not in own.columns and "name" not in own.columns


def test_a_comparison_is_the_commands(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = sweep.compare()
    assert list(tmp_path.iterdir()) == []
    call(
        ffn_bench.compare.command.main,
        "ffn-compare",
        monkeypatch,
        capsys,
        f"runs={sweep.path}",
        "save=report",
    )
    written = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert comparison.sentences == written["verdict"]["sentences"]
    assert comparison.notes == written["notes"]
    assert comparison.table["optimizer"].to_list() == [c["name"] for c in written["competitors"]]
    assert str(comparison).startswith(comparison.sentences[0])
    assert comparison.sentences[0].partition(":")[0] in comparison._repr_html_()
    assert comparison.figure().axes
    with pytest.raises(UserError, match="figure: there is no 'curve' of these runs"):
        comparison.figure("curve")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"metric": "accuracy"}, "metric: "),
        ({"target": 97.0}, "target: 97 is outside the range of accuracy; use a number between 0 and 1"),
        ({"by": "optimiser"}, "by: "),
        ({"reference": "rmsprop"}, "reference: "),
    ],
)
def test_comparisons_that_cannot_be(sweep: Sweep, keys: dict[str, str | float], text: str) -> None:
    with pytest.raises(UserError) as mistake:
        sweep.compare(**keys)  # type: ignore[arg-type]
    assert str(mistake.value).startswith(text)


def test_runs_that_cannot_be_read_are_named(sweep: Sweep, tmp_path: Path) -> None:
    shutil.copytree(sweep.path, tmp_path / "s")
    names = sweep.frame()["run"]
    (tmp_path / "s" / names[0] / "run.json").write_text("{")
    damaged = ffn.load(tmp_path / "s")
    assert isinstance(damaged, Sweep) and len(damaged) == 2 * SEEDS - 1
    assert len(damaged.problems) == 1 and names[0] in damaged.problems[0]
    assert damaged.problems[0] in str(damaged.compare()) and "left out" in damaged._repr_html_()
    for name in names:
        (tmp_path / "s" / name / "run.json").write_text("{")
    with pytest.raises(UserError, match="no run can be read"):
        ffn.load(tmp_path / "s")
