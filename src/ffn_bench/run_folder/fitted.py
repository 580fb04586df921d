"""What a run fitted to its training rows, as run.json keeps it: it can predict when the data are gone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.data.splitting import Array, Data, standardised
from ffn_bench.errors import RUN_FOLDER, UserError

LARGEST = 2**20
"""Columns and classes at most."""


@dataclass(frozen=True)
class Fitted:
    """Names and standardisation of a data set's columns, and its classes."""

    columns: tuple[str, ...]
    """Names of the features, in the network's order."""
    classes: tuple[str, ...]
    mean: Array
    scale: Array
    """(x − mean)/scale is what the network was trained on: float64, `[n_features]` or, one for all, `[1]`."""

    def standardise(self, x: Array, dtype: npt.DTypeLike) -> Array:
        """Rows `[n, n_features]` as the network takes them; computed in float64, then cast."""
        with np.errstate(over="ignore"):  # of rows far from all that were trained on
            return standardised(x, self.mean, self.scale, np.float64).astype(dtype, copy=False)


def default_columns(n: int) -> tuple[str, ...]:
    """Names of the features of a data set that has none: `x0`, `x1`, …; of pictures row by row."""
    return tuple(f"x{k}" for k in range(n))


def fitted_to(data: Data[Any]) -> Fitted:
    """What was fitted to a data set's training rows."""
    columns = data.columns or default_columns(data.n_features)
    return Fitted(columns, data.classes, data.mean, data.std)


def to_record(data: Data[Any]) -> dict[str, Any]:
    """The same for run.json: numbers there read back to the last bit. `columns` is null for default names."""
    lists = {"mean": data.mean.tolist(), "scale": data.std.tolist()}
    return {"columns": data.columns, "classes": data.classes, **lists}


def from_record(record: Any, n_features: int, n_classes: int, where: str) -> Fitted:
    """What `to_record` gave, of a network with so many inputs and outputs. Raises `UserError` (status 4) for
    anything else."""
    if not isinstance(record, dict):
        raise _damaged(where)
    columns, classes = record.get("columns"), record.get("classes")
    if columns is None and n_features <= LARGEST:
        columns = list(default_columns(n_features))
    mean, scale = (_numbers(record.get(key)) for key in ("mean", "scale"))
    sound = (
        _are_names(columns, n_features)
        and _are_names(classes, n_classes)
        and mean is not None
        and scale is not None
        and len(mean) == len(scale)
        and len(mean) in (1, n_features)
        and bool((scale > 0).all())
    )
    if not sound:
        raise _damaged(where)
    return Fitted(tuple(columns), tuple(classes), mean, scale)  # type: ignore[arg-type]  # they are sound


def _damaged(where: str) -> UserError:
    what = "is damaged: its entry `fitted` is not of this network"
    return UserError(where, what, "restore it, or train again", RUN_FOLDER)


def _are_names(names: Any, count: int) -> bool:
    """Whether this is a list of so many different texts that any file can hold."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return False
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return len(names) == len(set(names)) == count <= LARGEST


def _numbers(values: Any) -> Array | None:
    """A list of finite numbers as float64, or None."""
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
    except OverflowError:
        return None
    return np.array(numbers) if all(map(math.isfinite, numbers)) else None
