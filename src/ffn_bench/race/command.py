"""`ffn-race`: choose learning rates, run the optimizers, draw their paths."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ffn_bench import checks
from ffn_bench.command_line import analysis
from ffn_bench.command_line.analysis import words
from ffn_bench.configuration import parsing, schema, validation
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.errors import UserError, nearest
from ffn_bench.run_folder import files
from ffn_bench.run_folder.files import Folder

if TYPE_CHECKING:
    from rich.console import Console

    from ffn_bench.race.paths import Raced
    from ffn_bench.race.scene import Scene

DEFAULT_OPTIMIZERS = (
    "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "nadam", "newton",
    "lecture/adam",
)  # fmt: skip
"""The default of `optimizers`. Newton's method is left out on networks, whose Hessians are large."""
MAX_OPTIMIZERS = 24
"""Optimizers in one figure at most: more cannot be distinguished."""


def race(given: DictConfig, typed: str) -> None:
    """Run the race that `given` describes and write its pictures; `typed` is the command, for their metadata.

    Raises `UserError`. Nothing is created before everything is checked and the race is run.
    """
    analysis.check_one_run(given)
    cfg = parsing.typed(given, schema.RaceConfig)
    checks.at_least(cfg.steps, 1, "steps")
    checks.at_most(cfg.steps, 100_000, "steps")
    checks.at_least(cfg.budget, 1, "budget")
    checks.at_most(cfg.budget, 1000, "budget")
    checks.check_seed(cfg.seed, "seed")
    low, high = bounds(cfg.rates)
    names = chosen(cfg)
    fixed = given_rates(cfg.lr, names)
    check_run(cfg)
    if cfg.surface != "network":
        from ffn_bench.race import surfaces

        surfaces.find(cfg.surface)
    folder = analysis.report_folder(cfg.save, Folder(Path(f"outputs/race/{cfg.surface}")))

    from ffn_bench.command_line.console import line, make_console, progress, tensorboard
    from ffn_bench.model.torch_internals import put_compiler_off
    from ffn_bench.optimizers.torch_optimizers import check_optimizer
    from ffn_bench.race import paths

    put_compiler_off()
    optimizers = compose(names)
    for optimizer in optimizers:
        check_optimizer(optimizer)
    rates = {name: [fixed[name]] if name in fixed else paths.spaced(cfg.budget, low, high) for name in names}
    console, start = make_console(), time.perf_counter()
    with progress(console, "racing", len(names) + 1) as on_progress:  # the last is the function's grid
        run = on_network if cfg.surface == "network" else on_surface
        raced, scene = run(cfg, optimizers, rates, on_progress)
    show(console, scene, raced)
    with analysis.writing(folder):
        written = write(scene, raced, folder, console, typed, cfg.animation, cfg.tensorboard)
    console.print(f"\n  {time.perf_counter() - start:.1f} s", style="dim")
    analysis.say_renamed(console, written)
    for name in written.values():
        console.print(line(f"  {folder.path / name}"), soft_wrap=True)
    if cfg.tensorboard:
        console.print(f"  {tensorboard(folder.path)}", soft_wrap=True)


# --- the keys ----------------------------------------------------------------------------------


def chosen(cfg: schema.RaceConfig) -> list[str]:
    """The optimizers' names. Raises `UserError` for none, too many, invalid and duplicate names."""
    if cfg.optimizers is None:
        return [name for name in DEFAULT_OPTIMIZERS if name != "newton" or cfg.surface != "network"]
    names = words(cfg.optimizers)
    if not names:
        raise UserError("optimizers", "is empty", "write optimizers=[sgd,adam]")
    if len(names) > MAX_OPTIMIZERS:
        raise UserError(
            "optimizers", f"{len(names)} are too many for one figure", f"name {MAX_OPTIMIZERS} at most"
        )
    for name in names:
        if names.count(name) > 1:
            raise UserError("optimizers", f"{name} is duplicated", "name it once")
        if not re.fullmatch(r"[\w/.-]+", name):
            raise UserError("optimizers", f"{name!r} is not a valid name", "write optimizers=[sgd,adam]")
        if name == "torch":
            raise UserError("optimizers", "torch needs the name of a class", "use another optimizer")
    return names


def bounds(rates: Sequence[float]) -> tuple[float, float]:
    """The range of the learning rates that are tried. Raises `UserError`."""
    if len(rates) != 2 or not 0 < rates[0] < rates[1] < math.inf:
        raise UserError("rates", f"{list(rates)} is not a range", "write lowest and highest: [1e-4,100]")
    return rates[0], rates[1]


def given_rates(lr: float | dict[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    """The fixed learning rates by optimizer; the others are tuned. Raises `UserError`."""
    if lr is None:
        return {}
    table = lr if isinstance(lr, dict) else dict.fromkeys(names, lr)
    for name, rate in table.items():
        if name not in names:
            known = ", ".join(names)
            raise UserError(
                "lr", f"{name!r} is not in the race{nearest(name, names)}", f"use one of: {known}"
            )
        if not 0 < rate < math.inf:
            raise UserError(
                "lr", f"{rate!r} is not a positive number", "write lr=0.05 or 'lr={sgd:0.1,adam:0.05}'"
            )
    return table


def check_run(cfg: schema.RaceConfig) -> None:
    """Raise `UserError` unless `run`, `start` and `surface` go together."""
    if cfg.surface == "network" and cfg.run is None:
        raise UserError("run", "has no value", "name the folder of a run: run=outputs/NAME")
    if cfg.at is not None:
        if cfg.run is None:
            raise UserError("at", "names weights of a run, and there is none", "add surface=network run=…")
        checks.check_at(cfg.at)
    if cfg.surface != "network" and cfg.run is not None:
        raise UserError("run", f"cannot be combined with surface={cfg.surface}", "write surface=network")
    if cfg.start is None:
        return
    if cfg.surface == "network":
        raise UserError(
            "start", "is of surfaces; a network starts at its run's weights", "use at=… or leave it out"
        )
    if len(cfg.start) != 2 or not all(math.isfinite(v) for v in cfg.start):
        raise UserError("start", f"{list(cfg.start)} is not a point", "write start=[1.0,0.5]")


def compose(names: Sequence[str]) -> list[schema.OptimizerConfig]:
    """Optimizers with the default settings in conf/optimizer. Raises Hydra's errors for an unknown name."""
    first = _composed(names[0])
    return [first.optimizer, *((_read(name, first) or _composed(name)).optimizer for name in names[1:])]


def _composed(name: str) -> schema.TrainConfig:
    """A run with this optimizer as Hydra composes it, which takes 60 ms."""
    import hydra

    run = parsing.parse(hydra.compose("config", overrides=[f"optimizer={name}"]))
    if run.optimizer.name != name:  # ./sgd, sgd.yaml
        raise UserError("optimizers", f"{name!r} is not a valid name", f"write {run.optimizer.name}")
    return run


def _read(name: str, run: schema.TrainConfig) -> schema.TrainConfig | None:
    """The same with the rest of `run`, from the optimizer's file alone: its values upon those of its schema.

    None where a person's folder may hold one of that name, or the file is not one of ours.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    loader: Any = GlobalHydra.instance().config_loader()  # our `Loader`
    file = config_folder() / "optimizer" / f"{name}.yaml"
    folders = {entry.path for entry in loader.get_search_path().get_path() if "://" not in str(entry.path)}
    if folders != {str(config_folder())} or not file.is_file():
        return None
    result = loader.repository.load_config(f"optimizer/{name}")
    content, defaults = result.config, result.defaults_list
    if content.get("name") != name or len(defaults) != 1 or defaults[0].package not in ("", "optimizer"):
        return None
    node = ConfigStore.instance().load(f"{defaults[0].path.removeprefix('/')}.yaml").node
    whole = OmegaConf.create({"lr": run.lr, "optimizer": OmegaConf.merge(node, content)})
    kind = parsing.schema_of(whole.optimizer)
    assert kind is not None
    run = dataclasses.replace(run, optimizer=parsing.typed(whole.optimizer, kind, "optimizer."))
    validation.check(run)
    return run


# --- the race -------------------------------------------------------------------------------------------


def on_surface(
    cfg: schema.RaceConfig,
    optimizers: Sequence[schema.OptimizerConfig],
    rates: Mapping[str, Sequence[float]],
    on_progress: Callable[[int], object],
) -> tuple[list[Raced], Scene]:
    """The race on a function of two variables."""
    from ffn_bench.race import paths, scene, surfaces

    surface = surfaces.find(cfg.surface)
    if cfg.start is not None:
        surface = dataclasses.replace(surface, start=(cfg.start[0], cfg.start[1]))
        import torch

        at = torch.tensor([surface.start], dtype=torch.float64)
        if not bool(paths.inside(surface, at)):
            raise UserError(
                "start",
                f"{list(cfg.start)} is outside the figure",
                f"use a point in θ1 low, high, θ2 low, high: {surface.window}",
            )
    raced = []
    for number, optimizer in enumerate(optimizers, 1):
        raced.append(paths.on_surface(surface, optimizer, rates[optimizer.name], cfg.steps, cfg.seed))
        on_progress(number)
    remarks = [rates_in_words(cfg, rates, paths.rule(surface, cfg.steps))]
    if surface.noise:
        remarks.append(f"All optimizers get the same noise (seed {cfg.seed}); f is drawn without it.")
    return raced, scene.of_surface(cfg.surface, surface, raced, cfg.steps, remarks)


def on_network(
    cfg: schema.RaceConfig,
    optimizers: Sequence[schema.OptimizerConfig],
    rates: Mapping[str, Sequence[float]],
    on_progress: Callable[[int], object],
) -> tuple[list[Raced], Scene]:
    """The race on a network's loss."""
    from ffn_bench.race import network

    assert cfg.run is not None
    problem = network.read(Path(cfg.run), cfg.at)
    for optimizer in optimizers:
        problem.check(optimizer)
    raced = []
    for number, optimizer in enumerate(optimizers, 1):
        raced.append(network.on_network(problem, optimizer, rates[optimizer.name], cfg.steps))
        on_progress(number)
    return raced, network.scene_of(
        problem, raced, cfg.steps, [rates_in_words(cfg, rates, network.rule(problem))]
    )


def rates_in_words(cfg: schema.RaceConfig, rates: Mapping[str, Sequence[float]], rule: str) -> str:
    """How learning rates were chosen, for the figure."""
    fixed = [name for name, tried in rates.items() if cfg.lr is not None and len(tried) == 1]
    others = "All other settings are the defaults" + (
        ", lbfgs with one iteration per step" if "lbfgs" in rates else ""
    )
    others += "."
    low, high = cfg.rates
    if len(fixed) == len(rates):
        return f"Learning rates η were given, not tuned. {others}"
    tuned = (
        f"each optimizer tried {cfg.budget}, log-spaced from {low:g} to {high:g}, and got {rule}."
        if cfg.budget > 1
        else f"each is {math.sqrt(low * high):.6g}, the middle of the range."
    )
    given = f" Given, not tuned: {', '.join(fixed)}." if fixed else ""
    return f"Learning rates η: {tuned}{given} {others}"


# --- output -------------------------------------------------------------------------------------


def show(console: Console, scene: Scene, raced: Sequence[Raced]) -> None:
    """One line per optimizer, in the order they were named, and the remarks."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(scene.title, style="bold"))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name, justify in (("optimizer", "left"), ("η", "right"), ("", "left"), (f"{scene.z}, end", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("")
    for track, one in zip(scene.tracks, raced, strict=True):
        how = f"best of {len(one.tried)}" if track.tuned else "given"
        cells = (track.name, f"{track.rate:.3g}", how, f"{track.values[-1]:.3g}", track.note)
        table.add_row(*map(Text, cells))
    console.print(table)
    for remark in scene.remarks:
        console.print(Text(f"  {remark}", style="dim"), soft_wrap=not console.is_terminal)


RACE_FILES = re.compile(r"[\w-]+\.(png|svg)|race(-\d+)?\.(gif|mp4|json)|events\.out\.tfevents\.[^/]+")
"""Names of a race's files."""


def write(
    scene: Scene,
    raced: Sequence[Raced],
    folder: Folder,
    console: Console,
    typed: str,
    animation: bool,
    tensorboard: bool,
) -> dict[str, str]:
    """Write the pictures, the film and the numbers; returns the names of the files. Raises `OSError`."""
    from ffn_bench.command_line.beside import beside
    from ffn_bench.command_line.console import progress
    from ffn_bench.race import figures, film

    drawn = figures.draw_all(scene)
    if animation:
        with beside(lambda: analysis.files_of(drawn, [*drawn], typed)) as stills:
            with progress(console, "filming", len(film.moments(scene))) as on_progress:
                frames = list(film.frames(scene, on_progress))
            with progress(console, "packing", 3) as on_progress:
                movies = {"race.gif": film.gif(frames, typed)}
                on_progress(1)
                if (packed := film.mp4(frames, typed)) is not None:
                    movies["race.mp4"] = packed
                on_progress(2)
                pictures = stills()
        contents = pictures | movies
    else:
        pictures = analysis.render(console, drawn, typed)
        contents = dict(pictures)
    contents["race.json"] = files.to_json(numbers(scene, raced, typed))
    if tensorboard:
        contents |= analysis.for_tensorboard(pictures, 0)
    return folder.publish(contents, RACE_FILES)


def numbers(scene: Scene, raced: Sequence[Raced], typed: str) -> dict[str, Any]:
    """What race.json holds: rates tried with their scores, paths in the plane, curves."""
    return {
        "command": typed,
        "title": scene.title,
        "remarks": list(scene.remarks),
        "optimizers": [
            {
                "name": track.name,
                "lr": track.rate,
                "tried": [{"lr": rate, "score": s} for rate, s in one.tried.items()] if track.tuned else [],
                "note": track.note,
                "steps": track.steps.tolist(),
                "path": track.xy.tolist(),
                scene.z: track.values.tolist(),
            }
            for track, one in zip(scene.tracks, raced, strict=True)
        ],
    }


def rewrite(argument: str) -> str:
    """An argument in Hydra's syntax: paths in quotes, `optimizers=a,b` as a list."""
    return analysis.comma_list(analysis.quote(argument), "optimizers")


def main() -> None:
    """The console script `ffn-race`."""
    analysis.run_analysis("race", schema.RaceConfig, race, rewrite, "optimizers=[one,two]")


if __name__ == "__main__":
    main()
