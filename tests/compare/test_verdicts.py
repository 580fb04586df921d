"""What a comparison claims, and what it says where it claims nothing: by examples, and by simulation."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import scipy.stats

from compare.test_compare import ADAM, SGD, analysed, sweep
from conftest import call
from ffn_bench.compare import command, numbers, report, tables, verdict, wording
from ffn_bench.compare.study import Study
from ffn_bench.errors import UserError
from ffn_bench.sweeps.leaderboard import leaderboard
from run_folders import write_run

SCHEMA = json.loads(files("ffn_bench.compare").joinpath("comparison.schema.json").read_text())
CHANCE = {"chance": {"accuracy": 0.1, "loss": 2.3}}


def checked(folder: Path, **keys: Any) -> Study:
    """The comparison; its JSON obeys the schema, and says what the sentences say."""
    comparison = analysed(folder, **keys)
    content = json.loads(json.dumps(numbers.as_dict(comparison), allow_nan=False))
    jsonschema.validate(content, SCHEMA)
    text = " ".join(content["verdict"]["sentences"])
    for claim in content["verdict"]["claims"]:
        assert claim["ahead"] in text
        assert claim["of"] in text
    assert bool(content["verdict"]["claims"]) == (" is ahead of " in text)
    return comparison


def claims(comparison: Study) -> set[tuple[str, str]]:
    """Who is ahead of whom."""
    return {(p.ahead, p.second if p.ahead == p.first else p.first) for p in comparison.pairs if p.ahead}


Scores = Mapping[str, Sequence[float | None]]


def raced(folder: Path, scores: Scores, split: int | None = None, **settings: Any) -> Path:
    """Runs of several optimizers, one a seed; None is a run that diverged."""
    for optimizer, values in scores.items():
        for seed, value in enumerate(values):
            keys = settings if split is None else {**settings, "data__split_seed": split}
            name = "-".join(map(str, (optimizer, seed, *keys.values())))
            status = "diverged" if value is None else "finished"
            write_run(folder / name, f"optimizer={optimizer}", val=(0.1, value), seed=seed, status=status,
                      changes=CHANCE, **keys)  # fmt: skip
    return folder


# --- the examples that were found to be wrong -----------------------------------------------------------


def test_equal_differences_make_no_winner(tmp_path: Path) -> None:
    """Three differences without spread had p = 0."""
    comparison = checked(sweep(tmp_path, {"adam": [0.9, 0.91, 0.92], "sgd": [0.89, 0.90, 0.91]}))
    assert claims(comparison) == set()
    assert verdict.sentences(comparison) == [
        "adam won the larger share of seeds: against sgd, the next, 3 of 3 seeds (share 29–100 %), each by "
        "+1.00 points.",
        "No order is claimed: 3 seeds cannot order two competitors; at least 6 are needed.",
    ]


def test_a_mean_that_says_the_opposite_is_told(tmp_path: Path) -> None:
    """One in ten diverges: ahead on most seeds, and worse on average."""
    for seed in range(20):
        lost = seed < 2
        val = (0.1, None if lost else 0.93 + seed / 1000)
        write_run(tmp_path / f"a{seed}", val=val, seed=seed, changes=CHANCE,
                  status="diverged" if lost else "finished")  # fmt: skip
        val = (0.1, 0.92 + seed / 1000)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=val, seed=seed, changes=CHANCE)
    comparison = checked(tmp_path)
    assert claims(comparison) == {("adam", "sgd")}
    first = verdict.sentences(comparison)[0]
    assert first.startswith("adam is ahead of sgd on most seeds: better on 18 of 20 seeds")
    assert "but 2 of its 20 runs failed (sgd: none), and its mean is the worse one" in first


def test_an_incomplete_setting_is_not_chosen(tmp_path: Path) -> None:
    """One lucky run and nine that failed, or that were never begun, do not beat ten sound ones."""
    for seed in range(10):
        write_run(tmp_path / f"low-{seed}", val=(0.1, 0.8), seed=seed, lr=0.01)
        if seed:
            write_run(tmp_path / f"high-{seed}", val=(0.1, 0.9), seed=seed, lr=0.1, status="failed")
    write_run(tmp_path / "high-0", val=(0.1, 0.99), seed=0, lr=0.1)
    write_run(tmp_path / "one", val=(0.1, 0.995), seed=0, lr=1.0)
    comparison = checked(tmp_path, by=["optimizer"])
    assert dict(comparison.competitors[0].cells["digits"].setting) == {"lr": 0.01}
    assert any(
        "1 setting has fewer seeds than others, and could not be chosen" in note for note in comparison.notes
    )


def test_more_settings_on_the_same_seeds_pay_for_it(tmp_path: Path) -> None:
    for seed in range(8):
        for k in range(36):
            write_run(tmp_path / f"a{k}-{seed}", val=(0.1, 0.9 + k / 1000), seed=seed, lr=0.001 * (k + 1))
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.9), seed=seed, lr=0.1)
    comparison = checked(tmp_path)
    (pair,) = comparison.pairs
    assert (pair.won, pair.choices) == (8, 36.0)
    assert pair.adjusted[0] == pytest.approx(2 * 36 / 2**8)
    assert claims(comparison) == set()
    assert verdict.sentences(comparison)[1] == (
        "No order is claimed: 8 seeds cannot order two competitors; at least 11 are needed, since these "
        "seeds chose the settings (36 ways)."
    )
    assert any("p-values are multiplied" in note for note in comparison.notes)
    assert not pair.difference.known  # eight seeds are too few for an interval of the best of 36


def test_the_seeds_that_are_asked_for_are_enough(tmp_path: Path) -> None:
    """Where the reported seeds chose, more are needed, and the sentence says how many."""
    for seed in range(5):
        for optimizer, off in (("adam", 0.02), ("sgd", 0.01), ("rmsprop", 0.0)):
            for lr in (0.1, 0.01):
                folder = tmp_path / f"{optimizer}-{lr}-{seed}"
                write_run(folder, f"optimizer={optimizer}", val=(0.1, 0.8 + off + lr), seed=seed, lr=lr)
    sentences = verdict.sentences(checked(tmp_path))
    assert "5 seeds cannot order 3 competitors; at least 9 are needed" in sentences[1]  # 2·2·6 / 2⁹ ≤ 0.05


def test_seeds_of_the_search_that_are_reported_pay_too(tmp_path: Path) -> None:
    """Whatever the stage says: what counts is whether the seeds that are reported chose."""
    for seed in range(8):
        for k in range(3):
            write_run(tmp_path / f"t{k}-{seed}", val=(0.1, 0.9), seed=seed, lr=0.01 * (k + 1), stage="tune")
        write_run(tmp_path / f"f{seed}", val=(0.1, 0.95), seed=seed, lr=0.01, stage="final")
        write_run(tmp_path / f"n{seed}", "optimizer=sgd", val=(0.1, 0.9), seed=seed + 2, stage="final")
    write_run(tmp_path / "s", "optimizer=sgd", val=(0.1, 0.9), seed=100, stage="tune")
    comparison = checked(tmp_path)
    assert {c.name: c.cells["digits"].choices for c in comparison.competitors} == {"adam": 3, "sgd": 1}


def test_every_number_of_a_sentence_is_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    """adam has two bad seeds that sgd was never run on: they rank nothing."""
    sweep(tmp_path, {"adam": [*ADAM, 0.1, 0.1], "sgd": SGD})
    comparison = checked(tmp_path)
    (pair,) = comparison.pairs
    assert (pair.seeds, pair.won, pair.lost) == (8, 6, 0)
    assert comparison.competitors[0].name == "adam"
    assert any("Seeds are not the same everywhere" in note for note in comparison.notes)


def test_leaderboard_and_report_that_differ_say_why(tmp_path: Path) -> None:
    for seed in range(10):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), test=(0.1, 0.8 + seed / 100), seed=seed)
        test = (0.1, 0.85 + seed / 100)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.8), test=test, seed=seed)
    comparison = checked(tmp_path)
    assert claims(comparison) == {("sgd", "adam")}
    (note,) = [n for n in comparison.notes if "leaderboard" in n]
    assert note == (
        "A leaderboard shows adam first: it ranks by mean validation accuracy of the runs that finished "
        "(adam 90.00 %; sgd 80.00 %). This report ranks by seeds won on test accuracy."
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            {"adam": [0.95] * 9 + [None], "sgd": [0.8] * 10},
            "sgd first: it ranks by mean validation accuracy of the runs that finished, settings with a run "
            "that did not finish behind all others (sgd 80.00 %; adam 95.00 %, 1 diverged of 10)",
        ),
        (
            {"adam": [0.95] * 9 + [None], "sgd": [0.951] * 5 + [0.6] * 5, "rmsprop": [0.81] * 10},
            "rmsprop first: it ranks by mean validation accuracy of the runs that finished, settings with a "
            "run that did not finish behind all others (rmsprop 81.00 %; adam 95.00 %, 1 diverged of 10)",
        ),
        (
            {"sgd": [0.9, 0.8, 0.85] * 2, "adam": [0.8, 0.9, 0.85] * 2},
            "adam and sgd with the same mean validation accuracy, as printed (85.00 %)",
        ),
        ({"adam": [0.95] * 10, "sgd": [0.8] * 10}, None),
        ({"adam": [0.95] * 9 + [None], "sgd": [0.9] * 8 + [None] * 2}, None),
    ],
)
def test_the_note_on_the_leaderboard_is_the_leaderboard(
    tmp_path: Path, scores: Scores, expected: str | None
) -> None:
    """Whom the note names stands first in the leaderboard that these runs' summaries give."""
    comparison = checked(raced(tmp_path, scores))
    note = next((n for n in comparison.notes if "leaderboard" in n), None)
    settings = [{"optimizer": name, "seed": str(k)} for name in scores for k in range(len(scores[name]))]
    summaries = [
        {"status": "finished" if x else "diverged", "best": {"accuracy/val": x, "epoch": 1}, "final": {},
         "train_seconds": 1.0} for values in scores.values() for x in values
    ]  # fmt: skip
    rows, _, _ = leaderboard(settings, summaries)
    first = rows[0]["settings"]["optimizer"]
    if expected is None:
        assert note is None
        assert first == comparison.competitors[0].name
    else:
        assert note is not None
        assert note.startswith(f"A leaderboard shows {expected}")
        assert note.startswith(f"A leaderboard shows {first} first") or "with the same mean" in note


@pytest.mark.parametrize(("without", "split"), [("accuracy/test", "validation"), ("accuracy/val", "test")])
def test_a_leaderboard_that_differs_is_told_without_a_part(tmp_path: Path, without: str, split: str) -> None:
    raced(tmp_path, {"adam": [0.92] * 9 + [0.3], "sgd": [0.9 + k / 10_000 for k in range(10)]})
    for path in tmp_path.glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(json.dumps({k: v for k, v in x.items() if k != without}) + "\n" for x in lines)
        )
    comparison = checked(tmp_path)
    assert comparison.competitors[0].name == "adam"
    (note,) = [n for n in comparison.notes if "leaderboard" in n]
    mean = f"by mean {split} accuracy of the runs that finished (sgd 90.05 %; adam 85.80 %)"
    assert note.startswith(f"A leaderboard shows sgd first: it ranks {mean}")
    if split == "validation":
        expected = "No test set: validation accuracy is reported, on which each run's epoch was chosen"
        assert comparison.notes[0].startswith(expected)
    else:
        assert comparison.notes[0].startswith("No validation set")


def test_a_leaderboard_ranks_by_accuracy_whatever_is_compared(tmp_path: Path) -> None:
    for seed in range(6):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.8), loss=(1.0, 0.2), seed=seed)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.9), loss=(1.0, 0.5), seed=seed)
    comparison = checked(tmp_path, metric="loss/train")
    assert claims(comparison) == {("adam", "sgd")}
    (note,) = [n for n in comparison.notes if "leaderboard" in n]
    assert "sgd first: it ranks by mean validation accuracy of the runs that finished (sgd 90.00 %" in note
    assert note.endswith("seeds won on training loss.")


# --- failures, ties, seeds ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted", None])
def test_a_run_that_began_and_did_not_end_loses(tmp_path: Path, status: str | None) -> None:
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), seed=seed, status=status if seed < 7 else "finished")
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.0001), seed=seed)
    comparison = checked(tmp_path)
    pair = comparison.pair("sgd", "adam")
    assert pair is not None
    assert (pair.won, pair.lost, pair.failed) == (7, 1, (0, 7))
    assert pair.difference.estimate == np.inf


def test_two_failures_tie_and_a_finished_zero_beats_a_failure(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", val=(0.1, None), seed=seed, status="diverged")
    write_run(tmp_path / "s0", "optimizer=sgd", val=(0.1, None), seed=0, status="diverged")
    write_run(tmp_path / "s1", "optimizer=sgd", val=(0.0, 0.0), seed=1)
    pair = checked(tmp_path).pair("sgd", "adam")
    assert pair is not None
    assert (pair.won, pair.lost, pair.tied) == (1, 0, 1)


def test_nothing_is_claimed_while_runs_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(tmp_path, {"adam": [0.9] * 9, "sgd": [0.8] * 9})
    write_run(tmp_path / "live", val=(0.1, 0.2), seed=9, status=None)
    monkeypatch.setattr(
        "ffn_bench.run_folder.lock.holder", lambda folder: 1 if folder.path.name == "live" else None
    )
    comparison = checked(tmp_path)
    assert claims(comparison) == set()
    assert verdict.sentences(comparison)[0] == "No order is claimed: 1 run still training."


def test_a_copied_run_is_one_seed(tmp_path: Path) -> None:
    """Ten folders of one and the same run, bit for bit, have one vote."""
    rng = np.random.default_rng(0)
    for optimizer, level in (("adam", 0.9), ("sgd", 0.8)):
        curve = [level + float(x) / 100 for x in rng.random(12)]
        for seed in range(10):
            write_run(tmp_path / f"{optimizer}{seed}", f"optimizer={optimizer}", val=curve, seed=seed)
    comparison = checked(tmp_path)
    assert comparison.pairs[0].seeds == 1
    assert any("9 seeds repeat the run of another seed bit for bit" in note for note in comparison.notes)


def test_ties_leave_nothing_to_decide(tmp_path: Path) -> None:
    comparison = checked(sweep(tmp_path, {"adam": [0.9] * 9, "sgd": [0.9] * 9}))
    assert verdict.sentences(comparison) == [
        "adam and sgd tie on all 9 seeds.",
        "No order is claimed: none of 9 seeds tells adam and sgd apart; at least 6 must.",
    ]


def test_a_candidate_named_beforehand_needs_fewer_seeds(tmp_path: Path) -> None:
    names = ("adam", "sgd", "momentum", "nesterov", "rmsprop")
    scores = {name: [0.9 - k / 100] * 7 for k, name in enumerate(names)}
    comparison = checked(sweep(tmp_path, scores))
    assert claims(comparison) == set()
    comparison = checked(tmp_path, candidate="adam")
    assert claims(comparison) == {("adam", other) for other in names[1:]}
    assert "over 4 statements (adam named beforehand)" in wording.facts(comparison)["verdict"]
    assert claims(checked(tmp_path, candidate="sgd")) == {("sgd", other) for other in names[2:]}
    text = " ".join(verdict.sentences(checked(tmp_path, candidate="rmsprop")))
    assert "rmsprop is not shown to be ahead of" in text or "rmsprop was named beforehand" in text
    assert "differ" not in text
    with pytest.raises(UserError, match="candidate: 'adm' is not compared"):
        analysed(tmp_path, candidate="adm")
    with pytest.raises(UserError, match="candidate: the reported seeds were used in the search"):
        analysed(tmp_path, candidate="tuned")


def test_workloads_vote_and_none_dominates(tmp_path: Path) -> None:
    """adam wins two of three workloads by a little and loses one by much: its votes count, and its mean is
    told."""
    for name, off in (("digits", 0.001), ("moons", 0.002), ("spirals", -0.3)):
        for seed in range(8):
            for optimizer, plus in (("adam", off), ("sgd", 0.0)):
                folder = tmp_path / f"{name}-{optimizer}-{seed}"
                val = (0.1, 0.6 + plus + seed / 100)
                write_run(folder, f"optimizer={optimizer}", val=val, seed=seed, data__name=name,
                          changes={"data_sha256": name})  # fmt: skip
    comparison = checked(tmp_path, workloads=["data"])
    assert claims(comparison) == {("adam", "sgd")}
    first = verdict.sentences(comparison)[0]
    assert "on most seeds" in first
    assert "its mean is the worse one" in first
    assert "points the other way" in first
    shutil.rmtree(tmp_path / "moons-adam-3")
    assert checked(tmp_path, workloads=["data"]).pairs[0].seeds == 7


def test_seeds_that_no_workloads_share_vote_each_for_its_own(tmp_path: Path) -> None:
    for k, name in enumerate(("digits", "moons")):
        for seed in range(4):
            for optimizer, level in (("adam", 0.9), ("sgd", 0.8)):
                folder = tmp_path / f"{name}-{optimizer}-{seed}"
                write_run(folder, f"optimizer={optimizer}", val=(0.1, level), seed=10 * k + seed,
                          data__name=name, changes={"data_sha256": name})  # fmt: skip
    (pair,) = checked(tmp_path, workloads=["data"]).pairs
    assert (pair.seeds, pair.runs, pair.won) == (8, 8, 8)


def test_a_seed_on_several_splits_has_one_vote(tmp_path: Path) -> None:
    """Three seeds on four splits are no twelve seeds."""
    for seed in range(3):
        for split in range(4):
            for optimizer, level in (("adam", 0.9), ("sgd", 0.8)):
                folder = tmp_path / f"{optimizer}-{seed}-{split}"
                write_run(
                    folder, f"optimizer={optimizer}", val=(0.1, level), seed=seed, data__split_seed=split
                )
    comparison = checked(tmp_path)
    assert (comparison.pairs[0].seeds, comparison.pairs[0].runs) == (3, 12)
    assert claims(comparison) == set()
    assert not comparison.competitors[0].test.known


def test_values_that_print_alike_are_two_competitors(tmp_path: Path) -> None:
    for lr in (0.12341, 0.12342):
        write_run(tmp_path / f"{lr}", lr=lr)
    assert {c.name for c in checked(tmp_path).competitors} == {"lr 0.12341", "lr 0.12342"}


def test_two_runs_of_one_seed_are_told_and_the_worse_counts(tmp_path: Path) -> None:
    for seed in range(8):
        for name, status in (("a", "finished"), ("b", "diverged")):
            write_run(tmp_path / f"{name}{seed}", val=(0.1, 0.9), seed=seed, status=status)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.8), seed=seed)
        write_run(tmp_path / f"k{seed}", "optimizer=sgd", val=(0.1, 0.8), seed=seed, status="failed")
    comparison = checked(tmp_path)
    assert claims(comparison) == {("sgd", "adam")}
    assert any("adam: 8 runs have the seed of another run" in note for note in comparison.notes)


def test_nothing_is_claimed_while_a_choice_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path, {"adam": [0.9] * 9, "sgd": [0.8] * 9})
    write_run(tmp_path / "live", "optimizer=sgd", val=(0.1, 0.2), seed=0, lr=0.5, status=None)
    monkeypatch.setattr(
        "ffn_bench.run_folder.lock.holder", lambda folder: 1 if folder.path.name == "live" else None
    )
    assert claims(checked(tmp_path, by=["optimizer"])) == set()


def test_failures_on_seeds_that_the_other_lacks_are_told(tmp_path: Path) -> None:
    for seed in range(16):
        status = "finished" if seed < 8 else "diverged"
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), seed=seed, status=status)
    for seed in range(8):
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.8), seed=seed)
    first = verdict.sentences(checked(tmp_path))[0]
    assert "on most seeds" in first
    assert "8 of all its 16 runs failed (sgd: none of 8)" in first


def test_equal_shares_are_no_larger_share(tmp_path: Path) -> None:
    sentences = verdict.sentences(checked(sweep(tmp_path, {"adam": [0.9, 0.8] * 4, "sgd": [0.8, 0.9] * 4})))
    first = "adam and sgd won the same share of seeds: against sgd, the next, 4 of 8 seeds"
    assert sentences[0].startswith(first)


def test_nobody_with_results_on_all_workloads(tmp_path: Path) -> None:
    for k, (optimizer, name) in enumerate((("adam", "digits"), ("sgd", "moons"))):
        write_run(tmp_path / str(k), f"optimizer={optimizer}", data__name=name, changes={"data_sha256": name})
    sentences = verdict.sentences(checked(tmp_path, workloads=["data"]))
    assert sentences == ["No competitor has results on both workloads, so none can be compared over them."]


def test_a_rival_that_is_better_with_default_settings_is_a_but(tmp_path: Path) -> None:
    for optimizer, tuned, default in (("adam", 0.9, 0.7), ("sgd", 0.8, 0.95)):
        write_run(tmp_path / f"{optimizer}-t", f"optimizer={optimizer}", seed=100, lr=0.1, stage="tune")
        for seed in range(8):
            keys: dict[str, Any] = {"seed": seed}
            name = f"{optimizer}-{seed}"
            write_run(
                tmp_path / name, f"optimizer={optimizer}", val=(0.1, tuned), lr=0.1, stage="final", **keys
            )
            val = (0.1, default)
            write_run(tmp_path / f"{name}-d", f"optimizer={optimizer}", val=val, stage="default", **keys)
    sentences = verdict.sentences(checked(tmp_path))
    assert sentences[0].startswith("adam is ahead of sgd: better on 8 of 8 seeds")
    assert sentences[1].startswith("No claim is made against others with default settings")
    assert sentences[1].endswith("adam has 0 won, 8 lost against sgd.")


def test_the_leaderboard_of_stage_two_may_show_a_default_setting_first(tmp_path: Path) -> None:
    for optimizer, tuned, default in (("sgd", 0.9, 0.5), ("adam", 0.85, 0.95)):
        write_run(tmp_path / f"{optimizer}-t", f"optimizer={optimizer}", seed=100, lr=0.1, stage="tune")
        raced(tmp_path, {optimizer: [tuned] * 3}, lr=0.1, stage="final")
        raced(tmp_path, {optimizer: [default] * 3}, lr=0.01, stage="default")
    comparison = checked(tmp_path)
    assert any(n.startswith("A leaderboard shows adam with default settings first") for n in comparison.notes)
    assert verdict.sentences(comparison)[-1] == (
        "sgd, tuned against default settings: 3 won, 0 lost, typically by +40.00 points; no claim is made "
        "of it."
    )


# --- who is told to be what -----------------------------------------------------------------------------


def test_one_seed_on_several_splits_counts_them(tmp_path: Path) -> None:
    """adam is better on three of five splits, and has the lower mean."""
    for split, score in enumerate((0.91, 0.91, 0.91, 0.5, None)):
        raced(tmp_path, {"adam": [score], "sgd": [0.9]}, split)
    sentences = verdict.sentences(checked(tmp_path))
    assert sentences[0] == (
        "On the one seed that both have, adam won 3 of 5 splits and lost 2 against sgd, the next (means "
        "66.60 % against 90.00 %, failed runs at chance)."
    )
    assert sentences[2] == "Runs that failed: adam 1 of 5."


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.5), (0.5, 0.9)])
def test_of_two_runs_of_a_seed_the_worse_counts(tmp_path: Path, first: float, second: float) -> None:
    """Whatever its folder's name is."""
    raced(tmp_path, {"adam": [0.9] * 6, "sgd": [0.8] * 6})
    shutil.rmtree(tmp_path / "adam-0")
    for name, score in (("a", first), ("b", second)):
        write_run(tmp_path / name, "optimizer=adam", val=(0.1, score), seed=0, changes=CHANCE)
    (pair,) = checked(tmp_path).pairs
    assert (pair.won, pair.lost) == (5, 1)


def test_a_candidate_is_called_what_it_is(tmp_path: Path) -> None:
    raced(tmp_path, {"adam": [0.9] * 5, "sgd": [0.8] * 5, "rmsprop": [0.7] * 5})
    sentences = verdict.sentences(checked(tmp_path, candidate="sgd"))
    assert sentences[0].startswith("sgd was named beforehand: against adam, which stands first, 0 of 5 seeds")
    expected = "5 seeds cannot show sgd ahead of any of the others; at least 6 are needed."
    assert sentences[1] == f"No order is claimed: {expected}"
    shutil.rmtree(tmp_path / "rmsprop-0")
    for path in tmp_path.glob("rmsprop*"):
        shutil.rmtree(path)
    sentences = verdict.sentences(checked(tmp_path, candidate="adam"))
    assert sentences[0] == (
        "adam is ahead of sgd: better on 5 of 5 seeds (share at least 54 %), typically by +10.00 points; "
        "p = 0.031 over the one statement."
    )
    assert "adam was named beforehand: no statement is made on who is ahead of it." in sentences
    expected = " ".join(report.method(checked(tmp_path, candidate="adam")))
    assert "“adam is ahead” of each of the others" in expected
    assert "both directions" not in expected


def test_a_candidate_of_the_search_was_not_named(tmp_path: Path) -> None:
    for optimizer, score in (("adam", 0.9), ("sgd", 0.8)):
        for lr in (0.1, 0.01):
            write_run(tmp_path / f"{optimizer}-{lr}", f"optimizer={optimizer}", val=(0.1, score - lr), lr=lr,
                      seed=100, stage="tune")  # fmt: skip
        raced(tmp_path, {optimizer: [score] * 6}, lr=0.01, stage="final")
    comparison = checked(tmp_path, candidate="tuned")
    assert any(line.startswith("adam was chosen by the search") for line in verdict.sentences(comparison))
    assert wording.facts(comparison)["verdict"].endswith("over 1 statement (adam chosen by the search)")


def test_shares_are_equal_where_they_are(tmp_path: Path) -> None:
    """adam and sgd each won two thirds; as floating-point sums these differed, and sgd stood first."""
    scores: Scores = {"adam": [0.9, 0.85, 0.2], "sgd": [0.8, 0.86, 0.81], "rmsprop": [0.83, 0.84, 0.1]}
    first, second, _ = checked(raced(tmp_path, scores)).competitors
    assert (first.name, first.proportion) == ("adam", second.proportion)


def test_means_that_print_alike_are_told_apart(tmp_path: Path) -> None:
    raced(tmp_path, {"adam": [0.9001] * 9 + [0.89909], "sgd": [0.9] * 10})
    first = verdict.sentences(checked(tmp_path))[0]
    assert "its mean is the worse one (89.9999 % against 90.0000 %)" in first or "worse" not in first
    shutil.rmtree(tmp_path)
    values = [*(0.91 + k / 100 for k in range(9)), 0.85]
    raced(tmp_path, {"adam": [*values], "sgd": [*(x - 0.01 for x in values[:9]), 0.94]})
    comparison = checked(tmp_path)  # the means are equal but for rounding
    assert "worse" not in verdict.sentences(comparison)[0]


def test_splits_that_only_one_of_two_has_are_not_counted(tmp_path: Path) -> None:
    for split in range(3):
        raced(tmp_path, {"adam": [0.92] * 6, **({"sgd": [0.9] * 6} if split < 2 else {})}, split)
    comparison = checked(tmp_path)
    sentences = verdict.sentences(comparison)
    assert "typically by +2.00 points [+2.00, +2.00], means over the splits" in sentences[0]
    assert sentences[1].startswith("All this is of these 2 splits")
    note = "Splits are not the same everywhere: a pair is compared on the splits that both have."
    assert note in comparison.notes


def test_a_target_is_of_one_that_was_run_on_every_workload(tmp_path: Path) -> None:
    """sgd, on the easy one only, looks best, and would leave the hard one without a target."""
    for name, off in (("digits", 0.0), ("moons", 0.4)):
        for optimizer, score in (("rmsprop", 0.95), ("momentum", 0.94), ("sgd", 0.99)):
            if (optimizer, name) != ("sgd", "moons"):
                raced(tmp_path / name, {optimizer: [score - off] * 6}, data__name=name)
        for path in (tmp_path / name).glob("*/run.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "data_sha256": name}))
    comparison = checked(tmp_path, workloads=["data"])
    assert comparison.targets == pytest.approx({"digits": 0.95, "moons": 0.55})
    assert comparison.target_of == "the best value that more than half of the runs of rmsprop reach"
    assert comparison.competitors[-1].times["epochs"].estimate == 1
    comparison = checked(tmp_path, workloads=["data"], reference="sgd")
    assert comparison.targets == {"digits": 0.99}
    assert comparison.competitors[0].times["epochs"].estimate == np.inf


# --- numbers in words -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_failures_have_no_size(tmp_path: Path) -> None:
    scores: Scores = {"adam": [0.9, 0.9, None, None], "sgd": [None, None, 0.8, 0.8]}
    comparison = checked(raced(tmp_path, scores))
    assert np.isnan(comparison.pairs[0].difference.estimate)
    sentences = verdict.sentences(comparison)
    assert sentences[0].endswith("2 of 4 seeds (share 6–94 %).")
    assert sentences[2] == "Runs that failed: adam 2 of 4 and sgd 2 of 4."
    assert not any("∞" in line for line in sentences)


def test_all_runs_failed(tmp_path: Path) -> None:
    raced(tmp_path / "some", {"adam": [None] * 3, "rmsprop": [0.5] * 3})
    table = tables.summary(checked(tmp_path / "some"))
    at = table.header.index("mean val. accuracy, failed runs at chance")
    assert [row[at] for row in table.cells()] == ["50.00 %", "–"]
    for seed in range(2):
        folder = tmp_path / "none" / str(seed)
        write_run(folder, val=(), seed=seed, status="diverged")
        (folder / "metrics.jsonl").write_text(
            '{"step": 0, "epoch": 0, "train_seconds": 0, "loss/train": 1}\n'
        )
    with pytest.raises(UserError, match=r"runs: all failed \(2 diverged\) before anything comparable was"):
        analysed(tmp_path / "none")


def test_failures_of_other_settings_stand_in_a_column_of_their_own(tmp_path: Path) -> None:
    raced(tmp_path, {"adam": [0.9] * 3, "sgd": [0.8, 0.8, None]}, lr=0.01)
    raced(tmp_path, {"adam": [None] * 3}, lr=0.1)
    table = tables.summary(checked(tmp_path, by=["optimizer"]))
    at = [table.header.index(name) for name in ("failed", "failed of its other runs")]
    assert [[row[i] for i in at] for row in table.cells()] == [["", "3 of 3"], ["1 of 3", ""]]
    assert "mean val. accuracy, failed runs at chance" in table.header


@pytest.mark.parametrize(("won", "lost"), [(13, 4), (22, 10), (10, 1), (9, 1), (24, 12), (2, 0), (35, 18)])
def test_what_is_printed_agrees_with_what_is_claimed(tmp_path: Path, won: int, lost: int) -> None:
    """The share's interval leaves out ½, and p is at most 0.05, where and only where there is a claim."""
    raced(tmp_path, {"adam": [0.9] * won + [0.7] * lost, "sgd": [0.8] * (won + lost)})
    comparison = checked(tmp_path)
    text = " ".join(verdict.sentences(comparison))
    low, high = re.findall(r"share ([\d.]+)–([\d.]+) %", text)[0]
    assert (float(low) > 50) == bool(claims(comparison))
    exact = scipy.stats.binomtest(won, won + lost).proportion_ci(0.95, "exact")
    assert float(low) <= 100 * exact.low
    assert float(high) >= 100 * exact.high
    assert (float(high) == 100) == (exact.high == 1)
    for p in re.findall(r"p = ([\d.]+)", text):
        assert (float(p) <= 0.05) == bool(claims(comparison))


def test_claims_stand_first_and_ties_beside_them(tmp_path: Path) -> None:
    """sgd and rmsprop are told apart; the leader is not."""
    scores: Scores = {
        "adam": [0.9] * 13 + [0.5] * 7,
        "sgd": [0.8] * 20,
        "rmsprop": [0.8] * 9 + [0.7] * 11,
    }
    sentences = verdict.sentences(checked(raced(tmp_path, scores)))
    assert sentences[0] == "sgd is ahead of rmsprop (11 of 11 seeds; 9 tied)."
    assert " is not shown to differ from " in sentences[1]


def test_one_competitor_has_no_p_values(tmp_path: Path) -> None:
    for lr, score in ((0.1, 0.9), (0.2, 0.8), (0.3, 0.7)):
        raced(tmp_path, {"adam": [score] * 6}, lr=lr)
    comparison = checked(tmp_path, tune=["lr"])
    assert wording.title(comparison) == "The best of 3 settings, on digits"
    text = " ".join([*comparison.notes, *report.method(comparison), *verdict.sentences(comparison)])
    assert not re.search(r"p-value|sign test|votes", text)
    assert "all runs's" not in text + wording.facts(comparison)["target"]


# --- sentences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8, 9, 10, 30])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_sentences_of_few_and_many_seeds(tmp_path: Path, k: int, n: int) -> None:
    """A claim only from the fewest seeds on that could carry it; what is said below them is said as that."""
    rng = np.random.default_rng(n)
    names = ("adam", "sgd", "momentum", "nesterov", "rmsprop")[:k]
    scores = {name: [*map(float, 0.9 - i / 20 + rng.normal(0, 0.001, n))] for i, name in enumerate(names)}
    comparison = checked(sweep(tmp_path, scores))
    sentences = verdict.sentences(comparison)
    assert all(re.fullmatch(r"[A-Za-z].*\.", line) for line in sentences)
    assert not any("nan" in line or "  " in line for line in sentences)
    if k == 1:
        assert sentences[0].startswith("The run reaches " if n == 1 else "The runs reach ")
        return
    enough = n >= {2: 6, 5: 9}[k]
    assert bool(claims(comparison)) == enough
    assert ("is ahead of" in sentences[0]) == enough
    if n == 1:
        first = "On the one seed that both have, adam scored higher than sgd, the next ("
        assert sentences[0].startswith(first)
        assert sentences[1].startswith("One seed orders nothing")
    elif n == 2:
        assert "share of seeds: against sgd, the next, both seeds (share 15–100 %)" in sentences[0]
    elif not enough:
        assert f"No order is claimed: {n} seeds cannot order" in sentences[1]
    table = tables.summary(comparison)
    assert [row[1] for row in table.cells()] == list(names)


def test_losses_in_sentences(tmp_path: Path) -> None:
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", loss=(1.0, 0.5 + seed / 1000), seed=seed)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", loss=(1.0, 0.2 + seed / 1000), seed=seed)
    sentences = verdict.sentences(checked(tmp_path, metric="loss/train"))
    assert sentences[0].startswith(
        "sgd is ahead of adam: better on 8 of 8 seeds (share 63–100 %), typically lower by 0.3 ["
    )


# --- numbers for a program ------------------------------------------------------------------------------


def test_infinite_missing_and_not_computed_differ(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), seed=seed)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, None), seed=seed, status="diverged")
    content = numbers.as_dict(checked(tmp_path, target=0.95))
    adam, sgd = content["competitors"]
    assert adam["to_target"]["epochs"] == {"estimate": "inf", "low": None, "high": None}
    assert sgd["median"] == {"estimate": "failed", "low": None, "high": None}
    assert content["pairs"][0]["median_difference"]["estimate"] == "inf"
    assert "as_shipped" not in adam
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "pairs": [{**content["pairs"][0], "won": "inf"}]}, SCHEMA)


def test_the_files_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compare = partial(call, command.main, "ffn-compare", monkeypatch, capsys)
    sweep(tmp_path / "s", {"adam": [0.9 + k / 1000 for k in range(8)], "sgd": SGD})
    result = compare("runs=s", "candidate=adam")
    assert result.code == 0, result.err
    content = json.loads((tmp_path / "s/compare/comparison.json").read_text())
    jsonschema.validate(content, SCHEMA)
    assert content["verdict"]["candidate"] == "adam"
    assert content["verdict"]["sentences"][0].removesuffix(".") in " ".join(result.out.split())


# --- error rates ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulation() -> Any:
    """scripts/check_verdicts.py as a module."""
    path = Path(__file__).parents[2] / "scripts" / "check_verdicts.py"
    spec = importlib.util.spec_from_file_location("check_verdicts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_verdicts"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    ["base", "k=2", "10 % fail", "4 workloads, one dominating", "unequal seeds",
        "a candidate",
        "k=2, 6 seeds on 5 splits",
     "k=2, n=6, tuned and as shipped",
     "36 settings against 1, new seeds", "better but 10 % fail, k=2, n=10"],
)  # fmt: skip
def test_a_short_simulation(simulation: Any, name: str) -> None:
    """Whole reports through run folders; scripts/check_verdicts.py does it for 60 cells with 2,000 each."""
    cell = next(cell for cell in simulation.cells() if cell.name == name)
    row = simulation.simulate(cell, 40)
    assert simulation.faults(row) == []
    assert row["reports"] == 40


def test_the_simulation_can_fail(simulation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the correction for the number of statements, a fifth of the reports on equals claim
    something."""
    monkeypatch.setattr("ffn_bench.compare.statistics.holm", list)
    row = simulation.simulate(next(cell for cell in simulation.cells() if cell.name == "base"), 100)
    assert "claims among equals" in simulation.faults(row)


def test_the_simulation_counts_what_is_said_of_default_settings(simulation: Any) -> None:
    content = {"verdict": {"sentences": []}, "notes": [], "first_against_shipped": [], "competitors": []}
    assert not simulation.speaks_of_defaults(content)
    note = "Tuning made adam worse than default settings"
    assert simulation.speaks_of_defaults({**content, "notes": [f"{note}."]})
    assert not simulation.speaks_of_defaults({**content, "notes": [f"{note}; no claim is made of it."]})
    assert simulation.speaks_of_defaults({**content, "first_against_shipped": [{"ahead": "adam"}]})
