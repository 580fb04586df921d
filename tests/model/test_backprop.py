"""The lecture's back-propagation against autograd."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cases import torch_run, trained
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import Gradients, by_autograd, by_hand

F64 = torch.float64


def network(depth: int, runs: tuple[int, ...] = ()) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(depth)
    widths = [5, *[4 + k for k in range(depth)], 3]
    return [
        (
            torch.randn(*runs, i, o, generator=generator, dtype=F64),
            torch.randn(*runs, o, generator=generator, dtype=F64),
        )
        for i, o in itertools.pairwise(widths)
    ]


def batch(b: int, runs: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b)
    x = torch.randn(*runs, b, 5, generator=generator, dtype=F64)
    return x, torch.randint(3, (*runs, b), generator=generator)


def difference(a: Gradients, b: Gradients) -> float:
    """Largest relative difference of any gradient, and of the losses."""
    pairs = [(a.x, b.x), (a.loss, b.loss), (a.objective, b.objective)]
    for one, two in zip(a.layers, b.layers, strict=True):
        pairs += list(zip(one, two, strict=True))
    return max(float((p - q).norm() / q.norm().clamp(min=1e-300)) for p, q in pairs)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_by_hand_is_autograd(name: str) -> None:
    for depth in range(7):
        for b in (1, 7, 32):
            for l2 in (0.0, 0.1):
                layers, (x, y) = network(depth), batch(b)
                arguments = (layers, x, y, ACTIVATIONS[name], l2)
                assert difference(by_hand(*arguments), by_autograd(*arguments)) <= 1e-12, (depth, b)


@pytest.mark.parametrize("method", [by_hand, by_autograd])
def test_a_leading_run_axis_is_the_runs_one_by_one(method: type) -> None:
    layers, (x, y) = network(3, runs=(4,)), batch(7, runs=(4,))
    σ = ACTIVATIONS["tanh"]
    together = method(layers, x, y, σ, 0.1)
    shared = method(layers, x[0], y[0], σ, 0.1)
    for k in range(4):
        own = [(W[k], b[k]) for W, b in layers]
        for stacked, single in (
            (together, method(own, x[k], y[k], σ, 0.1)),
            (shared, method(own, x[0], y[0], σ, 0.1)),
        ):
            assert torch.allclose(stacked.loss[k], single.loss, rtol=1e-13)
            assert torch.allclose(stacked.objective[k], single.objective, rtol=1e-13)
            for (dW, db), (W, b) in zip(stacked.layers, single.layers, strict=True):
                assert torch.allclose(dW[k], W, rtol=1e-12, atol=1e-15)
                assert torch.allclose(db[k], b, rtol=1e-12, atol=1e-15)
    assert together.x.shape == x.shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_run_by_hand_is_the_run_by_autograd(activation: str) -> None:
    curves = []
    for gradient in ("manual", "autograd"):
        overrides = (
            "dtype=float64",
            "epochs=5",
            "l2=1e-3",
            f"model.activation={activation}",
            f"gradient={gradient}",
        )
        curves.append([m.values for m in trained(torch_run(*overrides, "log_every=1"))])
    for by_hand_values, by_autograd_values in zip(*curves, strict=True):
        assert by_hand_values == pytest.approx(by_autograd_values, rel=1e-10, abs=1e-10)


def test_a_planted_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ACTIVATIONS["tanh"]
    monkeypatch.setitem(ACTIVATIONS, "tanh", replace(right, derivative=lambda h_bar, h: 1 + h * h))
    with pytest.raises(AssertionError):
        test_by_hand_is_autograd("tanh")
