"""The training loop with every engine: seeds, log points, ends, and stops between any two steps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from cases import bits, layers_of, parsed, stop_at, trained
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.engine.build import build
from ffn_bench.engine.loop import Run
from ffn_bench.engine.metrics import Measurement
from ffn_bench.model.layers import flat

ENGINES = ("compiled", "torch", "batched")


@cache
def small() -> TrainConfig:
    keys = ("data=moons", "data.n_samples=200", "batch_size=20", "epochs=3", "log_every=4", "dtype=float64")
    return parsed(*keys)


def run_of(engine: str, **changes: Any) -> Run:
    return build(replace(small(), engine=engine, **changes))[0].runs[0]


def weights(run: Run) -> Any:
    return flat(layers_of(run))


def end(engine: str, **changes: Any) -> Any:
    """The last weights of a run."""
    trained(run := run_of(engine, **changes))
    return weights(run)


def shape(measured: list[Measurement]) -> list[Any]:
    return [(m.step, m.epoch, m.ends_epoch, sorted(m.values)) for m in measured]


@pytest.mark.parametrize("engine", ENGINES)
def test_each_seed_decides_one_thing(engine: str) -> None:
    start, last = weights(run_of(engine, seed=3)), end(engine, seed=3)
    # init_seed alone decides where a run starts, order_seed in which order it visits the rows.
    assert torch.equal(weights(run_of(engine, seed=8, init_seed=3)), start)
    assert torch.equal(weights(run_of(engine, seed=3, order_seed=8)), start)
    assert not torch.equal(weights(run_of(engine, seed=3, init_seed=8)), start)
    assert torch.equal(end(engine, seed=8, init_seed=3, order_seed=3), last)
    assert torch.equal(end(engine, seed=3, init_seed=None, order_seed=3), last)
    ends = [last, end(engine, seed=3, init_seed=8), end(engine, seed=3, order_seed=8), end(engine, seed=8)]
    assert len({tuple(end.tolist()) for end in ends}) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_the_order_does_not_matter_to_a_full_batch(engine: str) -> None:
    ends = [end(engine, batch_size="full", order_seed=seed) for seed in (None, 8)]
    assert torch.equal(*ends)


def test_seeds_mean_the_same_in_every_engine() -> None:
    keys = {"seed": 5, "init_seed": 6, "order_seed": 7}
    runs = {engine: run_of(engine, **keys) for engine in ENGINES}
    measured = {engine: trained(run) for engine, run in runs.items()}
    for engine in ENGINES[1:]:
        assert shape(measured[engine]) == shape(measured["compiled"])
        assert torch.allclose(weights(runs[engine]), weights(runs["compiled"]), rtol=1e-9, atol=1e-12)
        for ours, theirs in zip(measured[engine], measured["compiled"], strict=True):
            assert ours.values == pytest.approx(theirs.values, rel=1e-8)


@pytest.mark.parametrize("changes", [{}, {"drop_last": True}, {"log_every": 1}, {"log_every": 1000}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 19, 140, "full"])
def test_engines_measure_at_the_same_steps(batch_size: Any, changes: dict[str, Any]) -> None:
    """Shapes that an epoch divides by, or not, and log points that do, or not."""
    curves = [trained(run_of(engine, batch_size=batch_size, **changes)) for engine in ENGINES]
    assert shape(curves[0]) == shape(curves[1]) == shape(curves[2])
    for other in curves[1:]:
        for ours, theirs in zip(curves[0], other, strict=True):
            assert ours.values == pytest.approx(theirs.values, rel=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_it_stops_between_any_two_steps(engine: str) -> None:
    """And goes on from its state, to the same bits."""
    expected = bits(trained(run_of(engine)))
    for at in range(0, 22):
        stopped, resumed = run_of(engine), run_of(engine)
        stop_at(stopped.training, at)
        before = trained(stopped)
        assert (stopped.step, stopped.status) == (at, "finished" if at == 21 else "running")
        resumed.training.resume([stopped.state()])
        assert bits([*before, *trained(resumed)]) == expected, at


@pytest.mark.parametrize("engine", ENGINES)
def test_divergence_ends_a_run_at_its_step(engine: str) -> None:
    run = run_of(engine, optimizer=parsed("optimizer=sgd").optimizer, lr=1e200, log_every=1000)
    measured = trained(run)
    assert run.status == "diverged"
    assert (run.step, measured[-1].step) == (2, 2)
    assert run.reason.startswith("objective/train is ") and run.reason.endswith(" at step 2 (epoch 1)")
    assert not np.isfinite(measured[-1].values["objective/train"])
