"""Which rows go to which split: stratified, and equal rows together where that is asked for."""

from __future__ import annotations

import numpy as np

from ffn_bench import errors
from ffn_bench.data.rows import Array, Raw
from ffn_bench.errors import UserError, data_error

QUANTILES = 10
"""Parts of a regression's targets, of which each split has its share."""


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


def shared_rows(train: Array, val: Array, test: Array) -> list[str]:
    """A warning where rows of the validation or the test split are also in an earlier split, all given as
    numbers of `equal_rows`."""
    n_val = int(np.isin(val, train).sum())
    n_test = int(np.isin(test, np.concatenate([train, val])).sum())
    shared = [f"{n_val} of {len(val)} validation rows are also in training"] if n_val else []
    if n_test:
        shared.append(f"{n_test} of {len(test)} test rows are also in training or validation")
    todo = "their scores may be too good; data.duplicates=keep_together keeps equal rows in one split"
    return [f"{', '.join(shared)}: {todo}"] if shared else []


def check_classes(raw: Raw, labels: dict[str, Array], test_file: str | None = None) -> None:
    """Every class must be in every split that `labels` holds, by name; the test split may be a file."""
    counts = np.bincount(raw.y, minlength=len(raw.classes))
    for split, y in labels.items():
        if len(absent := np.setdiff1d(np.arange(len(raw.classes)), y)):
            label = raw.classes[absent[0]]
            n = int(counts[absent[0]])
            if split == "test" and test_file is not None:
                what = f"has no row of class {label!r}"
                raise data_error(test_file, what, "add some, or leave data.test_path out")
            raise UserError(
                "data",
                f"class {label!r} has {n} row{'s' * (n != 1)} and none of them is in the {split} split",
                "add rows, merge rare classes, or change data.val_fraction and data.test_fraction",
                errors.DATA,
            )
