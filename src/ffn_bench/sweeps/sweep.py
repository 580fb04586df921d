"""A sweep: its runs in worker processes, or side by side on a GPU; a folder each; a leaderboard."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals

from ffn_bench import train
from ffn_bench.command_line import sweep_view, tables
from ffn_bench.command_line.mistakes import explain
from ffn_bench.command_line.run_view import RunView
from ffn_bench.configuration import schema
from ffn_bench.engine import build
from ffn_bench.engine.choice import Choice, choose, group_key
from ffn_bench.engine.loop import Run
from ffn_bench.engine.stop import Stop
from ffn_bench.errors import UserError
from ffn_bench.optimizers import registry
from ffn_bench.run_folder import checkpoints, folders, hydra_files, lock, reading
from ffn_bench.run_folder.recorder import Record
from ffn_bench.sweeps import workers
from ffn_bench.sweeps.leaderboard import leaderboard, names_of, settings_of, varied_keys
from ffn_bench.sweeps.planning import Planned, Planner


class RunFailed(UserError):
    """Stands for a run's exception once that has been shown; it ends the command with status 1."""

    def __init__(self, name: str) -> None:
        super().__init__("sweep", f"run {name} failed", "see above, and its train.log", status=1)


@dataclass(frozen=True)
class LaunchDisplay:
    """How a launch is shown: its first line, what names its runs (by default what was overridden and is not
    the same in all), whether it is a search, whose runs have neither lines of their own nor a leaderboard,
    and what shows it to a person."""

    heading: str = "ffn-train"
    settings: Sequence[dict[str, str]] | None = None
    search: bool = False
    view: Callable[..., sweep_view.SweepView] = sweep_view.SweepView


@dataclass(kw_only=True)
class SweepRun:
    """A run of the sweep and its outcome."""

    number: int
    name: str
    settings: dict[str, str]
    plan: Planned
    status: str
    """What the folder said before."""
    before: dict[str, Any] | None = None
    """Its summary then."""
    checkpoint: str | None = None
    """What it is resumed from."""
    summary: dict[str, Any] | None = None

    @property
    def failed(self) -> bool:
        """Whether an error ended it."""
        return self.summary is not None and self.summary["status"] in ("failed", reading.DAMAGED)


class Sweep:
    """The runs of one launch. `run` trains them; what becomes of them is shown as it happens."""

    def __init__(
        self,
        planner: Planner | None,
        plans: Sequence[Planned],
        first: int,
        shown: LaunchDisplay,
        folder: Path | None = None,
    ) -> None:
        self.planner, self.search = planner, shown.search
        folder = folder or (planner.folder if planner else Path())
        settings = shown.settings or [settings_of(p.overrides) for p in plans]
        names, varied = names_of(settings), varied_keys(settings)
        self.jobs = [
            SweepRun(number=first + k, name=name, settings=setting, plan=plan, status=status, before=before)
            for k, (name, setting, plan) in enumerate(zip(names, settings, plans, strict=True))
            for status, before in [plan.status_and_summary()]
        ]
        own = [{k: s[k] for k in varied if k in s} for s in settings]
        warnings = planner.warnings if planner else []
        rows = list(zip(names, own, strict=True))
        self.view = shown.view(rows, folder, shown.heading, shown.search, tuple(warnings))
        warnings.clear()
        self.stop = Stop()
        self._in_worker: workers.Send | None = None

    def run(self, processes: int) -> None:
        """Train every run, continuing past those that fail; then show the leaderboard.

        Runs of the batched engine are trained side by side. The others go whole, one after the other, through
        as many worker processes; with none, or on a GPU, through this one.
        """
        waiting, unsound = self.sound(self.waiting())
        prepared: dict[Any, build.Prepared] = {}
        choices: dict[int, Choice] = {}
        steps = 0
        for job in waiting:
            try:
                run = reading.as_begun(job.plan.folder, job.plan.run)
                if group_key(run) not in prepared:
                    prepared[group_key(run)] = build.prepare(run)
                own = prepared[group_key(run)]
                choices[job.number] = choose(run, own.widths)
                steps += run.epochs * own.steps_per_epoch
            except Exception as e:
                unsound[job.number] = e
        waiting = [job for job in waiting if job.number not in unsound]
        together = [job for job in waiting if choices[job.number].engine == "batched"]
        single = [job for job in waiting if choices[job.number].engine != "batched"]
        on_cpu = all(own.device == "cpu" for own in prepared.values())
        processes = min(processes, len(single)) if on_cpu else 0
        before = Counter(
            "done" if job.status in reading.ENDED else "left" for job in self.jobs if job.summary
        )
        before["resumed"] = sum(job.status != "missing" for job in waiting)
        self.view.before({name: n for name, n in before.items() if n})
        self.view.start(Counter(choices[job.number] for job in waiting), processes)
        self.view.expect(steps)
        prepared.clear()
        if processes:
            self._load_code(single)
        try:
            self.fail_all(unsound)
            with self.stop:
                if processes:
                    self._train_in_workers(single, processes)
                else:
                    self.view.live()
                if together:
                    from ffn_bench.sweeps import side_by_side

                    side_by_side.train(self, together)
                for job in () if processes else single:
                    if not self.stop.requested:
                        self._train_alone(job, sweep_view.RunOfSweep(self.view, self.index(job)))
        finally:
            self.close()
        self.stop.raise_if_requested()

    def index(self, job: SweepRun) -> int:
        """Its place among the runs of this launch."""
        return job.number - self.jobs[0].number

    def sound(self, waiting: Sequence[SweepRun]) -> tuple[list[SweepRun], dict[int, Exception]]:
        """The runs whose folders can be trained into, and what is wrong with others', by number."""
        unsound: dict[int, Exception] = {}
        for job in waiting:
            try:
                folders.check_run(job.plan.folder, job.plan.run)
                checkpoint, damaged = checkpoints.find(job.plan.folder)
            except (UserError, OSError) as e:
                unsound[job.number] = e
                continue
            for name in damaged if checkpoint != job.checkpoint else ():  # each is reported once
                self.view.warn(f"{job.name}: checkpoint {name} is damaged; an earlier one is used")
            job.checkpoint = checkpoint
        return [job for job in waiting if job.number not in unsound], unsound

    @contextmanager
    def locked(self, jobs: Sequence[SweepRun]) -> Iterator[list[SweepRun]]:
        """Hold the folders of runs, as whoever writes there does, and look at them once more: those that are
        still to be trained. A run whose folder cannot be had fails."""
        with ExitStack() as locks:
            held: list[SweepRun] = []
            bad: dict[int, Exception] = {}
            for job in jobs:
                try:
                    locks.callback(lock.Lock(job.plan.folder).release)
                    held.append(job)
                except (UserError, OSError) as e:
                    bad[job.number] = e
            self.fail_all(bad)
            waiting = []
            for job in held:
                status, summary = job.plan.status_and_summary()
                if status in reading.ENDED and summary:  # of a process that was here since we looked
                    self.end(job, summary)
                else:
                    waiting.append(job)
            waiting, unsound = self.sound(waiting)
            self.fail_all(unsound)
            yield waiting

    def fail_all(self, unsound: dict[int, Exception]) -> None:
        """End runs for what is wrong with them; what is in their folders stays as it is."""
        for number, error in unsound.items():
            self.fail(self.jobs[number - self.jobs[0].number], None, None, error)

    def waiting(self) -> list[SweepRun]:
        """The runs to be trained; the others get what their summaries say."""
        waiting = []
        for job in self.jobs:
            left = job.plan.run.retry is not None and job.status != job.plan.run.retry
            if job.status in reading.ENDED or (left and job.status not in ("missing", reading.DAMAGED)):
                job.summary = job.before
            elif not left or job.status == reading.DAMAGED:  # `sound` says what is wrong
                waiting.append(job)
        return waiting

    def close(self) -> None:
        """Show the leaderboard, failures, and where everything is."""
        self.view.finish()
        started = [job for job in self.jobs if job.summary]
        if started and not self.search:
            for task in dict.fromkeys(job.plan.run.task for job in started):
                jobs = [job for job in started if job.plan.run.task == task]
                ranking = leaderboard([job.settings for job in jobs], [job.summary for job in jobs], task)
                tables.show_leaderboard(self.view.console, *ranking)
            self.view.closing(len(started), [job.name for job in self.jobs if job.failed])

    def returns(self) -> list[JobReturn]:
        """The result of every run, for Hydra."""
        results = []
        for job in self.jobs:
            result = JobReturn(overrides=job.plan.overrides, task_name="train")
            result.return_value = RunFailed(job.name) if job.failed else reading.score_of(job.summary or {})
            result.status = JobStatus.FAILED if job.failed else JobStatus.COMPLETED
            results.append(result)
        return results

    # --- one run ----------------------------------------------------------------------------------------

    def write_hydra_files(self, job: SweepRun) -> None:
        """What Hydra itself would leave in a run's folder."""
        assert self.planner is not None
        content, hydra = self.planner.files_of(job.plan, job.number)
        hydra_files.write(job.plan.folder, content, hydra, [*job.plan.overrides])

    def fail(self, job: SweepRun, run: Run | None, record: Record | None, error: Exception) -> None:
        """End one run for an error; its neighbours continue. A bug's traceback is shown, too."""
        mistake = explain(error)
        reason = str(mistake) if mistake else f"{type(error).__name__}: {error}"
        summary = reading.failure(reason)
        if mistake is None:
            print("".join(traceback.format_exception(error)), file=sys.stderr)
        if record is not None:
            try:
                summary = record.fail(error)
            except Exception:
                traceback.print_exc()
        if run is not None:
            run.status, run.reason = "failed", reason
        self.end(job, summary)

    def end(self, job: SweepRun, summary: dict[str, Any]) -> None:
        """Note how a run ended, and show it."""
        job.summary = summary
        if self._in_worker is None:  # whose parent shows it
            self.view.ended(self.index(job), summary)

    # --- one after the other ----------------------------------------------------------------------------

    def _load_code(self, jobs: Sequence[SweepRun]) -> None:
        """Have what the workers will run compiled and loaded: they share it."""
        kinds: dict[Any, schema.TrainConfig] = {}
        for job in jobs:
            run = job.plan.run
            rule = registry.elementwise_rule(run.optimizer)
            if rule is not None:
                kinds.setdefault((rule.update, run.model.activation, run.dtype), run)
        for run in kinds.values():
            with suppress(Exception):  # its run will say so
                build.build(run, say=self.view.note)

    def _train_in_workers(self, jobs: Sequence[SweepRun], processes: int) -> None:
        """Train runs in worker processes, and show what they say."""
        of_number = {job.number: job for job in jobs}

        def work(number: int, send: workers.Send) -> None:
            job = of_number[number]
            self._in_worker = send
            try:
                self._train_alone(job, sweep_view.RunElsewhere(send), processes - 1)
            finally:  # also of what a signal raises
                send(("end", job.summary or job.plan.summary()))

        def on_message(number: int, message: tuple[str, Any]) -> None:
            job, (kind, content) = of_number[number], message
            if kind == "end":
                if content is not None:
                    self.end(job, content)
            elif kind == "warning":
                self.view.warn(f"{job.name}: {content}")
            else:
                self.view.measured(self.index(job), content)

        def on_lost(error: workers.Lost) -> None:
            job = of_number[error.number]
            status, summary = job.plan.status_and_summary()
            if status in reading.ENDED and summary:  # all that it had to do was done
                self.end(job, summary)
            else:
                self.fail(job, None, None, UserError("sweep", str(error), "", status=1))

        workers.train(list(of_number), processes, work, self.view.live, on_message, on_lost, self.stop)

    def _train_alone(self, job: SweepRun, view: RunView, beside: int = 0) -> None:
        """Train a run as `ffn-train` would by itself, though `beside` so many others."""
        with self.locked([job]) as held:
            for each in held:
                try:
                    self.write_hydra_files(each)
                    train.train_run(each.plan.run, each.plan.folder, view, beside)
                except Exception as e:
                    summary = each.plan.summary()
                    if summary is None or summary["status"] != "failed" or summary == each.before:
                        self.fail(each, None, None, e)
                        return
                    if explain(e) is None:
                        traceback.print_exc()
                self.end(each, each.plan.summary() or {})


def launch(
    planner: Planner,
    overrides: Sequence[Sequence[str]],
    first: int,
    processes: int | None,
    shown: LaunchDisplay,
) -> list[JobReturn]:
    """Check all runs, train them, and return how each one ended, for Hydra."""
    setup_globals()
    plans = [planner.plan(job) for job in overrides]
    configure_log(planner.master.hydra.hydra_logging, planner.master.hydra.verbose)
    sweep = Sweep(planner, plans, first, shown)
    sweep.run(workers.count() if processes is None else processes)
    return sweep.returns()
