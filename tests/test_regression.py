"""A regression from training to analysis, prediction and export: shown, ranked, compared and read back by the
scores of its task, in the unit of its targets."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn import metrics as theirs

import ffn_bench
import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.predict.command
import ffn_bench.race.command
from cases import parsed
from conftest import Command, Result, call
from ffn_bench import tags
from ffn_bench.data import datasets
from ffn_bench.data.rows import Array, weighted
from ffn_bench.engine import metrics
from ffn_bench.engine.tensors import on_device
from ffn_bench.errors import UserError
from ffn_bench.landscape import surface
from ffn_bench.model import inference
from ffn_bench.model.activations import ACTIVATIONS
from ffn_bench.model.losses import LOSSES, Criterion, criterion_of
from ffn_bench.model.tensor_losses import mean_loss
from ffn_bench.run_folder import pictures, reading, recorded_run
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.fitted import Fitted
from ffn_bench.run_folder.trained_network import TrainedNetwork, data_again
from run_folder.test_pictures import pixels_of
from trained_runs import by_pytorch_outputs, load, train, write_table

FRIEDMAN = ("data=friedman", "data.n_samples=300", "epochs=4")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("compare", "runs=…")`: an analysis command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    mains = {name: getattr(ffn_bench, name).command.main for name in COMMANDS}
    return lambda name, *arguments: call(mains[name], f"ffn-{name}", monkeypatch, capsys, *arguments)


COMMANDS = ("compare", "landscape", "race", "predict", "export")


# --- a run, and a sweep ---------------------------------------------------------------------------------


def test_a_run_is_shown_and_recorded_by_rmse(ffn: Command, tmp_path: Path) -> None:
    result = ffn(*FRIEDMAN, "name=x")
    assert result.code == 0, result.err
    assert re.search(r"^  data +friedman: 10 features, 1 target \(y\);", result.out, re.MULTILINE)
    for name in ("RMSE", "MAE", "R²", r"RMSE at the best validation, epoch \d"):
        assert re.search(rf"^  {name}( +[\d.]+){{3}}$", result.out, re.MULTILINE), result.out
    assert "val RMSE " in result.out
    assert not re.search("accuracy|%|nats", result.out)
    folder = tmp_path / "outputs" / "x"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["task"], summary["monitor"]) == ("regression", "rmse/val")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    errors = [line["rmse/val"] for line in lines if "rmse/val" in line]
    assert len(errors) == 5 and summary["best"]["rmse/val"] == min(errors)
    (events,) = folder.glob("events.out.*")
    content = events.read_bytes()
    assert b"predictions/test" in content and b"confusion" not in content and b"accuracy" not in content
    assert "has already ended" in ffn(*FRIEDMAN, "name=x").out


def test_chance_is_what_the_mean_as_the_prediction_scores(ffn: Command, tmp_path: Path) -> None:
    assert ffn(*FRIEDMAN, "name=x").code == 0
    chance = json.loads((tmp_path / "outputs" / "x" / "run.json").read_text())["chance"]
    data = datasets.load(parsed(*FRIEDMAN).data)
    y = data.train.y * data.target_std + data.target_mean
    assert chance["rmse"] == pytest.approx(y.std(), rel=1e-9)
    assert chance["mae"] == pytest.approx(np.abs(y - y.mean()).mean(), rel=1e-9)
    assert chance["r2"] == 0
    assert chance["loss"] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "output"), [(name, o) for name, each in LOSSES.items() for o in each.outputs]
)
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_the_loss_at_chance_is_of_the_runs_criterion(loss: str, output: str, class_weight: str) -> None:
    """Of constant outputs, by PyTorch; for cross-entropy and squared losses none is lower."""
    criterion = Criterion(loss, output)
    data = weighted(datasets.load(parsed("data=digits").data), class_weight)
    found = metrics.chance(data, criterion)["loss"]
    train_part = on_device(data).train
    n, y, weights = len(train_part.y), train_part.y, train_part.weights
    t = torch.nn.functional.one_hot(y, 10).double()
    counted = torch.ones(n).double() if weights is None else weights.double()
    f = (t * counted[:, None]).mean(0)
    z = {"identity": f, "sigmoid": f.logit(), "softmax": f.log()}[output].repeat(n, 1)
    assert found == pytest.approx(float(mean_loss(z, y, criterion, weights)), rel=1e-9)
    if loss in ("cross_entropy", "squared"):
        draws = torch.Generator().manual_seed(0)
        for _ in range(20):
            other = z + 0.3 * torch.randn(10, generator=draws, dtype=torch.float64)
            assert found <= float(mean_loss(other, y, criterion, weights)) + 1e-9


def test_a_sweep_is_ranked_and_compared_by_the_lowest_error(ffn: Command, run: Run, tmp_path: Path) -> None:
    """Through the leaderboard, the comparison, and the same from Python; what diverges is last."""
    swept = (
        "-m",
        *FRIEDMAN,
        "optimizer=sgd,adam",
        "lr=0.01,1e6",
        "seed=range(0,6)",
        "trajectory=true",
        "name=s",
    )
    result = ffn(*swept)
    assert result.code == 0, result.err
    assert "leaderboard by validation RMSE" in result.out
    ranking = re.findall(r"^ *\d  (sgd|adam) +([\de+.]+) +(\S+)", result.out, re.MULTILINE)
    assert ranking[0][:2] == ("adam", "0.01")
    folder = tmp_path / "outputs" / "sweeps" / "s"
    bests: dict[str, list[float]] = {"adam": [], "sgd": []}
    diverged = 0
    for path in folder.glob("*/summary.json"):
        config = json.loads((path.parent / "run.json").read_text())["config"]
        summary = json.loads(path.read_text())
        diverged += summary["status"] == "diverged"
        if summary["status"] == "diverged":
            assert reading.score_of(summary) == float("inf")
        elif config["lr"] == 0.01:
            bests[config["optimizer.name"]].append(summary["best"]["rmse/test"])
    assert diverged >= 6 and all(len(values) == 6 for values in bests.values())

    compared = run("compare", "runs=outputs/sweeps/s", "by=optimizer", "tune=lr")
    assert compared.code == 0, compared.err
    assert "test RMSE" in compared.out and not re.search("accuracy|points|nats", compared.out)
    report = json.loads((folder / "compare" / "comparison.json").read_text())
    assert (report["metric"], report["selecting"]) == ("rmse/test", "rmse/val")
    first, second = report["competitors"]
    assert (first["name"], second["name"]) == ("adam", "sgd")
    for entry in (first, second):
        assert entry["settings"]["friedman"]["lr"] == 0.01
        assert entry["description"]["mean"] == pytest.approx(np.mean(bests[entry["name"]]))
    text = (folder / "compare" / "report.html").read_text()
    assert "failed run" in text and "scores ∞" in text and "accuracy" not in text

    by_r2 = run("compare", "runs=outputs/sweeps/s", "by=optimizer", "tune=lr", "metric=r2/test", "save=r2")
    assert by_r2.code == 0, by_r2.err
    content = json.loads(Path("r2/comparison.json").read_text())
    assert [entry["name"] for entry in content["competitors"]] == ["adam", "sgd"]
    assert "scores −∞" in Path("r2/report.html").read_text()

    sweep = ffn_bench.load(folder)
    assert isinstance(sweep, ffn_bench.Sweep)
    frame = sweep.frame()
    assert "rmse/test" in frame.columns and not [c for c in frame.columns if c.startswith("accuracy")]
    assert sweep.compare(by="optimizer", tuned="lr").study.metric == "rmse/test"
    assert "accuracy" not in sweep._repr_html_() + sweep[0]._repr_html_()
    figure = sweep[0].figure()
    assert [axes.get_title(loc="left") for axes in figure.get_axes()] == ["loss", "RMSE", "MAE", "R²"]


def test_a_target_is_met_from_above(ffn: Command, run: Run, tmp_path: Path) -> None:
    assert ffn("-m", *FRIEDMAN, "epochs=10", "optimizer=adam", "seed=0,1,2", "name=s").code == 0
    assert run("compare", "runs=outputs/sweeps/s", "target=3.5").code == 0
    expected = []
    for path in tmp_path.glob("outputs/sweeps/s/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        met = [line["epoch"] for line in lines if line.get("rmse/val", float("inf")) <= 3.5]
        expected.append(met[0])
    report = json.loads((tmp_path / "outputs/sweeps/s/compare/comparison.json").read_text())
    (competitor,) = report["competitors"]
    assert competitor["to_target"]["epochs"]["estimate"] == np.median(expected)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "mixed tasks": (["runs=[a,b]"], "runs: are of different tasks: a is a regression, b is a classification"),
    "mixed losses": (
        ["runs=[a,c]", "metric=loss/test"],
        "metric: loss/test is not the same in runs of different losses (loss huber, squared); "
        "compare them by metric=rmse/test",
    ),
    "a negative target": (["runs=a", "target=-1"], "target: -1 is outside the range of RMSE"),
    "r2 above 1": (["runs=a", "metric=r2/test", "target=2"], "target: 2 is outside the range of R²"),
    "accuracy": (["runs=a", "metric=accuracy/test"], "metric: 'accuracy/test' was not measured"),
}


def test_what_cannot_be_compared_is_one_line(run: Run, tmp_path: Path) -> None:
    train(tmp_path / "a", *FRIEDMAN)
    train(tmp_path / "b", "data=moons", "epochs=1")
    train(tmp_path / "c", *FRIEDMAN, "loss=huber")
    for arguments, message in MISTAKES.values():
        result = run("compare", *arguments)
        assert result.code == 2 and result.err.startswith(f"ffn-compare: error: {message}"), result.err
        assert result.err.count("\n") == 1
    assert run("compare", "runs=[a,c]", "save=ac").code == 0


# --- on the landscape -----------------------------------------------------------------------------------


def test_the_landscape_and_a_race_say_what_the_loss_is(run: Run, tmp_path: Path) -> None:
    train(tmp_path / "a", *FRIEDMAN, "model.hidden=[4]", "trajectory=true")
    result = run("landscape", "run=a", "points=5", "directions=1")
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    expected = tags.R2.text(summary["final"]["r2/train"])
    assert f"R² {expected} at step" in result.out
    drawn = (tmp_path / "a" / "landscape" / "lines.svg").read_text()
    assert "R²" in drawn and "nats" not in drawn and "accuracy" not in drawn
    assert run("landscape", "run=a", "curvature=true").code == 0
    raced = run(
        "race", "surface=network", "run=a", "optimizers=[sgd]", "steps=5", "animation=false", "save=race"
    )
    assert raced.code == 0, raced.err
    pages = "".join(path.read_text() for path in Path("race").glob("*.svg"))
    assert "training loss" in pages and "nats" not in pages


def test_values_on_lines_are_those_of_every_criterion() -> None:
    """Loss and R² of networks one by one, with weights and several targets, against scikit-learn's."""
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(40, 3)), draws.normal(size=(40, 2))
    weights = draws.random(40)
    W, b = draws.normal(size=(3, 2)), draws.normal(size=2)
    θ = torch.from_numpy(np.concatenate([W.ravel(), b]))
    direction = torch.from_numpy(draws.normal(size=len(θ)))
    steps = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    criterion = Criterion("huber", "identity", delta=0.4)
    losses, scores = surface.evaluate(
        θ, direction[None], steps, (3, 2), ACTIVATIONS["relu"], torch.from_numpy(x), torch.from_numpy(y),
        criterion=criterion, weights=torch.from_numpy(weights),
    )  # fmt: skip
    for step, loss, score in zip(steps, losses, scores, strict=True):
        moved = (θ + step * direction).numpy()
        outputs = x @ moved[:6].reshape(3, 2) + moved[6:]
        expected = (inference.row_losses(outputs, y, criterion) * weights).mean()
        assert float(loss) == pytest.approx(expected, rel=1e-12)
        assert float(score) == pytest.approx(theirs.r2_score(y, outputs), rel=1e-10)


# --- predictions and exports ----------------------------------------------------------------------------

PREDICTED = {
    "one target": FRIEDMAN,
    "in float64": (*FRIEDMAN, "dtype=float64", "loss=absolute"),
    "sigmoid": ("data=digits", "epochs=2", "loss=squared", "loss.output=sigmoid"),
    "identity": ("data=digits", "epochs=2", "loss=squared", "loss.output=identity"),
    "cross-entropy of sigmoid": ("data=digits", "epochs=2", "loss=cross_entropy", "loss.output=sigmoid"),
}


def expected_of(network: TrainedNetwork, x: Array) -> Array:
    """What a network predicts of standardised rows, by PyTorch's own functions."""
    outputs = torch.from_numpy(by_pytorch_outputs(network, x))
    if network.fitted.targets:
        targets = outputs.double() * torch.from_numpy(network.fitted.target_scale)
        return np.asarray(targets + torch.from_numpy(network.fitted.target_mean))
    p = outputs.sigmoid() if network.criterion.output == "sigmoid" else outputs.clamp(0, 1)
    return np.asarray(p / p.sum(1, keepdim=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("trained")
    for name, keys in PREDICTED.items():
        train(here / name.replace(" ", "-"), *keys)
    return here


@pytest.mark.parametrize("name", PREDICTED)
def test_exports_predict_what_pytorch_does(name: str, trained: Path, run: Run) -> None:
    folder = trained / name.replace(" ", "-")
    network = load(folder)
    test = data_again(network.recorded).test
    rows = test.x.astype(np.float64) * network.fitted.scale + network.fitted.mean
    expected = expected_of(network, test.x)
    scale = network.fitted.target_scale if network.fitted.targets else 1.0
    close: Any = partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
    close(network.predictions(rows) / scale, expected / scale)
    for suffix in ("onnx", "py", "safetensors", "pt"):
        result = run("export", f"run={folder}", f"to=model.{suffix}")
        assert result.code == 0, result.err
        if suffix == "onnx":
            *label, found = onnxruntime.InferenceSession("model.onnx").run(None, {"rows": rows})
            if label:
                outputs = by_pytorch_outputs(network, test.x)
                assert label[0].tolist() == [network.fitted.classes[k] for k in outputs.argmax(1)]
        elif suffix == "py":
            scope: dict[str, Any] = {"__name__": "model"}
            exec(Path("model.py").read_text(), scope)
            found = scope["predict" if network.fitted.targets else "predict_proba"](rows)
        else:
            scope = {}
            safe = "import json" + result.out.partition("import json")[2]
            exec(safe if suffix == "safetensors" else indented("model.card.md"), scope)
            function = scope["predictions" if network.fitted.targets else "probabilities"]
            with torch.no_grad():
                found = function(torch.from_numpy(rows)).numpy()
        close(found / scale, expected / scale, err_msg=suffix)
    loaded = ffn_bench.load(folder)
    assert isinstance(loaded, ffn_bench.Run)
    with torch.no_grad():
        whole = loaded.model(torch.from_numpy(rows)).numpy()
    if network.fitted.targets:
        close(loaded.predict(rows) / scale, expected[:, 0] / scale)
        close(whole / scale, expected / scale)
    else:
        close(loaded.predict_proba(rows), expected)
        assert (loaded.predict(rows) == loaded.classes[whole.argmax(1)]).all()


def indented(card: str) -> str:
    """The code of a model card."""
    lines = Path(card).read_text().partition("## To load it")[2].splitlines()
    return "\n".join(line[4:] for line in lines)


def read(text: str) -> tuple[list[str], Array]:
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.array(rows, float)


def test_predictions_of_a_table_are_scored_in_its_own_unit(trained: Path, run: Run, tmp_path: Path) -> None:
    folder = trained / "one-target"
    network = load(folder)
    data = data_again(network.recorded)
    x = data.test.x.astype(np.float64) * data.std + data.mean
    y = data.test.y.astype(np.float64) * data.target_std + data.target_mean
    write_table(tmp_path / "t.csv", [*network.fitted.columns, "id", "y"], np.column_stack([x, y, y]).tolist())
    result = run("predict", f"run={folder}", "data.path=t.csv")
    assert result.code == 0, result.err
    header, found = read(result.out)
    assert header == ["prediction"]
    scores = {
        "RMSE": theirs.root_mean_squared_error(y, found),
        "MAE": theirs.mean_absolute_error(y, found),
        "R²": theirs.r2_score(y, found),
    }
    for name, value in scores.items():
        assert re.search(rf"^  {name} +{re.escape(f'{value:.4g}')}$", result.err, re.MULTILINE), result.err
    assert "ignored, as the run was not trained on them: id" in result.err

    split = run("predict", f"run={folder}", "split=test")
    header, both = read(split.out)
    assert header == ["prediction", "label"]
    np.testing.assert_allclose(both, np.column_stack([found, y]), rtol=1e-5)
    summary = json.loads((folder / "summary.json").read_text())["best"]
    for quantity in (tags.RMSE, tags.LOSS):
        assert quantity.text(summary[f"{quantity.name}/test"]) in split.err

    blank = [
        [*row, ""] if k % 3 else [*row, value]
        for k, (row, (value,)) in enumerate(zip(x.tolist(), y, strict=True))
    ]
    write_table(tmp_path / "b.csv", [*network.fitted.columns, "y"], blank)
    result = run("predict", f"run={folder}", "data.path=b.csv")
    assert len(read(result.out)[1]) == len(y)
    value = theirs.r2_score(y[::3], found[::3])
    assert re.search(rf"^  R² +{re.escape(f'{value:.4g}')}$", result.err, re.MULTILINE), result.err
    assert re.search(
        rf"^  not scored +{len(y) - len(y[::3])} rows, with a blank target$", result.err, re.MULTILINE
    )

    unlabelled = run("predict", f"run={folder}", "data.path=t.csv", "data.target=id")
    assert "RMSE" in unlabelled.err
    write_table(tmp_path / "u.csv", network.fitted.columns, x.tolist())
    assert "RMSE" not in run("predict", f"run={folder}", "data.path=u.csv").err
    wrong = run("predict", f"run={folder}", "data.path=t.csv", "data.target=z")
    assert (wrong.code, wrong.err.count("\n")) == (3, 1) and "has no column 'z'" in wrong.err


def test_several_targets_have_columns_of_their_own(run: Run, tmp_path: Path) -> None:
    """Of very different units; scores of a table are added up part by part."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(200, 3))
    y = np.column_stack([5e4 + 1000 * x[:, 0], 1e-3 * np.sin(x[:, 1])])
    fitted = ffn_bench.fit((x, y), task="regression", epochs=5, name="two", progress=False)
    assert fitted.targets == ("y0", "y1") and fitted.predict(x).shape == (200, 2)
    write_table(tmp_path / "t.csv", ["x0", "x1", "x2", "y1", "y0"], np.column_stack([x, y[:, ::-1]]).tolist())
    result = run("predict", "run=outputs/two", "data.path=t.csv")
    header, found = read(result.out)
    assert header == ["prediction_y0", "prediction_y1"]
    np.testing.assert_allclose(found, fitted.predict(x), rtol=1e-9)
    assert re.search(rf"^  R² +{re.escape(f'{theirs.r2_score(y, found):.4g}')}$", result.err, re.MULTILINE)
    write_table(tmp_path / "u.csv", ["x0", "x1", "x2", "y1"], np.column_stack([x, y[:, 1]]).tolist())
    partly = run("predict", "run=outputs/two", "data.path=u.csv")
    assert "not scored, as these targets are missing: y0" in partly.err
    with pytest.raises(UserError, match="use predict"):
        fitted.predict_proba(x)


def test_sums_over_parts_are_those_of_the_whole() -> None:
    """R² of a table that is read in parts, far from the targets that the network was trained on."""
    from ffn_bench.predict.scores import Scores

    draws = np.random.default_rng(0)
    y = 1e4 + draws.normal(size=(1000, 2))
    outputs = y + 0.1 * draws.normal(size=y.shape)
    scores = Scores(metrics.Scoring("regression", np.array([2.0, 3.0])), Criterion("squared", "identity"))
    for rows in np.split(np.arange(1000), [1, 1, 300, 301]):
        scores.add(outputs[rows], y[rows])
    assert scores.means()["r2"] == pytest.approx(theirs.r2_score(y, outputs), rel=1e-9)
    expected = theirs.root_mean_squared_error(y * [2, 3], outputs * [2, 3])
    assert scores.means()["rmse"] == pytest.approx(expected, rel=1e-9)


# --- what is damaged, what is large ---------------------------------------------------------------------

DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no targets": lambda fitted: fitted.pop("targets"),
    "two targets": lambda fitted: fitted["targets"].append("z"),
    "a scale of 0": lambda fitted: fitted.update(target_scale=[0.0]),
    "no mean": lambda fitted: fitted.pop("target_mean"),
    "a mean that is text": lambda fitted: fitted.update(target_mean=["a"]),
    "classes": lambda fitted: fitted.update(classes=["a"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_targets_are_one_line(damage: str, trained: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(trained / "one-target", tmp_path / "x")
    identity = json.loads((tmp_path / "x" / "run.json").read_text())
    DAMAGES[damage](identity["fitted"])
    (tmp_path / "x" / "run.json").write_text(json.dumps(identity))
    result = run("predict", "run=x", "split=test")
    assert (result.code, result.err.count("\n")) == (4, 1), result.err
    assert "is damaged: its entry `fitted` is not of this network" in result.err


def test_a_loss_that_squares_beyond_all_bounds_is_read_back(tmp_path: Path) -> None:
    """Our own numbers are never taken for damage."""
    folder = train(tmp_path / "x", *FRIEDMAN, "dtype=float64", "optimizer=sgd", "lr=1e20", "log_every=1")
    run = recorded_run.read_run(folder)
    assert run.status == "diverged"
    values = np.concatenate([curve.values for curve in run.curves.values()])
    assert (np.abs(values[np.isfinite(values)]) <= recorded_run.LARGEST).all()


def test_an_interrupted_run_goes_on_with_what_it_measured(ffn: Command, tmp_path: Path) -> None:
    """The ends of epochs are found in metrics.jsonl."""
    from ffn_bench.engine.build import build
    from ffn_bench.run_folder import checkpoints
    from ffn_bench.run_folder.recorder import Record

    run = parsed(*FRIEDMAN, "name=x")
    training, prepared = build(run)
    (one,) = training.runs
    folder = Folder(tmp_path / "outputs" / "x")
    folder.path.mkdir(parents=True)
    record = Record(folder, one, prepared.choice, prepared.describe_device(), 1)
    for number, measured in enumerate(training.measurements()):
        record.write(measured[one])
        if number == 5:
            break
    record.interrupt()
    training, prepared = build(run)
    (again,) = training.runs
    name, _ = checkpoints.find(folder)
    assert name is not None
    state = checkpoints.load(folder, name)
    training.resume([state])
    resumed = Record(folder, again, prepared.choice, prepared.describe_device(), 1, 1, state)
    for measured in training.measurements():
        resumed.write(measured[again])
    summary = resumed.close(again.status, again.reason)
    train(tmp_path / "whole", *FRIEDMAN)
    expected = json.loads((tmp_path / "whole" / "summary.json").read_text())
    for key in ("best", "final", "epochs", "steps", "task", "monitor"):
        assert summary[key] == expected[key]


@pytest.mark.parametrize("n_targets", [1, 4, 7])
def test_predictions_are_drawn_against_what_is_true(n_targets: int) -> None:
    """A dot lies on the diagonal where both are equal; more rows are darker; seven targets show six."""
    true = np.linspace(0, 1, 50)[:, None] * 10.0 ** np.arange(n_targets)
    names = [f"target {k}" for k in range(n_targets)]
    pixels = pixels_of(pictures.predictions(true, true, names, "test"))
    assert min(pixels.shape[:2]) > pictures.PANEL
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 20
    rows, columns = np.nonzero(blue)
    assert len(rows) == 50 * pictures.DOT**2 * min(n_targets, pictures.MOST_PANELS)
    if n_targets == 1:
        assert np.corrcoef(rows, columns)[0, 1] < -0.999
    off = pictures.predictions(true, np.full_like(true, 1e30), names, "test")
    assert pixels_of(off).shape == pixels.shape
    constant = np.ones((5, 1))
    assert pictures.predictions(constant, constant, ["y"], "val").startswith(b"\x89PNG")


def test_the_loss_has_the_unit_of_its_criterion() -> None:
    for task, keys, unit in (
        ("classification", [], "nats"),
        ("classification", ["loss=squared"], ""),
        ("regression", ["data=friedman"], ""),
    ):
        run = parsed(*keys)
        assert run.task == task and criterion_of(run).unit == unit


def test_old_networks_need_no_targets() -> None:
    assert (
        Fitted(columns=("a",), classes=("x", "y"), mean=np.zeros(1), scale=np.ones(1)).task
        == "classification"
    )
