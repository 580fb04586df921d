"""Update rules against PyTorch's optimizers, and the lecture's equations against plain Python floats."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import options, parsed
from ffn_bench.lecture.update_rules import by_plain_floats
from ffn_bench.optimizers import torch_optimizers
from ffn_bench.optimizers.rule_forms import Rule, TensorRule, zeros
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer, on_tensors
from ffn_bench.optimizers.rules import RULES, variant

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


def cases(name: str) -> Iterator[dict[str, Any]]:
    """Hyper-parameters of a rule's YAML, and of each of its variants."""
    for changed in [{}, *VARIANTS.get(name, [])]:
        yield {**hyperparameters(name), **changed}


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
    for hyper in cases(name):
        twin = trained(lambda p, h=hyper: torch_optimizers.OPTIMIZERS[name](p, **h))
        rule = trained(lambda p, h=hyper: RuleOptimizer(p, RULES[name], **h))
        assert worst(twin, rule) <= 1e-12, hyper


@pytest.mark.parametrize("name", RULES)
def test_every_row_has_its_own_learning_rate(name: str) -> None:
    """A leading run axis with a column of rates is the runs one by one."""
    hyper = hyperparameters(name)
    rates = [0.03, 0.001, 0.5]
    one_by_one = torch.stack(
        [trained(lambda p, r=r: RuleOptimizer(p, RULES[name], **{**hyper, "lr": r}))[-1] for r in rates]
    )
    rule = on_tensors(RULES[name])
    θ = trained(lambda p: torch.optim.SGD(p, lr=0.0))[0].expand(3, 7, 5).clone()
    columns = {**hyper, "lr": torch.tensor(rates, dtype=torch.float64)[:, None, None]}
    if "betas" in hyper:
        columns["betas"] = tuple(torch.full((3, 1, 1), b, dtype=torch.float64) for b in hyper["betas"])
    state = rule.init(θ, columns)
    for t, g in enumerate(gradients(), start=1):
        θ, state = rule.update(g.expand(3, 7, 5), state, θ, columns, t)
    assert ((θ - one_by_one).abs().max() / θ.abs().max()).item() <= 1e-12


# --- one text for tensors, arrays and numbers -----------------------------------------------------------


def path_of(rule: Rule, hyper: dict[str, Any], gs: list[Any], θ: Any, number: Any) -> list[Any]:
    """θ after every step; `number` makes of a float what θ and g are."""
    first = rule.first(hyper) if rule.first else (0.0,) * len(rule.states)
    state = tuple(0 * θ + number(value) for value in first)
    path = []
    for t, g in enumerate(gs, start=1):
        c = tuple(map(float, rule.coefficients(hyper, np.asarray(float(t)))))
        θ, state = rule.update(g, θ, state, c)
        path.append(θ)
    return path


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_the_same_on_tensors_arrays_and_numbers(name: str) -> None:
    start = trained(lambda p: torch.optim.SGD(p, lr=0.0))[0]
    for hyper in cases(name):
        rule = variant(name, hyper)
        on_torch = path_of(rule, hyper, gradients(), start, torch.tensor)
        arrays = path_of(rule, hyper, [g.numpy() for g in gradients()], start.numpy(), float)
        assert all(type(θ) is np.ndarray for θ in arrays)
        np.testing.assert_allclose(np.stack(arrays), torch.stack(on_torch), rtol=1e-13, atol=1e-14)
        for i, j in ((0, 0), (3, 2), (6, 4)):
            gs = [g[i, j].item() for g in gradients()]
            floats = path_of(rule, hyper, gs, start[i, j].item(), float)
            assert all(isinstance(θ, float) for θ in floats)
            np.testing.assert_allclose(floats, np.stack(arrays)[:, i, j], rtol=1e-13, atol=1e-14)
        optimizer = trained(lambda p, h=hyper: RuleOptimizer(p, RULES[name], **h))
        assert worst(on_torch, optimizer) == 0.0


@pytest.mark.parametrize("name", RULES)
def test_coefficients_depend_on_the_step_alone(name: str) -> None:
    """Many steps at once, with a schedule or with settings of each row, give the bits of single ones."""
    steps = np.array([1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 100.0, 999.0, 5000.0, 1e6])
    schedule = 0.03 / np.sqrt(steps)
    for hyper in cases(name):
        rule = variant(name, hyper)
        together = rule.coefficients({**hyper, "lr": schedule}, steps)
        single = [
            rule.coefficients({**hyper, "lr": float(η)}, np.asarray(t))
            for η, t in zip(schedule, steps, strict=True)
        ]
        for k, column in enumerate(together):
            expected = np.array([c[k] for c in single], dtype=np.float64)
            np.testing.assert_array_equal(np.broadcast_to(column, steps.shape), expected)
            assert np.isfinite(expected).all()

        # As the rows of a tile: t `[steps, 1, 1]`, settings `[rows, 1]`.
        other: dict[str, Any] = {key: value * 0.9 for key, value in hyper.items() if type(value) is float}
        if "betas" in hyper:
            other["betas"] = (0.8, 0.95)
        rows = [{**hyper, **other}, hyper, {**hyper, "lr": 0.1}]
        columns = {key: column_of([row[key] for row in rows]) for key in hyper}
        table = variant(name, hyper).coefficients(columns, steps[:, None, None])
        for r, row in enumerate(rows):
            for value, expected in zip(table, rule.coefficients(row, steps), strict=True):
                mine = np.broadcast_to(value, (len(steps), 3, 1))[:, r, 0]
                np.testing.assert_array_equal(mine, np.broadcast_to(expected, steps.shape))


def test_coefficients_are_the_same_on_every_processor() -> None:
    """NumPy's vectorised powers are not: here without AVX-512, where there is one."""
    code = """
import hashlib, numpy as np
from ffn_bench.optimizers.rules import RULES
hyper = dict(lr=0.03, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, momentum_decay=4e-3, alpha=0.9,
             beta=0.9, rho=0.9, momentum=0.9, dampening=0.1, nesterov=False, lr_decay=0.1, centered=False,
             initial_accumulator_value=0.1, amsgrad=False)
for rule in RULES.values():
    for column in rule.variant(hyper).coefficients(hyper, np.arange(1.0, 3001)):
        print(hashlib.sha256(np.asarray(column, np.float64).tobytes()).hexdigest())
"""
    disabled = "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL"
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **changed},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for changed in ({}, {"NPY_DISABLE_CPU_FEATURES": disabled})
    ]
    assert digests[0] == digests[1]
    assert digests[0].count(b"\n") > 50


def column_of(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(column_of(list(v)) for v in zip(*values, strict=True))
    return values[0] if type(values[0]) is bool else np.array(values, dtype=np.float64)[:, None]


@pytest.mark.parametrize("β1", [0.0, 0.5, 0.9, 0.999, 0.999999])
def test_nadams_product_is_the_whole_one(β1: float) -> None:
    """M_t of the first 100,000 steps, one after the other, as far as 1 − M_t can see it."""
    from ffn_bench.optimizers.rules import _nadam_product

    t = np.arange(1.0, 100_001)
    M = np.cumprod([β1 * (1 - 0.5 * 0.96 ** (k * 4e-3)) for k in t.tolist()])
    np.testing.assert_array_equal(1 - _nadam_product(β1, 4e-3, t), 1 - M)
    assert _nadam_product(β1, 4e-3, t[-1:]) == _nadam_product(β1, 4e-3, t)[-1]


def test_a_rule_has_the_states_of_its_variant_alone() -> None:
    states = {
        (name, rule.states)
        for name in ("sgd", "nesterov", "rmsprop", "adam")
        for hyper in cases(name)
        for rule in [variant(name, hyper)]
    }
    assert states == {
        ("sgd", ()),
        ("sgd", ("v",)),
        ("nesterov", ("v",)),
        ("rmsprop", ("gamma",)),
        ("rmsprop", ("gamma", "v")),
        ("rmsprop", ("gamma", "mean")),
        ("adam", ("s", "gamma")),
        ("adam", ("s", "gamma", "largest")),
    }


def test_the_public_constructor_takes_either_kind() -> None:
    from ffn_bench import rules

    def five(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
        return θ - hyper["lr"] * hyper["scale"] * g, state

    def four(g: Any, θ: Any, state: Any, c: Any) -> Any:
        return θ - c[0] * g, state

    either = [
        rules.Rule(five, zeros(), {"scale": 2.0}),
        rules.Rule(update=five, defaults={"scale": 2.0}, scope="element"),
        rules.Rule(four, lambda hyper, t: (hyper["lr"] * hyper["scale"],), defaults={"scale": 2.0}),
    ]
    assert [type(rule) for rule in either] == [TensorRule, TensorRule, Rule]
    assert [rule.scope for rule in either] == [None, "element", "element"]
    assert all(isinstance(rule, rules.Rule) for rule in [*either, *RULES.values()])
    paths = [trained(lambda p, rule=rule: RuleOptimizer(p, rule, lr=0.1)) for rule in either]
    assert worst(paths[0], paths[1]) == 0.0
    assert worst(paths[0], paths[2]) <= 1e-15


def test_a_choice_is_numpys_on_all_kinds_of_numbers() -> None:
    from ffn_bench.rules import where

    x = np.array([-1.0, 2.0, np.nan], np.float32)
    for a, b in ((x, 0.1), (0.1, x), (x, 2 * x)):
        expected = np.where(x > 0, a, b)
        assert where(x > 0, a, b).dtype == np.float32
        np.testing.assert_array_equal(where(x > 0, a, b), expected)
        tensors = [torch.tensor(v) if isinstance(v, np.ndarray) else v for v in (a, b)]
        chosen = where(torch.tensor(x) > 0, *tensors)
        assert chosen.dtype == torch.float32
        np.testing.assert_array_equal(chosen, expected)
        each = zip(x, *np.broadcast_arrays(np.float32(a), np.float32(b)), strict=True)
        np.testing.assert_array_equal([where(v > 0, p, q) for v, p, q in each], expected)
    with pytest.raises(TypeError, match="plain numbers"):
        where(torch.tensor(x) > 0, 1.0, 0.1)


def test_rules_need_neither_torch_nor_a_compiler() -> None:
    code = (
        "import sys, ffn_bench.optimizers.rules\n"
        "loaded = {'torch', 'numba', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- the lecture's equations, recomputed in plain floats -------------------------------------------------


@pytest.mark.parametrize("name", LECTURE)
def test_the_lectures_rules_are_l14(name: str) -> None:
    hyper = hyperparameters(name)
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
    b = trained(lambda p: torch_optimizers.OPTIMIZERS[twin](p, **torch_hyper))
    assert worst(a, b) <= 1e-12
    # With ε they do not: inside the root and outside are two numbers.
    ours["eps"] = torch_hyper["eps"] = 1e-2
    a = trained(lambda p: RuleOptimizer(p, RULES[name], **ours))
    b = trained(lambda p: torch_optimizers.OPTIMIZERS[twin](p, **torch_hyper))
    assert worst(a, b) > 1e-4


def test_a_planted_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """ε outside the root in the lecture's Adam makes the comparison with L14 fail."""

    def epsilon_outside(g: Any, θ: Any, state: Any, c: Any) -> Any:
        η, ε, w1, w2 = c
        s, γ = state
        s, γ = s + w1 * (g - s), γ + w2 * (g * g - γ)
        return θ - η * s / (γ.sqrt() + ε), (s, γ)

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
