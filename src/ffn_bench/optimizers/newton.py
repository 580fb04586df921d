"""Newton's method with damping and a line search, as an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ffn_bench.errors import UserError
from ffn_bench.model.hessian import gradient_and_hessian


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
        for p, part in zip(parameters, g.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.reshape(p.shape)
        if not bool(torch.isfinite(H).all()):
            return value.detach()  # nothing to solve; the loss itself tells of the divergence
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
        parts = change.split([p.numel() for p in parameters])
        for p, origin, part in zip(parameters, start, parts, strict=True):
            p.copy_(origin + part.reshape(p.shape))
