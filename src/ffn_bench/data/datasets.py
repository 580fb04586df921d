"""The table of data sets."""

from __future__ import annotations

from collections.abc import Callable

from ffn_bench.checks import one_of
from ffn_bench.configuration.schema import DataConfig
from ffn_bench.data.arrays import load_arrays
from ffn_bench.data.images import load_torchvision
from ffn_bench.data.kept import kept
from ffn_bench.data.preparation import prepare
from ffn_bench.data.rows import Array, Data, Raw
from ffn_bench.data.shipped import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from ffn_bench.data.synthetic import (
    load_circles,
    load_friedman,
    load_gaussians,
    load_moons,
    load_spirals,
    load_synthetic,
    load_xor,
)
from ffn_bench.data.tables import load_csv


def load(config: DataConfig) -> Data[Array]:
    """The data set that `config` names, split and standardised; loaded once a command.

    Raises `UserError` (status 3) for files that are missing, damaged or not a table of numbers, and for
    rows too few to split.
    """
    one_of(config.name, tuple(LOADERS), "data")
    data: Data[Array] = kept(repr(config), lambda: prepare(LOADERS[config.name](config), config))
    return data


LOADERS: dict[str, Callable[[DataConfig], Raw]] = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "csv": load_csv,
    "synthetic": load_synthetic,
    "moons": load_moons,
    "circles": load_circles,
    "spirals": load_spirals,
    "xor": load_xor,
    "gaussians": load_gaussians,
    "friedman": load_friedman,
    "mnist": load_torchvision,
    "fashion_mnist": load_torchvision,
    "kmnist": load_torchvision,
    "cifar10": load_torchvision,
    "arrays": load_arrays,
}
"""A loader for every YAML of conf/data."""
