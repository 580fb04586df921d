"""The race on a real network: from the initialisation of a run, on its data and its mini-batches.

The parameters are one row, so that a network is an objective like a surface: k candidates are `θ [k, P]`.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffn_bench.configuration import validation
from ffn_bench.configuration.schema import OptimizerConfig, TrainConfig, count_parameters
from ffn_bench.data.batches import batch_rows, epoch_order
from ffn_bench.data.rows import Split
from ffn_bench.engine.protocol import Order
from ffn_bench.engine.tensors import on_device, to_tensors
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.activations import Activation
from ffn_bench.model.layers import flat, layered, shapes_of
from ffn_bench.model.losses import criterion_of
from ffn_bench.model.network import FFN, forward
from ffn_bench.model.principal_plane import Principal, principal_plane
from ffn_bench.model.tensor_losses import penalised, row_losses, weighted_mean
from ffn_bench.race.paths import Raced, advance
from ffn_bench.race.scene import NOTHING_RANKED, Array, Scene, Track, about_rate
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.finding import find_one
from ffn_bench.run_folder.identity import check_draws
from ffn_bench.run_folder.recorded_run import prepare_again, read_run
from ffn_bench.run_folder.trained_weights import weights_at

ROWS = 1000
"""Training rows on which the loss is evaluated, along paths and on the plane."""
KEPT = 2**27
"""Numbers in all saved points of one path at most: 512 MB."""
AT_ONCE = 2**24
"""Numbers of the hidden layers of all candidates at once."""
SIDE = 41
"""Points of the plane's grid along each axis."""
LARGEST = 1e15
"""A weight or a loss beyond this has diverged: float32 cannot square it."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A run's network and data, on the CPU."""

    folder: Path
    run: TrainConfig
    widths: tuple[int, ...]
    activation: Activation
    start: Tensor
    """`[P]`: where the race starts, W and b of a layer after each other."""
    origin: str
    """What these weights are: `the initialisation`, `step 400, the best epoch (10),`."""
    train: Split[Tensor]
    steps_per_epoch: int

    def losses(self, θ: Tensor, rows: Split[Tensor]) -> Tensor:
        """The mean loss `[k]` of `θ [k, P]` on some rows, by k forward passes in one."""
        x, y, weights = rows
        logits = forward(layered(θ, self.widths), x.expand(len(θ), *x.shape), self.activation)
        each = row_losses(logits, y.expand(len(θ), *y.shape), criterion_of(self.run))
        return weighted_mean(each, weights)

    def rows(self, numbers: Order) -> Split[Tensor]:
        """Training rows by their numbers."""
        return self.train.map(operator.itemgetter(numbers))

    def objective(self, θ: Tensor, t: int) -> Tensor:
        """The objective `[k]` on the mini-batch of step t: the run's own order of rows, and its λ."""
        n, batch = len(self.train.y), self.train
        b = batch_rows(n, self.run.batch_size)
        if b < n:
            epoch, number = divmod(t, self.steps_per_epoch)
            order = epoch_order(n, self.run.seed_of("order"), epoch + 1)
            batch = self.rows(order[number * b : (number + 1) * b])
        return penalised(self.losses(θ, batch), layered(θ, self.widths), self.run.l2, self.run.l1)

    def on_subset(self, θ: Tensor) -> Tensor:
        """The loss `[k]` on the first `ROWS` rows in the order of the run's first epoch."""
        order = epoch_order(len(self.train.y), self.run.seed_of("order"), 1)[:ROWS]
        rows = self.rows(order)
        chunk = max(1, AT_ONCE // (len(order) * max(self.widths[1:])))
        with torch.no_grad():
            losses = [self.losses(candidates.to(rows.x.dtype), rows) for candidates in θ.split(chunk)]
        return torch.cat(losses)

    def check(self, optimizer: OptimizerConfig) -> None:
        """Raise `UserError` where an optimizer needs the full batch and the run has mini-batches."""
        reason = validation.FULL_BATCH_ONLY.get(optimizer.name)
        if reason and self.run.batch_size != "full" and optimizer.name != "gd":
            raise UserError(
                "optimizers",
                f"{optimizer.name} cannot be used with this run's mini-batches: {reason}",
                "leave it out, or use a run with batch_size=full",
            )


def read(folder: Path, at: str | None = None) -> Problem:
    """The problem that a run folder describes, from the run's initial weights, or from its trained ones `at`
    some epoch. Nothing in the folder is executed.

    Raises `UserError` (status 4) for what is not a run, and as `read_run`, `prepare_again`, `weights_at` do.
    """
    recorded = read_run(find_one(str(folder)))
    check_draws(Folder(recorded.folder), recorded.format)
    run, prepared = prepare_again(recorded)
    net = FFN(prepared.widths, run.model, run.seed_of("init"), getattr(torch, prepared.dtype))
    start, origin = flat(net.layers).detach(), "the initialisation"
    if at is not None:
        weights = weights_at(recorded, at, prepared)
        start, origin = flat(to_tensors(weights.layers)), f"{weights.words},"
    assert len(start) == count_parameters(prepared.widths)
    return Problem(
        folder,
        run,
        tuple(prepared.widths),
        net.activation,
        start,
        origin,
        on_device(prepared.data).train,
        prepared.steps_per_epoch,
    )


def rule(problem: Problem) -> str:
    """How a rate is chosen, in words."""
    return f"the lowest training loss at the end ({_rows(problem)})"


def _rows(problem: Problem) -> str:
    n = len(problem.train.y)
    return f"{ROWS:,} of {n:,} training rows" if n > ROWS else f"all {n:,} training rows"


def on_network(problem: Problem, optimizer: OptimizerConfig, rates: Sequence[float], steps: int) -> Raced:
    """The path of an optimizer on the network, at the rate of the lowest loss in the end."""
    best, tried = 0, {rates[0]: math.nan}
    if len(rates) > 1:
        last = problem.start[None]

        def remember(t: int, θ: Tensor) -> None:
            nonlocal last
            if t == steps:
                last = θ.clone()

        advance(
            problem.objective, problem.start, optimizer, rates, steps, remember, shapes_of(problem.widths)
        )
        scores = [loss if math.isfinite(loss) else math.inf for loss in problem.on_subset(last).tolist()]
        best, tried = scores.index(min(scores)), dict(zip(rates, scores, strict=True))
    every = max(1, math.ceil((steps + 1) * len(problem.start) / KEPT), math.ceil(steps / 200))
    points: list[Tensor] = []
    at: list[int] = []

    def keep(t: int, θ: Tensor) -> None:
        if t % every == 0 or t == steps:
            points.append(θ[0].clone())
            at.append(t)

    chosen = rates[best : best + 1]
    advance(problem.objective, problem.start, optimizer, chosen, steps, keep, shapes_of(problem.widths))
    return Raced(optimizer.name, rates[best], tried, torch.stack(points), torch.tensor(at))


def scene_of(problem: Problem, raced: Sequence[Raced], steps: int, remarks: Sequence[str]) -> Scene:
    """The paths on the plane of the first two principal components of all their points together.

    A path ends where it diverges. Raises `UserError` (status 4) if the start has already diverged.
    """
    curves, ends = [], []
    for one in raced:
        losses = problem.on_subset(one.path)
        bad = (~(losses <= LARGEST) | ~(one.path.abs().amax(1) <= LARGEST)).nonzero()  # NaN is bad, too
        ends.append(int(bad[0]) if len(bad) else len(losses))
        curves.append(losses[: ends[-1]].double().numpy())
    if 0 in ends:
        what = "has weights too large for a loss where the race begins"
        raise UserError(str(problem.folder), what, "use another run", RUN_FOLDER)
    paths = [one.path[:end] for one, end in zip(raced, ends, strict=True)]
    plane = principal_plane(torch.cat(paths).double())
    projected = [plane.project(path).numpy() for path in paths]
    everything = np.concatenate(projected)
    low, high = everything.min(0), everything.max(0)
    margin = 0.12 * np.maximum(high - low, 1e-9)
    (low1, low2), (high1, high2) = low - margin, high + margin
    a, b = np.linspace(low1, high1, SIDE), np.linspace(low2, high2, SIDE)
    at = torch.from_numpy(np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2))
    grid = _on_plane(problem, plane, at).reshape(SIDE, SIDE)
    top = float(np.concatenate([*curves, grid[grid <= LARGEST]]).max())
    grid = np.where(grid <= LARGEST, grid, top)  # larger values are shown as the highest

    from scipy.interpolate import RegularGridInterpolator

    between = RegularGridInterpolator((a, b), grid, bounds_error=False, fill_value=None)
    tracks = []
    for one, xy, curve, end in zip(raced, projected, curves, ends, strict=True):
        diverged = f"diverges by step {int(one.steps[end])}" if end < len(one.steps) else ""
        note = ", ".join(filter(None, (diverged, about_rate(one))))
        stepped = one.steps[:end].double().numpy()
        tracks.append(Track(one.name, one.rate, one.tuned, note, xy, stepped, curve))
    every = max(1, len(everything) // 200)  # a sample is enough for the median
    on_plane = _on_plane(problem, plane, torch.from_numpy(everything[::every]))
    off = float(np.median(np.abs(on_plane - np.concatenate(curves)[::every])))
    size, unit = "-".join(map(str, problem.widths)), criterion_of(problem.run).unit
    batch = "full batch" if problem.run.batch_size == "full" else f"mini-batches of {problem.run.batch_size}"
    remark = (
        f"All from {problem.origin} of {problem.folder.name} (seed {problem.run.seed}), on the same "
        f"{batch}. Losses are of {_rows(problem)}. The plane of the first two principal components of "
        f"all paths explains {100 * sum(plane.variance):.0f} % of their variance; the loss on it differs "
        f"from the loss along them by {off:.2g} in the median. Curves are the true losses."
    )
    return Scene(
        f"{problem.run.data.name}, network {size} ({len(problem.start):,} parameters)",
        f"principal component 1 ({100 * plane.variance[0]:.0f} % of the variance)",
        f"principal component 2 ({100 * plane.variance[1]:.0f} %)",
        "training loss" + (f" ({unit})" if unit else ""),
        (float(low1), float(high1), float(low2), float(high2)),
        a,
        b,
        grid,
        lambda xy: np.asarray(between(xy)),
        projected[0][0],
        (),
        True,
        tracks,
        steps,
        (*remarks, remark, NOTHING_RANKED),
    )


def _on_plane(problem: Problem, plane: Principal, at: Tensor) -> Array:
    """The loss at points `[n, 2]` of the plane, a few at a time, as each is a network."""
    chunk_size = max(1, 2**23 // len(plane.origin))
    losses = [problem.on_subset(plane.points(chunk)) for chunk in at.split(chunk_size)]
    return np.asarray(torch.cat(losses).double().numpy())
