"""From rows as they are loaded to splits that networks train on: divided, encoded, standardised.

Every loader returns `Raw`; `prepare` makes `Data` of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil

from ffn_bench import errors, tags
from ffn_bench.configuration.schema import DataConfig
from ffn_bench.data import encoding
from ffn_bench.data.columns import Kind, without
from ffn_bench.data.encoding import Encoding
from ffn_bench.data.rows import Array, Data, Raw, Rows, Split
from ffn_bench.data.splitting import (
    check_classes,
    equal_rows,
    grouped_splits,
    quantiles,
    shared_rows,
    stratified_splits,
)
from ffn_bench.errors import UserError, data_error

MOST_WEIGHT = 1e30
"""Of a row, in units of the training rows' mean: sums of such are finite in float32."""


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
    warnings += shared_rows(same[train_rows], same[val_rows], same_test)
    train, val = taken(train_rows), taken(val_rows)

    expected = {"training": train.y}
    expected |= {"validation": val.y} if config.val_fraction > 0 else {}
    expected |= {"test": test.y} if getattr(config, "test_fraction", 1.0) > 0 else {}
    if raw.classes:
        check_classes(raw, expected, getattr(config, "test_path", None))
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
    scale = 1.0 if train.weights is None else _mean_weight(train.weights, val.weights, test.weights)

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
        chance=_chance_of_classes(len(raw.classes)) if raw.classes else _chance_of_targets(train.y),
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


def _mean_weight(weights: Array, *others: Array | None) -> float:
    """Of the training rows. Raises `UserError` where a weight, of these or of the other rows, is no moderate
    multiple of it."""
    mean = float(weights.mean())
    if not weights.any():
        raise data_error("data.weight", "all training rows have weight 0", "give some rows weight")
    largest = max(float(some.max(initial=0)) for some in (weights, *others) if some is not None)
    if mean == 0 or largest / MOST_WEIGHT > mean:
        what = f"the largest weight, {largest:g}, is too far above the training rows' mean, {mean:g}"
        raise data_error("data.weight", what, "give weights of comparable size")
    return mean


def _chance_of_classes(n_classes: int) -> dict[str, float]:
    """`Data.chance` of so many classes."""
    return {q.name: q.chance(n_classes) for q in tags.QUANTITIES if q.chance is not None}


def _chance_of_targets(y: Array) -> dict[str, float]:
    """`Data.chance` of these training targets `[n, n_targets]`: of their mean as the prediction."""
    deviations = y - y.mean(axis=0)
    return {
        tags.RMSE.name: float(np.sqrt(np.square(deviations).mean(axis=0)).mean()),
        tags.MAE.name: float(np.abs(deviations).mean()),
        tags.R2.name: 0.0,
    }
