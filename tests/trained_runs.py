"""Runs that were trained for tests of what is done with a trained network, and their rows as tables."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cases import parsed
from conftest import MNIST
from ffn_bench.data.rows import Array
from ffn_bench.run_folder import trained_network
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.trained_network import TrainedNetwork, data_again
from ffn_bench.train import train_run
from rule_cases import PYTORCHS

MOONS = ("data=moons", "data.n_samples=200", "epochs=3", "name=x")
ODD_COLUMNS = ("height, cm", 'the "width"', "größe", "x\x01", "[red]")
ODD_LABELS = ("=1+1", "-1", "a, b", '"quoted" twice', "日本", "it's", "@me", "1.0")


def train(folder: Path, *overrides: str) -> Path:
    """A run, as `ffn-train` trains it, in a folder."""
    train_run(parsed(*overrides), Folder(folder))
    return folder


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_odd_table(path: Path, rows: int = 400) -> Path:
    """A table whose columns and labels have odd names, and whose numbers are of very different sizes."""
    draws = np.random.default_rng(0)
    y = np.arange(rows) % len(ODD_LABELS)
    centres = draws.normal(size=(len(ODD_LABELS), len(ODD_COLUMNS)))
    x = (centres[y] + 0.4 * draws.normal(size=(rows, len(ODD_COLUMNS)))) * [1e6, 1, 1e-6, 100, 1] + [
        3e7,
        0,
        0,
        5,
        0,
    ]
    lines = [[*row[:2], ODD_LABELS[k], *row[2:]] for row, k in zip(x.tolist(), y, strict=True)]
    return write_table(path, [*ODD_COLUMNS[:2], "kind of", *ODD_COLUMNS[2:]], lines)


def train_on(data: str, folder: Path) -> Path:
    """A short run on the digits, on MNIST, or on a table with odd names."""
    keys = {"digits": ["epochs=6"], "mnist": ["epochs=1", f"data.root={MNIST}"], "csv": ["epochs=30"]}[data]
    if data == "csv":
        path = write_odd_table(folder.parent / f"{folder.name}.csv")
        keys += [f"data.path={path}", "data.target='kind of'"]
    return train(folder, f"data={data}", "name=x", *keys)


def rows_of_test(network: TrainedNetwork) -> tuple[Array, Array]:
    """The test rows of a run's data as they were before standardisation, and their class numbers."""
    data = data_again(network.recorded)
    x = data.test.x.astype(np.float64) * data.std + data.mean
    return (x if network.config.data.name == "csv" else x.round()), data.test.y


def by_pytorch(network: TrainedNetwork, x: Array) -> Array:
    """Probabilities of standardised rows, computed by PyTorch's own functions."""
    return np.asarray(torch.from_numpy(by_pytorch_outputs(network, x)).softmax(1))


def by_pytorch_outputs(network: TrainedNetwork, x: Array) -> Array:
    """What the last layer gives, computed likewise."""
    activation = PYTORCHS[network.config.model.activation]
    h = torch.from_numpy(x)
    for k, (W, b) in enumerate(network.weights.layers):
        h = torch.nn.functional.linear(activation(h) if k else h, torch.tensor(W).T, torch.tensor(b))
    return np.asarray(h)


def as_another(
    network: TrainedNetwork, activation: str, dtype: str, depth: int | None = None
) -> TrainedNetwork:
    """The same network with another activation and precision, and of its layers only the last so many, whose
    inputs are then the columns."""
    layers = [(W.astype(dtype), b.astype(dtype)) for W, b in network.weights.layers]
    layers = layers if depth is None else layers[len(layers) - 1 - depth :]
    n = len(layers[0][0])
    fitted = dataclasses.replace(
        network.fitted, columns=tuple(f"x{k}" for k in range(n)), mean=np.zeros(n), scale=np.full(n, 2.0)
    )
    model = dataclasses.replace(network.config.model, activation=activation)
    config = dataclasses.replace(network.config, model=model, dtype=dtype)
    weights = dataclasses.replace(network.weights, layers=layers)
    return dataclasses.replace(network, config=config, weights=weights, fitted=fitted)


def load(folder: Path, at: str = "best") -> TrainedNetwork:
    return trained_network.load(folder, at)
