"""The table of activations against PyTorch's own functions, where autograd goes through it, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.array_numbers import ArrayNumbers

OURS_ALONE = {"identity": lambda x: x}
NUMBERS = torch.cat(
    [
        torch.linspace(-30, 30, 4001, dtype=torch.float64),
        torch.tensor([0.0, -0.0, 1e3, -1e3, 1e-300]).double(),
    ]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_and_derivative_are_pytorchs(name: str, dtype: torch.dtype) -> None:
    reference = OURS_ALONE.get(name) or getattr(F, name)
    ours, theirs = (NUMBERS.to(dtype).requires_grad_() for _ in range(2))
    h, expected = ACTIVATIONS[name].function(ours), reference(theirs)
    close: dict[str, Any] = (
        {"rtol": 1e-13, "atol": 1e-15} if dtype == torch.float64 else {"rtol": 3e-6, "atol": 2e-6}
    )
    torch.testing.assert_close(h, expected, **close)
    (by_autograd,) = torch.autograd.grad(h.sum(), ours)
    (slope,) = torch.autograd.grad(expected.sum(), theirs)
    torch.testing.assert_close(by_autograd, slope, **close)
    derivative = ACTIVATIONS[name].derivative(ours.detach(), h.detach())
    torch.testing.assert_close(derivative, slope, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_function_of_an_array_is_pytorchs(name: str, dtype: torch.dtype) -> None:
    reference = OURS_ALONE.get(name) or getattr(F, name)
    x = NUMBERS.detach().to(dtype)
    with np.errstate(all="raise", under="ignore"):
        h = ACTIVATIONS[name].function(x.numpy().view(ArrayNumbers)).view(np.ndarray)
    rtol, atol = (1e-13, 1e-15) if dtype == torch.float64 else (3e-6, 2e-6)
    torch.testing.assert_close(torch.from_numpy(h), reference(x), rtol=rtol, atol=atol)
    nan = np.array([np.nan], h.dtype).view(ArrayNumbers)
    assert np.isnan(ACTIVATIONS[name].function(nan)).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives_are_pytorchs(name: str) -> None:
    """The Hessian goes through them. At 0, where some have none, conventions differ."""
    reference = OURS_ALONE.get(name) or getattr(F, name)
    second = []
    for function in (ACTIVATIONS[name].function, reference):
        x = NUMBERS[NUMBERS.abs() > 1e-9].requires_grad_()
        (first,) = torch.autograd.grad((function(x) * 1.0 + 0 * x * x).sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.sum(), x)[0])
    torch.testing.assert_close(*second, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_nan_stays_one(name: str) -> None:
    x = torch.tensor([float("nan")])
    h = ACTIVATIONS[name].function(x)
    assert h.isnan().all()
    assert ACTIVATIONS[name].derivative(x, h).isnan().all()
