"""Data sets by name: rows and labels → a stratified split → standardised arrays.

Every loader returns `Raw`; `load` splits and standardises it. Adding a data set is one loader in `LOADERS`
and one YAML in conf/data.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import psutil

from ffn_bench import errors, tags
from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import (
    DataConfig,
)
from ffn_bench.data import encoding
from ffn_bench.data.columns import Kind, without
from ffn_bench.data.encoding import Encoding
from ffn_bench.errors import UserError, data_error
from ffn_bench.seeds import generator
from ffn_bench.tags import Task

Array = npt.NDArray[Any]
Numbers = TypeVar("Numbers")
"""NumPy arrays, as they are loaded, or PyTorch's tensors (`engine.tensors`)."""
Others = TypeVar("Others")

QUANTILES = 10
"""Parts of a regression's targets, of which each split has its share."""


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
    """What a constant prediction scores, by name of the quantity; of the loss that is the entropy of the
    class proportions in the training split."""
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


def standardised(x: Array, mean: Array, scale: Array, dtype: npt.DTypeLike) -> Array:
    """(x − mean)/scale in a floating `dtype`, as a new array `[n, n_features]`; mean and scale are
    `[n_features]` or `[1]`."""
    scaled: Array = x.astype(dtype)
    scaled -= mean.astype(dtype)
    scaled /= scale.astype(dtype)
    return scaled


def prepare(raw: Raw, config: DataConfig) -> Data[Array]:
    """Rows as loaded, split and standardised. Raises `UserError` (status 3) for rows too few to split."""
    digest = hashlib.sha256()
    for array in (raw.x, raw.y, raw.weights, *(raw.test or ())):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    if categories := categories_of(raw.kinds):  # which their codes do not tell
        digest.update(repr(categories).encode())

    warnings = list(raw.notes)
    same = equal_rows(raw.x if raw.test is None else np.concatenate([raw.x, raw.test.x]))
    same, same_test = np.split(same, [len(raw.x)])
    rows = np.arange(len(raw.y))
    together = config.duplicates == "keep_together"
    if together and (left_out := np.isin(same, same_test)).any():
        rows = rows[~left_out]
        warnings.append(f"{left_out.sum()} training rows that are also in the test split are left out")
        if len(rows) == 0:
            raise data_error(
                "data", "every training row is also in the test split", "use data.duplicates=warn"
            )
    strata = raw.y if raw.classes else quantiles(raw.y)

    def split_rows(*sizes: int) -> list[Array]:
        if together:
            splits = grouped_splits(strata[rows], same[rows], sizes, rng)
        else:
            splits = stratified_splits(strata[rows], sizes, rng)
        return [rows[indices] for indices in splits]

    def taken(rows: Array) -> Rows:
        return Rows(raw.x[rows], raw.y[rows], None if raw.weights is None else raw.weights[rows])

    rng = np.random.default_rng(config.split_seed)
    n_val = round(len(rows) * config.val_fraction)
    if raw.test is None:
        n_test = round(len(rows) * getattr(config, "test_fraction", 0.0))
        test_rows, val_rows, train_rows = split_rows(n_test, n_val)
        test, same_test = taken(test_rows), same[test_rows]
    else:
        val_rows, train_rows = split_rows(n_val)
        test = raw.test
    warnings += _shared_rows(same[train_rows], same[val_rows], same_test)
    train, val = taken(train_rows), taken(val_rows)

    expected = {"training": train.y}
    expected |= {"validation": val.y} if config.val_fraction > 0 else {}
    expected |= {"test": test.y} if getattr(config, "test_fraction", 1.0) > 0 else {}
    if raw.classes:
        _check_classes(raw, expected)
    for name, y in expected.items():
        if len(y) == 0:
            raise data_error("data", f"the {name} split has no rows", "add rows, or change the fractions")
    fitted = None
    if raw.kinds is not None and any(kind != Kind() for kind in raw.kinds):
        fitted, (train, val, test) = _encoded(raw, (train, val, test), warnings)
    features = _standardisation(train.x, raw, config, warnings)
    if fitted is not None and config.standardize:  # 0 and 1 stay what they are
        numbers = fitted.standardised
        features = np.where(numbers, features[0], 0.0), np.where(numbers, features[1], 1.0)
    targets = _target_standardisation(train.y, raw)
    scale = 1.0 if train.weights is None else _mean_weight(train.weights)

    def split(rows: Rows) -> Split[Array]:
        x = standardised(rows.x, *features, np.float32 if rows.x.dtype == np.uint8 else np.float64)
        y = rows.y.astype(np.int64) if raw.classes else standardised(rows.y, *targets, np.float64)
        return Split(x, y, None if rows.weights is None else rows.weights / scale)

    return Data(
        name=config.name,
        train=split(train),
        val=split(val),
        test=split(test),
        classes=raw.classes,
        targets=raw.targets,
        target_mean=targets[0],
        target_std=targets[1],
        image_shape=raw.image_shape,
        mean=features[0],
        std=features[1],
        sha256=digest.hexdigest(),
        chance=_chance_of_classes(train.y, len(raw.classes)) if raw.classes else _chance_of_targets(train.y),
        n_features=train.x.shape[1],
        columns=raw.columns,
        encoding=fitted,
        warnings=tuple(warnings),
    )


def categories_of(kinds: Sequence[Kind] | None) -> list[tuple[str, ...] | None]:
    """The categories of each column, where there are columns of categories; else nothing."""
    categories = [kind.categories if kind.holds == "category" else None for kind in kinds or ()]
    return categories if any(one is not None for one in categories) else []


def _encoded(raw: Raw, splits: Sequence[Rows], warnings: list[str]) -> tuple[Encoding, list[Rows]]:
    """The encoding of a table, fitted to the first of its splits, and all of them encoded; adds warnings of
    categories that the first one does not have."""
    assert raw.kinds is not None and raw.columns is not None
    fitted = encoding.fit(splits[0].x, raw.kinds, raw.columns)
    n_rows, available = sum(len(rows.x) for rows in splits), psutil.virtual_memory().available
    needed = 16 * n_rows * fitted.n_inputs  # and once more, standardised
    if needed > available:
        widest = max(zip(fitted.columns, raw.columns, strict=True), key=lambda pair: pair[0].width)[1]
        what = f"its {fitted.n_inputs:,} inputs, one a category, need {needed / 1e9:,.1f} GB"
        what += f", and {available / 1e9:.1f} GB are free"
        raise UserError("data", what, f"leave a column out: {without(widest)}", errors.RESOURCE)
    for split, rows in zip(("validation", "test"), splits[1:], strict=True):
        for name, count in zip(raw.columns, fitted.unseen(rows.x, raw.kinds), strict=True):
            if count:
                of = f"{count:,} {split} row{'s' * (count != 1)}"
                warnings.append(
                    f"column {name!r} has in {of} a category that no training row has: all its inputs are 0"
                )
    return fitted, [rows._replace(x=fitted.inputs(rows.x, raw.kinds)) for rows in splits]


def _standardisation(x: Array, raw: Raw, config: DataConfig, warnings: list[str]) -> tuple[Array, Array]:
    """Mean and scale of each feature of the training rows, or `[1]` of all; adds a warning of those that are
    constant. Bytes are pixels: their features are multiples of 1/255, in float32 to save memory, with one
    scale."""
    pixels = x.dtype == np.uint8
    if not config.standardize:
        return np.zeros(1), np.full(1, 255.0 if pixels else 1.0)
    axis = None if pixels else 0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.atleast_1d(x.mean(axis=axis, dtype=np.float64))
        std = np.atleast_1d(x.std(axis=axis, dtype=np.float64))
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise data_error("data", "a feature has values too large to standardise", "rescale it")
    constant = int((std == 0).sum())
    if raw.image_shape is None and constant:  # border pixels of pictures always are
        warnings.append(f"{constant} of {x.shape[1]} features are constant in the training split")
    return mean, np.where(std == 0, 1.0, std)


def _target_standardisation(y: Array, raw: Raw) -> tuple[Array, Array]:
    """Mean and scale of each target of the training rows."""
    if raw.classes:
        return np.zeros(0), np.ones(0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = y.mean(axis=0), y.std(axis=0)
    for name, centre, deviation in zip(raw.targets, mean.tolist(), std.tolist(), strict=True):
        if not (math.isfinite(centre) and math.isfinite(deviation)):
            raise data_error("data", f"target {name!r} has values too large to standardise", "rescale it")
        if deviation == 0:
            what = f"target {name!r} is constant in the training split ({centre:g})"
            raise data_error("data", what, "choose a target that varies")
    return mean, std


def _mean_weight(weights: Array) -> float:
    """Of the training rows."""
    mean = float(weights.mean())
    if mean <= 0:
        raise data_error("data.weight", "all training rows have weight 0", "give some rows weight")
    return mean


def _chance_of_classes(y: Array, n_classes: int) -> dict[str, float]:
    """`Data.chance` of these training labels."""
    proportions = np.bincount(y, minlength=n_classes) / len(y)
    entropy = -sum(p * math.log(p) for p in proportions.tolist() if p)
    scores = {q.name: q.chance(n_classes) for q in tags.QUANTITIES if q.chance is not None}
    return {**scores, tags.LOSS.name: entropy}


def _chance_of_targets(y: Array) -> dict[str, float]:
    """`Data.chance` of these training targets `[n, n_targets]`: of their mean as the prediction."""
    deviations = y - y.mean(axis=0)
    return {
        tags.RMSE.name: float(np.sqrt(np.square(deviations).mean(axis=0)).mean()),
        tags.MAE.name: float(np.abs(deviations).mean()),
        tags.R2.name: 0.0,
    }


def quantiles(y: Array) -> Array:
    """For every row of a regression's targets `[n, n_targets]` the tenth that the first target is in: int64
    `[n]`."""
    ranks = np.argsort(np.argsort(y[:, 0], kind="stable"), kind="stable")
    return ranks * QUANTILES // max(1, len(y))


def stratified_splits(y: Array, sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Row numbers of disjoint splits of the given sizes, and last of the rest, each with y's proportions.

    Rows are dealt out in `_stratified_order`, so each split has each class in proportion, to within two
    rows.
    """
    return [np.sort(rows) for rows in np.split(_stratified_order(y, rng), np.cumsum(sizes))]


def _stratified_order(y: Array, rng: np.random.Generator) -> Array:
    """Row numbers in a random order that mixes the classes evenly.

    Every row gets a random rank in its class, scaled to (0, 1); the rows are sorted by it.
    """
    rank = np.empty(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        rank[rows] = (rng.permutation(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(rank, kind="stable")


def equal_rows(x: Array) -> Array:
    """For every row the number of the first row that equals it: int64 `[n]`."""
    x = np.ascontiguousarray(x)
    zero = 0.0 if x.dtype.kind == "f" else 0  # makes 0.0 of -0.0
    first_equal = rows = np.arange(len(x))
    row_bytes = x.shape[1] * x.itemsize
    if len(x) and row_bytes % 8 == 0:  # sorting hashes is ten times as fast as sorting rows
        factors = np.random.default_rng(0).integers(2**63, size=row_bytes // 8, dtype=np.uint64) * 2 + 1
        hashes = np.empty(len(x), np.uint64)
        n_block = 2**18 // row_bytes + 1  # rows that fit into the processor's cache
        for start in range(0, len(x), n_block):
            words = (x[start : start + n_block] + zero).view(np.uint64)
            hashes[start : start + n_block] = (words ^ (words >> 32)) @ factors
        ordered = np.sort(hashes)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated) == 0:
            return first_equal
        if len(repeated) < len(x) // 10:  # the others equal no other row
            rows = np.flatnonzero(np.isin(hashes, repeated))

    as_bytes = (x[rows] + zero).view(np.dtype((np.void, row_bytes))).ravel()
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    first_equal[rows] = rows[first[inverse]]
    return first_equal


def grouped_splits(y: Array, groups: Array, sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """`stratified_splits` that never divides a group: `groups [n]` are the numbers of their first rows.

    Groups are dealt out in stratified order, each by the rarest class in it; each goes to the first split
    that has room for all of it. A split that has room left then takes the smallest remaining group, where
    that brings it nearer to its size. Where the groups that are not far too large for the splits do not
    suffice for them, all splits shrink alike. Raises `UserError` (status 3) where a split remains empty.
    """
    counts = np.bincount(y)
    by_rarity = np.argsort(counts, kind="stable")
    rarity = np.argsort(by_rarity)
    _, group_of, n_rows = np.unique(groups, return_inverse=True, return_counts=True)
    rarest = np.full(len(n_rows), len(counts))
    np.minimum.at(rarest, group_of, rarity[y])
    order = _stratified_order(by_rarity[rarest], rng).tolist()

    wanted = sum(sizes)
    available = min(wanted, int(n_rows[n_rows < 2 * max(sizes)].sum()))
    room = [size * available // max(wanted, 1) for size in sizes]
    rest = len(sizes)
    split_of, size_of = np.full(len(n_rows), rest), n_rows.tolist()
    for group in order:
        for split, left in enumerate(room):
            if size_of[group] <= left:
                split_of[group] = split
                room[split] -= size_of[group]
                break
    for split, left in enumerate(room):
        nearer = [group for group in order if split_of[group] == rest and size_of[group] < 2 * left]
        if nearer:
            split_of[min(nearer, key=size_of.__getitem__)] = split

    splits = [np.flatnonzero(split_of[group_of] == split) for split in range(rest + 1)]
    names = ("test", "validation", "training")[-len(splits) :]
    for name, rows, size in zip(names, splits, (*sizes, 1), strict=True):
        if size > 0 and len(rows) == 0:
            raise data_error(
                "data.duplicates",
                f"keep_together leaves the {name} split empty: of the {len(y)} rows {len(n_rows)} are "
                f"different, and the most frequent one occurs {n_rows.max()} times",
                "remove duplicates, or use data.duplicates=warn",
            )
    return splits


def _shared_rows(train: Array, val: Array, test: Array) -> list[str]:
    """A warning where rows of the validation or the test split are also in an earlier split, all given as
    numbers of `equal_rows`."""
    n_val = int(np.isin(val, train).sum())
    n_test = int(np.isin(test, np.concatenate([train, val])).sum())
    shared = [f"{n_val} of {len(val)} validation rows are also in training"] if n_val else []
    if n_test:
        shared.append(f"{n_test} of {len(test)} test rows are also in training or validation")
    todo = "their scores may be too good; data.duplicates=keep_together keeps equal rows in one split"
    return [f"{', '.join(shared)}: {todo}"] if shared else []


def _check_classes(raw: Raw, labels: dict[str, Array]) -> None:
    """Every class must be in every split that `labels` holds, by name."""
    counts = np.bincount(raw.y, minlength=len(raw.classes))
    for split, y in labels.items():
        if len(absent := np.setdiff1d(np.arange(len(raw.classes)), y)):
            label = raw.classes[absent[0]]
            n = int(counts[absent[0]])
            raise UserError(
                "data",
                f"class {label!r} has {n} row{'s' * (n != 1)} and none of them is in the {split} split",
                "add rows, merge rare classes, or change data.val_fraction and data.test_fraction",
                errors.DATA,
            )


def epoch_order(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which epoch `epoch` (from 1) visits the n training rows: `[n]`.

    A function of (seed, epoch) alone, so that engines, devices and resumed runs share it.
    """
    return generator(seed, "order of an epoch", epoch).permutation(n)


def batch_rows(n: int, batch_size: int | str) -> int:
    """Rows of a mini-batch of n training rows: `full` is all of them."""
    return n if batch_size == "full" else min(n, int(batch_size))


def steps_per_epoch(n: int, batch_size: int | str, drop_last: bool) -> int:
    """Updates that one pass over n training rows makes."""
    if batch_size == "full":
        return 1
    return n // int(batch_size) if drop_last else math.ceil(n / int(batch_size))
