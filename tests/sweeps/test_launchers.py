"""Sweeps on the launchers of others: real joblib workers, a real Ray, submitit's local jobs, a real Slurm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cases import parsed, write_csv
from conftest import Command
from ffn_bench.configuration import schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.sweeps import launchers
from run_folder.test_folders import FFN_TRAIN
from sweeps.test_sweep import LOCKS, put_lock

LAUNCHERS: dict[str, tuple[str, ...]] = {
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": (),
    "ray": ("hydra.launcher.ray.init.num_cpus=2", "hydra.launcher.ray.init.include_dashboard=false"),
    "submitit_slurm": (
        "hydra.launcher.timeout_min=5",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=null",
    ),
}
"""Launchers, each with what two workers on this machine need."""
PACKAGES = {
    "joblib": "hydra_joblib_launcher",
    "ray": "hydra_ray_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "submitit_slurm": "hydra_submitit_launcher",
}

Mount = namedtuple("Mount", "mountpoint fstype opts")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slurm if "slurm" in name else ()) for name in LAUNCHERS]
)
def launcher(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    pytest.importorskip(f"hydra_plugins.{PACKAGES[name]}")
    if "slurm" in name and (not shutil.which("sinfo") or subprocess.run(["sinfo"], check=False).returncode):
        pytest.skip("there is no Slurm here; scripts/slurm_one_node.sh start makes one")
    return name


Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a sweep in a folder, on a launcher or (None) without; what still runs at the end is ended."""
    processes: list[subprocess.Popen[str]] = []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # 15 by itself: beside other tests it would hardly get a core
    }

    def begin(cwd: Path, launcher: str | None, *arguments: str) -> subprocess.Popen[str]:
        own = (f"hydra/launcher={launcher}", *LAUNCHERS[launcher]) if launcher else ()
        command = [str(FFN_TRAIN), "-m", *own, *arguments]
        both = subprocess.PIPE
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=both, stderr=both, text=True)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def metrics_of(sweep: Path) -> dict[str, list[dict[str, Any]]]:
    """What the runs of a sweep measured, by their folders' names, without times."""
    metrics = {}
    for path in sorted(sweep.glob("*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        metrics[path.parent.name] = [
            {key: value for key, value in line.items() if key not in ("time", "train_seconds")}
            for line in lines
        ]
    return metrics


def ended(sweep: Path) -> int:
    return len(list(sweep.glob("*/summary.json")))


@pytest.mark.parametrize("launcher", ["joblib"], indirect=True)
def test_a_sweep_in_chunks_is_the_sweep(launcher: str, tmp_path: Path, begin: Begin, ffn: Command) -> None:
    """Runs that must be trained alone among them; and nothing is trained again."""
    keys = ("data=moons", "epochs=3", "seed=range(0,5)", "optimizer=adam,lbfgs", "batch_size=full")
    assert ffn("-m", *keys, "name=plain").code == 0
    process = begin(tmp_path, launcher, *keys, "chunk=3", "name=scaled")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "leaderboard" in out
    plain, scaled = (metrics_of(tmp_path / "outputs/sweeps" / name) for name in ("plain", "scaled"))
    assert len(plain) == 10
    assert scaled == plain
    for folder in (tmp_path / "outputs/sweeps/scaled").glob("*/run.json"):
        assert (folder.parent / ".hydra/overrides.yaml").exists()
    again = begin(tmp_path, launcher, *keys, "chunk=3", "name=scaled")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "10 runs have already ended" in out
    assert metrics_of(tmp_path / "outputs/sweeps/scaled") == plain


def test_a_killed_worker_costs_its_unfinished_steps_only(
    launcher: str, tmp_path: Path, begin: Begin, ffn: Command
) -> None:
    keys = ("data=moons", "epochs=4000", "seed=range(0,6)", "log_every=1000")
    assert ffn("-m", *keys, "name=plain").code == 0
    process = begin(tmp_path, launcher, *keys, "chunk=3", "name=scaled", "checkpoint_seconds=0.2")
    sweep, killed = tmp_path / "outputs/sweeps/scaled", 0
    deadline = time.monotonic() + 90
    while not killed and time.monotonic() < deadline and process.poll() is None:
        for checkpoint in sweep.glob("*/checkpoint/*.safetensors"):
            said = (checkpoint.parents[1] / ".lock").read_text()
            if said.startswith("process ") and not (checkpoint.parents[1] / "summary.json").exists():
                killed = int(said.split()[1])
                os.kill(killed, signal.SIGKILL)
                break
        time.sleep(0.02)
    _, err = process.communicate(timeout=200)
    assert killed
    assert process.returncode == 0, err
    assert ended(sweep) == 6
    assert metrics_of(sweep) == metrics_of(tmp_path / "outputs/sweeps/plain")
    resumed = [log for log in sweep.glob("*/train.log") if "resuming from step" in log.read_text()]
    assert resumed
    assert all(len(list(folder.glob("events.*"))) == 1 for folder in sweep.glob("*seed*"))


CHUNK = """
import signal, sys
from pathlib import Path
from ffn_bench.configuration import parsing
from ffn_bench.sweeps import launchers

class OutOfTime(Exception): pass

def warned(number, frame):
    raise OutOfTime("no more time")  # as submitit does when a job has been requeued often enough

parsing.register()
if sys.argv[2:]:
    signal.signal(signal.SIGUSR2, warned)
launchers.train_chunk(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_job_that_is_out_of_time_fails_no_run(tmp_path: Path, optimizer: str) -> None:
    """What the launcher's handler raises comes out, and the next job goes on: in each engine."""
    settings = [f"optimizer={optimizer}", "data=moons", "batch_size=full", "checkpoint_seconds=0.1"]
    keys = [*settings, "epochs=200" if optimizer == "lbfgs" else "epochs=20000", "log_every=1000"]
    configs = [parsed(*keys, f"seed={seed}") for seed in range(4)]
    described = [
        {
            "overrides": [],
            "settings": {},
            "config": schema.flatten(run),
            "folder": str(tmp_path / str(run.seed)),
        }
        for run in configs
    ]
    chunk = tmp_path / "chunk.json"
    location = {"folder": str(tmp_path), "cwd": str(tmp_path)}
    chunk.write_text(json.dumps({"format": 1, **location, "runs": described}))
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", CHUNK, str(chunk)]
    with subprocess.Popen([*command, "warned"], env=environment, stderr=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/checkpoint/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR2)
        _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "OutOfTime: no more time" in err
    statuses = {reading.status_and_summary(Folder(tmp_path / str(run.seed)), run)[0] for run in configs}
    assert statuses & {"begun", "interrupted"}
    assert "failed" not in statuses
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert {reading.status_and_summary(Folder(tmp_path / str(run.seed)), run)[0] for run in configs} == {
        "finished"
    }


def test_two_launchers_share_a_sweep(tmp_path: Path, begin: Begin) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    keys = (
        "data=moons",
        "epochs=300",
        "seed=range(0,12)",
        "name=shared",
        "chunk=2",
        "hydra.launcher.n_jobs=1",
    )
    cwd = tmp_path / "it's here"
    cwd.mkdir()
    both = [begin(cwd, "joblib", *keys) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    sweep = cwd / "outputs/sweeps/shared"
    assert ended(sweep) == 12
    for lines in metrics_of(sweep).values():
        assert [line["epoch"] for line in lines if "accuracy/val" in line] == [*range(301)]
    assert all(len(list(folder.glob("events.*"))) == 1 for folder in sweep.glob("*seed*"))
    assert not any("goes on" in log.read_text() for log in sweep.glob("*/train.log"))


@pytest.mark.slow
def test_a_plain_sweep_and_a_shared_one_exclude_each_other(tmp_path: Path, begin: Begin) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    keys = ("data=moons", "epochs=2000", "seed=0,1", "name=one")
    first = begin(tmp_path, "joblib", *keys)
    lock = tmp_path / "outputs/sweeps/one/.lock"
    deadline = time.monotonic() + 60
    while not lock.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = begin(tmp_path, None, *keys)
    _, err = second.communicate(timeout=60)
    assert (second.returncode, err.count("\n")) == (4, 1)
    assert "is in use by" in err
    first.communicate(timeout=120)
    assert first.returncode == 0


@pytest.mark.slow
def test_failures_and_divergence_are_those_of_a_sweep(tmp_path: Path, begin: Begin) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    keys = ("data=moons", "epochs=2", "optimizer=sgd", "lr=0.1,1e30", "chunk=1", "name=s")
    process = begin(tmp_path, "joblib", *keys)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "diverged" in out
    statuses = [json.loads(p.read_text())["status"] for p in tmp_path.glob("outputs/sweeps/s/*/summary.json")]
    assert sorted(statuses) == ["diverged", "finished"]
    folder = next(tmp_path.glob("outputs/sweeps/s/*lr=0.1*"))
    (folder / "summary.json").unlink()
    for name in ("checkpoint", "events*", "metrics.jsonl"):
        for path in folder.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    identity = json.loads((folder / "run.json").read_text())  # it fails before anything is recorded
    (folder / "run.json").write_text(json.dumps({**identity, "data_sha256": "of other data"}))
    for _ in range(2):  # it fails again, for the same reason
        process = begin(tmp_path, "joblib", *keys)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "failed lr=0.1" in " ".join(out.split())
        assert "were not trained" not in err


@pytest.mark.parametrize("name", ["it's", "a\\'b", "a\\\\'b", "end\\", "${lr}", "plain"])
def test_paths_are_read_as_they_are(name: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"name={launchers._quoted(Path('/x') / name)}"])
    assert OmegaConf.create({"name": override.value(), "lr": 1}).name == f"/x/{name}"


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_wrong_with_a_lock_is_that_runs_failure(ffn: Command, tmp_path: Path, kind: str) -> None:
    """The workers would pass it over as another's; the process that sweeps says what it is."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = ("-m", "name=s", "data=moons", "epochs=1", "seed=0,1")
    assert ffn(*command).code == 0
    sweep = tmp_path / "outputs/sweeps/s"
    for summary in sweep.glob("*/summary.json"):
        summary.unlink()
    put_lock(next(sweep.glob("*seed=1*")), kind)
    result = ffn(*command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    assert result.code == 1
    assert "run seed=1 failed" in result.err
    assert LOCKS[kind] in result.out
    assert "1 failed" in result.out
    assert len(list(sweep.glob("*seed=0*/summary.json"))) == 1


def test_a_retry_that_was_lost_is_resumed(ffn: Command, tmp_path: Path) -> None:
    """The job that retried a failed run was killed: its summary is gone, and it is another job's turn."""
    keys = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "data=moons", "epochs=1", "seed=0,1")
    assert ffn(*keys, "name=s").code == 0
    folder = next((tmp_path / "outputs/sweeps/s").glob("*seed=0*"))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "status": "failed"}))
    result = ffn(*keys, "name=s", "retry=failed")
    assert result.code == 0, result.err
    chunks = [json.loads(file.read_text()) for file in (tmp_path / "outputs/sweeps/s/.chunks").glob("*.json")]
    (retried,) = [chunk for chunk in chunks if len(chunk["runs"]) == 1]
    assert retried["runs"][0]["config"]["retry"] is None
    assert (reading.read_summary(Folder(folder)) or {})["status"] == "finished"


def test_a_job_may_run_anywhere(ffn: Command, tmp_path: Path) -> None:
    """A worker of another machine begins in a folder of its own; a table is named relative to the sweep's."""
    write_csv(tmp_path / "my.csv")
    run = parsed("data=csv", "data.path=my.csv", "data.target=label", "epochs=1")
    described = {
        "overrides": [],
        "settings": {},
        "config": schema.flatten(run),
        "folder": str(tmp_path / "run"),
    }
    location = {"folder": str(tmp_path), "cwd": str(tmp_path)}
    (tmp_path / "chunk.json").write_text(json.dumps({"format": 1, **location, "runs": [described]}))
    elsewhere = tmp_path / "it's elsewhere"
    elsewhere.mkdir()
    chunk = str(tmp_path / "chunk.json").replace("'", "\\'")
    command = [str(FFN_TRAIN), "-m", f"chunk_file='{chunk}'", "hydra/launcher=basic"]
    subprocess.run([*command, "hydra.sweep.subdir=x"], cwd=elsewhere, check=True, timeout=60)
    assert reading.status_and_summary(Folder(tmp_path / "run"), run)[0] == "finished"


@pytest.mark.slow
def test_tuning_goes_through_a_launcher(tmp_path: Path, begin: Begin) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    keys = (
        "+tune=random_25",
        "hydra.sweeper.trials=4",
        "optimizer=adam",
        "data=moons",
        "epochs=2",
        "chunk=2",
    )
    seeds = "hydra.sweeper.final_seeds=[1,2,3]"
    process = begin(tmp_path, "joblib", *keys, seeds, "name=t")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "chosen settings" in out
    stages = [
        json.loads(p.read_text())["config"]["stage"] for p in tmp_path.glob("outputs/sweeps/t/*/run.json")
    ]
    assert stages.count("tune") == 4
    assert stages.count("final") == 3


@pytest.mark.parametrize(
    ("fstype", "opts", "refused"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", False),
        ("nfs", "rw,vers=3,nolock", True),
        ("nfs4", "rw,local_lock=all", True),
        ("nfs", "rw,vers=3,local_lock=flock", True),
        ("lustre", "rw,flock", False),
        ("lustre", "rw,localflock", True),
        ("fuse.sshfs", "rw", True),
        ("ext4", "rw", False),
    ],
)
def test_locks_that_other_machines_do_not_see_are_refused(fstype: str, opts: str, refused: bool) -> None:
    mounts = [
        Mount("/cluster", "autofs", "rw"),
        Mount("/", "ext4", "rw,nolock"),
        Mount("/cluster", fstype, opts),
        Mount("/cluster/x", "xfs", ""),
    ]
    for folder, here in (("/cluster/sweep", refused), ("/cluster/x/sweep", False)):
        with pytest.raises(UserError, match="no other machine") if here else nullcontext():
            launchers.check_locks(Path(folder), mounts)


def test_locks_are_judged_where_the_folder_is(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "outputs").symlink_to(tmp_path / "cluster")
    mounts = [Mount("/", "ext4", "rw"), Mount(str((tmp_path / "cluster").resolve()), "nfs", "rw,nolock")]
    with pytest.raises(UserError, match="no other machine"):
        launchers.check_locks(tmp_path / "outputs" / "sweep", mounts)


def test_a_launcher_whose_package_is_missing_is_one_line(tmp_path: Path) -> None:
    """In a fresh Python that does not find the package."""
    program = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *more: None if 'ray' in name.split('.')[-1] else find(name, *more);"
        "sys.argv = ['ffn-train', '-m', 'hydra/launcher=ray', 'seed=0,1'];"
        "from ffn_bench.train import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "pip install 'ffn-bench[ray]'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_launcher_that_is_not_installed_is_one_line(ffn: Command) -> None:
    result = ffn("-m", "hydra/launcher=nomad", "seed=0,1")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "hydra/launcher" in result.err


@pytest.mark.parametrize(
    "content",
    ["[]", '{"format": 1}', '{"format": 1, "folder": "/x", "cwd": "/", "runs": 3}',
     '{"format": 1, "folder": "/x", "cwd": "/", "runs": [{}]}'],
)  # fmt: skip
def test_a_file_that_is_no_chunk(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    imports = "from pathlib import Path; from ffn_bench.sweeps import launchers"
    program = f"{imports}; launchers.train_chunk(Path('x.json'))"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert "is not a chunk of a sweep" in result.stderr
