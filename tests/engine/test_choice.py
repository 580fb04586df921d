"""Which engine trains which run, and what is said where it is not the compiled one."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from dataclasses import replace
from typing import Any

import pytest

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
