"""Whole commands: start-up and first use, a sweep with its folders, ever larger sweeps."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

from benchmarks.homes import Homes
from benchmarks.tables import Demand, Table, spread

LOAD = """
import numpy, torch, ffn_bench
from benchmarks import ours, work
import time
start = time.perf_counter()
from ffn_bench.engine.compiled import machine_code
epoch = ours.compiled(work.Work(widths=work.SMALL.widths, rows=32, batch_size=32))
epoch()
print(time.perf_counter() - start)
"""
"""Prints the seconds in which a compiled engine is built and makes its first step, PyTorch apart."""

READ = """
import sys, time
import numpy
from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data import tables
start = time.perf_counter()
tables.POLARS_BYTES = float(sys.argv[2])
table = tables.load_csv(CsvConfig(name="csv", path=sys.argv[1], target="label"))
seconds = time.perf_counter() - start
assert table.x.shape == (200_000, 30)
print(seconds)
"""
"""Prints the seconds in which a CSV file becomes rows, labels and classes, with the import of Polars."""


STARTUP: dict[str, tuple[float | None, str]] = {
    "import torch": (None, "s"),
    "ffn-train --help, against import torch": (0.6, "×"),
    "ffn-train beyond import torch and training": (2.5, "s"),
    "ffn-train with nothing compiled yet, more than later": (3.5, "s"),
    "compiled engine from the cache, to its first step": (0.3, "s"),
}
"""What is measured of start-up, its limit and its unit."""


def _ffn_train() -> str:
    return str(Path(sys.executable).with_name("ffn-train"))


def _seconds(folder: str, *command: str, cache: Path | None = None) -> float:
    """Of a whole command, with its compiled code in a folder of its own, if one is given."""
    own = {} if cache is None else {"FFN_BENCH_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **own})
    return time.perf_counter() - start


def _load_seconds(cache: Path) -> float:
    environment = {**os.environ, "FFN_BENCH_CACHE_DIR": str(cache)}
    paths = [str(Path(__file__).parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-c", LOAD]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def startup(homes: Homes, rounds: int) -> Table:
    """Commands beside `import torch`, and what the first use of compiled code costs more than a later one."""
    values: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        for number in range(min(rounds, 3) + 1):
            torch = _seconds(folder, sys.executable, "-c", "import torch")
            shown = _seconds(folder, _ffn_train(), "--help")
            fresh = _seconds(folder, _ffn_train(), f"name=f{number}", cache=Path(folder) / f"cache{number}")
            run = _seconds(folder, _ffn_train(), f"name=r{number}", cache=warm)
            summary = json.loads((Path(folder) / "outputs" / f"r{number}" / "summary.json").read_text())
            loaded = _load_seconds(warm)
            if number:  # the first round warms up
                beyond = run - summary["train_seconds"] - torch
                values.append(
                    dict(zip(STARTUP, (torch, shown / torch, beyond, fresh - run, loaded), strict=True))
                )
    table = Table(title="Start-up, seconds")
    for what, (limit, unit) in STARTUP.items():
        own = [value[what] for value in values]
        table.rows.append({"what": what, "value": spread(own), "unit": unit})
        if limit is not None:
            median = statistics.median(own)
            table.demands.append(Demand(what=what, value=median, limit=limit, at_least=False, unit=unit))
    return table


def csv(homes: Homes, rounds: int) -> Table:
    """`data=csv` with a file of 200,000 rows of 30 numbers and a label, 51 MB, by each of its two readers."""
    readers: dict[str, list[float]] = {"0": [], "inf": []}  # from how many bytes on Polars reads
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        numbers = numpy.random.default_rng(0).normal(size=(200_000, 30))
        with file.open("w") as text:
            text.write(",".join([*(f"f{k}" for k in range(30)), "label"]) + "\n")
            text.writelines(
                ("%.5f," * 30 + "c%d\n") % (*row, k % 5) for k, row in enumerate(numbers.tolist())
            )
        for _ in range(rounds):
            for polars_bytes, seconds in readers.items():
                command = [sys.executable, "-c", READ, str(file), polars_bytes]
                seconds.append(
                    float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                )
        size = file.stat().st_size / 1e6
    table = Table(title=f"A table of 200,000 × 31 cells, {size:.0f} MB, seconds")
    for what, seconds in zip(("Polars", "Python's reader"), readers.values(), strict=True):
        table.rows.append({"read by": what, "seconds": spread(seconds)})
    median = statistics.median(readers["0"])
    what = "from the file to numbers and classes, with the import of Polars"
    table.demands = [Demand(what=what, value=median, limit=1, at_least=False, unit="s")]
    return table


def sweep(homes: Homes, rounds: int) -> Table:
    """`ffn-train -m seed=range(0,128)` on digits, folders included."""
    seconds, training, bounds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            name = f"name=r{number}"
            _seconds(folder, _ffn_train(), name)
            summary = json.loads((Path(folder) / "outputs" / f"r{number}" / "summary.json").read_text())
            seconds.append(_seconds(folder, _ffn_train(), "-m", name, "seed=range(0,128)"))
            training.append(summary["train_seconds"])
            bounds.append(128 * training[-1] / 15 + 128 * 0.06)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    table = Table(title="A sweep of 128 runs")
    table.rows = [
        {"what": "ffn-train: training only, seconds", "value": spread(training)},
        {"what": "ffn-train -m seed=range(0,128): all of it, seconds", "value": spread(seconds)},
        {"what": "most memory, GB", "value": spread([peak])},
    ]
    allowed = statistics.median(s / b for s, b in zip(seconds, bounds, strict=True))
    what = "the sweep, against 1/15 of 128 times the training and 60 ms a run"
    table.demands = [Demand(what=what, value=allowed, limit=1, at_least=False)]
    return table


def scale(homes: Homes, rounds: int) -> Table:
    """What sweeps of 10², 10³ and 10⁴ runs of one epoch cost, command by command: seconds, memory, disk."""
    table = Table(title="Sweeps of 100 to 10,000 runs")
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
                table.rows.append({"runs": runs, "command": what, **numbers})
            files = [*(Path(folder) / f"outputs/sweeps/n{runs}").glob("*seed*/**/*")]
            kilobytes = sum(file.stat().st_blocks * 512 for file in files) / runs / 1e3
            table.notes.append(
                f"{runs} runs: {len(files) / runs:.1f} files and {kilobytes:.1f} kB on disk a run."
            )
    return table
