"""The batched engine: every row is its eager run, and no row feels its neighbours."""

from __future__ import annotations

import itertools
import math
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import options, parsed
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data import datasets
from ffn_bench.engine.batched import Tile, reason_not_batchable, tile_sizes
from ffn_bench.engine.build import build_eager
from ffn_bench.engine.inplace import first_state, in_place
from ffn_bench.engine.metrics import Measurement
from ffn_bench.engine.torch_engine import EagerRun
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.optimizers.rule_optimizer import on_tensors
from ffn_bench.optimizers.rules import RULES
from ffn_bench.rules import Rule, zeros
from optimizers.test_rules import VARIANTS, hyperparameters

BATCHABLE = [
    name
    for name in options("optimizer")
    if name != "torch" and not reason_not_batchable(parsed(f"optimizer={name}"))
]
ARCHITECTURES = {
    "the lecture's": [],
    "one hidden layer": ["model.hidden=[12]", "model.activation=tanh"],
    "deep": ["model=mlp", "model.depth=4", "model.width=9", "model.activation=gelu", "model.init=xavier"],
}


def tile(*specs: list[str], common: list[str], device: str = "cpu") -> Tile:
    runs = [parsed(*common, *spec) for spec in specs]
    return tile_of(runs, device)


def tile_of(runs: list[TrainConfig], device: str = "cpu") -> Tile:
    loaded = datasets.load(runs[0].data).to(torch.device(device), getattr(torch, runs[0].dtype))
    return Tile(runs, loaded)


def train(tile: Tile) -> list[list[Measurement]]:
    """Everything measured, a list a row."""
    index = {id(row): k for k, row in enumerate(tile.rows)}
    by_row: list[list[Measurement]] = [[] for _ in tile.rows]
    for measured in tile.measurements():
        for row, measurement in measured:
            by_row[index[id(row)]].append(measurement)
    return by_row


def eager(run: TrainConfig) -> tuple[EagerRun, list[Measurement]]:
    engine, _ = build_eager(run)
    return engine, list(engine.measurements())


def worst(ours: list[Measurement], expected: list[Measurement], tags: set[str] | None = None) -> float:
    """The largest relative difference of any value; steps, epochs and tags must be the same."""
    assert [(m.step, m.epoch, m.ends_epoch) for m in ours] == [
        (m.step, m.epoch, m.ends_epoch) for m in expected
    ]
    largest = 0.0
    for a, b in zip(ours, expected, strict=True):
        assert a.values.keys() == b.values.keys()
        for tag in a.values.keys() & (tags or a.values.keys()):
            x, y = a.values[tag], b.values[tag]
            if x != y and not (math.isnan(x) and math.isnan(y)):
                largest = max(largest, abs(x - y) / max(abs(x), 1e-300))
    return largest


def bits(measurements: list[Measurement]) -> list[Any]:
    return [(m.step, {tag: value.hex() for tag, value in m.values.items()}) for m in measurements]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", BATCHABLE)
def test_a_row_is_its_eager_run(optimizer: str, architecture: str) -> None:
    """Twelve runs of mixed learning rate, seed and λ, 320 steps: every step's loss, the final accuracies."""
    mixed = zip(
        itertools.cycle([0.003, 0.001, 0.0005]),
        range(12),
        itertools.cycle([0.0, 1e-4, 0.0, 1e-3]),
        strict=False,
    )
    specs = [[f"lr={lr}", f"seed={seed}", f"l2={l2}"] for lr, seed, l2 in mixed]
    common = [f"optimizer={optimizer}", *ARCHITECTURES[architecture], "dtype=float64", "log_every=1"]
    full = ["batch_size=full", "epochs=300", "data.val_fraction=0.4", "data.test_fraction=0.4"]
    common += full if optimizer == "gd" else ["epochs=8"]
    batch = tile(*specs, common=common)
    for row, measured in zip(batch.rows, train(batch), strict=True):
        engine, expected = eager(row.run)
        assert (row.status, row.step, row.epoch) == (engine.status, engine.step, engine.epoch)
        assert engine.step >= 300
        assert worst(expected, measured, {"loss/train", "lr"}) <= 1e-9
        # With λ, weights of constant pixels feel nothing else and, under NAdam, soon swing about 0 by their
        # last bit: in the eager engine, too, η (1 + 4e-16) instead of η then moves the objective by 1e-8.
        if row.run.l2 == 0:
            assert worst(expected, measured) <= 1e-8
        for tag in ("accuracy/train", "accuracy/val", "accuracy/test"):
            assert measured[-1].values[tag] == expected[-1].values[tag]


def test_runs_of_all_optimizers_schedules_and_lengths_share_a_tile() -> None:
    """Each ends when it should, and the others do not notice."""
    pairs = zip([o for o in BATCHABLE if o != "gd"], itertools.cycle(options("schedule")), strict=False)
    specs = [
        [f"optimizer={o}", f"schedule={s}", f"epochs={1 + k % 4}", f"seed={k}", "lr=0.002"]
        for k, (o, s) in enumerate(pairs)
    ]
    batch = tile(*specs, common=["dtype=float64", "log_every=7", "batch_size=48"])
    for row, measured in zip(batch.rows, train(batch), strict=True):
        _, expected = eager(row.run)
        assert worst(expected, measured) <= 1e-8, row.run.optimizer.name
        assert row.status == "finished"


@pytest.mark.parametrize("name", [name for name in VARIANTS if name in BATCHABLE])
def test_every_hyperparameter_may_differ_from_row_to_row(name: str) -> None:
    """Rows with the YAML's values, and with each variant that moves some."""
    specs = [
        [f"optimizer.{k}={list(v) if isinstance(v, tuple) else v}" for k, v in variant.items()]
        for variant in ({}, *VARIANTS[name])
    ]
    specs = [[o for o in spec if not o.startswith("optimizer.lr=")] for spec in specs]
    batch = tile(
        *specs, *specs, common=[f"optimizer={name}", "dtype=float64", "log_every=1", "epochs=2", "lr=0.003"]
    )
    for row, measured in zip(batch.rows, train(batch), strict=True):
        _, expected = eager(row.run)
        assert worst(expected, measured) <= 1e-8, row.run.optimizer


@pytest.mark.parametrize("batch_size", ["32", "17", "1", "full"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rows_bits_do_not_depend_on_its_company(dtype: str, batch_size: str) -> None:
    common = [
        f"dtype={dtype}",
        f"batch_size={batch_size}",
        "epochs=2",
        "data.n_samples=300",
        "data=synthetic",
        "data.n_classes=5",
        "log_every=10",  # enough for a sum in blocks, whose order depends on the number of rows
    ]
    own = [
        ["lr=0.01", "seed=3", "l2=0.001"],
        ["optimizer=sgd", "lr=0.1", "seed=3"],
        ["optimizer=radam", "seed=1"],
    ]
    others = [
        [f"lr={0.001 * k}", f"optimizer={o}", f"seed={k}"]
        for k in (1, 2)
        for o in ("adam", "sgd", "nadam", "rmsprop")
    ]
    separate = [bits(train(tile(spec, common=common))[0]) for spec in own]
    for company in (others[:1], others[:4], others):
        together = train(tile(*company, *own, common=common))[-len(own) :]
        assert [bits(m) for m in together] == separate


def test_a_neighbour_that_diverges_changes_no_bit() -> None:
    specs = [[f"lr={lr}", f"seed={k}"] for k, lr in enumerate((0.1, 0.05, 0.2, 0.1))]
    common = ["optimizer=momentum", "epochs=3", "log_every=4"]
    calm = train(tile(*specs, common=common))
    specs[1][0] = "lr=1e30"
    batch = tile(*specs, common=common)
    stormy = train(batch)
    assert [row.status for row in batch.rows] == ["finished", "diverged", "finished", "finished"]
    for k in (0, 2, 3):
        assert bits(stormy[k]) == bits(calm[k])
    engine, expected = eager(batch.rows[1].run)
    assert batch.rows[1].reason == engine.reason == "objective/train is nan at step 2 (epoch 1)"
    assert [m.step for m in stormy[1]] == [m.step for m in expected] == [0, 2]


def test_a_row_that_is_taken_out_changes_no_bit() -> None:
    """As after an error that is its own, such as a full disk."""
    specs = [[f"seed={k}"] for k in range(4)]
    uninterrupted = train(tile(*specs, common=["epochs=3"]))
    batch = tile(*specs, common=["epochs=3"])
    index = {id(row): k for k, row in enumerate(batch.rows)}
    by_row: list[list[Measurement]] = [[] for _ in specs]
    for measured in batch.measurements():
        for row, measurement in measured:
            by_row[index[id(row)]].append(measurement)
            if index[id(row)] == 2 and measurement.step == 30:
                row.status = "failed"
    assert [bits(by_row[k]) == bits(uninterrupted[k]) for k in range(4)] == [True, True, False, True]
    assert by_row[2][-1].step == 30


@pytest.mark.parametrize("name", RULES)
def test_the_rules_in_place_are_the_legible_ones(name: str) -> None:
    """Rows with a learning rate of their own; every variant of the settings; θ after every step."""
    for variant in [{}, *VARIANTS.get(name, [])]:
        hyper = {**hyperparameters(name), **variant}
        rates = np.array([0.03, 0.001, 0.3])[:, None]
        rule = on_tensors(RULES[name])
        generator = torch.Generator().manual_seed(0)
        θ = torch.randn(3, 11, generator=generator, dtype=torch.float64)
        ours, fast = θ.clone(), in_place(RULES[name])
        column = {**hyper, "lr": torch.from_numpy(rates)}
        state, own = rule.init(θ, column), first_state(RULES[name], ours, column)
        scratch = torch.empty_like(θ)
        for t in range(1, 101):
            g = torch.randn(3, 11, generator=generator, dtype=torch.float64)
            θ, state = rule.update(g.clone(), state, θ, column, t)
            coefficients = fast.coefficients({**hyper, "lr": rates}, np.float64(t).reshape(1, 1))
            c = {
                k: torch.from_numpy(np.broadcast_to(v, (3, 1)).copy()) if isinstance(v, np.ndarray) else v
                for k, v in coefficients.items()
            }
            fast.step(ours, g, own, c, scratch)
            assert ((ours - θ).abs().max() / θ.abs().max()).item() <= 1e-12, (variant, t)


def test_a_rule_of_another_package_is_batched_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def sign(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: Any) -> Any:
        low, high = hyper["bounds"]
        v = hyper["mu"] * state["v"] + (1 - hyper["mu"]) * g
        return θ - hyper["lr"] / (1 + 0.01 * t) * v.clamp(low, high), {"v": v}

    from ffn_bench.configuration import parsing
    from ffn_bench.optimizers import registry

    defaults = {"mu": 0.9, "bounds": (-1.0, 1.0)}
    parsing.register_optimizers({"sign": defaults})
    monkeypatch.setattr(
        registry, "plugin", lambda name: Rule(sign, zeros("v"), defaults) if name == "sign" else None
    )
    specs = [["optimizer.mu=0.5", "lr=0.1"], ["lr=0.2"], ["optimizer.bounds=[-0.01,0.02]", "lr=0.3"]]
    batch = tile(*specs, common=["optimizer=sign", "dtype=float64", "epochs=2"])
    for row, measured in zip(batch.rows, train(batch), strict=True):
        _, expected = eager(row.run)
        assert worst(expected, measured) <= 1e-9


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_fused_derivative_is_the_lectures(name: str) -> None:
    σ = ACTIVATIONS[name]
    h_bar = torch.cat(
        [torch.linspace(-30, 30, 1001, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    )
    g = torch.linspace(1, 2, 1002, dtype=torch.float64)
    h = σ.function(h_bar)
    assert torch.allclose(σ.fused(g, h_bar, h), g * σ.derivative(h_bar, h), rtol=1e-12, atol=1e-14)


def test_tiles_fit_the_cache_and_feed_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from ffn_bench.engine import batched

    monkeypatch.setattr(batched, "THREADS", 2)
    small, large, cpu = ([16, 10, 20, 15, 26], 32), ([784, 128, 64, 10], 64), torch.device("cpu")
    assert tile_sizes(1, *small, torch.float32, cpu) == [1]
    assert tile_sizes(32, *small, torch.float32, cpu) == [32]
    assert tile_sizes(128, *small, torch.float32, cpu) == [64, 64]
    assert tile_sizes(511, *small, torch.float32, cpu) == [86, 85, 85, 85, 85, 85]
    assert tile_sizes(5, *large, torch.float32, cpu) == [2, 1, 1, 1]
    assert tile_sizes(3, [3072, 512, 10], 64, torch.float32, cpu) == [1, 1, 1]


def test_what_cannot_be_batched_says_why() -> None:
    reasons = {
        name: reason_not_batchable(parsed(f"optimizer={name}"))
        for name in options("optimizer")
        if name != "torch"
    }
    assert {name for name, reason in reasons.items() if reason} == {"lbfgs", "newton"}
    assert "several times" in str(reasons["lbfgs"])
    assert "ASGD" in str(reason_not_batchable(parsed("optimizer=torch", "optimizer.name=ASGD")))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler")
def test_the_compiled_step_is_the_same_step() -> None:
    specs = [["lr=0.01", "l2=0.001"], ["optimizer=sgd", "lr=0.1"], ["seed=2", "epochs=1"]]
    common = ["dtype=float64", "epochs=2"]
    plain = train(tile(*specs, common=common))
    compiled = train(tile(*specs, common=[*common, "compile=true"]))
    for a, b in zip(plain, compiled, strict=True):
        assert worst(a, b) <= 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_row_on_a_gpu_is_its_eager_run(compiled: str) -> None:
    """The step captured in a CUDA graph, with rows that end early and one that diverges."""
    specs = [
        ["lr=0.01"],
        ["seed=1", "epochs=2"],
        ["optimizer=sgd", "lr=1e30"],
        ["optimizer=nadam", "lr=0.001"],
    ]
    batch = tile(
        *specs, common=["device=cuda", "dtype=float64", f"compile={compiled}", "epochs=4"], device="cuda"
    )
    for row, measured in zip(batch.rows, train(batch), strict=True):
        row.run.compile = False
        engine, expected = eager(row.run)
        assert (engine.status, engine.reason) == (row.status, row.reason)
        if row.status == "finished":
            assert worst(expected, measured, {"loss/train", "loss/val"}) <= 1e-7
