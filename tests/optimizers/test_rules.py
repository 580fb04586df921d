"""Update rules against PyTorch's optimizers, and the lecture's equations against plain Python floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import options, parsed
from ffn_bench.lecture.update_rules import by_plain_floats
from ffn_bench.optimizers import registry
from ffn_bench.optimizers.rules import RULES, RuleOptimizer

STEPS = 200
TWINS = [name for name in RULES if not name.startswith("lecture/")]
LECTURE = [name for name in RULES if name.startswith("lecture/")]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    # settings beyond the YAML's own; every hyper-parameter of the schema is moved at least once
    "sgd": [{"momentum": 0.5, "dampening": 0.3}, {"weight_decay": 0.1}],
    "momentum": [{"momentum": 0.99, "weight_decay": 0.1}],
    "nesterov": [{"momentum": 0.5, "weight_decay": 0.1}],
    "adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, "weight_decay": 0.1}],
    "adadelta": [{"rho": 0.5, "eps": 1e-2, "weight_decay": 0.1}],
    "rmsprop": [{"alpha": 0.5, "eps": 1e-2, "momentum": 0.9}, {"centered": True, "weight_decay": 0.1}],
    "adam": [{"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.1}, {"amsgrad": True}],
    "adamw": [{"betas": (0.5, 0.9), "weight_decay": 0.5}, {"amsgrad": True}],
    "nadam": [{"betas": (0.5, 0.9), "momentum_decay": 0.1, "weight_decay": 0.1, "eps": 1e-2}],
    "adamax": [{"betas": (0.5, 0.9), "weight_decay": 0.1, "eps": 1e-2}],
    "radam": [{"betas": (0.5, 0.9), "weight_decay": 0.1, "eps": 1e-2}, {"betas": (0.9, 0.7)}],
}


@pytest.fixture(autouse=True)
def double_by_default() -> Iterator[None]:
    """PyTorch's NAdam keeps the product of its μ in the default dtype, which is float32 unless one asks."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def hyperparameters(name: str) -> dict[str, Any]:
    return parsed(f"optimizer={name}", "lr=0.03").optimizer.hyperparameters()


def gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def trained(optimizer_of: Any) -> list[Tensor]:
    """θ after every step under the given optimizer."""
    generator = torch.Generator().manual_seed(2)
    θ = torch.nn.Parameter(torch.randn(7, 5, generator=generator, dtype=torch.float64))
    optimizer = optimizer_of([θ])
    path = []
    for g in gradients():
        θ.grad = g.clone()
        optimizer.step()
        path.append(θ.detach().clone())
    return path


def worst(a: list[Tensor], b: list[Tensor]) -> float:
    return max(((x - y).abs().max() / x.abs().max()).item() for x, y in zip(a, b, strict=True))


def test_every_yaml_has_a_rule_or_cannot_have_one() -> None:
    assert set(options("optimizer")) - set(RULES) == {"lbfgs", "newton", "torch"}


@pytest.mark.parametrize("name", TWINS)
def test_a_rule_is_its_pytorch_twin(name: str) -> None:
    for variant in [{}, *VARIANTS.get(name, [])]:
        hyper = {**hyperparameters(name), **variant}
        twin = trained(lambda p, h=hyper: registry.OPTIMIZERS[name](p, **h))
        rule = trained(lambda p, h=hyper: RuleOptimizer(p, RULES[name], **h))
        assert worst(twin, rule) <= 1e-12, variant


@pytest.mark.parametrize("name", RULES)
def test_every_row_has_its_own_learning_rate(name: str) -> None:
    """A leading run axis with a column of rates is the runs one by one."""
    hyper = hyperparameters(name)
    rates = [0.03, 0.001, 0.5]
    rule = RULES[name]
    one_by_one = torch.stack(
        [trained(lambda p, r=r: RuleOptimizer(p, rule, **{**hyper, "lr": r}))[-1] for r in rates]
    )
    θ = trained(lambda p: torch.optim.SGD(p, lr=0.0))[0].expand(3, 7, 5).clone()
    columns = {**hyper, "lr": torch.tensor(rates, dtype=torch.float64)[:, None, None]}
    if "betas" in hyper:
        columns["betas"] = tuple(torch.full((3, 1, 1), b, dtype=torch.float64) for b in hyper["betas"])
    state = rule.init(θ, columns)
    for t, g in enumerate(gradients(), start=1):
        θ, state = rule.update(g.expand(3, 7, 5), state, θ, columns, t)
    assert ((θ - one_by_one).abs().max() / θ.abs().max()).item() <= 1e-12


# --- the lecture's equations, recomputed in plain floats -------------------------------------------------


@pytest.mark.parametrize("name", LECTURE)
def test_the_lectures_rules_are_l14(name: str) -> None:
    hyper = hyperparameters(name)
    assert {k: v for k, v in hyper.items() if k != "lr"} == dict(RULES[name].defaults)
    path = trained(lambda p: RuleOptimizer(p, RULES[name], **hyper))
    start = trained(lambda p: torch.optim.SGD(p, lr=0.0))[0]
    for i, j in ((0, 0), (3, 2), (6, 4)):
        gs = [g[i, j].item() for g in gradients()]
        own = {k: v for k, v in hyper.items() if k != "lr"}
        expected = [by_plain_floats(name, gs[:t], start[i, j].item(), 0.03, own) for t in range(1, STEPS + 1)]
        assert [θ[i, j].item() for θ in path] == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_momentum_is_pytorchs_with_dampening_but_for_the_first_step() -> None:
    α = 0.3
    ours = trained(lambda p: RuleOptimizer(p, RULES["lecture/momentum"], lr=0.03, alpha=α))
    torch_path = trained(lambda p: torch.optim.SGD(p, lr=0.03, momentum=1 - α, dampening=1 - α))
    start = trained(lambda p: torch.optim.SGD(p, lr=0.0))[0]
    first = gradients()[0]
    assert torch.allclose(start - ours[0], 0.03 * α * first, rtol=1e-12)
    assert torch.allclose(start - torch_path[0], 0.03 * first, rtol=1e-12)
    # The recursions are the same: the difference decays as (1−α)^t times its first value, summed up.
    gap = [(a - b) for a, b in zip(ours, torch_path, strict=True)]
    for t in range(1, 20):
        assert torch.allclose(gap[t] - gap[t - 1], (1 - α) ** t * gap[0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "twin"),
    [("lecture/adagrad", "adagrad"), ("lecture/rmsprop", "rmsprop"), ("lecture/adam", "adam")],
)
def test_without_epsilon_the_families_coincide(name: str, twin: str) -> None:
    torch_hyper = {**hyperparameters(twin), "eps": 0.0}
    ours = {**hyperparameters(name), "eps": 0.0}
    if name == "lecture/rmsprop":
        torch_hyper["alpha"] = ours["beta"]
    a = trained(lambda p: RuleOptimizer(p, RULES[name], **ours))
    b = trained(lambda p: registry.OPTIMIZERS[twin](p, **torch_hyper))
    assert worst(a, b) <= 1e-12
    # With ε they do not: inside the root and outside are two numbers.
    ours["eps"] = torch_hyper["eps"] = 1e-2
    a = trained(lambda p: RuleOptimizer(p, RULES[name], **ours))
    b = trained(lambda p: registry.OPTIMIZERS[twin](p, **torch_hyper))
    assert worst(a, b) > 1e-4


def test_a_planted_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """ε outside the root in the lecture's Adam makes the comparison with L14 fail."""

    def epsilon_outside(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
        β1, β2 = hyper["betas"]
        s = β1 * state["s"] + (1 - β1) * g
        γ = β2 * state["gamma"] + (1 - β2) * g * g
        root = (γ / (1 - β2**t)).sqrt() + hyper["eps"]
        return θ - hyper["lr"] / root * (s / (1 - β1**t)), {"s": s, "gamma": γ}

    from dataclasses import replace

    monkeypatch.setitem(RULES, "lecture/adam", replace(RULES["lecture/adam"], update=epsilon_outside))
    with pytest.raises(AssertionError):
        test_the_lectures_rules_are_l14("lecture/adam")


@pytest.mark.parametrize("name", RULES)
def test_the_adapter_resumes_from_its_state_dict(name: str) -> None:
    hyper = hyperparameters(name)
    uninterrupted = trained(lambda p: RuleOptimizer(p, RULES[name], **hyper))
    θ = torch.nn.Parameter(trained(lambda p: torch.optim.SGD(p, lr=0.0))[0])
    optimizer = RuleOptimizer([θ], RULES[name], **hyper)
    for k, g in enumerate(gradients()):
        if k == 77:
            saved = optimizer.state_dict()
            optimizer = RuleOptimizer([θ], RULES[name], **hyper)
            optimizer.load_state_dict(saved)
        θ.grad = g.clone()
        optimizer.step()
    assert torch.equal(θ.detach(), uninterrupted[-1])
