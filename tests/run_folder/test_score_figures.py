"""Figures of probabilities: what is drawn is what scikit-learn computes, and nothing is cut off."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

from command_line.test_surroundings import NASTY
from ffn_bench.engine.scores import Predictions
from ffn_bench.run_folder import score_figures
from run_folder.test_pictures import pixels_of


def predictions(n: int, n_classes: int, separation: float = 2.0) -> Predictions:
    generator = np.random.default_rng(0)
    y = generator.integers(0, n_classes, n)
    logits = 1.5 * (generator.normal(size=(n, n_classes)) + separation * np.eye(n_classes)[y])
    return Predictions(softmax(logits, axis=1), logits.argmax(1), y)


@pytest.mark.parametrize(("n", "n_classes"), [(1, 3), (40, 2), (300, 10), (3000, 4)])
def test_bars_are_those_of_the_calibration_curve(n: int, n_classes: int) -> None:
    p = predictions(n, n_classes)
    correct, confidence = p.predicted == p.y, p.probabilities.max(1)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, pos_label=True)
    above, below = score_figures.reliability(p, "test").axes
    agreed, gaps = above.containers
    assert [bar.get_height() for bar in agreed] == pytest.approx(np.minimum(accuracy, mean).tolist())
    assert [bar.get_height() for bar in gaps] == pytest.approx(np.abs(accuracy - mean).tolist(), abs=1e-12)
    rows = [bar.get_height() for bar in below.containers[0]]
    assert rows == np.histogram(confidence, np.linspace(0, 1, 16))[0].tolist()
    filled = np.array(rows)[np.array(rows) > 0]
    error = (filled * np.abs(accuracy - mean)).sum() / n
    assert above.get_title(loc="left") == f"test part: calibration error {error:.2%}"


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_curves_are_those_of_precision_and_recall(n_classes: int) -> None:
    p = predictions(300, n_classes)
    names = [f"class {k}" for k in range(n_classes)]
    (axes,) = score_figures.precision_recall(p, names, "val").axes
    averages = {}
    for line in axes.lines:
        average, name = str(line.get_label()).split("  ")
        k = names.index(name)
        precision, recall, _ = precision_recall_curve(p.y == k, p.probabilities[:, k])
        x, y = np.asarray(line.get_xdata())[1:], np.asarray(line.get_ydata())[1:]
        np.testing.assert_allclose((x, y), (recall[-2::-1], precision[-2::-1]), atol=1e-12)
        averages[name] = average_precision_score(p.y == k, p.probabilities[:, k])
        assert average == f"{averages[name]:.3f}"
    assert len(averages) == n_classes
    assert [*averages.values()] == sorted(averages.values(), reverse=True)


def test_of_many_classes_the_worst_are_drawn() -> None:
    p = predictions(2000, 30)
    (axes,) = score_figures.precision_recall(p, [str(k) for k in range(30)], "test").axes
    averages = [average_precision_score(p.y == k, p.probabilities[:, k]) for k in range(30)]
    shown = {int(str(line.get_label()).split("  ")[1]) for line in axes.lines}
    assert shown == {*np.argsort(averages)[:10].tolist()}
    assert axes.get_title(loc="left") == "test part: precision by recall, 10 worst of 30 classes"


def test_a_class_without_rows_has_no_curve() -> None:
    p = predictions(300, 3)
    some = p.y != 1
    left = Predictions(p.probabilities[some], p.predicted[some], p.y[some])
    (axes,) = score_figures.precision_recall(left, ["a", "b", "c"], "test").axes
    assert {str(line.get_label())[-1] for line in axes.lines} == {"a", "c"}


@functools.cache
def figures() -> dict[str, Figure]:
    """Of few and many rows and classes, whatever they are called."""
    cases = {
        "one": (predictions(1, 2), ["a", "b"]),
        "ten": (predictions(300, 10), [str(k) for k in range(10)]),
        "perfect": (predictions(300, 3, 50.0), ["a", "b", "c"]),
        "long": (predictions(3000, 30), ["W" * 500] * 30),
        "nasty": (predictions(3000, len(NASTY)), list(NASTY)),
    }
    drawn = {f"{name}, reliability": score_figures.reliability(p, "train") for name, (p, _) in cases.items()}
    curves = {name: score_figures.precision_recall(p, names, "train") for name, (p, names) in cases.items()}
    return drawn | {f"{name}, curves": figure for name, figure in curves.items()}


@pytest.mark.parametrize("name", figures())
def test_nothing_is_cut_off(name: str) -> None:
    pixels = pixels_of(score_figures.png(figures()[name]))
    background = pixels[0, 0]
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert all(np.abs(edge - background).max() <= 2 for edge in edges)
    assert pixels.min() < 60
