"""`ffn-landscape`: surfaces around trained runs, their trajectories, and whether they ended in a minimum."""

from __future__ import annotations

import math
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
from ffn_bench.tags import LOSS, SCORE, SPLITS

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from rich.console import Console

    from ffn_bench.data.splitting import Split
    from ffn_bench.landscape.page import Page
    from ffn_bench.landscape.surface import Ground
    from ffn_bench.landscape.trained import Trained
    from ffn_bench.landscape.verdict import Distribution

MANY = 12
"""Runs in one picture."""
LARGE = 2e11
"""Multiply-adds of a 51 × 51 surface on all rows beyond which the defaults are 25 × 25 and 10,000 rows."""


def landscape(given: DictConfig, typed: str) -> None:
    """Draw what `given` asks for; `typed` is the command, for the record. Raises `UserError`."""
    cfg = parsing.typed(given, schema.LandscapeConfig)
    check(cfg)
    folders = [from_here(folder) for folder in find(words(cfg.run))]
    if len(folders) > MANY:
        what = f"{len(folders)} runs are more than a picture holds"
        raise UserError("run", what, f"name at most {MANY}, as a list or by a glob")
    folder = analysis.report_folder(cfg.save, _beside(folders))

    import torch

    from ffn_bench.command_line.console import make_console
    from ffn_bench.engine.device import THREADS
    from ffn_bench.landscape import trained

    console, start = make_console(), time.perf_counter()
    found = [trained.load(path) for path in folders]
    trained.together(found)
    torch.set_num_threads(THREADS)
    drawn = Drawings(folder, typed, console)
    with analysis.writing(folder):
        if cfg.curvature:
            _curvature(cfg, found, drawn)
        else:
            _surfaces(cfg, found, drawn)
        drawn.write(cfg.tensorboard, found[0].step)
    took = f"{time.perf_counter() - start:.1f} s"
    console.print(f"\n  {took}; figures in {printable(str(folder))}", soft_wrap=True)


def check(cfg: schema.LandscapeConfig) -> None:
    """Raise `UserError` for values that cannot be."""
    if not words(cfg.run):
        raise UserError("run", "has no value", "name a run's folder: run=outputs/study")
    checks.one_of(cfg.part, tuple(SPLITS), "part")
    checks.at_least(cfg.directions, 1, "directions")
    checks.at_most(cfg.directions, 32, "directions")
    checks.at_least(cfg.extent, 0.0, "extent", open_bound=True)
    checks.at_most(cfg.extent, 1e6, "extent")
    checks.check_seed(cfg.seed, "seed")
    if not math.isfinite(cfg.extent):
        raise UserError("extent", f"{cfg.extent} is not a finite number", "give a finite one")
    if cfg.points is not None:
        checks.at_least(cfg.points, 5, "points")
        checks.at_most(cfg.points, 501, "points")
    if cfg.samples is not None:
        checks.at_least(cfg.samples, 1, "samples")


def _beside(folders: Sequence[Path]) -> Folder:
    """`landscape/` in the run's folder, or in the one that several share."""
    if len(folders) == 1:
        return Folder(folders[0], ("landscape",))
    return Folder(Path(os.path.commonpath([str(f.absolute().parent) for f in folders])), ("landscape",))


class Drawings:
    """The figures and the page of one command, and where they go."""

    def __init__(self, folder: Folder, typed: str, console: Console) -> None:
        self.folder, self.typed, self.console = folder, typed, console
        self.data: dict[str, bytes] = {}
        """Files of numbers."""
        self._figures: dict[str, Figure] = {}
        self._page: Page | None = None

    def add(self, name: str, figure: Figure) -> None:
        """Take a figure."""
        self._figures[name] = figure

    def page(self, title: str) -> Page:
        """The interactive page, begun where it was not."""
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
        kind = OURS["curvature" if self.data else "surface"]
        analysis.say_renamed(self.console, self.folder.publish(contents, kind))


OURS = {
    "surface": re.compile(r"(lines|surface|paths)(-\d+)*\.(png|svg)|landscape(-\d+)?\.html"),
    "curvature": re.compile(r"curvature(-\d+)*\.(png|svg|json)"),
}
"""Names of the files that a later command of the same kind replaces."""


# --- surfaces -------------------------------------------------------------------------------------------


def _surfaces(cfg: schema.LandscapeConfig, found: list[Trained], drawn: Drawings) -> None:
    """Random directions around each run, and the plane of all trajectories."""
    import torch

    from ffn_bench.command_line.console import progress
    from ffn_bench.landscape import figures, surface
    from ffn_bench.landscape.trained import trajectory
    from ffn_bench.model.layers import flat

    first = found[0]
    ways = [(run, trajectory(run)) for run in found]
    split: Split = getattr(first.data, cfg.part)
    if len(split.y) == 0:
        raise UserError("part", f"the runs have no {cfg.part} part", "use part=train")
    cost = 51 * 51 * len(split.y) * sum(W.numel() for W, _ in first.layers)
    points = (cfg.points or (51 if cost < LARGE else 25)) | 1  # odd, so that the centre is one of them
    rows = min(len(split.y), cfg.samples or (len(split.y) if cost < LARGE else 10_000))
    x, y = split.x[:rows], split.y[:rows]
    ground = surface.Ground(first.widths, first.run.model.activation, x, y)
    shown = partial(progress, drawn.console)
    of = f"all {rows:,}" if rows == len(split.y) else f"the first {rows:,} of {len(split.y):,}"
    on = f"{LOSS.words(cfg.part)} on {of} rows"
    console = drawn.console

    steps = torch.linspace(-cfg.extent, cfg.extent, points, dtype=torch.float64)
    corner = torch.full((2,), float(cfg.extent))
    axes, places = surface.grid(-corner, corner, points)
    for k, run in enumerate(found):
        θ = flat(run.layers)
        generator = torch.Generator().manual_seed(cfg.seed)
        directions = torch.stack(
            [flat(surface.filter_normalised(run.layers, generator)) for _ in range(max(2, cfg.directions))]
        )
        what = {"ground": ground, "θ": θ, "directions": directions}
        what |= {"steps": steps, "lines": cfg.directions, "places": places}
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= dict.fromkeys(("losses", "accuracies"), (cfg.directions, points))
        shapes |= dict.fromkeys(("plane", surface.PLANE_SCORE), (points, points))
        result, old = surface.cached(drawn.folder, surface.around, what, shapes, shown)
        centre = float(result["plane"][points // 2, points // 2])
        logged = run.logged.get(LOSS.tag(cfg.part)) if cfg.part != "train" and rows == len(split.y) else None
        told = f"; the run logged {LOSS.text(logged)}" if logged is not None else ""
        score = SCORE.text(float(result[surface.PLANE_SCORE][points // 2, points // 2]))
        loss = f"{LOSS.words(cfg.part)} {LOSS.text(centre)}"
        console.print(
            f"{run.name}: {loss}, {SCORE.name} {score} at step {run.step:,}"
            + told
            + " (surface from the cache)" * old,
            soft_wrap=True,
        )
        note = (
            f"{run.name}, step {run.step:,}: {on}; random filter-normalised directions (seed {cfg.seed}), "
            "biases fixed: a slice, not the landscape"
        )
        tail = f"-{k + 1}" if len(found) > 1 else ""
        drawn.add(f"lines{tail}", figures.lines(steps, result["losses"], result["accuracies"], note))
        drawn.add(f"surface{tail}", figures.surface(axes, result["plane"], note))
        drawn.page("Loss landscape").surface(f"Around {run.name}", axes, result["plane"], note)

    kept = [(run, way) for run, way in ways if way is not None]
    if len(kept) < len(found):
        console.print(
            "no trajectory was kept by every run: train with trajectory=true to see the way", style="yellow"
        )
    if len(kept) == len(found) and sum(len(θ) for _, (_, θ) in kept) >= 3:
        _plane(kept, drawn, ground, points, on)


def _plane(
    kept: list[tuple[Trained, tuple[torch.Tensor, torch.Tensor]]],
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

    everything = torch.cat([θ for _, (_, θ) in kept])
    plane = principal_plane(everything)
    coordinates = plane.project(everything)
    low, high = coordinates.min(0).values, coordinates.max(0).values
    margin = 0.18 * (high - low).max()
    axes, places = surface.grid(low - margin, high + margin, points)
    what = {"ground": ground, "origin": plane.origin, "directions": plane.directions}
    what |= {"places": places, "points": everything, "coordinates": coordinates}
    shapes: dict[str, tuple[int, ...]] = {"grid": (points, points)}
    shapes |= dict.fromkeys(("on_plane", "true"), (len(everything),))
    shown = partial(progress, drawn.console)
    result, _ = surface.cached(drawn.folder, surface.along_paths, what, shapes, shown)
    paths, at = [], 0
    for run, (steps, _) in kept:
        part = slice(at, at + len(steps))
        at += len(steps)
        paths.append(
            figures.Path(
                run.name,
                steps / run.steps_per_epoch,
                coordinates[part],
                result["true"][part],
                result["on_plane"][part],
            )
        )
    seeds = {run.run.seed for run, _ in kept}
    start = "one start" if len(seeds) == 1 and len(kept) > 1 else f"seed {', '.join(map(str, sorted(seeds)))}"
    note = f"{on}; principal components of all weights at epoch ends, {start}; it ranks nothing"
    drawn.add("paths", figures.plane(axes, result["grid"], paths, plane.variance, note))
    title = f"The way of training, on the plane that holds {100 * sum(plane.variance):.1f} % of its variance"
    drawn.page("Loss landscape").plane(title, axes, result["grid"], paths, note)
    drawn.console.print(f"paths: the plane holds {100 * sum(plane.variance):.1f} % of their variance")


# --- minimum or saddle ----------------------------------------------------------------------------------


def _curvature(cfg: schema.LandscapeConfig, found: list[Trained], drawn: Drawings) -> None:
    """The verdict on each run, its evidence, its figure, and the numbers as JSON."""
    from rich.text import Text

    from ffn_bench.command_line.console import progress
    from ffn_bench.landscape import figures, verdict

    everything = {}
    for k, run in enumerate(found):
        n = len(run.data.train.y)
        rows = min(n, cfg.samples or (n if n * sum(W.numel() for W, _ in run.layers) < 2e8 else 10_000))
        with progress(drawn.console, run.name, None) as told:
            seen = verdict.look(run, rows, told)
        style = {"minimum": "bold green", "saddle": "bold red"}.get(seen.verdict, "bold yellow")
        drawn.console.print(Text.assemble((f"{run.name}: ", "bold"), (seen.verdict, style)))
        for sentence in seen.evidence():
            drawn.console.print(Text(f"  {sentence}"), soft_wrap=not drawn.console.is_terminal)
        error = f" ± {seen.trace_error:.2g}" if seen.trace_error else ""
        drawn.console.print(
            Text(f"  trace {seen.trace:.4g}{error}; {seen.parameters:,} parameters, {rows:,} rows")
        )
        of = f"all {n:,}" if rows == n else f"the first {rows:,} of {n:,}"
        note = f"the objective at step {run.step:,} on {of} training rows, float64"
        tail = f"-{k + 1}" if len(found) > 1 else ""
        drawn.add(f"curvature{tail}", figures.curvature(seen, run.name, note))
        everything[str(run.folder)] = {
            "verdict": seen.verdict,
            "evidence": seen.evidence(),
            "objective": seen.objective,
            "gradient": seen.gradient,
            "gradient_at_start": seen.gradient_at_start,
            "lambda_min": seen.low,
            "lambda_max": seen.high,
            "residuals": seen.residuals,
            "trace": seen.trace,
            "trace_error": seen.trace_error,
            "negative": seen.negative if seen.exact else None,
            "tolerance": seen.tolerance,
            "peak": asdict(seen.peak),
            "distribution": _told(seen.distribution),
            "drop": seen.drop,
            "exact": seen.exact,
            "parameters": seen.parameters,
            "rows": rows,
            "step": run.step,
            "eigenvalues": seen.eigenvalues.tolist(),
        }
    drawn.data["curvature.json"] = files.to_json(everything)


def _told(found: Distribution | None) -> dict[str, object] | None:
    if found is None:
        return None
    told = {name: getattr(found, name).tolist() for name in ("at", "lower", "upper", "found")}
    return told | {"width": found.width, "steps": found.steps, "probes": found.probes}


def main() -> None:
    """The console script `ffn-landscape`."""
    several = "run=[one,two] for several runs"
    analysis.run_analysis("landscape", schema.LandscapeConfig, landscape, quote, several)


if __name__ == "__main__":
    main()
