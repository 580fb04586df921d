"""Run folders of earlier releases: read, shown and compared, never trained on with other random numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.predict.command
import ffn_bench.race.command
from cases import parsed
from conftest import Command, Result, call, files_below
from ffn_bench.configuration.fingerprint import fingerprint
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder
from run_folders import write_run

FORMAT_1 = Path(__file__).with_name("format_1")
"""A finished run as release 0.1.0 wrote it, without its events and logs."""
KEYS = ("data=moons", "data.n_samples=100", "model.hidden=[3]", "epochs=2", "log_every=4", "name=old")
RACE = ("surface=network", "optimizers=[sgd]", "lr=0.1", "steps=1", "animation=false")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of format 1, outputs/old."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "old"
    shutil.copytree(FORMAT_1, folder)
    (folder / "manifest.jsonl").rename(folder / ".ffn-bench.jsonl")
    return folder


@pytest.fixture
def analysis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`analysis("race", "run=…")` runs a command that reads run folders."""
    mains = {
        "compare": ffn_bench.compare.command.main,
        "landscape": ffn_bench.landscape.command.main,
        "race": ffn_bench.race.command.main,
        "predict": ffn_bench.predict.command.main,
        "export": ffn_bench.export.command.main,
    }
    return lambda name, *keys: call(mains[name], f"ffn-{name}", monkeypatch, capsys, *keys)


def test_a_run_that_has_ended_is_shown(old: Path, ffn: Command) -> None:
    before = {file: file.read_bytes() for file in files_below(old) if file.name != ".lock"}
    result = ffn(*KEYS)
    assert result.code == 0, result.err
    assert "already ended" in result.out
    assert {file: file.read_bytes() for file in files_below(old) if file.name != ".lock"} == before


def test_its_keys_are_those_of_the_same_run_today(old: Path) -> None:
    """The fingerprint, too: a sweep finds its folders by it."""
    identity = json.loads((FORMAT_1 / "run.json").read_text())
    run = parsed(*KEYS)
    assert fingerprint(run) == identity["fingerprint"]
    assert reading.status_and_summary(Folder(old), run)[0] == "finished"


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_run_that_has_not_ended_is_refused(old: Path, ffn: Command, checkpoint: bool) -> None:
    (old / "summary.json").unlink()
    if not checkpoint:
        shutil.rmtree(old / "checkpoint")
    before = {file: file.read_bytes() for file in files_below(old) if file.name != ".lock"}
    result = ffn(*KEYS)
    assert result.code == 4
    assert result.err.count("\n") == 1 and "was begun by an earlier release" in result.err
    assert {file: file.read_bytes() for file in files_below(old) if file.name != ".lock"} == before
    again = ffn(*KEYS, "force=true")
    assert again.code == 0, again.err
    assert json.loads((old.with_name("old-2") / "run.json").read_text())["format"] == 2


def test_one_of_a_sweep_fails_and_its_neighbour_trains(old: Path, ffn: Command) -> None:
    """The old one keeps the folder that its name has, and nothing in it changes."""
    sweep = old.parent / "sweeps" / "s"
    keys = ("-m", "seed=0,1", *KEYS[:-1], "name=s")
    assert ffn(*keys).code == 0
    (begun,) = sweep.glob("*seed=0*")
    shutil.rmtree(begun)
    shutil.move(old, begun)
    (begun / "summary.json").unlink()
    before = {file: file.read_bytes() for file in files_below(begun)}
    result = ffn(*keys)
    assert result.code == 1
    assert "was begun by an earlier release" in result.out and "1 failed" in result.out
    assert {file: file.read_bytes() for file in files_below(begun)} == before


def test_a_landscape_shows_where_it_ended_and_not_where_it_began(
    old: Path, analysis: Callable[..., Result]
) -> None:
    result = analysis("landscape", "run=outputs/old", "points=5")
    assert result.code == 0, result.err
    result = analysis("landscape", "run=outputs/old", "curvature=true", "save=c")
    assert (result.code, result.err.count("\n")) == (4, 1)
    assert "was begun by an earlier release" in result.err


def test_a_race_from_its_start_is_refused(old: Path, analysis: Callable[..., Result]) -> None:
    result = analysis("race", "run=outputs/old", *RACE)
    assert (result.code, result.err.count("\n")) == (4, 1)
    assert "was begun by an earlier release" in result.err


def test_it_is_compared_with_its_like_only(old: Path, analysis: Callable[..., Result]) -> None:
    """Its protocol is another: the weights that its seed stands for are."""
    assert analysis("compare", "runs=outputs/old").code == 0
    write_run(old.with_name("new"), *KEYS[:-1], "name=new")
    result = analysis("compare", "runs=[outputs/old,outputs/new]")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "have different protocol versions (2, 3)" in result.err


def test_it_predicts_with_what_is_fitted_to_its_data_again(
    old: Path, analysis: Callable[..., Result]
) -> None:
    """It kept neither standardisation nor the weights of its best epoch."""
    result = analysis("predict", "run=outputs/old", "at=last", "split=test")
    assert result.code == 0, result.err
    final = json.loads((old / "summary.json").read_text())["final"]
    assert f"accuracy     {100 * final['accuracy/test']:.2f}%" in result.err
    assert analysis("export", "run=outputs/old", "at=last", "to=model.onnx").code == 0
    result = analysis("predict", "run=outputs/old", "split=test")
    assert (result.code, result.err.count("\n")) == (4, 1)
    assert "has no best.safetensors: it is of an earlier release" in result.err
