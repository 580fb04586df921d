"""Every loss on every output that it is of: against PyTorch's, by hand against autograd, in every engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cases import all_measured, parsed
from ffn_bench.configuration.fingerprint import fingerprint
from ffn_bench.configuration.schema import TrainConfig, default_output
from ffn_bench.data import preparation, rows
from ffn_bench.data.rows import Array, Data, Raw
from ffn_bench.engine.build import build, build_batched
from ffn_bench.engine.tensors import on_device
from ffn_bench.errors import UserError
from ffn_bench.model import inference
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import by_autograd, by_hand
from ffn_bench.model.losses import LOSSES, Criterion, criterion_of
from ffn_bench.model.tensor_losses import mean_loss, row_losses
from ffn_bench.sweeps.leaderboard import leaderboard

OF_CLASSES = [(name, output) for name, loss in LOSSES.items() for output in loss.outputs]
OF_TARGETS = [(name, "identity") for name, loss in LOSSES.items() if loss.of_targets]
CASES = [("classification", *case) for case in OF_CLASSES] + [("regression", *case) for case in OF_TARGETS]
of_case = pytest.mark.parametrize(("task", "loss", "output"), CASES)


def settings_of(loss: str) -> dict[str, float]:
    """The loss's own keys, at values that are not their defaults."""
    return {key: {"label_smoothing": 0.1, "delta": 0.3}[key] for key in LOSSES[loss].keys}


def criterion(loss: str, output: str) -> Criterion:
    own = settings_of(loss)
    return Criterion(loss, output, own.get("label_smoothing", 0.0), own.get("delta", 1.0))


def drawn(task: str, rows: int = 40, outputs: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, of which some are large, and labels or targets."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
    z[: rows // 4] *= 30
    if task == "regression":
        return z, torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
    return z, torch.randint(outputs, (rows,), generator=generator)


def one_hot(y: Tensor, n: int, smoothing: float) -> Tensor:
    return nn.functional.one_hot(y, n).double() * (1 - smoothing) + smoothing / n


def pytorchs(task: str, loss: str, output: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The same loss of PyTorch's modules, `[rows]`."""
    own = criterion(loss, output)
    if (loss, output) == ("cross_entropy", "softmax"):
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=own.smoothing)
    elementwise: nn.Module = {
        "cross_entropy": nn.BCEWithLogitsLoss(reduction="none"),
        "squared": nn.MSELoss(reduction="none"),
        "absolute": nn.L1Loss(reduction="none"),
        "huber": nn.HuberLoss(reduction="none", delta=own.delta),
    }[loss]
    outputs = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(1)}
    function = nn.Identity() if loss == "cross_entropy" else outputs[output]

    def of_rows(z: Tensor, y: Tensor) -> Tensor:
        t = y if task == "regression" else one_hot(y, z.shape[1], own.smoothing)
        losses: Tensor = elementwise(function(z), t).sum(1)
        return losses / 2 if loss == "squared" else losses

    return of_rows


@of_case
def test_losses_are_those_of_pytorch(task: str, loss: str, output: str) -> None:
    z, y = drawn(task)
    expected = pytorchs(task, loss, output)(z, y)
    own = criterion(loss, output)
    torch.testing.assert_close(row_losses(z, y, own), expected, rtol=1e-12, atol=1e-12)
    arrays = inference.row_losses(z.numpy(), y.numpy(), own)
    np.testing.assert_allclose(arrays, expected.numpy(), rtol=1e-12, atol=1e-12)


@of_case
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_by_hand_are_those_of_autograd(task: str, loss: str, output: str, activation: str) -> None:
    generator = torch.Generator().manual_seed(1)
    layers = [
        (
            torch.randn(n_in, n_out, generator=generator, dtype=torch.float64),
            torch.randn(n_out, generator=generator, dtype=torch.float64),
        )
        for n_in, n_out in ((4, 5), (5, 3))
    ]
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    _, y = drawn(task)
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    what = layers, x, y, ACTIVATIONS[activation], 0.01, 0.02, criterion(loss, output), weights
    hand, auto = by_hand(*what), by_autograd(*what)
    torch.testing.assert_close(hand.loss, auto.loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hand.objective, auto.objective, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(hand.x, auto.x, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(hand.layers, auto.layers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("loss", "output"), OF_CLASSES)
@pytest.mark.parametrize("at", [-800.0, -1.0, 0.0, 1.0, 800.0])
def test_gradients_are_finite_wherever_a_logit_is(loss: str, output: str, at: float) -> None:
    z = torch.tensor([[at, 0.0, -at]], dtype=torch.float64, requires_grad=True)
    for label in range(3):
        value = mean_loss(z, torch.tensor([label]), criterion(loss, output))
        (gradient,) = torch.autograd.grad(value, z)
        assert value.isfinite() and gradient.isfinite().all()
        hand = by_hand([(torch.eye(3).double(), torch.zeros(3).double())], z.detach(), torch.tensor([label]),
                       ACTIVATIONS["identity"], criterion=criterion(loss, output))  # fmt: skip
        torch.testing.assert_close(hand.layers[0][1], gradient[0], rtol=1e-10, atol=1e-10)


# --- engines --------------------------------------------------------------------------------------------


def data_of(task: str, weighted: bool = True, n_targets: int = 2) -> Data[Array]:
    """Rows in float64, weighted, of which a fifth is validation."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(150, 4))
    weights = rng.random(150) if weighted else None
    config = parsed("data=moons").data
    if task == "regression":
        y = np.stack([3 * x[:, 0] - x[:, 1] ** 2, 100 + 10 * np.sin(x[:, 2])], 1)[:, :n_targets]
        names = ("height", "depth")[:n_targets]
        return preparation.prepare(Raw(x, y, (), targets=names, weights=weights), replace(config, task=task))
    labels = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1)
    return preparation.prepare(Raw(x, labels, ("a", "b", "c"), weights=weights), config)


def configured(task: str, loss: str, output: str, *others: str) -> TrainConfig:
    own = [f"loss.{key}={value}" for key, value in settings_of(loss).items()]
    if task == "classification":
        own.append("loss.class_weight={b:2.5}")
    run = parsed(
        "data=moons", "model.hidden=[6]", "model.activation=tanh", "dtype=float64", "epochs=3",
        "batch_size=16", "lr=0.05", f"loss={loss}", f"loss.output={output}", *own, *others,
    )  # fmt: skip
    return replace(run, data=replace(run.data, task=task))


def measured(run: TrainConfig, data: Data[Array]) -> list[list[float]]:
    return [list(m.values.values()) for m in all_measured(build(run, data=data)[0])[0]]


@of_case
def test_engines_agree_in_every_step(task: str, loss: str, output: str) -> None:
    data = data_of(task)
    expected = measured(
        configured(task, loss, output, "log_every=1", "l1=0.01", "l2=0.02", "engine=torch"), data
    )
    assert all(np.isfinite(values).all() for values in expected)
    others = {"compiled": ["engine=compiled"], "manual": ["engine=torch", "gradient=manual"]}
    for keys in others.values():
        run = configured(task, loss, output, "log_every=1", "l1=0.01", "l2=0.02", *keys)
        for ours, theirs in zip(measured(run, data), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@of_case
def test_runs_side_by_side_are_as_alone(task: str, loss: str, output: str) -> None:
    """Of the batched engine, with different penalties."""
    data = data_of(task)
    runs = [configured(task, loss, output, "log_every=1", f"l1={l1}", f"l2={l2}", f"seed={seed}")
            for seed, (l1, l2) in enumerate([(0.0, 0.0), (0.01, 0.0), (0.02, 0.03)])]  # fmt: skip
    prepared = [build(replace(run, engine="compiled"), data=data)[1].data for run in runs]
    together = build_batched(runs, prepared[0], on_device(prepared[0]))
    for run, measurements in zip(runs, all_measured(together), strict=True):
        alone = measured(replace(run, engine="compiled"), data)
        for ours, theirs in zip([list(m.values.values()) for m in measurements], alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("engine", ["compiled", "torch", "batched"])
def test_scores_of_a_regression_are_those_of_scikit_learn(engine: str, n_targets: int) -> None:
    from sklearn import metrics

    data = data_of("regression", n_targets=n_targets)
    (run,) = build(configured("regression", "squared", "identity", f"engine={engine}"), data=data)[0].runs
    values = all_measured(run.training)[0][-1].values
    for split in ("train", "val", "test"):
        x, t, _ = getattr(run.data, split)
        expected, predicted = (y * data.target_std + data.target_mean for y in (t, run.network(x)))
        assert values[f"r2/{split}"] == pytest.approx(metrics.r2_score(expected, predicted), rel=1e-10)
        rmse, mae = metrics.root_mean_squared_error, metrics.mean_absolute_error
        assert values[f"rmse/{split}"] == pytest.approx(rmse(expected, predicted), rel=1e-10)
        assert values[f"mae/{split}"] == pytest.approx(mae(expected, predicted), rel=1e-10)
    assert values["r2/train"] > 0.5


def test_weights_of_whole_numbers_are_rows_repeated() -> None:
    """A row of weight 3 counts as three rows: of full batches, whose mean loss is over as many rows."""
    rng = np.random.default_rng(0)
    z, y = torch.from_numpy(rng.normal(size=(12, 3))), torch.from_numpy(rng.integers(3, size=12))
    counts = torch.from_numpy(rng.integers(1, 4, size=12))
    weights = counts / counts.double().mean()
    repeated = mean_loss(z.repeat_interleave(counts, 0), y.repeat_interleave(counts))
    torch.testing.assert_close(mean_loss(z, y, weights=weights), repeated)


def test_balanced_classes_weigh_as_scikit_learn_says() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    data = data_of("classification", weighted=False)
    weights = rows.weighted(data, "balanced").train.weights
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=data.train.y)
    np.testing.assert_allclose(weights, expected[data.train.y])
    assert weights.mean() == pytest.approx(1)


MISTAKES: dict[str, list[str]] = {
    "identity": ["loss=cross_entropy", "loss.output=identity"],
    "label_smoothing": ["loss=squared", "loss.label_smoothing=0.1"],
    "delta": ["loss=absolute", "loss.delta=2.0"],
    "nearest right one\\? cross|did you mean": ["loss.name=cross_entropi"],
    "classification": ["data=moons", "data.task=regression"],
    "between|below 1": ["loss.label_smoothing=1.0"],
    "above 0": ["loss=huber", "loss.delta=0"],
    "balanced": ["loss.class_weight=balance"],
    "'ten'": ["loss.class_weight={ten:2}"],
    "at least 0": ["l1=-1"],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_does_not_go_together_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=text) as e:
        build(parsed(*MISTAKES[text]))
    assert "\n" not in str(e.value)


def test_auto_is_the_default_of_the_task() -> None:
    for task, loss, output in (
        ("classification", "cross_entropy", "softmax"),
        ("regression", "squared", "identity"),
    ):
        run: Any = configured(task, loss, output)
        assert criterion_of(replace(run, loss=parsed().loss)) == Criterion(loss, output)


# --- which run it is ------------------------------------------------------------------------------------

SAME = {
    "auto": (["loss=auto"], ["loss=cross_entropy"]),
    "the default output": (["loss=auto"], ["loss.output=softmax"]),
    "another loss's default output": (["loss=squared"], ["loss=squared", "loss.output=null"]),
    "a weight of 1": (["loss.class_weight={a:2}"], ["loss.class_weight={a:2.0,b:1}"]),
    "weights of 1": (["loss.class_weight=none"], ["loss.class_weight={b:1}"]),
}
OTHERS = {
    "another output": (["loss=auto"], ["loss.output=sigmoid"]),
    "smoothing": (["loss=auto"], ["loss.label_smoothing=0.1"]),
    "another weight": (["loss.class_weight={a:2}"], ["loss.class_weight={a:3}"]),
    "another δ": (["loss=huber"], ["loss=huber", "loss.delta=2"]),
}


@pytest.mark.parametrize("case", SAME)
def test_a_loss_said_in_another_way_is_the_same_run(case: str) -> None:
    first, second = (fingerprint(parsed(*overrides)) for overrides in SAME[case])
    assert first == second


@pytest.mark.parametrize("case", OTHERS)
def test_another_loss_is_another_run(case: str) -> None:
    first, second = (fingerprint(parsed(*overrides)) for overrides in OTHERS[case])
    assert first != second


def test_a_default_output_is_one_that_the_loss_takes() -> None:
    assert all(default_output(name) in loss.outputs for name, loss in LOSSES.items())


@pytest.mark.parametrize("engine", ["compiled", "torch", "batched"])
def test_a_finite_loss_of_huge_errors_has_finite_scores(engine: str) -> None:
    """Squares of errors overflow float32 from 1e19 on."""
    data = data_of("regression")
    run = configured(
        "regression", "huber", "identity", "epochs=1", "lr=1e20", "optimizer=sgd", "dtype=float32"
    )
    training = build(replace(run, engine=engine), data=data)[0]
    last = all_measured(training)[0][-1].values
    assert np.isfinite(last["loss/val"]) and last["rmse/val"] > 1e19 and training.runs[0].status == "finished"


def test_a_leaderboard_does_not_rank_by_values_of_different_losses() -> None:
    def summary(loss: float, accuracy: float) -> dict[str, Any]:
        values = {"loss/val": loss, "accuracy/val": accuracy, "accuracy/test": accuracy}
        return {
            "status": "finished", "monitor": "loss/val", "best": {"epoch": 1, **values}, "final": values,
            "epochs": 1, "train_seconds": 0.1,
        }  # fmt: skip

    summaries = [summary(0.1, 0.5), summary(0.9, 0.8)]
    for key, first in (("loss", "huber"), ("loss.delta", "huber"), ("lr", "squared")):
        settings = [{key: "squared"}, {key: "huber"}]
        rows, *_ = leaderboard(settings, summaries)
        assert rows[0]["settings"][key] == first
