"""Two commands in one process: the second sees nothing of the first."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import write_csv
from conftest import Command
from ffn_bench.configuration.schema import SCHEMA
from ffn_bench.data import datasets
from ffn_bench.engine import device
from ffn_bench.optimizers.registry import PLUGINS

TABLE = ("data=csv", "data.path=my.csv", "data.target=label", "epochs=2")


def identity(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the data sets that are loaded, as they are."""
    names: list[str] = []

    def counted(load: Callable[..., Any]) -> Callable[..., Any]:
        def loader(config: Any) -> Any:
            names.append(config.name)
            return load(config)

        return loader

    for name, load in datasets.LOADERS.items():
        monkeypatch.setitem(datasets.LOADERS, name, counted(load))
    return names


def test_a_table_that_changes_between_two_commands_is_read_again(ffn: Command, tmp_path: Path) -> None:
    write_csv(tmp_path / "my.csv", 60)
    assert ffn(*TABLE, "name=one").code == 0
    write_csv(tmp_path / "my.csv", 80)
    assert ffn(*TABLE, "name=two").code == 0
    one, two = (identity(tmp_path / "outputs" / name)["data_sha256"] for name in ("one", "two"))
    assert one != two


@pytest.mark.parametrize("launcher", ["workers", "sequential"])
def test_a_command_loads_its_data_once(ffn: Command, tmp_path: Path, loads: list[str], launcher: str) -> None:
    write_csv(tmp_path / "my.csv", 60)
    assert ffn(*TABLE).code == 0
    assert loads == ["csv"]
    swept = ("seed=0,1", "dtype=float32,float64", "optimizer=adam,lbfgs", "batch_size=full")
    assert ffn("-m", *TABLE, *swept, f"hydra/launcher={launcher}").code == 0
    assert loads == ["csv", "csv"]


def test_a_sweep_trains_on_the_rows_that_it_began_with(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first data set, though the file has changed when the last of its runs begins."""
    write_csv(tmp_path / "my.csv", 60)
    load = datasets.LOADERS["csv"]

    def then_changed(config: Any) -> Any:
        raw = load(config)
        write_csv(tmp_path / "my.csv", 80)
        return raw

    monkeypatch.setitem(datasets.LOADERS, "csv", then_changed)
    assert ffn("-m", *TABLE, "seed=0,1", "hydra/launcher=sequential", "name=s").code == 0
    runs = [identity(f) for f in (tmp_path / "outputs" / "sweeps" / "s").glob("*/")]
    assert len(runs) == 2 and len({run["data_sha256"] for run in runs}) == 1


def test_an_optimizer_of_another_package_may_change_or_go(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "theirs.py"
    package.write_text(
        "from ffn_bench.rules import Rule, zeros\n"
        "def rule(key):\n"
        "    def update(g, state, p, hyper, t):\n"
        "        return p - hyper['lr'] * hyper[key] * g, state\n"
        "    return Rule(update, zeros(), {key: 0.5})\n"
        "first, second = rule('one'), rule('two')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    offered = ["first"]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == PLUGINS
        points = [EntryPoint("theirs", f"theirs:{one}", group) for one in offered]
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    before = {group: dict(kinds) for group, kinds in SCHEMA.items()}
    assert ffn("optimizer=theirs", "optimizer.one=0.1", "epochs=1", "name=one").code == 0
    offered[:] = ["second"]
    assert ffn("optimizer=theirs", "optimizer.two=0.1", "epochs=1", "name=two").code == 0
    result = ffn("optimizer=theirs", "optimizer.one=0.1", "epochs=1")
    assert result.code == 2 and "optimizer.one: no such key" in result.err
    offered.clear()
    result = ffn("optimizer=theirs", "epochs=1")
    assert result.code == 2 and "'theirs' is not known" in result.err
    assert before == SCHEMA


def test_threads_and_the_collector_are_afterwards_as_before(
    ffn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "THREADS", 2)
    monkeypatch.setattr(device, "QUIET", True)
    monkeypatch.setattr(device, "LARGE_STEP", 0)
    during: list[tuple[int, bool]] = []
    describe = device.describe

    def noted(which: str) -> str:
        during.append((torch.get_num_threads(), gc.isenabled()))
        return describe(which)

    monkeypatch.setattr(device, "describe", noted)
    torch.set_num_threads(1)
    assert ffn("epochs=1", "engine=torch").code == 0
    assert during == [(2, True)]
    assert torch.get_num_threads() == 1 and gc.isenabled() and gc.get_freeze_count() == 0


def test_the_schema_of_one_command_is_not_anothers(
    ffn: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ffn_bench.lecture.command import main

    assert ffn("--cfg", "job").code == 0
    monkeypatch.setattr(sys, "argv", ["ffn-lecture", "--cfg", "job"])
    main()
    assert "topic: all" in capsys.readouterr().out


def test_what_comes_from_the_environment_is_said_in_each_command(
    ffn: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE", "0.1")
    for _ in range(2):
        result = ffn("lr=${oc.env:RATE}", "epochs=1")
        assert result.code == 0 and result.err.count("environment variable RATE") == 1
