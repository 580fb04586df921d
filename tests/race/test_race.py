"""`ffn-race`: surfaces and paths against known numbers; what is written; what a person sees."""

from __future__ import annotations

import importlib.metadata
import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cases import layers_of, options, parsed, torch_run
from cases import trained as trained_by_loop
from conftest import Command, Result, call, files_below
from ffn_bench.configuration.schema import OptimizerConfig
from ffn_bench.errors import UserError
from ffn_bench.model.hessian import gradient_and_hessian
from ffn_bench.model.layers import Shapes, flat
from ffn_bench.model.tensor_losses import penalty
from ffn_bench.race import command, figures, film, network, paths, scene, surfaces
from ffn_bench.race.surfaces import SURFACES, Surface
from ffn_bench.run_folder.files import MANIFEST
from ffn_bench.run_folder.recorded_run import read_run
from ffn_bench.run_folder.trained_weights import weights_at

F64 = torch.float64
IN_THE_PLANE = [name for name in options("optimizer") if name != "torch"]
_configs: dict[str, OptimizerConfig] = {}


def config_of(name: str) -> OptimizerConfig:
    if name not in _configs:
        _configs[name] = parsed(f"optimizer={name}").optimizer
    return _configs[name]


def path_of(surface: Surface, name: str, lr: float, steps: int, seed: int = 0) -> Tensor:
    return paths.on_surface(surface, config_of(name), [lr], steps, seed).path


def derivatives(name: str, at: tuple[float, float]) -> tuple[float, Tensor, Tensor]:
    θ = torch.tensor(at, dtype=F64, requires_grad=True)
    value = SURFACES[name].function(θ)
    return float(value.detach()), *gradient_and_hessian(value, [θ])


@pytest.mark.parametrize("name", SURFACES)
def test_newton_at_all_rates_goes_as_it_goes_alone(name: str) -> None:
    surface, together, alone = SURFACES[name], list[Tensor](), list[Tensor]()
    kinds: list[tuple[list[Tensor], Shapes | None]] = [(together, None), (alone, [(2,)])]
    for points, shapes in kinds:
        start, objective = torch.tensor(surface.start, dtype=F64), paths.noisy(surface, 30, 0)

        def record(t: int, θ: Tensor, points: list[Tensor] = points) -> None:
            points.append(θ.clone())

        paths.advance(objective, start, config_of("newton"), [1e-4, 0.1, 1.0, 50.0], 30, record, shapes)
    torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-12, atol=0, equal_nan=True)


def test_optimizers_are_read_as_hydra_composes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    def compare(names: Sequence[str]) -> Any:
        whole = command._composed("sgd")
        for name in IN_THE_PLANE:
            if (read := command._read(name, whole)) is not None:
                compared.append(repr(read.optimizer) == repr(command._composed(name).optimizer))
        raise UserError("test", "is over", "go on")

    monkeypatch.setattr(command, "compose", compare)
    monkeypatch.setattr(sys, "argv", ["ffn-race"])
    with pytest.raises(SystemExit):
        command.main()
    assert len(compared) > len(IN_THE_PLANE) / 2 and all(compared)


# --- surfaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at"), [(n, m) for n, s in SURFACES.items() for m in s.minima], ids=lambda v: str(v)
)
def test_minima_are_minima(name: str, at: tuple[float, float]) -> None:
    value, g, H = derivatives(name, at)
    assert value == pytest.approx(0, abs=1e-25)
    assert g.tolist() == pytest.approx([0, 0], abs=1e-10)
    assert float(torch.linalg.eigvalsh(H)[0]) > 0


def test_saddles_are_saddles() -> None:
    _, g, H = derivatives("saddle", (0.0, 0.0))
    assert g.tolist() == [0, 0]
    assert torch.linalg.eigvalsh(H).tolist() == [-2, 2]
    value, g, H = derivatives("monkey", (0.0, 0.0))
    assert value == float(g.abs().max()) == float(H.abs().max()) == 0  # the Hessian says nothing
    ring = torch.linspace(0, 2 * math.pi, 721, dtype=F64)[:-1] + 1e-3
    signs = SURFACES["monkey"].function(torch.stack([ring.cos(), ring.sin()], 1)).sign()
    assert int((signs != signs.roll(1)).sum()) == 6  # three ways down: two legs and a tail


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("rosenbrock", (-1.2, 1.0), 24.2),
        ("beale", (0.0, 0.0), 14.203125),
        ("himmelblau", (0.0, 0.0), 170.0),
        ("rastrigin", (0.5, 0.5), 40.5),
        ("valley", (2.0, 0.1), 2.5),
    ],
)
def test_values_of_the_literature(name: str, at: tuple[float, float], value: float) -> None:
    assert derivatives(name, at)[0] == pytest.approx(value)


@pytest.mark.parametrize("name", SURFACES)
def test_starts_and_minima_are_in_the_window(name: str) -> None:
    surface = SURFACES[name]
    points = torch.tensor([surface.start, *surface.minima], dtype=F64)
    assert bool(paths.inside(surface, points).all())


# --- paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_THE_PLANE)
@pytest.mark.parametrize("surface", SURFACES)
def test_every_optimizer_runs_on_every_surface(surface: str, name: str) -> None:
    raced = paths.on_surface(SURFACES[surface], config_of(name), [0.001, 0.01], 5, seed=0)
    assert raced.path.shape == (6, 2)
    assert raced.path[0].tolist() == list(SURFACES[surface].start)
    assert bool(torch.isfinite(raced.path).all())
    assert not torch.equal(raced.path[0], raced.path[-1])


def test_gradient_descent_on_the_quadratic_is_its_closed_form() -> None:
    path = path_of(SURFACES["valley"], "sgd", 0.015, 60)
    t = torch.arange(61, dtype=F64)
    for axis, curvature in enumerate((1.0, 100.0)):
        expected = SURFACES["valley"].start[axis] * (1 - 0.015 * curvature) ** t
        torch.testing.assert_close(path[:, axis], expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(path, path_of(SURFACES["valley"], "gd", 0.015, 60))


TORCH: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01),
}


@pytest.mark.parametrize("name", TORCH)
def test_paths_are_those_of_torch_optim(name: str) -> None:
    surface = SURFACES["beale"]
    θ = torch.nn.Parameter(torch.tensor(surface.start, dtype=F64))
    optimizer = TORCH[name]([θ])
    expected = [θ.detach().clone()]
    for _ in range(40):
        optimizer.zero_grad()
        surface.function(θ).backward()
        optimizer.step()
        expected.append(θ.detach().clone())
    torch.testing.assert_close(
        path_of(surface, name, 0.01, 40), torch.stack(expected), rtol=1e-10, atol=1e-12
    )


def test_newton_and_lbfgs_end_the_quadratic() -> None:
    """L-BFGS takes an iteration a step: with exact memory a quadratic of two variables ends in a few."""
    assert float(path_of(SURFACES["valley"], "newton", 1.0, 3)[-1].norm()) < 1e-6
    path = path_of(SURFACES["valley"], "lbfgs", 1.0, 6)
    assert float(path[-1].norm()) < 1e-6 < float(path[1].norm())


def test_rates_side_by_side_are_rates_alone() -> None:
    points: list[Tensor] = []
    surface = SURFACES["rosenbrock"]
    start, rates = torch.tensor(surface.start, dtype=F64), [0.001, 100.0, 0.01]  # the second one diverges
    paths.advance(
        paths.noisy(surface, 30, 0), start, config_of("momentum"), rates, 30,
        lambda t, θ: points.append(θ.clone()),
    )  # fmt: skip
    for k, rate in enumerate(rates):
        single = path_of(surface, "momentum", rate, 30)
        torch.testing.assert_close(torch.stack(points)[:, k], single, equal_nan=True)


def test_the_noise_is_the_same_for_all() -> None:
    """A step of SGD shows the gradient: off by the same draw, whatever the rate and the path."""
    surface = SURFACES["noisy_valley"]
    slow, fast = (path_of(surface, "sgd", lr, 20, seed=3) for lr in (1e-3, 1e-2))
    drawn = [
        -(p.diff(dim=0) / lr) - p[:-1] * torch.tensor([1.0, 100.0]) for p, lr in ((slow, 1e-3), (fast, 1e-2))
    ]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=1e-9)
    assert float(drawn[0].std()) == pytest.approx(2.0, rel=0.4)
    other = path_of(surface, "sgd", 1e-3, 20, seed=4)
    assert not torch.equal(slow, other)
    assert torch.equal(slow, path_of(surface, "sgd", 1e-3, 20, seed=3))


# --- tuning ---------------------------------------------------------------------------------------------


def test_rates_are_spaced() -> None:
    assert paths.spaced(25, 1e-4, 1e2)[::4] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100])
    assert paths.spaced(1, 1e-2, 1.0) == pytest.approx([0.1])


@pytest.mark.parametrize("name", ["sgd", "adam", "newton"])
def test_the_tuned_rate_is_the_best_of_the_tried(name: str) -> None:
    surface, rates = SURFACES["valley"], paths.spaced(9, 1e-4, 1e2)
    raced = paths.on_surface(surface, config_of(name), rates, 50, seed=0)
    assert list(raced.tried) == rates
    ends = {}
    for rate in rates:
        path = path_of(surface, name, rate, 50)
        ends[rate] = (
            float(surface.function(path[-1])) if bool(paths.inside(surface, path).all()) else math.inf
        )
    assert raced.tried == pytest.approx(ends)
    assert ends[raced.rate] == min(ends.values()) < math.inf
    assert torch.equal(raced.path, path_of(surface, name, raced.rate, 50))


def test_on_a_saddle_the_first_to_leave_wins_without_long_steps() -> None:
    surface, rates = SURFACES["saddle"], paths.spaced(25, 1e-4, 1e2)
    raced = paths.on_surface(surface, config_of("sgd"), rates, 200, seed=0)
    diagonal = math.hypot(2.4, 2.4)
    left = paths.leaves(surface, raced.path)
    assert left == raced.tried[raced.rate] == 27
    assert float(raced.path[: left + 1].diff(dim=0).norm(dim=1).max()) <= diagonal / 10
    (higher,) = [r for r in rates if raced.rate < r < 2 * raced.rate]
    path = path_of(surface, "sgd", higher, 200)
    until = paths.leaves(surface, path)
    assert until is not None and until < left
    assert float(path[: until + 1].diff(dim=0).norm(dim=1).max()) > diagonal / 10


def test_what_is_said_of_rates() -> None:
    surface = SURFACES["valley"]
    edge = paths.on_surface(surface, config_of("sgd"), [1e-4, 1e-3, 1e-2], 20, 0)
    assert edge.on_edge and scene.about_rate(edge) == "η on the edge"
    wild = paths.on_surface(surface, config_of("sgd"), [10.0, 100.0], 20, 0)
    assert not wild.met and scene.about_rate(wild) == "no η fits the rule"
    given = paths.on_surface(surface, config_of("sgd"), [100.0], 20, 0)
    assert given.met and not given.on_edge and scene.about_rate(given) == ""


# --- scenes and pictures --------------------------------------------------------------------------------


def scene_on(name: str, rates: dict[str, float], steps: int = 30) -> scene.Scene:
    raced = [paths.on_surface(SURFACES[name], config_of(n), [lr], steps, 0) for n, lr in rates.items()]
    return scene.of_surface(name, SURFACES[name], raced, steps, ["the rule"])


def test_paths_that_leave_or_diverge_end_there_and_it_is_said() -> None:
    falls = scene_on("saddle", {"sgd": 0.1, "adam": 0.05})
    assert falls.tracks[0].note == "leaves at step 27"
    assert len(falls.tracks[0].xy) == 28
    assert falls.last == 30
    wild = scene_on("valley", {"sgd": 1.0, "momentum": 0.01, "adagrad": 1.0}, steps=300)
    assert wild.tracks[0].note.startswith("diverges, step ")
    assert np.isfinite(wild.tracks[0].values).all()
    assert wild.tracks[1].note == ""
    out = scene_on("valley", {"nesterov": 0.0199}, steps=300)
    assert out.tracks[0].note.startswith("outside at step") or out.tracks[0].note.startswith("diverges")
    for one in (wild, out, falls):
        figures.draw_all(one)


def test_a_scene_takes_the_minimum_off() -> None:
    drawn = scene_on("himmelblau", {"adam": 0.1})
    assert drawn.z == "f − min f"
    assert drawn.grid.min() >= 0
    assert drawn.tracks[0].values[0] == pytest.approx(
        float(SURFACES["himmelblau"].function(torch.tensor([-0.5, -0.5])))
    )
    assert scene.NOTHING_RANKED in drawn.remarks


@pytest.mark.parametrize("count", [1, 24])
def test_names_stay_in_the_picture(count: int) -> None:
    names = [f"lecture/optimizer-{k}" for k in range(count)]
    one = scene_on("beale", {"adam": 0.1}).tracks[0]
    tracks = [
        scene.Track(n, 0.000123, True, "outside at step 7, η on the edge", one.xy, one.steps, one.values)
        for n in names
    ]
    original = scene_on("beale", {"adam": 0.1})
    drawn = figures.contour_figure(scene.Scene(**{**vars(original), "tracks": tracks})).figure
    box = drawn.bbox
    renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
    for text in drawn.texts:
        extent = text.get_window_extent(renderer)
        assert extent.x0 >= 0 and extent.x1 <= box.x1 and extent.y0 >= 0 and extent.y1 <= box.y1, text


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def race(
    ffn: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """`race("surface=saddle")` runs `ffn-race` in an empty folder."""

    return partial(call, command.main, "ffn-race", monkeypatch, capsys)


def test_everything_is_written(race: Callable[..., Result], tmp_path: Path) -> None:
    result = race(
        "surface=saddle", "optimizers=sgd,lecture/adam", "steps=40", "budget=9", "lr={sgd:0.05}",
        "tensorboard=true", "save=a folder",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "ranks nothing" in result.out and "Given, not tuned: sgd" in result.out
    folder = tmp_path / "a folder"
    typed = "ffn-race surface=saddle"
    for name in ("race", "race-3d"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert picture.size == (1920, 1080)
            assert picture.info["Description"].startswith(typed)
        svg = (folder / f"{name}.svg").read_text()
        assert typed in svg and "this ranks nothing" in svg and "Learning rates η" in svg
    numbers = json.loads((folder / "race.json").read_text())
    last = math.ceil(1.08 * max(o["steps"][-1] for o in numbers["optimizers"]))
    with Image.open(folder / "race.gif") as shown:
        assert shown.n_frames == min(last, 40) + 1  # type: ignore[attr-defined]
        assert shown.info["comment"].decode().startswith(typed)
        for k in range(shown.n_frames):  # type: ignore[attr-defined]
            shown.seek(k)
            shown.load()
    sgd, adam = numbers["optimizers"]
    assert (sgd["name"], sgd["lr"], sgd["tried"]) == ("sgd", 0.05, [])
    assert adam["lr"] in [t["lr"] for t in adam["tried"]] and len(adam["tried"]) == 9
    events = list(folder.glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"race-3d" in events[0].read_bytes()
    if shutil.which("ffprobe"):
        probe = [
            "ffprobe",
            "-v",
            "error",
            "-show_entries",
            "format_tags=comment:stream=codec_name,width,height",
        ]
        stream = subprocess.run(
            [*probe, str(folder / "race.mp4")], check=True, capture_output=True, text=True
        ).stdout
        assert typed in stream and "h264" in stream
    assert not (tmp_path / "outputs").exists()


def test_the_palette_holds_every_colour() -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ("#0072b2", "#d55e00", "#cc6699", "#fefefe")]
    image = Image.open(io.BytesIO(film.gif(frames, "ffn-race")))
    for k, frame in enumerate(frames):
        image.seek(k)
        drawn, decoded = frame.getpixel((0, 0)), image.convert("RGB").getpixel((0, 0))
        assert np.abs(np.subtract(drawn, decoded)).max() <= 2  # type: ignore[arg-type]


def test_without_ffmpeg_there_is_no_film(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert film.mp4([Image.new("RGB", (8, 8))], "ffn-race") is None


def bowl() -> Surface:
    return Surface(lambda θ: (θ**2).sum(-1), "θ1² + θ2²", (1.0, 1.0), (-2.0, 2.0, -2.0, 2.0), ((0.0, 0.0),))


BOWL = bowl()
NO_SURFACE = 3


def test_a_surface_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, f"{__name__}:{value}", surfaces.PLUGINS)
        for name, value in (("bowl", "BOWL"), ("three", "NO_SURFACE"), ("gone", "NOWHERE"))
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[BOWL.function.__module__])
    assert surfaces.find("bowl") is BOWL
    for name, what in (
        ("three", "is not a Surface"),
        ("gone", "cannot be imported"),
        ("bowls", "mean 'bowl'"),
    ):
        with pytest.raises(UserError, match=what):
            surfaces.find(name)


MISTAKES = [
    (["surface=sadle"], 2, "did you mean 'saddle'"),
    (["surface='a**2'"], 2, "is not known"),
    (["optimizers=[adm]"], 2, "did you mean 'adam'"),
    (["optimizers=[]"], 2, "optimizers: is empty"),
    (["optimizers=[sgd,sgd]"], 2, "is duplicated"),
    (["optimizers=[sgd,./sgd]"], 2, "write sgd"),
    (["optimizers=[torch]"], 2, "needs the name of a class"),
    (["optimizers=[adam@x]"], 2, "is not a valid name"),
    (["steps=0"], 2, "steps: 0 is too small"),
    (["budget=0"], 2, "budget: 0 is too small"),
    (["rates=[1,0.1]"], 2, "is not a range"),
    (["lr=0"], 2, "is not a positive number"),
    (["lr={adm:1}"], 2, "'adm' is not in the race"),
    (["lr=[1,2]"], 2, "lr: [1, 2] is not a number"),
    (["start=[1]"], 2, "is not a point"),
    (["start=[9,9]"], 2, "is outside the figure"),
    (["seed=-1"], 2, "seed: -1"),
    (["bogus=1"], 2, "no such key"),
    (["save="], 2, "save: is empty"),
    (["save=file"], 4, "is a file"),
    (["save=file/below"], 4, "is a file"),
    (["-m", "surface=saddle,beale"], 2, "nothing to sweep"),
    (["surface=network"], 2, "run: has no value"),
    (["at=best"], 2, "at: names weights of a run"),
    (["surface=network", "run=.", "at=bets"], 2, "did you mean 'best'"),
    (["surface=network", "run=.", "start=[1,1]"], 2, "use at=…"),
    (["run=x"], 2, "cannot be combined with surface=saddle"),
    (["surface=network", "run=nowhere"], 4, "does not exist"),
    (["surface=network", "run=."], 4, "contains no run"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_line_and_create_nothing(
    race: Callable[..., Result], tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = race(*arguments)
    assert (result.code, result.err.count("\n")) == (code, 1), result.err
    assert message in result.err
    assert [p.name for p in files_below(tmp_path)] == ["file"]


# --- networks -------------------------------------------------------------------------------------------


@pytest.fixture
def trained(ffn: Command, tmp_path: Path) -> Path:
    assert ffn("data=moons", "model.hidden=[6]", "epochs=1", "seed=3", "l2=0.01", "name=run").code == 0
    return tmp_path / "outputs" / "run"


def test_a_network_starts_and_steps_as_ffn_train_does(trained: Path) -> None:
    """Two epochs of SGD in the race, against the training loop with the same configuration."""
    problem = network.read(trained)
    config = json.loads((trained / "run.json").read_text())["config"]
    run = torch_run(
        "data=moons", "model.hidden=[6]", "epochs=2", "seed=3", "l2=0.01", "lr=0.1", "optimizer=momentum"
    )
    assert config["seed"] == 3
    layers = layers_of(run)
    start = flat(layers)
    assert torch.equal(problem.start, start)
    loss = float(problem.losses(start[None], problem.train)[0])
    on_all = replace(problem, run=replace(problem.run, batch_size="full"))
    penalised = float(on_all.objective(start[None], 0)[0])
    assert penalised - loss == pytest.approx(0.01 * float(penalty(layers)), rel=1e-4)
    trained_by_loop(run)
    raced = network.on_network(problem, config_of("momentum"), [0.1], run.steps)
    assert raced.steps[-1] == run.steps
    torch.testing.assert_close(raced.path[-1], flat(layers_of(run)), rtol=1e-3, atol=1e-4)


def test_a_race_on_a_network(race: Callable[..., Result], trained: Path, tmp_path: Path) -> None:
    result = race(
        "surface=network", f"run={trained}", "optimizers=[sgd,adam]", "steps=12", "budget=5",
        "animation=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "% of their variance" in result.out and "seed 3" in result.out
    folder = tmp_path / "outputs" / "race" / "network"
    assert {p.name for p in folder.iterdir()} == {
        MANIFEST, "race.png", "race.svg", "race-3d.png", "race-3d.svg", "race.json",
    }  # fmt: skip
    optimizers = json.loads((folder / "race.json").read_text())["optimizers"]
    firsts = {round(o["training loss (nats)"][0], 6) for o in optimizers}
    assert len(firsts) == 1  # one start
    for one in optimizers:
        best = min(one["tried"], key=lambda t: t["score"] if t["score"] is not None else math.inf)
        assert one["lr"] == best["lr"]
        assert one["training loss (nats)"][-1] == pytest.approx(best["score"], rel=1e-4)


def test_a_race_from_trained_weights(race: Callable[..., Result], trained: Path) -> None:
    recorded = read_run(trained)
    for at, words in (("last", "step 22"), ("best", "the best epoch (")):
        weights = weights_at(recorded, at)
        start = torch.from_numpy(np.concatenate([t.ravel() for layer in weights.layers for t in layer]))
        assert torch.equal(network.read(trained, at).start, start)
        keys = ("surface=network", f"run={trained}", f"at={at}", "optimizers=[sgd]", "lr=0.1", "steps=2")
        result = race(*keys, "animation=false")
        assert result.code == 0, result.err
        assert "All from step " in result.out and words in result.out


@pytest.mark.parametrize("arguments", [["lr=1e300"], ["lr=1e38", "steps=1"], ["lr=1e-300"]], ids=str)
def test_paths_that_end_at_their_start(
    race: Callable[..., Result], trained: Path, arguments: list[str]
) -> None:
    given = ("optimizers=[sgd]", "steps=3", "animation=false", *arguments)
    result = race("surface=network", f"run={trained}", *given)
    assert (result.code, result.err) == (0, "")
    assert ("diverges by step 1" in result.out) == (arguments[0] != "lr=1e-300")


def test_a_start_that_has_diverged_is_one_line(race: Callable[..., Result], trained: Path) -> None:
    change(trained, config={"model.init": "normal", "model.init_std": 1e38})
    result = race("surface=network", f"run={trained}", "optimizers=[sgd]", "lr=1", "steps=1")
    assert (result.code, result.err.count("\n")) == (4, 1), result.err
    assert "too large for a loss" in result.err


def test_a_path_that_stays_at_a_minimum(race: Callable[..., Result]) -> None:
    given = ("optimizers=[sgd]", "start=[3.0,2.0]", "lr=1e-300", "steps=1", "animation=false")
    result = race("surface=himmelblau", *given)
    assert (result.code, result.err) == (0, "")


def change(folder: Path, **changes: Any) -> None:
    identity = json.loads((folder / "run.json").read_text())
    identity["config"].update(changes.pop("config", {}))
    identity.pop("fingerprint", None)  # a run of another configuration
    (folder / "run.json").write_text(json.dumps(identity | changes))


def test_a_damaged_run_is_one_line(race: Callable[..., Result], trained: Path) -> None:
    original = (trained / "run.json").read_text()
    for message, arguments, changes in (
        ("other data", [], {"data_sha256": "0" * 64}),
        ("has format 99, expected 2", [], {"format": 99}),
        ("damaged", [], {"config": {}, "format": None}),
        ("damaged", [], {"config": {"seed": "${oc.env:HOME}"}}),
        ("has the wrong type", [], {"config": {"lr": "${oc.env:HOME}"}}),
        ("no such key", [], {"config": {"extra": 1}}),
        ("mini-batches", ["optimizers=[newton]"], {}),
    ):
        (trained / "run.json").write_text(original)
        change(trained, **changes)
        result = race("surface=network", f"run={trained}", *arguments)
        assert result.code == (2 if arguments else 4), result.err
        assert result.err.count("\n") == 1 and message in result.err, result.err
    (trained / "run.json").write_text("{")
    assert "damaged" in race("surface=network", f"run={trained}").err


def test_newton_races_on_a_run_of_full_batches(race: Callable[..., Result], ffn: Command) -> None:
    assert ffn("data=moons", "model=linear", "epochs=1", "batch_size=full", "name=full").code == 0
    result = race(
        "surface=network", "run=outputs/full", "optimizers=[newton,lbfgs,gd]", "lr=1", "steps=4",
        "animation=false",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "full batch" in result.out


def test_a_run_of_another_version_is_named(ffn: Command, race: Callable[..., Result], tmp_path: Path) -> None:
    assert ffn("data=moons", "epochs=1", "name=x").code == 0
    file = tmp_path / "outputs" / "x" / "run.json"
    for key, value, other in (("activation", "relu", "rely"), ("init", "torch", "touch")):
        file.write_text(file.read_text().replace(f'"model.{key}": "{value}"', f'"model.{key}": "{other}"'))
        result = race("surface=network", "run=outputs/x", "animation=false")
        assert (result.code, result.err.count("\n")) == (4, 1)
        assert result.err.startswith(f"ffn-race: error: outputs/x: model.{key}: '{other}'")
        file.write_text(file.read_text().replace(other, value))
