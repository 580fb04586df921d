"""Whether an update rule is a pure function that keeps runs independent: found by trying it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ffn_bench.model.layers import joined, parted
from ffn_bench.optimizers.rule_forms import AnyRule, Hyper, Rule, TensorRule
from ffn_bench.optimizers.rule_optimizer import RuleOptimizer, advance, first_state, on_tensors

# --- is it elementwise? ---------------------------------------------------------------------------------

TRIED_SHAPES = ((3, 5), (5,), (60, 50), (1,))
TRIED_SCALES = (1e-6, 1e-2, 1.0, 1e2, 1e6)
TRIED_STEPS = (*range(1, 9), 10, 16, 100, 101, 1000, 1001, 10_000, 1_000_000)
"""What rules are tried on: tensors of a network, sizes of gradients (a rule may clip them), numbers of steps
(a rule may change its formula, as RAdam does at its sixth)."""
TRIED_RATES = (0.1, 0.03)

_tried: dict[tuple[int, int, str], tuple[AnyRule, str | None, str | None]] = {}
"""Results of trying, which takes seconds. Keyed by a rule's own functions, which are kept with it: another
rule of the same name, in a later run, is tried anew."""


LONGEST_SIDE = 300
"""Of a network's own weights, as far as they are tried: more takes seconds."""
Shapes = tuple[tuple[int, ...], ...]


def impure(rule: AnyRule, hyper: Hyper) -> str | None:
    """What keeps a rule from training anything, in words; None where nothing does.

    It must give the same numbers for the same arguments, and leave the gradient as it is.
    """
    return _try(rule, hyper, TRIED_SHAPES)[1]


def apart(rule: AnyRule, hyper: Hyper, hidden: Sequence[int] = ()) -> str | None:
    """What keeps a rule from training several runs together, in words; None where each run gets the same
    numbers as on its own.

    It is tried with these hyper-parameters, the learning rate apart: two small networks, each tensor by
    itself, against their parameters as rows `[2, P]`, and after half of the steps one row without the other.
    A rule may go by the shape of a weight, so those between `hidden` layers are tried, too, up to
    `LONGEST_SIDE`; the first layer's and the last one's count as square.
    """
    sides = [min(width, LONGEST_SIDE) for width in hidden]
    own = [(a, b) for a, b in zip([*sides[:1], *sides], [*sides, *sides[-1:]], strict=True) if max(a, b) > 60]
    return _try(rule, hyper, (*TRIED_SHAPES, *dict.fromkeys(own)))[2]


def _try(rule: AnyRule, hyper: Hyper, shapes: Shapes) -> tuple[AnyRule, str | None, str | None]:
    own = {key: value for key, value in hyper.items() if key != "lr"}
    on_rows = on_tensors(rule)
    other = rule.coefficients if isinstance(rule, Rule) else on_rows.init
    key = id(rule.update), id(other), repr((shapes, sorted(own.items())))
    if key not in _tried:
        faults = [_faults(on_rows, own, scale, seed, shapes) for seed, scale in enumerate(TRIED_SCALES)]
        impurity, coupling = (next((fault[k] for fault in faults if fault[k]), None) for k in (0, 1))
        _tried[key] = rule, impurity, coupling
    return _tried[key]


@torch.no_grad()
def _faults(
    rule: TensorRule, hyper: Hyper, scale: float, seed: int, shapes: Shapes
) -> tuple[str | None, str | None]:
    """What `impure` and `apart` say after gradients of one scale."""
    generator = torch.Generator().manual_seed(seed)
    like: Any = {"generator": generator, "dtype": torch.float64}
    count = sum(math.prod(shape) for shape in shapes)
    start = torch.randn(2, count, **like)
    gs = scale * torch.randn(len(TRIED_STEPS), 2, count, **like)
    gs[:, :, 3] = 0.0  # a weight without a gradient, as of a constant feature
    try:
        separate = [
            _train_separately(rule, hyper, TRIED_RATES[k], start[k], gs[:, k], shapes) for k in (0, 1)
        ]
        again = (
            separate[0]
            if seed
            else _train_separately(rule, hyper, TRIED_RATES[0], start[0], gs[:, 0], shapes)
        )
    except _GradientChanged:
        return "changes its gradient in place", None
    except Exception as e:  # which shows again when it trains
        return None, f"cannot be tried ({_said(e)})"
    if not torch.equal(separate[0].nan_to_num(), again.nan_to_num()):
        return "gives different numbers for the same arguments, so it is random or keeps hidden state", None
    expected = torch.stack(separate, 1)
    try:
        together = _train_together(rule, hyper, start, gs)
    except Exception as e:
        return None, f"cannot train several runs at once ({_said(e)})"
    for got, rows in zip(together, expected, strict=True):
        right = rows[-len(got) :]
        size = float(right.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if not torch.allclose(got, right, rtol=1e-9, atol=1e-12 * size, equal_nan=True):
            return None, "gives a run different numbers when another run is trained with it"
    return None, None


class _GradientChanged(Exception):
    pass


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _train_separately(
    rule: TensorRule, hyper: Hyper, rate: float, start: Tensor, gs: Tensor, shapes: Shapes
) -> Tensor:
    """θ `[steps, P]` after every step of one network, its tensors one by one, as in the torch engine."""

    def tensors(row: Tensor) -> list[Tensor]:
        return [tensor.clone() for tensor in parted(row, shapes)]

    parameters = [torch.nn.Parameter(tensor) for tensor in tensors(start)]
    optimizer = RuleOptimizer(parameters, rule, **hyper, lr=rate)
    path = []
    for t, g in zip(TRIED_STEPS, gs, strict=True):
        gradients = tensors(g)
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
            if t > 1:
                optimizer.state[p]["t"] = t - 1
        optimizer.step()
        if not torch.equal(joined(gradients), g):
            raise _GradientChanged
        path.append(joined(parameters))
    return torch.stack(path)


def _train_together(rule: TensorRule, hyper: Hyper, start: Tensor, gs: Tensor) -> list[Tensor]:
    """θ `[2, P]` after every step of two networks together, `[1, P]` from when the first one leaves."""
    θ, rates = start.clone(), torch.tensor(TRIED_RATES, dtype=start.dtype)[:, None]
    state = first_state(rule, θ, {**hyper, "lr": rates})
    path = []
    for k, (t, g) in enumerate(zip(TRIED_STEPS, gs, strict=True)):
        if k == len(gs) // 2:
            θ, rates = θ[1:].clone(), rates[1:]
            state = {name: torch.stack([value[1]]) for name, value in state.items()}
        advance(rule, θ, g[-len(θ) :].clone(), state, {**hyper, "lr": rates}, t)
        path.append(θ.clone())
    return path
