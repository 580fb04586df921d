"""What a person sees when a run ends: its scores, and what each class comes to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from sklearn.metrics import precision_recall_fscore_support

from conftest import Command
from ffn_bench import tags
from ffn_bench.command_line.tables import class_table
from ffn_bench.engine.metrics import Confusion


def rows_of(y: Any, predicted: Any, classes: list[str]) -> list[str]:
    """The lines of the table of some predictions."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (y, predicted), 1)
    return class_table(Confusion(counts, classes, "test")).plain.split("\n")


def cells_of(y: Any, predicted: Any, k: int) -> list[str]:
    """What scikit-learn computes of a class, as the table writes it."""
    values = precision_recall_fscore_support(y, predicted, labels=[k], zero_division=np.nan)
    shown = [tags.SCORE.text(float(value[0])) for value in values[:3]]
    return [*shown, f"{values[3][0]:,}"]


@pytest.mark.parametrize("n_classes", [2, 10, 20])
def test_every_class_has_a_row(n_classes: int) -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, n_classes - 1, 3000)  # the last has no rows
    predicted = np.where(generator.random(3000) < 0.8, y, generator.integers(1, n_classes, 3000))
    names = [f"class {k}" for k in range(n_classes)]
    header, *lines = rows_of(y, predicted, names)
    assert header.split() == ["test", "by", "class", "precision", "recall", "F1", "rows"]
    expected = [["class", str(k), *cells_of(y, predicted, k)] for k in range(n_classes)]
    assert [line.split() for line in lines] == expected
    assert len({len(line) for line in (header, *lines)}) == 1


def test_what_is_not_known_is_a_dash() -> None:
    _, a, b, c = rows_of([0, 0, 1], [0, 0, 0], ["a", "b", "c"])
    assert a.split() == ["a", "66.67%", "100.00%", "80.00%", "2"]
    assert b.split() == ["b", "–", "0.00%", "0.00%", "1"]
    assert c.split() == ["c", "–", "–", "–", "0"]


def test_of_many_classes_the_ten_of_the_lowest_f1_are_shown() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 40, 4000)
    predicted = np.where(generator.random(4000) < 0.8, y, generator.integers(0, 40, 4000))
    header, *lines = rows_of(y, predicted, [str(k) for k in range(40)])
    f1 = precision_recall_fscore_support(y, predicted)[2]
    assert header.startswith("  test by class, 10 lowest F1 of 40   precision")
    assert [int(line.split()[0]) for line in lines] == np.argsort(f1, kind="stable")[:10].tolist()


def test_columns_stand_below_each_other_whatever_classes_are_called() -> None:
    names = ["日本語" * 20, "W" * 100, "", "\x1b[31mred", "[bold]markup"]
    header, *lines = rows_of(np.arange(5), np.arange(5), names)
    assert {cell_len(line) for line in lines} == {cell_len(header)} and cell_len(header) <= 100
    assert all(line.endswith("100.00%   100.00%   100.00%      1") for line in lines)
    assert "".join(lines).isprintable()


@pytest.fixture
def shown(ffn: Command, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """What a run of these settings prints at its end, and its summary."""
    result = ffn("epochs=3", "name=x", *request.param)
    assert result.code == 0, result.err
    summary = json.loads((tmp_path / "outputs" / "x" / "summary.json").read_text())
    return result.out[result.out.index("by class") - 10 :], summary


@pytest.mark.parametrize("shown", [["data=moons"], ["data=digits"]], indirect=True)
def test_scores_of_a_split_stand_below_accuracy_and_loss(shown: tuple[str, dict[str, Any]]) -> None:
    text, summary = shown
    for score in tags.SPLIT_SCORES:
        cells = [score.text(summary["final"][score.tag(split)]) for split in ("val", "test")]
        row = re.search(rf"^  {score.label} +(.*)$", text, re.MULTILINE)
        # The log loss is the loss that was trained for, and is shown once.
        assert (row.group(1).split() if row else None) == (None if score.name == "log_loss" else cells)


@pytest.mark.parametrize("shown", [["data=moons", "monitor=roc_auc/val"]], indirect=True)
def test_a_monitored_score_is_shown_at_its_best(shown: tuple[str, dict[str, Any]]) -> None:
    text, summary = shown
    best, area = summary["best"], tags.quantity("roc_auc/val")
    cells = [area.text(best[area.tag(split)]) for split in ("val", "test")]
    assert re.search(
        rf"^  ROC AUC at its best, epoch {best['epoch']} +{' +'.join(cells)}$", text, re.MULTILINE
    )


@pytest.mark.parametrize("shown", [["data=moons", "loss=squared"]], indirect=True)
def test_the_log_loss_is_shown_where_it_is_not_what_was_trained_for(
    shown: tuple[str, dict[str, Any]],
) -> None:
    text, summary = shown
    value = tags.quantity("log_loss").text(summary["final"]["log_loss/test"])
    assert re.search(rf"^  log loss .* {re.escape(value)}$", text, re.MULTILINE)


def test_a_run_without_held_out_rows_has_no_scores_of_a_split(ffn: Command, tmp_path: Path) -> None:
    keys = ["data=moons", "data.val_fraction=0", "data.test_fraction=0"]
    result = ffn("epochs=1", "name=x", *keys)
    assert result.code == 0 and "training by class" in result.out and "ROC AUC" not in result.out
    summary = json.loads((tmp_path / "outputs" / "x" / "summary.json").read_text())
    assert not [tag for tag in summary["final"] if tags.quantity(tag).of_split]
