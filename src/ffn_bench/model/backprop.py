"""Gradients of the objective, twice: by the lecture's equations and by autograd, with one signature.

Both take the network's layers as pairs `(W [n_in, n_out], b [n_out])`, a mini-batch `x [b, n_features]` and
what is to come out, `y`: labels `[b]`, int64, or targets of a regression `[b, n_outputs]`; each of them may
have a leading run axis. Both return what `Gradients` says. The loss is the mean over the batch, of
cross-entropies unless a criterion says otherwise, each row times its weight `[b]`; the objective adds
λ Σ‖W‖² (L5) and λ₁ Σ|W|.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ffn_bench.model.activations import Activation
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion
from ffn_bench.model.network import Layers, forward, forward_pass
from ffn_bench.model.tensor_losses import losses_and_gradients, penalised, row_losses, weighted_mean


@dataclass(frozen=True)
class Gradients:
    """Losses `[]` or `[runs]`, ∂J/∂(W, b) of each layer in the layers' shapes, and ∂l/∂x in x's shape."""

    loss: Tensor
    objective: Tensor
    layers: list[tuple[Tensor, Tensor]]
    x: Tensor


@torch.no_grad()
def by_hand(
    layers: Layers,
    x: Tensor,
    y: Tensor,
    activation: Activation,
    l2: float = 0.0,
    l1: float = 0.0,
    criterion: Criterion = CROSS_ENTROPY,
    weights: Tensor | None = None,
) -> Gradients:
    """The lecture's back-propagation (L11), for any depth, activation and loss.

    g^L = (p − 1_y)/b, or what the loss has in its place;  ∂l/∂W^k = (h^{k−1})ᵀ ḡ^k, ∂l/∂b^k = Σ ḡ^k over the
    batch; g^{k−1} = ḡ^k (W^k)ᵀ, ḡ^{k−1} = g^{k−1} ⊙ σ'(h̄^{k−1}); and last ∂l/∂x = ḡ^1 (W^1)ᵀ.
    """
    hs, h_bars = forward_pass(layers, x, activation)
    losses, g_bar = losses_and_gradients(h_bars[-1], y, criterion)
    if weights is not None:
        g_bar *= weights.unsqueeze(-1)
    g_bar /= x.shape[-2]
    gradients: list[tuple[Tensor, Tensor]] = []
    for k in reversed(range(len(layers))):
        W, _ = layers[k]
        dW, db = hs[k].mT @ g_bar, g_bar.sum(-2)
        if l2:
            dW = dW + 2 * l2 * W
        if l1:
            dW = dW + l1 * W.sign()
        gradients.append((dW, db))
        g = g_bar @ W.mT
        if k:
            g_bar = g * activation.derivative(h_bars[k - 1], hs[k])
    gradients.reverse()
    loss = weighted_mean(losses, weights)
    return Gradients(loss, penalised(loss, layers, l2, l1), gradients, g)


def by_autograd(
    layers: Layers,
    x: Tensor,
    y: Tensor,
    activation: Activation,
    l2: float = 0.0,
    l1: float = 0.0,
    criterion: Criterion = CROSS_ENTROPY,
    weights: Tensor | None = None,
) -> Gradients:
    """The same by PyTorch's automatic differentiation."""
    leaves = [t.detach().requires_grad_() for layer in layers for t in layer]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
    x = x.detach().requires_grad_()
    loss = loss_of(pairs, x, y, activation, criterion, weights)
    objective = penalised(loss, pairs, l2, l1)
    # Runs do not touch each other, so the gradient of their sum is each run's own gradient.
    *gradients, dx = torch.autograd.grad(objective.sum(), [*leaves, x])
    layer_gradients = list(zip(gradients[::2], gradients[1::2], strict=True))
    return Gradients(loss.detach(), objective.detach(), layer_gradients, dx)


def loss_of(
    layers: Layers,
    x: Tensor,
    y: Tensor,
    activation: Activation,
    criterion: Criterion = CROSS_ENTROPY,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss alone, `[]` or `[runs]`."""
    return weighted_mean(row_losses(forward(layers, x, activation), y, criterion), weights)
