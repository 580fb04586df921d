"""Gradients of the objective, twice: by the lecture's equations and by autograd, with one signature.

Both take the network's layers as pairs `(W [n_in, n_out], b [n_out])`, a mini-batch `x [b, n_features]` and
its labels `y [b]`, int64; each of them may have a leading run axis. Both return what `Gradients` says. The
loss is the mean cross-entropy over the batch, the objective adds λ Σ‖W‖² (L5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ffn_bench.model.activations import Activation
from ffn_bench.model.network import Layers, forward, forward_pass


@dataclass(frozen=True)
class Gradients:
    """Losses `[]` or `[runs]`, ∂J/∂(W, b) of each layer in the layers' shapes, and ∂l/∂x in x's shape."""

    loss: Tensor
    objective: Tensor
    layers: list[tuple[Tensor, Tensor]]
    x: Tensor


@torch.no_grad()
def by_hand(layers: Layers, x: Tensor, y: Tensor, activation: Activation, l2: float = 0.0) -> Gradients:
    """The lecture's back-propagation (L11), for any depth and activation.

    g^L = (p − 1_y)/b;  ∂l/∂W^k = (h^{k−1})ᵀ ḡ^k, ∂l/∂b^k = Σ ḡ^k over the batch;
    g^{k−1} = ḡ^k (W^k)ᵀ, ḡ^{k−1} = g^{k−1} ⊙ σ'(h̄^{k−1}); and last ∂l/∂x = ḡ^1 (W^1)ᵀ.
    """
    hs, h_bars = forward_pass(layers, x, activation)
    log_p = h_bars[-1].log_softmax(-1)
    loss = _cross_entropy(log_p, y)

    y = y.expand(log_p.shape[:-1]).unsqueeze(-1)
    g_bar = log_p.exp()
    g_bar.scatter_add_(-1, y, torch.full_like(y, -1, dtype=g_bar.dtype))
    g_bar /= x.shape[-2]
    gradients: list[tuple[Tensor, Tensor]] = []
    for k in reversed(range(len(layers))):
        W, _ = layers[k]
        dW, db = hs[k].mT @ g_bar, g_bar.sum(-2)
        gradients.append((dW + 2 * l2 * W if l2 else dW, db))
        g = g_bar @ W.mT
        if k:
            g_bar = g * activation.derivative(h_bars[k - 1], hs[k])
    gradients.reverse()
    return Gradients(loss, loss + l2 * penalty(layers) if l2 else loss, gradients, g)


def by_autograd(layers: Layers, x: Tensor, y: Tensor, activation: Activation, l2: float = 0.0) -> Gradients:
    """The same by PyTorch's automatic differentiation."""
    leaves = [t.detach().requires_grad_() for layer in layers for t in layer]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
    x = x.detach().requires_grad_()
    loss = loss_of(pairs, x, y, activation)
    objective = loss + l2 * penalty(pairs) if l2 else loss
    # Runs do not touch each other, so the gradient of their sum is each run's own gradient.
    *gradients, dx = torch.autograd.grad(objective.sum(), [*leaves, x])
    layer_gradients = list(zip(gradients[::2], gradients[1::2], strict=True))
    return Gradients(loss.detach(), objective.detach(), layer_gradients, dx)


def loss_of(layers: Layers, x: Tensor, y: Tensor, activation: Activation) -> Tensor:
    """The loss alone, `[]` or `[runs]`."""
    return _cross_entropy(forward(layers, x, activation).log_softmax(-1), y)


def _cross_entropy(log_p: Tensor, y: Tensor) -> Tensor:
    """−log p_y, averaged over the batch."""
    y = y.expand(log_p.shape[:-1]).unsqueeze(-1)
    return -log_p.gather(-1, y).squeeze(-1).mean(-1)


def penalty(layers: Layers) -> Tensor:
    """Σ_k ‖W^k‖_F² (L5), biases left out; a number for each run."""
    return torch.stack([W.square().sum((-2, -1)) for W, _ in layers]).sum(0)
