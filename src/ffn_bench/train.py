"""`ffn-train`: one run from its configuration to its summary, readable from top to bottom.

Heavy libraries (torch, TensorBoard, matplotlib) are imported where they are first needed, so that
`--help`, completion and a mistyped key answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ffn_bench.command_line import invocation, start
from ffn_bench.configuration import parsing, schema
from ffn_bench.engine.build import build
from ffn_bench.errors import UserError
from ffn_bench.run_folder import folders, hydra_files, reading
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.lock import Lock, check_free, holder

if TYPE_CHECKING:
    from ffn_bench.command_line.run_view import RunView


def train(cfg: DictConfig, hydra: Any, view: RunView | None = None) -> float | None:
    """Train the run that `cfg` describes into the output folder of `hydra`, its node; see `train_run`."""
    folder = Folder(Path(hydra.runtime.output_dir))
    run = parsing.parse(cfg)
    content, own = (OmegaConf.to_container(node, enum_to_str=True) for node in (cfg, hydra))
    assert isinstance(content, dict) and isinstance(own, dict)
    content.pop("hydra", None)
    folders.check_run(folder, run)
    hydra_files.write(folder, content, own, own["overrides"]["task"])
    return train_run(run, folder, view)


def train_run(
    run: schema.TrainConfig, folder: Folder, view: RunView | None = None, beside: int = 0
) -> float | None:
    """Train a run into its folder; return its score, see `reading.score_of`.

    A run that has started there is resumed from its checkpoint. `view` shows it to a person (by default a
    `RunView` of its own); `beside` is how many other runs train at the same time. Raises `UserError` for
    mistakes; a run that diverges is not an exception but a summary whose status says so. The caller holds the
    folder's lock.
    """
    from ffn_bench.command_line import run_view
    from ffn_bench.engine.stop import Stop
    from ffn_bench.run_folder import checkpoints
    from ffn_bench.run_folder.recorder import Record

    ended = reading.read_summary(folder)
    if ended and ended["status"] in reading.ENDED:
        return reading.score_of(ended)
    run = reading.as_begun(folder, run)
    training, prepared = build(run)
    (trained,) = training.runs
    shown = Path(os.path.relpath(folder.path)) if folder.path.is_relative_to(Path.cwd()) else folder.path
    view = view or run_view.RunView()
    checkpoint, damaged = checkpoints.find(folder)
    state = checkpoints.load(folder, checkpoint) if checkpoint else None
    if state is not None:
        training.resume([state])
    with prepared.limited_threads(1 if beside else None) as threads, Stop() as stop:
        training.stop = stop
        device = prepared.describe_device()
        record = Record(folder, trained, prepared.choice, device, threads, beside + 1, state)
        try:
            facts = run_view.facts_of(run, trained.data, prepared.choice, device, shown)
            warnings = [f"checkpoint {name} is damaged; an earlier one is used" for name in damaged]
            view.start(facts, trained, run.epochs, [*warnings, *record.notes])
            for measured in training.measurements():
                record.write(measured[trained])
                view.write(measured[trained])
        except Exception as e:
            record.fail(e)
            raise
        finally:
            view.close()
        if trained.status == "running":
            record.interrupt()
            stop.raise_if_requested()
        try:
            summary = record.close(trained.status, trained.reason)
        except OSError as e:  # a short run meets a full disk only here
            record.fail(e)
            raise
        view.end(summary, shown, record.confusion)
    stop.raise_if_requested()
    return reading.score_of(summary)


# --- the command ----------------------------------------------------------------------------------------


class Task:
    """What Hydra runs. A failing run of a sweep must be an exception, so that the others continue."""

    lock: Lock | None = None
    """The folder of a single run, from its check to its end. `CheckFirst` takes it and hands it over."""

    def __call__(self, cfg: DictConfig) -> float | None:
        """Train the run that `cfg` describes."""
        start.resume_collector()
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # of a sweeper that is not ours
            lock = Lock(Folder(Path(HydraConfig.get().runtime.output_dir)))
            try:
                return train(cfg, HydraConfig.get())
            finally:
                lock.release()
        try:
            with start.one_line_errors(invocation.command_name()):
                return train(cfg, HydraConfig.get())
        finally:
            if self.lock:
                self.lock.release()
        return None


class CheckFirst(Callback):
    """Finds what is wrong with a single run, and whether there is anything to do, before Hydra acts."""

    lock: Lock | None = None

    def on_job_start(self, config: DictConfig, *, task_function: Any, **kwargs: Any) -> None:
        """Hand the folder over to the `Task`: Hydra makes this object and brings the two together here."""
        task_function.lock = self.lock

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra makes a warning of a callback's exception, so both kinds of fault end the process here."""
        try:
            with start.one_line_errors(invocation.command_name()):
                self.lock = begin(config)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        if self.lock is None:
            sys.exit(0)


def begin(cfg: DictConfig, view: RunView | None = None) -> Lock | None:
    """Check a run and take its folder; None where it has ended before or only its status is asked for, which
    is shown.

    Raises `UserError` for a run that could not be trained. Creates nothing but the folder and its lock, and
    nothing at all if there is an error.
    """
    run = parsing.parse(cfg)
    if run.chunk_file is not None:
        raise UserError("chunk_file", "is set by a sweep for its jobs", "leave it out")
    if not cfg.hydra.run.dir:
        raise UserError("hydra.run.dir", "is empty", "name a folder")
    path = Path(cfg.hydra.run.dir)
    cfg.hydra.output_subdir = None  # we write these files, see `hydra_files`
    if run.force and (path / "run.json").exists() and not run.status:
        path = folders.next_free_folder(path)
        cfg.hydra.run.dir = str(path)
    folder = Folder(path)
    folders.check_location(path)
    if run.status:
        from ffn_bench.command_line import tables

        tables.show_status(
            [("run", *reading.status_and_summary(folder, run))], path, holder(folder), listed=True
        )
        return None
    if getattr(run.data, "preview", False):
        from ffn_bench.command_line import table_preview

        table_preview.show(run.data)  # type: ignore[arg-type]  # only tables have the key
        return None
    folders.check_run(folder, run)
    if show_if_ended(folder, view):
        return None
    check_free(folder)
    from ffn_bench.command_line import run_view

    build(reading.as_begun(folder, run), say=(view or run_view.RunView()).say)
    lock = Lock(folder)
    folders.check_run(folder, run)  # once more: another process may have been there meanwhile
    if show_if_ended(folder, view):
        lock.release()
        return None
    return lock


def show_if_ended(folder: Folder, view: RunView | None = None) -> bool:
    """Whether a run has ended before, which is shown then."""
    from ffn_bench.command_line import run_view

    summary = reading.read_summary(folder)
    if summary is None or summary["status"] not in reading.ENDED:
        return False
    view = view or run_view.RunView()
    view.say("this run has already ended; nothing is trained\n")
    view.end(summary, folder.path)
    return True


def train_composed(cfg: DictConfig, view: RunView) -> Path:
    """Check and train the run that Hydra has composed, as the command does; its folder.

    Raises `UserError`, and KeyboardInterrupt where ^C has stopped it.
    """
    lock = begin(cfg, view)
    folder = Path(cfg.hydra.run.dir)
    if lock is None:
        return folder
    try:
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = str(folder.absolute())
        train(cfg, cfg.hydra, view)
    finally:
        lock.release()
    return folder


def main() -> None:
    """The console script `ffn-train`."""
    start.run("config", schema.TrainConfig, Task())


if __name__ == "__main__":
    # Hydra finds `CheckFirst` and `Task` by the module's name, and must find these.
    from ffn_bench import train as by_its_name  # noqa: PLW0406

    by_its_name.main()
