"""Worker processes: a run is the same bits in any of them, and what ends one costs the others nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import Command
from ffn_bench import process as own_process
from ffn_bench.engine.stop import Stop
from ffn_bench.run_folder import checkpoints
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.lock import holder
from ffn_bench.run_folder.recorder import Record
from ffn_bench.sweeps import workers
from run_folder.test_folders import FFN_TRAIN
from run_folder.test_survival import outcome

SWEEPS = Path("outputs/sweeps")


def run_folders(folder: Path) -> dict[int, Path]:
    """The runs of a sweep that have begun, by their seeds."""
    files = sorted(folder.glob("*/run.json"))
    return {json.loads(file.read_text())["config"]["seed"]: file.parent for file in files}


def outcomes(folder: Path) -> dict[int, Any]:
    """All that the runs of a sweep left but times, by their seeds."""
    return {seed: outcome(run) for seed, run in run_folders(folder).items()}


def statuses(folder: Path) -> dict[int, str | None]:
    """How the runs of a sweep have ended, None where they have not."""
    files = {seed: run / "summary.json" for seed, run in run_folders(folder).items()}
    return {s: json.loads(f.read_text())["status"] if f.exists() else None for s, f in files.items()}


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


# --- the same bits --------------------------------------------------------------------------------------


def test_a_run_is_the_same_bits_wherever_it_trains(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone; in sweeps of two and of eight; in one worker and in two; in no worker; in a job of joblib's."""
    small = ("data=moons", "data.n_samples=200", "batch_size=20", "epochs=6", "patience=1", "log_every=7")
    keys = (*small, "optimizer=nadam", "schedule=cosine", "l2=0.001")
    for seed in range(8):
        assert ffn(*keys, f"seed={seed}", f"name={seed}").code == 0
    alone = {seed: outcome(tmp_path / "outputs" / str(seed)) for seed in range(8)}
    assert len({one["summary"]["epochs"] for one in alone.values()}) > 2  # some end early
    ways: dict[str, tuple[int, tuple[str, ...]]] = {
        "one": (1, ()),
        "two": (2, ()),
        "sequential": (1, ("hydra/launcher=sequential",)),
    }
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        ways["joblib"] = (1, ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"))
    for way, (processes, launcher) in ways.items():
        monkeypatch.setattr(own_process, "cores", partial(int, processes))
        for count in (2, 8):
            result = ffn("-m", *keys, *launcher, f"seed=range(0,{count})", f"name={way}{count}")
            assert result.code == 0, result.err
            assert ("in 2 processes" in result.out) == (way == "two")
            assert outcomes(SWEEPS / f"{way}{count}") == {seed: alone[seed] for seed in range(count)}, way


def test_a_batched_sweep_is_resumed_by_its_engine(ffn: Command, tmp_path: Path) -> None:
    """Though a new one would be trained by another: to the same bits."""
    keys = ("-m", "data=moons", "data.n_samples=200", "epochs=6", "seed=0,1")
    assert ffn(*keys, "engine=batched", "name=whole").code == 0
    assert ffn(*keys, "engine=batched", "name=s").code == 0
    for folder in run_folders(SWEEPS / "s").values():
        (folder / "summary.json").unlink()
    result = ffn(*keys, "name=s")
    assert result.code == 0, result.err
    assert "2 runs have started and are resumed" in result.out
    assert outcomes(SWEEPS / "s") == outcomes(SWEEPS / "whole")


# --- what is killed -------------------------------------------------------------------------------------

LONG = ("-m", "seed=range(0,4)", "epochs=400", "log_every=7", "checkpoint_seconds=0.05")


def begin(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """A sweep in two worker processes, as from a terminal: in a group of its own."""
    return subprocess.Popen(
        [str(FFN_TRAIN), *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:
        return []


def in_training(folder: Path) -> dict[int, int]:
    """Which process trains which run of a sweep, by its seed, of those that have a checkpoint."""
    by_seed = {}
    for seed, run in run_folders(folder).items():
        by = re.fullmatch(r"process (\d+) on .*", holder(Folder(run)) or "")
        if by and list(run.glob("checkpoint/*.safetensors")):
            by_seed[seed] = int(by[1])
    return by_seed


@pytest.fixture
def whole(ffn: Command, tmp_path: Path) -> dict[int, Any]:
    """What the runs of the long sweep leave that nobody disturbs."""
    assert ffn(*LONG, "name=whole").code == 0
    return outcomes(tmp_path / SWEEPS / "whole")


def test_a_worker_that_is_killed_costs_its_run_only(whole: dict[int, Any], tmp_path: Path) -> None:
    process = begin(tmp_path, *LONG, "name=s")
    folder = tmp_path / SWEEPS / "s"
    seed, worker = next(iter(wait_until(lambda: in_training(folder)).items()))
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "its process ended (signal 9)" in out and "Traceback" not in err
    assert statuses(folder) == {s: None if s == seed else "finished" for s in range(4)}
    untouched = {f: f.stat().st_mtime_ns for f in folder.glob("*/summary.json")}
    process = begin(tmp_path, *LONG, "name=s")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "1 runs have started and are resumed" in out
    assert {f: f.stat().st_mtime_ns for f in untouched} == untouched
    assert outcomes(folder) == whole


def test_a_worker_that_is_killed_after_its_run_has_ended_costs_nothing(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Record.close

    def closed(self: Record, status: str, reason: str) -> dict[str, Any]:
        close(self, status, reason)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(Record, "close", closed)
    result = ffn("-m", "data=moons", "epochs=1", "seed=0,1,2", "name=s")
    assert result.code == 0, result.err
    assert result.out.count(" finished ") == 3
    assert statuses(tmp_path / SWEEPS / "s") == dict.fromkeys(range(3), "finished")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_kills_at_random_instants_change_no_bit(whole: dict[int, Any], tmp_path: Path, seed: int) -> None:
    """Of the command, whose workers then end at once and hold no lock; and of single workers."""
    folder, rng = tmp_path / SWEEPS / "s", random.Random(seed)
    for kill in range(6):
        process = begin(tmp_path, *LONG, "name=s")
        while not workers_of(process) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        children = workers_of(process)
        if kill % 2:
            for child in children[:1]:
                child.kill()
            process.communicate(timeout=120)
            continue
        process.kill()
        process.communicate(timeout=30)
        _, alive = psutil.wait_procs(children, timeout=3)
        assert not alive
        assert holder(Folder(folder)) is None
        assert all(holder(Folder(run)) is None for run in run_folders(folder).values())
    process = begin(tmp_path, *LONG, "name=s")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert outcomes(folder) == whole
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("to", ["the command", "its group"])
def test_one_ctrl_c_leaves_every_run_with_a_checkpoint(tmp_path: Path, to: str) -> None:
    process = begin(tmp_path, "-m", "seed=range(0,4)", "epochs=100000", "name=s")
    folder = tmp_path / SWEEPS / "s"
    wait_until(lambda: len([*folder.glob("*/metrics.jsonl")]) == 2)
    time.sleep(0.3)
    children = workers_of(process)
    assert len(children) == 2
    (os.kill if to == "the command" else os.killpg)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not psutil.wait_procs(children, timeout=3)[1]
    assert "2 interrupted" in out and "not trained  2 of 4 runs" in out
    assert statuses(folder) == dict.fromkeys(run_folders(folder), "interrupted")
    assert len(run_folders(folder)) == 2
    for run in run_folders(folder).values():
        summary = json.loads((run / "summary.json").read_text())
        name, damaged = checkpoints.find(Folder(run))
        assert name is not None and not damaged
        assert checkpoints.step_of(name) == summary["steps"] > 0
        assert holder(Folder(run)) is None


# --- the processes --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    assert not [child for child in psutil.Process().children() if child.name().startswith("pytest")]


def train(
    count: int,
    processes: int,
    work: Callable[[int, workers.Send], None],
    on_message: Callable[[int, Any], None] = lambda number, message: None,
    on_start: Callable[[Stop], None] = lambda stop: None,
) -> list[int]:
    """Numbers from 0 on through workers; returns those that were lost."""
    lost: list[int] = []
    with Stop() as stop:
        workers.train(
            range(count), processes, work, lambda: on_start(stop), on_message,
            lambda error: lost.append(error.number), stop,
        )  # fmt: skip
    return lost


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_number_is_worked_at_once_and_in_order(processes: int) -> None:
    messages: list[tuple[int, Any]] = []

    def work(number: int, send: workers.Send) -> None:
        for k in range(20):
            send((k, os.getpid()))

    lost = train(9, processes, work, lambda number, message: messages.append((number, message)))
    assert lost == []
    for number in range(9):
        assert [k for own, (k, _) in messages if own == number] == [*range(20)]
    pids = {pid for _, (_, pid) in messages}
    assert 1 <= len(pids) <= processes and os.getpid() not in pids


def test_a_lost_process_is_replaced() -> None:
    """Whatever ends it; the others do what is left."""
    done: list[int] = []

    def work(number: int, send: workers.Send) -> None:
        if number in (1, 4):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 6:
            os._exit(3)
        send("done")

    lost = train(9, 2, work, lambda number, message: done.append(number))
    assert sorted(lost) == [1, 4, 6]
    assert sorted(done) == [0, 2, 3, 5, 7, 8]


def test_how_it_was_lost_is_said() -> None:
    assert "(signal 9)" in str(workers.Lost(0, -9)) and "(status 3)" in str(workers.Lost(0, 3))


def test_a_process_that_is_killed_between_two_runs_costs_none() -> None:
    done: list[int] = []

    def work(number: int, send: workers.Send) -> None:
        send("done")
        if number == 0:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def on_message(number: int, message: Any) -> None:
        done.append(number)
        if number == 0:
            time.sleep(0.5)  # by now it waits for a number, and is killed

    assert train(3, 1, work, on_message) == []
    assert done == [0, 1, 2]


def test_a_stop_that_comes_while_processes_start_is_heard() -> None:
    def work(number: int, send: workers.Send) -> None:
        with Stop() as stop:
            while not stop.requested:
                time.sleep(0.01)
            stop.raise_if_requested()

    def on_start(stop: Stop) -> None:
        stop.requested = True

    begun = time.monotonic()
    for _ in range(5):
        assert train(9, 2, work, on_start=on_start) == []
    assert time.monotonic() - begun < 20
