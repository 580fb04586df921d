"""Runs and sweeps that are killed, locked, starved of disk or damaged: what they promise in spite of it."""

from __future__ import annotations

import ast
import errno
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ffn_bench
from cases import OPTIMIZER_NEEDS, all_measured, bits, options, parsed, stop_at, torch_run, trained, write_csv
from conftest import Command, files_below
from engine.test_batched import tile
from engine.test_monitor import all_measured_with_best, best_of
from ffn_bench.engine.build import build
from ffn_bench.errors import UserError
from ffn_bench.optimizers.rules import RULES
from ffn_bench.run_folder import best_weights, checkpoints, lock, reading
from ffn_bench.run_folder.files import Folder
from run_folder.test_folders import latest, lines_of, scalars_of, start

TIMES = ("time", "train_seconds")


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves and time has no part in: losses and norms to the bit, events, final weights."""
    lines = [{k: v for k, v in line.items() if k not in TIMES} for line in lines_of(folder)]
    hexed = [{k: v.hex() if isinstance(v, float) else v for k, v in line.items()} for line in lines]
    events = scalars_of(folder)
    assert max(Counter((tag, step) for tag, step, _ in events).values()) == 1
    state = latest(folder)
    best = best_weights.read(Folder(folder))
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "lines": hexed,
        "events": events,
        "weights": {k: v.tobytes() for k, v in state["network"].items()},
        "step": state["step"],
        "best": best and [best.epoch, best.value, *(t.tobytes() for layer in best.layers for t in layer)],
        "summary": {k: v for k, v in summary.items() if k != "train_seconds"},
    }


def finish(*arguments: str, cwd: Path) -> None:
    out, err = (process := start(*arguments, cwd=cwd)).communicate(timeout=120)
    assert process.returncode == 0, err + out


def kill_at_random(seed: int, kills: int, longest: float, *arguments: str, cwd: Path) -> int:
    """Start the command, kill it at a random instant, and again; then let it end. Returns kills that hit."""
    rng = random.Random(seed)
    hit = 0
    for _ in range(kills):
        process = start(*arguments, cwd=cwd)
        try:
            process.wait(rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            hit += 1
        _, err = process.communicate(timeout=30)
        assert "Traceback" not in err and "error" not in err, err
    finish(*arguments, cwd=cwd)
    return hit


RUN = ("optimizer=nadam", "epochs=1000", "log_every=7", "checkpoint_seconds=0.02")
SWEEP = ("-m", "optimizer=sgd,nadam,lecture/adam", "seed=range(0,4)", "epochs=300", "log_every=7",
         "checkpoint_seconds=0.02")  # fmt: skip


EARLY = (*RUN, "epochs=5000", "monitor=accuracy/train", "patience=900")
"""It ends early, after about as many epochs, and its best one is long before."""


def one_run_killed(tmp_path: Path, seed: int, kills: int, run: tuple[str, ...] = RUN) -> None:
    finish(*run, "name=whole", cwd=tmp_path)
    hit, number = 0, 0
    while hit < kills:
        name = f"name=r{number}"
        hit += kill_at_random(seed + number, min(7, kills - hit), 4.0, *run, name, cwd=tmp_path)
        folder = tmp_path / "outputs" / f"r{number}"
        assert outcome(folder) == outcome(tmp_path / "outputs" / "whole")
        assert not list(tmp_path.rglob("*.tmp"))
        number += 1


def one_sweep_killed(tmp_path: Path, seed: int, kills: int) -> None:
    finish(*SWEEP, "name=whole", cwd=tmp_path)
    reference = tmp_path / "outputs" / "sweeps" / "whole"
    names = sorted(f.name for f in reference.glob("*/"))
    hit, number = 0, 0
    while hit < kills:
        sweep = tmp_path / "outputs" / "sweeps" / f"s{number}"
        ended: set[str] = set()
        rng = random.Random(seed + number)
        while not all((sweep / name / "summary.json").exists() for name in names) and hit < kills:
            process = start(*SWEEP, f"name=s{number}", cwd=tmp_path)
            try:
                process.wait(rng.uniform(1.5, 5.0))
            except subprocess.TimeoutExpired:
                process.kill()
                hit += 1
            process.communicate(timeout=30)
            # What had ended stays as it was, to the byte.
            summaries = {f.parent.name: f.read_bytes() for f in sweep.glob("*/summary.json")}
            assert ended <= summaries.keys()
            ended = set(summaries)
        finish(*SWEEP, f"name=s{number}", cwd=tmp_path)
        assert sorted(f.name for f in sweep.glob("*/")) == names
        for name in names:
            assert outcome(sweep / name) == outcome(reference / name), name
            assert (sweep / name / "train.log").read_text().count(" INFO finished") == 1
        assert not list(tmp_path.rglob("*.tmp"))
        number += 1


@pytest.mark.parametrize("seed", [100, 200])
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path, seed: int) -> None:
    """Twenty SIGKILLs in all, start-up, checkpoints and the end included; chains of them, too."""
    one_run_killed(tmp_path, seed, 10)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_has_the_same_best_weights_and_ends_as_early(tmp_path: Path, kills: int) -> None:
    one_run_killed(tmp_path, 500, kills, EARLY)
    summary = json.loads((tmp_path / "outputs" / "r0" / "summary.json").read_text())
    assert 900 < summary["epochs"] < 5000 and summary["best"]["epoch"] == summary["epochs"] - 900
    assert summary["reason"].startswith("no improvement of accuracy/train for 900 epochs")


@pytest.mark.parametrize("seed", [300, pytest.param(400, marks=pytest.mark.slow)])
def test_a_killed_sweep_ends_as_one_that_was_not(tmp_path: Path, seed: int) -> None:
    """Twelve runs, killed at twenty instants in all: the same folders, none lost, none trained twice."""
    one_sweep_killed(tmp_path, seed, 10)


def test_runs_that_begin_and_runs_that_go_on_at_step_0(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("-m", "seed=0,1,2", "epochs=1", "checkpoint_seconds=0")
    assert ffn(*command, "name=whole").code == 0
    save = checkpoints.save

    def fail_after(folder: Folder, state: Any) -> None:
        save(folder, state)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save", fail_after)
        assert ffn(*command, "name=s").code == 1
    folders = sorted((tmp_path / "outputs" / "sweeps" / "s").glob("*/"))
    assert [latest(f)["step"] for f in folders] == [0, 0, 0]
    shutil.rmtree(folders[0])
    assert ffn(*command, "name=s").code == 0
    for folder in folders:
        assert outcome(folder) == outcome(tmp_path / "outputs" / "sweeps" / "whole" / folder.name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills(tmp_path: Path) -> None:
    one_run_killed(tmp_path, 1000, 150)
    one_sweep_killed(tmp_path, 2000, 50)


# --- exact resume, in process ----------------------------------------------------------------------------


ENGINES = [*itertools.product(options("optimizer"), ["torch"]), *itertools.product(RULES, ["compiled"])]


@pytest.mark.parametrize("at", [0, 7, 40, 53, 80])
@pytest.mark.parametrize(("optimizer", "engine"), ENGINES)
def test_a_run_resumes_exactly(tmp_path: Path, optimizer: str, engine: str, at: int) -> None:
    """From a checkpoint at any step: mid-epoch, mid-window, at the end of an epoch, at the start."""
    full = ["batch_size=full", "epochs=100"] if parsed_needs_full(optimizer) else ["epochs=3"]
    small = ["data=moons", "data.n_samples=200", "model.hidden=[5]"] if optimizer == "newton" else []
    overrides = (f"optimizer={optimizer}", *OPTIMIZER_NEEDS.get(optimizer, []), *full, *small, "log_every=9")
    config = parsed(*overrides, f"engine={engine}")
    whole, stopped, resumed = (build(config)[0].runs[0] for _ in range(3))
    expected = bits(trained(whole))
    stop_at(stopped.training, at)
    measurements = trained(stopped)
    assert stopped.step == at
    checkpoints.save(Folder(tmp_path), stopped.state())
    resumed.training.resume([latest(tmp_path)])
    assert bits([*measurements, *trained(resumed)]) == expected
    assert resumed.status == "finished"
    assert best_of(resumed) == best_of(whole)


def parsed_needs_full(optimizer: str) -> bool:
    return optimizer in ("gd", "lbfgs", "newton")


@pytest.mark.parametrize("at", [3, 53])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batched_runs_resume_exactly_and_well_among_others(tmp_path: Path, dtype: str, at: int) -> None:
    """With the same runs beside it a run has the same bits; PyTorch's sums of a row depend on how many rows
    there are, on some processors in the last bit, so among others it has them nearly."""
    optimizers = ("adam", "sgd", "nadam", "radam", "momentum", "lecture/rmsprop")
    specs = [
        [f"optimizer={o}", f"seed={k}", "lr=0.003", f"epochs={2 + k % 2}"] for k, o in enumerate(optimizers)
    ]
    common = [f"dtype={dtype}", "log_every=9"]
    expected = all_measured_with_best(tile(*specs, common=common))
    stopped = tile(*specs, common=common)
    stop_at(stopped, at)
    before = all_measured(stopped)
    assert {run.step for run in stopped.runs} == {at}
    for k, run in enumerate(stopped.runs):
        (tmp_path / str(k)).mkdir()
        checkpoints.save(Folder(tmp_path / str(k)), run.state())
    for company in ([*range(6)], [0, 2, 4], [5, 3], [1]):
        resumed = tile(*[specs[k] for k in company], common=common)
        resumed.resume([latest(tmp_path / str(k)) for k in company])
        if len(company) == 6:
            for k, (measured, *end) in zip(company, all_measured_with_best(resumed), strict=True):
                assert bits([*before[k], *measured]) == bits(expected[k][0])
                assert end == expected[k][1:]
            continue
        for k, measurements in zip(company, all_measured(resumed), strict=True):
            measured, whole = [*before[k], *measurements], expected[k][0]
            assert [m.step for m in measured] == [m.step for m in whole]
            for one, other in zip(measured, whole, strict=True):
                nearly = pytest.approx(other.values, rel=1e-9 if dtype == "float64" else 1e-2)
                assert one.values == nearly


# --- who may write, and what is another run --------------------------------------------------------------


def pairs(tmp_path: Path, count: int) -> None:
    for number in range(count):
        both = [start("epochs=100000", f"name=p{number}", cwd=tmp_path) for _ in range(2)]
        deadline = time.monotonic() + 60
        while all(p.poll() is None for p in both) and time.monotonic() < deadline:
            time.sleep(0.02)
        loser, winner = sorted(both, key=lambda p: p.poll() is None)
        folder = tmp_path / "outputs" / f"p{number}"
        assert lock.holder(Folder(folder)) == f"process {winner.pid} on {os.uname().nodename}"
        out, err = loser.communicate(timeout=30)
        assert (loser.returncode, out) == (4, "")
        assert err.count("\n") == 1 and f"in use by process {winner.pid}" in err
        while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        winner.send_signal(signal.SIGTERM)
        winner.communicate(timeout=30)
        assert winner.returncode == 143
        assert len(list(folder.glob("events.*"))) == 1
        assert str(loser.pid) not in {f.name.split(".")[-1] for f in folder.glob("events.*")}
        assert lock.holder(Folder(folder)) is None


def test_of_two_processes_on_one_folder_one_wins(tmp_path: Path) -> None:
    pairs(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_twenty_pairs_one_wins_each(tmp_path: Path) -> None:
    pairs(tmp_path, 20)


def test_a_finished_run_is_shown_and_not_touched(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=2", "name=x").code == 0
    before = {f: f.stat().st_mtime_ns for f in files_below(tmp_path)}
    result = ffn("epochs=2", "name=x")
    assert result.code == 0, result.err
    assert "already ended" in result.out
    assert {f: f.stat().st_mtime_ns for f in files_below(tmp_path)} == before


def test_force_trains_in_another_folder(ffn: Command, tmp_path: Path) -> None:
    for _ in range(3):
        assert ffn("epochs=1", "name=x", "force=true").code == 0
    assert ffn("-m", "seed=0,1", "epochs=1", "name=s", "optimizer=sgd,lbfgs", "batch_size=full").code == 0
    again = ffn(
        "-m", "seed=0,1", "epochs=2", "name=s", "optimizer=sgd,lbfgs", "batch_size=full", "force=true"
    )
    assert again.code == 0, again.err
    assert sorted(p.name for p in (tmp_path / "outputs").iterdir()) == ["sweeps", "x", "x-2", "x-3"]
    sweeps = {
        p.name: len(list(p.glob("*/summary.json"))) for p in (tmp_path / "outputs" / "sweeps").iterdir()
    }
    assert sweeps == {"s": 4, "s-2": 4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run["versions"].update(numba="1.0"), ["numba was 1.0"]),
        (lambda run: run.update(data_sha256="0" * 64), ["data was 000"]),
        (lambda run: run.update(device="cuda:0 (some GPU)"), ["device was cuda:0, now cpu"]),
        (lambda run: run["config"].update(lr=0.5, seed=3), ["lr was 0.5, now 0.005", "seed"]),
    ],
)
def test_another_run_is_refused_with_the_difference(
    ffn: Command, tmp_path: Path, change: Callable[[Any], object], words: list[str]
) -> None:
    assert ffn("epochs=2", "name=x").code == 0
    folder = tmp_path / "outputs" / "x"
    (folder / "summary.json").unlink()  # as if it had been killed at the end
    run = json.loads((folder / "run.json").read_text())
    change(run)
    (folder / "run.json").write_text(json.dumps(run))
    names = ("metrics.jsonl", "train.log", "run.json")
    before = [(folder / name).read_bytes() for name in names]
    result = ffn("epochs=2", "name=x")
    assert result.code == 4
    assert result.err.count("\n") == 1
    assert all(word in result.err for word in (*words, "force=true"))
    assert [(folder / name).read_bytes() for name in names] == before


def test_a_run_keeps_the_engine_that_it_began_with(ffn: Command, tmp_path: Path) -> None:
    """Another one is refused where it is asked for by name, with a checkpoint and without."""
    for name, engine in (("whole", "torch"), ("x", "torch"), ("y", "compiled")):
        assert ffn("epochs=2", f"engine={engine}", f"name={name}").code == 0
    folder, other = tmp_path / "outputs" / "x", tmp_path / "outputs" / "y"
    (folder / "summary.json").unlink()
    assert ffn("epochs=2", "name=x").code == 0
    assert outcome(folder) == outcome(tmp_path / "outputs" / "whole")
    before = outcome(other)
    for left in ("summary.json", "checkpoint", ""):  # it has ended; it has a checkpoint; it has none
        for key in ("engine=torch", "gradient=autograd"):
            result = ffn("epochs=2", key, "name=y")
            assert (result.code, result.err.count("\n")) == (4, 1)
            word = key.partition("=")[0]
            assert result.err.rstrip().endswith(
                f"outputs/y: was begun by the compiled engine, and {key} asks for the torch engine; "
                f"leave {word} out, or use another name"
            )
        if left == "summary.json":
            assert outcome(other) == before
            (other / left).unlink()
        elif left:
            shutil.rmtree(other / left)
    assert ffn("epochs=2", "engine=compiled", "name=y").code == 0
    assert outcome(other) == before


def test_the_engine_of_a_sweep_is_kept_too(ffn: Command, tmp_path: Path) -> None:
    assert ffn("-m", "seed=0,1", "epochs=1", "name=s").code == 0
    before = {f: f.read_bytes() for f in files_below(tmp_path / "outputs") if f.name == "summary.json"}
    result = ffn("-m", "seed=0,1", "epochs=1", "name=s", "engine=torch")
    assert result.code == 1
    assert result.out.count("was begun by the compiled engine, and engine=torch asks for") == 2
    assert {f: f.read_bytes() for f in before} == before


def test_a_difference_is_told_as_it_was_written(ffn: Command) -> None:
    """gradient=auto and gradient=autograd are one run, of one fingerprint, but not one word."""
    assert ffn("epochs=1", "name=x").code == 0
    for key, words in (
        ("gradient=manual", "gradient was auto, now manual"),
        ("model.hidden=[3]", "model.hidden was [10, 20, 15], now [3]"),
    ):
        result = ffn("epochs=1", "name=x", key)
        assert result.code == 4
        assert f"holds another run: {words};" in result.err


def test_a_run_of_another_numpy_is_not_resumed(ffn: Command, tmp_path: Path) -> None:
    """NumPy draws weights and orders. Its version was not recorded at first: those runs are resumed."""
    file = tmp_path / "outputs" / "x" / "run.json"
    assert ffn("epochs=2", "name=x").code == 0
    identity = json.loads(file.read_text())
    for version, code in (("1.0", 4), (None, 0)):
        (file.parent / "summary.json").unlink(missing_ok=True)
        versions = {**identity["versions"], "numpy": version}
        if version is None:
            del versions["numpy"]
        file.write_text(json.dumps({**identity, "versions": versions}))
        result = ffn("epochs=2", "name=x")
        assert result.code == code, result.err
        if code:
            assert f"numpy was 1.0, now {np.__version__}" in result.err


def test_a_sweep_is_extended_and_its_status_shown(ffn: Command, tmp_path: Path) -> None:
    first = ("-m", "name=s", "epochs=1", "seed=range(0,3)")
    assert ffn(*first, "lr=0.1,0.01").code == 0
    sweep = tmp_path / "outputs" / "sweeps" / "s"
    before = {f: f.stat().st_mtime_ns for f in sweep.glob("*/*.json*")}
    (next(sweep.glob("*lr=0.1,*seed=2*")) / "summary.json").unlink()
    wider = (*first, "lr=0.1,0.01,0.001")
    status = ffn(*wider, "status=true")
    assert status.code == 0, status.err
    assert all(words in status.out for words in ("5 finished", "1 begun", "3 missing"))
    result = ffn(*wider)
    assert result.code == 0, result.err
    assert "5 runs have already ended" in result.out and "1 runs have started" in result.out
    assert len(list(sweep.glob("*/summary.json"))) == 9
    unchanged = [f for f, at in before.items() if f.exists() and f.stat().st_mtime_ns == at]
    assert len(unchanged) >= 5 * 3
    # The same runs, asked for in another way, are the same folders; also one with a name as it once was.
    older = next(sweep.glob("*lr=0.1,*seed=1*"))
    older.rename(older.with_name(older.name[:-4]))
    assert ffn("-m", "epochs=1", "name=s", "optimizer=adam", "lr=0.1,0.01", "seed=0,1").code == 0
    assert len(list(sweep.glob("*/summary.json"))) == 9


def test_retry_trains_only_what_failed(ffn: Command, tmp_path: Path) -> None:
    command = ("-m", "name=s", "epochs=1", "seed=range(0,4)")
    assert ffn(*command).code == 0
    folders = sorted((tmp_path / "outputs" / "sweeps" / "s").glob("*/"))
    for folder, status in zip(folders[:2], ("failed", "interrupted"), strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "status": status}))
    result = ffn(*command, "retry=failed")
    assert result.code == 0, result.err
    statuses = [json.loads((f / "summary.json").read_text())["status"] for f in folders]
    assert statuses == ["finished", "interrupted", "finished", "finished"]
    assert ffn(*command).code == 0
    assert (reading.read_summary(Folder(folders[1])) or {})["status"] == "finished"


def test_a_second_ctrl_c_stops_at_once_and_loses_little(ffn: Command, tmp_path: Path) -> None:
    arguments = ("epochs=2000", "name=x", "checkpoint_seconds=0.05")
    process = start(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "outputs" / "x" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err
    finish(*arguments, cwd=tmp_path)
    assert ffn("epochs=2000", "name=y").code == 0
    assert outcome(tmp_path / "outputs" / "x") == outcome(tmp_path / "outputs" / "y")


def test_a_table_that_has_changed_is_another_run(ffn: Command, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "my.csv", 300)
    command = ("data=csv", "data.path=my.csv", "data.target=label", "epochs=2", "name=x")
    assert ffn(*command).code == 0
    (tmp_path / "outputs" / "x" / "summary.json").unlink()
    text = table.read_text()
    table.write_text(text.replace("0.997", "0.998", 1) if "0.997" in text else text.replace("1,", "1.5,", 1))
    result = ffn(*command)
    assert result.code == 4, result.err
    assert "data was" in result.err


@pytest.mark.parametrize("name", ["metrics.jsonl", "events"])
def test_a_log_that_is_too_short_is_refused(ffn: Command, tmp_path: Path, name: str) -> None:
    """What a checkpoint has seen written cannot be made up."""
    assert ffn("epochs=2", "name=x").code == 0
    folder = tmp_path / "outputs" / "x"
    (folder / "summary.json").unlink()
    file = next(folder.glob(f"{name}*"))
    os.truncate(file, 100)
    result = ffn("epochs=2", "name=x")
    assert result.code == 4
    assert result.err.count("\n") == 1 and file.name in result.err and "shorter" in result.err


def test_what_a_kill_tore_is_cut_off(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=2", "name=whole").code == 0
    assert ffn("epochs=2", "name=x").code == 0
    folder = tmp_path / "outputs" / "x"
    (folder / "summary.json").unlink()
    for pattern in ("metrics.jsonl", "events.*", "train.log"):
        with next(folder.glob(pattern)).open("ab") as file:
            file.write(b'{"step": 81, "epo')
    half = folder / "checkpoint" / ".step-0000000099.0123456789abcdef.tmp"
    half.write_bytes(b"half")
    with (folder / ".ffn-bench.jsonl").open("a") as manifest:
        name = half.relative_to(folder).as_posix()
        line = {"file": "checkpoint/step-0000000099", "size": 9, "sha256": "0" * 64, "temporary": name}
        manifest.write(json.dumps(line) + "\n")
    assert ffn("epochs=2", "name=x").code == 0
    assert outcome(folder) == outcome(tmp_path / "outputs" / "whole")
    assert not list(folder.rglob("*.tmp"))


def test_stopped_and_continued_it_is_the_same(ffn: Command, tmp_path: Path) -> None:
    process = start("epochs=2000", "name=x", cwd=tmp_path)
    while not (tmp_path / "outputs" / "x" / "metrics.jsonl").exists():
        time.sleep(0.02)
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    assert process.communicate(timeout=60)[1] == ""
    assert ffn("epochs=2000", "name=y").code == 0
    assert outcome(tmp_path / "outputs" / "x") == outcome(tmp_path / "outputs" / "y")


def test_a_clock_that_is_set_back_harms_nothing(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ffn("epochs=3", "name=x").code == 0
    start = time.time()
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - next(ticks) * 3600)
    assert ffn("epochs=3", "name=y").code == 0
    assert outcome(tmp_path / "outputs" / "x") == outcome(tmp_path / "outputs" / "y")


def limited_memory(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, which may have 1.5 GB beyond what it has once everything is imported."""
    code = f"""
import resource, sys
sys.argv = ['ffn-train', *{list(arguments)!r}]
import ffn_bench.sweeps.sweep, ffn_bench.run_folder.recorder, ffn_bench.train, torch
size = next(int(l.split()[1]) * 1024 for l in open('/proc/self/status') if l.startswith('VmSize'))
resource.setrlimit(resource.RLIMIT_AS, (size + 1_500_000_000,) * 2)
ffn_bench.train.main()
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
    )


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    result = limited_memory(tmp_path, "model.hidden=[12000,12000]", "epochs=1", "name=x")
    assert result.returncode == 5, result.stderr
    assert result.stderr.count("\n") == 1 and "memory" in result.stderr


def test_too_little_memory_for_some_runs_of_a_sweep(tmp_path: Path) -> None:
    sizes = "model.hidden=[10],[12000,12000]"
    result = limited_memory(tmp_path, "-m", sizes, "seed=0,1", "epochs=1", "name=s")
    assert result.returncode == 1, result.stderr
    summaries = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/sweeps/s/*/summary.json")]
    assert sorted(s["status"] for s in summaries if s["status"] != "failed") == ["finished"] * 2
    assert "2 failed" in result.stdout
    assert "memory" in result.stdout


# --- disks -----------------------------------------------------------------------------------------------


class FailingDisk:
    """Lets the n-th write, fsync or rename below a folder fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.calls, self.fails_at, self.number = str(folder), 0, -1, errno.ENOSPC
        self._write, self._fsync, self._rename = os.write, os.fsync, os.rename
        monkeypatch.setattr(os, "write", lambda fd, data: self._write(self._count(fd), data))
        monkeypatch.setattr(os, "fsync", lambda fd: self._fsync(self._count(fd)))
        monkeypatch.setattr(os, "rename", self._renamed)

    def _renamed(self, *names: str, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._count(dst_dir_fd)
        self._rename(*names, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def _count(self, what: Any) -> Any:
        path = str(Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else what)
        if path.startswith(self.folder) and not path.endswith(".lock"):
            self.calls += 1
            if self.calls == self.fails_at:
                raise OSError(self.number, os.strerror(self.number), path)
        return what


def walk(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, numbers: list[int]
) -> int:
    arguments = ("data=moons", "epochs=2", "log_every=7", "checkpoint_seconds=0")
    assert ffn(*arguments, "name=whole").code == 0
    disk = FailingDisk(monkeypatch, tmp_path / "outputs")
    assert ffn(*arguments, "name=counted").code == 0
    total = disk.calls
    for number in numbers:
        for fails_at in range(1, total + 1, every):
            disk.calls, disk.fails_at, disk.number = 0, fails_at, number
            result = ffn(*arguments, f"name=f{number}-{fails_at}")
            folder = tmp_path / "outputs" / f"f{number}-{fails_at}"
            assert result.code == 5, (fails_at, result.err)
            assert result.err.count("\n") == 1
            assert not list(folder.rglob("*.tmp"))
            disk.fails_at = -1
            again = ffn(*arguments, f"name=f{number}-{fails_at}")
            assert again.code == 0, (fails_at, again.err)
            assert outcome(folder) == outcome(tmp_path / "outputs" / "whole")
    return total


def test_any_write_may_fail(ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, nothing torn, and the same command afterwards ends as if nothing had been."""
    assert walk(ffn, tmp_path, monkeypatch, 7, [errno.ENOSPC]) > 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_write_may_fail(ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk(ffn, tmp_path, monkeypatch, 1, [errno.ENOSPC, errno.EIO])


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_that_is_given_room_again(tiny_disk: Path, tmp_path: Path) -> None:
    arguments = ("epochs=30", "log_every=5", "checkpoint_seconds=0.05")
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 920_000)
    process = start(*arguments, "hydra.run.dir=x", cwd=tiny_disk)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert err.count("\n") == 1 and "no space left" in err
    ballast.unlink()
    finish(*arguments, "hydra.run.dir=x", cwd=tiny_disk)
    finish(*arguments, "name=whole", cwd=tmp_path)
    assert outcome(tiny_disk / "x") == outcome(tmp_path / "outputs" / "whole")


def test_a_read_only_disk_is_one_line(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for arguments in (("epochs=1",), ("-m", "seed=0,1", "epochs=1")):
        process = start(*arguments, cwd=tiny_disk)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 4, err
        assert err.count("\n") == 1 and "read-only" in err


# --- foreign folders -------------------------------------------------------------------------------------


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_nothing_of_a_foreign_folder_is_executed(ffn: Command, tmp_path: Path) -> None:
    assert ffn("epochs=2", "name=x").code == 0
    folder = tmp_path / "outputs" / "x"
    (folder / "summary.json").unlink()
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    import hashlib

    good = next(iter(sorted((folder / "checkpoint").glob("*"))[-1:]))
    for name in (good.name, f"step-0000000080-{hashlib.sha256(payload).hexdigest()}.safetensors"):
        shutil.rmtree(folder / "checkpoint")
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / name).write_bytes(payload)
        result = ffn("epochs=2", "name=x")
        assert result.code == 4, result.err
        assert result.err.count("\n") == 1
    (folder / "summary.json").write_text(json.dumps({"status": "[red]\x1b[31m", "reason": "${oc.env:HOME}"}))
    (folder / ".hydra" / "config.yaml").write_text("!!python/object/apply:os.system ['touch canary']")
    assert ffn("epochs=2", "name=x", "status=true").code == 0
    assert not canary.exists()


FORBIDDEN = {"pickle", "eval", "exec", "instantiate", "dill", "marshal", "shelve", "joblib"}


def test_nothing_in_the_package_could_execute_what_it_reads() -> None:
    """No pickle, eval or exec, no yaml.load, no torch.load, no weights_only=False, no instantiate."""
    for file in Path(ffn_bench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [name for a in node.names for name in a.name.split(".")]
                names += (getattr(node, "module", None) or "").split(".")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert (owner, node.attr) not in {("yaml", "load"), ("torch", "load")}, file
            elif isinstance(node, ast.keyword):
                assert node.arg != "weights_only", file
            # `compile`d regular expressions and `module.eval()` of networks are attributes of other things.
            forbidden = FORBIDDEN & set(names)
            assert not forbidden, f"{file}, line {getattr(node, 'lineno', '?')}: {forbidden}"


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    run = torch_run("epochs=1")
    checkpoints.save(Folder(tmp_path), run.state())
    with pytest.raises(UserError, match="does not match this run"):
        torch_run("epochs=1", "model.hidden=[3]").training.resume([latest(tmp_path)])
    batch = tile([], common=["epochs=1"])
    with pytest.raises(UserError, match="torch engine"):
        batch.resume([latest(tmp_path)])
    assert np.array_equal(batch.runs[0].layers()[0][0], run.layers()[0][0])
