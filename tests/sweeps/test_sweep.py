"""Sweeps: all runs are made, failures are told, the leaderboard is right."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

from cases import write_csv
from conftest import Command, files_below
from ffn_bench import train
from ffn_bench.command_line.composition import guarded
from ffn_bench.configuration import parsing
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.engine import batched, build
from ffn_bench.engine.batched import BatchedEngine
from ffn_bench.engine.loop import Run
from ffn_bench.engine.metrics import Measurement
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.lock import Lock, holder
from ffn_bench.run_folder.reading import read_summary
from ffn_bench.run_folder.recorder import Record
from ffn_bench.sweeps import side_by_side, sweep
from ffn_bench.sweeps.leaderboard import leaderboard, score_of
from ffn_bench.sweeps.planning import Planner
from hostile import STATES, bytes_below, rewrite_checkpoints
from run_folder.test_folders import lines_of, scalars_of, start


def folders(tmp_path: Path, name: str) -> list[Path]:
    return sorted(p.parent for p in (tmp_path / "outputs" / "sweeps" / name).glob("*/summary.json"))


@pytest.mark.parametrize("launcher", ["workers", "sequential"])
def test_a_sweep_leaves_what_single_runs_would(ffn: Command, tmp_path: Path, launcher: str) -> None:
    """The same files, and the same bits."""
    swept = ("optimizer=sgd,rmsprop,lbfgs", "seed=0,1", "epochs=2", "dtype=float64", "batch_size=full")
    result = ffn("-m", f"hydra/launcher={launcher}", "name=s", *swept)
    assert result.code == 0, result.err
    run_folders = folders(tmp_path, "s")
    assert len(run_folders) == 6
    for number, folder in enumerate(run_folders):
        overrides = [o for o in _overrides(folder) if not o.startswith("name")]
        assert ffn(*overrides, f"name=single{number}").code == 0
        single = tmp_path / "outputs" / f"single{number}"
        names = [
            sorted(re.sub(r"(?<=tfevents).*|-\w{64}", "", str(p.relative_to(f))) for p in files_below(f))
            for f in (single, folder)
        ]
        assert names[0] == names[1]
        for line, other in zip(lines_of(folder), lines_of(single), strict=True):
            assert line.keys() == other.keys()
            times = ("time", "train_seconds")
            assert all(line[key] == other[key] for key in line if key not in times)
        assert scalars_of(folder) == scalars_of(single)
        own, single_config = ((f / ".hydra" / "config.yaml").read_text() for f in (folder, single))
        assert own == single_config.replace(f"name: single{number}", "name: s")
    assert "6 runs" in result.out
    assert re.search(r"^  compiled +4 runs$", result.out, re.M)
    assert re.search(r"^  torch +2 runs: lbfgs looks at the loss several times a step$", result.out, re.M)
    assert "leaderboard" in result.out
    assert "tensorboard --logdir outputs/sweeps/s" in result.out


def test_both_launchers_leave_the_same_hydra_files(ffn: Command, tmp_path: Path) -> None:
    """Folder for folder, but for where they are and which launcher it was."""
    swept = ("optimizer=adam,lecture/adam", "optimizer.betas=[0.8,0.99],[0.9,0.999]", "seed=1,2", "epochs=1")
    table = ("data=csv", "data.path=off.csv", "data.target=label")
    write_csv(tmp_path / "off.csv", 300)
    for launcher in ("workers", "sequential"):
        result = ffn("-m", f"hydra/launcher={launcher}", f"name={launcher}", *swept, *table)
        assert result.code == 0, result.err
    pairs = list(zip(folders(tmp_path, "workers"), folders(tmp_path, "sequential"), strict=True))
    assert len(pairs) == 8
    for a, b in pairs:
        assert a.name == b.name
        for name in ("config.yaml", "overrides.yaml", "hydra.yaml"):
            own, other = ((f / ".hydra" / name).read_text() for f in (a, b))
            other = other.replace("SequentialLauncher", "WorkersLauncher").replace("sequential", "workers")
            # Long texts are wrapped at other places.
            assert own == other or OmegaConf.create(own) == OmegaConf.create(other), name


def _overrides(folder: Path) -> list[str]:
    return [line[2:] for line in (folder / ".hydra" / "overrides.yaml").read_text().splitlines()]


def test_folder_names_are_short_safe_and_stable(ffn: Command, tmp_path: Path) -> None:
    wide = "model.hidden=[" + ",".join(["3"] * 120) + "]"
    result = ffn("-m", "name=s", wide, "seed=0,1", "epochs=1", "data=moons")
    assert result.code == 0, result.err
    names = [f.name for f in folders(tmp_path, "s")]
    assert len(names) == 2
    assert all(len(n.encode()) < 120 and "/" not in n for n in names)


def swap(a: Path, b: Path) -> None:
    """Let two folders change their names."""
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


@pytest.mark.parametrize("launcher", ["workers", "sequential", "joblib"])
@pytest.mark.parametrize("retry", [None, "failed"])
def test_a_run_in_anothers_folder_is_no_result(
    ffn: Command, tmp_path: Path, launcher: str, retry: str | None
) -> None:
    """Each of two that were swapped fails with what differs; the others keep theirs, in a status as well."""
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = ("-m", "name=s", "data=moons", "epochs=1", "lr=0.01,0.1", "seed=0,1")
    assert ffn(*command).code == 0
    pair = [next((tmp_path / "outputs/sweeps/s").glob(f"*lr={lr},*seed=1*")) for lr in ("0.01", "0.1")]
    swap(*pair)
    before = {p: p.read_bytes() for folder in pair for p in files_below(folder) if p.name != ".lock"}
    result = ffn(*command, f"hydra/launcher={launcher}", *([f"retry={retry}"] if retry else []))
    assert result.code == 1, result.err
    assert "holds another run: lr was 0.1, now 0.01" in result.out
    assert "holds another run: lr was 0.01, now 0.1" in result.out
    assert result.out.count("1 failed") == 2
    shown = ffn(*command, "status=true")
    assert (shown.code, "2 finished, 2 damaged" in shown.out) == (0, True)
    assert {p: p.read_bytes() for folder in pair for p in files_below(folder) if p.name != ".lock"} == before


@pytest.mark.parametrize("launcher", ["workers", "sequential"])
@pytest.mark.parametrize("lock", ["held", "folder", "link"])
def test_a_run_whose_folder_cannot_be_had_fails_alone(
    ffn: Command, tmp_path: Path, launcher: str, lock: str
) -> None:
    """Nothing in its folder is touched; its neighbours train."""
    command = ("-m", f"hydra/launcher={launcher}", "name=s", "data=moons", "epochs=1", "seed=0,1,2")
    assert ffn(*command).code == 0
    sweep = tmp_path / "outputs/sweeps/s"
    for summary in sweep.glob("*/summary.json"):
        summary.unlink()
    folder = next(sweep.glob("*seed=1*"))
    held = put_lock(folder, lock)
    before = {p: p.read_bytes() for p in files_below(folder)}
    result = ffn(*command)
    assert result.code == 1, result.err
    assert "run seed=1 failed" in result.err
    assert "Traceback" not in result.err
    assert LOCKS[lock] in result.out
    assert {p: p.read_bytes() for p in files_below(folder)} == before
    assert len(list(sweep.glob("*/summary.json"))) == 2
    if held:
        held.release()
        assert ffn(*command).code == 0


LOCKS = {"held": "is in use by process", "folder": "is not a file", "link": "is a link"}
"""What may be in a lock's place, and what is said then."""


IMPOSSIBLE: list[dict[str, Any]] = [
    *({"train_seconds": value} for value in (-5, -1e300, "1", None, True)),
    *({"epochs": value} for value in (999, 2, 0, -1, 3.0, 10**40)),
    *({"steps": value} for value in (0, 1, 4, -3, 10**12, 3e0)),
    *({"best": value} for value in ({"epoch": 1}, {"accuracy/val": 0.9})),
    {"best": {}},
    {"best": None},
    {"best": []},
    *({"best": {"epoch": value, "accuracy/val": 0.9}} for value in (-7, 4, 10**40, 1.0, None)),
    *({"best": {"epoch": 1, "accuracy/val": value}} for value in (None, -0.1, 1.5, "0.9")),
    {"best": None, "final": {}},
    {"final": {}},
    *({"status": "diverged", "epochs": value} for value in (4, -1)),
    {"status": "diverged", "best": {"epoch": 9, "accuracy/val": 0.9}},
]
"""What no run of three epochs can have ended with."""


def test_numbers_that_no_run_has_are_damage(ffn: Command, tmp_path: Path) -> None:
    """Each is told as that run's failure, and enters no mean; what is possible stays."""
    command = ("-m", "name=s", "data=moons", "epochs=3", f"seed=range(0,{len(IMPOSSIBLE)})")
    assert ffn(*command).code == 0
    sweep = tmp_path / "outputs/sweeps/s"
    for seed, changes in enumerate(IMPOSSIBLE):
        (file,) = sweep.glob(f"*seed={seed}-*/summary.json")
        summary = json.loads(file.read_text())
        file.write_text(json.dumps({**summary, **changes}))
    shown = ffn(*command, "status=true")
    assert shown.code == 0
    assert f"{len(IMPOSSIBLE)} damaged" in shown.out, shown.out
    before = [file.read_bytes() for file in sorted(sweep.glob("*/summary.json"))]
    result = ffn(*command)
    assert result.code == 1
    assert result.out.count("summary.json: is damaged") == len(IMPOSSIBLE)
    assert before == [file.read_bytes() for file in sorted(sweep.glob("*/summary.json"))]


def put_lock(folder: Path, kind: str) -> Lock | None:
    if kind == "held":
        return Lock(Folder(folder))
    (folder / ".lock").unlink()
    if kind == "folder":
        (folder / ".lock").mkdir()
    else:
        (folder / ".lock").symlink_to(folder.parent / "elsewhere")
    return None


@pytest.mark.parametrize("launcher", ["workers", "sequential"])
def test_a_run_in_training_is_in_use(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    """From its first to its last file its own folder is held, against a run that begins there by itself."""

    def write(folder: Folder, contents: Mapping[str, bytes]) -> None:
        if {"run.json", "summary.json"} & contents.keys():
            with noted.open("a") as file:  # perhaps in another process
                file.write(f"{folder.name} {os.getpid()} {holder(folder)}\n")
        original(folder, contents)

    original, noted = Folder._write, tmp_path / "noted"
    monkeypatch.setattr(Folder, "_write", write)
    command = ("-m", f"hydra/launcher={launcher}", "name=s", "data=moons", "epochs=1", "seed=0,1")
    assert ffn(*command).code == 0
    lines = [line.split(maxsplit=2) for line in noted.read_text().splitlines()]
    assert Counter(name for name, _, _ in lines) == {f.name: 2 for f in folders(tmp_path, "s")}
    for _, pid, by in lines:
        assert by.startswith(f"process {pid} on ")
        assert (int(pid) == os.getpid()) == (launcher == "sequential")
    assert all(holder(Folder(folder)) is None for folder in folders(tmp_path, "s"))


def test_what_another_process_trained_meanwhile_is_taken(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are looked at again once their folders are held."""
    command = ("-m", "name=s", "data=moons", "epochs=1", "seed=0,1")
    assert ffn(*command).code == 0
    (kept,) = (tmp_path / "outputs/sweeps/s").glob("*seed=1*/summary.json")
    content = kept.read_bytes()
    kept.unlink()
    shutil.rmtree(kept.parent / "checkpoint")  # it would begin anew
    original = Lock.__init__

    def lock(self: Lock, folder: Folder, shared: bool = False) -> None:
        if folder.name == kept.parent.name:
            kept.write_bytes(content)
        original(self, folder, shared)

    monkeypatch.setattr(Lock, "__init__", lock)
    before = (kept.parent / "metrics.jsonl").stat().st_mtime_ns
    assert ffn(*command).code == 0
    assert kept.read_bytes() == content
    assert (kept.parent / "metrics.jsonl").stat().st_mtime_ns == before


def test_more_runs_in_a_tile_than_files_may_be_open(tmp_path: Path) -> None:
    """Tiles are as small then as their locks."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
    code += "sys.argv = ['ffn-train', '-m', 'engine=batched', 'name=s', 'epochs=1', 'data=moons', "
    code += "'seed=range(0,120)']; "
    code += "from ffn_bench.train import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=120, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert len(folders(tmp_path, "s")) == 120


def test_a_diverged_run_ranks_last_and_harms_nobody(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "name=s", "optimizer=sgd", "lr=1e30,0.1", "epochs=2")
    assert result.code == 0
    statuses = {json.loads((f / "summary.json").read_text())["status"] for f in folders(tmp_path, "s")}
    assert statuses == {"finished", "diverged"}
    board = result.out[result.out.index("leaderboard") :]
    assert board.index("0.1") < board.index("1e+30") < board.index("1 diverged")


def test_a_failed_run_is_reported_at_once_and_again_and_the_others_continue(tmp_path: Path) -> None:
    """No file may grow past 60 kB, which only the long run's does."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); "
    code += (
        "sys.argv = ['ffn-train', '-m', 'name=s', 'epochs=2,300,3']; from ffn_bench.train import main; main()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("  [")] == ["finished", "failed", "finished"]
    assert any(line.startswith("  failed ") and "epochs=300" in line for line in lines)
    assert "1 failed" in result.stdout
    assert len(folders(tmp_path, "s")) == 3, result.stdout
    log = next(f for f in folders(tmp_path, "s") if "epochs=300" in f.name) / "train.log"
    assert "File too large" in log.read_text()


@pytest.mark.parametrize("runs", [5, 20])
def test_ctrl_c_ends_every_run_in_good_order(tmp_path: Path, runs: int) -> None:
    """Of those that train side by side; `test_workers.py` has the others."""
    keys = ("-m", "engine=batched", f"seed=range(0,{runs})", "epochs=100000", "name=s")
    process = start(*keys, cwd=tmp_path)
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        files = list(sweep.glob("*/metrics.jsonl"))
        if len(files) == runs and all(f.read_text().count("\n") > 20 for f in files):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"{runs} interrupted" in out
    ended = folders(tmp_path, "s")
    assert len(ended) == runs == len(list(sweep.glob("*/run.json")))
    for folder in ended:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert lines_of(folder)[-1]["step"] <= summary["steps"]
        assert scalars_of(folder)[-1][1] == lines_of(folder)[-1]["step"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_sweep_has_few_files_open(tmp_path: Path) -> None:
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)); "
    code += "sys.argv = ['ffn-train', '-m', 'name=s', 'seed=range(0,300)', 'epochs=1', 'data=moons']; "
    code += "from ffn_bench.train import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert len(folders(tmp_path, "s")) == 300
    assert "not trained" not in result.stdout


TANGLED = [
    # jobs of sweeps in which values lie beside or below each other, or refer to others
    ["lr=0.2", "++lr=0.1"],
    ["lr=0.3", "++lr=0.1"],
    ["lr=0.3", "lr=0.2"],
    ["lr=0.4", "lr=0.2"],
    ["optimizer.betas=[0.9,0.99]", "optimizer.betas.0=0.7"],
    ["optimizer.betas=[0.8,0.88]", "optimizer.betas.0=0.7"],
    ["optimizer.betas=[0.5,0.55]", "optimizer.betas.0=0.7"],
    ["lr=0.1", "l2=${lr}"],
    ["lr=0.2", "l2=${lr}"],
    ["model.hidden=[4,5]", "batch_size=full"],
    ["model.hidden=[4]", "batch_size=8"],
    ["optimizer=torch", "optimizer.name=SGD", "+optimizer.options.weight_decay=0.1"],
    ["optimizer=torch", "optimizer.name=SGD", "+optimizer.options.weight_decay=0.2"],
    ["optimizer=torch", "optimizer.name=ASGD", "+optimizer.options.weight_decay=1"],
]


def test_planning_composes_what_hydra_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration of a sweep over files, groups' keys, plain keys and lists, against Hydra's own."""
    monkeypatch.chdir(tmp_path)
    swept = {
        "optimizer": ["adam", "lecture/adam", "sgd"],
        "model": ["lecture", "linear"],
        "seed": ["0", "7"],
        "lr": ["1e-3", "0.1"],
        "+hydra.job.env_set.OMP_NUM_THREADS": ["1"],
        "data.val_fraction": ["0", "0.2"],
    }
    with guarded(TrainConfig), initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["name=s"], run_mode=RunMode.MULTIRUN)
        planner = Planner(master, HydraContext(loader, Callbacks()))
        jobs = [
            [f"{key}={value}" for key, value in zip(swept, values, strict=True)]
            for values in itertools.product(*swept.values())
        ]
        for job in [*jobs, *TANGLED, *(["name=s", *job] for job in [*jobs, *TANGLED])]:
            expected = loader.load_sweep_config(master, job)
            expected.hydra.job.num = expected.hydra.job.id = 3
            planned = planner.find(job)
            assert planned.run == parsing.parse(expected), job
            assert planned.folder.path == Path(expected.hydra.sweep.dir) / expected.hydra.sweep.subdir
            assert OmegaConf.to_yaml(planner.compose(job, 3)) == OmegaConf.to_yaml(expected), job


def test_nothing_trains_before_every_run_is_checked(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "optimizer=adam", "batch_size=32,5000", "drop_last=true")
    assert result.code == 2
    assert "batch_size" in result.err
    assert list(tmp_path.iterdir()) == []


def test_hydras_own_launcher_works_too(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "hydra/launcher=basic", "name=s", "seed=0,1", "epochs=1")
    assert result.code == 0, result.err
    assert len(folders(tmp_path, "s")) == 2


def summary(val: float | None, test: float, status: str = "finished", epoch: int = 3) -> dict[str, Any]:
    best = None if val is None else {"epoch": epoch, "accuracy/val": val, "accuracy/test": test}
    return {
        "status": status,
        "train_seconds": 2.0,
        "epochs": 9,
        "best": best,
        "final": {"accuracy/test": test},
    }


def test_leaderboard_numbers() -> None:
    settings = [{"lr": lr, "seed": s, "epochs": "9"} for lr in ("0.1", "0.01", "1") for s in ("0", "1")]
    summaries = [
        *(summary(0.5, 0.4), summary(0.7, 0.6)),
        *(summary(0.8, 0.7), summary(0.9, 0.8)),
        *(summary(0.99, 0.99), summary(0.99, 0.99, "diverged")),
    ]
    rows, keys, seeds = leaderboard(settings, summaries)
    assert (keys, seeds) == (["lr"], True)
    assert [row["settings"]["lr"] for row in rows] == ["0.01", "0.1", "1"]
    assert rows[0]["val"] == pytest.approx((0.85, math.sqrt(0.005)))
    assert rows[0]["test"] == pytest.approx((0.75, math.sqrt(0.005)))
    assert rows[2]["bad"] == "1 diverged"
    assert rows[2]["runs"] == 2


def test_the_leaderboard_ranks_by_what_was_monitored(ffn: Command, tmp_path: Path) -> None:
    """A rate so small that the loss stays high, with the same accuracy, ranks last; so does a reason show."""
    keys = (
        "data=moons",
        "data.n_samples=200",
        "epochs=40",
        "batch_size=20",
        "monitor=loss/val",
        "patience=2",
    )
    result = ffn("-m", *keys, "lr=0.1,1e-5,0.02", "name=s")
    assert result.code == 0, result.err
    summaries = [json.loads(f.read_text()) for f in sorted(tmp_path.glob("outputs/sweeps/s/*/summary.json"))]
    rows, _, _ = leaderboard([{"lr": f.name} for f in folders(tmp_path, "s")], summaries)
    scores = [row["score"][0] for row in rows]
    assert scores == sorted(s["best"]["loss/val"] for s in summaries)
    assert all(s["monitor"] == "loss/val" for s in summaries)
    assert "leaderboard by validation loss" in result.out
    assert "ranked by validation loss at the best epoch" in result.out
    early = [s for s in summaries if s["epochs"] < 40]
    assert early and result.out.count("no improvement of loss/val for 2 epochs") == len(early)


def test_leaderboard_without_validation_ranks_by_test_and_missing_runs_last() -> None:
    settings = [{"lr": lr} for lr in ("0.1", "0.01", "1")]
    rows, _, seeds = leaderboard(settings, [summary(None, 0.4), summary(None, 0.6), None])
    assert not seeds
    assert [row["settings"]["lr"] for row in rows] == ["0.01", "0.1", "1"]
    assert [score_of(row) for row in rows[:2]] == [0.6, 0.4]
    assert math.isnan(score_of(rows[2]))
    assert rows[2]["bad"] == "1 missing"
    assert math.isnan(rows[0]["test"][1])


def test_equals_stand_in_the_leaderboard_in_the_order_of_the_runs() -> None:
    settings = [{"lr": lr, "seed": s} for lr in ("1", "0.1") for s in ("0", "1")]
    scores = (0.9, 0.8, 0.8, 0.9)
    rows, _, _ = leaderboard(settings, [summary(val, 0.5) for val in scores])
    assert [row["settings"]["lr"] for row in rows] == ["1", "0.1"]
    assert score_of(rows[0]) == score_of(rows[1])


def test_a_sweep_is_of_one_budget(ffn: Command, tmp_path: Path) -> None:
    """What a command does not sweep over is what the runs have that are there; nothing mixes in silence."""
    first = ("-m", "name=ext", "data=moons", "seed=0,1")
    assert ffn(*first, "epochs=2", "optimizer=sgd", "lr=0.1").code == 0
    for change in (["epochs=3", "lr=0.1"], ["epochs=2", "lr=0.2"], ["batch_size=16", "epochs=2", "lr=0.1"]):
        result = ffn(*first, "optimizer=sgd", *change)
        assert result.code == 4, change
        assert result.err.count("\n") == 1
        assert "outputs/sweeps/ext: holds runs with" in result.err and "sweep over" in result.err
    assert len(folders(tmp_path, "ext")) == 2
    wider = [
        ["epochs=2", "optimizer=adam", "lr=0.01"],  # another competitor, with a rate of its own
        ["epochs=2", "optimizer=sgd", "lr=0.1,0.2"],
        ["epochs=2,3", "optimizer=sgd", "lr=0.1"],
    ]
    for keys in wider:
        result = ffn(*first, *keys)
        assert result.code == 0, result.err
    assert ffn("-m", "name=ext", "data=moons", "seed=2", "epochs=2", "optimizer=sgd", "lr=0.1").code == 0
    # A run that somebody put there is none of the sweep's.
    stray = tmp_path / "outputs/sweeps/ext/zz-other"
    shutil.copytree(folders(tmp_path, "ext")[0], stray)
    identity = json.loads((stray / "run.json").read_text())
    identity["config"]["epochs"] = 7
    (stray / "run.json").write_text(json.dumps(identity))
    again = ffn("-m", "name=ext", "data=moons", "seed=3", "epochs=2", "optimizer=sgd", "lr=0.1")
    assert again.code == 0, again.err


def of_seeds(tmp_path: Path) -> list[Path]:
    """The folders of the sweep `s`, whether or not its runs have ended."""
    return sorted((tmp_path / "outputs" / "sweeps" / "s").glob("*seed=*/"))


class Faulty(Record):
    """A record that raises in one of its methods where the seed is 1."""

    fails_in = ""
    created: ClassVar[list[str]] = []

    def __init__(self, folder: Folder, run: Run, *rest: Any) -> None:
        self.created.append(folder.name)
        self.bad = run.config.seed == 1
        super().__init__(folder, run, *rest)
        self._raise("__init__")

    def _raise(self, where: str) -> None:
        if self.bad and where == self.fails_in:
            raise RuntimeError("of one run alone")

    def write(self, measurements: Sequence[Measurement]) -> None:
        self._raise("write")
        super().write(measurements)
        if self.fails_in == "interrupt":
            stop = self.run.training.stop
            stop.requested, stop.number = True, signal.SIGTERM

    def interrupt(self) -> dict[str, Any]:
        self._raise("interrupt")
        return super().interrupt()


def statuses(tmp_path: Path) -> dict[int, str | None]:
    """How the runs of the sweep `s` ended, by their seeds; None where nothing was written of it."""
    by_seed = {}
    for folder in of_seeds(tmp_path):
        seed = json.loads((folder / "run.json").read_text())["config"]["seed"]
        by_seed[seed] = (read_summary(Folder(folder)) or {}).get("status")
    return by_seed


@pytest.mark.parametrize("where", ["__init__", "write", "interrupt"])
def test_what_one_record_raises_costs_no_neighbour_a_restart(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(side_by_side, "Record", Faulty)
    monkeypatch.setattr(Faulty, "fails_in", where)
    monkeypatch.setattr(Faulty, "created", [])
    result = ffn("-m", "engine=batched", "data=moons", "seed=0,1,2", "epochs=2", "name=s")
    others = "interrupted" if where == "interrupt" else "finished"
    assert statuses(tmp_path) == {0: others, 1: None if where == "__init__" else "failed", 2: others}
    assert result.code == (1 if others == "finished" else 143), result.err
    assert len(Faulty.created) == len({*Faulty.created}) == 3


@pytest.mark.parametrize("when", [1, 2])
def test_data_that_cannot_be_prepared_any_more_ends_the_runs_on_it(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """It could when the sweep was planned; later, it cannot when steps are counted, or when it trains."""
    prepare, calls = build.prepare, [0]

    def prepared(run: TrainConfig) -> build.Prepared:
        asks = sys._getframe(1).f_globals["__name__"]
        if asks in (sweep.__name__, side_by_side.__name__) and "noise=0.1" in repr(run.data):
            calls[0] += 1
            if calls[0] >= when:
                raise UserError("data", "is gone", "bring it back", 3)
        return prepare(run)

    monkeypatch.setattr(build, "prepare", prepared)
    keys = ("-m", "engine=batched", "data=moons", "data.noise=0.1,0.2", "seed=0,1", "epochs=2", "name=s")
    result = ffn(*keys)
    assert result.code == 1, result.err
    assert "data: is gone" in result.out and "2 failed" in result.out
    finished = [f for f in of_seeds(tmp_path) if (f / "summary.json").exists()]
    assert len(finished) == 2 and all("noise=0.2" in f.name for f in finished)


@pytest.mark.parametrize("launcher", ["workers", "sequential"])
def test_a_run_that_raises_by_itself_ends_itself_only(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    train_run = train.train_run

    def trained(run: TrainConfig, *rest: Any) -> Any:
        if run.seed == 1:
            raise RuntimeError("of one run alone")
        return train_run(run, *rest)

    monkeypatch.setattr(train, "train_run", trained)
    result = ffn("-m", f"hydra/launcher={launcher}", "data=moons", "seed=0,1,2", "epochs=2", "name=s")
    assert result.code == 1
    assert "RuntimeError: of one run alone" in result.out
    # A bug keeps its traceback; a worker writes it past what this process captures.
    assert ("RuntimeError: of one run alone" in result.err) == (launcher == "sequential")
    ended = {f.name: (f / "summary.json").exists() for f in of_seeds(tmp_path)}
    assert sum(ended.values()) == 2 and "1 failed" in result.out


def test_a_run_of_another_state_leaves_its_neighbours_together(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-m", "engine=batched", "data=moons", "seed=0,1,2,3", "epochs=2", "name=s"]
    assert ffn(*arguments).code == 0
    for folder in of_seeds(tmp_path):
        (folder / "summary.json").unlink()
        if "seed=1" in folder.name:
            rewrite_checkpoints(folder, STATES["no network"])
    sizes: list[int] = []

    class Counted(BatchedEngine):
        def __init__(self, runs: Any, *rest: Any) -> None:
            sizes.append(len(runs))
            super().__init__(runs, *rest)

    monkeypatch.setattr(batched, "BatchedEngine", Counted)
    assert ffn(*arguments).code == 1
    assert sizes == [4, 3]


@pytest.mark.parametrize("how", ["another run", "no run.json"])
def test_a_folder_of_another_run_is_not_gone_on_in(ffn: Command, tmp_path: Path, how: str) -> None:
    arguments = ["-m", "data=moons", "seed=0,1,2", "epochs=2", "name=s"]
    assert ffn(*arguments).code == 0
    for folder in of_seeds(tmp_path):
        (folder / "summary.json").unlink()
        if "seed=1" in folder.name:
            identity = json.loads((folder / "run.json").read_text())
            identity["config"]["lr"] = 0.5
            (folder / "run.json").write_text(json.dumps(identity))
            if how == "no run.json":
                (folder / "run.json").unlink()
            bad, before = folder, bytes_below(folder)
    assert ffn(*arguments).code == 1
    assert bytes_below(bad) == before
    assert sum((f / "summary.json").exists() for f in of_seeds(tmp_path)) == 2
