"""From a run's configuration to the engine that trains it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffn_bench import errors
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ffn_bench.data.rows import Array, Data
    from ffn_bench.engine.choice import Choice
    from ffn_bench.engine.loop import Training
    from ffn_bench.engine.protocol import Engine


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run trains with: its data in its dtype, its engine, the network's widths, steps of an epoch."""

    data: Data[Array]
    data_key: str
    """What tells it from other data, within a command."""
    device: str
    """As PyTorch names it."""
    choice: Choice
    dtype: str
    widths: list[int]
    batch_size: int
    """Rows of a mini-batch, the last one of an epoch apart."""
    steps_per_epoch: int

    @property
    def threads(self) -> int:
        """For its steps on a CPU, where it trains by itself."""
        from ffn_bench.engine.device import threads_for

        return threads_for(self.widths, self.batch_size)

    @contextmanager
    def limited_threads(self, most: int | None = None) -> Iterator[int]:
        """Let PyTorch's operations on a CPU use as many threads as suit its steps, which are returned."""
        if self.choice.engine == "compiled":
            yield 1
            return
        from ffn_bench.engine.device import threads

        count = min(self.threads, most or self.threads)
        with threads(count):
            yield count

    def describe_device(self) -> str:
        """Its device in words, with its threads or its name."""
        if self.choice.engine == "compiled":
            return "cpu (1 thread)"
        from ffn_bench.engine.device import describe

        return describe(self.device)

    def tensors(self) -> Data[Tensor]:
        """Its data as PyTorch's, on its device; brought to a GPU once a command."""
        from ffn_bench.data.kept import kept
        from ffn_bench.engine.tensors import on_device

        if self.device == "cpu":  # where they share the arrays' memory
            return on_device(self.data)
        tensors: Data[Tensor] = kept(
            f"{self.data_key} on {self.device}", lambda: on_device(self.data, self.device)
        )
        return tensors


def prepare(run: schema.TrainConfig, data: Data[Array] | None = None) -> Prepared:
    """Load the data, unless they are given, choose engine and device.

    Raises `UserError` for every mistake but the optimizer's.
    """
    from ffn_bench.data import datasets
    from ffn_bench.data.batches import batch_rows, steps_per_epoch
    from ffn_bench.data.kept import kept
    from ffn_bench.data.rows import in_dtype, weighted
    from ffn_bench.engine.choice import choose
    from ffn_bench.engine.monitor import Monitor, check_known
    from ffn_bench.model.initialisation import check_names
    from ffn_bench.model.losses import criterion_of

    check_names(run.model)
    criterion_of(run)
    if run.device not in ("auto", "cpu"):
        _find_device(run)
    loaded = data or datasets.load(run.data)
    _check_task(run, loaded)
    loaded = weighted(loaded, run.loss.class_weight)
    Monitor(run, loaded.splits)  # which says what of it is wrong
    check_known(run, loaded)
    n = len(loaded.train.y)
    per_epoch = steps_per_epoch(n, run.batch_size, run.drop_last)
    if per_epoch == 0:
        raise UserError(
            "batch_size",
            f"{run.batch_size} is more than the {n} training rows, and drop_last drops the only batch",
            "use a smaller batch, or drop_last=false",
        )
    widths = [loaded.n_features, *run.model.widths(), loaded.n_outputs]
    check_memory(widths, run.dtype)
    rows = batch_rows(n, run.batch_size)
    choice = choose(run, widths)
    data_key = f"{run.data!r}, {run.loss.class_weight!r} as {run.dtype}"
    return Prepared(
        data=in_dtype(loaded, run.dtype) if data else kept(data_key, lambda: in_dtype(loaded, run.dtype)),
        data_key=data_key,
        device="cpu" if choice.engine == "compiled" else _find_device(run),
        choice=choice,
        dtype=run.dtype,
        widths=widths,
        batch_size=rows,
        steps_per_epoch=per_epoch,
    )


def _check_task(run: schema.TrainConfig, data: Data[Array]) -> None:
    """Raise `UserError` where the data are of another task than `data.task` says."""
    if data.task != run.task:
        what = f"{run.task} cannot be learned from data={run.data.name}, which is a {data.task}"
        raise UserError("data.task", what, f"use data.task={data.task}, or other data")


def _find_device(run: schema.TrainConfig) -> str:
    """The device that `device=` names or `auto` takes. Raises `UserError` (status 5) where there is none."""
    from ffn_bench.engine.device import find_device

    return str(find_device(run.device, run.dtype))


def check_memory(widths: Sequence[int], dtype: str) -> None:
    """Raise `UserError` (status 5) when weights, gradients and two moments of Adam need more than is free."""
    import numpy as np
    import psutil

    needed = 4 * schema.count_parameters(widths) * np.dtype(dtype).itemsize
    available = psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            "model",
            f"layers of {', '.join(f'{w:,}' for w in widths)} need {needed / 1e9:,.1f} GB to train, "
            f"and {available / 1e9:.1f} GB are free",
            "use narrower layers",
            errors.RESOURCE,
        )


def config_of(folder: Path, flat: dict[str, Any]) -> schema.TrainConfig:
    """The run that a run folder's flat configuration describes.

    Raises `UserError` (status 4), which names the folder, for a configuration that is not a run's.
    """
    from ffn_bench.model.initialisation import check_names
    from ffn_bench.model.losses import criterion_of

    try:
        run = parsing.from_flat(flat)
        check_names(run.model)
        criterion_of(run)
        return run
    except UserError as e:
        raise _of_folder(folder, e) from e


def prepare_again(folder: Path, config: schema.TrainConfig) -> tuple[schema.TrainConfig, Prepared]:
    """A run of a run folder and what it trained with, on the CPU, to be analysed.

    Raises `UserError`, which names the folder.
    """
    import torch

    run = dataclasses.replace(config, device="cpu", engine="torch")
    try:
        prepared = prepare(run)
    except UserError as e:
        raise _of_folder(folder, e) from e
    # Analysis commands keep this number of threads to their end, or set another one.
    torch.set_num_threads(prepared.threads)
    return run, prepared


def _of_folder(folder: Path, e: UserError) -> UserError:
    """A mistake in the configuration that a folder has."""
    status = errors.RUN_FOLDER if e.status == errors.CONFIGURATION else e.status
    todo = e.todo if e.status == errors.DATA else "name a run that this version trained"
    return UserError(f"{folder}: {e.where}", e.what, todo, status)


def build(
    run: schema.TrainConfig,
    say: Callable[[str], object] = lambda line: None,
    data: Data[Array] | None = None,
) -> tuple[Training, Prepared]:
    """The training of one run, ready to start, and what it trains with; every mistake is found here.

    `say` takes what a person should know meanwhile, such as that code is compiled; `data` are those of the
    run where nothing can load them. Raises `UserError`."""
    prepared = prepare(run, data)
    if prepared.choice.engine == "batched":
        return build_batched([run], prepared.data, prepared.tensors()), prepared
    from ffn_bench.engine.loop import Run, Training

    one = Run(run, prepared.data)
    engine: Engine
    if prepared.choice.engine == "compiled":
        from ffn_bench.engine.compiled_run import CompiledRun

        engine = CompiledRun(one, prepared.data, say)
    else:
        import torch

        from ffn_bench.engine.torch_engine import TorchEngine
        from ffn_bench.model.losses import criterion_of
        from ffn_bench.model.network import FFN
        from ffn_bench.optimizers.torch_optimizers import build_optimizer, check_optimizer

        check_optimizer(run.optimizer)
        dtype = getattr(torch, run.dtype)
        net = FFN(prepared.widths, run.model, run.seed_of("init"), dtype).to(prepared.device)
        engine = TorchEngine(
            net,
            prepared.tensors(),
            build_optimizer(run.optimizer, net.parameters()),
            one.rate,
            batch_size=prepared.batch_size,
            l2=run.l2,
            l1=run.l1,
            criterion=criterion_of(run),
            gradient=run.gradient,
        )
    return Training(engine, [one]), prepared


def build_batched(runs: Sequence[schema.TrainConfig], data: Data[Array], tensors: Data[Tensor]) -> Training:
    """Runs side by side in the batched engine; they have equal `group_key`s, the data are theirs, on their
    device, too."""
    from ffn_bench.engine.batched import BatchedEngine
    from ffn_bench.engine.loop import Run, Training

    several = [Run(run, data) for run in runs]
    return Training(BatchedEngine(several, tensors), several)
