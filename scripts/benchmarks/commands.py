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
from dataclasses import dataclass
from importlib import metadata
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
import os, pathlib, re, sys, time
import numpy
from ffn_bench.configuration.schema import CsvConfig
from ffn_bench.data import tables
def memory():
    status = pathlib.Path("/proc/self/status")  # getrusage has the parent's, too
    return int(re.search(r"VmHWM:\\s+([0-9]+)", status.read_text())[1]) * 1024 if status.exists() else 0
start = time.perf_counter()
tables.POLARS_BYTES = float(sys.argv[2])
if tables.POLARS_BYTES == 0:
    import polars
before = memory()
table = tables.load_csv(CsvConfig(name="csv", path=sys.argv[1], target="label", missing=sys.argv[3]))
seconds = time.perf_counter() - start
assert table.x.shape == (200_000, 30)
print(seconds, memory() - before - os.path.getsize(sys.argv[1]), table.x.nbytes)
"""
"""Prints the seconds in which a CSV file becomes rows, labels and classes, with the import of Polars; the
bytes of memory that takes beyond the file's text, at most and without the import; those of the numbers."""


IMPORT_TORCH = 1.7
"""Seconds of `import torch` where limits were set in seconds; elsewhere they are held relative to it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A command that is measured as a whole process, its child processes included."""

    what: str
    words: tuple[str, ...]
    """`{}` stands for the number of the round."""
    limit: float
    """Of its wall time against that of `import torch`."""
    status: int = 0


THIRTY = ("-m", "optimizer=sgd,adam,rmsprop", "seed=range(0,10)", "epochs=5", "name=thirty")
"""A sweep of 30 runs that are compared: with a verdict, and every figure of three competitors."""

STARTS = (
    Start(what="ffn-train", words=("ffn-train", "name=r{}"), limit=0.65),
    Start(what="ffn-train --help", words=("ffn-train", "--help"), limit=0.2),
    Start(what="ffn-train lrr=1", words=("ffn-train", "lrr=1"), limit=0.2, status=2),
    Start(what="ffn-train -m lrr=1,2", words=("ffn-train", "-m", "lrr=1,2"), limit=0.2, status=2),
    Start(what="completion", words=("ffn-train", "-sc", "query=bash"), limit=0.2),
    Start(what="ffn-compare of 30 runs", words=("ffn-compare", "runs=outputs/sweeps/thirty"), limit=1.2),
    Start(
        what="ffn-train -m … status=true of 30 runs",
        words=("ffn-train", *THIRTY, "status=true"),
        limit=0.45,
    ),
    Start(
        what="ffn-race surface=saddle, with its film",
        words=("ffn-race", "surface=saddle", "save=race{}"),
        limit=11.5 / 2 / IMPORT_TORCH,
    ),
    Start(what="ffn-lecture", words=("ffn-lecture",), limit=7.5 / 2 / IMPORT_TORCH),
)
"""Commands that a person waits for, each with its limit."""
COMPILED: dict[str, float] = {
    "ffn-train with nothing compiled yet, more than later": 3.5,
    "compiled engine from the cache, to its first step": 0.3,
}
"""Seconds, at most, that compiled code costs."""
MEMORY_MB = 200.0
"""Of a default run, at most."""
LAUNCHERS = ("joblib-launcher", "submitit-launcher", "ray-launcher", "optuna-sweeper")
"""Plug-ins of Hydra that nobody may have to wait for."""


def _ffn_train() -> str:
    return str(Path(sys.executable).with_name("ffn-train"))


def _seconds(folder: str, *command: str, cache: Path | None = None) -> float:
    """Of a whole command, with its compiled code in a folder of its own, if one is given."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=_environment(cache))
    return time.perf_counter() - start


def _environment(cache: Path | None) -> dict[str, str]:
    """Of a command as a person starts it: its modules are compiled once, and kept so."""
    own = {} if cache is None else {"FFN_BENCH_CACHE_DIR": str(cache)}
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **own}


def _load_seconds(cache: Path) -> float:
    environment = _environment(cache)
    paths = [str(Path(__file__).parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-c", LOAD]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def _measured(folder: str, start: Start, number: int, cache: Path) -> tuple[float, float]:
    """Seconds and most MB of a command, whose exit status must be the expected one."""
    name, *words = (word.format(number) for word in start.words)
    program = [str(Path(sys.executable).with_name(name)), *words]
    begun = time.perf_counter()
    with subprocess.Popen(
        program,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if start.status else None,
        env=_environment(cache) | {"COMP_LINE": "ffn-train optimizer=ad"},
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    assert process.returncode == start.status, program
    return seconds, used.ru_maxrss / 1e3


def startup(homes: Homes, rounds: int) -> Table:
    """Whole commands beside `import torch`, in turns; what the first use of compiled code costs more."""
    values: dict[str, list[float]] = {}
    units = {"import torch": "s"}
    limits: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        _seconds(folder, _ffn_train(), *THIRTY, cache=warm)
        for number in range(rounds + 1):
            torch = _seconds(folder, sys.executable, "-c", "import torch")
            own = {"import torch": torch}
            for start in STARTS:
                seconds, megabytes = _measured(folder, start, number, warm)
                own[start.what] = seconds / torch
                units[start.what], limits[start.what] = "×", start.limit
                if start is STARTS[0]:
                    memory, run = megabytes, seconds
            own["most memory of ffn-train"] = memory
            if number <= 3:
                fresh = _seconds(folder, _ffn_train(), f"name=f{number}", cache=Path(folder) / f"c{number}")
                own |= zip(COMPILED, (fresh - run, _load_seconds(warm)), strict=True)
            for what, value in own.items() if number else ():  # the first round warms up
                values.setdefault(what, []).append(value)
    units |= dict.fromkeys(COMPILED, "s") | {"most memory of ffn-train": "MB"}
    limits |= COMPILED | {"most memory of ffn-train": MEMORY_MB}
    table = Table(title="Start-up: whole commands, × is the wall time of import torch in the same round")
    for what, measured in values.items():
        table.rows.append({"what": what, "value": spread(measured), "unit": units[what]})
        if what in limits:
            median, limit = statistics.median(measured), limits[what]
            demand = Demand(what=what, value=median, limit=limit, at_least=False, unit=units[what])
            table.demands.append(demand)
    table.notes.append(f"Installed plug-ins of Hydra: {', '.join(_installed_launchers()) or 'none'}.")
    return table


def _installed_launchers() -> list[str]:
    """Those of `LAUNCHERS` that are installed; with all of them the commands must keep to their limits."""
    names = {
        str(distribution.metadata["Name"]).replace("_", "-") for distribution in metadata.distributions()
    }
    return [name for name in LAUNCHERS if f"hydra-{name}" in names]


CSV_SECONDS, CSV_MEMORY = 1.0, 3.0
"""Of a table of 200,000 × 31 cells, at most; how often its numbers' bytes may be needed beyond the text."""


def csv(homes: Homes, rounds: int) -> Table:
    """`data=csv` with files of 200,000 rows of 30 cells and a label, 51 MB, by each of its two readers:
    numbers; and 25 numbers and 5 texts, 2 % of them blank."""
    tables = {"numbers": "error", "text and blanks": "impute"}
    readers = {"0": "Polars", "inf": "Python's reader"}  # from how many bytes on Polars reads
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {what: Path(folder) / f"{k}.csv" for k, what in enumerate(tables)}
        _write_tables(*files.values())
        for _ in range(rounds):
            for what, file in files.items():
                for polars_bytes in readers:
                    command = [sys.executable, "-c", READ, str(file), polars_bytes, tables[what]]
                    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    seconds, extra, own = map(float, printed.split())
                    measured.setdefault((what, polars_bytes), []).append((seconds, extra / own))
        size = files["numbers"].stat().st_size / 1e6
    table = Table(
        title=f"Tables of 200,000 × 31 cells, {size:.0f} MB: seconds, memory beyond the text by the numbers'"
    )
    for (what, polars_bytes), values in measured.items():
        times, memory = (list(column) for column in zip(*values, strict=True))
        row = {"table": what, "read by": readers[polars_bytes], "seconds": spread(times)}
        table.rows.append(row | {"memory": spread(memory)})
        if polars_bytes == "0":
            reading = f"{what}, from the file to numbers and classes"
            median = statistics.median(times)
            with_import = f"{reading}, with the import of Polars"
            demand = Demand(what=with_import, value=median, limit=CSV_SECONDS, at_least=False, unit="s")
            median = statistics.median(memory)
            of_memory = Demand(what=reading, value=median, limit=CSV_MEMORY, at_least=False, unit="×")
            table.demands += [demand, of_memory]
    return table


def _write_tables(numbers: Path, texts: Path) -> None:
    """Tables of numbers, and of numbers, texts and blanks."""
    random = numpy.random.default_rng(0)
    values = random.normal(size=(200_000, 30))
    codes, blank = random.integers(0, 40, (200_000, 5)), random.random((200_000, 30)) < 0.02
    header = ",".join([*(f"f{k}" for k in range(30)), "label"]) + "\n"
    with numbers.open("w") as of_numbers, texts.open("w") as of_texts:
        of_numbers.write(header)
        of_texts.write(header)
        for k, row in enumerate(values.tolist()):
            cells = [f"{value:.5f}" for value in row]
            of_numbers.write(",".join(cells) + f",c{k % 5}\n")
            cells[25:] = [f"kind {code}" for code in codes[k].tolist()]
            for column in blank[k].nonzero()[0].tolist():
                cells[column] = ""
            of_texts.write(",".join(cells) + f",c{k % 5}\n")


PREDICT_ROWS = (300_000, 1_000_000, 3_000_000)
"""Rows of 16 columns; memory may not depend on them."""
PREDICT_SECONDS, PREDICT_MB, PREDICT_GROWTH_MB = 10.0, 500.0, 25.0
"""Of a million rows, at most; and how much more memory than the fewest rows the most may need."""


def predict(homes: Homes, rounds: int) -> Table:
    """`ffn-predict` of tables of 16 columns, CSV to CSV: seconds and most memory, by size."""
    measured: dict[int, tuple[list[float], list[float]]] = {rows: ([], []) for rows in PREDICT_ROWS}
    megabytes: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        numbers = numpy.random.default_rng(0).normal(size=(10_000, 16))
        lines = [",".join(f"{x:.5f}" for x in row) for row in numbers.tolist()]
        labels = numpy.where((numbers[:, :4] ** 2).sum(1) > 3.5, "far", "near").tolist()
        header = ",".join(f"c{k}" for k in range(16))
        labelled = (f"{line},{label}\n" for line, label in zip(lines, labels, strict=True))
        (Path(folder) / "train.csv").write_text(f"{header},label\n" + "".join(labelled))
        data = ("data=csv", "data.path=train.csv", "data.target=label")
        _seconds(folder, _ffn_train(), *data, "epochs=3", "name=x")
        block = "\n".join(lines) + "\n"
        for rows in PREDICT_ROWS:
            with (Path(folder) / f"{rows}.csv").open("w") as text:
                text.write(header + "\n")
                text.writelines(block for _ in range(rows // len(lines)))
            megabytes[rows] = (Path(folder) / f"{rows}.csv").stat().st_size / 1e6
        for number in range(min(rounds, 3) + 1):
            for rows, (seconds, memory) in measured.items():
                words = ("ffn-predict", "run=outputs/x", f"data.path={rows}.csv", "out=predictions.csv")
                took, most = _measured(folder, Start(what="", words=words, limit=0), number, Path(folder))
                if number:  # the first round warms up
                    seconds.append(took)
                    memory.append(most)
    table = Table(title="ffn-predict: tables of 16 columns, CSV to CSV")
    for rows, (seconds, memory) in measured.items():
        values = {"seconds": spread(seconds), "most memory, MB": spread(memory)}
        table.rows.append({"rows": f"{rows:,}", "CSV, MB": round(megabytes[rows]), **values})
    medians = {rows: tuple(map(statistics.median, values)) for rows, values in measured.items()}
    seconds_1m, memory_1m = medians[1_000_000]
    growth = medians[PREDICT_ROWS[-1]][1] - medians[PREDICT_ROWS[0]][1]
    for what, value, limit, unit in (
        ("a million rows", seconds_1m, PREDICT_SECONDS, "s"),
        ("most memory of a million rows", memory_1m, PREDICT_MB, "MB"),
        ("how much more memory ten times the rows need", growth, PREDICT_GROWTH_MB, "MB"),
    ):
        table.demands.append(Demand(what=what, value=value, limit=limit, at_least=False, unit=unit))
    return table


SWEEP: dict[str, tuple[float, str]] = {
    "ffn-train -m seed=range(0,128), against import torch": (11.2 / 3 / IMPORT_TORCH, "×"),
    "one more run, beside its training on all cores": (5.0, "ms"),
    "+experiment=lecture_optimizers, a network": (18.0, "ms"),
}
"""What is measured of sweeps of the digits, folders included: its limit and its unit."""


def sweep(homes: Homes, rounds: int) -> Table:
    """Sweeps of the digits, folders included: a whole command, one more run, the lecture's study."""
    values: dict[str, list[float]] = {what: [] for what in SWEEP}
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(min(rounds, 3) + 1):
            torch = _seconds(folder, sys.executable, "-c", "import torch")
            few, many = (
                _seconds(folder, _ffn_train(), "-m", f"name={runs}-{number}", f"seed=range(0,{runs})")
                for runs in (8, 128)
            )
            summaries = (Path(folder) / f"outputs/sweeps/128-{number}").glob("*/summary.json")
            training = statistics.mean(json.loads(f.read_text())["train_seconds"] for f in summaries)
            study = ("+experiment=lecture_optimizers", f"name=study{number}")
            own = (
                many / torch,
                1e3 * ((many - few) / 120 - training / cores),
                1e3 * _seconds(folder, _ffn_train(), *study) / 912,  # networks
            )
            for what, value in zip(SWEEP, own, strict=True):
                values[what] += [value] if number else []  # the first round warms up
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    table = Table(title="Sweeps of the digits")
    for what, (limit, unit) in SWEEP.items():
        table.rows.append({"what": what, "value": spread(values[what]), "unit": unit})
        median = statistics.median(values[what])
        table.demands.append(Demand(what=what, value=median, limit=limit, at_least=False, unit=unit))
    table.rows.append({"what": "most memory", "value": spread([peak]), "unit": "MB"})
    return table


SCALE = {"train": 40.0, "status": 2.0, "report": 20.0}
"""Seconds, at most, of a command on 10,000 short runs, where `import torch` takes `IMPORT_TORCH`."""
SCALE_GB = 0.5
"""Memory of any of them, at most."""


def scale(homes: Homes, rounds: int) -> Table:
    """What sweeps of 10², 10³ and 10⁴ runs of one epoch cost, command by command: seconds, memory, disk."""
    table, most = Table(title="Sweeps of 100 to 10,000 runs"), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for runs in (100, 1_000, 10_000):
            keys = ["-m", "data=moons", "epochs=1", f"seed=range(0,{runs})", f"name=n{runs}"]
            for what, command in (
                ("train", ["ffn-train", *keys]),
                ("status", ["ffn-train", *keys, "status=true"]),
                ("resume, with nothing left to do", ["ffn-train", *keys]),
                ("report", ["ffn-compare", f"runs=outputs/sweeps/n{runs}", "save=report"]),
            ):
                torch = _seconds(folder, sys.executable, "-c", "import torch")
                start = time.perf_counter()
                program = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
                with subprocess.Popen(program, cwd=folder, stdout=subprocess.DEVNULL) as process:
                    _, status, used = os.wait4(process.pid, 0)  # this process's memory, not its siblings'
                    process.returncode = os.waitstatus_to_exitcode(status)
                assert process.returncode == 0, program
                seconds = time.perf_counter() - start
                numbers = {"seconds": seconds, "ms a run": seconds / runs * 1e3, "GB": used.ru_maxrss / 1e6}
                table.rows.append({"runs": runs, "command": what, **numbers})
                most = max(most, numbers["GB"])
                if runs == 10_000 and what in SCALE:
                    limit, named = SCALE[what] / IMPORT_TORCH, f"10,000 runs: {what}, against import torch"
                    demand = Demand(what=named, value=seconds / torch, limit=limit, at_least=False)
                    table.demands.append(demand)
            files = [*(Path(folder) / f"outputs/sweeps/n{runs}").glob("*seed*/**/*")]
            kilobytes = sum(file.stat().st_blocks * 512 for file in files) / runs / 1e3
            table.notes.append(
                f"{runs} runs: {len(files) / runs:.1f} files and {kilobytes:.1f} kB on disk a run."
            )
    table.demands.append(Demand(what="most memory", value=most, limit=SCALE_GB, at_least=False, unit="GB"))
    return table
