"""Runs of a sweep that train side by side in the batched engine, on a GPU, and their folders."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffn_bench import process
from ffn_bench.engine import build
from ffn_bench.engine.batched import group_sizes
from ffn_bench.engine.choice import choose, group_key
from ffn_bench.engine.device import THREADS, threads
from ffn_bench.engine.loop import Run, Training
from ffn_bench.run_folder import checkpoints, reading
from ffn_bench.run_folder.recorder import CheckpointSchedule, Record

if TYPE_CHECKING:
    from ffn_bench.sweeps.sweep import Sweep, SweepRun


def train(sweep: Sweep, jobs: Sequence[SweepRun]) -> None:
    """Train runs of a sweep, those together that can be."""
    with threads(THREADS):
        for group in _groups(jobs):
            _train_group(sweep, group)


def _groups(jobs: Sequence[SweepRun]) -> list[list[SweepRun]]:
    """Runs that can be trained side by side, together."""

    def key(job: SweepRun) -> str:
        # A run that begins measures its start; one with a checkpoint at step 0 has done so.
        step = checkpoints.step_of(job.checkpoint) if job.checkpoint else -1
        return repr((*group_key(job.plan.run), step))

    return [list(group) for _, group in itertools.groupby(sorted(jobs, key=key), key=key)]


def _train_group(sweep: Sweep, group: list[SweepRun]) -> None:
    """As many at a time as a GPU's memory holds."""
    try:
        prepared = build.prepare(group[0].plan.run)
    except Exception as e:
        sweep.fail_all({job.number: e for job in group})
        return
    sizes = group_sizes(len(group), prepared.widths, prepared.batch_size, prepared.dtype, prepared.device)
    members = iter(group)
    most = max(1, process.descriptors(2 * len(group)) // 2)  # a lock each
    fitting = [list(itertools.islice(members, size)) for size in sizes]
    for together in [some[at : at + most] for some in fitting for at in range(0, len(some), most)]:
        if not sweep.stop.requested:
            with sweep.locked(together) as held:
                for jobs in _groups(held):
                    _train_rows(sweep, jobs, prepared)


def _train_rows(sweep: Sweep, jobs: list[SweepRun], prepared: build.Prepared) -> None:
    """Train runs whose folders are locked and that start at the same step, and write their folders.

    What goes wrong with one run ends that run. What goes wrong with all of them, such as a rule that
    raises or too little memory, is one run's fault or comes of too many: each half is resumed from its
    checkpoints by itself, and so on, until the run is found.
    """
    if sweep.stop.requested or not jobs:
        return
    records: dict[Run, Record] = {}
    runs: Sequence[Run] = []
    training: Training | None = None
    try:
        training = build.build_batched([job.plan.run for job in jobs], prepared.data, prepared.tensors())
        training.stop, runs = sweep.stop, training.runs
        states = [_state(sweep, job, run) for job, run in zip(jobs, runs, strict=True)]
        if any(run.status == "failed" for run in runs):
            left = [job for job, run in zip(jobs, runs, strict=True) if run.status != "failed"]
            training.engine.close()
            _train_rows(sweep, left, prepared)
            return
        if states[0]:
            training.resume([state for state in states if state])
        of_run = dict(zip(runs, jobs, strict=True))
        schedule = CheckpointSchedule(jobs[0].plan.run.checkpoint_seconds)
        for run, job, state in zip(runs, jobs, states, strict=True):
            try:
                sweep.write_hydra_files(job)
                choice = choose(reading.as_begun(job.plan.folder, job.plan.run))
                device = prepared.describe_device()
                record = Record(job.plan.folder, run, choice, device, THREADS, len(jobs), state, schedule)
                records[run] = record
                for note in record.notes:
                    sweep.view.warn(f"{job.name}: {note}")
                if run.status != "running":  # killed after its last step
                    sweep.end(job, record.close(run.status, run.reason))
            except Exception as e:
                sweep.fail(job, run, records.get(run), e)
        del states
        for measured in training.measurements():
            for run, measurements in measured.items():
                job, record = of_run[run], records[run]
                try:
                    record.write(measurements)
                    sweep.view.measured(sweep.index(job), measurements)
                    if run.status != "running":
                        sweep.end(job, record.close(run.status, run.reason))
                except Exception as e:
                    sweep.fail(job, run, record, e)
        for run in runs:
            if run.status == "running":
                try:
                    sweep.end(of_run[run], records[run].interrupt())
                except Exception as e:
                    sweep.fail(of_run[run], run, records[run], e)
    except Exception as e:
        left = [job for job in jobs if job.summary is None]
        if not left:
            raise
        if len(left) == 1:
            its_own = runs[jobs.index(left[0])] if runs else None
            sweep.fail(left[0], its_own, records.get(its_own) if its_own else None, e)
            return
        if training is not None:
            training.engine.close()
        half = len(left) // 2
        for half_of_jobs in (left[:half], left[half:]):
            half_of_jobs, unsound = sweep.sound(half_of_jobs)
            sweep.fail_all(unsound)
            for group in _groups(half_of_jobs):
                _train_rows(sweep, group, prepared)
    finally:
        if training is not None:
            training.engine.close()


def _state(sweep: Sweep, job: SweepRun, run: Run) -> dict[str, Any] | None:
    """The state that a run is resumed from; the run fails where that is not one of its own."""
    if job.checkpoint is None:
        return None
    try:
        state = checkpoints.load(job.plan.folder, job.checkpoint)
        run.check(state)
        return state
    except Exception as e:
        sweep.fail(job, run, None, e)
        return None
