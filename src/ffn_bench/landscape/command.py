"""`ffn-landscape`: surfaces around trained runs, their trajectories, and whether they ended in a minimum."""

from __future__ import annotations

import math
import operator
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ffn_bench import checks
from ffn_bench.command_line import analysis
from ffn_bench.command_line.analysis import quote, words
from ffn_bench.configuration import parsing, schema
from ffn_bench.errors import UserError, printable
from ffn_bench.run_folder import files
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.finding import find, from_here
from ffn_bench.tags import LOSS, SPLITS

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from rich.console import Console
    from torch import Tensor

    from ffn_bench.data.rows import Split
    from ffn_bench.landscape.page import Page
    from ffn_bench.landscape.surface import Ground
    from ffn_bench.landscape.trained import Trained
    from ffn_bench.landscape.verdict import Distribution

MAX_RUNS = 12
"""Runs in one figure at most."""
LARGE = 2e11
"""Multiply-adds of a 51 × 51 surface on all rows beyond which the defaults are 25 × 25 and 10,000 rows."""


def landscape(given: DictConfig, typed: str) -> None:
    """Draw what `given` asks for; `typed` is the command, for the record. Raises `UserError`."""
    cfg = parsing.typed(given, schema.LandscapeConfig)
    check(cfg)
    folders = [from_here(folder) for folder in find(words(cfg.run))]
    if len(folders) > MAX_RUNS:
        what = f"{len(folders)} runs are too many for one figure"
        raise UserError("run", what, f"name at most {MAX_RUNS}, as a list or with a glob")
    folder = analysis.report_folder(cfg.save, _default_folder(folders))

    import torch

    from ffn_bench.command_line.console import make_console
    from ffn_bench.engine.device import THREADS
    from ffn_bench.landscape import trained

    console, start = make_console(), time.perf_counter()
    runs = [trained.load(path, cfg.at) for path in folders]
    trained.check_compatible(runs)
    torch.set_num_threads(THREADS)
    drawn = Drawings(folder, typed, console)
    with analysis.writing(folder):
        if cfg.curvature:
            _curvature(cfg, runs, drawn)
        else:
            _surfaces(cfg, runs, drawn)
        drawn.write(cfg.tensorboard, runs[0].step)
    duration = f"{time.perf_counter() - start:.1f} s"
    console.print(f"\n  {duration}; figures in {printable(str(folder))}", soft_wrap=True)


def check(cfg: schema.LandscapeConfig) -> None:
    """Raise `UserError` for values out of range."""
    if not words(cfg.run):
        raise UserError("run", "has no value", "name a run's folder: run=outputs/study")
    checks.check_at(cfg.at)
    checks.one_of(cfg.part, tuple(SPLITS), "part")
    checks.at_least(cfg.directions, 1, "directions")
    checks.at_most(cfg.directions, 32, "directions")
    checks.at_least(cfg.extent, 0.0, "extent", open_bound=True)
    checks.at_most(cfg.extent, 1e6, "extent")
    checks.check_seed(cfg.seed, "seed")
    if not math.isfinite(cfg.extent):
        raise UserError("extent", f"{cfg.extent} is not a finite number", "use a finite number")
    if cfg.points is not None:
        checks.at_least(cfg.points, 5, "points")
        checks.at_most(cfg.points, 501, "points")
    if cfg.samples is not None:
        checks.at_least(cfg.samples, 1, "samples")


def _default_folder(folders: Sequence[Path]) -> Folder:
    """`landscape/` in the run's folder, or in the common parent of several."""
    if len(folders) == 1:
        return Folder(folders[0], ("landscape",))
    return Folder(Path(os.path.commonpath([str(f.absolute().parent) for f in folders])), ("landscape",))


class Drawings:
    """The figures and the page of one command, and the folder they are written to."""

    def __init__(self, folder: Folder, typed: str, console: Console) -> None:
        self.folder, self.typed, self.console = folder, typed, console
        self.data: dict[str, bytes] = {}
        """Files with numbers, by name."""
        self._figures: dict[str, Figure] = {}
        self._page: Page | None = None

    def add(self, name: str, figure: Figure) -> None:
        """Add a figure."""
        self._figures[name] = figure

    def page(self, title: str) -> Page:
        """The interactive page, created on first use."""
        from ffn_bench.landscape.page import Page

        self._page = self._page or Page(title)
        return self._page

    def write(self, tensorboard: bool, step: int) -> None:
        """Write everything. Raises `OSError`."""
        pictures = analysis.render(self.console, self._figures, self.typed)
        contents = self.data | pictures
        if tensorboard:
            contents |= analysis.for_tensorboard(pictures, step)
        if self._page:
            contents["landscape.html"] = self._page.render(self.typed).encode()
        kind = FIGURE_FILES["curvature" if self.data else "surface"]
        analysis.say_renamed(self.console, self.folder.publish(contents, kind))


FIGURE_FILES = {
    "surface": re.compile(r"(lines|surface|paths)(-\d+)*\.(png|svg)|landscape(-\d+)?\.html"),
    "curvature": re.compile(r"curvature(-\d+)*\.(png|svg|json)"),
}
"""Names of the files that a later command of the same kind replaces."""


# --- surfaces -------------------------------------------------------------------------------------------


def _surfaces(cfg: schema.LandscapeConfig, runs: list[Trained], drawn: Drawings) -> None:
    """Random directions around each run, and the plane of all trajectories."""
    import torch

    from ffn_bench.command_line.console import progress
    from ffn_bench.landscape import figures, surface
    from ffn_bench.landscape.trained import trajectory
    from ffn_bench.model.layers import flat
    from ffn_bench.model.losses import criterion_of

    first = runs[0]
    trajectories = [(run, trajectory(run)) for run in runs]
    split: Split[Tensor] = getattr(first.data, cfg.part)
    if len(split.y) == 0:
        raise UserError("part", f"the runs have no rows in {cfg.part}", "use part=train")
    cost = 51 * 51 * len(split.y) * sum(W.numel() for W, _ in first.layers)
    points = (cfg.points or (51 if cost < LARGE else 25)) | 1  # odd, so that the centre is one of them
    rows = min(len(split.y), cfg.samples or (len(split.y) if cost < LARGE else 10_000))
    x, y, weights = split.map(operator.itemgetter(slice(rows)))
    criterion = criterion_of(first.run)
    ground = surface.Ground(first.widths, first.run.model.activation, x, y, criterion, weights)
    score = surface.score_of(y)
    shown = partial(progress, drawn.console)
    of = f"all {rows:,}" if rows == len(split.y) else f"the first {rows:,} of {len(split.y):,}"
    on = f"{LOSS.words(cfg.part)} on {of} rows"
    console = drawn.console

    steps = torch.linspace(-cfg.extent, cfg.extent, points, dtype=torch.float64)
    corner = torch.full((2,), float(cfg.extent))
    axes, plane_steps = surface.grid(-corner, corner, points)
    for k, run in enumerate(runs):
        θ = flat(run.layers)
        generator = torch.Generator().manual_seed(cfg.seed)
        directions = torch.stack(
            [flat(surface.filter_normalised(run.layers, generator)) for _ in range(max(2, cfg.directions))]
        )
        what = {"ground": ground, "θ": θ, "directions": directions}
        what |= {"steps": steps, "lines": cfg.directions, "plane_steps": plane_steps}
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= dict.fromkeys(("losses", "scores"), (cfg.directions, points))
        shapes |= dict.fromkeys(("plane", "plane_scores"), (points, points))
        result, from_cache = surface.cached(drawn.folder, surface.around, what, shapes, shown)
        centre = float(result["plane"][points // 2, points // 2])
        logged = run.logged.get(LOSS.tag(cfg.part)) if cfg.part != "train" and rows == len(split.y) else None
        logged_text = f"; the run logged {LOSS.text(logged)}" if logged is not None else ""
        reached = score.text(float(result["plane_scores"][points // 2, points // 2]))
        loss = f"{LOSS.words(cfg.part)} {LOSS.text(centre)}"
        console.print(
            f"{run.name}: {loss}, {score.shown} {reached} at {run.weights.words}"
            + logged_text
            + " (surface from the cache)" * from_cache,
            soft_wrap=True,
        )
        note = (
            f"{run.name}, {run.weights.words}: {on}; random filter-normalised directions (seed {cfg.seed}), "
            "biases fixed: a slice, not the landscape"
        )
        tail = f"-{k + 1}" if len(runs) > 1 else ""
        drawn.add(
            f"lines{tail}",
            figures.lines(steps, result["losses"], criterion.unit, result["scores"], score, note),
        )
        drawn.add(f"surface{tail}", figures.surface(axes, result["plane"], criterion.unit, note))
        drawn.page("Loss landscape").surface(f"Around {run.name}", axes, result["plane"], note)

    with_trajectory = [(run, way) for run, way in trajectories if way is not None]
    if len(with_trajectory) < len(runs):
        console.print("not every run has a trajectory: train with trajectory=true to draw it", style="yellow")
    if len(with_trajectory) == len(runs) and sum(len(θ) for _, (_, θ) in with_trajectory) >= 3:
        _plane(with_trajectory, drawn, ground, points, on)


def _plane(
    runs: list[tuple[Trained, tuple[torch.Tensor, torch.Tensor]]],
    drawn: Drawings,
    ground: Ground,
    points: int,
    on: str,
) -> None:
    """The trajectories of all runs on their principal plane."""
    import torch

    from ffn_bench.command_line.console import progress
    from ffn_bench.landscape import figures, surface
    from ffn_bench.model.principal_plane import principal_plane

    everything = torch.cat([θ for _, (_, θ) in runs])
    plane = principal_plane(everything)
    coordinates = plane.project(everything)
    low, high = coordinates.min(0).values, coordinates.max(0).values
    margin = 0.18 * (high - low).max()
    axes, plane_steps = surface.grid(low - margin, high + margin, points)
    what = {"ground": ground, "origin": plane.origin, "directions": plane.directions}
    what |= {"plane_steps": plane_steps, "points": everything, "coordinates": coordinates}
    shapes: dict[str, tuple[int, ...]] = {"grid": (points, points)}
    shapes |= dict.fromkeys(("on_plane", "true"), (len(everything),))
    shown = partial(progress, drawn.console)
    result, _ = surface.cached(drawn.folder, surface.along_paths, what, shapes, shown)
    paths, end = [], 0
    for run, (steps, _) in runs:
        rows = slice(end, end + len(steps))
        end += len(steps)
        paths.append(
            figures.Trajectory(
                run.name,
                steps / run.steps_per_epoch,
                coordinates[rows],
                result["true"][rows],
                result["on_plane"][rows],
            )
        )
    seeds = {run.run.seed for run, _ in runs}
    start = "one start" if len(seeds) == 1 and len(runs) > 1 else f"seed {', '.join(map(str, sorted(seeds)))}"
    note = f"{on}; principal components of all weights at epoch ends, {start}; it ranks nothing"
    drawn.add("paths", figures.plane(axes, result["grid"], paths, plane.variance, note))
    title = f"The training trajectory, on the plane with {100 * sum(plane.variance):.1f} % of its variance"
    drawn.page("Loss landscape").plane(title, axes, result["grid"], paths, note)
    explained = f"{100 * sum(plane.variance):.1f} % of their variance"
    drawn.console.print(f"trajectories: the plane explains {explained}")


# --- minimum or saddle ----------------------------------------------------------------------------------


def _curvature(cfg: schema.LandscapeConfig, runs: list[Trained], drawn: Drawings) -> None:
    """The verdict on each run, its evidence, its figure, and the numbers as JSON."""
    from rich.text import Text

    from ffn_bench.command_line.console import progress
    from ffn_bench.landscape import figures, verdict

    everything = {}
    for k, run in enumerate(runs):
        n = len(run.data.train.y)
        rows = min(n, cfg.samples or (n if n * sum(W.numel() for W, _ in run.layers) < 2e8 else 10_000))
        with progress(drawn.console, run.name, None) as on_progress:
            result = verdict.look(run, rows, on_progress)
        style = {"minimum": "bold green", "saddle": "bold red"}.get(result.verdict, "bold yellow")
        drawn.console.print(Text.assemble((f"{run.name}: ", "bold"), (result.verdict, style)))
        for sentence in result.evidence():
            drawn.console.print(Text(f"  {sentence}"), soft_wrap=not drawn.console.is_terminal)
        error = f" ± {result.trace_error:.2g}" if result.trace_error else ""
        drawn.console.print(
            Text(f"  trace {result.trace:.4g}{error}; {result.parameters:,} parameters, {rows:,} rows")
        )
        of = f"all {n:,}" if rows == n else f"the first {rows:,} of {n:,}"
        note = f"the objective at {run.weights.words} on {of} training rows, float64"
        tail = f"-{k + 1}" if len(runs) > 1 else ""
        drawn.add(f"curvature{tail}", figures.curvature(result, run.name, note))
        everything[str(run.folder)] = {
            "verdict": result.verdict,
            "evidence": result.evidence(),
            "objective": result.objective,
            "gradient": result.gradient,
            "gradient_at_start": result.gradient_at_start,
            "lambda_min": result.low,
            "lambda_max": result.high,
            "residuals": result.residuals,
            "trace": result.trace,
            "trace_error": result.trace_error,
            "negative": result.negative if result.exact else None,
            "tolerance": result.tolerance,
            "peak": asdict(result.peak),
            "distribution": _distribution_json(result.distribution),
            "drop": result.drop,
            "exact": result.exact,
            "parameters": result.parameters,
            "rows": rows,
            "step": run.step,
            "at": run.weights.at,
            "eigenvalues": result.eigenvalues.tolist(),
        }
    drawn.data["curvature.json"] = files.to_json(everything)


def _distribution_json(distribution: Distribution | None) -> dict[str, object] | None:
    if distribution is None:
        return None
    return {
        "at": distribution.at.tolist(),
        "lower": distribution.lower.tolist(),
        "upper": distribution.upper.tolist(),
        "found": distribution.converged.tolist(),
        "width": distribution.width,
        "steps": distribution.steps,
        "probes": distribution.probes,
    }


def main() -> None:
    """The console script `ffn-landscape`."""
    several = "run=[one,two] for several runs"
    analysis.run_analysis("landscape", schema.LandscapeConfig, landscape, quote, several)


if __name__ == "__main__":
    main()
