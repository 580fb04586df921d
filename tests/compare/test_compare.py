"""`ffn-compare`: what it makes of run folders, against numbers known beforehand; and what a person sees."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from conftest import Command, Result, call, files_below
from ffn_bench import plot_style
from ffn_bench.compare import axes, command, curves, figures, notes, read, study, tables, verdict
from ffn_bench.compare.study import Study
from ffn_bench.errors import UserError
from ffn_bench.run_folder import finding
from run_folders import write_run


def analysed(folder: Path, **keys: Any) -> Study:
    """The comparison of all runs below a folder."""
    runs, _ = read.read_all(finding.find([str(folder)]))
    roles = axes.find(runs, *(keys.pop(name, ()) for name in ("by", "tune", "workloads")))
    result = study.analyse(runs, roles, **keys)
    result.notes.extend(notes.notes(result))
    return result


def sweep(folder: Path, scores: dict[str, list[float]], **settings: Any) -> Path:
    """Runs of several optimizers, one a seed, whose best validation and test accuracy is the given number."""
    for optimizer, values in scores.items():
        for seed, value in enumerate(values):
            name = f"{optimizer}-{seed}-{'-'.join(map(str, settings.values()))}"
            write_run(folder / name, f"optimizer={optimizer}", val=(0.1, value), seed=seed, **settings)
    return folder


ADAM = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]
SGD = [0.80, 0.91, 0.85, 0.93, 0.84, 0.85, 0.86, 0.87]


def test_every_number_of_a_synthetic_sweep(tmp_path: Path) -> None:
    comparison = analysed(sweep(tmp_path, {"adam": ADAM, "sgd": SGD}))
    adam, sgd = comparison.competitors
    assert (adam.name, sgd.name, adam.n, sgd.n) == ("adam", "sgd", 8, 8)
    assert adam.described["mean"] == pytest.approx(np.mean(ADAM))
    assert adam.described["median"] == pytest.approx(0.935)
    assert adam.described["iqm"] == pytest.approx((0.92 + 0.93 + 0.94 + 0.95) / 4)
    assert (adam.test.estimate, adam.test.low, adam.test.high) == pytest.approx((0.935, 0.90, 0.97))
    (pair,) = comparison.pairs
    assert (pair.seeds, pair.won, pair.lost, pair.tied) == (8, 6, 0, 2)
    apart = np.asarray([0.10, 0.07, 0.10, 0.10, 0.10, 0.10])
    assert pair.difference.estimate == pytest.approx(np.median(apart))
    assert pair.span == pytest.approx((0.07, 0.1))
    assert pair.p_values[0] == pytest.approx(scipy.stats.binomtest(6, 6, alternative="greater").pvalue)
    assert pair.adjusted == pytest.approx((2 / 64, 1.0))
    assert adam.proportion == pytest.approx((6 + 2 / 2) / 8)
    # The target is adam's lower median, 0.93; it is met in epoch 1 (step 10, second 1) or never.
    assert comparison.targets == {"digits": 0.93}
    assert {axis: t.estimate for axis, t in adam.times.items()} == {"epochs": 1, "steps": 10, "seconds": 1}
    assert sgd.times["steps"].estimate == math.inf
    assert adam.gap == pytest.approx((0.03 + 0.02 + 0.01) / 8)
    assert verdict.sentences(comparison)[0] == (
        "adam is ahead of sgd: better on all 6 seeds that decide (share 54–100 %; 2 tied), typically by "
        "+10.00 points [+7.00, +10.00]; p = 0.031 over both statements."
    )


def test_the_chosen_epoch_is_that_of_validation(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(
            tmp_path / str(seed), val=(0.1, 0.8, 0.9, 0.9, 0.7), test=(0.2, 0.99, 0.6, 0.5, 0.4), seed=seed
        )
    (only,) = analysed(tmp_path).competitors
    assert only.test.estimate == pytest.approx(0.6)  # the first of equals
    assert only.end.estimate == pytest.approx(0.4)
    assert only.validation == pytest.approx(0.9)


def test_settings_are_chosen_on_validation_and_diverged_runs_count(tmp_path: Path) -> None:
    """lr 0.1 would win among the runs that lived."""
    for seed in range(4):
        write_run(tmp_path / f"low-{seed}", val=(0.1, 0.8), test=(0.1, 0.7), seed=seed, lr=0.01)
        status = "diverged" if seed == 0 else "finished"
        val = (0.1, None) if seed == 0 else (0.1, 0.99)
        write_run(tmp_path / f"high-{seed}", val=val, seed=seed, lr=0.1, status=status)
    comparison = analysed(tmp_path, by=["optimizer"])
    (only,) = comparison.competitors
    cell = only.cells["digits"]
    assert dict(cell.setting) == {"lr": 0.01}
    assert {dict(t.setting)["lr"]: t.score for t in cell.trials} == pytest.approx(
        {0.01: 0.8, 0.1: 0.99 * 3 / 4}
    )
    assert only.failed == (1, 8)
    assert only.failures.estimate == 1 / 8
    assert only.test.estimate == pytest.approx(0.7)


def test_a_run_that_diverged_is_the_worst_even_after_a_good_epoch(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9, None), seed=seed, status="diverged")
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.2, 0.2), seed=seed)
    first, last = analysed(tmp_path).competitors
    assert (first.name, last.name, last.test.estimate) == ("sgd", "adam", -math.inf)
    assert summary_row(analysed(tmp_path, metric="accuracy/val"), "adam")[3] == "failed"


def summary_row(comparison: Study, name: str) -> list[str]:
    """A row of the ranking as people read it."""
    return next(row for row in tables.summary(comparison).cells() if row[1] == name)


def test_losses_are_better_when_lower_and_infinite_when_diverged(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", loss=(1.0, 0.5), seed=seed)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", loss=(1.0, 0.2), seed=seed)
        write_run(tmp_path / f"m{seed}", "optimizer=momentum", loss=(1.0, None), seed=seed, status="diverged")
    comparison = analysed(tmp_path, metric="loss/train")
    assert [c.name for c in comparison.competitors] == ["sgd", "adam", "momentum"]
    assert [c.test.estimate for c in comparison.competitors] == pytest.approx([0.2, 0.5, math.inf])
    assert comparison.pairs[0].difference.estimate == pytest.approx(0.3)
    assert comparison.competitors[-1].described["mean"] == math.inf  # these runs do not record chance
    assert comparison.pairs[1].difference.estimate == math.inf


def test_curves_of_unequal_length(tmp_path: Path) -> None:
    """A diverged run counts on; one that is live or was cut short does not, past its end."""
    write_run(tmp_path / "full", val=(0.1, 0.5, 0.7), seed=0)
    write_run(tmp_path / "live", val=(0.2, 0.6), seed=1, status=None)
    write_run(tmp_path / "dead", val=(0.3, None), seed=2, status="diverged")
    comparison = analysed(tmp_path, aggregate="mean")
    band = comparison.bands["digits"]["accuracy/val"]["all runs"]
    assert band.x["steps"].tolist() == [0, 10, 20]
    assert band.x["epochs"].tolist() == [0, 1, 2]
    assert band.center == pytest.approx([0.2, (0.5 + 0.6 + 0) / 3, 0.7 / 2])
    assert np.isfinite(band.low).tolist() == [True, True, False]  # two runs have no interval
    assert comparison.competitors[0].n == 3
    assert any("1 run did not finish (1 killed): it counts as failed" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("identity", "note"),
    [
        ({"trained_beside": 3}, "Runs were trained side by side"),  # of an earlier release
        ({"trained_beside": 3, "engine": "batched"}, "Runs were trained side by side"),
        ({"trained_beside": 1, "engine": "compiled"}, "Runs were trained beside others"),
        ({"engine": "compiled"}, None),
    ],
)
def test_what_a_runs_seconds_are(tmp_path: Path, identity: dict[str, Any], note: str | None) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), seed=seed, changes=identity)
    found = [text for text in analysed(tmp_path).notes if text.startswith("Runs were trained")]
    assert [text[: len(note)] for text in found] == [note] if note else found == []


def test_long_curves_are_means_of_neighbours(tmp_path: Path) -> None:
    values = [float(v) for v in np.linspace(0, 0.9, 400)]
    write_run(tmp_path / "one", val=values)
    band = analysed(tmp_path).bands["digits"]["accuracy/val"]["all runs"]
    assert len(band.center) == curves.CURVE_POINTS
    assert band.center.mean() == pytest.approx(np.mean(values), abs=1e-3)
    assert band.x["steps"][-1] == 3990


def test_tuned_against_default_settings_with_seeds_of_their_own(tmp_path: Path) -> None:
    for lr, score in ((0.001, 0.5), (0.01, 0.9), (0.1, 0.7)):
        write_run(tmp_path / f"tune-{lr}", val=(0.1, score), seed=1000, lr=lr, stage="tune")
    for seed in range(5):
        write_run(tmp_path / f"final-{seed}", val=(0.1, 0.85 + seed / 100), seed=seed, lr=0.01, stage="final")
        write_run(tmp_path / f"default-{seed}", val=(0.1, 0.80 + seed / 100), seed=seed, stage="default")
    (only,) = analysed(tmp_path).competitors
    assert only.n == 5
    assert only.test.estimate == pytest.approx(0.87)
    assert only.default.estimate == pytest.approx(0.82)
    assert only.against_default is not None
    assert only.against_default.difference.estimate == pytest.approx(0.05)
    assert (only.against_default.won, only.against_default.lost) == (5, 0)
    assert len(only.cells["digits"].trials) == 3
    assert not only.cells["digits"].edges
    assert only.cells["digits"].choices == 1


def test_tuning_that_spoilt_a_rival_is_told(tmp_path: Path) -> None:
    """adam, tuned, is beaten; with default settings it is not."""
    for optimizer, tuned, default in (("adam", 0.80, 0.90), ("sgd", 0.90, 0.70)):
        keys = (f"optimizer={optimizer}",)
        for lr in (0.01, 0.1):
            write_run(tmp_path / f"{optimizer}-{lr}", *keys, val=(0.1, lr), seed=100, lr=lr, stage="tune")
        for seed in range(6):
            off = 0.01 * (seed % 3)
            name = f"{optimizer}-{seed}"
            write_run(tmp_path / name, *keys, val=(0.1, tuned + off), seed=seed, lr=0.1, stage="final")
            val = (0.1, default + 0.01 * (seed % 2))
            write_run(tmp_path / f"{name}-d", *keys, val=val, seed=seed, stage="default")
    comparison = analysed(tmp_path)
    assert comparison.against_defaults["adam"].difference.estimate == pytest.approx(0.91 - 0.905, abs=0.006)
    sentences = verdict.sentences(comparison)
    assert sentences[0].startswith("sgd is ahead of adam: better on 6 of 6 seeds")
    assert sentences[1] == (
        "No claim is made against others with default settings, without tuning: sgd has 3 won, 1 lost, 2 "
        "tied against adam."
    )
    assert comparison.against_defaults["adam"].ahead is None
    about = "Tuned worse than default settings: adam on all 6"
    (note,) = [note for note in comparison.notes if note.startswith(about)]
    assert "No claim is made of it" in note


def test_workloads_weigh_the_same(tmp_path: Path) -> None:
    for name, scores in (("digits", (0.9, 0.9, 0.9)), ("spirals", (0.1, 0.2, 0.3))):
        for seed, score in enumerate(scores):
            changes = {"data_sha256": name}
            write_run(
                tmp_path / f"{name}-{seed}", val=(0.0, score), seed=seed, data__name=name, changes=changes
            )
    (only,) = analysed(tmp_path, workloads=["data"]).competitors
    assert only.test.estimate == pytest.approx((0.9 + 0.2) / 2)


def test_a_rate_on_the_edge_is_told(tmp_path: Path) -> None:
    for lr, score in ((0.001, 0.9), (0.01, 0.8), (0.1, 0.7)):
        write_run(tmp_path / f"{lr}", val=(0.1, score), lr=lr)
    comparison = analysed(tmp_path, by=["optimizer"])
    assert comparison.competitors[0].cells["digits"].edges == ["lr 0.001 is the smallest of 3 tried"]
    assert "The setting of adam lies at the edge of what was tried." in verdict.sentences(comparison)


def test_several_workloads_have_profiles_and_ranks(tmp_path: Path) -> None:
    names = ("digits", "moons", "spirals", "synthetic", "digits2")
    for k, name in enumerate(names):
        for optimizer, epoch in (("adam", 1), ("sgd", 2), ("momentum", 4 if k else 3)):
            for seed in range(3):
                val = [0.1] * epoch + [0.9] * (6 - epoch)
                best = {"adam": 0.9, "sgd": 0.8, "momentum": 0.7}[optimizer]
                val[5] = 0.9 + best / 100
                write_run(
                    tmp_path / f"{name}-{optimizer}-{seed}",
                    f"optimizer={optimizer}",
                    val=val,
                    seed=seed,
                    data__name=name,
                    changes={"data_sha256": name},
                )
    with pytest.raises(UserError, match=r"use different data \(data.name: digits, digits2, moons"):
        analysed(tmp_path)
    comparison = analysed(tmp_path, workloads=["data"], target=0.9)
    assert comparison.workloads == sorted(names)
    assert comparison.scores is not None
    assert [c.name for c in comparison.competitors] == ["adam", "sgd", "momentum"]
    assert comparison.scores.tolist() == [[1, 2, 3]] + [[1, 2, 4]] * 4
    assert comparison.ranks is not None
    assert comparison.ranks.mean == [1.0, 2.0, 3.0]
    drawn = figures.draw_all(comparison)
    assert {"profile", "critical-difference", "curves-epochs-moons"} <= set(drawn)
    scores = [row[-1] for row in tables.aggregates(comparison).rows]
    assert scores == pytest.approx([1.0, 2 / 3, (1 / 3) / 5])


# --- what varies ----------------------------------------------------------------------------------------


def roles_of(tmp_path: Path, runs: list[tuple[str, dict[str, Any]]], **keys: Any) -> tuple[Any, Any]:
    for k, (optimizer, settings) in enumerate(runs):
        write_run(tmp_path / str(k), f"optimizer={optimizer}", seed=k, **settings)
    recorded, _ = read.read_all(finding.find([str(tmp_path)]))
    roles = axes.find(recorded, **keys)
    return roles.compared, roles.tuned


@pytest.mark.parametrize(
    ("settings", "keys", "expected"),
    [
        ([("adam", {}), ("sgd", {})], {}, (("optimizer.name",), ())),
        ([("adam", {"lr": 0.1}), ("sgd", {})], {}, (("optimizer.name",), ())),  # the rate goes with the name
        ([("adam", {"lr": 0.1}), ("sgd", {}), ("sgd", {"lr": 0.2})], {}, (("optimizer.name",), ("lr",))),
        ([("adam", {"lr": 0.1}), ("adam", {"lr": 0.2})], {}, (("lr",), ())),
        (
            [("adam", {"lr": 0.1}), ("adam", {"lr": 0.2})],
            {"by": ["optimizer"]},
            (("optimizer.name",), ("lr",)),
        ),
        (
            [("adam", {"model__activation": "tanh", "lr": 0.1}), ("adam", {})],
            {},
            (("model.activation",), ("lr",)),
        ),
        (
            [("adam", {"model__activation": "tanh", "lr": 0.1}), ("adam", {})],
            {"tune": ["model.activation"]},
            (("lr",), ("model.activation",)),
        ),
        ([("momentum", {"optimizer__momentum": 0.5}), ("momentum", {})], {}, (("optimizer.momentum",), ())),
        ([("adam", {"device": "cuda"}), ("adam", {"name": "x"})], {}, ((), ())),
    ],
)
def test_axes_are_found_from_the_configurations(
    tmp_path: Path, settings: Any, keys: Any, expected: tuple[Any, Any]
) -> None:
    assert roles_of(tmp_path, settings, **keys) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": ["optimiser"]}, r"by: the runs have no key 'optimiser' \(did you mean 'optimizer'\?\)"),
        ({"by": ["lr"], "tune": ["lr"]}, "by: lr cannot be compared and tuned too"),
        ({"tune": ["seed"]}, "tune: seed only repeats a run and has no other role"),
    ],
)
def test_wrong_axes_are_one_line(tmp_path: Path, keys: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        roles_of(tmp_path, [("adam", {"lr": 0.1}), ("sgd", {"lr": 0.2})], **keys)


# --- run folders ----------------------------------------------------------------------------------------


@pytest.fixture
def compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """`compare("runs=…")` runs `ffn-compare` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    return partial(call, command.main, "ffn-compare", monkeypatch, capsys)


def newer(folder: Path) -> None:
    write_run(folder, changes={"format": 99})


def damaged(folder: Path) -> None:
    write_run(folder)
    (folder / "run.json").write_text('{"format": 1, "config": ')


def damaged_metrics(folder: Path) -> None:
    write_run(folder)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("[red]\n" + lines)


def linked(folder: Path) -> None:
    write_run(folder)
    (folder / "metrics.jsonl").rename(folder.parent / "elsewhere")
    (folder / "metrics.jsonl").symlink_to(folder.parent / "elsewhere")


def odd_summary(folder: Path) -> None:
    write_run(folder)
    (folder / "summary.json").write_text('{"status": "[bold]won"}')


def hostile(line: str = "", **changes: Any) -> Callable[[Path], object]:
    """A run whose metrics end with a line, or whose run.json differs; settings by `config__key`."""

    def make(folder: Path) -> None:
        settings = {k.removeprefix("config__"): changes[k] for k in changes if k.startswith("config__")}
        write_run(
            folder,
            changes={k: v for k, v in changes.items() if k not in settings and "__" not in k},
            **settings,
        )
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(f"{line}\n{{}}\n" if line else "")

    return make


def pipe(folder: Path) -> None:
    write_run(folder)
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")


def empty_summary(folder: Path) -> None:
    write_run(folder)
    (folder / "summary.json").write_text("")


def measured(**values: Any) -> str:
    return json.dumps({"step": 20, "epoch": 2, "train_seconds": 2.0, "accuracy/test": 0.5, **values})


BAD_RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (newer, "has format 99, expected 2"),
    "damaged": (damaged, "run.json: is damaged"),
    "damaged metrics": (damaged_metrics, "metrics.jsonl: line 1 is damaged"),
    "link": (linked, "metrics.jsonl: is a link"),
    "odd summary": (odd_summary, "summary.json: is damaged"),
    "empty summary": (empty_summary, "summary.json: is damaged"),
    "pipe": (pipe, "metrics.jsonl: is not a file"),
    "huge step": (hostile(measured(step=10**400)), "line 3 is damaged"),
    "step of before": (hostile(measured(step=10)), "line 3 is damaged"),
    "negative step": (hostile(measured(step=-1)), "line 3 is damaged"),
    "accuracy of 5": (hostile(measured(**{"accuracy/test": 5})), "line 3 is damaged"),
    "true": (hostile(measured(**{"accuracy/test": True})), "line 3 is damaged"),
    "text": (hostile(measured(**{"accuracy/test": "0.5"})), "line 3 is damaged"),
    "co-trained runs": (hostile(trained_beside="abc"), "run.json: is damaged"),
    "seeds": (hostile(config__seed=[1]), "run.json: is damaged"),
    "name": (hostile(config__optimizer__name={"a": 1}), "run.json: is damaged"),
    "huge rate": (hostile(config__lr=10**400), "run.json: is damaged"),
}


@pytest.mark.parametrize("kind", BAD_RUNS)
def test_a_bad_run_is_one_line_alone_and_a_note_beside_others(
    compare: Callable[..., Result], tmp_path: Path, kind: str
) -> None:
    make, message = BAD_RUNS[kind]
    make(tmp_path / "sweep" / "bad")
    before = files_below(tmp_path)
    result = compare("runs=sweep")
    assert result.code == 4
    assert result.err.startswith("ffn-compare: error: runs: none can be read: ")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert files_below(tmp_path) == before
    write_run(tmp_path / "sweep" / "good")
    result = compare("runs=sweep")
    assert result.code == 0, result.err
    assert "Left out: " in result.out
    assert message in result.out


@pytest.mark.parametrize(
    ("argument", "message", "code"),
    [
        ("runs=nowhere", "nowhere: does not exist", 4),
        ("runs=empty", "empty: contains no run", 4),
        ("runs=file", "file: is a file", 4),
        ("runs=", "runs: is empty", 2),
        ("runs=null", "runs: has no value", 2),
        ("run=sweep", "run: no such key (did you mean 'runs'?)", 2),
        ("by=optimizer", "runs: has no value", 2),
    ],
)
def test_wrong_paths_are_one_line(
    compare: Callable[..., Result], tmp_path: Path, argument: str, message: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    result = compare(argument)
    assert (result.code, result.err.count("\n")) == (code, 1), result.err
    assert message in result.err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "metric=accuracy/tests",
            "metric: 'accuracy/tests' was not measured (did you mean 'accuracy/test'?)",
        ),
        ("aggregate=average", "aggregate: 'average' is not known"),
        ("reference=adamw", "reference: 'adamw' is not compared (did you mean 'adam'?)"),
        ("target=high", "target"),
        ("save=sweep/adam-0-/run.json", "is a file, not a folder"),
        ("-m", "-m: there is nothing to sweep"),
    ],
)
def test_wrong_keys_are_one_line(
    compare: Callable[..., Result], tmp_path: Path, argument: str, message: str
) -> None:
    sweep(tmp_path / "sweep", {"adam": ADAM[:3], "sgd": SGD[:3]})
    result = compare("runs=sweep", argument)
    assert result.code in (2, 4), result.err
    assert result.err.count("\n") == 1
    assert message in result.err


def test_mixed_runs_are_refused(compare: Callable[..., Result], tmp_path: Path) -> None:
    sweep(tmp_path / "a", {"adam": ADAM[:3]})
    write_run(tmp_path / "b" / "other", seed=9, changes={"data_sha256": "e" * 64})
    result = compare("runs=[a,b]")
    assert "were trained on different data under the same name (digits)" in result.err
    write_run(tmp_path / "c" / "old", seed=9, changes={"protocol": 0})
    result = compare("runs=a,c")
    assert "have different protocol versions (0, 3)" in result.err


def test_names_are_no_markup_and_no_controls(compare: Callable[..., Result], tmp_path: Path) -> None:
    for seed in range(3):
        evil = "[red]<script>alert(1)</script>\x1b[2J|$x_1$ $x_{y$"
        write_run(tmp_path / "sweep" / f"a{seed}", seed=seed, optimizer__name=evil)
        write_run(tmp_path / "sweep" / f"b{seed}", seed=seed)
    result = compare("runs=sweep")
    assert result.code == 0, result.err
    assert "\x1b" not in result.out
    assert "[red]<script>" in result.out
    page = (tmp_path / "sweep" / "compare" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert ">$\\mathdefault" not in page  # the powers of ten of an axis are mathematics
    assert "\\$x\\_1\\$" in (tmp_path / "sweep/compare/tables/summary.tex").read_text()


def test_a_run_without_measurements_and_a_torn_line(tmp_path: Path) -> None:
    started = write_run(tmp_path / "begun", val=(), status=None, seed=1)
    (started / "metrics.jsonl").unlink()
    torn = write_run(tmp_path / "torn", val=(0.1, 0.2), status=None, seed=2)
    with (torn / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "epo')
    write_run(tmp_path / "done", seed=3)
    runs, problems = read.read_all(finding.find([str(tmp_path)]))
    assert problems == []
    assert [(run.folder.name, run.status) for run in runs] == [
        ("begun", "killed"),
        ("done", "finished"),
        ("torn", "killed"),
    ]
    assert runs[2].curves["accuracy/val"].values.tolist() == [0.1, 0.2]
    assert analysed(tmp_path).competitors[0].failed == (2, 3)


def test_nothing_has_been_measured_yet(
    compare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "sweep" / "one", val=(), status=None)
    with monkeypatch.context() as patched:
        patched.setattr("ffn_bench.run_folder.lock.holder", lambda folder: 1)
        assert "runs: have measured nothing yet; wait for them" in compare("runs=sweep").err
    assert "runs: all failed (1 killed) before anything comparable was measured" in compare("runs=sweep").err


# --- what is written ------------------------------------------------------------------------------------


def test_a_real_sweep_from_training_to_the_report(
    ffn: Command, compare: Callable[..., Result], tmp_path: Path
) -> None:
    trained = ffn(
        "-m", "data=moons", "optimizer=sgd,adam", "lr=0.01,0.1,1e30", "seed=range(0,3)", "epochs=3", "name=s"
    )
    assert trained.code == 0, trained.err
    result = compare("runs=outputs/sweeps/s", "tensorboard=true")
    assert result.code == 0, result.err
    assert "Which optimizer, on moons?" in result.out
    folder = tmp_path / "outputs/sweeps/s/compare"
    content = json.loads((folder / "comparison.json").read_text())
    assert content["axes"] == {"by": ["optimizer.name"], "tune": ["lr"], "workloads": []}
    assert {c["name"]: c["failed"]["runs"] for c in content["competitors"]}["sgd"] == 3
    board = {c["name"]: c for c in content["competitors"]}
    for name, entry in board.items():
        lr = entry["settings"]["moons"]["lr"]
        bests = []
        for path in (tmp_path / "outputs/sweeps/s").glob("*/summary.json"):
            config = json.loads((path.parent / "run.json").read_text())["config"]
            if (config["optimizer.name"], config["lr"]) == (name, lr):
                bests.append(json.loads(path.read_text())["best"]["accuracy/test"])
        assert len(bests) == 3
        assert entry["description"]["mean"] == pytest.approx(np.mean(bests))
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {path.stem for path in (folder / "figures").glob("*.svg")}
    assert {
        "curves-epochs",
        "curves-steps",
        "curves-seconds",
        "sensitivity",
        "finals",
        "seeds-won",
    } <= names
    assert {"time-to-target", "failures", "parallel", "budget"} <= names
    assert (
        (folder / "tables/summary.csv")
        .read_text()
        .startswith(",optimizer,chosen,share of seeds (ties half),")
    )
    assert "| adam" in (folder / "tables/summary.md").read_text()
    latex = (folder / "tables/summary.tex").read_text()
    assert latex.count("\\toprule") == latex.count("\\midrule") == latex.count("\\bottomrule") == 1
    rows = (folder / "tables/runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 18

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read_back = {}
    for curve in ("mean", "lower", "upper"):
        events = EventAccumulator(str(folder / "tensorboard" / "adam" / curve))
        events.Reload()
        read_back[curve] = {e.step: e.value for e in events.Scalars("accuracy/val")}
    assert read_back["lower"].keys() == read_back["mean"].keys() == read_back["upper"].keys()
    assert all(read_back["lower"][s] <= m <= read_back["upper"][s] for s, m in read_back["mean"].items())

    again = compare("runs=outputs/sweeps/s")  # its own folder is no run
    assert "18 runs in" in again.out
    for keys in (("by=optimizer", "tune=lr"), ("by=[optimizer]", "tune=[lr]"), ("tune=lr",)):
        repeated = compare("runs=outputs/sweeps/s", *keys)
        assert "tuned lr: 3 trials" in " ".join(repeated.out.split()), repeated.err
    assert json.loads((folder / "comparison.json").read_text()) == content


@pytest.mark.parametrize("monitor", [[], ["monitor=roc_auc/val"]])
def test_a_score_of_a_split_is_compared(
    ffn: Command, compare: Callable[..., Result], tmp_path: Path, monitor: list[str]
) -> None:
    """At the epoch that it chose on validation, where it was monitored, else at the end, as a note says."""
    assert ffn("-m", "data=moons", "optimizer=sgd,adam", "seed=0,1", "epochs=4", "name=s", *monitor).code == 0
    result = compare("runs=outputs/sweeps/s", "metric=roc_auc/test")
    assert result.code == 0 and "median test ROC AUC" in result.out
    once = "Validation ROC AUC was measured at the end of training only"
    assert (once in result.out) == (not monitor)
    report = json.loads((tmp_path / "outputs/sweeps/s/compare/comparison.json").read_text())
    assert report["selecting"] == "roc_auc/val"
    summaries = [json.loads(f.read_text()) for f in tmp_path.glob("outputs/sweeps/s/*adam*/summary.json")]
    values = [s["best" if monitor else "final"]["roc_auc/test"] for s in summaries]
    (adam,) = (c for c in report["competitors"] if c["name"] == "adam")
    assert adam["median"]["estimate"] == pytest.approx(np.median(values))


def test_paths_with_signs_of_hydras_grammar(compare: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("a=1,b=2-x", "with space"):
        write_run(tmp_path / "sw=eep" / name, seed=len(name))
    assert "2 runs in" in compare("runs=sw=eep", "save=a=b").out
    assert (tmp_path / "a=b" / "report.html").exists()
    assert "1 run in" in compare("runs=sw=eep/a=1,b=2-x").out
    assert "2 runs in" in compare("runs=sw=eep/*").out
    assert "2 runs in" in compare("runs=sw=eep/a=1*,sw=eep/with space").out


@pytest.mark.parametrize("count", [1, 2, 20])
def test_figures_of_few_and_many_competitors(tmp_path: Path, count: int) -> None:
    for k in range(count):
        for lr in (0.01, 0.1, 1.0):
            for seed in range(3):
                status, val = (
                    ("diverged", (0.1, None)) if lr == 1.0 else ("finished", (0.1, 0.5 + k / 100 + lr))
                )
                write_run(
                    tmp_path / f"{k}-{lr}-{seed}",
                    optimizer__name=f"o{k}",
                    lr=lr,
                    seed=seed,
                    val=val,
                    status=status,
                )
    comparison = analysed(tmp_path, by=["optimizer"])
    drawn = figures.draw_all(comparison)
    assert {"curves-epochs", "finals", "sensitivity", "failures", "time-to-target"} <= set(drawn)
    assert ("seeds-won" in drawn) == (count > 1)
    png, svg = plot_style.save(drawn["finals"], "ffn-compare runs=x")
    assert png.startswith(b"\x89PNG")
    assert b"ffn-compare runs=x" in png
    assert b"ffn-compare runs=x" in svg
    in_style = set(re.findall(rb"(?:fill|stroke): (#[0-9a-f]{6})", svg))
    assert in_style <= {c.encode() for c in (*plot_style.COLOURS, "#ffffff", "#000000")}


def test_the_page_in_a_browser(compare: Callable[..., Result], tmp_path: Path) -> None:
    """No error, no request, light and dark, wide and narrow; its buttons do what they say."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not shutil.which("chromium"):
        pytest.skip("there is no Chromium here")
    for lr in (0.01, 0.1, 1.0):
        sweep(tmp_path / "sweep", {"adam": [a * (1 - lr / 9) for a in ADAM], "sgd": SGD}, lr=lr)
    assert compare("runs=sweep").code == 0
    page_file = tmp_path / "sweep/compare/report.html"
    events: list[str] = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        backgrounds = set()
        for scheme, width in (("light", 1200), ("dark", 390)):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            page = context.new_page()
            page.on("console", lambda message: events.append(message.text))
            page.on("pageerror", lambda error: events.append(str(error)))
            page.on(
                "request",
                lambda r: events.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
            )
            page.goto(page_file.as_uri())
            assert "Which optimizer, on digits?" in page.inner_text("h1")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert page.locator("figure svg").count() == 9
            assert page.locator("figure:visible").count() == 7
            page.click("[data-tab=seconds]")
            assert page.locator("figure[data-of=seconds]").is_visible()
            assert not page.locator("figure[data-of=epochs]").is_visible()
            lines = page.locator('figure:visible [id="series-1"]')
            shown = lines.count()
            page.click("[data-series='1']")
            assert shown > 3
            assert all(not lines.nth(i).is_visible() for i in range(lines.count()))
            page.click("#theme")
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            context.close()
        browser.close()
    assert events == []
    assert len(backgrounds) == 2


def test_runs_below_many_folders_are_found(tmp_path: Path) -> None:
    from ffn_bench.run_folder.finding import find

    deep = tmp_path.joinpath(*["d"] * 1200)
    folder = tmp_path
    for name in deep.relative_to(tmp_path).parts:
        folder /= name
        folder.mkdir()
    (deep / "run.json").write_text("{}")
    (tmp_path / "other").touch()
    try:
        assert find([str(tmp_path)]) == [deep.resolve()]
    finally:  # pytest's own cleaning is recursive
        (deep / "run.json").unlink()
        os.removedirs(deep)
