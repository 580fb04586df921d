"""Data sets that are drawn: moons, circles, spirals, clusters."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from ffn_bench.configuration.schema import (
    CirclesConfig,
    DataConfig,
    FriedmanConfig,
    GaussiansConfig,
    MoonsConfig,
    SpiralsConfig,
    SyntheticConfig,
    XorConfig,
)
from ffn_bench.data.rows import Array, Raw
from ffn_bench.errors import UserError


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
    """Two interleaving half circles, shuffled: the numbers of scikit-learn's make_moons, whose import would
    take half a second."""
    config = cast(MoonsConfig, config)
    upper = config.n_samples // 2
    sizes = (upper, config.n_samples - upper)
    outer, inner = (np.linspace(0, np.pi, size) for size in sizes)
    first = np.append(np.cos(outer), 1 - np.cos(inner))
    second = np.append(np.sin(outer), 1 - np.sin(inner) - 0.5)
    x, y = _shuffled_and_noisy(first, second, sizes, config)
    return Raw(x, y, ("upper", "lower"))


def load_circles(config: DataConfig) -> Raw:
    """A circle of radius 1 around one of radius `factor`, shuffled: the numbers of scikit-learn's
    make_circles."""
    config = cast(CirclesConfig, config)
    outer = config.n_samples // 2
    sizes = (outer, config.n_samples - outer)
    outwards, inwards = (np.linspace(0, 2 * np.pi, size, endpoint=False) for size in sizes)
    first = np.append(np.cos(outwards), np.cos(inwards) * config.factor)
    second = np.append(np.sin(outwards), np.sin(inwards) * config.factor)
    x, y = _shuffled_and_noisy(first, second, sizes, config)
    return Raw(x, y, ("outer", "inner"))


def _shuffled_and_noisy(
    first: Array, second: Array, sizes: tuple[int, int], config: MoonsConfig | CirclesConfig
) -> tuple[Array, Array]:
    """Points of two classes `[n, 2]`, given by their coordinates, and class numbers `[n]`, in a random order,
    which scikit-learn draws before the noise."""
    rng = np.random.RandomState(config.split_seed)
    order = np.arange(config.n_samples)
    rng.shuffle(order)
    x = np.stack([first, second], axis=1)[order]
    x += rng.normal(scale=config.noise, size=x.shape)
    return x, np.repeat(np.arange(2, dtype=np.int64), sizes)[order]


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


def load_xor(config: DataConfig) -> Raw:
    """Gaussian clusters of standard deviation `noise` at (1, 1), (−1, 1), (−1, −1) and (1, −1), in turn; a
    row's class says whether its cluster's signs differ. No line has more than three clusters right."""
    config = cast(XorConfig, config)
    rng = np.random.default_rng(config.split_seed)
    corner = np.arange(config.n_samples) % 4
    means = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    x = means[corner] + rng.normal(scale=config.noise, size=(config.n_samples, 2))
    return Raw(x, (corner % 2).astype(np.int64), ("same signs", "different signs"))


def load_gaussians(config: DataConfig) -> Raw:
    """Gaussian classes of standard deviation `noise`, their means evenly on the unit circle. A point's best
    guess is the nearest mean; of two classes that is right in Φ(1/noise) of all cases."""
    config = cast(GaussiansConfig, config)
    rng = np.random.default_rng(config.split_seed)
    y = np.arange(config.n_samples) % config.n_classes
    angle = 2 * math.pi * y / config.n_classes
    means = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = means + rng.normal(scale=config.noise, size=means.shape)
    return Raw(x, y.astype(np.int64), tuple(f"Gaussian {k}" for k in range(config.n_classes)))


def load_friedman(config: DataConfig) -> Raw:
    """Friedman's first function (1991) of five of `n_features` numbers from U(0, 1), with noise
    N(0, `noise`²): the numbers of scikit-learn's make_friedman1."""
    config = cast(FriedmanConfig, config)
    rng = np.random.RandomState(config.split_seed)
    x = rng.uniform(size=(config.n_samples, config.n_features))
    y = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
        + config.noise * rng.standard_normal(config.n_samples)
    )
    return Raw(x, y[:, None], (), targets=("y",))
