"""`ffn-train`: one run from its configuration to its summary, readable from top to bottom.

Heavy libraries (torch, TensorBoard, matplotlib) are imported where they are first needed, so that
`--help`, completion and a mistyped key answer at once.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ffn_bench import cli, config, errors, hydra_files, runs, schema
from ffn_bench.errors import UserError
from ffn_bench.files import Folder

if TYPE_CHECKING:
    import torch

    from ffn_bench.batched import Row
    from ffn_bench.console import RunView
    from ffn_bench.data import Data
    from ffn_bench.eager import EagerRun


def train(cfg: DictConfig) -> float | None:
    """Train the run that `cfg` describes into Hydra's output folder; see `train_run`."""
    hydra, folder = HydraConfig.get(), Folder(Path(HydraConfig.get().runtime.output_dir))
    run = config.parse(cfg)
    content, own = (OmegaConf.to_container(part, enum_to_str=True) for part in (cfg, hydra))
    assert isinstance(content, dict) and isinstance(own, dict)
    runs.check_run(folder, run)
    hydra_files.write(folder, content, own, own["overrides"]["task"])
    return train_run(run, folder)


def train_run(run: schema.TrainConfig, folder: Folder, view: RunView | None = None) -> float | None:
    """Train a run into its folder; return its best validation accuracy.

    A run that has begun there goes on from its checkpoint. `view` shows it to a person (by default a
    `RunView` of its own). Raises `UserError` for mistakes; a run that diverges is not an exception but a
    summary whose status says so. The caller holds the folder's lock.
    """
    from ffn_bench import checkpoints, console
    from ffn_bench.record import Record
    from ffn_bench.stop import Stop

    ended = runs.read_summary(folder)
    if ended and ended["status"] in runs.ENDED:
        return (ended["best"] or {}).get("accuracy/val")
    training, device = build(run)
    shown = Path(os.path.relpath(folder.path)) if folder.path.is_relative_to(Path.cwd()) else folder.path
    view = view or console.RunView()
    begun, damaged = checkpoints.find(folder)
    state = checkpoints.load(folder, begun) if begun else None
    if state is not None:
        training.resume(state)
    gc.freeze()  # what was imported stays; the collector need not walk through it again and again
    gc.enable()
    with Stop() as stop:
        training.stop = stop
        record = Record(folder, run, training, device, state=state)
        try:
            facts = console.facts_of(run, training.data, device, shown)
            warnings = [f"checkpoint {name} is damaged; an earlier one is used" for name in damaged]
            view.start(facts, training, run.epochs, [*warnings, *record.notes])
            for measurement in training.measurements():
                record.write(measurement)
                view.write(measurement)
        except Exception as e:
            record.fail(e)
            raise
        finally:
            view.close()
        if training.status == "running":
            record.interrupt()
            stop.leave()
        summary = record.close(training.status, training.reason)
        view.end(summary, shown)
    stop.leave()
    return summary["best"]["accuracy/val"] if summary["best"] else None


@dataclass(frozen=True)
class Prepared:
    """What a run trains with: its data on its device, the network's widths, the steps of an epoch."""

    data: Data
    device: torch.device
    dtype: torch.dtype
    widths: list[int]
    steps_per_epoch: int


def prepare(run: schema.TrainConfig) -> Prepared:
    """Load the data and find the device. Raises `UserError` for all that can be wrong but the optimizer."""
    import torch

    from ffn_bench import data, network
    from ffn_bench.device import check_memory, find_device, set_threads
    from ffn_bench.eager import steps_per_epoch

    network.check_names(run.model)
    device = find_device(run.device, run.dtype)
    loaded = data.load(run.data)
    n = len(loaded.train.y)
    per_epoch = steps_per_epoch(n, run.batch_size, run.drop_last)
    if per_epoch == 0:
        raise UserError(
            "batch_size",
            f"{run.batch_size} is more than the {n} training rows, and drop_last drops the only batch",
            "use a smaller batch, or drop_last=false",
        )
    dtype = getattr(torch, run.dtype)
    widths = [loaded.n_features, *run.model.widths(), len(loaded.classes)]
    check_memory(widths, dtype)
    set_threads(widths, n if run.batch_size == "full" else min(n, int(run.batch_size)))
    return Prepared(loaded.to(device, dtype), device, dtype, widths, per_epoch)


def prepare_again(folder: Path, flat: dict[str, Any]) -> tuple[schema.TrainConfig, Prepared]:
    """The run that a run folder's flat configuration describes, on the CPU, to be looked at.

    Raises `UserError`, which names the folder: status 4 for a configuration that is no run's.
    """
    try:
        run = dataclasses.replace(config.from_flat(flat), device="cpu")
        return run, prepare(run)
    except UserError as e:
        status = errors.RUN_FOLDER if e.status == errors.CONFIGURATION else e.status
        raise UserError(f"{folder}: {e.where}", e.what, "name a run that this version trained", status) from e


def build(run: schema.TrainConfig) -> tuple[EagerRun | Row, str]:
    """The engine, ready to start, and the name of its device; everything that can be wrong is found here.

    That is the eager engine, or with `compile=true` a batch of one. Raises `UserError`.
    """
    if not run.compile:
        return build_eager(run)
    from ffn_bench.batched import Tile, why_not
    from ffn_bench.device import describe

    if reason := why_not(run):
        raise UserError("compile", f"does not go with this optimizer: {reason}", "use compile=false")
    made = prepare(run)
    return Tile([run], made.data).rows[0], describe(made.device)


def build_eager(run: schema.TrainConfig) -> tuple[EagerRun, str]:
    """The eager engine, ready to start, and the name of its device. Raises `UserError`."""
    from ffn_bench import network, optim
    from ffn_bench.device import describe
    from ffn_bench.eager import EagerRun

    made = prepare(run)
    optim.check_optimizer(run.optimizer)
    net = network.FFN(made.widths, run.model, run.seed, made.dtype).to(made.device)
    engine = EagerRun(
        net,
        made.data,
        optim.build_optimizer(run.optimizer, net.parameters()),
        optim.build_schedule(run.schedule, run.epochs * made.steps_per_epoch, made.steps_per_epoch),
        lr=run.lr,
        epochs=run.epochs,
        batch_size=run.batch_size,
        drop_last=run.drop_last,
        seed=run.seed,
        l2=run.l2,
        log_every=run.log_every,
        gradient=run.gradient,
    )
    return engine, describe(made.device)


# --- the command ----------------------------------------------------------------------------------------


_locks: list[runs.Lock] = []
"""The folder of the run that is being trained, from its check to its end."""


class CheckFirst(Callback):
    """Finds what is wrong with a single run, and whether there is anything to do, before Hydra acts."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra makes a warning of a callback's exception, so both kinds of fault end the process here."""
        try:
            with cli.one_line_errors(cli.command_name()):
                _locks.append(begin(config))
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def begin(cfg: DictConfig) -> runs.Lock:
    """Check a run and take its folder; exit where it has ended before or only its status is asked for.

    Raises `UserError` for a run that could not be trained. Creates nothing but the folder and its lock, and
    nothing at all if there is an error.
    """
    from ffn_bench import console

    run = config.parse(cfg)
    if run.chunk_file is not None:
        raise UserError("chunk_file", "is what a sweep gives its jobs", "leave it out")
    if not cfg.hydra.run.dir:
        raise UserError("hydra.run.dir", "is empty", "name a folder")
    path = Path(cfg.hydra.run.dir)
    cfg.hydra.output_subdir = None  # we write these files, see `hydra_files`
    if run.force and (path / "run.json").exists() and not run.status:
        path = runs.another_folder(path)
        cfg.hydra.run.dir = str(path)
    folder = Folder(path)
    runs.check_place(path)
    if run.status:
        console.show_status([("run", *runs.standing_of(folder, run))], path, runs.holder(folder), listed=True)
        sys.exit(0)
    runs.check_run(folder, run)
    if show_if_ended(folder):
        sys.exit(0)
    runs.check_free(folder)
    build(run)
    lock = runs.Lock(folder)
    runs.check_run(folder, run)  # once more: another process may have been there meanwhile
    if show_if_ended(folder):
        sys.exit(0)
    return lock


def show_if_ended(folder: Folder) -> bool:
    """Whether a run has ended before, which is shown then."""
    from ffn_bench import console

    summary = runs.read_summary(folder)
    if summary is None or summary["status"] not in runs.ENDED:
        return False
    view = console.RunView()
    view.console.print("ffn-train: this run has ended before; nothing is trained\n")
    view.end(summary, folder.path)
    return True


def _task(cfg: DictConfig) -> float | None:
    """What Hydra runs. A failing run of a sweep must be an exception, so that the others go on."""
    if cfg.get("chunk_file"):
        from ffn_bench import scale

        scale.train_chunk(Path(cfg.chunk_file))
        return None
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # of a sweeper that is not ours
        lock = runs.Lock(Folder(Path(HydraConfig.get().runtime.output_dir)))
        try:
            return train(cfg)
        finally:
            lock.release()
    try:
        with cli.one_line_errors(cli.command_name()):
            return train(cfg)
    finally:
        while _locks:
            _locks.pop().release()
    return None


def main() -> None:
    """The console script `ffn-train`."""
    cli.run("config", schema.TrainConfig, _task)


if __name__ == "__main__":
    main()
