"""Optimizers of another installed package, by its entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_folder.test_folders import FFN_TRAIN

PACKAGE = Path(__file__).parents[1] / "example_optimizers"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), str(PACKAGE)]
    subprocess.run(pip, check=True, timeout=200)
    return folder


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [str(FFN_TRAIN), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=90
    )


def summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def test_a_rule_of_another_package_trains_with_its_own_hyperparameters(site: Path, tmp_path: Path) -> None:
    for name, override in (("default", "epochs=5"), ("changed", "optimizer.mu=0.5")):
        result = run(
            site, tmp_path, "optimizer=sign_momentum", "lr=0.01", "epochs=5", override, f"name={name}"
        )
        assert result.returncode == 0, result.stderr
        assert "sign_momentum" in result.stdout
        assert summary(tmp_path / "outputs" / name)["final"]["accuracy/val"] > 0.6
    settings = json.loads((tmp_path / "outputs" / "changed" / "run.json").read_text())["config"]
    assert settings["optimizer.mu"] == 0.5
    losses = [summary(tmp_path / "outputs" / n)["final"]["loss/train"] for n in ("default", "changed")]
    assert losses[0] != losses[1]


def test_a_class_of_another_package_sweeps_beside_ours(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, "-m", "optimizer=sgd,plain", "lr=0.1", "epochs=2", "name=s")
    assert result.returncode == 0, result.stderr
    ours, plugin = (summary(f)["final"] for f in sorted((tmp_path / "outputs" / "sweeps" / "s").glob("*/")))
    assert ours["loss/train"] == pytest.approx(plugin["loss/train"], rel=1e-5)  # plain is SGD by another name


def test_mistakes_with_them_are_one_line(site: Path, tmp_path: Path) -> None:
    for argument, word in (
        ("optimizer=sign_momentun", "'sign_momentum'"),
        ("optimizer=broken", "cannot be imported"),
    ):
        result = run(site, tmp_path, argument)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert word in result.stderr
    result = run(site, tmp_path, "optimizer=sign_momentum", "optimizer.muu=1")
    assert result.stderr.startswith("ffn-train: error: optimizer.muu: no such key (did you mean 'mu'?)")
    assert list(tmp_path.iterdir()) == []


def test_they_cost_help_nothing(site: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['ffn-train', '--help']; from ffn_bench.train import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=60
    )
