"""The batched engine: every run is what it is in the torch engine, and no row feels its neighbours."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from cases import all_measured, options, parsed, together, trained
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.engine.build import build
from ffn_bench.engine.choice import why_not_batched
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.metrics import Measurement
from optimizers.test_rules import VARIANTS

BATCHABLE = [
    name
    for name in options("optimizer")
    if name != "torch" and not why_not_batched(parsed(f"optimizer={name}"))
]
ARCHITECTURES = {
    "the lecture's": [],
    "one hidden layer": ["model.hidden=[12]", "model.activation=tanh"],
    "deep": ["model=mlp", "model.depth=4", "model.width=9", "model.activation=gelu", "model.init=xavier"],
}


def tile(*specs: list[str], common: list[str], device: str = "cpu") -> Training:
    return together([parsed(*common, *spec) for spec in specs], device)


def alone(config: TrainConfig) -> tuple[Run, list[Measurement]]:
    """A run by itself in the compiled engine, which other tests compare with PyTorch."""
    (run,) = build(replace(config, engine="compiled"))[0].runs
    return run, trained(run)


RANKED = {"roc_auc/val", "roc_auc/test"}
"""What a last bit may change by more: a network that hardly tells rows apart ranks them by rounding."""


def worst(ours: list[Measurement], expected: list[Measurement], tags: set[str] | None = None) -> float:
    """The largest relative difference of any value; steps, epochs and tags must be the same."""
    assert [(m.step, m.epoch, m.ends_epoch) for m in ours] == [
        (m.step, m.epoch, m.ends_epoch) for m in expected
    ]
    largest = 0.0
    for a, b in zip(ours, expected, strict=True):
        assert a.values.keys() == b.values.keys()
        for tag in (a.values.keys() & (tags or a.values.keys())) - RANKED:
            x, y = a.values[tag], b.values[tag]
            if x != y and not (math.isnan(x) and math.isnan(y)):
                largest = max(largest, abs(x - y) / max(abs(x), 1e-300))
    return largest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", BATCHABLE)
def test_a_run_is_what_it_is_alone(optimizer: str, architecture: str) -> None:
    """Four runs of mixed learning rate, seed and λ, 320 steps: every step's loss, the final accuracies."""
    mixed = zip(
        itertools.cycle([0.003, 0.001, 0.0005]),
        range(4),
        itertools.cycle([0.0, 1e-4, 0.0, 1e-3]),
        strict=False,
    )
    specs = [[f"lr={lr}", f"seed={seed}", f"l2={l2}"] for lr, seed, l2 in mixed]
    common = [f"optimizer={optimizer}", *ARCHITECTURES[architecture], "dtype=float64", "log_every=1"]
    full = ["batch_size=full", "epochs=300", "data.val_fraction=0.4", "data.test_fraction=0.4"]
    common += full if optimizer == "gd" else ["epochs=8"]
    batch = tile(*specs, common=common)
    for run, measured in zip(batch.runs, all_measured(batch), strict=True):
        single, expected = alone(run.config)
        assert (run.status, run.step, run.epoch) == (single.status, single.step, single.epoch)
        assert single.step >= 300
        assert worst(expected, measured, {"loss/train", "lr"}) <= 1e-9
        # With λ, weights of constant pixels feel nothing else and, under NAdam, soon swing about 0 by their
        # last bit: in the torch engine, too, η (1 + 4e-16) instead of η then moves the objective by 1e-8.
        if run.config.l2 == 0:
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
    for run, measured in zip(batch.runs, all_measured(batch), strict=True):
        _, expected = alone(run.config)
        assert worst(expected, measured) <= 1e-8, run.config.optimizer.name
        assert run.status == "finished"


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
    for run, measured in zip(batch.runs, all_measured(batch), strict=True):
        _, expected = alone(run.config)
        assert worst(expected, measured) <= 1e-8, run.config.optimizer


NEARLY = 1e-9
"""Of float64: PyTorch's products and sums of a row depend, on some processors in the last bit, on how many
rows there are."""


@pytest.mark.parametrize("batch_size", ["32", "17", "1", "full"])
def test_a_row_is_the_same_in_any_company(batch_size: str) -> None:
    common = [
        "dtype=float64",
        f"batch_size={batch_size}",
        "epochs=2",
        "data=synthetic",
        "data.n_samples=900",
        "data.n_classes=5",
        "data.val_fraction=0.4",  # enough for a sum in blocks, whose order depends on the number of runs
        "data.test_fraction=0.4",
        "log_every=10",
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
    separate = [all_measured(tile(spec, common=common))[0] for spec in own]
    for company in (others[:1], others[:4], others):
        together = all_measured(tile(*company, *own, common=common))[-len(own) :]
        for one, other in zip(together, separate, strict=True):
            assert worst(one, other) <= NEARLY


def test_a_neighbour_that_diverges_changes_nothing() -> None:
    specs = [[f"lr={lr}", f"seed={k}"] for k, lr in enumerate((0.1, 0.05, 0.2, 0.1))]
    common = ["optimizer=momentum", "epochs=3", "log_every=4", "dtype=float64"]
    calm = all_measured(tile(*specs, common=common))
    specs[1][0] = "lr=1e200"
    batch = tile(*specs, common=common)
    stormy = all_measured(batch)
    assert [run.status for run in batch.runs] == ["finished", "diverged", "finished", "finished"]
    for k in (0, 2, 3):
        assert worst(stormy[k], calm[k]) <= NEARLY
    single, expected = alone(batch.runs[1].config)
    assert batch.runs[1].reason == single.reason == "objective/train is nan at step 2 (epoch 1)"
    assert [m.step for m in stormy[1]] == [m.step for m in expected] == [0, 2]


def test_a_row_that_is_taken_out_changes_nothing() -> None:
    """As after an error that is its own, such as a full disk."""
    specs = [[f"seed={k}"] for k in range(4)]
    uninterrupted = all_measured(tile(*specs, common=["epochs=3", "dtype=float64"]))
    batch = tile(*specs, common=["epochs=3", "dtype=float64"])
    by_run: list[list[Measurement]] = [[] for _ in specs]
    for measured in batch.measurements():
        for k, run in enumerate(batch.runs):
            by_run[k] += measured.get(run, [])
        if by_run[2][-1].step >= 30:
            batch.runs[2].status = "failed"
    for k in (0, 1, 3):
        assert worst(by_run[k], uninterrupted[k]) <= NEARLY
    assert by_run[2][-1].step < 120


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_a_gpu_is_what_it_is_alone() -> None:
    """The step captured in a CUDA graph, with rows that end early and one that diverges."""
    specs = [
        ["lr=0.01"],
        ["seed=1", "epochs=2"],
        ["optimizer=sgd", "lr=1e30"],
        ["optimizer=nadam", "lr=0.001"],
    ]
    batch = tile(*specs, common=["device=cuda", "dtype=float64", "epochs=4"], device="cuda")
    for run, measured in zip(batch.runs, all_measured(batch), strict=True):
        single, expected = alone(replace(run.config, device="cpu"))
        assert (single.status, single.reason) == (run.status, run.reason)
        if run.status == "finished":
            assert worst(expected, measured, {"loss/train", "loss/val"}) <= 1e-7
