"""The loss on lines and planes through the space of parameters: directions, and values at many points."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffn_bench import tags
from ffn_bench.engine.device import THREADS
from ffn_bench.model.activations import ACTIVATIONS, Activation
from ffn_bench.model.layers import layered
from ffn_bench.model.losses import CROSS_ENTROPY, Criterion
from ffn_bench.model.network import forward
from ffn_bench.model.tensor_losses import row_losses
from ffn_bench.run_folder.files import Folder

NUMBERS = 500_000
"""Activations held at once, so that they fit a CPU cache of a few megabytes."""
ROWS = 500


def filter_normalised(
    layers: Sequence[tuple[Tensor, Tensor]], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """A random direction whose filters (a unit's incoming weights) have the norms of the network's own.

    Biases are not moved. Source: Li et al., "Visualizing the Loss Landscape of Neural Nets" (2018).
    """
    direction = []
    for W, b in layers:
        d = torch.randn(W.shape, generator=generator, dtype=W.dtype)
        direction.append((d * W.norm(dim=0) / d.norm(dim=0), torch.zeros_like(b)))
    return direction


@torch.no_grad()
def evaluate(
    origin: Tensor,
    directions: Tensor,
    steps: Tensor,
    widths: Sequence[int],
    activation: Activation,
    x: Tensor,
    y: Tensor,
    on_progress: Callable[[int], object] = lambda n: None,
    *,
    criterion: Criterion = CROSS_ENTROPY,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean loss and `score_of` of the outputs at θ = origin + steps · directions, `[G]` each, float64.

    `y` are labels `[n]`, or targets `[n, n_targets]`; `weights [n]` are what each row counts in the loss.
    `origin` is `[P]`, `directions` `[D, P]`, `steps` `[G, D]`; the G networks are evaluated in parallel. The
    first layer's h̄ is affine in the step, so it is multiplied with the data D + 1 times instead of G times.
    `on_progress` gets the number of points done.
    """
    (W, b), *_ = layered(torch.cat([origin[None], directions]), widths)
    steps = steps.to(origin)
    rows = min(len(y), ROWS)
    chunk = max(1, NUMBERS // (rows * max(widths[1:])))
    score = score_of(y)
    of_rows = score.of_rows
    assert of_rows is not None
    counted = torch.ones(len(y), dtype=x.dtype) if weights is None else weights
    batches = []
    for inputs, some, each in zip(x.split(rows), y.split(rows), counted.split(rows), strict=True):
        first = inputs @ W + b[:, None]  # [1 + D, rows, n_1]
        batches.append((first.flatten(1), some, each))
    n_means = y.shape[1] if y.is_floating_point() else 1

    @torch.no_grad()
    def sums_at(chosen: Tensor) -> Tensor:
        """Losses, and what the score is the mean of, `[1 + n_means, len(chosen)]`, summed over the rows."""
        sums = torch.zeros(1 + n_means, len(chosen), dtype=torch.float64)
        moved = layered(torch.addmm(origin[None], chosen, directions), widths)[1:]
        for first, some, each in batches:
            h = torch.addmm(first[:1], chosen, first[1:]).unflatten(1, (len(some), widths[1]))
            h = forward(moved, activation.function(h), activation) if moved else h
            losses = row_losses(h, some, criterion)
            sums[0] += (losses if weights is None else losses * each).sum(1, dtype=torch.float64)
            by_row = of_rows(h.movedim(0, -1), some[..., None])
            sums[1:] += by_row.sum(0, dtype=torch.float64)
        return sums

    # One thread per core, each with its own chunks: PyTorch's own threads would mostly wait for each other.
    before, results, done = torch.get_num_threads(), [], 0
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(THREADS, initializer=partial(torch.set_num_threads, 1)) as pool:
            for sums in pool.map(sums_at, steps.split(chunk)):
                results.append(sums)
                done += sums.shape[1]
                on_progress(done)
    finally:
        torch.set_num_threads(before)
    loss, *means = torch.cat(results, 1) / len(y)
    return loss, _of_means(score, means, y)


def score_of(y: Tensor) -> tags.Quantity:
    """The score beside the loss: R² of targets, accuracy of labels."""
    return tags.BESIDE_LOSS["regression" if y.is_floating_point() else "classification"]


def _of_means(score: tags.Quantity, means: Sequence[Tensor], y: Tensor) -> Tensor:
    """The score of its means over the rows: of several targets, which are standardised, their mean."""
    of_means = score.of_means
    if of_means is None:
        return means[0]
    variances = y.double().var(0, correction=0).tolist()
    of_targets = [
        [of_means(mean, 1.0, variance) for mean in by_target.tolist()]
        for by_target, variance in zip(means, variances, strict=True)
    ]
    return torch.tensor(of_targets, dtype=torch.float64).mean(0)


def grid(low: Tensor, high: Tensor, points: int) -> tuple[list[Tensor], Tensor]:
    """Axes `[points]` of a rectangle between two corners `[2]`, and all its points `[points², 2]`."""
    axes = [
        torch.linspace(float(a), float(b), points, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    return axes, torch.cartesian_prod(*axes)


# --- the numbers of the figures, and their cache --------------------------------------------------------

Surface = dict[str, Tensor]
Shown = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Shows the progress of evaluating so many points; its result gets the number done."""


@dataclass(frozen=True)
class Ground:
    """The loss as a function of θ: a network's shape, and rows of data."""

    widths: list[int]
    activation: str
    x: Tensor
    y: Tensor
    criterion: Criterion = CROSS_ENTROPY
    weights: Tensor | None = None

    def values(
        self, shown: Shown, what: str, origin: Tensor, directions: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`evaluate` on these rows."""
        with shown(what, len(steps)) as on_progress:
            activation = ACTIVATIONS[self.activation]
            where = origin, directions, steps, self.widths, activation, self.x, self.y, on_progress
            return evaluate(*where, criterion=self.criterion, weights=self.weights)


def around(
    shown: Shown,
    ground: Ground,
    θ: Tensor,
    directions: Tensor,
    steps: Tensor,
    lines: int,
    plane_steps: Tensor,
) -> Surface:
    """Losses and scores on lines `[lines, n]` through θ, and on a plane `[n, n]` of two `directions`."""
    n = len(steps)
    along = [
        ground.values(shown, f"line {k + 1}", θ, d[None], steps[:, None])
        for k, d in enumerate(directions[:lines])
    ]
    loss, score = ground.values(shown, "surface", θ, directions[:2], plane_steps)
    return {
        "losses": torch.stack([losses for losses, _ in along]),
        "scores": torch.stack([scores for _, scores in along]),
        "plane": loss.reshape(n, n),
        "plane_scores": score.reshape(n, n),
    }


def along_paths(
    shown: Shown,
    ground: Ground,
    origin: Tensor,
    directions: Tensor,
    plane_steps: Tensor,
    points: Tensor,
    coordinates: Tensor,
) -> Surface:
    """Losses on a plane `[n, n]`, and at T `points [T, P]` and at their projections onto the plane."""
    n, nothing = math.isqrt(len(plane_steps)), torch.zeros(1, 1)
    grid, _ = ground.values(shown, "plane of the paths", origin, directions, plane_steps)
    on_plane, _ = ground.values(shown, "paths on the plane", origin, directions, coordinates)
    true = [ground.values(shown, "paths", θ, torch.zeros_like(θ[None]), nothing)[0] for θ in points]
    return {"grid": grid.reshape(n, n), "on_plane": on_plane, "true": torch.cat(true)}


FORMAT = 3
"""Increased whenever the functions above compute something else."""


def cached(
    folder: Folder,
    compute: Callable[..., Surface],
    what: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    shown: Shown,
) -> tuple[Surface, bool]:
    """`compute(shown, **what)`, float64 tensors of these shapes, from a file of `folder` if it exists.

    The file is named by a hash of `compute`'s name and all of `what`, and `compute` gets nothing else, so
    a cached surface equals a new one. Also returns whether it came from the cache.
    """
    key = _digest(FORMAT, compute.__name__, what)
    file = f"surface-{key.hex()[:16]}.npz"
    expected: dict[str, np.ndarray[Any, Any]] = {name: np.empty(shape) for name, shape in shapes.items()}
    expected["key"] = np.empty(len(key), np.uint8)
    for name in folder.put_before(file):
        stored = _stored_arrays(folder.read(name) or b"", expected)
        if stored is not None and stored.pop("key").tobytes() == key:
            return {name: torch.from_numpy(array) for name, array in stored.items()}, True
    surface = compute(shown, **what)
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in surface.items()}
    np.savez_compressed(content, key=np.frombuffer(key, np.uint8), **arrays)
    folder.put(file, content.getvalue())
    return surface, False


def _digest(*values: Any) -> bytes:
    """SHA-256 of numbers, strings, tensors, lists, dicts and dataclasses of these, or None, with types and
    shapes."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            digest.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
            digest.update(hashlib.sha256(value.detach().cpu().contiguous().numpy().data).digest())
        elif isinstance(value, (list, tuple)):
            digest.update(b"list" + _digest(*value))
        elif isinstance(value, dict):
            digest.update(b"table" + _digest(*(item for pair in sorted(value.items()) for item in pair)))
        elif dataclasses.is_dataclass(value):
            digest.update(
                b"table" + _digest({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
            )
        else:
            assert value is None or isinstance(value, (int, float, str))
            digest.update(f"{type(value).__name__} {len(repr(value))} {value!r}".encode())
    return digest.digest()


def _stored_arrays(
    content: bytes, expected: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Arrays of a .npz, if they have the names, shapes and types of `expected`; None for anything else.

    No more is read than these need, whatever sizes the file states.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as stored:
            for name, like in expected.items():
                head = io.BytesIO()
                layout = np.lib.format.header_data_from_array_1_0(like)
                np.lib.format.write_array_header_1_0(head, layout)
                size = len(head.getvalue()) + like.nbytes
                with stored.open(f"{name}.npy") as member:
                    member_content = member.read(size + 1)
                if len(member_content) != size or not member_content.startswith(head.getvalue()):
                    return None
                array = np.frombuffer(member_content, like.dtype, offset=len(head.getvalue()))
                arrays[name] = array.reshape(like.shape).copy()
    except Exception:  # whatever a damaged archive makes zipfile raise
        return None
    return arrays
