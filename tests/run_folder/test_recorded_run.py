"""Hostile run folders, which every command that reads one refuses in the same way."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.predict.command
import ffn_bench.race.command
import ffn_bench.train
from conftest import call
from hostile import DAMAGES, bytes_below

COMPARE = (ffn_bench.compare.command.main, "ffn-compare", "runs=outputs/x")
LANDSCAPE = (ffn_bench.landscape.command.main, "ffn-landscape", "run=outputs/x", "points=5")
RACE = (
    ffn_bench.race.command.main, "ffn-race", "surface=network", "run=outputs/x", "optimizers=[sgd]",
    "lr=0.1", "steps=1", "animation=false",
)  # fmt: skip
PREDICT = (ffn_bench.predict.command.main, "ffn-predict", "run=outputs/x", "split=test", "out=p.csv")
EXPORT = (ffn_bench.export.command.main, "ffn-export", "run=outputs/x", "to=m.py")
ALL = (COMPARE, LANDSCAPE, RACE, PREDICT, EXPORT)
PREPARING = (LANDSCAPE, RACE, PREDICT)
"""They load the data again; a comparison reads what was measured, by any version."""
USING = (PREDICT, EXPORT)
"""They take what was fitted to the training rows as run.json has it."""


def damaged(file: str, how: str) -> Callable[[Path], None]:
    return lambda folder: DAMAGES[how](folder / file, folder.parents[1] / "outside")


def changed(file: str, *keys: str, to: Any) -> Callable[[Path], None]:
    """Another value of an entry of a JSON file; of a log, in its second line."""

    def act(folder: Path) -> None:
        lines = (folder / file).read_text().splitlines() if file.endswith("l") else []
        content = json.loads(lines[1] if lines else (folder / file).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to
        text = json.dumps(content).replace('"HUGE"', "1" + "0" * 400)
        (folder / file).write_text("\n".join([lines[0], text, *lines[2:], ""]) if lines else text)

    return act


def column(**entries: Any) -> dict[str, Any]:
    """What becomes of a column of numbers, but for some entries."""
    return {"holds": "number", "categories": [], "fill": None, "indicator": False, **entries}


FITTED: tuple[tuple[str, tuple[str, ...], Any], ...] = (
    ("nothing fitted", (), []),
    ("a fit of text", (), "x"),
    ("columns of text", ("columns",), "x0"),
    ("a column too many", ("columns",), ["a", "b", "c"]),
    ("a column twice", ("columns",), ["a", "a"]),
    ("columns of numbers", ("columns",), [1, 2]),
    ("a class too few", ("classes",), ["a"]),
    ("a class twice", ("classes",), ["a", "a"]),
    ("a class of a lone surrogate", ("classes",), ["a", "\udc80"]),
    ("no classes", ("classes",), None),
    ("a mean too many", ("mean",), [0.0, 0.0, 0.0]),
    ("a mean of text", ("mean",), ["0", "0"]),
    ("a mean of a list", ("mean",), [[0.0], [0.0]]),
    ("a mean that is not finite", ("mean",), [0.0, float("nan")]),
    ("a mean that is huge", ("mean",), [0.0, "HUGE"]),
    ("a scale of 0", ("scale",), [1.0, 0.0]),
    ("a negative scale", ("scale",), [1.0, -1.0]),
    ("one scale for two", ("scale",), [1.0]),
    ("no scale", ("scale",), None),
    ("an encoding of text", ("encoding",), "x"),
    ("an encoding of nothing", ("encoding",), []),
    ("an encoding that is null", ("encoding",), None),
    ("an encoding of other inputs", ("encoding",), [column(), column(), column()]),
    ("an encoding of a number", ("encoding",), [column(), 7]),
    ("an encoding that lacks a key", ("encoding",), [column(), {"holds": "number"}]),
    ("an encoding with a key too many", ("encoding",), [column(), column(more=1)]),
    ("a column that holds what none does", ("encoding",), [column(), column(holds="date")]),
    ("a column that holds a list", ("encoding",), [column(), column(holds=[])]),
    ("numbers with categories", ("encoding",), [column(), column(categories=["a"])]),
    ("no categories", ("encoding",), [column(), column(holds="category")]),
    ("a category twice", ("encoding",), [column(holds="category", categories=["a", "a"])]),
    ("categories of numbers", ("encoding",), [column(holds="category", categories=[1, 2])]),
    ("a category of a lone surrogate", ("encoding",), [column(holds="category", categories=["a", "\udc80"])]),
    ("a fill that is no category", ("encoding",), [column(holds="category", categories=["a", "b"], fill=2)]),
    ("a fill between", ("encoding",), [column(holds="category", categories=["a", "b"], fill=0.5)]),
    ("a negative fill", ("encoding",), [column(holds="category", categories=["a", "b"], fill=-1)]),
    ("a fill of text", ("encoding",), [column(), column(fill="1")]),
    ("a fill that is not finite", ("encoding",), [column(), column(fill=float("nan"))]),
    ("a huge fill", ("encoding",), [column(), column(fill="HUGE")]),
    ("an indicator without a fill", ("encoding",), [column(indicator=True)]),
    ("an indicator of text", ("encoding",), [column(), column(indicator="no")]),
)
"""What run.json may not say was fitted to the training rows."""
WHOLE = (
    "empty", "truncated", "flipped", "a folder", "a link to a file", "a link to a folder", "a link inside",
    "a pipe", "huge", "a list", "a number", "null", "text", "deep", "not a number", "a huge number",
    "lists for values", "objects for values", "not UTF-8", "zeros", "a pickle",
)  # fmt: skip
HOSTILE: dict[str, tuple[Callable[[Path], None], str, tuple[Any, ...]]] = {
    # what was done to the folder, what the line must name, who must refuse it
    **{
        f"{file}: {how}": (damaged(file, how), file, ALL)
        for file in ("run.json", "summary.json")
        for how in WHOLE
    },
    **{
        f"metrics.jsonl: {how}": (damaged("metrics.jsonl", how), "metrics.jsonl", ALL)
        for how in ("a folder", "a link to a file", "a link inside", "a pipe", "huge")
    },
    "run.json: missing": (damaged("run.json", "deleted"), "outputs/x", ALL),
    "run.json: a link to nothing": (damaged("run.json", "a link to nothing"), "outputs/x", ALL),
    "run.json: another format": (changed("run.json", "format", to=99), "format 99, expected 2", ALL),
    "run.json: a seed of text": (changed("run.json", "config", "seed", to="0"), "run.json", ALL),
    "run.json: a huge seed": (changed("run.json", "config", "seed", to="HUGE"), "run.json", ALL),
    "run.json: a huge rate": (changed("run.json", "config", "lr", to=float("inf")), "run.json", ALL),
    "run.json: a table for a rate": (changed("run.json", "config", "lr", to={"a": 1}), "run.json", ALL),
    "run.json: a name that is a list": (
        changed("run.json", "config", "optimizer.name", to=[]), "run.json", ALL,
    ),
    "run.json: a hash that is a number": (changed("run.json", "data_sha256", to=7), "run.json", ALL),
    "run.json: chance that is text": (changed("run.json", "chance", to="0.5"), "run.json", ALL),
    "run.json: a number of runs as text": (changed("run.json", "trained_beside", to="2"), "run.json", ALL),
    "run.json: an engine of another kind": (changed("run.json", "engine", to=7), "run.json", ALL),
    "run.json: an unknown engine": (changed("run.json", "engine", to="abacus"), "run.json", ALL),
    "run.json: an order of text": (changed("run.json", "config", "order_seed", to="0"), "run.json", ALL),
    "run.json: other data": (changed("run.json", "data_sha256", to="0" * 64), "other data", PREPARING),
    "run.json: a call": (
        changed("run.json", "config", "data.name", to="${oc.env:HOME}"), "data.name", PREPARING,
    ),
    "run.json: an unknown key": (
        changed("run.json", "config", "more", to=1), "no such key", (*PREPARING, EXPORT),
    ),
    **{
        f"run.json: {what}": (changed("run.json", "fitted", *keys, to=value), "run.json", USING)
        for what, keys, value in FITTED
    },
    "run.json: a negative width": (
        changed("run.json", "config", "model.hidden", to=[-3]), "model.hidden", PREPARING,
    ),
    "summary.json: another status": (changed("summary.json", "status", to="won"), "summary.json", ALL),
    "summary.json: negative steps": (changed("summary.json", "steps", to=-1), "summary.json", ALL),
    "summary.json: huge steps": (changed("summary.json", "train_seconds", to="HUGE"), "summary.json", ALL),
    "summary.json: an accuracy of 2": (
        changed("summary.json", "final", "accuracy/val", to=2), "summary.json", ALL,
    ),
    "metrics.jsonl: a step of text": (changed("metrics.jsonl", "step", to="1"), "line 2", ALL),
    "metrics.jsonl: a huge step": (changed("metrics.jsonl", "step", to="HUGE"), "line 2", ALL),
    "metrics.jsonl: a step of the past": (changed("metrics.jsonl", "step", to=-1), "line 2", ALL),
    "metrics.jsonl: no number": (changed("metrics.jsonl", "loss/train", to=[1]), "line 2", ALL),
    "metrics.jsonl: a negative loss": (changed("metrics.jsonl", "loss/train", to=-1), "line 2", ALL),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run, outputs/x, beside a person's things."""
    folder = tmp_path_factory.mktemp("sound")
    keys = ("data=moons", "data.n_samples=100", "model.hidden=[3]", "epochs=2", "log_every=1", "name=x")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr("sys.argv", ["ffn-train", *keys])
        with contextlib.suppress(SystemExit):
            ffn_bench.train.main()
    (folder / "outside" / "papers").mkdir(parents=True)
    (folder / "outside" / "thesis.txt").write_text("years of work\n")
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    act, names, commands = HOSTILE[case]
    act(folder / "outputs" / "x")
    before = bytes_below(folder)
    for main, name, *arguments in commands:
        result = call(main, name, monkeypatch, capsys, *arguments)
        assert (result.code, result.out) == (4, ""), f"{name}: {result.out}{result.err}"
        assert result.err.startswith(f"{name}: error: ") and names in result.err, result.err
        assert result.err.count("\n") == 1 and result.err.endswith("\n"), result.err
        assert bytes_below(folder) == before


def test_the_sound_run_is_taken_by_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, name, *arguments in ALL:
        result = call(main, name, monkeypatch, capsys, *arguments)
        assert (result.code, result.err) == (0, ""), name
