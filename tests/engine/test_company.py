"""A rule of another package gives a run the same numbers alone, beside others and compiled, or is refused."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import layers_of, parsed, together, trained
from conftest import Command
from ffn_bench.configuration import parsing
from ffn_bench.engine.build import build
from ffn_bench.engine.choice import Choice, choose
from ffn_bench.engine.loop import Run
from ffn_bench.errors import UserError
from ffn_bench.model.layers import flat
from ffn_bench.optimizers import registry, rule_checks
from ffn_bench.optimizers.rule_forms import AnyRule, TensorRule
from ffn_bench.race import paths, surfaces
from ffn_bench.rules import (
    RULES,
    Rule,
    RuleOptimizer,
    absolute,
    maximum,
    sign,
    sqrt,
    toward,
    where,
    zeros,
)
from rule_cases import RULE_CASES, RuleCase
from run_folder.test_survival import outcome

Update = Callable[[Tensor, Any, Tensor, Any, int], Any]


def descending(of: Callable[[Tensor], Tensor]) -> Update:
    """θ ← θ − η of(g)."""
    return lambda g, state, θ, hyper, t: (θ - hyper["lr"] * of(g), {})


def when(condition: Callable[[Tensor, Tensor, int], Any], of: Callable[[Tensor], Tensor]) -> Update:
    """θ ← θ − η of(g) where a condition on g, θ and t holds, else θ ← θ − η g."""
    return lambda g, s, θ, h, t: (θ - h["lr"] * (of(g) if condition(g, θ, t) else g), {})


def unit(g: Tensor) -> Tensor:
    normed: Tensor = g / g.norm()
    return normed


def averaged(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    v = hyper.get("mu", 0.9) * state["v"] + (1 - hyper.get("mu", 0.9)) * g
    return θ - hyper["lr"] * v.sign(), {"v": v}


def average_of_norms(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    norm = 0.9 * state["n"] + 0.1 * g.norm()
    return θ - hyper["lr"] * g / norm, {"n": norm}


def by_difference(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    """Heavy ball by the last two θ, of which it keeps one as it is."""
    return θ - hyper["lr"] * g + 0.5 * (θ - state["last"]), {"last": θ}


def by_last_gradient(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    return θ - hyper["lr"] * (g + 0.3 * state["last"]), {"last": g}


def swapping(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    return θ - hyper["lr"] * (g + state["a"]), {"a": state["b"], "b": 0.5 * g}


def late_state(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    v = 0.9 * state["v"] + g if "v" in state else g
    return θ - hyper["lr"] * v, {"v": v}


def corrected(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    s = 0.9 * state["s"] + 0.1 * g
    return θ - hyper["lr"] / (1 - 0.999**t) ** 0.5 * s / (1 + (1 if t == 1 else 0)), {"s": s}


def with_a_count(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    n = state["n"] + 1
    return θ - hyper["lr"] * g / n.sqrt(), {"n": n}


def by_rate(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    return θ - hyper["lr"] * (g.sign() if hyper["lr"] > 0.05 else g), {}


def through_params(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
    """Gradients clipped by the norm of all of them together, where they can be seen."""
    seen = [p.grad.norm() for p in hyper.get("params", ())]
    return θ - hyper["lr"] * g / (torch.stack(seen).norm() if seen else 1.0), {}


def corrected_rate(hyper: Any, t: Any) -> Any:
    return hyper["lr"] / np.sqrt(1 - 0.999**t), np.where(t < 5, 1.0, 0.9)


def of_two_states(g: Any, θ: Any, state: Any, c: Any) -> Any:
    """A rule whose coefficients depend on the step."""
    η, w = c
    s, v = state
    s, v = s + w * (g - s), 0.9 * v + abs(g)
    return θ - η * s / (1 + v), (s, v)


def with_functions(g: Any, θ: Any, state: Any, c: Any) -> Any:
    """All that `ffn_bench.rules` offers to rules."""
    (η,) = c
    (v,) = state
    v = toward(v, g * g, 0.1)
    return θ - η * sign(g) * maximum(absolute(g), v) / (sqrt(v) + 1e-3), (v,)


def rate(hyper: Any, t: Any) -> Any:
    return (hyper["lr"],)


def with_choices(g: Any, θ: Any, state: Any, c: Any) -> Any:
    """Every place where a plain number can stand, and a coefficient in the condition."""
    v = where(g > 0, 0.9 * state[0] + g, 0.5 * state[0])
    v = where(abs(v) > 0.1, v, 0.1)
    return θ - c[0] * where(v > -1, where(c[0] > 0.02, 2.0, v), v), (v,)


NUMBERS: dict[str, Rule] = {
    "of two states": Rule(of_two_states, corrected_rate, ("s", "v"), lambda h: (0.0, h["v"]), {"v": 0.5}),
    "with functions": Rule(with_functions, rate, ("v",)),
    "without states": Rule(lambda g, θ, state, c: (θ - c[0] * g, state), rate),
    "with choices": Rule(with_choices, rate, ("v",)),
}
"""Elementwise rules of numbers, in two parts."""
NOT_OF_NUMBERS: dict[str, tuple[Rule, str]] = {
    "norm": (Rule(lambda g, θ, state, c: (θ - c[0] * unit(g), state), rate), "on single numbers"),
    "torch": (Rule(lambda g, θ, state, c: (θ - c[0] * torch.sign(g), state), rate), "on single numbers"),
    "cumulated": (
        Rule(lambda g, θ, state, c: (θ - c[0] * (g.cumsum(-1) if isinstance(g, Tensor) else g), state), rate),
        "does not compute on their single numbers",
    ),
    "branch": (Rule(lambda g, θ, state, c: (θ - c[0] * (g if g > 0 else 0 * g), state), rate), "numbers"),
}
"""Rules of four arguments that are not, each with what is said of it."""
ELEMENTWISE: dict[str, TensorRule] = {
    "sign of an average": Rule(averaged, zeros("v"), {"mu": 0.9}),
    "plain": Rule(descending(lambda g: g)),
    "clamped": Rule(descending(lambda g: g.clamp(-0.1, 0.1))),
    "another from step 50": Rule(when(lambda g, θ, t: t >= 50, torch.sign)),
    "by the last θ": Rule(by_difference, lambda θ, hyper: {"last": θ}),
    "by the last g": Rule(by_last_gradient, zeros("last")),
    "states that change places": Rule(swapping, zeros("a", "b")),
    "a state that comes late": Rule(late_state),
    "bias correction": Rule(corrected, zeros("s")),
    "a state of one number a run": Rule(with_a_count, lambda θ, h: {"n": torch.zeros_like(θ[..., :1])}),
    "its own θ in place": Rule(lambda g, s, θ, h, t: (θ.sub_(h["lr"] * g), s)),
    "its state in place": Rule(lambda g, s, θ, h, t: (θ - h["lr"] * s["v"].mul_(0.9).add_(g), s), zeros("v")),
}
TENSORWISE: dict[str, TensorRule] = {
    "norm": Rule(descending(unit)),
    "norm of every row": Rule(descending(lambda g: g / g.norm(dim=-1, keepdim=True))),
    "largest": Rule(descending(lambda g: g / (g.abs().max() + 1e-12))),
    "mean": Rule(descending(lambda g: g - g.mean())),
    "mean of every row": Rule(descending(lambda g: g - g.mean(-1, keepdim=True))),
    "a little of the mean": Rule(descending(lambda g: g + 1e-6 * g.mean())),
    "clipped": Rule(descending(lambda g: g * (1.0 / g.norm().clamp_min(1.0)))),
    "clipped late": Rule(descending(lambda g: g * (1e5 / g.norm().clamp_min(1e5)))),
    "clipped where tiny": Rule(descending(lambda g: g * (1e-3 / g.norm().clamp_max(1e-3)))),
    "if the sum is positive": Rule(when(lambda g, θ, t: g.sum() > 0, torch.sign)),
    "if θ is long": Rule(when(lambda g, θ, t: θ.norm() > 100, torch.sign)),
    "norm from step 7": Rule(when(lambda g, θ, t: t >= 7, unit)),
    "norm from step 500": Rule(when(lambda g, θ, t: t >= 500, unit)),
    "norm at every hundredth": Rule(when(lambda g, θ, t: t % 100 == 0, unit)),
    "matrices": Rule(when(lambda g, θ, t: g.ndim == 2, torch.sign)),
    "large tensors": Rule(when(lambda g, θ, t: g.numel() > 1000, torch.sign)),
    "by size": Rule(descending(lambda g: g / g.numel() ** 0.5)),
    "sorted": Rule(descending(lambda g: g.flatten().sort().values.reshape(g.shape))),
    "cumulated": Rule(descending(lambda g: g.cumsum(-1))),
    "softmax": Rule(descending(lambda g: g.softmax(-1))),
    "neighbours": Rule(descending(lambda g: g + 0.5 * g.roll(1, -1))),
    "by place": Rule(descending(lambda g: g * torch.arange(g.shape[-1]))),
    "mean of the runs": Rule(descending(lambda g: g - g.mean(0))),
    "average of norms": Rule(average_of_norms, lambda θ, h: {"n": torch.ones(())}),
    "a count": Rule(with_a_count, lambda θ, hyper: {"n": torch.zeros(())}),
    "by its rate": Rule(by_rate),
    "the whole network's norm": Rule(through_params),
    "float(η)": Rule(lambda g, s, θ, h, t: (θ - float(h["lr"]) * g, {})),
}


def counting() -> Update:
    calls = itertools.count(1)
    return lambda g, state, θ, hyper, t: (θ - hyper["lr"] * g / next(calls), {})


def remembering() -> Update:
    kept: list[Tensor] = []

    def update(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
        kept.append(g.mean())
        return θ - hyper["lr"] * g / (1 + kept[len(kept) // 2].abs()), {}

    return update


IMPURE: dict[str, Callable[[], TensorRule]] = {
    "random": lambda: Rule(descending(lambda g: g + 0.01 * torch.rand_like(g))),
    "dropout": lambda: Rule(descending(torch.nn.functional.dropout)),
    "counting": lambda: Rule(counting()),
    "remembering": lambda: Rule(remembering()),
    "g in place": lambda: Rule(descending(lambda g: g.mul_(2.0))),
    "g in place, unseen": lambda: Rule(descending(lambda g: torch.from_numpy(g.numpy().__imul__(2.0)))),
}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[AnyRule], None]]:
    """`offer(rule)` makes it `optimizer=theirs`, as if another package were installed."""

    entry_points = importlib.metadata.entry_points

    def entries(**wanted: str) -> Any:
        group = wanted.get("group")
        if group != registry.PLUGINS:
            return entry_points(**wanted)
        return importlib.metadata.EntryPoints(
            [importlib.metadata.EntryPoint("theirs", "package:rule", group)]
        )

    def offered(rule: AnyRule) -> None:
        parsing.register_optimizers({"theirs": dict(rule.defaults)})
        monkeypatch.setattr(registry, "plugin", lambda name: rule if name == "theirs" else None)
        monkeypatch.setattr(importlib.metadata, "entry_points", entries)  # which every command asks

    yield offered


SMALL = ["optimizer=theirs", "model.hidden=[4]", "epochs=8", "data=moons", "data.n_samples=300"]


def weights_together(*specs: list[str]) -> list[Tensor]:
    """The last weights of runs that the batched engine trains side by side."""
    training = together([parsed(*SMALL, *spec) for spec in specs])
    last: dict[Run, Tensor] = {}
    for measured in training.measurements():
        last |= {run: flat(layers_of(run)) for run in measured}
    return [last[run] for run in training.runs]


def weights_alone(*spec: str, engine: str = "torch") -> Tensor:
    (run,) = build(parsed(*SMALL, *spec, f"engine={engine}"))[0].runs
    trained(run)
    return flat(layers_of(run))


SPECS = [["lr=0.03"], ["lr=0.01", "seed=1", "schedule=cosine"], ["lr=0.03", "seed=2", "epochs=5"]]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_rule_of_numbers_is_the_same_in_every_engine(name: str, offer: Callable[[AnyRule], None]) -> None:
    offer(NUMBERS[name])
    assert choose(parsed("optimizer=theirs")) == Choice("compiled")
    exact = [[*spec, "dtype=float64"] for spec in SPECS]
    for spec, batched in zip(exact, weights_together(*exact), strict=True):
        for weights in (batched, weights_alone(*spec, engine="compiled")):
            assert torch.allclose(weights_alone(*spec), weights, rtol=1e-7, atol=1e-9), spec
    # In float32 the engines round differently, but company changes no bit.
    company = weights_together(*SPECS)
    for spec, batched in zip(SPECS, company, strict=True):
        assert torch.equal(weights_together(spec)[0], batched), spec


@pytest.mark.parametrize("name", [*ELEMENTWISE, *TENSORWISE])
def test_a_rule_of_tensors_trains_alone(name: str, offer: Callable[[AnyRule], None]) -> None:
    """In the torch engine, whatever it says of itself: nobody else can tell whether it is elementwise."""
    rule = ELEMENTWISE.get(name) or TENSORWISE[name]
    offer(rule)
    config = parsed("optimizer=theirs")
    scopes: list[Any] = [None, "element", "tensor", "layer"]
    for scope in scopes:
        offer(Rule(rule.update, rule.init, rule.defaults, scope=scope))
        assert choose(config) == Choice("torch", "theirs is a rule of whole tensors")
    for engine in ("compiled", "batched"):
        with pytest.raises(UserError, match=f"engine: {engine} cannot train this run: theirs is a rule of"):
            choose(replace(config, engine=engine))


@pytest.mark.parametrize("name", NOT_OF_NUMBERS)
def test_a_rule_of_four_arguments_that_is_not_elementwise_trains_alone(
    name: str, offer: Callable[[AnyRule], None]
) -> None:
    rule, reason = NOT_OF_NUMBERS[name]
    offer(rule)
    choice = choose(parsed("optimizer=theirs"))
    assert choice.engine == "torch"
    assert choice.reason.startswith("theirs ") and reason in choice.reason


@pytest.mark.parametrize("name", IMPURE)
def test_a_rule_that_is_no_function_is_refused(
    name: str, offer: Callable[[AnyRule], None], ffn: Command, tmp_path: Path
) -> None:
    offer(IMPURE[name]())
    for arguments in (["epochs=1"], ["-m", "seed=1,2"]):
        result = ffn("optimizer=theirs", *arguments)
        assert result.code == 2
        assert result.err.startswith("ffn-train: error: optimizer: theirs ")
        assert result.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", RULE_CASES, ids=str)
def test_our_own_rules_are_what_they_say(case: RuleCase) -> None:
    assert rule_checks.impure(RULES[case.name], case.hyper) is None
    assert rule_checks.not_elementwise(case.rule, case.hyper) is None


def test_the_normalised_gradient_alone_and_beside_29(offer: Callable[[AnyRule], None], ffn: Command) -> None:
    """It once had 83.7 % alone, 77.8 % beside one other run, 35.9 % beside 29."""
    offer(TENSORWISE["norm"])
    common = ["optimizer=theirs", "epochs=3", "lr=0.02"]

    def accuracy(folder: Path) -> Any:
        return json.loads((folder / "summary.json").read_text())["final"]

    assert ffn(*common, "name=one").code == 0
    separate = accuracy(Path("outputs/one"))
    for name, seeds in (("two", "range(0,2)"), ("many", "range(0,6)")):
        result = ffn("-m", *common, f"seed={seeds}", f"name={name}")
        assert result.code == 0, result.err
        assert re.search(r"^  torch +\d runs: theirs is a rule of whole tensors$", result.out, re.M), (
            result.out
        )
        (first,) = (
            folder
            for folder in Path("outputs/sweeps", name).glob("*/")
            if json.loads((folder / "run.json").read_text())["config"]["seed"] == 0
        )
        assert accuracy(first) == separate


@pytest.mark.parametrize("engine", ["auto", "batched"])
def test_a_rule_that_raises_ends_the_run_it_raises_in(
    engine: str, offer: Callable[[AnyRule], None], ffn: Command
) -> None:
    """In a process of its own; or side by side, where the others go on from their checkpoints, to the bit."""

    def coefficients(hyper: Any, t: Any) -> Any:
        if np.any(t > 256) and np.any(np.asarray(hyper["lr"]) > 1):
            raise RuntimeError("a rate above 1")
        return (hyper["lr"],)

    offer(Rule(lambda g, θ, state, c: (θ - c[0] * g, state), coefficients))
    common = ["-m", f"engine={engine}", "optimizer=theirs", "data=moons", "data.n_samples=200", "epochs=100"]
    common += ["log_every=7", "batch_size=50"]
    assert ffn(*common, "lr=0.01,0.02,0.03,0.04", "name=whole").code == 0
    result = ffn(*common, "lr=0.01,0.02,0.03,0.04,2,3", "name=s", "checkpoint_seconds=0")
    assert result.code == 1
    reference = {f.name: outcome(f) for f in Path("outputs/sweeps/whole").glob("*/")}
    folders = {f.name: f for f in Path("outputs/sweeps/s").glob("*/")}
    assert result.out.count("failed       RuntimeError: a rate above 1") == 2
    # The compiled engine asks for coefficients before it begins: then nothing is written of the run.
    ended = {n: f / "summary.json" for n, f in folders.items() if (f / "summary.json").exists()}
    statuses = {n: json.loads(file.read_text())["status"] for n, file in ended.items()}
    assert [s for s in sorted(statuses.values()) if s != "failed"] == ["finished"] * 4
    for name, expected in reference.items():
        assert statuses[name] == "finished"
        assert outcome(folders[name]) == expected


# --- in races -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NUMBERS, *ELEMENTWISE, *TENSORWISE])
def test_a_rate_is_raced_alone_as_beside_others(name: str, offer: Callable[[AnyRule], None]) -> None:
    offer({**NUMBERS, **ELEMENTWISE, **TENSORWISE}[name])
    config_of = parsed("optimizer=theirs").optimizer
    surface = surfaces.find("saddle")
    rates = [0.001, 0.01, 0.1]

    def ends(*given: float) -> dict[float, list[float]]:
        points: list[Tensor] = []
        start = torch.tensor(surface.start, dtype=torch.float64)
        objective = paths.noisy(surface, 40, 0)
        paths.advance(objective, start, config_of, given, 40, lambda t, θ: points.append(θ.clone()))
        return {rate: points[-1][k].tolist() for k, rate in enumerate(given)}

    together = ends(*rates)
    for rate in rates:
        assert ends(rate)[rate] == together[rate]


def test_a_tensor_of_a_network_is_raced_as_it_is_trained(
    offer: Callable[[AnyRule], None], ffn: Command
) -> None:
    """Each W and b by itself, not all parameters as one."""
    from ffn_bench.race import network

    offer(TENSORWISE["norm"])
    assert ffn(*SMALL, "lr=0.05", "name=run", "dtype=float64").code == 0
    problem = network.read(Path("outputs/run"))
    raced = network.on_network(
        problem, parsed("optimizer=theirs").optimizer, [0.05], 8 * problem.steps_per_epoch
    )
    assert torch.allclose(raced.path[-1], weights_alone("lr=0.05", "dtype=float64"), rtol=1e-9)


def test_a_shape_of_a_network_counts_in_its_race(offer: Callable[[AnyRule], None], ffn: Command) -> None:
    """A rule that is elementwise on small tensors, and is not on this network's."""
    from ffn_bench.race import network

    def update(g: Tensor, state: Any, θ: Tensor, hyper: Any, t: int) -> Any:
        return θ - hyper["lr"] * (unit(g) if g.dim() == 2 and min(g.shape) >= 140 else g), state

    offer(Rule(update))
    small = [*SMALL, "model.hidden=[140,140]", "batch_size=full", "lr=0.05", "dtype=float64"]
    assert ffn(*small, "name=run").code == 0
    problem = network.read(Path("outputs/run"))
    raced = network.on_network(problem, parsed("optimizer=theirs").optimizer, [0.05], 8)
    separate = weights_alone("model.hidden=[140,140]", "batch_size=full", "lr=0.05", "dtype=float64")
    assert torch.allclose(raced.path[-1], separate, rtol=1e-9)


def test_a_rule_that_keeps_its_last_parameters_means_those_of_then() -> None:
    start, g = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 0.25], dtype=torch.float64)
    θ = torch.nn.Parameter(start.clone())
    optimizer = RuleOptimizer([θ], ELEMENTWISE["by the last θ"], lr=0.1)
    last = current = start
    for _ in range(5):
        θ.grad = g.clone()
        optimizer.step()
        last, current = current, current - 0.1 * g + 0.5 * (current - last)
    assert torch.equal(θ.detach(), current)
