"""Data sets by name: rows and labels → a stratified split → standardised tensors.

Every loader returns `Raw`; `load` splits and standardises it. Adding a data set is one loader in `LOADERS`
and one YAML in conf/data.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import math
import os
import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from ffn_bench import errors
from ffn_bench.config import one_of
from ffn_bench.errors import UserError, nearest
from ffn_bench.schema import (
    CsvConfig,
    DataConfig,
    MoonsConfig,
    SpiralsConfig,
    SyntheticConfig,
    TorchvisionConfig,
)

Array = npt.NDArray[Any]


class Split(NamedTuple):
    """A part of a data set: features `x [n, n_features]`, floating, and labels `y [n]`, int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Data:
    """A data set, split and standardised, on one device."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    """(height, width) or (height, width, 3) where a row is a picture, else None."""
    mean: Tensor
    std: Tensor
    """What was taken off each feature and what it was divided by: `[n_features]` or `[1]`."""
    sha256: str
    """Of the rows and labels as they were loaded."""
    warnings: tuple[str, ...] = ()

    @property
    def n_features(self) -> int:
        """Columns of every `x`."""
        return self.train.x.shape[1]

    @property
    def chance(self) -> dict[str, float]:
        """What predicting the same for every row comes to, by kind of metric: accuracy 1 / classes; the loss
        of the shares that the classes have in the training part, which is their entropy in nats."""
        shares = torch.bincount(self.train.y, minlength=len(self.classes)).double() / len(self.train.y)
        return {"accuracy": 1 / len(self.classes), "loss": float(torch.special.entr(shares).sum())}

    def to(self, device: torch.device, dtype: torch.dtype) -> Data:
        """The same data with features in `dtype`, everything on `device`."""

        def move(split: Split) -> Split:
            return Split(split.x.to(device, dtype), split.y.to(device))

        return replace(self, train=move(self.train), val=move(self.val), test=move(self.test))


@dataclass(frozen=True)
class Raw:
    """A data set as loaded: rows `x [n, n_features]` (float64, or uint8 pixels), class numbers `y [n]`, and
    perhaps a test set of its own."""

    x: Array
    y: Array
    classes: tuple[str, ...]
    test: tuple[Array, Array] | None = None
    image_shape: tuple[int, ...] | None = None


_loaded: dict[str, Data] = {}


def load(config: DataConfig) -> Data:
    """The data set that `config` names, split and standardised, on the CPU; loaded once a process.

    Raises `UserError` (status 3) for files that are missing, damaged or not a table of numbers, and for
    rows too few to split.
    """
    key = repr(config)
    if key not in _loaded:
        while len(_loaded) >= 4:
            _loaded.pop(next(iter(_loaded)))
        one_of(config.name, tuple(LOADERS), "data")
        _loaded[key] = _prepare(LOADERS[config.name](config), config)
    return _loaded[key]


def _prepare(raw: Raw, config: DataConfig) -> Data:
    digest = hashlib.sha256()
    for part in (raw.x, raw.y, *(raw.test or ())):
        digest.update(np.ascontiguousarray(part).data)

    warnings: list[str] = []
    same = equal_rows(raw.x if raw.test is None else np.concatenate([raw.x, raw.test[0]]))
    same, same_test = np.split(same, [len(raw.x)])
    rows = np.arange(len(raw.y))
    together = config.duplicates == "keep_together"
    if together and (left_out := np.isin(same, same_test)).any():
        rows = rows[~left_out]
        warnings.append(f"{left_out.sum()} training rows that are in the test part too are left out")
        if len(rows) == 0:
            raise _bad("data", "every training row is in the test part too", "use data.duplicates=warn")

    def parts(*sizes: int) -> list[Array]:
        if together:
            found = grouped_parts(raw.y[rows], same[rows], sizes, rng)
        else:
            found = stratified_parts(raw.y[rows], sizes, rng)
        return [rows[part] for part in found]

    rng = np.random.default_rng(config.split_seed)
    n_val = round(len(rows) * config.val_fraction)
    if raw.test is None:
        n_test = round(len(rows) * getattr(config, "test_fraction", 0.0))
        test_rows, val_rows, train_rows = parts(n_test, n_val)
        x_test, y_test, same_test = raw.x[test_rows], raw.y[test_rows], same[test_rows]
    else:
        val_rows, train_rows = parts(n_val)
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

    # Bytes are pixels: their features are shares of 255, in float32 to spare memory, with one scale for all.
    pixels = raw.x.dtype == np.uint8
    mean, std = np.zeros(1), np.full(1, 255.0 if pixels else 1.0)
    if config.standardize:
        axis = None if pixels else 0
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.atleast_1d(x_train.mean(axis=axis, dtype=np.float64))
            std = np.atleast_1d(x_train.std(axis=axis, dtype=np.float64))
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise _bad("data", "a feature has values too large to standardise", "rescale it")
        if raw.image_shape is None and (constant := int((std == 0).sum())):  # border pixels are no news
            warnings.append(f"{constant} of {x_train.shape[1]} features are constant in the training part")
        std = np.where(std == 0, 1.0, std)

    def split(x: Array, y: Array) -> Split:
        scaled: npt.NDArray[np.floating[Any]] = x.astype(np.float32 if pixels else np.float64)
        scaled -= mean.astype(scaled.dtype)
        scaled /= std.astype(scaled.dtype)
        return Split(torch.from_numpy(scaled), torch.from_numpy(y.astype(np.int64)))

    return Data(
        name=config.name,
        train=split(x_train, y_train),
        val=split(x_val, y_val),
        test=split(x_test, y_test),
        classes=raw.classes,
        image_shape=raw.image_shape,
        mean=torch.from_numpy(mean),
        std=torch.from_numpy(std),
        sha256=digest.hexdigest(),
        warnings=tuple(warnings),
    )


def stratified_parts(y: Array, sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Row numbers of disjoint parts of the given sizes, and last of the rest, each with y's class shares.

    Rows are shared out in `_stratified_order`, so each part holds each class in proportion, to within two
    rows.
    """
    return [np.sort(part) for part in np.split(_stratified_order(y, rng), np.cumsum(sizes))]


def _stratified_order(y: Array, rng: np.random.Generator) -> Array:
    """Row numbers in a random order that mixes the classes evenly.

    Every row gets a random place in its class, scaled to (0, 1); the rows are sorted by their places.
    """
    place = np.empty(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        place[rows] = (rng.permutation(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")


def equal_rows(x: Array) -> Array:
    """For every row the number of the first row that equals it: int64 `[n]`."""
    x = np.ascontiguousarray(x + 0.0 if x.dtype.kind == "f" else x)  # makes 0.0 of -0.0
    as_bytes = x.view(np.dtype((np.void, x.shape[1] * x.itemsize))).ravel()
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    return first[inverse]


def grouped_parts(y: Array, groups: Array, sizes: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """`stratified_parts` that never divides a group: `groups [n]` are the numbers of their first rows.

    Groups are shared out in the order of their places, in the class that is the rarest of theirs; each goes
    to the first part that has room for all of it. A part that has room left then takes the smallest group
    of the rest, where that brings it nearer to its size. Where the groups that are not far too large for
    the parts do not suffice for them, all parts shrink alike. Raises `UserError` (status 3) where a part
    remains empty.
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
    part_of, size_of = np.full(len(n_rows), rest), n_rows.tolist()
    for group in order:
        for part, left in enumerate(room):
            if size_of[group] <= left:
                part_of[group] = part
                room[part] -= size_of[group]
                break
    for part, left in enumerate(room):
        nearer = [group for group in order if part_of[group] == rest and size_of[group] < 2 * left]
        if nearer:
            part_of[min(nearer, key=size_of.__getitem__)] = part

    found = [np.flatnonzero(part_of[group_of] == part) for part in range(rest + 1)]
    names = ("test", "validation", "training")[-len(found) :]
    for name, rows, size in zip(names, found, (*sizes, 1), strict=True):
        if size > 0 and len(rows) == 0:
            raise _bad(
                "data.duplicates",
                f"keep_together leaves the {name} part empty: the {len(y)} rows hold {len(n_rows)} "
                f"different ones, the commonest {n_rows.max()} times",
                "drop copies, or use data.duplicates=warn",
            )
    return found


def _shared_rows(train: Array, val: Array, test: Array) -> list[str]:
    """A warning where rows of the validation or the test part are in an earlier part too, all parts given
    as numbers of `equal_rows`."""
    n_val = int(np.isin(val, train).sum())
    n_test = int(np.isin(test, np.concatenate([train, val])).sum())
    shared = [f"{n_val} of {len(val)} validation rows are in training too"] if n_val else []
    if n_test:
        shared.append(f"{n_test} of {len(test)} test rows are in training or validation too")
    todo = "scores there may be too good; data.duplicates=keep_together keeps equal rows in one part"
    return [f"{', '.join(shared)}: {todo}"] if shared else []


def _check_classes(raw: Raw, parts: dict[str, Array]) -> None:
    """Every class must be in every part that is not empty."""
    counts = np.bincount(raw.y, minlength=len(raw.classes))
    for part, y in parts.items():
        if len(absent := np.setdiff1d(np.arange(len(raw.classes)), y)):
            label = raw.classes[absent[0]]
            n = int(counts[absent[0]])
            raise UserError(
                "data",
                f"class {label!r} has {n} row{'s' * (n != 1)} and none of them is in the {part} part",
                "add rows, join rare classes, or change data.val_fraction and data.test_fraction",
                errors.DATA,
            )


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order in which epoch `epoch` (from 1) visits the n training rows: int64 `[n]`, on the CPU.

    A function of (seed, epoch) alone, so that engines, devices and resumed runs share it.
    """
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(n))


# --- data sets without files ----------------------------------------------------------------------------


def load_digits(config: DataConfig) -> Raw:
    """scikit-learn's 8 × 8 digits, read from its package without importing it (which takes 0.7 s)."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations
    table = np.loadtxt(
        Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=","
    )
    return Raw(table[:, :-1], table[:, -1].astype(np.int64), tuple("0123456789"), image_shape=(8, 8))


def load_synthetic(config: DataConfig) -> Raw:
    """Gaussian clusters: scikit-learn's make_classification with half of the features informative."""
    from sklearn.datasets import make_classification

    config = cast(SyntheticConfig, config)
    informative = max(2, config.n_features // 2)
    if config.n_classes > 2**informative:
        raise UserError(
            "data.n_classes",
            f"{config.n_classes} classes need more than {config.n_features} features",
            f"use at most {2**informative} classes",
        )
    x, y = make_classification(
        n_samples=config.n_samples,
        n_features=config.n_features,
        n_informative=informative,
        n_redundant=0,
        n_classes=config.n_classes,
        n_clusters_per_class=1,
        class_sep=1.5,
        flip_y=0.02,
        random_state=config.split_seed,
    )
    return Raw(x, y.astype(np.int64), tuple(str(k) for k in range(config.n_classes)))


def load_moons(config: DataConfig) -> Raw:
    """scikit-learn's make_moons."""
    from sklearn.datasets import make_moons

    config = cast(MoonsConfig, config)
    x, y = make_moons(n_samples=config.n_samples, noise=config.noise, random_state=config.split_seed)
    return Raw(x, y.astype(np.int64), ("upper", "lower"))


def load_spirals(config: DataConfig) -> Raw:
    """`n_classes` arms of one and a half turns, radius from 0 to 1, Gaussian noise on both coordinates."""
    config = cast(SpiralsConfig, config)
    rng = np.random.default_rng(config.split_seed)
    y = np.arange(config.n_samples) % config.n_classes
    radius = np.sqrt(rng.random(config.n_samples))
    angle = 3 * math.pi * radius + 2 * math.pi * y / config.n_classes
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    x += rng.normal(scale=config.noise / 2, size=x.shape)
    return Raw(x, y.astype(np.int64), tuple(f"arm {k}" for k in range(config.n_classes)))


# --- a person's own table -------------------------------------------------------------------------------


def load_csv(config: DataConfig) -> Raw:
    """A delimited text file with a header, numeric features and one label column of any kind.

    Strict: a row that is short or long, a cell that is blank, not a number or not finite, a quote left
    open, a column named twice are each an error that names line and column.
    """
    config = cast(CsvConfig, config)
    path = _expanded(config.path, "data.path")
    _check_file(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            return _read_table(file, config)
        except UnicodeDecodeError as e:
            byte = e.object[e.start]
            raise _bad(config.path, f"is not UTF-8 (byte 0x{byte:02x})", "save it as UTF-8") from e


def _expanded(path: str, key: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise _bad(key, f"{path}: there is no such user", "write the path in full") from e


def _bad(where: str, what: str, todo: str) -> UserError:
    return UserError(where, what, todo, errors.DATA)


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as e:
        reason = "no such file" if isinstance(e, FileNotFoundError) else (e.strerror or str(e)).lower()
        raise _bad(str(path), reason, f"data.path is read from {Path.cwd()}") from e
    if stat.S_ISDIR(status.st_mode):
        raise _bad(str(path), "is a folder", "name a CSV file")
    if not stat.S_ISREG(status.st_mode):
        raise _bad(str(path), "is not a regular file", "save the table to a file first")
    if not os.access(path, os.R_OK):
        raise _bad(str(path), "cannot be read", "check its permissions")
    if status.st_size == 0:
        raise _bad(str(path), "is empty", "give it a header and rows")
    available = psutil.virtual_memory().available
    if status.st_size > available:
        raise _bad(
            str(path),
            f"has {status.st_size / 1e9:.1f} GB, more than the {available / 1e9:.1f} GB of free memory",
            "train on a sample of its rows",
        )


def _read_table(file: IO[str], config: CsvConfig) -> Raw:
    where = config.path

    def lines() -> Iterator[str]:
        for number, line in enumerate(file, start=1):
            if "\0" in line:
                raise _bad(f"{where}, line {number}", "contains a NUL byte", "export it again as text")
            yield line

    reader = csv.reader(lines(), delimiter=config.delimiter, strict=True)
    values, labels, line_numbers = array("d"), [], array("L")
    try:
        header = [name.strip() for name in next(reader, [])]
        target = _check_header(header, config)
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            place = f"{where}, line {reader.line_num}"
            if len(row) != len(header):
                cells = f"{len(row)} cell{'s' * (len(row) != 1)}"
                raise _bad(place, f"has {cells} where the header has {len(header)}", "mend the row")
            label = row.pop(target).strip()
            if not label:
                raise _bad(f"{place}, column {header[target]!r}", "blank label", "fill it in or drop the row")
            labels.append(label)
            line_numbers.append(reader.line_num)
            try:
                values.extend(map(float, row))
            except ValueError:
                _explain_row(row, header, target, place)
            if "_" in (cells := "".join(row)) or not cells.isascii():
                _explain_row(row, header, target, place)  # float() takes 1_0 and other scripts' digits
    except csv.Error as e:
        what = "a quote is opened and never closed" if "end of data" in str(e) else str(e)
        raise _bad(f"{where}, line {reader.line_num}", what, "mend the file") from e

    if not labels:
        raise _bad(where, "has a header and no rows", "add rows")
    x = np.frombuffer(values, dtype=np.float64).reshape(len(labels), len(header) - 1)
    if not np.isfinite(x).all():
        row_number, column = np.argwhere(~np.isfinite(x))[0]
        name = [h for k, h in enumerate(header) if k != target][column]
        raise _bad(
            f"{where}, line {line_numbers[row_number]}, column {name!r}",
            f"{x[row_number, column]} is not a finite number",
            "fill it in or drop the row",
        )
    classes, y = _class_numbers(labels)
    if len(classes) == 1:
        raise _bad(where, f"column {config.target!r} has one class only, {classes[0]!r}", "give two or more")
    if len(classes) > max(20, len(labels) // 2):
        raise _bad(
            where,
            f"column {config.target!r} has {len(classes)} different labels in {len(labels)} rows",
            "choose a column of classes (measured quantities are not classes)",
        )
    return Raw(x, y, classes)


def _check_header(header: list[str], config: CsvConfig) -> int:
    """The position of the target column."""
    if not header:
        raise _bad(config.path, "has no header line", "name the columns in the first line")
    for name in header:
        if not name:
            raise _bad(f"{config.path}, line 1", "a column has no name", "name every column")
        if header.count(name) > 1:
            raise _bad(f"{config.path}, line 1", f"column {name!r} is there twice", "rename one")
    if len(header) == 1:
        guess = next((d for d in ";\t|," if d in header[0] and d != config.delimiter), None)
        if guess:
            shown = {"\t": "tab", ";": "\"';'\"", "|": "\"'|'\""}.get(guess, guess)
            raise _bad(
                f"{config.path}, line 1",
                f"has one column only when split at {config.delimiter!r}",
                f"try data.delimiter={shown}",
            )
        raise _bad(f"{config.path}, line 1", "has one column only", "give features and a target")
    if config.target not in header:
        columns = ", ".join(header[:20]) + (", …" if len(header) > 20 else "")
        raise _bad(
            "data.target",
            f"{config.path} has no column {config.target!r}{nearest(config.target, header)}",
            f"its columns: {columns}",
        )
    return header.index(config.target)


def _explain_row(row: list[str], header: list[str], target: int, place: str) -> None:
    names = [name for k, name in enumerate(header) if k != target]
    for name, cell in zip(names, row, strict=True):
        try:
            float(cell if cell.isascii() and "_" not in cell else "")
        except ValueError:
            what = "blank cell" if not cell.strip() else f"{cell!r} is not a number"
            raise _bad(f"{place}, column {name!r}", what, "features must be numbers") from None


def _class_numbers(labels: list[str]) -> tuple[tuple[str, ...], Array]:
    """Class names in their natural order (numbers by value), and each row's class number."""
    names: list[str] = sorted(set(labels))
    try:
        names.sort(key=float)
    except ValueError:
        names.sort()
    number = {name: k for k, name in enumerate(names)}
    return tuple(names), np.array([number[label] for label in labels], dtype=np.int64)


# --- torchvision ----------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where downloads are kept when `data.root` is not given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffn-bench"


def load_torchvision(config: DataConfig) -> Raw:
    """MNIST, Fashion-MNIST, KMNIST or CIFAR-10: pixels in [0, 1]; downloaded only where files are missing."""
    from torchvision import datasets  # registers operators with torch: 1 s, and it must be of torch's build

    config = cast(TorchvisionConfig, config)
    kinds = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "cifar10": datasets.CIFAR10,
    }
    kind = kinds[config.name]
    root = _expanded(config.root, "data.root") if config.root else cache_folder()
    try:
        parts = [kind(root, train=train, download=False) for train in (True, False)]
    except RuntimeError as missing:
        if not config.download:
            raise _missing_files(kind, root, "and data.download is false") from missing
        _download(kind, root)
        parts = [kind(root, train=train, download=False) for train in (True, False)]
    except (OSError, ValueError, AssertionError, EOFError) as e:
        raise _bad(str(root), f"a file of {config.name} is damaged ({e})", "delete it and run again") from e
    (x, y), test = [(np.asarray(part.data), np.asarray(part.targets)) for part in parts]
    classes = tuple(str(k) for k in range(10)) if config.name == "mnist" else tuple(parts[0].classes)
    return Raw(x.reshape(len(x), -1), y, classes, (test[0].reshape(len(test[0]), -1), test[1]), x.shape[1:])


def _download(kind: Any, root: Path) -> None:
    """Fetch into a folder beside the cache and move it in whole, so that a cut download leaves no trace."""
    import shutil
    import socket
    import tempfile

    timeout, made = socket.getdefaulttimeout(), not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            socket.setdefaulttimeout(30)
            kind(folder, train=True, download=True)
            for part in Path(folder).iterdir():
                shutil.copytree(part, root / part.name, dirs_exist_ok=True)
    except (OSError, RuntimeError) as e:
        raise _missing_files(kind, root, f"and the download failed ({str(e).splitlines()[0]})") from e
    finally:
        socket.setdefaulttimeout(timeout)
        if made and root.is_dir() and not any(root.iterdir()):
            root.rmdir()


def _missing_files(kind: Any, root: Path, why: str) -> UserError:
    if hasattr(kind, "resources"):
        folder = root / kind.__name__ / "raw"
        names = [name.removesuffix(".gz") for name, _ in kind.resources]
    else:
        folder, names = root / kind.base_folder, [name for name, _ in kind.train_list + kind.test_list]
    absent = [name for name in names if not (folder / name).exists()]
    return _bad("data.root", f"{folder} lacks {', '.join(absent)} {why}", f"put them in {folder}")


LOADERS: dict[str, Callable[[DataConfig], Raw]] = {
    "digits": load_digits,
    "csv": load_csv,
    "synthetic": load_synthetic,
    "moons": load_moons,
    "spirals": load_spirals,
    "mnist": load_torchvision,
    "fashion_mnist": load_torchvision,
    "kmnist": load_torchvision,
    "cifar10": load_torchvision,
}
"""A loader for every YAML of conf/data."""
