"""Speed of training, measured side by side in one process.

    python scripts/benchmark.py             steps a second beside the lecture's loop
    python scripts/benchmark.py --startup   whole commands: --help and a default run against `import torch`
    python scripts/benchmark.py --json      the same as JSON

The programs take turns, round after round, and ratios are taken within a round: the machine's speed drifts,
a ratio of neighbours drifts less. Medians are printed with the least and the greatest.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ffn_bench import schema
from ffn_bench.data import Data, Split
from ffn_bench.device import THREADS, set_threads
from ffn_bench.eager import EagerRun
from ffn_bench.network import FFN
from ffn_bench.optim import build_optimizer, build_schedule

Epoch = Callable[[], tuple[int, float]]
"""Trains one epoch and returns its steps and seconds."""

SIZES = {
    # name: (widths, rows, batch size)
    "16→10→20→15→26, batch 32": ([16, 10, 20, 15, 26], 9_600, 32),
    "784→128→64→10, batch 64": ([784, 128, 64, 10], 9_600, 64),
}


def random_data(widths: list[int], rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, widths[0], generator=generator)
    return x, torch.randint(widths[-1], (rows,), generator=generator)


def lecture_loop(widths: list[int], x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """The lecture's program: nn.Linear, a shuffling DataLoader, default Adam. Returns an epoch."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    loss_function = nn.CrossEntropyLoss()

    def epoch() -> tuple[int, float]:
        start = time.perf_counter()
        for inputs, labels in loader:
            inputs, labels = inputs.to("cpu").float(), labels.to("cpu").long()
            loss = loss_function(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(loader), time.perf_counter() - start

    return epoch


def eager_engine(
    widths: list[int], x: Tensor, y: Tensor, batch_size: int, gradient: str = "autograd"
) -> Epoch:
    """The eager engine on the same rows, losses and norms logged every ten steps. Returns an epoch."""
    model = schema.HiddenConfig(name="bench", hidden=widths[1:-1])
    net = FFN(widths, model, seed=0, dtype=torch.float32)
    none = Split(x[:0], y[:0])
    classes = tuple(str(k) for k in range(widths[-1]))
    one = torch.ones(1)
    data = Data("bench", Split(x, y), none, none, classes, None, one, one, "")
    run = EagerRun(
        net,
        data,
        build_optimizer(schema.AdamConfig(name="adam", lr=0.005), net.parameters()),
        build_schedule(schema.ScheduleConfig(name="constant"), 1, 1),
        lr=0.005,
        epochs=10**9,
        batch_size=batch_size,
        drop_last=False,
        seed=0,
        l2=0.0,
        log_every=10,
        gradient=gradient,
    )
    measurements = run.measurements()
    next(measurements)

    def epoch() -> tuple[int, float]:
        # Everything but the evaluation that ends an epoch, which the lecture's loop does not have: batches,
        # updates and log points, of which the last one is the epoch's last step.
        set_threads(widths, batch_size)  # as ffn-train does
        first = run.step
        start = time.perf_counter()
        while (next(measurements)).step < first + run.steps_per_epoch:
            pass
        seconds = time.perf_counter() - start
        assert next(measurements).ends_epoch
        torch.set_num_threads(THREADS)
        return run.step - first, seconds

    return epoch


PROGRAMS: dict[str, Callable[..., Epoch]] = {
    "lecture's loop": lecture_loop,
    "eager": eager_engine,
    "eager, gradient=manual": functools.partial(eager_engine, gradient="manual"),
}


def training_speed(rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for size, (widths, n, batch_size) in SIZES.items():
        x, y = random_data(widths, n)
        epochs = {name: make(widths, x, y, batch_size) for name, make in PROGRAMS.items()}
        speeds: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(rounds + 1):
            for name, epoch in epochs.items():
                steps, seconds = epoch()
                if number:  # the first round warms up
                    speeds[name].append(steps / seconds)
        base = speeds["lecture's loop"]
        for name, values in speeds.items():
            ratios = [v / b for v, b in zip(values, base, strict=True)]
            rows.append({"size": size, "program": name, "steps/s": spread(values), "ratio": spread(ratios)})
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


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--startup", action="store_true", help="time whole commands instead of training")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = startup(options.rounds) if options.startup else training_speed(options.rounds)
    machine = {
        "machine": platform.platform(),
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
    Console(width=130 if not sys.stdout.isatty() else None).print(table)


def cell(value: object) -> str:
    if isinstance(value, dict):
        digits = 0 if value["median"] > 100 else 2
        return "{median:,.{d}f} ({least:,.{d}f} to {greatest:,.{d}f})".format(d=digits, **value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
