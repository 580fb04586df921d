"""The torch engine against PyTorch's own modules, and every combination of its parts."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cases import OPTIMIZER_NEEDS, layers_of, options, parsed, torch_run, trained
from conftest import MNIST, needs_mnist
from ffn_bench.data import batches, datasets
from ffn_bench.engine.loop import Run, Training
from ffn_bench.engine.metrics import Measurement
from ffn_bench.engine.tensors import on_device
from ffn_bench.engine.torch_engine import TorchEngine
from ffn_bench.model import network
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.initialisation import INITS
from ffn_bench.optimizers import schedules, torch_optimizers
from ffn_bench.optimizers.rules import RULES


def engine(*overrides: str) -> TorchEngine:
    return engine_of(torch_run(*overrides))


def engine_of(run: Run) -> TorchEngine:
    assert isinstance(run.training.engine, TorchEngine)
    return run.training.engine


def parameters(run: Run) -> list[Tensor]:
    return [p.detach() for p in engine_of(run).network.parameters()]


def losses(measurements: list[Measurement], tag: str = "loss/train") -> list[float]:
    return [m.values[tag] for m in measurements if tag in m.values]


def test_it_is_the_lectures_loop() -> None:
    """Against nn.Linear, torch.optim.Adam and a plain loop over the same batches."""
    run = torch_run("dtype=float64", "epochs=3", "log_every=1", "seed=4")
    layers: list[nn.Module] = []
    for W, b in layers_of(run):
        linear = nn.Linear(W.shape[0], W.shape[1], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(W.T)
            linear.bias.copy_(b)
        layers += [linear, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    loss_function = nn.CrossEntropyLoss()
    expected = []
    data = on_device(run.data)
    train = data.train
    for epoch in range(1, 4):
        for rows in torch.from_numpy(batches.epoch_order(len(train.y), 4, epoch)).split(32):
            inputs, labels = train.x[rows], train.y[rows]
            outputs = net(inputs)
            loss = loss_function(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    measured = trained(run)
    assert losses(measured) == pytest.approx(expected, rel=1e-10)
    with torch.no_grad():
        accuracy = (net(data.test.x).argmax(1) == data.test.y).double().mean().item()
    assert measured[-1].values["accuracy/test"] == accuracy


COMBINATIONS = list(itertools.product(options("optimizer"), options("schedule")))


@pytest.mark.parametrize(("optimizer", "schedule"), COMBINATIONS)
def test_every_combination_reduces_the_loss(optimizer: str, schedule: str) -> None:
    base = parsed(
        f"optimizer={optimizer}",
        *OPTIMIZER_NEEDS.get(optimizer, []),
        f"schedule={schedule}",
        "data=synthetic",
        "data.n_samples=100",
        "data.n_classes=2",
        "batch_size=full",
        "model.hidden=[8]",
        "dtype=float64",
        "epochs=12",
        "log_every=1",
    )
    loaded = datasets.load(base.data)
    for activation, init in itertools.product(ACTIVATIONS, INITS):
        base.model.activation, base.model.init = activation, init
        net = network.FFN([loaded.n_features, 8, 2], base.model, 0, torch.float64)
        run = Run(base, loaded)
        by = torch_optimizers.build_optimizer(base.optimizer, net.parameters())
        rows = len(loaded.train.y)
        by_torch = TorchEngine(
            net, on_device(loaded), by, run.rate, batch_size=rows, l2=0.0, gradient="autograd"
        )
        Training(by_torch, [run])
        curve = losses(trained(run))
        assert run.status == "finished"
        assert curve[-1] < curve[0], (activation, init, curve)


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_optimizer_has_a_class(name: str) -> None:
    run = parsed(f"optimizer={name}", *OPTIMIZER_NEEDS.get(name, []))
    torch_optimizers.check_optimizer(run.optimizer)
    assert name == "torch" or name in {**torch_optimizers.OPTIMIZERS, **RULES}


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "adamw"])
def test_fused_where_pytorch_offers_it(name: str) -> None:
    assert engine(f"optimizer={name}", "epochs=1").optimizer.defaults["fused"] is True


def test_schedules_are_their_formulas() -> None:
    def factors(*overrides: str, steps: int = 100, per_epoch: int = 10) -> list[float]:
        schedule = schedules.build_schedule(parsed(*overrides).schedule, steps, per_epoch)
        return [schedule(t) for t in range(steps)]

    assert factors("schedule=constant") == [1.0] * 100
    assert factors("schedule=inverse_time", "schedule.decay=1") == [1 / (1 + t) for t in range(100)]
    assert factors("schedule=step", "schedule.every=4", "schedule.gamma=0.5") == [
        0.5 ** (t // 40) for t in range(100)
    ]
    cosine = factors("schedule=cosine", "schedule.final=0.1")
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.55)
    assert cosine == sorted(cosine, reverse=True)
    warm = factors("schedule=warmup_cosine", "schedule.warmup=0.2")
    assert warm[:3] == [1 / 21, 2 / 21, 3 / 21]
    assert max(warm) == warm[20] == 1.0
    assert warm[60] == pytest.approx(0.5)


def test_the_schedule_reaches_the_optimizer() -> None:
    measured = trained(torch_run("schedule=inverse_time", "schedule.decay=1", "epochs=1", "log_every=1"))
    assert losses(measured, "lr") == [0.005 * (1 / (1 + t)) for t in range(40)]


def test_objective_is_loss_plus_penalty_of_weights_only() -> None:
    run = torch_run("l2=0.01", "dtype=float64", "epochs=1", "batch_size=full", "log_every=1", "optimizer=gd")
    omega = 0.01 * sum(float((W**2).sum()) for W, _ in run.layers())
    before = [p.clone() for p in parameters(run)]
    logged = next(m for m in trained(run) if "loss/train" in m.values).values
    assert logged["objective/train"] - logged["loss/train"] == pytest.approx(omega, rel=1e-12)
    # θ' = θ − η ∇J: recover ∇Ω of a weight and of a bias by hand.
    twin = torch_run("dtype=float64", "epochs=1", "batch_size=full", "log_every=1", "optimizer=gd")
    trained(twin)
    for start, with_l2, without in zip(before, parameters(run), parameters(twin), strict=True):
        expected = 2 * 0.01 * start if start.ndim == 2 else torch.zeros_like(start)
        assert torch.allclose((without - with_l2) / 0.005, expected, atol=1e-12)


def test_norms_are_of_the_logged_step() -> None:
    run = torch_run("optimizer=sgd", "lr=0.1", "dtype=float64", "epochs=1", "log_every=40")
    logged = next(m for m in trained(run) if "grad_norm" in m.values).values
    current = torch.cat([p.reshape(-1) for p in parameters(run)])
    assert logged["weight_norm"] == pytest.approx(current.norm().item(), rel=1e-12)
    gradients = [p.grad for p in engine_of(run).network.parameters()]
    gradient = torch.cat([g.reshape(-1) for g in gradients if g is not None])
    assert logged["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-12)
    before = current + 0.1 * gradient
    assert logged["update_ratio"] == pytest.approx((0.1 * gradient.norm() / before.norm()).item(), rel=1e-9)


def test_log_points_are_means_of_their_windows() -> None:
    every = losses(trained(torch_run("epochs=2", "log_every=1")))
    sevens = trained(torch_run("epochs=2", "log_every=7"))
    points = [(m.step, m.values["loss/train"]) for m in sevens if "loss/train" in m.values]
    assert [step for step, _ in points] == [*range(7, 80, 7), 80]
    for start, (end, mean) in zip([0, *(s for s, _ in points)], points, strict=False):
        assert mean == pytest.approx(math.fsum(every[start:end]) / (end - start), rel=1e-6)


def test_drop_last_and_steps() -> None:
    kept, dropped = torch_run("epochs=1"), torch_run("epochs=1", "drop_last=true")
    assert (kept.steps_per_epoch, dropped.steps_per_epoch) == (40, 39)
    trained(dropped)
    assert dropped.step == 39


def test_divergence_names_the_first_bad_step() -> None:
    run = torch_run("optimizer=sgd", "lr=1e30", "epochs=3")
    measured = trained(run)
    assert run.status == "diverged"
    assert run.reason == "objective/train is nan at step 2 (epoch 1)"
    assert measured[-1].step == 2


def test_lbfgs_beats_gradient_descent_on_the_convex_network() -> None:
    common = ("model=linear", "dtype=float64", "epochs=20", "l2=1e-3")
    curves = {
        o: losses(trained(torch_run(f"optimizer={o}", *common, "log_every=1"))) for o in ("lbfgs", "gd")
    }
    assert curves["lbfgs"][-1] < 0.2 < curves["gd"][-1]


def test_one_seed_is_one_start_whatever_the_dtype() -> None:
    single, double = torch_run("seed=3"), torch_run("seed=3", "dtype=float64")
    for p, q in zip(parameters(single), parameters(double), strict=True):
        assert torch.equal(p, q.float())


@pytest.mark.parametrize("name", INITS)
def test_inits_have_their_moments(name: str) -> None:
    run = parsed(f"model.init={name}", "model.init_std=0.05")
    net = network.FFN([300, 400, 10], run.model, 0, torch.float64)
    W, b = net.weights[0].detach(), net.biases[0].detach()
    expected = {
        "torch": 1 / math.sqrt(300) / math.sqrt(3),
        "normal": 0.05,
        "truncated_normal": 0.05 * 0.8796,
        "xavier": math.sqrt(2 / 700),
        "kaiming": math.sqrt(2 / 300),
    }[name]
    assert W.std().item() == pytest.approx(expected, rel=0.01)
    assert W.mean().item() == pytest.approx(0, abs=0.01 * expected + 3 * expected / math.sqrt(W.numel()))
    assert (b.abs().max() > 0) == (name == "torch")


def test_digits_accuracy_over_five_seeds() -> None:
    accuracies = [trained(torch_run(f"seed={seed}"))[-1].values["accuracy/test"] for seed in range(5)]
    assert sum(accuracies) / 5 >= 0.925


@needs_mnist
def test_mnist_accuracy(tmp_path: Path) -> None:
    run = torch_run(
        "data=mnist",
        f"data.root={MNIST}",
        "model=mlp",
        "model.depth=2",
        "model.width=128",
        "lr=0.001",
        "epochs=5",
    )
    assert trained(run)[-1].values["accuracy/test"] >= 0.97


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_follows_the_cpu() -> None:
    curves = [losses(trained(torch_run(f"device={d}", "dtype=float64", "epochs=2"))) for d in ("cpu", "cuda")]
    assert curves[0] == pytest.approx(curves[1], rel=1e-8)
