"""A sweep on the launchers of others (joblib, Ray, submitit): each of their jobs trains a chunk of its runs.

What a job is to train stands in a file of the sweep's folder, so that it needs nothing of this process and
can run anywhere where that folder is. A run is trained by whoever has its lock; jobs may be lost, repeated,
or raced by those of another launcher on the same sweep, and no run is trained twice.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from ffn_bench import process
from ffn_bench.configuration import parsing, schema
from ffn_bench.data.kept import loaded_once
from ffn_bench.engine.choice import group_key
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.run_folder import checkpoints, reading
from ffn_bench.run_folder.files import Folder, to_json
from ffn_bench.run_folder.lock import InUse, Lock, holder
from ffn_bench.sweeps.planning import Planned, Planner
from ffn_bench.sweeps.sweep import LaunchDisplay, Sweep, SweepRun

FOLDER = ".chunks"
"""Below the sweep's: a file and a folder for each job of the launcher."""
TRIES = 3
"""Consecutive launches that lose jobs and advance no run, until the sweep gives up."""
SEVERAL_MACHINES = ("RayLauncher", "SlurmLauncher")
"""Launchers whose jobs may run on other machines."""
LOCAL_LOCKS = {"nolock", "local_lock=flock", "local_lock=all", "localflock", "nobrl", "fuse.sshfs"}
"""Mount options and file systems with which a lock is known on its machine only (nfs(5), mount.lustre(8),
mount.cifs(8), sshfs(1))."""
LOOK_SECONDS, LONGEST_PAUSE = 2.0, 30.0
"""Between two looks at which runs have ended, at least; and at most, while others train all that are left."""


# --- in the process that sweeps -------------------------------------------------------------------------


def check_locks(folder: Path, mounts: Sequence[Any]) -> None:
    """Raise `UserError` (status 4) where locks in `folder` are unknown to other machines.

    `mounts` are what `psutil.disk_partitions(all=True)` finds: mountpoint, fstype and opts each.
    """
    containing = [m for m in mounts if folder.resolve().is_relative_to(m.mountpoint)]
    if not containing:
        return
    mount = max(
        reversed(containing), key=lambda m: len(m.mountpoint)
    )  # of several at one mount point the last
    local_only = LOCAL_LOCKS & {mount.fstype, *mount.opts.split(",")}
    if local_only:
        what = f"is on {mount.fstype} with {min(local_only)}: no other machine would see its locks"
        raise UserError(str(folder), what, "use another file system, or mount it differently", RUN_FOLDER)


def launch(
    launcher: Launcher,
    planner: Planner,
    overrides: Sequence[Sequence[str]],
    first: int,
    shown: LaunchDisplay,
) -> list[JobReturn]:
    """Train runs in chunks by a launcher's jobs; again, where jobs were lost, as long as runs advance."""
    setup_globals()
    if type(launcher).__name__ in SEVERAL_MACHINES:
        check_locks(planner.folder, psutil.disk_partitions(all=True))
    plans = [planner.plan(job) for job in overrides]
    configure_log(planner.master.hydra.hydra_logging, planner.master.hydra.verbose)
    sweep = Sweep(planner, plans, first, shown)
    waiting, unsound = sweep.sound(sweep.waiting())
    if done := len(sweep.jobs) - len(waiting) - len(unsound):
        sweep.view.before({"done": done})
    size = int(planner.master.chunk)
    sweep.view.start(Counter())
    sweep.view.expect(len(waiting))
    sweep.view.live()
    before = {job.number: _stamp(job) for job in waiting}
    lost, idle, pause, announced = "", 0, LOOK_SECONDS, False
    try:
        sweep.fail_all(unsound)
        for job in list(waiting):
            try:
                lock = Lock(job.plan.folder)
                try:
                    sweep.write_hydra_files(job)
                finally:
                    lock.release()
            except InUse:
                continue  # it is waited for
            except (OSError, UserError) as e:
                sweep.fail_all({job.number: e})
                waiting.remove(job)
        while waiting:
            free = [job for job in waiting if not holder(job.plan.folder)]
            if not free:  # jobs of another launcher, or of ours that still run beside the one that was lost
                if not announced:
                    sweep.view.warn(f"{len(waiting)} runs are being trained by other processes: waiting")
                announced = True
                with _watched(sweep, waiting, before):
                    time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                waiting = [job for job in waiting if job.summary is None]
                continue
            if lost:
                sweep.view.warn(f"jobs were lost ({lost}); {len(free)} runs are resumed")
            left, reached = len(waiting), sum(_reached(job) for job in free)
            files = [_write(chunk, planner.folder) for chunk in chunks(free, size)]
            # A worker may run anywhere: its paths are absolute.
            at = f"hydra.sweep.dir={_quoted(planner.folder.absolute())}"
            jobs = [[f"chunk_file={_quoted(f)}", at, f"hydra.sweep.subdir={FOLDER}/{f.stem}"] for f in files]
            with _watched(sweep, waiting, before):
                lost = _run(launcher, jobs, first)
            waiting = [job for job in waiting if job.summary is None]
            further = len(waiting) < left or sum(_reached(job) for job in free) > reached
            idle = 0 if further else idle + 1
            if idle == TRIES or not (lost or further):
                break  # no run advances: this would never end
        held = [job for job in waiting if holder(job.plan.folder)]
        for job in waiting:  # others may have trained them meanwhile
            status, summary = job.plan.status_and_summary()
            if status in reading.ENDED:
                job.summary = summary
        waiting = [job for job in waiting if job.summary is None and job not in held]
        if held:
            sweep.view.warn(f"{len(held)} runs are being trained by another process")
        if waiting and lost:
            raise UserError("hydra/launcher", f"its jobs fail: {lost}", "see its own logs", status=1)
        for job in waiting:
            what, todo = "was not trained by its job", "see the logs of hydra/launcher"
            sweep.fail_all({job.number: UserError(str(job.plan.folder), what, todo)})
    finally:
        sweep.close()
    return sweep.returns()


def _quoted(path: Path) -> str:
    """A path as Hydra reads it in an override."""
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), str(path))
    return "'" + text.replace("${", "\\${") + "'"


@process.tidies
def _run(launcher: Launcher, jobs: list[list[str]], first: int) -> str:
    """Let the launcher run its jobs; what went wrong with them in a line, or nothing."""
    try:
        for result in launcher.launch(jobs, first):
            _ = result.return_value  # raises what the job has raised
    except Exception as e:
        if isinstance(e, UserError):
            raise
        return (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
    return ""


def chunks(jobs: Sequence[SweepRun], size: int) -> list[list[SweepRun]]:
    """Runs cut into chunks of at most `size`, those together that can share a batch."""

    def key(job: SweepRun) -> str:
        return repr(group_key(job.plan.run))

    pieces = []
    for _, members in itertools.groupby(sorted(jobs, key=key), key=key):
        group = list(members)
        pieces += [group[start : start + size] for start in range(0, len(group), size)]
    return pieces


def _write(chunk: Sequence[SweepRun], folder: Path) -> Path:
    """What a job is to train, as a file."""
    described = [
        {
            "overrides": job.plan.overrides,
            "settings": job.settings,
            "config": schema.flatten(replace(job.plan.run, retry=None)),  # it has been chosen here
            "folder": str(job.plan.folder.path.absolute()),
        }
        for job in chunk
    ]
    location = {"folder": str(folder.absolute()), "cwd": str(Path.cwd())}
    content = json.dumps({"format": 1, **location, "runs": described}).encode()
    name = f"{FOLDER}/{secrets.token_hex(8)}.json"  # two launchers may write the same chunk at once
    return folder.absolute() / Folder(folder).put(name, content)


def _stamp(job: SweepRun) -> tuple[int, int] | None:
    """What tells one summary of a run from the next, though they may say the same."""
    try:
        info = (job.plan.folder.path / "summary.json").lstat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ino


def _reached(job: SweepRun) -> int:
    """How far a run is, in steps: of its last checkpoint."""
    try:
        name, _ = checkpoints.find(job.plan.folder)
    except UserError:
        return 0
    return checkpoints.step_of(name) if name else 0


@contextmanager
def _watched(sweep: Sweep, waiting: Sequence[SweepRun], before: Mapping[int, Any]) -> Iterator[None]:
    """Report runs that end while the launcher works, and take the summaries of all that have in the end.

    `before` are the stamps of their summaries when it all began: of those that failed then.
    """
    over, left = threading.Event(), list(waiting)

    def look() -> None:
        for job in list(left):
            summary = job.plan.summary() if _stamp(job) != before[job.number] else None
            if summary and summary["status"] != "interrupted":
                left.remove(job)
                job.summary = summary
                sweep.view.ended(job.number - sweep.jobs[0].number, summary)

    def watch() -> None:
        while not over.wait(max(LOOK_SECONDS, len(left) / 1000)):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()


# --- in a job of the launcher ---------------------------------------------------------------------------


class Chunk(Sweep):
    """The runs of one job: trained as in any sweep, without Hydra, and shown to nobody."""

    def __init__(self, plans: Sequence[Planned], folder: Path, settings: list[dict[str, str]]) -> None:
        super().__init__(None, plans, 0, LaunchDisplay(settings=settings, search=True), folder)
        self.view.console.quiet = True

    def write_hydra_files(self, job: SweepRun) -> None:
        """Nothing: the process that sweeps has."""

    @contextmanager
    def locked(self, jobs: Sequence[SweepRun]) -> Iterator[list[SweepRun]]:
        """Those runs: `train_chunk` holds their folders."""
        yield [*jobs]

    def end(self, job: SweepRun, summary: dict[str, Any]) -> None:
        """Note how a run ended, in its folder too where it has no record."""
        super().end(job, summary)
        status, written = job.plan.status_and_summary()
        if job.failed and status != reading.DAMAGED and written in (None, job.before):
            with suppress(OSError, UserError):  # it failed before it had a record
                job.plan.folder.replace("summary.json", to_json(summary))


class _OutOfTime(BaseException):
    """Stands for what a launcher's own signal handler raises; no run has failed then."""


@contextmanager
def _warned() -> Iterator[None]:
    """Let what a launcher's handler of a warning raises (submitit's, when a job is out of time for the last
    time) pass every `except Exception` on its way out."""
    signals = (signal.SIGUSR1, signal.SIGUSR2)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in signals if callable(handler := signal.getsignal(number))}

    def relay(number: int, frame: FrameType | None) -> None:
        try:
            before[signal.Signals(number)](number, frame)
        except Exception as e:
            raise _OutOfTime from e

    for number in before:
        signal.signal(number, relay)
    try:
        yield
    except _OutOfTime as e:
        raise e.__cause__ or e from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_job(cfg: DictConfig) -> None:
    """What a launcher's job runs."""
    train_chunk(Path(cfg.chunk_file))


def train_chunk(file: Path) -> None:
    """Train the runs that a chunk's file names, but for those that have ended or that others train now.

    Paths of a run's data are relative to where the sweep was started. Raises `UserError` (status 4) for a
    file that is not a chunk.
    """
    try:
        content = Folder(file.parent).read_json(file.name) or {}
    except UserError:
        content = {}
    bad = UserError(str(file), "is not a chunk of a sweep", "start the sweep again", RUN_FOLDER)
    if content.get("format") != 1:
        raise bad
    try:
        root, cwd = Path(content["folder"]), Path(content["cwd"])
        described = [
            (
                tuple(map(str, one["overrides"])),
                parsing.from_flat(dict(one["config"])),
                Folder.below(root, str(Path(one["folder"]).relative_to(root))),
                {str(key): str(value) for key, value in one["settings"].items()},
            )
            for one in content["runs"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise bad from e
    plans, settings, locks = [], [], []
    process.descriptors(2 * len(described))
    try:
        for overrides, run, folder, own in described:
            try:
                locks.append(Lock(folder))
            except (UserError, OSError):
                continue  # another job trains it, or the process that sweeps tells what is wrong
            plans.append(Planned(overrides, run, folder))
            settings.append(own)
        if plans:
            with suppress(OSError):  # where it does not exist, absolute paths still do
                os.chdir(cwd)
            with _warned(), loaded_once():
                Chunk(plans, root, settings).run(processes=0)
    finally:
        for lock in locks:
            lock.release()
