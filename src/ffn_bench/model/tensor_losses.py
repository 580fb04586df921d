"""Losses of tensors: of logits `z […, b, n_outputs]` and what they should be, `y […, b]`, labels, or targets
of a regression `[…, b, n_outputs]`, by row, in the mean, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ffn_bench.model.losses import CROSS_ENTROPY, Criterion


def row_losses(z: Tensor, y: Tensor, criterion: Criterion = CROSS_ENTROPY) -> Tensor:
    """The loss of each row, `[…, b]`, through which autograd can go."""
    if criterion.is_softmax_cross_entropy:
        return _cross_entropy(z.log_softmax(-1), y, criterion)
    t = _targets(z, y, criterion)
    if criterion.is_softmax:
        return criterion.value(z.softmax(-1), t).sum(-1)  # type: ignore[no-any-return]
    return criterion.of_logit(z, t).sum(-1)  # type: ignore[no-any-return]


def mean_loss(
    z: Tensor, y: Tensor, criterion: Criterion = CROSS_ENTROPY, weights: Tensor | None = None
) -> Tensor:
    """The mean over the rows of a batch, each times its weight `[…, b]`: `[…]`."""
    if criterion == CROSS_ENTROPY and weights is None and z.ndim == 2:
        return F.cross_entropy(z, y)
    return weighted_mean(row_losses(z, y, criterion), weights)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Σ w l/b of the rows' losses `[…, b]`."""
    return (losses if weights is None else losses * weights).mean(-1)


def losses_and_gradients(z: Tensor, y: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """The loss of each row, `[…, b]`, and its gradient by the row's logits, `[…, b, n_outputs]`.

    Of cross-entropy on a softmax p − t, of other losses on a softmax fⱼ (dⱼ − Σ dₖ fₖ) with d = ∂ρ/∂f.
    """
    if criterion.is_softmax_cross_entropy:
        log_p = z.log_softmax(-1)
        losses, gradient = _cross_entropy(log_p, y, criterion), log_p.exp()
        if not criterion.smoothing:
            at = y.expand(z.shape[:-1]).unsqueeze(-1)
            return losses, gradient.scatter_add_(-1, at, torch.full_like(at, -1, dtype=z.dtype))
        return losses, gradient - _targets(z, y, criterion)
    t = _targets(z, y, criterion)
    if not criterion.is_softmax:
        return criterion.of_logit(z, t).sum(-1), criterion.logit_derivative(z, t)
    f = z.softmax(-1)
    d = criterion.derivative(f, t)
    return criterion.value(f, t).sum(-1), f * (d - (f * d).sum(-1, keepdim=True))


def _cross_entropy(log_p: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
    """−Σ t ln p"""
    if criterion.smoothing:
        return -(_targets(log_p, y, criterion) * log_p).sum(-1)
    return -log_p.gather(-1, y.expand(log_p.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def _targets(z: Tensor, y: Tensor, criterion: Criterion) -> Tensor:
    """t in the shape of z: of labels 1 at each and 0 elsewhere, or what smoothing makes of that."""
    if y.is_floating_point():
        return y
    on, off = criterion.targets(z.shape[-1])
    return torch.full_like(z, off).scatter_(-1, y.expand(z.shape[:-1]).unsqueeze(-1), on)


# --- regularisation -------------------------------------------------------------------------------------


def penalised(loss: Tensor, layers: Sequence[tuple[Tensor, Tensor]], l2: float, l1: float) -> Tensor:
    """The objective: loss + l2 Σ‖W‖² + l1 Σ|W|, of the weights without biases."""
    if l2:
        loss = loss + l2 * penalty(layers)
    return loss + l1 * absolute_penalty(layers) if l1 else loss


def penalty(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ_k ‖W^k‖_F² (L5), biases left out; a number for each run."""
    return torch.stack([W.square().sum((-2, -1)) for W, _ in layers]).sum(0)


def absolute_penalty(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ_k Σ|W^k|, biases left out; a number for each run."""
    return torch.stack([W.abs().sum((-2, -1)) for W, _ in layers]).sum(0)
