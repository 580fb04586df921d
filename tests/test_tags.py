"""The table of what is measured: said once, and one entry is all that a new quantity needs."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

import ffn_bench
from cases import parsed
from ffn_bench import tags, train
from ffn_bench.run_folder import reading
from ffn_bench.run_folder.files import Folder

PACKAGE = Path(ffn_bench.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "tags.py")
SAID = re.compile(
    "|".join(
        [
            tags.SCORE.name,
            *(re.escape(q.tag("")) for q in tags.QUANTITIES if q.splits),
            *(re.escape(q.name) for q in tags.QUANTITIES if "/" in q.name),
        ]
    )
)
"""The score's name, and beginnings of tags."""


def constants(tree: ast.Module) -> set[str]:
    """Texts of a module, but for its docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tags_stand_in_their_table_only(path: Path) -> None:
    assert not [text for text in constants(ast.parse(path.read_text())) if SAID.search(text)]


def test_the_table_is_searched_for() -> None:
    """The search above sees what it is to see: it would find the table itself."""
    assert [text for text in constants(ast.parse((PACKAGE / "tags.py").read_text())) if SAID.search(text)]


def test_the_score_of_rows_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(4, (500, 3), generator=generator).double()  # many are equal
    labels = torch.randint(3, (500,), generator=generator)
    assert tags.SCORE.of_rows is not None
    for shown in (logits, logits + torch.arange(3) / 10):  # none are
        right = tags.SCORE.of_rows(shown - shown.amax(1, keepdim=True), labels)
        expected = accuracy_score(labels.numpy(), np.argmax(shown.numpy(), axis=1))
        assert right.double().mean().item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("accuracy/val", 0.0), ("loss/val", math.inf), ("accuracy/test", 0.0), ("loss/test", math.inf)],
)
def test_a_diverged_run_counts_as_the_worst_value(tag: str, expected: float) -> None:
    best = {"epoch": 1, "accuracy/val": 0.9, "loss/val": 0.1, "accuracy/test": 0.8, "loss/test": 0.2}
    summary = {"status": "diverged", "best": best, "final": {}}
    assert reading.score_of(summary, tag) == expected
    assert reading.score_of({**summary, "status": "finished"}, tag) == best[tag]


def test_a_run_that_diverges_late_returns_the_worst_value(tmp_path: Path) -> None:
    run = parsed("data=moons", "epochs=40", "optimizer=sgd", "lr=1e18", "model=linear", "l2=1")
    for _ in range(2):  # as it is trained, and as one that has ended
        assert train.train_run(run, Folder(tmp_path)) == 0.0
    summary = reading.read_summary(Folder(tmp_path))
    assert summary is not None
    assert summary["status"] == "diverged" and summary["best"]["accuracy/val"] > 0


def test_values_are_shown_with_their_units() -> None:
    assert [tags.SCORE.text(v) for v in (0.97254, 1, None, math.nan)] == ["97.25%", "100.00%", "–", "–"]
    assert [tags.LOSS.text(v) for v in (0.123456, 12345.0, math.inf)] == ["0.1235", "1.234e+04", "–"]
    assert (tags.SCORE.difference(-0.0123), tags.LOSS.difference(0.01234)) == ("-1.23", "+0.0123")
    assert (tags.words("accuracy/val"), tags.words("loss/train"), tags.words("lr")) == (
        "validation accuracy",
        "training loss",
        "lr",
    )


ENTRY = """QUANTITIES = (
    Quantity(
        name="error",
        splits=("train", "val", "test"),
        direction="lower",
        lowest=0.0,
        highest=1.0,
        unit="%",
        task="classification",
        of_rows=lambda logits, labels: logits.argmax(1) != labels,
        chance=lambda n_classes: 1 - 1 / n_classes,
    ),
"""


def test_one_entry_is_all_that_a_new_score_needs(tmp_path: Path) -> None:
    """A copy of the package with one more entry measures, logs, shows, compares and judges the error rate, in
    the batched engine and alone."""
    shutil.copytree(PACKAGE.parent, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parents[1] / "conf", tmp_path / "conf")
    table = tmp_path / "src" / "ffn_bench" / "tags.py"
    text = table.read_text()
    assert text.count("QUANTITIES = (\n") == 1
    table.write_text(text.replace("QUANTITIES = (\n", ENTRY))

    def command(module: str, *arguments: str) -> str:
        program = [sys.executable, "-c", f"from ffn_bench.{module} import main; main()"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run(
            [*program, *arguments], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    common = ("data=moons", "epochs=3", "lr=0.01")
    output = command("train", *common, "hydra.run.dir=alone")
    assert re.search(r"^ +error( +\d+\.\d\d%){3}$", output, re.MULTILINE)
    command("train", "-m", *common, "optimizer=sgd,adam", "seed=0,1", "name=sweep")
    folders = [tmp_path / "alone", *(p.parent for p in tmp_path.glob("outputs/sweeps/sweep/*/run.json"))]
    assert len(folders) == 5
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        ends = [line for line in lines if "error/val" in line]
        assert len(ends) == 4  # before training, and after each epoch
        for end in ends:
            for split in ("train", "val", "test"):
                assert end[f"error/{split}"] + end[f"accuracy/{split}"] == pytest.approx(1, abs=1e-12)
        (events,) = folder.glob("events.out.*")
        assert events.read_bytes().count(b"error/test") >= len(ends) + 1  # and a column of HParams
        assert json.loads((folder / "run.json").read_text())["chance"]["error"] == 0.5
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["final"]["error/test"] == ends[-1]["error/test"]

    compared = command("compare.command", "runs=outputs/sweeps/sweep", "metric=error/test")
    assert "test error" in compared
    report = json.loads((tmp_path / "outputs/sweeps/sweep/compare/comparison.json").read_text())
    by_error = {c["name"]: c["median"]["estimate"] for c in report["competitors"]}
    assert report["selecting"] == "error/val"
    assert min(by_error, key=lambda name: by_error[name]) == report["competitors"][0]["name"]
