"""Our engines, driven by the training loop as `ffn-train` drives them, with norms at every tenth step.

There is no evaluation, and there are no files. The package is imported before PyTorch, as by its commands.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from ffn_bench.configuration import rule_files, schema
from ffn_bench.data.rows import Array, Data, Split
from ffn_bench.engine import build, device
from ffn_bench.engine.batched import group_sizes
from ffn_bench.engine.choice import choose
from ffn_bench.engine.compiled_run import CompiledRun
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.stop import Stop
from ffn_bench.engine.tensors import on_device
from ffn_bench.engine.torch_engine import TorchEngine
from ffn_bench.model.network import FFN
from ffn_bench.optimizers.torch_optimizers import build_optimizer
from ffn_bench.sweeps import workers

import torch  # isort: skip

from benchmarks.work import Epoch, Work  # isort: skip


def _config(work: Work, seed: int = 0, epochs: int = 10**6) -> schema.TrainConfig:
    """A run of Adam."""
    rate = 0.005 / (1 + seed / 100)
    adam = rule_files.optimizer_keys("adam")
    assert adam is not None
    return schema.TrainConfig(
        data=schema.DataConfig(name="bench"),
        model=schema.HiddenConfig(name="bench", hidden=list(work.widths[1:-1]), activation=work.activation),
        optimizer=adam(name="adam", lr=rate),
        schedule=schema.ScheduleConfig(name="constant"),
        lr=rate,
        seed=seed,
        l2=work.l2,
        dtype=work.dtype,
        batch_size="full" if work.batch_size == work.rows else work.batch_size,
        epochs=epochs,
    )


def _data(work: Work) -> Data[Array]:
    """Rows to train on, and none to evaluate."""
    x, y = work.data()
    none, one = Split(x[:0], y[:0]), np.ones(1)
    return Data(
        name="bench",
        train=Split(x, y),
        val=none,
        test=none,
        classes=tuple(str(k) for k in range(work.widths[-1])),
        image_shape=None,
        mean=one,
        std=one,
        sha256="",
        chance={},
        n_features=x.shape[1],
    )


def _without_evaluation(training: Training) -> Training:
    training._splits = []
    return training


def _epoch_of(training: Training) -> Callable[[], None]:
    """An epoch of mini-batches, updates and log points."""
    measurements = _without_evaluation(training).measurements()
    next(measurements)

    def epoch() -> None:
        last = training.engine.step + training.runs[0].steps_per_epoch
        while training.engine.step < last:
            next(measurements)

    return epoch


def _timed(train: Callable[[], None], steps: int, threads: int = 1) -> Epoch:
    def epoch() -> tuple[int, float]:
        with device.threads(threads):
            start = time.perf_counter()
            train()
            return steps, time.perf_counter() - start

    return epoch


def _compiled_engine(run: Run) -> CompiledRun:
    return CompiledRun(run, run.data, lambda _: None)


def compiled(work: Work) -> Epoch:
    """One run on one core."""
    run = Run(_config(work), _data(work))
    return _timed(_epoch_of(Training(_compiled_engine(run), [run])), run.steps_per_epoch)


def compiled_sweep(work: Work, runs: int, epochs: int) -> Epoch:
    """Runs as a sweep trains them: worker processes, one for each core, are forked; each trains one whole
    run of `epochs` after the other, from initial weights to its last step. The time is that of all this."""
    data = _data(work)
    configs = [_config(work, seed, epochs) for seed in range(runs)]
    processes = min(len(os.sched_getaffinity(0)), runs)

    def train(number: int, send: workers.Send) -> None:
        run = Run(configs[number], data)
        training = _without_evaluation(Training(_compiled_engine(run), [run]))
        for _ in training.measurements():
            pass
        send(run.step)

    steps: list[int] = []

    def on_message(number: int, step: int) -> None:
        steps.append(step)

    def epoch() -> tuple[int, float]:
        steps.clear()
        start = time.perf_counter()
        workers.train(range(runs), processes, train, _nothing, on_message, _raise, Stop())
        seconds = time.perf_counter() - start
        assert steps == [epochs * work.steps] * runs
        return sum(steps), seconds

    compiled(work)()  # what is compiled is loaded before the fork
    return epoch


def _nothing() -> None:
    pass


def _raise(error: Exception) -> None:
    raise error


def torch_engine(work: Work, gradient: str = "autograd", where: str = "cpu") -> Epoch:
    """One run in the torch engine, on the threads that `ffn-train` would give it."""
    config = _config(work)
    net = FFN(list(work.widths), config.model, seed=0, dtype=getattr(torch, work.dtype)).to(where)
    run = Run(config, _data(work))
    engine = TorchEngine(
        net,
        on_device(run.data, where),
        build_optimizer(config.optimizer, net.parameters()),
        run.rate,
        batch_size=work.batch_size,
        l2=work.l2,
        gradient=gradient,
    )
    threads = device.threads_for(work.widths, work.batch_size)
    return _timed(_epoch_of(Training(engine, [run])), run.steps_per_epoch, threads)


def batched(work: Work, runs: int, where: str) -> Epoch:
    """Runs side by side on a GPU, every one with its seed and learning rate."""
    configs, data = [_config(work, seed) for seed in range(runs)], _data(work)
    sizes = group_sizes(runs, work.widths, work.batch_size, work.dtype, where)
    epochs = []
    for size in sizes:
        some, configs = configs[:size], configs[size:]
        epochs.append(_epoch_of(build.build_batched(some, data, on_device(data, where))))

    def train() -> None:
        for epoch in epochs:
            epoch()

    return _timed(train, runs * work.steps, device.THREADS)


def chosen(work: Work) -> tuple[str, str]:
    """The engine that `engine=auto` chooses for this work, and why it is not the compiled one."""
    choice = choose(_config(work), work.widths)
    return choice.engine, choice.reason
