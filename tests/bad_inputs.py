"""What tables of bad inputs of commands on a trained run share: runs that lack something, and the check."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import call
from hostile import bytes_below
from trained_runs import MOONS, train


@pytest.fixture(scope="module")
def odd_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a sweep, and runs that lack something."""
    here = tmp_path_factory.mktemp("odd")
    train(here / "moons", *MOONS, "trajectory=true")
    for seed in (0, 1):
        train(here / "sweep" / f"seed={seed}", *MOONS, f"seed={seed}")
    train(here / "last", *MOONS, "keep=last", "data.val_fraction=0")
    train(here / "diverged", *MOONS, "optimizer=sgd", "lr=1e30")
    for name, activation in (("edited", "tanh"), ("unknown", "rleu")):
        shutil.copytree(here / "moons", here / name)
        identity = json.loads((here / name / "run.json").read_text())
        identity["config"]["model.activation"] = activation
        (here / name / "run.json").write_text(json.dumps(identity))
    shutil.copytree(here / "moons", here / "damaged")
    for file in (here / "damaged" / "checkpoint").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    return here


def table(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda here: (here / name).write_bytes(data)


def nothing(here: Path) -> None:
    pass


def placed(odd_runs: Path, arguments: list[str]) -> list[str]:
    """Arguments with the runs of `odd_runs` where they are named in capitals; of moons where none is."""
    names = {path.name.upper(): path.name for path in odd_runs.iterdir()}
    given = [a for a in arguments if a.startswith("run=")] or ["run=MOONS"]
    run = given[0].partition("=")[2]
    others = [a for a in arguments if not a.startswith("run=")]
    return [f"run={odd_runs / names[run] if run in names else run}", *others]


def check_bad(
    main: Callable[[], None],
    name: str,
    odd_runs: Path,
    here: Path,
    arguments: list[str],
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    before = {here: bytes_below(here), odd_runs: bytes_below(odd_runs)}
    result = call(main, name, monkeypatch, capsys, *placed(odd_runs, arguments))
    assert result.code == status, result
    assert result.err.startswith(f"{name}: error: ") and result.err.count("\n") == 1, result.err
    assert text in result.err and result.out == ""
    assert {here: bytes_below(here), odd_runs: bytes_below(odd_runs)} == before
