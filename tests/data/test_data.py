"""Data sets: what is loaded, split and standardised, and in which order epochs visit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_moons

from cases import DATA_NEEDS, options, parsed, write_csv
from conftest import MNIST, needs_mnist
from ffn_bench.configuration.schema import CsvConfig, MoonsConfig, SplitDataConfig
from ffn_bench.configuration.validation import check_data
from ffn_bench.data import datasets, splitting, tables
from ffn_bench.errors import UserError

IMAGES = ("mnist", "fashion_mnist", "kmnist", "cifar10")
OFFLINE = [name for name in options("data") if name not in (*IMAGES, "arrays")]


def test_every_data_set_has_a_loader() -> None:
    assert sorted(datasets.LOADERS) == options("data")


def load(name: str, tmp_path: Path, *overrides: str) -> splitting.Data[splitting.Array]:
    needs = list(DATA_NEEDS.get(name, []))
    if name == "csv":
        needs = [f"data.path={write_csv(tmp_path / 'x.csv', 200)}", "data.target=label"]
    return datasets.load(parsed(f"data={name}", *needs, *overrides).data)


@pytest.mark.parametrize("name", OFFLINE)
def test_splits_are_disjoint_stratified_and_standardised(name: str, tmp_path: Path) -> None:
    loaded = load(name, tmp_path)
    y = np.concatenate([loaded.train.y, loaded.val.y, loaded.test.y])
    n = len(y)
    assert len(loaded.val.y) == len(loaded.test.y) == round(0.15 * n)
    proportions = np.bincount(y) / n
    for split in (loaded.train, loaded.val, loaded.test):
        counts = np.bincount(split.y, minlength=len(loaded.classes))
        assert np.abs(counts - proportions * len(split.y)).max() < 2.0
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


def test_digits_are_scikit_learns(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    raw = datasets.load_digits(parsed().data)
    expected = load_digits()
    assert np.array_equal(raw.x, expected.data)
    assert np.array_equal(raw.y, expected.target)


@pytest.mark.parametrize(("n", "noise", "seed"), [(2, 0.0, 0), (401, 0.25, 0), (1000, 0.15, 2**32 - 1)])
def test_moons_are_scikit_learns(n: int, noise: float, seed: int) -> None:
    config = MoonsConfig(name="moons", n_samples=n, noise=noise, split_seed=seed)
    raw = datasets.LOADERS["moons"](config)
    x, y = make_moons(n_samples=n, noise=noise, random_state=seed)
    assert np.array_equal(raw.x, x) and np.array_equal(raw.y, y) and raw.y.dtype == np.int64


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
    first = splitting.epoch_order(100, seed=3, epoch=1)
    assert sorted(first.tolist()) == list(range(100))
    assert np.array_equal(first, splitting.epoch_order(100, seed=3, epoch=1))
    assert not np.array_equal(first, splitting.epoch_order(100, seed=3, epoch=2))
    assert not np.array_equal(first, splitting.epoch_order(100, seed=4, epoch=1))


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
