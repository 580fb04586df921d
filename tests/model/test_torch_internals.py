"""What is relied on of PyTorch's private names."""

from __future__ import annotations

import pytest
import torch

from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.torch_internals import foreach_norm


def test_foreach_norm_is_the_norm_of_each() -> None:
    tensors = [torch.randn(3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    for norm, tensor in zip(foreach_norm(tensors), tensors, strict=True):
        torch.testing.assert_close(norm, torch.linalg.vector_norm(tensor))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_backward_is_autograds(name: str) -> None:
    activation = ACTIVATIONS[name]
    h_bar = torch.linspace(-3, 3, 40, dtype=torch.float64, requires_grad=True)
    g = torch.randn(40, dtype=torch.float64)
    h = activation.function(h_bar)
    (expected,) = torch.autograd.grad(h, h_bar, g)
    torch.testing.assert_close(activation.fused(g, h_bar.detach(), h.detach()), expected)
