"""Sweeps: all runs are made, failures are told, the leaderboard is right."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Command
from ffn_bench.leaderboard import leaderboard


def folders(tmp_path: Path, name: str) -> list[Path]:
    return sorted(p.parent for p in (tmp_path / "outputs" / "sweeps" / name).glob("*/summary.json"))


def test_a_sweep_leaves_what_single_runs_would(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "name=s", "optimizer=sgd,rmsprop,adam", "seed=0,1", "epochs=2")
    assert result.code == 0, result.err
    found = folders(tmp_path, "s")
    assert len(found) == 6
    for number, folder in enumerate(found):
        overrides = [o for o in _overrides(folder) if not o.startswith("name")]
        assert ffn(*overrides, f"name=single{number}").code == 0
        single, swept = (
            [
                {k: v for k, v in json.loads(line).items() if k not in ("time", "train_seconds")}
                for line in (f / "metrics.jsonl").read_text().splitlines()
            ]
            for f in (tmp_path / "outputs" / f"single{number}", folder)
        )
        assert single == swept
    assert "6 runs" in result.out
    assert "leaderboard" in result.out
    assert "tensorboard --logdir outputs/sweeps/s" in result.out


def _overrides(folder: Path) -> list[str]:
    return [line[2:] for line in (folder / ".hydra" / "overrides.yaml").read_text().splitlines()]


def test_folder_names_are_short_safe_and_stable(ffn: Command, tmp_path: Path) -> None:
    wide = "model.hidden=[" + ",".join(["3"] * 120) + "]"
    result = ffn("-m", "name=s", wide, "seed=0,1", "epochs=1", "data=moons")
    assert result.code == 0, result.err
    names = [f.name for f in folders(tmp_path, "s")]
    assert len(names) == 2
    assert all(len(n.encode()) < 120 and "/" not in n for n in names)


def test_a_diverged_run_ranks_last_and_harms_nobody(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "name=s", "optimizer=sgd", "lr=1e30,0.1", "epochs=2")
    assert result.code == 0
    statuses = {json.loads((f / "summary.json").read_text())["status"] for f in folders(tmp_path, "s")}
    assert statuses == {"finished", "diverged"}
    board = result.out[result.out.index("leaderboard") :]
    assert board.index("0.1") < board.index("1e+30") < board.index("1 diverged")


def test_a_failed_run_is_told_at_once_and_again_and_the_others_go_on(tmp_path: Path) -> None:
    """No file may grow past 60 kB, which only the long run's does."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); "
    code += (
        "sys.argv = ['ffn-train', '-m', 'name=s', 'epochs=2,600,3']; from ffn_bench.train import main; main()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("  [")] == ["finished", "failed", "finished"]
    assert any(line.startswith("  failed ") and "epochs=600" in line for line in lines)
    assert "1 failed" in result.stdout
    assert len(folders(tmp_path, "s")) == 3
    log = next(f for f in folders(tmp_path, "s") if "600" in f.name) / "train.log"
    assert "File too large" in log.read_text()


def test_nothing_trains_before_every_run_is_checked(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "optimizer=adam", "batch_size=32,5000", "drop_last=true")
    assert result.code == 2
    assert "batch_size" in result.err
    assert list(tmp_path.iterdir()) == []


def test_hydras_own_launcher_works_too(ffn: Command, tmp_path: Path) -> None:
    result = ffn("-m", "hydra/launcher=basic", "name=s", "seed=0,1", "epochs=1")
    assert result.code == 0, result.err
    assert len(folders(tmp_path, "s")) == 2


def summary(val: float | None, test: float, status: str = "finished", epoch: int = 3) -> dict[str, Any]:
    best = None if val is None else {"epoch": epoch, "accuracy/val": val, "accuracy/test": test}
    return {
        "status": status,
        "train_seconds": 2.0,
        "epochs": 9,
        "best": best,
        "final": {"accuracy/test": test},
    }


def test_leaderboard_numbers() -> None:
    settings = [{"lr": lr, "seed": s, "epochs": "9"} for lr in ("0.1", "0.01", "1") for s in ("0", "1")]
    summaries = [
        *(summary(0.5, 0.4), summary(0.7, 0.6)),
        *(summary(0.8, 0.7), summary(0.9, 0.8)),
        *(summary(0.99, 0.99), summary(0.99, 0.99, "diverged")),
    ]
    rows, keys, seeds = leaderboard(settings, summaries)
    assert (keys, seeds) == (["lr"], True)
    assert [row["settings"]["lr"] for row in rows] == ["0.01", "0.1", "1"]
    assert rows[0]["val"] == pytest.approx((0.85, math.sqrt(0.005)))
    assert rows[0]["test"] == pytest.approx((0.75, math.sqrt(0.005)))
    assert rows[2]["bad"] == "1 diverged"
    assert rows[2]["runs"] == 2


def test_leaderboard_without_validation_ranks_by_test_and_missing_runs_last() -> None:
    settings = [{"lr": lr} for lr in ("0.1", "0.01", "1")]
    rows, _, seeds = leaderboard(settings, [summary(None, 0.4), summary(None, 0.6), None])
    assert not seeds
    assert [row["settings"]["lr"] for row in rows] == ["0.01", "0.1", "1"]
    assert rows[2]["bad"] == "1 missing"
    assert math.isnan(rows[0]["test"][1])
