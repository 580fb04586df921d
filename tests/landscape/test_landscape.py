"""`ffn-landscape`: surfaces against plain evaluation, planes against SVD, verdicts on known points."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cases
from cases import layers_of, parsed
from conftest import MNIST, Command, Result, call, files_below, needs_mnist
from ffn_bench.configuration.schema import TrainConfig
from ffn_bench.data.rows import Split
from ffn_bench.engine.build import build
from ffn_bench.engine.evaluation import evaluate
from ffn_bench.engine.tensors import on_device
from ffn_bench.errors import UserError
from ffn_bench.landscape import command, figures, surface, trained, verdict
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.backprop import loss_of
from ffn_bench.model.hessian import HessianProduct, extreme_eigenpairs, gradient_and_hessian, objective_at
from ffn_bench.model.layers import flat, layered
from ffn_bench.model.network import FFN
from ffn_bench.model.tensor_losses import penalty
from ffn_bench.run_folder import trained_weights
from ffn_bench.tags import LOSS
from run_folder.test_folders import start

F64 = torch.float64


@pytest.fixture
def landscape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """`landscape("run=…")` runs `ffn-landscape` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    return partial(call, command.main, "ffn-landscape", monkeypatch, capsys)


# --- directions and values ------------------------------------------------------------------------------


def network(*overrides: str, widths: tuple[int, ...] = (5, 7, 6, 3)) -> FFN:
    return FFN(widths, parsed(*overrides).model, 3, F64)


def test_every_filter_of_a_direction_is_as_long_as_the_networks() -> None:
    net = network()
    generator = torch.Generator().manual_seed(0)
    for (d, db), (W, _) in zip(surface.filter_normalised(net.layers, generator), net.layers, strict=True):
        assert torch.allclose(d.norm(dim=0), W.norm(dim=0), rtol=1e-12)
        assert not db.any()
        assert not torch.allclose(d / d.norm(), W / W.norm())


def test_flat_and_layered_are_each_others_inverse() -> None:
    net = network()
    θ = flat(net.layers)
    for (W, b), (W2, b2) in zip(net.layers, layered(θ, net.widths), strict=True):
        assert torch.equal(W, W2)
        assert torch.equal(b, b2)
    assert layered(θ.expand(4, -1), net.widths)[1][0].shape == (4, 7, 6)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "linear"])
def test_values_on_a_plane_are_those_of_the_networks_there(
    activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first layer's shortcut, chunks of rows and of points: as one network after the other."""
    monkeypatch.setattr(surface, "ROWS", 13)
    monkeypatch.setattr(surface, "NUMBERS", 400)
    widths = (5, 3) if activation == "linear" else (5, 7, 6, 3)
    activation = "relu" if activation == "linear" else activation
    net = network(f"model.activation={activation}", widths=widths)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 5, generator=generator, dtype=F64)
    y = torch.randint(3, (40,), generator=generator)
    θ = flat(net.layers).detach()
    directions = torch.randn(2, len(θ), generator=generator, dtype=F64)
    steps = torch.randn(11, 2, generator=generator, dtype=F64)
    done: list[int] = []
    losses, accuracies = surface.evaluate(
        θ, directions, steps, widths, ACTIVATIONS[activation], x, y, done.append
    )
    assert done[-1] == 11
    for step, loss, accuracy in zip(steps, losses, accuracies, strict=True):
        with torch.no_grad():
            for (W, b), (W2, b2) in zip(net.layers, layered(θ + step @ directions, widths), strict=True):
                W.copy_(W2)
                b.copy_(b2)
        expected = evaluate(net, Split(x, y))
        assert float(loss) == pytest.approx(expected["loss"], rel=1e-12)
        assert float(accuracy) == expected["accuracy"]


# --- curvature ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_lanczos_finds_both_ends(sign: int) -> None:
    generator = torch.Generator().manual_seed(4)
    Q = torch.linalg.qr(torch.randn(200, 200, generator=generator, dtype=F64))[0]
    λ = sign * torch.cat([torch.tensor([-0.05, 12.0]), torch.linspace(-0.04, 3.0, 198)]).double()
    H = Q @ torch.diag(λ) @ Q.T
    low, high = extreme_eigenpairs(lambda v: H @ v, torch.zeros(200, dtype=F64))
    assert low.value == pytest.approx(float(λ.min()), abs=1e-3 * 12)
    assert high.value == pytest.approx(float(λ.max()), abs=1e-3 * 12)
    for pair in (low, high):
        assert pair.residual == pytest.approx(float((H @ pair.vector - pair.value * pair.vector).norm()))
        assert float((λ - pair.value).abs().min()) <= pair.residual + 1e-12


def test_products_with_the_hessian_of_a_quadratic() -> None:
    A = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=F64)
    A = A + A.T
    θ = torch.randn(9, dtype=F64, requires_grad=True)
    product = HessianProduct(θ @ A @ θ / 2, [θ])
    H = torch.stack([product(e) for e in torch.eye(9, dtype=F64)])
    assert torch.allclose(H, A, atol=1e-10)
    assert torch.allclose(product.g, A @ θ.detach(), atol=1e-10)


def problem(*overrides: str) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor, TrainConfig]:
    """Layers, training rows and configuration of a small run, float64."""
    run = parsed("data=moons", "dtype=float64", "epochs=1", "model.hidden=[6]", *overrides)
    (built,) = build(run)[0].runs
    train = on_device(built.data).train
    return layers_of(built), train.x, train.y, run


def test_exact_and_lanczos_agree() -> None:
    layers, x, y, run = problem("model.activation=tanh", "l2=0.01")
    exact = verdict.at(layers, Split(x, y), run, 1.0)
    lanczos = verdict.at(layers, Split(x, y), run, 1.0, exact_up_to=1)
    assert (exact.exact, lanczos.exact) == (True, False)
    assert lanczos.low == pytest.approx(exact.low, abs=1e-3 * exact.high)
    assert lanczos.high == pytest.approx(exact.high, rel=1e-3)
    assert max(lanczos.residuals) < 1e-4
    assert abs(lanczos.trace - exact.trace) < 5 * lanczos.trace_error
    assert exact.trace == pytest.approx(float(exact.eigenvalues.sum()))
    known = lanczos.distribution
    assert known is not None
    assert exact.distribution is None
    up_to = (exact.eigenvalues <= known.at[:, None]).double().mean(1)
    assert torch.allclose((known.lower + known.upper) / 2, up_to, atol=0.03)
    drawn = figures.curvature(lanczos, "a", "note")
    assert drawn.axes[0].get_title("left") == "eigenvalues of the Hessian: bounds"
    assert json.loads(json.dumps(command._distribution_json(known)))["steps"] == known.steps
    assert any("bounds by" in sentence and "apart" in sentence for sentence in lanczos.evidence())
    assert (lanczos.peak.lower + lanczos.peak.upper) / 2 == pytest.approx(exact.peak.lower, abs=0.03)


@pytest.mark.parametrize("seed", [0, 1])
def test_lanczos_does_not_smear_the_peak_at_zero(seed: int) -> None:
    """1,121 parameters, 16–10–20–15–26, whose eigenvalues are all known: Gaussians made 9 % of its 40 %."""
    run = parsed(
        "data=synthetic",
        "data.n_features=16",
        "data.n_classes=26",
        "dtype=float64",
        "epochs=10",
        f"seed={seed}",
    )
    (built,) = build(run)[0].runs
    cases.trained(built)
    rows = built.data.train.map(lambda part: torch.from_numpy(part[:300]))
    g, H = gradient_and_hessian(*objective_at(layers_of(built), rows, run))
    λ = torch.linalg.eigvalsh(H)
    assert len(λ) == 1121
    known = verdict._distribution(lambda v: H @ v, g, float(λ.abs().max()))
    true = float((λ.abs() <= known.peak.within).double().mean())
    error = known.peak.standard_error
    assert 0.001 < error < 0.01
    assert known.peak.lower - 3 * error <= true <= known.peak.upper + 3 * error
    assert known.peak.upper - known.peak.lower < 0.12
    up_to = (λ <= known.at[:, None]).double().mean(1)
    assert bool((known.lower - 3 * error <= up_to).all())
    assert bool((up_to <= known.upper + 3 * error).all())
    for value in known.converged:
        assert float((λ - value).abs().min()) <= 1e-6 * float(λ.abs().max())


def minimised(
    layers: list[tuple[Tensor, Tensor]], x: Tensor, y: Tensor, run: TrainConfig, tie: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """The objective's minimiser by L-BFGS; with `tie` all hidden units stay the same."""
    leaves = [t.clone().requires_grad_() for layer in layers for t in layer]

    def built() -> list[tuple[Tensor, Tensor]]:
        pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
        if not tie:
            return pairs
        (W, b), (V, c) = pairs
        return [(W[:, :1].expand_as(W), b[:1].expand_as(b)), (V[:1].expand_as(V), c)]

    optimizer = torch.optim.LBFGS(
        leaves, max_iter=3000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss_of(built(), x, y, ACTIVATIONS[run.model.activation]) + run.l2 * penalty(built())
        value.backward()
        return float(value.detach())

    optimizer.step(closure)
    return [(W.detach().clone(), b.detach().clone()) for W, b in built()]


def test_a_symmetric_initialisation_ends_in_a_saddle() -> None:
    """All hidden units alike: gradient descent keeps them so, and ends where others fall further."""
    layers, x, y, run = problem("model.activation=tanh", "l2=0.001")
    minimum = minimised(layers, x, y, run, tie=True)
    curvature = verdict.at(minimum, Split(x, y), run, 1.0)
    assert curvature.verdict == "saddle"
    assert curvature.gradient < 1e-5
    assert curvature.negative > 0
    assert curvature.falls
    lowest = min(float(value) for value in curvature.line["lowest"][1])
    assert lowest == pytest.approx(curvature.objective - curvature.drop)
    assert any("falls by" in sentence for sentence in curvature.evidence())


def test_a_point_on_a_slope_is_no_critical_point() -> None:
    layers, x, y, run = problem()
    curvature = verdict.at(layers, Split(x, y), run, 0.1)
    assert curvature.verdict == "not a critical point"
    assert curvature.gradient > 1e-3 * 0.1


def test_a_plain_without_curvature_is_flat() -> None:
    """Dead units and no rows that tell classes apart: nothing changes the loss."""
    layers, x, y, run = problem()
    dead = [(W * 0, b * 0 - 1) for W, b in layers]
    y = torch.arange(len(y)) % 2
    curvature = verdict.at(dead, Split(x[: len(y) // 2 * 2], y[: len(y) // 2 * 2]), replace(run, l2=0.0), 1.0)
    assert curvature.verdict in ("minimum", "flat")  # the output biases are at their minimum
    assert curvature.near_zero >= curvature.parameters - 2


@pytest.mark.parametrize("seed", range(5))
def test_a_convex_problem_ends_in_a_minimum(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path, seed: int
) -> None:
    done = ffn(
        "data=digits", "model=linear", "optimizer=lbfgs", "batch_size=full", "epochs=30", "l2=0.001",
        "dtype=float64", "optimizer.max_iter=100", f"seed={seed}", "lr=1", "name=convex",
    )  # fmt: skip
    assert done.code == 0, done.err
    result = landscape("run=outputs/convex", "curvature=true")
    assert result.code == 0, result.err
    assert "lbfgs, lr 1: minimum" in result.out
    (content,) = json.loads((tmp_path / "outputs/convex/landscape/curvature.json").read_text()).values()
    assert content["negative"] == 0
    assert content["lambda_min"] >= -content["tolerance"]
    assert content["parameters"] == 650
    within = np.abs(content["eigenvalues"]) <= content["peak"]["within"]
    assert content["peak"]["lower"] == content["peak"]["upper"] == pytest.approx(within.mean())
    assert content["distribution"] is None
    assert (tmp_path / "outputs/convex/landscape/curvature.png").exists()


# --- what training leaves -------------------------------------------------------------------------------


def test_curvature_is_logged_and_is_that_of_the_weights(ffn: Command, tmp_path: Path) -> None:
    keys = ("data=moons", "dtype=float64", "epochs=4", "model.hidden=[5]", "l2=0.01")
    assert ffn(*keys, "log_curvature=2", "name=a").code == 0
    lines = [json.loads(t) for t in (tmp_path / "outputs/a/metrics.jsonl").read_text().splitlines()]
    logged = {line["epoch"]: line for line in lines if "curvature/lambda_max" in line}
    assert [*logged] == [0, 2, 4]
    run = trained.load(tmp_path / "outputs/a")
    train = run.data.train
    g, H = gradient_and_hessian(*objective_at(run.layers, train, run.run))
    λ = torch.linalg.eigvalsh(H)
    assert logged[4]["curvature/lambda_max"] == pytest.approx(float(λ[-1]), rel=1e-3)
    assert logged[4]["curvature/lambda_min"] == pytest.approx(float(λ[0]), abs=1e-3 * float(λ[-1]))
    assert logged[4]["curvature/grad_norm"] == pytest.approx(float(g.norm()), rel=1e-9)
    assert ffn("-m", *keys, "log_curvature=2", "seed=0,1", "name=s").code == 0
    (row,) = (tmp_path / "outputs/sweeps/s").glob("*seed=0*/metrics.jsonl")
    again = [json.loads(t) for t in row.read_text().splitlines()]
    assert [x["curvature/lambda_max"] for x in again if "curvature/lambda_max" in x] == pytest.approx(
        [x["curvature/lambda_max"] for x in logged.values()], rel=1e-5
    )


def test_a_trajectory_is_the_same_in_both_engines_and_ends_at_the_checkpoint(
    ffn: Command, tmp_path: Path
) -> None:
    keys = ("data=moons", "dtype=float64", "epochs=5", "trajectory=true")
    assert ffn(*keys, "name=a").code == 0
    assert ffn("-m", *keys, "seed=0,1", "name=s").code == 0
    (row,) = (tmp_path / "outputs/sweeps/s").glob("*seed=0*")
    trajectories = []
    for folder in (tmp_path / "outputs/a", row):
        run = trained.load(folder)
        way = trained.trajectory(run)
        assert way is not None
        assert torch.equal(way[1][-1], flat(run.layers))
        trajectories.append(way)
    assert trajectories[0][0].tolist() == trajectories[1][0].tolist() == [k * 22 for k in range(6)]
    assert torch.allclose(trajectories[0][1], trajectories[1][1], rtol=1e-9, atol=1e-12)
    start_of = flat(FFN(run.widths, run.run.model, 0, F64).layers).detach()
    assert torch.equal(trajectories[0][1][0], start_of)


def test_a_trajectory_goes_on_exactly_after_a_signal(ffn: Command, tmp_path: Path) -> None:
    keys = ("epochs=80", "trajectory=true", "checkpoint_seconds=0")
    assert ffn(*keys, "name=whole").code == 0
    broken = start(*keys, "name=broken", cwd=tmp_path)
    path = tmp_path / "outputs/broken/trajectory.bin"
    for _ in range(600):
        if path.exists() and path.stat().st_size > 20_000:
            break
        time.sleep(0.05)
    broken.terminate()
    broken.communicate(timeout=60)
    size = path.stat().st_size
    again = start(*keys, "name=broken", cwd=tmp_path)
    again.communicate(timeout=90)
    expected = (tmp_path / "outputs/whole/trajectory.bin").read_bytes()
    assert size < len(expected)
    assert path.read_bytes() == expected


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_centre_is_what_the_run_logged(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path, part: str
) -> None:
    assert ffn("epochs=3", "name=a").code == 0
    result = landscape("run=outputs/a", f"part={part}", "points=7", "directions=2", "extent=0.5")
    assert result.code == 0, result.err
    run = trained.load(tmp_path / "outputs/a")
    (stored,) = (tmp_path / "outputs/a/landscape").glob("surface-*.npz")
    with np.load(stored) as arrays:
        assert arrays["plane"][3, 3] == pytest.approx(run.logged[f"loss/{part}"], abs=1e-6)
        assert arrays["plane_scores"][3, 3] == pytest.approx(run.logged[f"accuracy/{part}"], abs=1e-12)
        assert arrays["losses"][:, 3] == pytest.approx([arrays["plane"][3, 3]] * 2, abs=1e-6)


def test_pictures_of_one_and_of_several_runs(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path
) -> None:
    assert ffn("-m", "data=moons", "optimizer=sgd,adam", "epochs=4", "trajectory=true", "name=s").code == 0
    folders = sorted(p.parent.name for p in (tmp_path / "outputs/sweeps/s").glob("*/run.json"))
    listed = ",".join(f"'outputs/sweeps/s/{name}'" for name in folders)
    result = landscape("run=outputs/sweeps/s/*optimizer=*", "points=9", "tensorboard=true")
    assert result.code == 0, result.err
    folder = tmp_path / "outputs/sweeps/s/landscape"
    names = {p.stem for p in folder.glob("*.png")}
    assert names == {"lines-1", "lines-2", "surface-1", "surface-2", "paths"}
    assert names == {p.stem for p in folder.glob("*.svg")}
    with Image.open(folder / "paths.png") as picture:
        assert picture.info["Description"].startswith("ffn-landscape ")
        assert min(picture.size) > 600
    assert b"ffn-landscape" in (folder / "paths.svg").read_bytes()
    assert (folder / "landscape.html").stat().st_size < 8_000_000
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == names
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("surface-*.npz")}
    assert len(stamps) == 3
    again = landscape(f"run=[{listed}]", "points=9")
    assert again.out.count("(surface from the cache)") == 2
    assert stamps == {p: p.stat().st_mtime_ns for p in folder.glob("surface-*.npz")}
    first = next(iter(stamps))
    first.write_bytes(b"damaged")
    assert landscape(f"run=[{listed}]", "points=9").code == 0
    assert first.read_bytes() == b"damaged"  # it is not ours any more, and stays
    assert first.with_name(f"{first.stem}-2.npz").stat().st_size > 100


def test_the_page_turns_in_a_browser_without_a_network(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if not shutil.which("chromium"):
        pytest.skip("there is no Chromium here")
    assert ffn("data=moons", "epochs=4", "trajectory=true", "name=a").code == 0
    assert landscape("run=outputs/a", "points=9").code == 0
    events: list[str] = []
    with playwright.sync_playwright() as p:
        arguments = [
            "--no-sandbox",
            "--use-gl=angle",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
        ]
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.on("console", lambda m: events.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on(
            "request", lambda r: events.append(r.url) if not r.url.startswith(("file:", "data:")) else None
        )
        page.goto((tmp_path / "outputs/a/landscape/landscape.html").as_uri())
        page.wait_for_selector(".js-plotly-plot canvas")
        assert page.locator(".js-plotly-plot").count() == 2
        assert "of its variance" in page.inner_text("body")
        browser.close()
    assert [line for line in events if not line.startswith("blob:")] == []


ERRORS = [
    (("run=nowhere",), "nowhere: does not exist", 4),
    (("run=empty",), "empty: contains no run", 4),
    ((), "run: has no value", 2),
    (("run=a", "runs=a"), "runs: no such key (did you mean 'run'?)", 2),
    (("run=a", "part=valid"), "part: 'valid' is not known", 2),
    (("run=a", "points=2"), "points: 2 is too small", 2),
    (("run=a", "extent=0"), "extent: 0 is too small", 2),
    (("run=a", "directions=0"), "directions: 0 is too small", 2),
    (("run=a", "save=a/run.json/x"), "is a file, not a folder", 4),
    (("-m", "run=a"), "-m: there is nothing to sweep", 2),
    (("run=[a,b]",), "b: differs from a in its widths; draw them separately", 4),
    (("run=c",), "c: has no checkpoint", 4),
    (("run=d",), "every checkpoint is damaged", 4),
    (("run=e",), "does not fit the run's configuration", 4),
    (("run=f",), "trajectory.bin: does not match its checksum: it was modified", 4),
    (("run=g",), "trajectory.bin: is shorter than the checkpoint records: it was truncated", 4),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `a` to `g`, of which all but the first two are broken in some way."""
    root = tmp_path_factory.mktemp("runs")
    for name, widths in (("a", "[3]"), ("b", "[4]")):
        keys = ("data=moons", "epochs=1", f"model.hidden={widths}", f"name={name}", "trajectory=true")
        process = start(*keys, cwd=root)
        process.communicate(timeout=60)
        (root / "outputs" / name).rename(root / name)
    for name in "cdefg":
        shutil.copytree(root / "a", root / name)
    (root / "empty").mkdir()
    shutil.rmtree(root / "c" / "checkpoint")
    for file in (root / "d" / "checkpoint").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    shutil.rmtree(root / "e" / "checkpoint")
    shutil.copytree(root / "b" / "checkpoint", root / "e" / "checkpoint")
    content = (root / "f" / "trajectory.bin").read_bytes()
    (root / "f" / "trajectory.bin").write_bytes(content[:8] + b"\xff" * 8 + content[16:])
    (root / "g" / "trajectory.bin").write_bytes(content[:-5])
    return root


@pytest.mark.parametrize(("arguments", "message", "code"), ERRORS, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_line(
    landscape: Callable[..., Result],
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(folders)
    before = files_below(folders)
    result = landscape(*arguments)
    assert result.code == code, result.err
    assert result.err.startswith("ffn-landscape: error: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert files_below(folders) == [p for p in files_below(folders) if p in before or p.suffix == ".npz"]


def test_a_landscape_is_of_the_weights_that_are_asked_for(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path
) -> None:
    """The loss in the centre is what the run logged at that epoch, and the captions say which it is."""
    assert ffn("data=moons", "epochs=30", "lr=0.1", "patience=2", "trajectory=true", "name=a").code == 0
    metrics = [json.loads(t) for t in (tmp_path / "outputs/a/metrics.jsonl").read_text().splitlines()]
    logged = {line["epoch"]: line["loss/val"] for line in metrics if "loss/val" in line}
    best = json.loads((tmp_path / "outputs/a/summary.json").read_text())["best"]["epoch"]
    last = max(logged)
    assert best == last - 2
    for at, epoch, words in (
        ("last", last, f"step {22 * last}:"),
        ("best", best, f"step {22 * best}, the best epoch ({best}):"),
        ("epoch:1", 1, "step 22, epoch 1:"),
    ):
        save = tmp_path / at
        keys = ("run=outputs/a", f"at={at}", "part=val", "points=5", "directions=1", f"save={save}")
        result = landscape(*keys)
        assert result.code == 0, result.err
        loss = LOSS.text(logged[epoch])
        assert f": validation loss {loss}, accuracy" in result.out
        assert f"at {words.rstrip(':')}; the run logged {loss}\n" in result.out
        assert words in (save / "landscape.html").read_text()
        result = landscape("run=outputs/a", f"at={at}", "curvature=true", f"save={save}")
        assert result.code == 0, result.err
        (numbers,) = json.loads((save / "curvature.json").read_text()).values()
        assert (numbers["step"], numbers["at"]) == (22 * epoch, at)


@needs_mnist
def test_a_large_network_has_smaller_defaults(
    ffn: Command, landscape: Callable[..., Result], tmp_path: Path
) -> None:
    done = ffn(
        "data=mnist", f"data.root={MNIST}", "model.hidden=[32]", "epochs=1", "batch_size=512", "name=m"
    )
    assert done.code == 0, done.err
    assert landscape("run=outputs/m", "directions=1").code == 0
    (stored,) = (tmp_path / "outputs/m/landscape").glob("surface-*.npz")
    with np.load(stored) as arrays:
        assert arrays["plane"].shape == (25, 25)
        assert math.isfinite(arrays["plane"].max())
    assert "the first 10,000 of" in (stored.parent / "landscape.html").read_text()


def test_a_trajectory_is_taken_as_far_as_the_checkpoint_knows_it(folders: Path, tmp_path: Path) -> None:
    """What came after it, of a run that was killed, is not part of it; damage is seen without a hash, too."""
    shutil.copytree(folders / "a", tmp_path / "a")
    complete = trained.load(tmp_path / "a")
    trajectory = trained.trajectory(complete)
    assert trajectory is not None
    file = tmp_path / "a" / "trajectory.bin"
    content = file.read_bytes()
    record = len(content) // len(trajectory[0])
    file.write_bytes(content + content[:record] + b"torn")
    again = trained.trajectory(complete)
    assert again is not None and all(map(torch.equal, again, trajectory))

    for damaged, message in (
        (content[:8] + b"\xff" * 8 + content[16:], "not finite"),
        (content[record:] + content[:record], "is not a trajectory"),
        (content[:record] * (len(content) // record), "is not a trajectory"),
        (content[record:] + content[record:], "is not a trajectory"),
    ):
        file.write_bytes(damaged[: len(content)].ljust(len(content), b"\0"))
        with pytest.raises(UserError, match=message):
            trajectory_as_noted(complete, len(content), None)


def trajectory_as_noted(run: trained.Trained, size: int, digest: str | None) -> None:
    """Read a trajectory of which the checkpoint notes this size and hash."""
    checkpoint = trained_weights.last_checkpoint(run.recorded, run.prepared)
    noted = replace(checkpoint, trajectory=(size, digest))
    trained_weights.trajectory(run.recorded, noted, run.prepared)


def test_a_trajectory_is_of_its_run(ffn: Command, tmp_path: Path) -> None:
    """Each point forged in turn, with the size and the hash that the checkpoint would note."""
    assert ffn("data=moons", "epochs=2", "model.hidden=[3]", "name=a", "trajectory=true").code == 0
    run = trained.load(tmp_path / "outputs" / "a")
    trajectory = trained.trajectory(run)
    assert trajectory is not None and len(trajectory[0]) == 3
    steps, θ = trajectory[0].numpy(), trajectory[1].numpy()

    def forged(steps: Any, θ: Any, tail: bytes = b"") -> None:
        content = b"".join(s.tobytes() + row.tobytes() for s, row in zip(steps, θ, strict=True)) + tail
        (run.folder / "trajectory.bin").write_bytes(content)
        trajectory_as_noted(run, len(content), hashlib.sha256(content).hexdigest())

    forged(steps, θ)
    one = np.eye(3, dtype=θ.dtype)[..., None]  # for each of three points, what moves it alone
    for message, arguments in (
        ("is not a trajectory of this network", (steps, θ, b"xyz")),
        ("not the ends of its epochs", (steps[:2], θ[:2])),
        ("not the ends of its epochs", (steps - 5, θ)),
        ("not the ends of its epochs", (steps[:0], θ[:0])),
        ("too large", (steps, θ * 0 + θ.dtype.type(3e38))),
        ("too large", (steps, θ * 1e20)),
        ("not finite", (steps, θ * math.nan)),
        ("is constant", (steps, θ[[0, 0, 0]])),
        ("does not start", (steps, θ + one[0])),
        ("does not end", (steps, θ + one[2])),
    ):
        with pytest.raises(UserError, match=message) as e:
            forged(*arguments)
        assert e.value.status == 4
