"""Newton's method with damping and a line search, as an optimizer; and one step of any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ffn_bench.errors import UserError
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.layers import parted


def damped_newton_step(g: Tensor, H: Tensor, damping: float) -> Tensor:
    """−(H + δI)⁻¹ g with the least δ ≥ `damping` that makes every eigenvalue at least `damping`.

    At a saddle the plain Newton step −H⁻¹g leads to the saddle; shifted so, it is a descent direction.
    """
    eigenvalues, vectors = torch.linalg.eigh(H)
    δ = damping + max(0.0, -float(eigenvalues[0]))
    step: Tensor = -vectors @ ((vectors.T @ g) / (eigenvalues + δ))
    return step


class Newton(torch.optim.Optimizer):
    """Damped Newton's method with the exact Hessian, for up to `max_parameters` parameters.

    `step(objective)` takes a function that returns the objective as a 0-d tensor with its graph. The step is
    shortened by halves until the objective falls (Armijo's rule, 1e-4), twenty times at most; then it stays.

    Raises `UserError` for more parameters: H takes P² numbers and its eigenvalues P³ operations.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, damping: float = 1e-3, max_parameters: int = 3000
    ) -> None:
        super().__init__(params, {"lr": lr, "damping": damping})
        (group,) = self.param_groups
        count = sum(p.numel() for p in group["params"])
        if count > max_parameters:
            raise UserError(
                "optimizer",
                f"newton takes networks of up to {max_parameters:,} parameters, this one has {count:,}",
                "use a smaller network, optimizer=lbfgs, or raise optimizer.max_parameters",
            )

    def step(self, objective: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One damped step on the objective; returns its value before the step and leaves its gradient."""
        (group,) = self.param_groups
        parameters: list[Tensor] = group["params"]
        value = objective()
        g, H = gradient_and_hessian(value, parameters)
        shapes = [tuple(p.shape) for p in parameters]
        for p, gradient in zip(parameters, parted(g, shapes), strict=True):
            p.grad = gradient
        if not bool(torch.isfinite(H).all()):
            return value.detach()  # nothing to solve; the loss shows the divergence
        direction = damped_newton_step(g, H, group["damping"])
        slope = float(g @ direction)
        start = [p.detach().clone() for p in parameters]
        size = group["lr"]
        for _ in range(20):
            self._move(parameters, start, direction * size)
            if float(objective().detach()) <= float(value.detach()) + 1e-4 * size * slope:
                return value.detach()
            size /= 2
        self._move(parameters, start, torch.zeros_like(direction))
        return value.detach()

    @torch.no_grad()
    def _move(self, parameters: Sequence[Tensor], start: Sequence[Tensor], change: Tensor) -> None:
        changes = parted(change, [tuple(p.shape) for p in parameters])
        for p, origin, moved in zip(parameters, start, changes, strict=True):
            p.copy_(origin + moved)


def take_step(optimizer: torch.optim.Optimizer, objective: Callable[[], Tensor]) -> None:
    """One step of an optimizer on an objective, which returns a 0-d tensor with its graph.

    Newton's method differentiates the objective itself, L-BFGS takes gradients at several points, all others
    the current one.
    """

    def gradient() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value.detach()

    if isinstance(optimizer, Newton):
        optimizer.step(objective)
    elif isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(gradient)
    else:
        gradient()
        optimizer.step()
