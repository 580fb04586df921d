"""From a run's configuration to the engine that trains it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffn_bench import errors
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError

if TYPE_CHECKING:
    import torch

    from ffn_bench.data.splitting import Data
    from ffn_bench.engine.choice import Choice
    from ffn_bench.engine.loop import Training
    from ffn_bench.engine.protocol import Engine


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run trains with: its data on its device, its engine, the network's widths, steps of an epoch."""

    data: Data
    device: torch.device
    choice: Choice
    dtype: torch.dtype
    widths: list[int]
    batch_size: int
    """Rows of a mini-batch, the last one of an epoch apart."""
    steps_per_epoch: int

    @property
    def threads(self) -> int:
        """For its steps on a CPU, where it trains by itself."""
        from ffn_bench.engine.device import threads_for

        return 1 if self.choice.engine == "compiled" else threads_for(self.widths, self.batch_size)


def prepare(run: schema.TrainConfig) -> Prepared:
    """Load the data, choose engine and device. Raises `UserError` for every mistake but the optimizer's."""
    import torch

    from ffn_bench.data import datasets
    from ffn_bench.data.kept import kept
    from ffn_bench.data.splitting import batch_rows, steps_per_epoch
    from ffn_bench.engine.choice import choose
    from ffn_bench.engine.device import check_memory, find_device
    from ffn_bench.model import network

    network.check_names(run.model)
    find_device(run.device, run.dtype)
    loaded = datasets.load(run.data)
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
    rows = batch_rows(n, run.batch_size)
    choice = choose(run, widths)
    device = torch.device("cpu") if choice.engine == "compiled" else find_device(run.device, run.dtype)
    moved = kept(f"{run.data!r} on {device} as {dtype}", lambda: loaded.to(device, dtype))
    return Prepared(
        data=moved,
        device=device,
        choice=choice,
        dtype=dtype,
        widths=widths,
        batch_size=rows,
        steps_per_epoch=per_epoch,
    )


def prepare_again(folder: Path, flat: dict[str, Any]) -> tuple[schema.TrainConfig, Prepared]:
    """The run that a run folder's flat configuration describes, on the CPU, to be analysed.

    Raises `UserError`, which names the folder: status 4 for a configuration that is not a run's.
    """
    import torch

    try:
        run = dataclasses.replace(parsing.from_flat(flat), device="cpu", engine="torch")
        prepared = prepare(run)
        # Analysis commands keep this number of threads to their end, or set another one.
        torch.set_num_threads(prepared.threads)
        return run, prepared
    except UserError as e:
        status = errors.RUN_FOLDER if e.status == errors.CONFIGURATION else e.status
        raise UserError(f"{folder}: {e.where}", e.what, "name a run that this version trained", status) from e


def build(
    run: schema.TrainConfig, say: Callable[[str], object] = lambda line: None
) -> tuple[Training, Prepared]:
    """The training of one run, ready to start, and what it trains with; every mistake is found here.

    `say` takes what a person should know meanwhile, such as that code is compiled. Raises `UserError`.
    """
    prepared = prepare(run)
    if prepared.choice.engine == "batched":
        return build_batched([run], prepared.data), prepared
    from ffn_bench.engine.loop import Run, Training

    one = Run(run, prepared.data)
    engine: Engine
    if prepared.choice.engine == "compiled":
        from ffn_bench.engine.compiled_run import CompiledRun

        engine = CompiledRun(one, prepared.data, say)
    else:
        from ffn_bench.engine.torch_engine import TorchEngine
        from ffn_bench.model import network
        from ffn_bench.optimizers import registry

        registry.check_optimizer(run.optimizer)
        net = network.FFN(prepared.widths, run.model, run.seed_of("init"), prepared.dtype).to(prepared.device)
        engine = TorchEngine(
            net,
            prepared.data,
            registry.build_optimizer(run.optimizer, net.parameters()),
            one.rate,
            batch_size=prepared.batch_size,
            l2=run.l2,
            gradient=run.gradient,
        )
    return Training(engine, [one]), prepared


def build_batched(runs: Sequence[schema.TrainConfig], data: Data) -> Training:
    """Runs side by side in the batched engine; they have equal `group_key`s, `data` is theirs."""
    from ffn_bench.engine.batched import BatchedEngine
    from ffn_bench.engine.loop import Run, Training

    several = [Run(run, data) for run in runs]
    return Training(BatchedEngine(several, data), several)
