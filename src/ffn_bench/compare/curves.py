"""Curves of several runs as one: an aggregate over seeds with a band, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffn_bench.compare import statistics
from ffn_bench.compare.statistics import Array
from ffn_bench.run_folder.recorded_run import Curve, RecordedRun
from ffn_bench.tags import quantity

AXES_OF_TIME = ("epochs", "steps", "seconds")
CURVE_POINTS = 60
"""Points of a curve at most."""


@dataclass(frozen=True)
class Band:
    """An aggregate over seeds along a curve, and its bootstrap band (NaN below three seeds)."""

    x: dict[str, Array]
    """In each of `AXES_OF_TIME`."""
    center: Array
    low: Array
    high: Array
    n: int


def band_of(runs: Sequence[RecordedRun], tag: str, aggregate: str, points: int = CURVE_POINTS) -> Band | None:
    """Aggregate and band over runs along a curve; None where nothing was measured.

    A run that diverged has the worst value from there on. One that is still running or was cut short has none
    after its last measurement; the aggregate is then over the others.
    """
    with_curve = [(run, run.curves[tag]) for run in runs if tag in run.curves]
    if not with_curve:
        return None
    steps, columns = aligned([(curve, run.status == "diverged") for run, curve in with_curve], tag)
    if len(steps) > points:  # means of neighbours, dated at their last
        edges = np.linspace(0, len(steps), points + 1).round().astype(int)
        columns = np.stack([_mean(columns[:, a:b]) for a, b in itertools.pairwise(edges)], axis=1)
        steps = steps[edges[1:] - 1]
    times = {"steps": steps}
    for axis in ("epochs", "seconds"):
        shared = np.full((len(with_curve), len(steps)), np.nan)
        for row, (_, curve) in zip(shared, with_curve, strict=True):
            at = np.searchsorted(curve.steps, steps)
            measured = (at < len(curve.steps)) & (curve.steps[np.minimum(at, len(curve.steps) - 1)] == steps)
            row[measured] = getattr(curve, axis)[at[measured]]
        times[axis] = _nan_median(shared)
    longest = max((curve for _, curve in with_curve), key=lambda curve: len(curve.steps))
    per_epoch = longest.steps[-1] / max(longest.epochs[-1], 1.0)
    times["epochs"] = steps / per_epoch if per_epoch else times["epochs"]
    center, low, high = (np.full(len(steps), np.nan) for _ in range(3))
    present = ~np.isnan(columns)
    # Points at which the same runs are present are resampled together.
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        at = np.flatnonzero(np.ravel(which) == k)
        if not pattern.any():
            continue
        center[at], low[at], high[at] = statistics.band(columns[pattern][:, at].T, aggregate)
    return Band(times, center, low, high, len(with_curve))


def _mean(columns: Array) -> Array:
    """Mean of `[runs, steps]` over the steps that were measured; NaN where none was."""
    measured = ~np.isnan(columns)
    with np.errstate(invalid="ignore"):
        n = np.where(measured.any(1), measured.sum(1), np.nan)
        return np.asarray(np.where(measured, columns, 0.0).sum(1) / n)


def aligned(curves: Sequence[tuple[Curve, bool]], tag: str) -> tuple[Array, Array]:
    """All steps at which any run was measured, and the values there, `[runs, steps]`.

    NaN where a run was not measured; the worst value from where one diverged (True beside its curve).
    """
    steps = np.unique(np.concatenate([curve.steps for curve, _ in curves]))
    values = np.full((len(curves), len(steps)), np.nan)
    for row, (curve, diverged) in zip(values, curves, strict=True):
        finite = statistics.worst_filled(curve.values, tag) if diverged else curve.values
        row[np.searchsorted(steps, curve.steps)] = finite
        if diverged:
            row[steps > curve.steps[-1]] = quantity(tag).worst
    return steps, values


def _nan_median(columns: Array) -> Array:
    """Median of each column of `[runs, steps]` without NaN; every column has a number."""
    ordered = np.sort(columns, axis=0)  # NaN last
    n = (~np.isnan(columns)).sum(0)
    at = np.arange(columns.shape[1])
    return np.asarray((ordered[(n - 1) // 2, at] + ordered[n // 2, at]) / 2)
