"""What is relied on of PyTorch's private names."""

from __future__ import annotations

import torch

from ffn_bench.model.torch_internals import foreach_norm


def test_foreach_norm_is_the_norm_of_each() -> None:
    tensors = [torch.randn(3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    for norm, tensor in zip(foreach_norm(tensors), tensors, strict=True):
        torch.testing.assert_close(norm, torch.linalg.vector_norm(tensor))
