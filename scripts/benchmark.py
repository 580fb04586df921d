"""Speed of training and of whole commands, measured side by side, against what is demanded.

    python scripts/benchmark.py                      all tables; exit status 1 where a demand is missed
    python scripts/benchmark.py --table batch rules  some tables
    python scripts/benchmark.py --startup            what a person waits for before and after training
    python scripts/benchmark.py --sweep              a whole sweep of 128 runs, folders included
    python scripts/benchmark.py --scale              sweeps of 100 to 10,000 runs: training, status, report
    python scripts/benchmark.py --table csv          a large table from its file
    python scripts/benchmark.py --table predict      large tables through a trained network, from file to file
    python scripts/benchmark.py --figure x.png       a picture of model-steps per second against runs
    python scripts/benchmark.py --write x.json       the numbers as JSON
    python scripts/benchmark.py --device cuda        programs on a GPU, nothing demanded

All tables are all but `sweep` and `scale`. JAX and Lightning take part where they are installed
(`pip install -e ".[bench]"`), the yardstick in C where there is a compiler.

Each library has a process of its own, which imports and compiles outside the clock. The programs take
turns, round after round, never two at a time, and ratios are taken within a round: the machine's speed
drifts, a ratio of neighbours drifts less. Medians are printed, in brackets the least and the greatest.
Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import commands, figure, tables
from benchmarks.homes import Homes
from benchmarks.tables import Demand, Table

DEFAULT: dict[str, Callable[[Homes, int], Table]] = {
    **tables.TABLES,
    "startup": commands.startup,
    "csv": commands.csv,
    "predict": commands.predict,
}
TABLES = {**DEFAULT, "sweep": commands.sweep, "scale": commands.scale}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", nargs="+", choices=TABLES, default=[], help="tables to measure")
    for name in ("startup", "sweep", "scale"):
        parser.add_argument(
            f"--{name}", dest="alone", action="append_const", const=name, help=f"--table {name}"
        )
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds (default 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--figure", type=Path, help="where to draw the table `speed`")
    parser.add_argument("--write", type=Path, help="where to write the numbers as JSON")
    options = parser.parse_args()
    wanted: dict[str, Callable[[Homes, int], Table]] = {}
    if options.device == "cuda":
        wanted["speed"] = functools.partial(tables.speed, device="cuda")
    else:
        wanted |= {name: TABLES[name] for name in [*options.table, *(options.alone or ())] or DEFAULT}

    machine = describe_machine()
    print(" · ".join(f"{key} {value}" for key, value in machine.items()))
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        print("the machine is busy: PyTorch's threads collapse, no number is valid", file=sys.stderr)
    measured: dict[str, Table] = {}
    for name, measure in wanted.items():
        start = time.perf_counter()
        with Homes() as homes:
            measured[name] = measure(homes, options.rounds)
        show(measured[name])
        print(f"({time.perf_counter() - start:.0f} s)", file=sys.stderr)
    if options.write:
        write(options.write, machine, measured)
    if options.figure and "speed" in measured:
        figure.draw(measured["speed"].rows, options.figure)
    missed = [demand for table in measured.values() for demand in table.demands if not demand.holds]
    for demand in missed:
        print(f"missed: {demand.what}: {demand.value:.2f} {demand.unit}", file=sys.stderr)
    raise SystemExit(1 if missed else 0)


def describe_machine() -> dict[str, str]:
    """What the numbers depend on. The load is that of the last minute before."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    installed = {}
    for name in ("torch", "numba", "numpy", "polars", "jax", "lightning", "scikit-learn"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    processor = f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return {"processor": processor, "python": platform.python_version(), **installed}


def show(table: Table) -> None:
    """A table and its demands, as Markdown."""
    print(f"\n### {table.title}\n")
    print_rows(table.shown or table.rows)
    if table.demands:
        print()
        print_rows([demand_row(demand) for demand in table.demands])
    for note in table.notes:
        print(f"\n{note}")
    sys.stdout.flush()


def demand_row(demand: Demand) -> dict[str, Any]:
    """A demand as a row of a table."""
    value = "not measured" if demand.value is None else f"{demand.value:.2f} {demand.unit}"
    limit = f"{'at least' if demand.at_least else 'at most'} {demand.limit:g} {demand.unit}"
    missed = "" if demand.value is None else demand.excuse or "no"
    verdict = "yes" if demand.is_met else missed
    return {"demand": demand.what, "measured": value, "limit": limit, "holds": verdict}


def print_rows(rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(cell(row[column]) for column in columns) + " |")


def cell(value: object) -> str:
    if isinstance(value, dict):
        digits = 0 if value["median"] > 100 else 2
        return "{median:,.{d}f} ({least:,.{d}f}–{greatest:,.{d}f})".format(d=digits, **value)
    return "" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)


def write(path: Path, machine: dict[str, str], measured: dict[str, Table]) -> None:
    """All numbers as JSON."""
    content = {
        name: {
            "title": table.title,
            "rows": table.rows,
            "demands": [{**vars(demand), "holds": demand.holds} for demand in table.demands],
            "notes": table.notes,
        }
        for name, table in measured.items()
    }
    path.write_text(json.dumps({**machine, "tables": content}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
