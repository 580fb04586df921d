"""The best epoch: which one it is, its weights in every engine, and when a run ends early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from cases import bits, parsed, stop_at, together, trained
from engine.test_loop import ENGINES, run_of, small
from ffn_bench import tags
from ffn_bench.data.rows import Split
from ffn_bench.engine.build import build
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.metrics import Measurement
from ffn_bench.engine.monitor import Monitor
from ffn_bench.errors import UserError

EARLY = {"epochs": 40, "monitor": "loss/val", "patience": 2, "min_delta": 0.03}
"""A run of `small` that ends before its 40 epochs, at one that is not the best."""

DEVICES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))


def monitor(**changes: Any) -> Monitor:
    return Monitor(replace(small(), **changes), ("train", "val", "test"))


def ends(values: list[float], tag: str = "loss/val", **changes: Any) -> tuple[int, int]:
    """The best epoch, and the last one, of a run that measures these values."""
    watching = monitor(monitor=tag, **changes)
    for epoch, value in enumerate(values):
        watching.see(epoch, 7 * epoch, {tag: value})
        if watching.why_stop(epoch):
            break
    assert watching.step == 7 * watching.epoch and watching.value == values[watching.epoch]
    return watching.epoch, epoch


@pytest.mark.parametrize(
    ("values", "changes", "expected"),
    [
        ([3.0, 2.0, 1.0, 2.0], {}, (2, 3)),
        ([3.0, 1.0, 1.0, 1.0], {}, (1, 3)),  # of equal ones the first
        ([3.0, 2.0, 3.0, 3.0, 1.0], {"patience": 2}, (1, 3)),
        ([3.0, 2.0, 3.0, 1.0, 3.0, 3.0, 3.0], {"patience": 2}, (3, 5)),
        ([1.0, 2.0, 2.0, 2.0], {"patience": 1}, (0, 1)),  # the initial weights may be the best
        ([1.0, 1.0, 1.0, 1.0], {"patience": 3}, (0, 3)),  # the same is no improvement
        ([3.0, 2.9, 2.8, 2.7, 2.6], {"patience": 2, "min_delta": 0.5}, (2, 2)),  # better, and not by enough
        ([3.0, 2.9, 2.4, 2.3, 1.8, 1.7], {"patience": 2, "min_delta": 0.5}, (5, 5)),  # but together they are
        ([3.0, 2.5, 2.5], {"patience": 2, "min_delta": 0.5}, (1, 2)),  # it is more that is asked for
    ],
)
def test_the_best_epoch_and_the_last(
    values: list[float], changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert ends(values, **changes) == expected
    assert ends([-value for value in values], "accuracy/val", **changes) == expected  # where higher is better


def test_the_reason_says_what_and_how_long() -> None:
    watching = monitor(patience=10)
    watching.see(0, 0, {"accuracy/val": 0.1})
    watching.see(23, 920, {"accuracy/val": 0.5})
    assert watching.why_stop(32) == ""
    reason = "no improvement of accuracy/val for 10 epochs (best: epoch 23)"
    assert watching.why_stop(33) == reason


def test_without_validation_the_last_epoch_is_the_best() -> None:
    without = ("train", "test")
    watching = Monitor(small(), without)
    for epoch in range(3):
        assert watching.see(epoch, 7 * epoch, {"accuracy/test": 0.5})
    assert (watching.tag, watching.epoch, watching.step) == (None, 2, 14)
    for changes, key in (({"patience": 3}, "patience"), ({"monitor": "accuracy/val"}, "monitor")):
        with pytest.raises(UserError, match="no validation part") as e:
            Monitor(replace(small(), **changes), without)
        assert e.value.where == key


@pytest.mark.parametrize("engine", ENGINES)
def test_every_monitored_tag_is_measured_at_the_end_of_every_epoch(engine: str) -> None:
    for measurement in trained(run_of(engine)):
        if measurement.ends_epoch:
            expected = {tag for split in tags.SPLITS for tag in tags.at_epoch_end(split)}
            assert expected <= set(measurement.values)


SPLIT_TAGS = [score.tag(split) for score in tags.SPLIT_SCORES for split in score.splits]


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_of_a_split_are_measured_when_a_run_has_finished(engine: str) -> None:
    run = run_of(engine, **EARLY)
    *before, last = [m for m in trained(run) if m.ends_epoch]
    assert not [tag for m in before for tag in m.values if tag in SPLIT_TAGS]
    assert set(SPLIT_TAGS) <= set(last.values)
    for split in ("val", "test"):
        x, y, _ = getattr(run.data, split)
        logits = run.network(x)
        assert last.values[f"accuracy/{split}"] == pytest.approx((logits.argmax(1) == y).mean())
        areas = roc_auc_score(y, softmax(logits.astype(float), axis=1)[:, 1])
        assert last.values[f"roc_auc/{split}"] == pytest.approx(areas, abs=1e-12)
        assert last.values[f"log_loss/{split}"] == pytest.approx(last.values[f"loss/{split}"], abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tag", SPLIT_TAGS)
def test_a_monitored_score_is_measured_at_every_epoch_and_chooses_the_best(engine: str, tag: str) -> None:
    run = run_of(engine, monitor=tag, epochs=6)
    measured = [m for m in trained(run) if m.ends_epoch]
    quantity = tags.quantity(tag)
    own = {quantity.tag(split) for split in quantity.splits}
    assert all(own == {*m.values} & {*SPLIT_TAGS} for m in measured[:-1])
    values = [quantity.sign * m.values[tag] for m in measured]
    best = int(np.argmax(values))
    assert (run.monitor.epoch, run.monitor.value) == (best, measured[best].values[tag])


def test_a_monitored_score_must_be_known() -> None:
    """The area under a curve is none where the split has no row of some class; others are."""
    data = run_of("torch").data
    x, y, _ = data.val
    lacking = replace(data, val=Split(x[y == 0], y[y == 0]))
    for tag in SPLIT_TAGS:
        run = replace(small(), monitor=tag)
        if tag == "roc_auc/val":
            lacks = f"the validation part has none of '{data.classes[1]}'"
            with pytest.raises(UserError, match=lacks) as e:
                build(run, data=lacking)
            assert e.value.where == "monitor"
        else:
            build(run, data=lacking)


# --- in every engine -------------------------------------------------------------------------------------


def best_of(run: Run) -> list[Any]:
    """The best epoch, and its weights to the bit."""
    layers = run.best_layers()
    assert layers is not None
    return [run.monitor.epoch, run.monitor.value.hex(), *(t.tobytes() for layer in layers for t in layer)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_weights_are_those_of_the_best_epoch(engine: str) -> None:
    run = run_of(engine, **EARLY)
    measured = [m for m in trained(run) if m.ends_epoch]
    assert (run.status, run.epoch) == ("finished", measured[-1].epoch)
    assert run.epoch < 40 and "no improvement of loss/val by more than 0.03 for 2 epochs" in run.reason
    losses = [m.values["loss/val"] for m in measured]
    assert run.monitor.epoch == int(np.argmin(losses)) and run.monitor.value == min(losses)
    again = run_of(engine, **EARLY)
    stop_at(again.training, 7 * run.monitor.epoch)
    trained(again)
    assert best_of(again) == best_of(run)


def test_engines_agree_on_the_end() -> None:
    runs = [run_of(engine, **EARLY) for engine in ENGINES]
    for run in runs:
        trained(run)
    assert len({(run.epoch, run.monitor.epoch, run.reason) for run in runs}) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_it_ends_at_the_same_epoch_from_any_state(engine: str, keep: str) -> None:
    whole = run_of(engine, **EARLY)
    expected = bits(trained(whole))
    for at in (*range(0, whole.step, 5), whole.step):
        stopped, resumed = run_of(engine, keep=keep, **EARLY), run_of(engine, keep=keep, **EARLY)
        stop_at(stopped.training, at)
        before = trained(stopped)
        resumed.training.resume([stopped.state()])
        assert bits([*before, *trained(resumed)]) == expected, at
        assert (resumed.status, resumed.reason) == ("finished", whole.reason)
        if keep == "best":
            assert best_of(resumed) == best_of(whole), at
    if keep == "last" and whole.monitor.epoch < whole.epoch:
        assert resumed.best_layers() is None


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_stand_once_in_a_state(engine: str) -> None:
    """Where the best epoch is the one that has just ended, its weights are the network's."""
    for at, known in ((7, True), (8, False)):
        run = run_of(engine, monitor="loss/val")
        stop_at(run.training, at)
        trained(run)
        state = run.state()
        assert state["best"]["epoch"] == 1
        assert (state["best"]["network"] is None) == known


@pytest.mark.parametrize("device", DEVICES)
def test_rows_that_end_early_leave_their_neighbours_as_they_are(device: str) -> None:
    """To the bit, while the same rows are computed, and with the best weights of their own."""
    common = ["data=moons", "data.n_samples=200", "batch_size=20", "epochs=12", f"device={device}"]

    def trained_together(*patience: str) -> list[list[Any]]:
        specs = enumerate(patience)
        configs = [parsed(*common, f"seed={k}", f"patience={p}", "lr=0.02") for k, p in specs]
        return all_measured_with_best(together(configs, device))

    long = trained_together(*["null"] * 5)
    early = trained_together("null", "2", "null", "1", "null")
    for k, ((curve, epoch, best), (whole, last, best_of_all)) in enumerate(zip(early, long, strict=True)):
        for ours, theirs in zip(curve, whole, strict=False):
            if ours is curve[-1] and ours.epoch < 12:  # where scores of a split are measured, too
                ours = replace(ours, values={tag: ours.values[tag] for tag in theirs.values})
            assert bits([ours]) == bits([theirs])
        assert last == 12 and (epoch < 12) == (k in (1, 3))
        assert (best == best_of_all) == (best[0] == best_of_all[0])


def all_measured_with_best(training: Training) -> list[list[Any]]:
    """Of every run what is measured, its last epoch, and its best weights when it ends."""
    curves: dict[Run, list[Measurement]] = {run: [] for run in training.runs}
    best: dict[Run, Any] = {}
    for measured in training.measurements():
        for run, values in measured.items():
            curves[run] += values
            if run.status != "running":
                best[run] = best_of(run)
    return [[curves[run], run.epoch, best[run]] for run in training.runs]
