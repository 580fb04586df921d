"""Data sets as arrays: rows as they are loaded, and splits as networks are trained on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ffn_bench import tags
from ffn_bench.checks import one_of
from ffn_bench.data.columns import Kind
from ffn_bench.data.encoding import Encoding
from ffn_bench.tags import Task

Array = npt.NDArray[Any]

Numbers = TypeVar("Numbers")
"""NumPy arrays, as they are loaded, or PyTorch's tensors (`engine.tensors`)."""

Others = TypeVar("Others")


class Split(NamedTuple, Generic[Numbers]):
    """One split of a data set: features `x [n, n_features]`, floating, and class numbers `y [n]`, int64, or
    in a regression standardised targets `y [n, n_targets]`, floating."""

    x: Numbers
    y: Numbers
    weights: Numbers | None = None
    """What each row counts in the loss, `[n]`, floating; None: all the same."""

    def map(self, convert: Callable[[Numbers], Others]) -> Split[Others]:
        """The same with its arrays in another form."""
        x, y, weights = self
        return Split(convert(x), convert(y), None if weights is None else convert(weights))


@dataclass(frozen=True, kw_only=True)
class Data(Generic[Numbers]):
    """A data set, split and standardised."""

    name: str
    train: Split[Numbers]
    val: Split[Numbers]
    test: Split[Numbers]
    classes: tuple[str, ...]
    """Names of the classes; none in a regression."""
    targets: tuple[str, ...] = ()
    """Names of a regression's targets."""
    target_mean: Array = field(default_factory=lambda: np.zeros(0))
    target_std: Array = field(default_factory=lambda: np.ones(0))
    """What was subtracted from each target and what it was divided by: `[n_targets]`."""
    image_shape: tuple[int, ...] | None
    """(height, width) or (height, width, 3) where a row is a picture, else None."""
    mean: Array
    std: Array
    """What was subtracted from each feature and what it was divided by: `[n_features]` or `[1]`."""
    sha256: str
    """Of the rows and labels as they were loaded."""
    chance: dict[str, float]
    """What a constant prediction scores, by name of the quantity."""
    n_features: int
    """Columns of every `x`: inputs of the network."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of its table, where the data set has some; each is a feature, where there is no
    `encoding`."""
    encoding: Encoding | None = None
    """How the columns have become inputs; None: each is one, as it is."""
    warnings: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What a network is trained for."""
        return "classification" if self.classes else "regression"

    @property
    def n_outputs(self) -> int:
        """Units of a network's last layer: classes, or targets."""
        return len(self.classes) or len(self.targets)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have rows."""
        return [name for name in tags.SPLITS if len(getattr(self, name).y)]

    def map(self, convert: Callable[[Split[Numbers]], Split[Others]]) -> Data[Others]:
        """The same data, its splits in another form."""
        splits: dict[str, Any] = {name: convert(getattr(self, name)) for name in tags.SPLITS}
        return replace(cast("Data[Others]", self), **splits)


def in_dtype(data: Data[Array], dtype: str) -> Data[Array]:
    """The same data with features, targets and weights in `float32` or `float64`."""

    def cast(array: Array) -> Array:
        return array if array.dtype.kind == "i" else np.ascontiguousarray(array, dtype)

    return data.map(lambda split: split.map(cast))


def weighted(data: Data[Array], class_weight: str | Mapping[str, float]) -> Data[Array]:
    """The same data, each row's weight times its class's: `none`, `balanced`, which is n/(n_classes · n of
    the class) of the training rows, or the weights of some classes, 1 for the others.

    Raises `UserError` for a class that the data do not have.
    """
    if class_weight == "none":
        return data
    if class_weight == "balanced":
        counts = np.bincount(data.train.y, data.train.weights, minlength=len(data.classes))
        of_class = counts.sum() / (len(counts) * counts)
    else:
        assert isinstance(class_weight, Mapping)
        for name in class_weight:
            one_of(name, data.classes, "loss.class_weight")
        of_class = np.array([class_weight.get(name, 1.0) for name in data.classes])

    def times(split: Split[Array]) -> Split[Array]:
        weights = of_class[split.y]
        return split._replace(weights=weights if split.weights is None else split.weights * weights)

    return data.map(times)


class Rows(NamedTuple):
    """Rows as loaded: `x [n, n_features]`, float64, or uint8 for pixels; class numbers `y [n]`, or targets of
    a regression `y [n, n_targets]`, float64; what each row counts in the loss, `[n]`, where that differs."""

    x: Array
    y: Array
    weights: Array | None = None


@dataclass(frozen=True)
class Raw:
    """A data set as loaded: its rows, see `Rows`, and perhaps a test set of its own."""

    x: Array
    y: Array
    classes: tuple[str, ...]
    """Their names; none in a regression."""
    _: KW_ONLY
    test: Rows | None = None
    image_shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    """Names of the columns of `x`, where they have some."""
    targets: tuple[str, ...] = ()
    """Names of a regression's targets."""
    weights: Array | None = None
    kinds: tuple[Kind, ...] | None = None
    """What the columns of `x` hold, where they are a table's; None: numbers, none of them blank."""
    notes: tuple[str, ...] = ()
    """What a person should know of how they were loaded."""
