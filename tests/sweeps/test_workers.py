"""Worker processes: a run is the same bits in any of them, and what happens to one costs the others nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import Command
from ffn_bench.engine.stop import Stop
from ffn_bench.run_folder import checkpoints
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.lock import holder
from ffn_bench.sweeps import sweep, workers
from run_folder.test_folders import FFN_TRAIN, lines_of
from run_folder.test_survival import outcome

SWEEPS = Path("outputs/sweeps")
KEYS = ("data=moons", "data.n_samples=200", "batch_size=20", "epochs=6", "log_every=7")
SEEDS = {2: "seed=0,1", 8: "seed=range(0,8)"}


def seed_of(folder: Path) -> int:
    return int(json.loads((folder / "run.json").read_text())["config"]["seed"])


def run_folders(folder: Path) -> dict[int, Path]:
    """The runs of a sweep that have begun, by their seeds."""
    return {seed_of(file.parent): file.parent for file in sorted(folder.glob("*/run.json"))}


def outcomes(folder: Path) -> dict[int, Any]:
    """All that the runs of a sweep left, by their seeds."""
    return {seed: outcome(run) for seed, run in run_folders(folder).items()}


# --- the same bits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What eight runs leave, each trained by a command of its own process's."""
    folder = tmp_path_factory.mktemp("alone")
    code = "import sys; from ffn_bench.train import main; sys.argv = ['ffn-train', *sys.argv[1:]]; main()"
    for seed in range(8):
        keys = [*KEYS, f"seed={seed}", f"name={seed}"]
        subprocess.run([os.sys.executable, "-c", code, *keys], cwd=folder, check=True, capture_output=True)
    return {seed: outcome(folder / "outputs" / str(seed)) for seed in range(8)}
