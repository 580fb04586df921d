"""The exact Hessian and Newton's method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cases import torch_run, trained
from ffn_bench.engine.torch_engine import TorchEngine
from ffn_bench.model.hessian import gradient_and_hessian, lanczos
from ffn_bench.optimizers.newton import Newton, damped_newton_step


def test_the_hessian_of_a_quadratic() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    A = A + A.T
    θ = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    g, H = gradient_and_hessian(θ @ A @ θ / 2, [θ], chunk=5)
    assert torch.allclose(H, A, atol=1e-12)
    assert torch.allclose(g, A @ θ.detach(), atol=1e-12)


def test_the_hessian_of_a_network_by_differences_of_its_gradient() -> None:
    run = torch_run("model.hidden=[3]", "model.activation=tanh", "dtype=float64", "epochs=1")
    engine = run.training.engine
    assert isinstance(engine, TorchEngine)
    parameters = list(engine.network.parameters())
    rows = run.data.train.map(torch.from_numpy)
    _, H = gradient_and_hessian(engine._objective(*rows)[0], parameters)
    p = parameters[0]
    ε = 1e-5
    for k in (0, 17, 100):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                p.view(-1)[k] += sign * ε
            sides.append(
                torch.cat(
                    [g.reshape(-1) for g in torch.autograd.grad(engine._objective(*rows)[0], parameters)]
                )
            )
            with torch.no_grad():
                p.view(-1)[k] -= sign * ε
        assert torch.allclose((sides[0] - sides[1]) / (2 * ε), H[k], atol=1e-8)


def test_newton_solves_a_quadratic_in_one_step_and_leaves_a_saddle() -> None:
    θ = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    target = torch.tensor([1.0, 5.0], dtype=torch.float64)
    Newton([θ], damping=0.0).step(lambda: ((θ - target).square() * torch.tensor([1.0, 40.0])).sum())
    assert torch.allclose(θ.detach(), target, atol=1e-9)
    g = torch.tensor([2.0, -0.2], dtype=torch.float64)  # of θ1² − θ2² at (1, 0.1)
    H = torch.diag(torch.tensor([2.0, -2.0], dtype=torch.float64))
    step = damped_newton_step(g, H, 1e-3)
    assert g @ step < 0
    assert step[1] > 0  # away from θ2 = 0, where the plain Newton step would go


def test_newton_trains_small_networks_and_refuses_large_ones() -> None:
    run = torch_run(
        "optimizer=newton", "data=moons", "model.hidden=[8]", "model.activation=tanh", "epochs=25"
    )
    measured = trained(run)
    assert run.status == "finished"
    assert measured[-1].values["accuracy/test"] >= 0.95
    losses = [m.values["loss/train"] for m in measured if "loss/train" in m.values]
    assert losses == sorted(losses, reverse=True)
    with pytest.raises(Exception, match="3,000 parameters, this one has 26,122"):
        torch_run("optimizer=newton", "model=mlp")


@pytest.mark.parametrize("steps", [1, 2, 10, 40, 90])
@pytest.mark.parametrize("kind", ["apart", "many at zero", "zero", "a multiple of I"])
def test_bounds_by_lanczos_hold_for_every_probe(steps: int, kind: str) -> None:
    """F of the very vector v, by all eigenvectors, lies between them at every t, eigenvalues among these."""
    generator = torch.Generator().manual_seed(steps)
    λ = torch.randn(80, generator=generator, dtype=torch.float64).exp() - 0.3
    λ = {"apart": λ, "many at zero": λ * (λ > 1), "zero": 0 * λ, "a multiple of I": 0 * λ + 3}[kind]
    Q = torch.linalg.qr(torch.randn(80, 80, generator=generator, dtype=torch.float64))[0]
    H = Q @ torch.diag(λ) @ Q.T
    seen: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        seen.append(v)
        image: Tensor = H @ v
        return image

    quadrature = lanczos(product, λ, steps, generator)
    distinct = len(λ.unique())
    assert len(quadrature.diagonal) == len(seen) <= min(steps, distinct + 2)  # rounding may add a step
    weights = (Q.T @ seen[0]).square()
    at = torch.cat([torch.linspace(-2, 12, 57, dtype=torch.float64), λ[:3] + 1e-7])
    lower, upper = quadrature.bounds(at)
    assert bool((lower <= (weights * (λ < at[:, None] - 1e-9)).sum(1) + 1e-9).all())
    assert bool((upper >= (weights * (λ <= at[:, None] - 1e-9)).sum(1) - 1e-9).all())
    if steps > distinct:
        between = (λ - at[:, None]).abs().amin(1) > 1e-9
        assert torch.allclose(lower[between], upper[between], atol=1e-6)
    for value in quadrature.converged(1e-8):
        assert float((λ - value).abs().min()) <= 2e-8
