"""The principal plane, against scikit-learn's components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ffn_bench.model import principal_plane as module
from ffn_bench.model.principal_plane import principal_plane

F64 = torch.float64


def trajectory(points: int, parameters: int, dtype: torch.dtype) -> torch.Tensor:
    """Points that spread less and less from axis to axis, far from 0."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.randn(points, parameters, generator=generator, dtype=F64)
    return (3 + spread * torch.logspace(0, -3, parameters, dtype=F64)).to(dtype)


@pytest.mark.parametrize("numbers", [2**24, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_that_of_scikit_learn(
    dtype: torch.dtype, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS", numbers)
    points = trajectory(30, 50, dtype)
    plane, pca = principal_plane(points), PCA(2, svd_solver="full").fit(points.double().numpy())
    assert plane.origin.dtype == plane.directions.dtype == dtype
    assert plane.variance == pytest.approx(pca.explained_variance_ratio_, rel=1e-9)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    ours = plane.directions.double().numpy()
    assert np.abs(ours @ pca.components_.T) == pytest.approx(np.eye(2), abs=tolerance)
    coordinates = plane.project(points)
    assert np.abs(coordinates.numpy()) == pytest.approx(
        np.abs(pca.transform(points.double().numpy())), abs=20 * tolerance
    )
    back = pca.inverse_transform(pca.transform(points.double().numpy()))
    assert plane.points(coordinates).numpy() == pytest.approx(back, abs=20 * tolerance)


def test_points_on_a_line_have_one_direction() -> None:
    line = torch.linspace(-1, 2, 9, dtype=F64)[:, None] * trajectory(1, 40, F64) + 5
    plane = principal_plane(line)
    assert plane.variance == pytest.approx((1, 0), abs=1e-12)
    assert plane.directions.norm(dim=1).tolist() == pytest.approx([1, 0])
    torch.testing.assert_close(plane.points(plane.project(line)), line)


def test_a_single_point_has_none() -> None:
    plane = principal_plane(torch.ones(1, 5))
    assert plane.variance == (0, 0) and not plane.directions.any()
