"""Time to target: the validation value that counts as arrived, and when each run first met it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.curves import AXES_OF_TIME
from ffn_bench.compare.results import Cell
from ffn_bench.errors import UserError, nearest
from ffn_bench.tags import quantity


def targets_of(
    cells: dict[str, dict[str, Cell]],
    workloads: Sequence[str],
    selecting: str,
    reference: str | None,
    target: float | None,
) -> tuple[dict[str, float], str]:
    """The target of every workload: given, or the median of the reference's best validation values. Where no
    reference is named it is one that was run on every workload, so that all targets are of one."""
    if target is not None:
        return dict.fromkeys(workloads, target), "as given"
    if reference is not None and reference not in cells:
        known = ", ".join(cells)
        raise UserError(
            "reference", f"{reference!r} is not compared{nearest(reference, cells)}", f"use: {known}"
        )
    higher = quantity(selecting).higher_is_better
    if reference is None:
        full = {
            n: of for n, of in cells.items() if len(of) == len(workloads) and all(c.runs for c in of.values())
        }
        full = full or cells
        reference = "adam" if "adam" in full else _leading(full, higher)
    reached = {
        w: statistics.reached_by_half(cell.values("selected"), higher)
        for w, cell in cells[reference].items()
        if len(cell.runs) and not np.isnan(cell.values("selected")).any()
    }
    targets = {w: value for w, value in reached.items() if value != quantity(selecting).worst}  # half failed
    whose = f"the runs of {reference}" if len(cells) > 1 else "the runs"
    return targets, f"the best value that more than half of {whose} reach"


def _leading(cells: dict[str, dict[str, Cell]], higher: bool) -> str:
    """The competitor whose median on validation is best."""

    def score(name: str) -> float:
        values = [c.values("selected") for c in cells[name].values() if c.runs]
        if not values or np.isnan(np.concatenate(values)).any():
            return -math.inf
        median = float(np.median(np.concatenate(values)))
        return median if higher else -median

    return max(cells, key=score)


def reach(cell: Cell, selecting: str, target: float) -> None:
    """Fill in when each run first met the target; one that failed never did."""
    for axis in AXES_OF_TIME:
        times = []
        for run in cell.runs.values():
            curve = run.curves.get(selecting)
            if curve is None or math.isnan(target):
                times.append(math.inf)
                continue
            x = getattr(curve, axis)
            higher = quantity(selecting).higher_is_better
            times.append(statistics.first_reach(x, curve.values, target, higher))
        cell.times[axis] = np.asarray(times)
