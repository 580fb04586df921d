"""The weights that a run has kept: last, best, of any epoch; what is damaged, missing or another run's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from command_line.test_hostile import ending, run
from conftest import Command
from ffn_bench.configuration import parsing
from ffn_bench.engine.build import prepare
from ffn_bench.errors import UserError
from ffn_bench.run_folder import best_weights
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.recorded_run import read_run
from ffn_bench.run_folder.trained_weights import TrainedWeights, weights_at
from hostile import rewrite_checkpoints
from run_folder.test_survival import outcome

KEYS = ("data=moons", "data.n_samples=200", "batch_size=20", "model.hidden=[4]", "log_every=4")
EARLY = (*KEYS, "epochs=60", "lr=0.05", "patience=3", "trajectory=true")


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that stopped early, that kept the last weights only, and of another network."""
    folder = tmp_path_factory.mktemp("stock")
    for name, keys in (
        ("early", EARLY),
        ("last", (*KEYS, "epochs=3", "keep=last")),
        ("wide", (*EARLY, "model.hidden=[5]")),
        ("double", (*EARLY, "dtype=float64")),
        ("other", (*EARLY, "seed=1")),
    ):
        assert run("train", folder, ["ffn-train", *keys, f"hydra.run.dir={name}"]).code == 0
    return folder


def flat(weights: TrainedWeights) -> Any:
    return np.concatenate([array.ravel() for layer in weights.layers for array in layer])


def test_weights_are_those_of_their_epoch(stock: Path) -> None:
    """As the trajectory has them, which is written apart."""
    early = read_run(stock / "early")
    summary = json.loads((stock / "early" / "summary.json").read_text())
    best, last = summary["best"]["epoch"], summary["epochs"]
    assert 0 < best == last - 3 < 57
    record = np.dtype([("step", "<i8"), ("theta", "<f4", (22,))])
    trajectory = np.fromfile(stock / "early" / "trajectory.bin", record)
    for at, epoch in (
        ("last", last),
        ("best", best),
        ("epoch:0", 0),
        ("epoch:2", 2),
        (f"epoch:{last}", last),
    ):
        for prepared in (None, prepare_of(stock / "early")):
            weights = weights_at(early, at, prepared)
            assert (weights.at, weights.epoch, weights.step) == (at, epoch, 7 * epoch)
            assert weights.widths == [2, 4, 2]
            assert flat(weights).tobytes() == trajectory["theta"][epoch].tobytes()
    words = [weights_at(early, at).words for at in ("last", "best", "epoch:2")]
    assert words == [f"step {7 * last}", f"step {7 * best}, the best epoch ({best})", "step 14, epoch 2"]


def prepare_of(folder: Path) -> Any:
    return prepare(parsing.from_flat(read_run(folder).config))


def test_the_file_says_what_it_is(stock: Path) -> None:
    """To whoever opens it with the library."""
    best = json.loads((stock / "early" / "summary.json").read_text())["best"]
    with safe_open(stock / "early" / "best.safetensors", "numpy") as file:
        header = file.metadata()
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert {key: header[key] for key in ("tag", "epoch", "step")} == {
        "tag": "accuracy/val", "epoch": str(best["epoch"]), "step": str(best["step"]),
    }  # fmt: skip
    assert float(header["value"]) == best["accuracy/val"]
    assert shapes == {"weights.0": [2, 4], "biases.0": [4], "weights.1": [4, 2], "biases.1": [2]}


def test_reading_weights_needs_no_torch(stock: Path) -> None:
    code = """
import sys, pathlib
from ffn_bench.run_folder.recorded_run import read_run
from ffn_bench.run_folder.trained_weights import weights_at
run = read_run(pathlib.Path('early'))
print(*(weights_at(run, at).epoch for at in ('last', 'best', 'epoch:1')))
print(*({'torch', 'scipy', 'sklearn', 'polars'} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=stock, check=True, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.splitlines()[1:] == [""]


# --- what cannot be had ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "status", "words"),
    [
        ("early", "first", 2, ["at", "'first'", "use one of: last, best, epoch:N"]),
        ("early", "bests", 2, ["did you mean 'best'"]),
        ("early", "epoch:-1", 2, ["'epoch:-1'"]),
        ("early", "epoch:", 2, ["'epoch:'"]),
        ("early", "epoch:99", 4, ["epoch 99", "its trajectory has epochs 0 to"]),
        ("last", "epoch:1", 4, ["without trajectory=true", "use at=last"]),
        ("last", "best", 4, ["keep=last", "use at=last"]),
    ],
)
def test_what_was_not_kept_is_one_line(
    stock: Path, name: str, at: str, status: int, words: list[str]
) -> None:
    with pytest.raises(UserError) as e:
        weights_at(read_run(stock / name), at)
    assert e.value.status == status
    assert all(word in str(e.value) for word in words), str(e.value)


def without_its_key(folder: Path) -> None:
    (folder / "best.safetensors").unlink()


def of(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder.parent / name / "best.safetensors", folder)


def of_another_epoch(folder: Path) -> None:
    layers = weights_at(read_run(folder), "epoch:1").layers
    content = best_weights.to_bytes(layers, 1, 7, "accuracy/val", 0.5)
    (folder / "best.safetensors").write_bytes(content)


def of_no_epoch(folder: Path) -> None:
    layers = weights_at(read_run(folder)).layers
    (folder / "summary.json").unlink()
    (folder / "best.safetensors").write_bytes(best_weights.to_bytes(layers, 70, 490, "accuracy/val", 0.5))


def not_finite(folder: Path) -> None:
    layers = [(W * np.nan, b) for W, b in weights_at(read_run(folder)).layers]
    (folder / "best.safetensors").write_bytes(best_weights.to_bytes(layers, 1, 7, "accuracy/val", 0.5))


def of_a_newer_format(folder: Path) -> None:
    content = (folder / "best.safetensors").read_bytes()
    (folder / "best.safetensors").write_bytes(content.replace(b'"format":"1"', b'"format":"2"'))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without_its_key, "has no best.safetensors: it is of an earlier release"),
        (of("wide"), "does not fit the run's configuration"),
        (of("double"), "does not fit the run's configuration"),
        (of("other"), "and summary.json names epoch"),
        (of_another_epoch, "is of epoch 1, and summary.json names epoch"),
        (of_no_epoch, "does not fit the run's configuration"),
        (not_finite, "is damaged"),
        (of_a_newer_format, "has format 2; use a newer ffn-bench"),
    ],
)
@pytest.mark.parametrize("with_data", [False, True])
def test_weights_of_something_else_are_refused(
    stock: Path, tmp_path: Path, harm: Callable[[Path], object], words: str, with_data: bool
) -> None:
    shutil.copytree(stock, tmp_path / "s")
    folder = tmp_path / "s" / "early"
    prepared = prepare_of(folder) if with_data else None
    harm(folder)
    with pytest.raises(UserError) as e:
        weights_at(read_run(folder), "best", prepared)
    assert e.value.status == 4 and words in str(e.value), str(e.value)


def test_no_byte_of_the_best_weights_changes_unseen(stock: Path, tmp_path: Path) -> None:
    content = (stock / "early" / "best.safetensors").read_bytes()
    for at in range(len(content)):
        changed = content[:at] + bytes([content[at] ^ 0x11]) + content[at + 1 :]
        (tmp_path / "best.safetensors").write_bytes(changed)
        with pytest.raises(UserError) as e:
            best_weights.read(Folder(tmp_path))
        assert e.value.status == 4
    for length in range(0, len(content), 7):
        (tmp_path / "best.safetensors").write_bytes(content[:length])
        with pytest.raises(UserError, match="is damaged"):
            best_weights.read(Folder(tmp_path))


# --- what is kept ---------------------------------------------------------------------------------------


def test_a_run_of_a_release_without_best_weights_is_resumed(ffn: Command, tmp_path: Path) -> None:
    """It has them where the best epoch comes after, or is the checkpoint's; else the log says so."""
    seen = set()
    for step, last in ((4, 12), (28, 4), (21, 4)):
        keys = (*KEYS, f"epochs={last}", "checkpoint_seconds=0", "lr=0.02")
        whole, old = tmp_path / "outputs" / f"whole{last}", tmp_path / "outputs" / f"old{step}"
        if not whole.exists():
            assert ffn(*keys, f"name={whole.name}").code == 0
        with ending("killed", step):
            assert ffn(*keys, f"name={old.name}").code == 137
        (old / "best.safetensors").unlink(missing_ok=True)
        rewrite_checkpoints(old, lambda state: state.pop("best"))
        result = ffn(*keys, f"name={old.name}")
        assert result.code == 0, result.err
        expected, came = outcome(whole), outcome(old)
        assert came["summary"] == expected["summary"]
        best = expected["summary"]["best"]["step"]
        if best >= step:
            assert came == expected
        else:
            assert came == {**expected, "best": None}
            assert "there is no best.safetensors of the best epoch" in (old / "train.log").read_text()
        seen.add(best >= step)
    assert seen == {True, False}


def test_nothing_but_the_last_weights_is_kept_where_that_is_asked_for(ffn: Command, tmp_path: Path) -> None:
    """And the key may change when a run is resumed."""
    keys = (*KEYS, "epochs=12", "checkpoint_seconds=0", "lr=0.02")
    assert ffn(*keys, "name=best").code == 0
    assert ffn(*keys, "keep=last", "name=last").code == 0
    best, last = (outcome(tmp_path / "outputs" / name) for name in ("best", "last"))
    assert best["best"] is not None and last == {**best, "best": None}
    with ending("killed", 20):
        assert ffn(*keys, "name=x").code == 137
    assert (tmp_path / "outputs" / "x" / "best.safetensors").exists()
    assert ffn(*keys, "keep=last", "name=x").code == 0
    assert outcome(tmp_path / "outputs" / "x") == last
