"""Data sets by name: rows and labels → a stratified split → standardised arrays.

Every loader returns `Raw`; `load` splits and standardises it. Adding a data set is one loader in `LOADERS`
and one YAML in conf/data.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ffn_bench import errors, tags
from ffn_bench.configuration.schema import (
    DataConfig,
)
from ffn_bench.errors import UserError, data_error
from ffn_bench.seeds import generator

Array = npt.NDArray[Any]
Numbers = TypeVar("Numbers")
"""NumPy arrays, as they are loaded, or PyTorch's tensors (`engine.tensors`)."""
Others = TypeVar("Others")


class Split(NamedTuple, Generic[Numbers]):
    """One split of a data set: features `x [n, n_features]`, floating, and labels `y [n]`, int64."""

    x: Numbers
    y: Numbers


@dataclass(frozen=True, kw_only=True)
class Data(Generic[Numbers]):
    """A data set, split and standardised."""

    name: str
    train: Split[Numbers]
    val: Split[Numbers]
    test: Split[Numbers]
    classes: tuple[str, ...]
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
    """Columns of every `x`."""
    columns: tuple[str, ...] | None = None
    """Names of the features, where the data set has some."""
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have rows."""
        return [name for name in tags.SPLITS if len(getattr(self, name).y)]

    def map(self, convert: Callable[[Split[Numbers]], Split[Others]]) -> Data[Others]:
        """The same data, its splits in another form."""
        splits: dict[str, Any] = {name: convert(getattr(self, name)) for name in tags.SPLITS}
        return replace(cast("Data[Others]", self), **splits)


def in_dtype(data: Data[Array], dtype: str) -> Data[Array]:
    """The same data with features in `float32` or `float64`."""
    return data.map(lambda split: Split(np.ascontiguousarray(split.x, dtype), split.y))


@dataclass(frozen=True)
class Raw:
    """A data set as loaded: rows `x [n, n_features]` (float64, or uint8 pixels), class numbers `y [n]`, and
    perhaps a test set of its own."""

    x: Array
    y: Array
    classes: tuple[str, ...]
    test: tuple[Array, Array] | None = None
    image_shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    """Names of the features, where they have some."""


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
    for array in (raw.x, raw.y, *(raw.test or ())):
        digest.update(np.ascontiguousarray(array).data)

    warnings: list[str] = []
    same = equal_rows(raw.x if raw.test is None else np.concatenate([raw.x, raw.test[0]]))
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

    def split_rows(*sizes: int) -> list[Array]:
        if together:
            splits = grouped_splits(raw.y[rows], same[rows], sizes, rng)
        else:
            splits = stratified_splits(raw.y[rows], sizes, rng)
        return [rows[indices] for indices in splits]

    rng = np.random.default_rng(config.split_seed)
    n_val = round(len(rows) * config.val_fraction)
    if raw.test is None:
        n_test = round(len(rows) * getattr(config, "test_fraction", 0.0))
        test_rows, val_rows, train_rows = split_rows(n_test, n_val)
        x_test, y_test, same_test = raw.x[test_rows], raw.y[test_rows], same[test_rows]
    else:
        val_rows, train_rows = split_rows(n_val)
        x_test, y_test = raw.test
    warnings += _shared_rows(same[train_rows], same[val_rows], same_test)
    x_train, y_train = raw.x[train_rows], raw.y[train_rows]
    x_val, y_val = raw.x[val_rows], raw.y[val_rows]

    _check_classes(
        raw,
        {
            "training": y_train,
            **({"validation": y_val} if config.val_fraction > 0 else {}),
            **({"test": y_test} if getattr(config, "test_fraction", 1.0) > 0 else {}),
        },
    )

    # Bytes are pixels: their features are multiples of 1/255, in float32 to save memory, with one scale.
    pixels = raw.x.dtype == np.uint8
    mean, std = np.zeros(1), np.full(1, 255.0 if pixels else 1.0)
    if config.standardize:
        axis = None if pixels else 0
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.atleast_1d(x_train.mean(axis=axis, dtype=np.float64))
            std = np.atleast_1d(x_train.std(axis=axis, dtype=np.float64))
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise data_error("data", "a feature has values too large to standardise", "rescale it")
        if raw.image_shape is None and (
            constant := int((std == 0).sum())
        ):  # border pixels of pictures always are
            warnings.append(f"{constant} of {x_train.shape[1]} features are constant in the training split")
        std = np.where(std == 0, 1.0, std)

    def split(x: Array, y: Array) -> Split[Array]:
        return Split(standardised(x, mean, std, np.float32 if pixels else np.float64), y.astype(np.int64))

    return Data(
        name=config.name,
        train=split(x_train, y_train),
        val=split(x_val, y_val),
        test=split(x_test, y_test),
        classes=raw.classes,
        image_shape=raw.image_shape,
        mean=mean,
        std=std,
        sha256=digest.hexdigest(),
        chance=_chance(y_train, len(raw.classes)),
        n_features=x_train.shape[1],
        columns=raw.columns,
        warnings=tuple(warnings),
    )


def _chance(y: Array, n_classes: int) -> dict[str, float]:
    """`Data.chance` of these training labels."""
    proportions = np.bincount(y, minlength=n_classes) / len(y)
    entropy = -sum(p * math.log(p) for p in proportions.tolist() if p)
    scores = {score.name: score.chance(n_classes) for score in tags.SCORES if score.chance is not None}
    return {**scores, tags.LOSS.name: entropy}


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
