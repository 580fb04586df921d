"""What a run leaves behind, and what a person sees of it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from cases import parsed, torch_run, trained, write_csv
from conftest import Command, files_below
from ffn_bench.engine import checkpoint_state
from ffn_bench.engine.evaluation import evaluate
from ffn_bench.engine.metrics import Measurement
from ffn_bench.engine.tensors import on_device
from ffn_bench.errors import UserError
from ffn_bench.run_folder import checkpoints, reading
from ffn_bench.run_folder.files import Folder, to_json
from ffn_bench.run_folder.recorded_run import read_run
from ffn_bench.run_folder.trained_weights import weights_at
from ffn_bench.tags import SPLIT_SCORES

FFN_TRAIN = Path(sys.executable).with_name("ffn-train")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars_of(folder: Path) -> list[tuple[str, int, float]]:
    """Every scalar in the run's event files, by a raw scan."""
    scalars = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            scalars += [
                (v.tag, event.step, v.simple_value) for v in event.summary.value if v.HasField("simple_value")
            ]
    return scalars


def latest(folder: Path) -> dict[str, Any]:
    """The state of the last checkpoint."""
    name, damaged = checkpoints.find(Folder(folder))
    assert name is not None and not damaged
    return checkpoints.load(Folder(folder), name)


def test_the_run_folder(ffn: Command, tmp_path: Path) -> None:
    result = ffn("epochs=3", "name=x", "lr=0.01")
    assert result.code == 0, result.err
    folder = tmp_path / "outputs" / "x"
    names = {
        re.sub(r"(step-\d+)-[0-9a-f]{64}\.safetensors", r"\1", p.relative_to(folder).as_posix())
        for p in files_below(folder)
    }
    events = {n for n in names if n.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        ".hydra/hydra.yaml",
        "run.json",
        "metrics.jsonl",
        "checkpoint/step-0000000120",
        "best.safetensors",
        ".lock",
        ".ffn-bench.jsonl",
        "summary.json",
        "train.log",
    }
    run = json.loads((folder / "run.json").read_text())
    assert (run["format"], run["engine"], run["engine_reason"]) == (2, "compiled", None)
    assert run["versions"].keys() == {"ffn_bench", "numpy", "numba", "llvmlite", "python"}
    assert run["versions"]["numpy"] == np.__version__
    assert run["versions"]["numba"] == importlib.metadata.version("numba")
    assert run["config"]["lr"] == 0.01
    assert re.fullmatch(r"[0-9a-f]{64}", run["fingerprint"])
    assert re.fullmatch(r"[0-9a-f]{64}", run["data_sha256"])

    lines = lines_of(folder)
    tags = {tag for line in lines for tag in line} - {"step", "epoch", "time", "train_seconds"}
    assert tags == {
        *(f"loss/{p}" for p in ("train", "val", "test")),
        *(f"accuracy/{p}" for p in ("train", "val", "test")),
        *("objective/train", "lr", "grad_norm", "weight_norm", "update_ratio"),
        *(score.tag(p) for score in SPLIT_SCORES for p in score.splits),
    }
    truth = {(tag, line["step"]): line[tag] for line in lines for tag in tags & set(line)}
    scalars = scalars_of(folder)
    assert len(scalars) == len(truth) == len({(tag, step) for tag, step, _ in scalars})
    for tag, step, value in scalars:
        assert value == pytest.approx(truth[tag, step], rel=1e-6)

    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["epochs"], summary["steps"]) == ("finished", 3, 120)
    assert summary["final"]["accuracy/test"] == lines[-1]["accuracy/test"]
    at_epochs = [line for line in lines if "accuracy/val" in line]
    best = max(at_epochs, key=lambda line: line["accuracy/val"])
    assert summary["best"]["epoch"] == best["epoch"]
    assert summary["best"]["accuracy/test"] == best["accuracy/test"]
    for word in (
        "validation",
        "test",
        "outputs/x",
        "tensorboard --logdir outputs/x",
        "64 → 10 → 20 → 15 → 10",
    ):
        assert word in result.out
    assert f"{summary['final']['accuracy/test']:.2%}" in result.out
    assert "finished" in (folder / "train.log").read_text()


def test_versions_are_those_that_the_numbers_depend_on(ffn: Command, tmp_path: Path) -> None:
    for engine in ("torch", "batched"):
        assert ffn("epochs=1", "data=moons", f"engine={engine}", f"name={engine}").code == 0
        run = json.loads((tmp_path / "outputs" / engine / "run.json").read_text())
        assert (run["engine"], run["engine_reason"]) == (engine, f"engine={engine}")
        assert run["versions"].keys() == {"ffn_bench", "numpy", "torch", "python"}
        assert run["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("mistakes", ["true", "false"])
@pytest.mark.parametrize("scores", ["true", "false"])
def test_images_and_text_in_the_event_file(ffn: Command, tmp_path: Path, mistakes: str, scores: str) -> None:
    assert ffn("epochs=2", "name=x", f"log_mistakes={mistakes}", f"log_scores={scores}").code == 0
    kinds: dict[str, str] = {}
    for file in (tmp_path / "outputs" / "x").glob("events*"):
        for record in RawEventFileLoader(str(file)).Load():
            for value in Event.FromString(record).summary.value:
                kinds[value.tag] = str(value.WhichOneof("value"))
                if value.HasField("image"):
                    assert value.image.encoded_image_string.startswith(b"\x89PNG")
                    assert value.image.width > 200
    assert kinds["confusion matrix/test"] == "image"
    assert kinds.get("worst mistakes/test") == ("image" if mistakes == "true" else None)
    for picture in ("reliability/test", "precision and recall/test"):
        assert kinds.get(picture) == ("image" if scores == "true" else None)
    assert kinds["config/text_summary"] == "tensor"
    assert "_hparams_/session_start_info" in kinds
    assert "_hparams_/session_end_info" in kinds


def test_the_same_command_twice_gives_the_same_numbers(ffn: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert ffn("epochs=4", f"name={name}").code == 0
    one, two = (tmp_path / "outputs" / name for name in ("one", "two"))

    def without_times(folder: Path) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in line.items() if k not in ("time", "train_seconds")} for line in lines_of(folder)
        ]

    assert without_times(one) == without_times(two)
    weights = [latest(f)["network"] for f in (one, two)]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_two_starts_in_one_second_are_two_folders(ffn: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert ffn("epochs=1", "data=synthetic", "data.n_samples=100").code == 0
    assert len(list((tmp_path / "outputs").glob("*/*/summary.json"))) == 2


def test_a_diverged_run(ffn: Command, tmp_path: Path) -> None:
    assert ffn("optimizer=sgd", "lr=1e30", "name=x", "checkpoint_seconds=0").code == 0
    folder = tmp_path / "outputs" / "x"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert summary["reason"] == "objective/train is nan at step 2 (epoch 1)"
    assert summary["final"]["loss/train"] is None
    assert "accuracy/test" not in summary["final"]
    assert summary["best"]["epoch"] == 0
    state = latest(folder)
    assert state["step"] == 0
    assert all(np.isfinite(t).all() for t in state["network"].values())


def test_a_persons_own_table(ffn: Command, tmp_path: Path) -> None:
    write_csv(tmp_path / "my.csv", 300)
    result = ffn("data=csv", "data.path=my.csv", "data.target=label", "epochs=10", "name=x")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "outputs" / "x" / "summary.json").read_text())
    assert summary["final"]["accuracy/test"] == 1.0


def test_no_validation_part(ffn: Command, tmp_path: Path) -> None:
    result = ffn("data.val_fraction=0", "epochs=2", "name=x")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "outputs" / "x" / "summary.json").read_text())
    assert summary["monitor"] is None  # the last epoch is the best
    assert (summary["best"]["epoch"], summary["best"]["step"]) == (2, summary["steps"])
    assert summary["best"]["accuracy/test"] == summary["final"]["accuracy/test"]
    assert "accuracy/val" not in {**summary["final"], **summary["best"]}
    best, last = (weights_at(read_run(tmp_path / "outputs" / "x"), at) for at in ("best", "last"))
    assert best.epoch == 2 and all(map(np.array_equal, best.layers[0], last.layers[0]))
    assert "best      the last epoch: there is no validation part" in result.out


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "lbfgs", "radam"])
def test_a_checkpoint_is_the_complete_state(tmp_path: Path, optimizer: str) -> None:
    """Two epochs, a checkpoint, a third epoch: the third from the checkpoint alone is the same."""
    overrides = (f"optimizer={optimizer}", "epochs=3", "dtype=float64", "log_every=1", "batch_size=full")
    unbroken, resumed = torch_run(*overrides), torch_run(*overrides)
    curve: list[Measurement] = []
    for measured in unbroken.training.measurements():
        curve += measured[unbroken]
        if unbroken.step == 2:
            checkpoints.save(Folder(tmp_path), unbroken.state())
    state = latest(tmp_path)
    resumed.training.resume([state])
    assert (state["epoch"], state["step"]) == (2, 2)
    assert [m.values for m in trained(resumed)] == [m.values for m in curve[-2:]]
    assert resumed.status == "finished"


def test_a_damaged_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    """Any byte flipped, or cut off: the one before is used, the damaged one named; else an error."""
    run = torch_run("epochs=4")
    saved = []
    for _ in run.training.measurements():
        checkpoints.save(Folder(tmp_path), run.state())
        saved.append(run.step)
    files = sorted((tmp_path / "checkpoint").iterdir())
    names = [f"checkpoint/{file.name}" for file in files]
    assert [checkpoints.step_of(name) for name in names] == saved[-2:]
    intact = files[1].read_bytes()
    for position in range(0, len(intact), len(intact) // 40):
        files[1].write_bytes(intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :])
        with pytest.raises(UserError, match="damaged"):
            checkpoints.load(Folder(tmp_path), names[1])
        assert checkpoints.find(Folder(tmp_path)) == (names[0], [f"step-{saved[-1]:010}….safetensors"])
    files[1].write_bytes(intact[:-1])
    assert checkpoints.find(Folder(tmp_path))[0] == names[0]
    files[0].write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        checkpoints.find(Folder(tmp_path))
    shutil.rmtree(tmp_path / "checkpoint")
    assert checkpoints.find(Folder(tmp_path)) == (None, [])


def test_files_are_complete_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    folder.replace("x.json", to_json({"a": [math.nan, 1.5, math.inf]}))
    assert folder.read_json("x.json") == {"a": [None, 1.5, None]}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.replace("x.json", to_json({"b": 2}))
    assert folder.read_json("x.json") == {"a": [None, 1.5, None]}
    assert files_below(tmp_path) == [tmp_path / ".ffn-bench.jsonl", tmp_path / "x.json"]


def start(*arguments: str, cwd: Path, threads: int = 1) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [str(FFN_TRAIN), *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_a_run_in_good_order(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start("epochs=100000", "name=x", cwd=tmp_path)
    folder = tmp_path / "outputs" / "x"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and metrics.read_text().count("\n") > 20:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["steps"] > 0
    assert lines_of(folder)[-1]["step"] <= summary["steps"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_pipe_gets_plain_lines(tmp_path: Path) -> None:
    out, err = start("epochs=20", "name=long-" + "x" * 150, cwd=tmp_path).communicate(timeout=60)
    assert err == ""
    assert "\x1b" not in out and "\r" not in out
    assert len(re.findall(r"^  epoch \d+/20 +step \d+ +(?:loss \S+  )?val \S+%$", out, re.M)) == 11
    assert f"tensorboard --logdir outputs/long-{'x' * 150}\n" in out


def test_a_full_disk_is_one_line_and_a_failed_run(tmp_path: Path) -> None:
    """No file may grow past 20 kB: a stand-in for a full disk that hits while the run is training."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
    limited += "sys.argv = ['ffn-train', 'epochs=500', 'name=x']; from ffn_bench.train import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", limited],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert result.returncode == 5, result.stderr
    assert result.stderr.count("\n") == 1
    assert "file too large" in result.stderr
    summary = json.loads((tmp_path / "outputs" / "x" / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_evaluation_of_nothing_is_nan() -> None:
    nothing = on_device(torch_run("data.val_fraction=0").data).val
    assert all(math.isnan(v) for v in evaluate(lambda x: x, nothing).values())


def test_a_run_in_the_working_folder_does_not_stand_in_the_way(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=1", "data=moons", "hydra.run.dir=.").code == 0
    result = ffn("epochs=1", "data=moons")
    assert result.code == 0, result.err
    assert len(list(tmp_path.glob("outputs/*/*/summary.json"))) == 1


SUMMARIES: dict[str, dict[str, Any]] = {
    "status": {"status": "well"}, "reason": {"reason": 5}, "epochs": {"epochs": -1}, "steps": {"steps": "9"},
    "steps that are true": {"steps": True}, "seconds": {"train_seconds": None},
    "seconds without end": {"train_seconds": math.inf}, "final": {"final": []},
    "a final value": {"final": {"accuracy/val": "x"}}, "too accurate": {"final": {"accuracy/val": 2.0}},
    "a loss below 0": {"best": {"epoch": 1, "loss/val": -1.0}}, "best": {"best": []},
    "no epoch of the best": {"best": {"accuracy/val": 0.5}},
    "a score that is a text": {"final": {"roc_auc/val": "0.9"}},
    "a large area": {"final": {"roc_auc/val": 1.5}}, "a log loss below 0": {"final": {"log_loss/test": -1.0}},
    "too balanced": {"final": {"balanced_accuracy/val": 2}},
    "an error below 0": {"best": {"epoch": 1, "calibration_error/test": -0.1}},
    "a score that chooses nothing": {"monitor": "roc_auc/train"},
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_that_is_none_is_damaged(tmp_path: Path, name: str) -> None:
    sound = {"status": "finished", "final": {"accuracy/val": 0.5}, "best": {"epoch": 1, "accuracy/val": 0.5}}
    for changed, status in (({}, "finished"), (SUMMARIES[name], reading.DAMAGED)):
        (tmp_path / "summary.json").write_text(json.dumps({**sound, **changed}))
        assert (reading.read_summary(Folder(tmp_path)) or {})["status"] == status


def test_a_summary_without_a_run_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": "finished"}))
    status, summary = reading.status_and_summary(Folder(tmp_path), parsed())
    assert status == reading.DAMAGED and "no run.json" in (summary or {})["reason"]


@pytest.mark.parametrize(
    ("step", "epoch"), [(-5, 0), (True, 1), (3.0, 1), (44, 11), (10**12, 10**12 // 4), ("4", 1), (4, 2)]
)
def test_a_step_is_one_of_its_run(step: Any, epoch: int) -> None:
    """Of 40 steps, 4 an epoch; most of these have the epoch that goes with the step."""
    for good in ((0, 0), (4, 1), (5, 2), (40, 10)):
        checkpoint_state.check_progress(
            dict(zip(checkpoint_state.PROGRESS, (*good, 0.5), strict=True)), 40, 4
        )
    with pytest.raises(ValueError, match=r"its (step|epoch) is"):
        checkpoint_state.check_progress(
            dict(zip(checkpoint_state.PROGRESS, (step, epoch, 0.5), strict=True)), 40, 4
        )


def test_a_checkpoint_under_the_name_of_another_step(tmp_path: Path) -> None:
    checkpoints.save(Folder(tmp_path), {"step": 4})
    (file,) = (tmp_path / "checkpoint").iterdir()
    renamed = file.rename(file.with_name(file.name.replace("4", "5", 1)))
    with pytest.raises(UserError, match="not a checkpoint of ffn-bench"):
        checkpoints.load(Folder(tmp_path), f"checkpoint/{renamed.name}")


@pytest.mark.parametrize("value", ["a", 1, 1.0, True, None])
def test_plain_values_of_a_state_are_the_expected_ones(value: Any) -> None:
    checkpoint_state.check({"key": value}, {"key": value})
    for other in ("b", 2, 2.0, False, 1, 1.0, True, None):
        if type(other) is not type(value) or other != value:
            with pytest.raises(ValueError, match="key is"):
                checkpoint_state.check({"key": other}, {"key": value})
