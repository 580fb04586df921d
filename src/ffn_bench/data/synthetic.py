"""Data sets that are drawn: moons, spirals, clusters."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from ffn_bench.configuration.schema import (
    DataConfig,
    MoonsConfig,
    SpiralsConfig,
    SyntheticConfig,
)
from ffn_bench.data.splitting import Raw
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
    rng = np.random.RandomState(config.split_seed)
    order = np.arange(config.n_samples)
    rng.shuffle(order)
    x = np.stack([first, second], axis=1)[order]
    x += rng.normal(scale=config.noise, size=x.shape)
    return Raw(x, np.repeat(np.arange(2), sizes)[order].astype(np.int64), ("upper", "lower"))


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
