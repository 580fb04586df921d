"""What a run fitted to its training rows, as run.json keeps it: it can predict when the data are gone."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ffn_bench.data.columns import Kind
from ffn_bench.data.encoding import EncodedColumn, Encoding
from ffn_bench.data.preparation import standardised
from ffn_bench.data.rows import Array, Data
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.tags import Task

LARGEST = 2**20
"""Columns and classes at most."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Names, encoding and standardisation of a data set's columns, and its classes or targets."""

    columns: tuple[str, ...]
    """Names of a table's columns that the network was trained on, in order."""
    classes: tuple[str, ...]
    mean: Array
    scale: Array
    """(x − mean)/scale of inputs x is what the network was trained on: float64, `[n_inputs]` or, one for all,
    `[1]`."""
    encoding: Encoding | None = None
    """How columns become inputs; None: each is one, as it is."""
    targets: tuple[str, ...] = field(default=())
    """Names of a regression's targets, which has no classes."""
    target_mean: Array = field(default_factory=lambda: np.zeros(0))
    target_scale: Array = field(default_factory=lambda: np.ones(0))
    """output · scale + mean is a target in its own unit: float64, `[n_targets]`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the network's inputs, in order."""
        return self.columns if self.encoding is None else self.encoding.names(self.columns)

    @property
    def kinds(self) -> tuple[Kind, ...] | None:
        """How the columns of new rows are read; None: numbers, none of them blank."""
        return None if self.encoding is None else self.encoding.kinds

    @property
    def task(self) -> Task:
        """What the network was trained for."""
        return "regression" if self.targets else "classification"

    def in_own_unit(self, outputs: Array) -> Array:
        """Targets `[n, n_targets]`, float64, of a network's outputs in a regression."""
        return outputs.astype(np.float64) * self.target_scale + self.target_mean

    def standardised_targets(self, y: Array) -> Array:
        """The reverse: what the outputs should have been, float64 `[n, n_targets]`."""
        return standardised(y, self.target_mean, self.target_scale, np.float64)

    def standardise(self, x: Array, dtype: npt.DTypeLike) -> Array:
        """Rows `[n, n_columns]`, read as `kinds` say, as the network takes them, `[n, n_inputs]`; computed in
        float64, then cast."""
        if self.encoding is not None:
            x = self.encoding.inputs(x)
        with np.errstate(over="ignore"):  # of rows far from all that were trained on
            return standardised(x, self.mean, self.scale, np.float64).astype(dtype, copy=False)


def default_columns(n: int) -> tuple[str, ...]:
    """Names of the features of a data set that has none: `x0`, `x1`, …; of pictures row by row."""
    return tuple(f"x{k}" for k in range(n))


def fitted_to(data: Data[Any]) -> Fitted:
    """What was fitted to a data set's training rows."""
    columns = data.columns or default_columns(data.n_features)
    return Fitted(
        columns=columns,
        classes=data.classes,
        mean=data.mean,
        scale=data.std,
        encoding=data.encoding,
        targets=data.targets,
        target_mean=data.target_mean,
        target_scale=data.target_std,
    )


def to_record(data: Data[Any]) -> dict[str, Any]:
    """The same for run.json: numbers there read back to the last bit. `columns` is null for default names."""
    lists = {"mean": data.mean.tolist(), "scale": data.std.tolist()}
    record = {"columns": data.columns, "classes": data.classes, **lists}
    if data.encoding is not None:
        record["encoding"] = [dataclasses.asdict(column) for column in data.encoding.columns]
    if data.targets:
        means, scales = data.target_mean.tolist(), data.target_std.tolist()
        record |= {"targets": data.targets, "target_mean": means, "target_scale": scales}
    return record


def from_record(record: Any, n_features: int, n_outputs: int, where: str) -> Fitted:
    """What `to_record` gave, of a network with so many inputs and outputs. Raises `UserError` (status 4) for
    anything else."""
    if not isinstance(record, dict):
        raise _damaged(where)
    columns, classes = record.get("columns"), record.get("classes")
    encoding = _encoding(record["encoding"], n_features, where) if "encoding" in record else None
    n_columns = n_features if encoding is None else len(encoding.columns)
    if columns is None and n_columns <= LARGEST:
        columns = list(default_columns(n_columns))
    mean, scale = (_numbers(record.get(key)) for key in ("mean", "scale"))
    targets = _targets(record, n_outputs, where) if "targets" in record else {}
    n_classes = 0 if targets else n_outputs
    sound = (
        _are_names(columns, n_columns)
        and _are_names(classes, n_classes)
        and mean is not None
        and scale is not None
        and len(mean) == len(scale)
        and len(mean) in (1, n_features)
        and bool((scale > 0).all())
    )
    if not sound:
        raise _damaged(where)
    assert columns is not None and classes is not None and mean is not None and scale is not None
    return Fitted(
        columns=tuple(columns),
        classes=tuple(classes),
        mean=mean,
        scale=scale,
        encoding=encoding,
        **targets,
    )


def _encoding(record: Any, n_inputs: int, where: str) -> Encoding:
    """The encoding of columns into so many inputs, checked."""
    if not isinstance(record, list) or len(record) > LARGEST:
        raise _damaged(where)
    encoding = Encoding(tuple(_column(entry, where) for entry in record))
    if encoding.n_inputs != n_inputs:
        raise _damaged(where)
    return encoding


def _column(entry: Any, where: str) -> EncodedColumn:
    """What becomes of one column, checked."""
    names = {field.name for field in dataclasses.fields(EncodedColumn)}
    if not isinstance(entry, dict) or entry.keys() != names:
        raise _damaged(where)
    holds, categories, fill, indicator = (entry[key] for key in ("holds", "categories", "fill", "indicator"))
    of_categories = holds == "category"
    sound = (
        holds in ("number", "boolean", "category")
        and isinstance(categories, list)
        and _are_names(categories, len(categories))
        and of_categories == bool(categories)
        and type(indicator) is bool
        and (fill is not None or not indicator)
    )
    numbers = _numbers([] if fill is None else [fill]) if sound else None
    if numbers is None or (of_categories and any(f not in range(len(categories)) for f in numbers.tolist())):
        raise _damaged(where)
    fill = float(numbers[0]) if len(numbers) else None
    return EncodedColumn(holds=holds, categories=tuple(categories), fill=fill, indicator=indicator)


def _targets(record: dict[str, Any], n_outputs: int, where: str) -> dict[str, Any]:
    """The fields of a regression's targets, checked."""
    mean, scale = (_numbers(record.get(key)) for key in ("target_mean", "target_scale"))
    names = record["targets"]
    if not _are_names(names, n_outputs) or mean is None or scale is None:
        raise _damaged(where)
    if not len(mean) == len(scale) == n_outputs or not bool((scale > 0).all()):
        raise _damaged(where)
    return {"targets": tuple(names), "target_mean": mean, "target_scale": scale}


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
