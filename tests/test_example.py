"""The plug-in package of examples/ computes what others compute; scripts/check_wheel.sh trains with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffn_bench.rules import RuleOptimizer
from my_optimizer import LION


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_is_optax_lion(weight_decay: float) -> None:
    optax = pytest.importorskip("optax")
    draw = np.random.default_rng(0)
    θ, gradients = draw.normal(size=30).astype("f"), draw.normal(size=(50, 30)).astype("f")
    ours = torch.nn.Parameter(torch.tensor(θ))
    optimizer = RuleOptimizer([ours], LION, lr=0.01, betas=(0.9, 0.98), weight_decay=weight_decay)
    reference = optax.lion(0.01, b1=0.9, b2=0.98, weight_decay=weight_decay)
    state = reference.init(θ)
    for g in gradients:
        ours.grad = torch.tensor(g)
        optimizer.step()
        updates, state = reference.update(g, state, θ)
        θ = optax.apply_updates(θ, updates)
        np.testing.assert_allclose(ours.detach().numpy(), θ, rtol=1e-5, atol=1e-6)
