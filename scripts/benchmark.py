"""Speed of training, measured side by side in one process.

    python scripts/benchmark.py                  steps a second beside other programs
    python scripts/benchmark.py --only batched   beside the lecture's loop only programs of that name
    python scripts/benchmark.py --figure x.png   and a picture of steps a second against the number of runs
    python scripts/benchmark.py --device cuda    on a GPU
    python scripts/benchmark.py --sweep          a whole sweep of 128 runs, folders included, and one run
    python scripts/benchmark.py --scale          sweeps of 100 to 10,000 runs: training, status, report, disk
    python scripts/benchmark.py --startup        --help and a default run against `import torch`
    python scripts/benchmark.py --json           the same as JSON

Lightning and JAX take part where they are installed (`pip install -e ".[bench]"`).

The programs take turns, round after round, and ratios are taken within a round: the machine's speed drifts,
a ratio of neighbours drifts less. Medians are printed with the least and the greatest.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ffn_bench.configuration import schema
from ffn_bench.data.splitting import Data, Split
from ffn_bench.engine.batched import tile_sizes
from ffn_bench.engine.build import build_batched
from ffn_bench.engine.device import THREADS, keep_memory, threads_for
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.torch_engine import TorchEngine
from ffn_bench.model.network import FFN
from ffn_bench.optimizers.registry import build_optimizer

Epoch = Callable[[], tuple[int, float]]
"""Trains one epoch and returns its steps and seconds."""

SIZES = {
    # name: (widths, rows, batch size)
    "16→10→20→15→26, batch 32": ([16, 10, 20, 15, 26], 9_600, 32),
    "784→128→64→10, batch 64": ([784, 128, 64, 10], 3_200, 64),
}


def random_data(widths: list[int], rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, widths[0], generator=generator)
    return x, torch.randint(widths[-1], (rows,), generator=generator)


def as_data(widths: list[int], x: Tensor, y: Tensor) -> Data:
    """Rows to train on, and none to evaluate."""
    none, one = Split(x[:0], y[:0]), torch.ones(1)
    return Data(
        name="bench",
        train=Split(x, y),
        val=none,
        test=none,
        classes=tuple(str(k) for k in range(widths[-1])),
        image_shape=None,
        mean=one,
        std=one,
        sha256="",
    )


def lecture_loop(widths: list[int], x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """The lecture's program: nn.Linear, a shuffling DataLoader, default Adam. Returns an epoch."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    device = x.device
    net = nn.Sequential(*layers[:-1]).to(device)
    loader = DataLoader(TensorDataset(x.cpu(), y.cpu()), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    loss_function = nn.CrossEntropyLoss()

    def epoch() -> tuple[int, float]:
        start = time.perf_counter()
        for inputs, labels in loader:
            inputs, labels = inputs.to(device).float(), labels.to(device).long()
            loss = loss_function(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(loader), time.perf_counter() - start

    return epoch


def epoch_of(training: Training) -> Callable[[], None]:
    """An epoch of batches, updates and log points, without its evaluation, which the lecture's loop has
    not."""
    training.engine.evaluate = lambda: [{} for _ in training.runs]  # type: ignore[method-assign]
    measurements = training.measurements()
    next(measurements)

    def epoch() -> None:
        last = training.engine.step + training.runs[0].steps_per_epoch
        while training.engine.step < last:
            next(measurements)

    return epoch


def torch_engine(
    widths: list[int], x: Tensor, y: Tensor, batch_size: int, gradient: str = "autograd"
) -> Epoch:
    """The torch engine on the same rows, losses and norms logged every ten steps. Returns an epoch."""
    config = config_of(widths, batch_size, 0.005, 0)
    net = FFN(widths, config.model, seed=0, dtype=torch.float32).to(x.device)
    optimizer = build_optimizer(config.optimizer, net.parameters())
    run = Run(config, as_data(widths, x, y))
    engine = TorchEngine(net, run.data, optimizer, run.rate, batch_size=batch_size, l2=0.0, gradient=gradient)
    train = epoch_of(Training(engine, [run]))

    def epoch() -> tuple[int, float]:
        torch.set_num_threads(threads_for(widths, batch_size))  # as ffn-train does
        start = time.perf_counter()
        train()
        seconds = time.perf_counter() - start
        torch.set_num_threads(THREADS)
        return run.steps_per_epoch, seconds

    return epoch


def config_of(
    widths: list[int], batch_size: int, lr: float, seed: int, compiled: bool = False
) -> schema.TrainConfig:
    """A long run of Adam."""
    return schema.TrainConfig(
        data=schema.DataConfig(name="bench"),
        model=schema.HiddenConfig(name="bench", hidden=widths[1:-1]),
        optimizer=schema.AdamConfig(name="adam", lr=lr),
        schedule=schema.ScheduleConfig(name="constant"),
        lr=lr,
        seed=seed,
        batch_size=batch_size,
        epochs=10**6,
        compile=compiled,
    )


def batched(
    widths: list[int], x: Tensor, y: Tensor, batch_size: int, runs: int, compiled: bool = False
) -> Epoch:
    """The batched engine as a sweep runs it: tiles on threads, every run with its seed and learning rate."""
    configs = [config_of(widths, batch_size, 0.001 + 1e-5 * k, k, compiled) for k in range(runs)]
    data = as_data(widths, x, y)
    sizes = tile_sizes(runs, widths, batch_size, torch.float32, x.device, compiled)
    at = itertools.accumulate([0, *sizes])
    tiles = [build_batched(configs[k : k + n], data) for k, n in zip(at, sizes, strict=False)]
    epochs = [epoch_of(tile) for tile in tiles]

    def epoch() -> tuple[int, float]:
        in_parallel = len(tiles) > 1 and not compiled and x.device.type == "cpu"
        torch.set_num_threads(1 if in_parallel else THREADS)
        if not compiled and not in_parallel:
            torch.set_num_threads(threads_for(widths, batch_size))
        pool = ThreadPoolExecutor(THREADS, initializer=functools.partial(torch.set_num_threads, 1))
        with pool:
            start = time.perf_counter()
            work: Any = pool.map if in_parallel else map
            list(work(lambda train: train(), epochs))
            seconds = time.perf_counter() - start
        torch.set_num_threads(THREADS)
        return runs * tiles[0].runs[0].steps_per_epoch, seconds

    return epoch


def scikit_learn(widths: list[int], x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """scikit-learn's MLPClassifier, one pass over the data a call."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(tuple(widths[1:-1]), batch_size=batch_size, learning_rate_init=0.005, alpha=0.0)
    features, labels, classes = x.numpy(), y.numpy(), list(range(widths[-1]))

    def epoch() -> tuple[int, float]:
        start = time.perf_counter()
        model.partial_fit(features, labels, classes=classes)
        return -(-len(x) // batch_size), time.perf_counter() - start

    return epoch


def lightning_trainer(widths: list[int], x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """Lightning's Trainer with logging, checkpoints and the progress bar off; its start-up is not counted."""
    import logging
    import warnings

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(*layers[:-1])

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.005)

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.started

    module = Module()
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)

    def epoch() -> tuple[int, float]:
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        kind = "gpu" if torch.cuda.is_available() else "cpu"
        trainer = lightning.Trainer(max_epochs=1, accelerator=kind, devices=1, **dict.fromkeys(off, False))
        trainer.fit(module, loader)
        return len(loader), module.seconds

    return epoch


def jax_scan(widths: list[int], x: Tensor, y: Tensor, batch_size: int, runs: int = 1) -> Epoch:
    """JAX: an epoch as `scan` over the steps, with several runs under `vmap`; optax Adam.

    As in the batched engine every run has its data order, learning rate and betas, and losses are kept.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the GPU
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    features, labels = jnp.asarray(x.cpu().numpy()), jnp.asarray(y.cpu().numpy())
    n, steps = len(x), len(x) // batch_size

    def start(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        layers = []
        for n_in, n_out in itertools.pairwise(widths):
            key, own = jax.random.split(key)
            bound = n_in**-0.5
            layers.append(
                (jax.random.uniform(own, (n_in, n_out), minval=-bound, maxval=bound), jnp.zeros(n_out))
            )
        return layers

    def loss(layers: Any, rows: Any) -> Any:
        h = features[rows]
        for W, b in layers[:-1]:
            h = jax.nn.relu(h @ W + b)
        logits = h @ layers[-1][0] + layers[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def train(layers: Any, state: Any, order: Any, lr: Any, beta: Any) -> Any:
        optimizer = optax.adam(lr, beta)

        def step(carry: Any, rows: Any) -> Any:
            layers, state = carry
            value, gradient = jax.value_and_grad(loss)(layers, rows)
            updates, state = optimizer.update(gradient, state, layers)
            return (optax.apply_updates(layers, updates), state), value

        (layers, state), losses = jax.lax.scan(step, (layers, state), order)
        return layers, state, losses

    lr, beta = jnp.linspace(0.001, 0.005, runs), jnp.full(runs, 0.9)
    layers = jax.vmap(start)(jax.random.split(jax.random.PRNGKey(0), runs))
    state = jax.vmap(optax.adam(0.001).init)(layers)
    if runs == 1:
        layers, state, lr, beta = jax.tree.map(lambda leaf: leaf[0], (layers, state, lr, beta))
    program = jax.jit(train if runs == 1 else jax.vmap(train))
    rng = np.random.default_rng(0)

    def epoch() -> tuple[int, float]:
        nonlocal layers, state
        started = time.perf_counter()
        orders = np.stack([rng.permutation(n)[: steps * batch_size] for _ in range(runs)])
        order = jnp.asarray(orders.reshape(runs, steps, batch_size)[0 if runs == 1 else slice(None)])
        layers, state, losses = program(layers, state, order, lr, beta)
        losses.block_until_ready()
        return runs * steps, time.perf_counter() - started

    return epoch


PROGRAMS: dict[str, Callable[..., Epoch]] = {
    "lecture's loop": lecture_loop,
    "scikit-learn": scikit_learn,
    "Lightning": lightning_trainer,
    "torch": torch_engine,
    "torch, gradient=manual": functools.partial(torch_engine, gradient="manual"),
    **{f"batched {runs}": functools.partial(batched, runs=runs) for runs in (1, 8, 32, 128, 512)},
    "batched 128, compiled": functools.partial(batched, runs=128, compiled=True),
    "JAX scan": jax_scan,
    "JAX vmap + scan, 128": functools.partial(jax_scan, runs=128),
}
NEEDS = {"Lightning": "lightning", "JAX scan": "optax", "JAX vmap + scan, 128": "optax"}
ON_GPU: dict[str, Callable[..., Epoch]] = {
    f"batched {runs}": functools.partial(batched, runs=runs) for runs in (1024, 8192)
}


def training_speed(rounds: int, wanted: str, device: str) -> list[dict[str, object]]:
    programs: dict[str, Callable[..., Epoch]] = {
        name: make
        for name, make in {**PROGRAMS, **(ON_GPU if device == "cuda" else {})}.items()
        if wanted in name and (name not in NEEDS or importlib.util.find_spec(NEEDS[name]))
    }
    if device == "cuda":  # scikit-learn knows no GPU
        programs.pop("scikit-learn", None)
    programs = {"lecture's loop": lecture_loop, "torch": torch_engine, **programs}
    rows: list[dict[str, object]] = []
    for size, (widths, n, batch_size) in SIZES.items():
        x, y = (tensor.to(device) for tensor in random_data(widths, n))
        epochs = {name: make(widths, x, y, batch_size) for name, make in programs.items()}
        speeds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(rounds + 1):
            for name, epoch in epochs.items():
                time.sleep(0.05)  # until the threads of the program before have gone to sleep
                steps, seconds = epoch()
                if number:  # the first round warms up
                    speeds[name].append(steps / seconds)
        for name, values in speeds.items():
            against = {
                f"x {base}": spread([v / b for v, b in zip(values, speeds[base], strict=True)])
                for base in ("lecture's loop", "torch", "JAX vmap + scan, 128")
                if base in speeds
            }
            rows.append({"size": size, "program": name, "model-steps/s": spread(values), **against})
    return rows


def startup(rounds: int) -> list[dict[str, object]]:
    """Seconds of whole commands beside `import torch`; a default run's training seconds taken off."""
    ffn_train = str(Path(sys.executable).with_name("ffn-train"))
    imports, helps, runs = [], [], []
    with tempfile.TemporaryDirectory() as folder:

        def seconds(*command: str) -> float:
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

        for number in range(rounds + 1):
            name = f"run{number}"
            a = seconds(sys.executable, "-c", "import torch")
            b = seconds(ffn_train, "--help")
            c = seconds(ffn_train, f"name={name}")
            summary = json.loads((Path(folder) / "outputs" / name / "summary.json").read_text())
            if number:
                imports.append(a)
                helps.append(b / a)
                runs.append(c - summary["train_seconds"] - a)
    return [
        {"command": "import torch, seconds", **spread(imports)},
        {"command": "ffn-train --help, times import torch (at most 0.6)", **spread(helps)},
        {"command": "ffn-train, seconds beyond import torch and training (at most 2.5)", **spread(runs)},
    ]


def sweep(rounds: int) -> list[dict[str, object]]:
    """Seconds of `ffn-train -m seed=range(0,128)` on digits against what they may be."""
    ffn_train = str(Path(sys.executable).with_name("ffn-train"))
    seconds, training, bounds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            name = f"name=r{number}"
            subprocess.run([ffn_train, name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            summary = json.loads((Path(folder) / "outputs" / f"r{number}" / "summary.json").read_text())
            start = time.perf_counter()
            command = [ffn_train, "-m", name, "seed=range(0,128)"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            training.append(summary["train_seconds"])
            bounds.append(128 * training[-1] / 15 + 128 * 0.06)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return [
        {"command": "ffn-train: training only, seconds", **spread(training)},
        {"command": "ffn-train -m seed=range(0,128): all of it, seconds", **spread(seconds)},
        {"command": "at most 1/15 of 128 times the first, and 60 ms a run", **spread(bounds)},
        {"command": "most memory, GB", **spread([peak])},
    ]


def scale() -> list[dict[str, object]]:
    """What sweeps of 10², 10³ and 10⁴ runs of one epoch cost, command by command: seconds, memory, disk.

    A command that takes less memory than this program (0.55 GB, for PyTorch) is shown with that of this one.
    """
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for runs in (100, 1_000, 10_000):
            keys = ["-m", "data=moons", "epochs=1", f"seed=range(0,{runs})", f"name=n{runs}"]
            for what, command in (
                ("train", ["ffn-train", *keys]),
                ("status", ["ffn-train", *keys, "status=true"]),
                ("resume, with nothing left to do", ["ffn-train", *keys]),
                ("report", ["ffn-compare", f"runs=outputs/sweeps/n{runs}", "save=report"]),
            ):
                start = time.perf_counter()
                program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
                with subprocess.Popen(program, cwd=folder, stdout=subprocess.DEVNULL) as process:
                    _, status, used = os.wait4(process.pid, 0)  # this process's memory, not its siblings'
                    process.returncode = os.waitstatus_to_exitcode(status)
                assert process.returncode == 0, program
                seconds = time.perf_counter() - start
                numbers = {"seconds": seconds, "ms a run": seconds / runs * 1e3, "GB": used.ru_maxrss / 1e6}
                rows.append({"runs": runs, "command": what, **numbers})
            files = [*(Path(folder) / f"outputs/sweeps/n{runs}").glob("*seed*/**/*")]
            kilobytes = sum(file.stat().st_blocks * 512 for file in files) / runs / 1e3
            print(f"{runs} runs: {len(files) / runs:.1f} files and {kilobytes:.1f} kB on disk a run")
    return rows


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Model-steps a second against the number of runs, a panel for each network."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(row["size"] for row in rows))
    figure = Figure(figsize=(5.2 * len(sizes), 4.2), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        speeds = {row["program"]: row["model-steps/s"] for row in rows if row["size"] == size}
        curve = {
            int(name.split()[1]): v
            for name, v in speeds.items()
            if name.split()[0] == "batched" and "," not in name
        }
        counts = list(curve)
        axes.fill_between(
            counts,
            [v["least"] for v in curve.values()],
            [v["greatest"] for v in curve.values()],
            color="#0072B2",
            alpha=0.2,
            lw=0,
        )
        axes.plot(counts, [v["median"] for v in curve.values()], "o-", color="#0072B2", label="batched")
        others = {
            "batched 128, compiled": (128, "*", "#009E73"),
            "JAX vmap + scan, 128": (128, "s", "#D55E00"),
            "JAX scan": (1, "s", "#E69F00"),
            "torch": (1, "D", "#56B4E9"),
            "lecture's loop": (1, "v", "#000000"),
        }
        for name, (runs, marker, colour) in others.items():
            if name in speeds:
                axes.plot(runs, speeds[name]["median"], marker, color=colour, ms=8, ls="none", label=name)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="runs trained together",
            ylabel="model-steps a second",
            title=size,
        )
        axes.set_xticks(counts, [str(c) for c in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--startup", action="store_true", help="time whole commands instead of training")
    parser.add_argument("--sweep", action="store_true", help="time a whole sweep instead of training")
    parser.add_argument("--scale", action="store_true", help="time ever larger sweeps (minutes)")
    parser.add_argument("--only", default="", help="programs whose name has this in it")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--figure", type=Path, help="where to draw steps a second against runs")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    keep_memory()
    if options.startup:
        rows = startup(options.rounds)
    elif options.scale:
        rows = scale()
    elif options.sweep:
        rows = sweep(options.rounds)
    else:
        rows = training_speed(options.rounds, options.only, options.device)
    if options.figure:
        draw(rows, options.figure)
    machine = {
        "machine": platform.platform(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if options.json:
        print(json.dumps({**machine, "rows": rows}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="  ".join(f"{k} {v}" for k, v in machine.items()), title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    Console(width=170 if not sys.stdout.isatty() else None).print(table)


def cell(value: object) -> str:
    if isinstance(value, dict):
        digits = 0 if value["median"] > 100 else 2
        return "{median:,.{d}f} ({least:,.{d}f} to {greatest:,.{d}f})".format(d=digits, **value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
