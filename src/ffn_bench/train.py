"""`ffn-train`: one run from its configuration to its summary, readable from top to bottom.

Heavy libraries (torch, TensorBoard, matplotlib) are imported where they are first needed, so that
`--help`, completion and a mistyped key answer at once.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from ffn_bench import cli, config, errors, runs, schema
from ffn_bench.errors import UserError

if TYPE_CHECKING:
    from ffn_bench.console import RunView
    from ffn_bench.eager import EagerRun

log = logging.getLogger("ffn_bench")


def train(cfg: DictConfig, view: RunView | None = None) -> float | None:
    """Train the run that `cfg` describes into Hydra's output folder; return its best validation accuracy.

    `view` shows it to a person (by default a `RunView` of its own). Raises `UserError` for mistakes; a run
    that diverges is not an exception but a summary whose status says so.
    """
    from ffn_bench import console
    from ffn_bench.record import Record

    run = config.parse(cfg)
    engine, device = build(run)
    folder = Path(HydraConfig.get().runtime.output_dir)
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    view = view or console.RunView()
    record = Record(folder, run, engine, device)
    gc.freeze()  # what was imported stays; the collector need not walk through it again and again
    gc.enable()
    try:
        view.start(
            console.facts_of(run, engine, device, shown), engine.data.warnings, engine.steps, run.epochs
        )
        for measurement in engine.measurements():
            record.write(measurement)
            view.write(measurement)
    except (KeyboardInterrupt, SystemExit):
        record.close("interrupted", f"stopped at step {engine.step}")
        raise
    except Exception as e:
        mistake = errors.explain(e)
        record.close("failed", str(mistake) if mistake else f"{type(e).__name__}: {e}")
        log.exception("the run failed")
        raise
    finally:
        view.close()
    summary = record.close(engine.status, engine.reason)
    view.end(summary, shown)
    return summary["best"]["accuracy/val"] if summary["best"] else None


def build(run: schema.TrainConfig) -> tuple[EagerRun, str]:
    """The engine, ready to start, and the name of its device; everything that can be wrong is found here.

    Raises `UserError`.
    """
    import torch

    from ffn_bench import data as data_sets
    from ffn_bench import network, optim
    from ffn_bench.device import check_memory, describe, find_device, set_threads
    from ffn_bench.eager import EagerRun, steps_per_epoch

    network.check_names(run.model)
    device = find_device(run.device, run.dtype)
    optim.check_optimizer(run.optimizer)
    data = data_sets.load(run.data)
    n = len(data.train.y)
    per_epoch = steps_per_epoch(n, run.batch_size, run.drop_last)
    if per_epoch == 0:
        raise UserError(
            "batch_size",
            f"{run.batch_size} is more than the {n} training rows, and drop_last drops the only batch",
            "use a smaller batch, or drop_last=false",
        )
    dtype = getattr(torch, run.dtype)
    widths = [data.n_features, *run.model.widths(), len(data.classes)]
    check_memory(widths, dtype)
    set_threads(widths, n if run.batch_size == "full" else min(n, int(run.batch_size)))
    net = network.FFN(widths, run.model, run.seed, dtype).to(device)
    engine = EagerRun(
        net,
        data.to(device, dtype),
        optim.build_optimizer(run.optimizer, net.parameters()),
        optim.build_schedule(run.schedule, run.epochs * per_epoch, per_epoch),
        lr=run.lr,
        epochs=run.epochs,
        batch_size=run.batch_size,
        drop_last=run.drop_last,
        seed=run.seed,
        l2=run.l2,
        log_every=run.log_every,
        gradient=run.gradient,
    )
    return engine, describe(device)


# --- the command ----------------------------------------------------------------------------------------


class CheckFirst(Callback):
    """Finds what is wrong with a single run before Hydra creates its folder."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra makes a warning of a callback's exception, so both kinds of fault end the process here."""
        try:
            with cli.one_line_errors(cli.command_name()):
                check_run(config, Path(config.hydra.run.dir))
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def check_run(cfg: DictConfig, folder: Path) -> None:
    """Raise `UserError` for a run that could not be trained into `folder`. Creates nothing."""
    if not cfg.hydra.run.dir:
        raise UserError("hydra.run.dir", "is empty", "name a folder")
    run = config.parse(cfg)
    runs.check_folder(folder, run)
    build(run)


def _task(cfg: DictConfig) -> float | None:
    """What Hydra runs. A failing run of a sweep must be an exception, so that the others go on."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return train(cfg)
    with cli.one_line_errors(cli.command_name()):
        return train(cfg)
    return None


def main() -> None:
    """The console script `ffn-train`."""
    cli.run("config", _task)


if __name__ == "__main__":
    main()
