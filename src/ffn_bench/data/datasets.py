"""The table of data sets."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import (
    DataConfig,
)
from ffn_bench.data.arrays import load_arrays
from ffn_bench.data.images import load_torchvision
from ffn_bench.data.kept import kept
from ffn_bench.data.splitting import Array, Data, Raw, prepare
from ffn_bench.data.synthetic import load_moons, load_spirals, load_synthetic
from ffn_bench.data.tables import load_csv


def load(config: DataConfig) -> Data[Array]:
    """The data set that `config` names, split and standardised; loaded once a command.

    Raises `UserError` (status 3) for files that are missing, damaged or not a table of numbers, and for
    rows too few to split.
    """
    one_of(config.name, tuple(LOADERS), "data")
    data: Data[Array] = kept(repr(config), lambda: prepare(LOADERS[config.name](config), config))
    return data


# --- data sets without files ----------------------------------------------------------------------------


def load_digits(config: DataConfig) -> Raw:
    """scikit-learn's 8 × 8 digits, read from its package without importing it (which takes 0.7 s)."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations
    table = np.loadtxt(
        Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=","
    )
    return Raw(table[:, :-1], table[:, -1].astype(np.int64), tuple("0123456789"), image_shape=(8, 8))


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
    "arrays": load_arrays,
}
"""A loader for every YAML of conf/data."""
