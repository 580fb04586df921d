"""Our networks beside scikit-learn's on the data sets that it ships, as a table in Markdown.

    python scripts/compare_with_scikit_learn.py                      # all six: minutes
    python scripts/compare_with_scikit_learn.py --only iris wine

Both train the same network (hidden widths, activation) by the same Adam on the same standardised rows, in
batches of the same size for the same number of epochs, without weight decay or early stopping. Scores are
those of the last epoch on rows that neither has seen. Seed k draws the split, and the initial weights and
the order of the rows of each side.

What differs: the initial weights, ours U(±1/√n_in), scikit-learn's U(±√(6/(n_in + n_out))), which
`model.init=xavier` is but for biases of 0, so that this is compared, too; float32 beside float64; for two
classes two outputs and a softmax beside one and a sigmoid.

Exits with 1 where the median paired difference is below what `ALLOWED` says.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

import ffn_bench
from ffn_bench.data.rows import Data
from ffn_bench.run_folder.recorded_run import read_run
from ffn_bench.run_folder.trained_network import data_again

CLASSIFICATION = ("iris", "wine", "breast_cancer", "digits")
REGRESSION = ("diabetes", "friedman")
INITS = ("torch", "xavier")
"""Ours, the default first."""
ALLOWED = {"accuracy": -0.005, "r2": -0.01}
"""The least median difference, ours minus theirs."""

HIDDEN, ACTIVATION = (100,), "relu"
LR, BETAS, EPS = 0.001, (0.9, 0.999), 1e-8
BATCH_SIZE, EPOCHS, TEST_FRACTION = 32, 100, 0.3


def score_of(name: str) -> str:
    """What is compared on a data set."""
    return "r2" if name in REGRESSION else "accuracy"


def ours(name: str, init: str, seed: int) -> tuple[float, Data[NDArray[Any]]]:
    """The score on the test rows of a run, and the data that it was trained on."""
    run = ffn_bench.fit(
        {"name": name, "split_seed": seed, "val_fraction": 0.0, "test_fraction": TEST_FRACTION},
        model={"hidden": list(HIDDEN), "activation": ACTIVATION, "init": init},
        optimizer={"name": "adam", "betas": list(BETAS), "eps": EPS},
        lr=LR,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        l2=0.0,
        seed=seed,
        name=f"{name}-{init}-{seed}",
        progress=False,
    )
    assert run.status == "finished", run.reason
    return run.measured("final")[f"{score_of(name)}/test"], data_again(read_run(run.path))


def theirs(name: str, data: Data[NDArray[Any]], seed: int) -> float:
    """The score of scikit-learn's network, trained and tested on the same rows."""
    kind = MLPRegressor if name in REGRESSION else MLPClassifier
    network = kind(
        hidden_layer_sizes=HIDDEN,
        activation=ACTIVATION,
        solver="adam",
        alpha=0.0,
        batch_size=BATCH_SIZE,
        learning_rate_init=LR,
        beta_1=BETAS[0],
        beta_2=BETAS[1],
        epsilon=EPS,
        max_iter=EPOCHS,
        tol=0.0,
        n_iter_no_change=EPOCHS,
        random_state=seed,
    )
    x, x_test = (split.x.astype(np.float64) for split in (data.train, data.test))
    y, y_test = (split.y.ravel() for split in (data.train, data.test))
    network.fit(x, y)
    assert network.n_iter_ == EPOCHS
    return float(network.score(x_test, y_test))


def differences(name: str, seeds: Sequence[int]) -> tuple[str, bool]:
    """A row of the table, and whether the difference is within what is allowed."""
    scores: dict[str, list[float]] = {who: [] for who in (*INITS, "theirs")}
    for seed in seeds:
        for init in INITS:
            score, data = ours(name, init, seed)
            scores[init].append(score)
        scores["theirs"].append(theirs(name, data, seed))
    percent, unit = score_of(name) == "accuracy", " %" * (score_of(name) == "accuracy")
    cells = [f"`{name}`", "accuracy" if percent else "R²"]
    for who in (INITS[0], "theirs"):
        median = np.median(scores[who])
        cells.append(f"{100 * median:.2f}{unit}" if percent else f"{median:.3f}")
    medians = []
    for init in INITS:
        paired = np.subtract(scores[init], scores["theirs"])
        medians.append(float(np.median(paired)))
        low, middle, high = (
            (f"{100 * x:+.2f}" if percent else f"{x:+.3f}").replace("-", "−")
            for x in (paired.min(), medians[-1], paired.max())
        )
        cells.append(f"{middle} ({low} … {high})")
    return f"| {' | '.join(cells)} |", medians[0] >= ALLOWED[score_of(name)]


def main() -> None:
    """Print a row a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = (*CLASSIFICATION, *REGRESSION)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", UserWarning)  # equal flowers in two splits
    print("| data | score | ours | scikit-learn | difference (least … greatest) | with `model.init=xavier` |")
    print("|---|---|---|---|---|---|", flush=True)
    all_allowed = True
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(Path(folder)), threadpool_limits(1):
        for name in arguments.only:
            row, allowed = differences(name, range(arguments.seeds))
            print(row, flush=True)
            all_allowed &= allowed
    sys.exit(0 if all_allowed else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
