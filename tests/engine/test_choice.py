"""Which engine trains which run, and what is said where it is not the compiled one."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ffn_bench
from cases import OPTIMIZER_NEEDS, options, parsed
from ffn_bench.configuration.schema import HiddenConfig, TrainConfig
from ffn_bench.configuration.validation import DTYPES, GRADIENTS
from ffn_bench.engine.build import build
from ffn_bench.engine.choice import WIDE, Choice, choose
from ffn_bench.errors import UserError
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.optimizers.rules import RULES
from ffn_bench.optimizers.torch_optimizers import OPTIMIZERS

COMPILED, TORCH, BATCHED = "compiled", "torch", "batched"
DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")
NO_RULE = {
    "lbfgs": "lbfgs looks at the loss several times a step",
    "newton": "newton takes second derivatives of the loss",
    "torch": "ASGD is a class of torch.optim.Optimizer",
}
"""Optimizers that only the torch engine has, each with the reason."""


@functools.cache
def small_run(optimizer: str) -> TrainConfig:
    needs = OPTIMIZER_NEEDS.get(optimizer, [])
    return parsed(f"optimizer={optimizer}", "batch_size=full", "data=moons", "model.hidden=[3]", *needs)


def run_of(optimizer: str, **changes: Any) -> TrainConfig:
    return replace(small_run(optimizer), **changes)


def test_every_optimizer_is_a_rule_or_has_a_reason() -> None:
    assert {*options("optimizer")} == {*RULES, *NO_RULE}
    assert {*OPTIMIZERS} - {*RULES} == {"lbfgs", "newton"}


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_the_table(optimizer: str) -> None:
    """Every optimizer × gradient × device, with engine=auto and with each engine by its name."""
    only_torch = NO_RULE.get(optimizer)
    for gradient, device in itertools.product(GRADIENTS, DEVICES):
        if (optimizer, gradient) == ("newton", "manual"):
            continue  # refused before anything is chosen
        keys = {"gradient": gradient, "device": device}
        not_batched = only_torch if gradient == "auto" else f"gradient={gradient}"
        not_compiled = not_batched if device in ("auto", "cpu") else f"device={device}"
        automatic = (
            Choice(COMPILED)
            if not_compiled is None
            else Choice(BATCHED if "cuda" in device and not_batched is None else TORCH, not_compiled)
        )
        assert choose(run_of(optimizer, **keys)) == automatic, keys
        assert choose(run_of(optimizer, **keys, engine=TORCH)) == Choice(TORCH, "engine=torch")
        for engine, reason in ((COMPILED, not_compiled), (BATCHED, not_batched)):
            run = run_of(optimizer, **keys, engine=engine)
            if reason is None:
                assert choose(run) == Choice(engine, "" if engine == COMPILED else "engine=batched")
            else:
                with pytest.raises(UserError) as refused:
                    choose(run)
                expected = f"engine: {engine} cannot train this run: {reason}; use engine=auto"
                assert str(refused.value) == expected


def test_what_else_a_run_is_has_no_part_in_it() -> None:
    for activation, dtype, batch_size, l2, hidden in itertools.product(
        ACTIVATIONS, DTYPES, (1, 32, "full"), (0.0, 0.1), ([], [10, 20, 15], [512, 512])
    ):
        model = HiddenConfig(name="lecture", activation=activation, hidden=hidden)
        run = run_of("adam", dtype=dtype, batch_size=batch_size, l2=l2, model=model)
        assert choose(run) == Choice(COMPILED)


def test_wide_networks_train_on_all_cores() -> None:
    """By themselves and in sweeps alike; engine=compiled trains them, too."""
    for n_inputs, engine in ((WIDE // 1000 - 3, COMPILED), (WIDE // 1000 + 1, TORCH)):
        widths = [n_inputs, 1000, 1]  # (n_inputs + 1) 1000 + 1001 parameters
        choice = choose(run_of("adam"), widths)
        assert choice.engine == engine
        assert bool(choice.reason) == (engine == TORCH)
        assert choose(run_of("adam", engine=COMPILED), widths) == Choice(COMPILED)
    assert choice.reason == f"{1000 * (WIDE // 1000 + 2) + 1001:,} parameters are faster on all cores"


def test_without_numba_pytorch_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numba" else find_spec(name)
    )
    assert choose(run_of("adam")) == Choice(TORCH, "numba is not installed")
    with pytest.raises(UserError, match="numba is not installed"):
        choose(run_of("adam", engine=COMPILED))


BROKEN = "Numba needs NumPy 2.2 or less. Got NumPy 2.5."


@pytest.fixture
def command_with_broken_numba(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ffn-train` in a process in which a numba is installed that cannot be imported; nothing is compiled."""
    (tmp_path / "packages" / "numba").mkdir(parents=True)
    (tmp_path / "packages" / "numba" / "__init__.py").write_text(f"raise ImportError({BROKEN!r})\n")
    path = os.pathsep.join([str(tmp_path / "packages"), str(Path(ffn_bench.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}

    def command(*keys: str, broken: bool = True) -> subprocess.CompletedProcess[str]:
        own = environment if broken else os.environ
        return subprocess.run(
            [sys.executable, "-m", "ffn_bench.train", "data=moons", "epochs=1", *keys],
            cwd=tmp_path, env={**own, "FFN_BENCH_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    return command


@pytest.mark.parametrize("keys", [["name=a"], ["-m", "seed=0,1", "name=a"]], ids=["run", "sweep"])
def test_with_a_broken_numba_pytorch_trains(
    keys: list[str], command_with_broken_numba: Callable[..., Any], tmp_path: Path
) -> None:
    result = command_with_broken_numba(*keys)
    assert (result.returncode, result.stderr) == (0, "")
    files = [*tmp_path.glob("outputs/**/run.json")]
    assert len(files) == (2 if "-m" in keys else 1)
    for file in files:
        identity = json.loads(file.read_text())
        assert identity["engine"] == TORCH
        assert identity["engine_reason"] == f"numba cannot be imported: {BROKEN.rstrip('.')}"


def test_with_a_broken_numba_nothing_else_is_compiled(
    command_with_broken_numba: Callable[..., Any],
) -> None:
    result = command_with_broken_numba("engine=compiled")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"compiled cannot train this run: numba cannot be imported: {BROKEN[:-1]}" in result.stderr


def test_a_broken_numba_is_not_needed_for_what_is_in_the_cache(
    command_with_broken_numba: Callable[..., Any], tmp_path: Path
) -> None:
    assert command_with_broken_numba("name=fills", broken=False).returncode == 0
    result = command_with_broken_numba("name=a")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((tmp_path / "outputs" / "a" / "run.json").read_text())["engine"] == COMPILED


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("engine", ["auto", TORCH, COMPILED, BATCHED])
def test_the_engine_that_was_chosen_is_built(optimizer: str, engine: str) -> None:
    run = run_of(optimizer, engine=engine, device="cpu")
    if engine in (COMPILED, BATCHED) and optimizer in NO_RULE:
        with pytest.raises(UserError):
            build(run)
        return
    training, prepared = build(run)
    assert training.engine.name == prepared.choice.engine == choose(run).engine
