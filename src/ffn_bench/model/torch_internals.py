"""What is used of PyTorch that is not its public interface.

tests/model/test_torch_internals.py says what is relied on.
"""

from __future__ import annotations

import torch

foreach_norm = torch._foreach_norm
"""Euclidean norms of a list of tensors in one call."""
