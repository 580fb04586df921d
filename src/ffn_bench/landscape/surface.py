"""The loss on lines and planes through the space of parameters: directions, and values at many points."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench.device import THREADS
from ffn_bench.files import LARGE, Folder
from ffn_bench.landscape.trained import explained, layered
from ffn_bench.network import Activation

NUMBERS = 500_000
"""Activations held at once: what a cache of some megabytes takes."""
ROWS = 500


def filter_normalised(
    layers: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """A random direction whose filters (a unit's incoming weights) have the norms of the network's own.

    Biases stay where they are. Source: Li et al., "Visualizing the Loss Landscape of Neural Nets" (2018).
    """
    direction = []
    for W, b in layers:
        d = torch.randn(W.shape, generator=generator, dtype=W.dtype)
        direction.append((d * W.norm(dim=0) / d.norm(dim=0), torch.zeros_like(b)))
    return direction


@dataclass(frozen=True)
class Principal:
    """The plane that holds most of some trajectories."""

    origin: Tensor
    """`[P]`, the mean of all points."""
    directions: Tensor
    """`[2, P]`, orthonormal."""
    variance: list[float]
    """The shares of the two directions in the variance of all points."""

    def project(self, θ: Tensor) -> Tensor:
        """Coordinates `[…, 2]` of points `[…, P]`."""
        return (θ.double() - self.origin.double()) @ self.directions.double().T


def principal_plane(points: Tensor) -> Principal:
    """The first two principal components of points `[T, P]`, T ≥ 3 (Lorch, 2016; Li et al., 2018)."""
    origin = points.double().mean(0)
    away = points.double() - origin
    # T is small where P may not be: the Gram matrix has the same spectrum.
    values, vectors = torch.linalg.eigh(away @ away.T)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    directions = (vectors[:, :2].T @ away) / values[:2].sqrt()[:, None].clamp_min(1e-300)
    return Principal(origin.to(points.dtype), directions.to(points.dtype), explained(values)[:2])


@torch.no_grad()
def evaluate(
    origin: Tensor,
    directions: Tensor,
    steps: Tensor,
    widths: Sequence[int],
    activation: Activation,
    x: Tensor,
    y: Tensor,
    told: Callable[[int], object] = lambda n: None,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy at θ = origin + steps · directions, `[G]` each, float64.

    `origin` is `[P]`, `directions` `[D, P]`, `steps` `[G, D]`; the G networks are evaluated side by side. The
    first layer's h̄ is affine in the step, so its products with the data are taken D + 1 times and not G
    times. `told` hears how many points are done.
    """
    (W, b), *_ = layered(torch.cat([origin[None], directions]), widths)
    steps = steps.to(origin)
    rows = min(len(y), ROWS)
    chunk = max(1, NUMBERS // (rows * max(widths[1:])))
    parts = []
    for part, labels in zip(x.split(rows), y.split(rows), strict=True):
        first = part @ W + b[:, None]  # [1 + D, rows, n_1]
        parts.append((first.flatten(1), labels))

    @torch.no_grad()
    def some_of(some: Tensor) -> Tensor:
        """Losses and hits `[2, len(some)]`, summed over the rows."""
        found = torch.zeros(2, len(some), dtype=torch.float64)
        moved = layered(torch.addmm(origin[None], some, directions), widths)[1:]
        for first, labels in parts:
            h = torch.addmm(first[:1], some, first[1:]).unflatten(1, (len(labels), widths[1]))
            for W_k, b_k in moved:
                h = torch.baddbmm(b_k[:, None], activation.function(h), W_k)
            right = h.gather(2, labels.expand(len(some), -1)[:, :, None])[..., 0]
            found[0] += (h.logsumexp(2) - right).sum(1, dtype=torch.float64)
            found[1] += (h.argmax(2) == labels).sum(1)
        return found

    # A thread a core, each with its own chunks: PyTorch's threads would wait for each other all the time.
    before, results, done = torch.get_num_threads(), [], 0
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(THREADS, initializer=partial(torch.set_num_threads, 1)) as pool:
            for found in pool.map(some_of, steps.split(chunk)):
                results.append(found)
                done += found.shape[1]
                told(done)
    finally:
        torch.set_num_threads(before)
    loss, hits = torch.cat(results, 1) / len(y)
    return loss, hits


def grid(low: Tensor, high: Tensor, points: int) -> tuple[list[Tensor], Tensor]:
    """Axes `[points]` of a rectangle between two corners `[2]`, and all its points `[points², 2]`."""
    axes = [
        torch.linspace(float(a), float(b), points, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    return axes, torch.cartesian_prod(*axes)


def cached(
    folder: Folder, what: dict[str, Any], compute: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], bool]:
    """What `compute` gives, kept in `folder` under all that it depends on; and whether it was there."""
    key = json.dumps(what, sort_keys=True)
    name = f"surface-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    try:
        content = folder.read(name, LARGE) if folder.owns(name) else b""
        with np.load(io.BytesIO(content or b""), allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return {name: torch.from_numpy(stored[name]) for name in stored.files if name != "key"}, True
    except (OSError, ValueError, KeyError, EOFError):
        pass  # not there, or damaged: it is computed again
    found = compute()
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    np.savez_compressed(buffer, key=np.asarray(key), **arrays)
    folder.put(name, buffer.getvalue())
    return found, False
