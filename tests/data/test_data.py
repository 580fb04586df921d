"""Data sets: what is loaded, split and standardised, and in which order epochs visit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from scipy.stats import norm
from sklearn.datasets import make_circles, make_moons
from sklearn.linear_model import LogisticRegression

from cases import DATA_NEEDS, options, parsed, write_csv
from conftest import MNIST, needs_mnist
from ffn_bench.configuration.schema import (
    CirclesConfig,
    CsvConfig,
    FriedmanConfig,
    GaussiansConfig,
    MoonsConfig,
    SplitDataConfig,
    XorConfig,
)
from ffn_bench.configuration.validation import check_data
from ffn_bench.data import batches, datasets, rows, splitting, tables
from ffn_bench.errors import UserError

IMAGES = ("mnist", "fashion_mnist", "kmnist", "cifar10")
OFFLINE = [name for name in options("data") if name not in (*IMAGES, "arrays")]


def test_every_data_set_has_a_loader() -> None:
    assert sorted(datasets.LOADERS) == options("data")


def load(name: str, tmp_path: Path, *overrides: str) -> rows.Data[rows.Array]:
    needs = list(DATA_NEEDS.get(name, []))
    if name == "csv":
        needs = [f"data.path={write_csv(tmp_path / 'x.csv', 200)}", "data.target=label"]
    return datasets.load(parsed(f"data={name}", *needs, *overrides).data)


@pytest.mark.parametrize("name", OFFLINE)
def test_splits_are_disjoint_stratified_and_standardised(name: str, tmp_path: Path) -> None:
    loaded = load(name, tmp_path)
    splits = (loaded.train, loaded.val, loaded.test)
    y = np.concatenate([split.y for split in splits])
    n = len(y)
    assert len(loaded.val.y) == len(loaded.test.y) == round(0.15 * n)
    tenths = np.quantile(y, np.arange(0.1, 1, 0.1)) if loaded.task == "regression" else None
    strata = [split.y if tenths is None else np.digitize(split.y[:, 0], tenths) for split in splits]
    proportions = np.bincount(np.concatenate(strata)) / n
    for of_split in strata:
        counts = np.bincount(of_split, minlength=len(proportions))
        assert np.abs(counts - proportions * len(of_split)).max() < (2.0 if tenths is None else 4.0)  # ties
    if loaded.task == "regression":
        assert np.abs(loaded.train.y.mean(0)).max() < 1e-12
        assert np.abs(loaded.train.y.std(0) - 1).max() < 1e-12
    assert np.abs(loaded.train.x.mean(0)).max() < 1e-12
    spread = loaded.train.x.std(0)
    assert ((np.abs(spread - 1) < 1e-12) | (spread == 0)).all()
    raw = np.concatenate([p.x for p in (loaded.train, loaded.val, loaded.test)]) * loaded.std + loaded.mean
    assert len(np.unique(raw.round(9), axis=0)) >= 0.99 * n  # no row in two splits


def test_split_depends_on_its_own_seed_only(tmp_path: Path) -> None:
    one, same, other = (load("digits", tmp_path, *o) for o in ([], ["seed=5"], ["data.split_seed=1"]))
    assert np.array_equal(one.train.x, same.train.x)
    assert not np.array_equal(one.train.x, other.train.x)


def test_fractions_and_no_standardisation(tmp_path: Path) -> None:
    loaded = load(
        "digits", tmp_path, "data.val_fraction=0", "data.test_fraction=0.5", "data.standardize=false"
    )
    assert (len(loaded.train.y), len(loaded.val.y), len(loaded.test.y)) == (899, 0, 898)
    assert loaded.train.x.min() == 0 and loaded.train.x.max() == 16


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_shipped_sets_are_scikit_learns(name: str) -> None:
    raw = datasets.LOADERS[name](parsed(f"data={name}").data)
    expected = getattr(sklearn.datasets, f"load_{name}")()
    assert raw.x.tobytes() == expected.data.tobytes() and raw.x.dtype == np.float64
    assert np.array_equal(raw.y, expected.target) and raw.y.dtype == np.int64
    assert raw.classes == tuple(map(str, expected.target_names))
    if raw.image_shape is None:
        assert raw.columns == tuple(expected.feature_names)


def test_diabetes_is_scikit_learns() -> None:
    """In its measurements' own units; scikit-learn scales them unless it is told not to."""
    raw = datasets.LOADERS["diabetes"](parsed("data=diabetes").data)
    expected = sklearn.datasets.load_diabetes(scaled=False)
    assert raw.x.tobytes() == expected.data.tobytes() and raw.x.dtype == np.float64
    assert raw.y.tobytes() == expected.target.tobytes() and raw.y.shape == (442, 1)
    assert raw.columns == tuple(expected.feature_names) and raw.targets == ("progression",)


@pytest.mark.parametrize(("n", "n_features", "noise", "seed"), [(10, 5, 0.0, 0), (301, 12, 2.5, 2**32 - 1)])
def test_friedman_is_scikit_learns(n: int, n_features: int, noise: float, seed: int) -> None:
    common: dict[str, Any] = {"n_samples": n, "n_features": n_features, "noise": noise}
    raw = datasets.LOADERS["friedman"](FriedmanConfig(name="friedman", **common, split_seed=seed))
    x, y = sklearn.datasets.make_friedman1(**common, random_state=seed)
    assert raw.x.tobytes() == x.tobytes() and raw.y[:, 0].tobytes() == y.tobytes()
    assert raw.classes == () and raw.y.shape == (n, 1)


@pytest.mark.parametrize(("n", "noise", "seed"), [(2, 0.0, 0), (401, 0.25, 0), (1000, 0.15, 2**32 - 1)])
def test_moons_and_circles_are_scikit_learns(n: int, noise: float, seed: int) -> None:
    common: dict[str, Any] = {"n_samples": n, "noise": noise}
    for config, expected in (
        (MoonsConfig(name="moons", **common, split_seed=seed), make_moons(**common, random_state=seed)),
        (
            CirclesConfig(name="circles", **common, factor=0.3, split_seed=seed),
            make_circles(**common, factor=0.3, random_state=seed),
        ),
    ):
        raw = datasets.LOADERS[config.name](config)
        assert np.array_equal(raw.x, expected[0]) and np.array_equal(raw.y, expected[1])
        assert raw.y.dtype == np.int64


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_xor_is_told_apart_by_the_product_as_often_as_its_noise_lets(noise: float) -> None:
    """By the sign of x1 · x2: both coordinates, or neither, are on the side of their cluster."""
    n = 100_000
    raw = datasets.LOADERS["xor"](XorConfig(name="xor", n_samples=n, noise=noise))
    right = np.mean((raw.x.prod(1) < 0) == (raw.y == raw.classes.index("different signs")))
    side = norm.cdf(1 / noise) if noise else 1.0
    expected = side**2 + (1 - side) ** 2
    assert abs(right - expected) <= 4 * (expected * (1 - expected) / n) ** 0.5
    line = LogisticRegression().fit(raw.x, raw.y)
    assert line.score(raw.x, raw.y) < 0.8  # three of four clusters, at most
    other = datasets.LOADERS["xor"](XorConfig(name="xor", n_samples=n, noise=noise, split_seed=1))
    assert noise == 0 or not np.isin(raw.x, other.x).any()


@pytest.mark.parametrize(("n_classes", "noise"), [(2, 0.8), (3, 0.5), (7, 0.1)])
def test_gaussians_have_their_means_and_spread(n_classes: int, noise: float) -> None:
    n = 100_000
    config = GaussiansConfig(name="gaussians", n_samples=n, n_classes=n_classes, noise=noise)
    raw = datasets.LOADERS["gaussians"](config)
    assert len(raw.classes) == n_classes
    centres = np.array([raw.x[raw.y == k].mean(0) for k in range(n_classes)])
    roots = np.exp(2j * np.pi * np.arange(n_classes) / n_classes)
    close = 5 * noise * (n_classes / n) ** 0.5
    assert np.abs(centres - np.stack([roots.real, roots.imag], axis=1)).max() < close
    inner = [np.cov(raw.x[raw.y == k].T) for k in range(n_classes)]
    assert np.abs(inner - noise**2 * np.eye(2)).max() < 8 * noise**2 * (n_classes / n) ** 0.5
    if n_classes == 2:
        right = np.mean((raw.x[:, 0] < 0) == raw.y)
        assert abs(right - norm.cdf(1 / noise)) < 0.005


def test_csv_labels_of_any_kind(tmp_path: Path) -> None:
    def table(labels: list[str]) -> tuple[tuple[str, ...], list[int]]:
        file = tmp_path / "t.csv"
        file.write_text("y,f\n" + "\n".join(f"{label},{k}" for k, label in enumerate(labels)))
        raw = tables.load_csv(CsvConfig(name="csv", path=str(file), target="y"))
        assert raw.x[:, 0].tolist() == list(range(len(labels)))
        return raw.classes, raw.y.tolist()

    assert table(["10", "9", "10"]) == (("9", "10"), [1, 0, 1])
    assert table(["yes", "no", "yes"]) == (("no", "yes"), [1, 0, 1])
    assert table(["True", "3", "True"]) == (("3", "True"), [1, 0, 1])
    assert table(['"a, b"', "ü", '"a, b"']) == (("a, b", "ü"), [0, 1, 0])


def test_csv_with_a_byte_order_mark_windows_lines_and_another_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes("\ufefff;y\r\n1.5;a\r\n 2e1 ;b\r\n\r\n".encode())
    raw = tables.load_csv(CsvConfig(name="csv", path=str(file), target="y", delimiter=";"))
    assert raw.x.tolist() == [[1.5], [20.0]]
    assert raw.classes == ("a", "b")


def test_stratified_splits_sizes() -> None:
    y = np.repeat([0, 1, 2], [50, 30, 20])
    a, b, rest = splitting.stratified_splits(y, (20, 10), np.random.default_rng(0))
    assert np.bincount(y[a]).tolist() == [10, 6, 4]
    assert np.bincount(y[b]).tolist() == [5, 3, 2]
    assert sorted([*a, *b, *rest]) == list(range(100))


def test_epoch_order_is_a_permutation_of_seed_and_epoch() -> None:
    first = batches.epoch_order(100, seed=3, epoch=1)
    assert sorted(first.tolist()) == list(range(100))
    assert np.array_equal(first, batches.epoch_order(100, seed=3, epoch=1))
    assert not np.array_equal(first, batches.epoch_order(100, seed=3, epoch=2))
    assert not np.array_equal(first, batches.epoch_order(100, seed=4, epoch=1))


@needs_mnist
def test_mnist_from_files_that_are_there() -> None:
    loaded = datasets.load(parsed("data=mnist", f"data.root={MNIST}", "data.download=false").data)
    assert (len(loaded.train.y), len(loaded.val.y), len(loaded.test.y)) == (54_000, 6_000, 10_000)
    assert loaded.image_shape == (28, 28)
    assert loaded.train.x.dtype == np.float32
    assert abs(loaded.train.x.mean(dtype=np.float64)) < 1e-4
    assert abs(loaded.train.x.std(dtype=np.float64) - 1) < 1e-4
    assert loaded.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    pixels = loaded.test.x[0].astype(np.float64) * loaded.std + loaded.mean
    assert pixels.min().item() == pytest.approx(0, abs=1e-3)
    assert pixels.max().item() == pytest.approx(254, abs=1e-2) or pixels.max().item() == pytest.approx(
        255, abs=1e-2
    )


def test_a_data_set_without_keys_of_its_own_has_those_of_another() -> None:
    """So that a new one is a loader and a file; it is not loaded by keys that it lacks."""
    wine = SplitDataConfig(name="wine", val_fraction=0.2)
    check_data(wine)
    check_data(SplitDataConfig(name="mnist"))
    for wrong in (SplitDataConfig(name="moons"), CsvConfig(name="wine", path="x.csv", target="y")):
        with pytest.raises(UserError, match=f"{wrong.name!r} does not match these keys"):
            check_data(wrong)
    with pytest.raises(UserError, match="'mnist' does not match these keys"):
        datasets.load(SplitDataConfig(name="mnist"))
