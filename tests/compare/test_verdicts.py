"""What a comparison claims, and what it says where it claims nothing: by examples, and by simulation."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from compare.test_compare import ADAM, SGD, analysed, sweep
from conftest import call
from ffn_bench.compare import command, numbers, tables, verdict, wording
from ffn_bench.compare.study import Study
from ffn_bench.errors import UserError
from run_folders import write_run

SCHEMA = json.loads(files("ffn_bench.compare").joinpath("comparison.schema.json").read_text())
CHANCE = {"chance": {"accuracy": 0.1, "loss": 2.3}}


def checked(folder: Path, **keys: Any) -> Study:
    """The comparison; its JSON obeys the schema, and says what the sentences say."""
    found = analysed(folder, **keys)
    content = json.loads(json.dumps(numbers.as_dict(found), allow_nan=False))
    jsonschema.validate(content, SCHEMA)
    said = " ".join(content["verdict"]["sentences"])
    for claim in content["verdict"]["claims"]:
        assert claim["ahead"] in said
        assert claim["of"] in said
    assert bool(content["verdict"]["claims"]) == (" is ahead of " in said)
    return found


def claims(found: Study) -> set[tuple[str, str]]:
    """Who is ahead of whom."""
    return {(p.ahead, p.second if p.ahead == p.first else p.first) for p in found.pairs if p.ahead}


# --- the examples that were found to be wrong -----------------------------------------------------------


def test_equal_differences_make_no_winner(tmp_path: Path) -> None:
    """Three differences without spread had p = 0."""
    found = checked(sweep(tmp_path, {"adam": [0.9, 0.91, 0.92], "sgd": [0.89, 0.90, 0.91]}))
    assert claims(found) == set()
    assert verdict.sentences(found) == [
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
    found = checked(tmp_path)
    assert claims(found) == {("adam", "sgd")}
    first = verdict.sentences(found)[0]
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
    found = checked(tmp_path, by=["optimizer"])
    assert dict(found.competitors[0].cells["digits"].setting) == {"lr": 0.01}
    assert any("1 setting has fewer seeds than others, and could not be chosen" in n for n in found.notes)


def test_more_settings_on_the_same_seeds_pay_for_it(tmp_path: Path) -> None:
    for seed in range(8):
        for k in range(36):
            write_run(tmp_path / f"a{k}-{seed}", val=(0.1, 0.9 + k / 1000), seed=seed, lr=0.001 * (k + 1))
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.9), seed=seed, lr=0.1)
    found = checked(tmp_path)
    (pair,) = found.pairs
    assert (pair.won, pair.choices) == (8, 36.0)
    assert pair.adjusted[0] == pytest.approx(2 * 36 / 2**8)
    assert claims(found) == set()
    assert verdict.sentences(found)[1] == (
        "No order is claimed: 8 seeds cannot order two competitors; at least 11 are needed, since these "
        "seeds chose the settings (36 ways)."
    )
    assert any("p-values are multiplied" in note for note in found.notes)
    assert not pair.difference.known  # eight seeds are too few for an interval of the best of 36


def test_the_seeds_that_are_asked_for_are_enough(tmp_path: Path) -> None:
    """Where the reported seeds chose, more are needed, and the sentence says how many."""
    for seed in range(5):
        for optimizer, off in (("adam", 0.02), ("sgd", 0.01), ("rmsprop", 0.0)):
            for lr in (0.1, 0.01):
                folder = tmp_path / f"{optimizer}-{lr}-{seed}"
                write_run(folder, f"optimizer={optimizer}", val=(0.1, 0.8 + off + lr), seed=seed, lr=lr)
    said = verdict.sentences(checked(tmp_path))
    assert "5 seeds cannot order 3 competitors; at least 9 are needed" in said[1]  # 2·2·6 / 2⁹ ≤ 0.05


def test_seeds_of_the_search_that_are_reported_pay_too(tmp_path: Path) -> None:
    """Whatever the stage says: what counts is whether the seeds that are reported chose."""
    for seed in range(8):
        for k in range(3):
            write_run(tmp_path / f"t{k}-{seed}", val=(0.1, 0.9), seed=seed, lr=0.01 * (k + 1), stage="tune")
        write_run(tmp_path / f"f{seed}", val=(0.1, 0.95), seed=seed, lr=0.01, stage="final")
        write_run(tmp_path / f"n{seed}", "optimizer=sgd", val=(0.1, 0.9), seed=seed + 2, stage="final")
    write_run(tmp_path / "s", "optimizer=sgd", val=(0.1, 0.9), seed=100, stage="tune")
    found = checked(tmp_path)
    assert {c.name: c.cells["digits"].choices for c in found.competitors} == {"adam": 3, "sgd": 1}


def test_every_number_of_a_sentence_is_of_the_seeds_that_both_have(tmp_path: Path) -> None:
    """adam has two bad seeds that sgd was never run on: they rank nothing."""
    sweep(tmp_path, {"adam": [*ADAM, 0.1, 0.1], "sgd": SGD})
    found = checked(tmp_path)
    (pair,) = found.pairs
    assert (pair.seeds, pair.won, pair.lost) == (8, 6, 0)
    assert found.competitors[0].name == "adam"
    assert any("Seeds are not the same everywhere" in note for note in found.notes)


def test_leaderboard_and_report_that_differ_say_why(tmp_path: Path) -> None:
    for seed in range(10):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), test=(0.1, 0.8 + seed / 100), seed=seed)
        test = (0.1, 0.85 + seed / 100)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.8), test=test, seed=seed)
    found = checked(tmp_path)
    assert claims(found) == {("sgd", "adam")}
    (note,) = [n for n in found.notes if "leaderboard" in n]
    assert note == (
        "A leaderboard shows adam first: it ranks by mean validation accuracy of the runs that finished "
        "(adam 90.00 %; sgd 80.00 %). This report ranks by seeds won on test accuracy."
    )


# --- failures, ties, seeds ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted", None])
def test_a_run_that_began_and_did_not_end_loses(tmp_path: Path, status: str | None) -> None:
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", val=(0.1, 0.9), seed=seed, status=status if seed < 7 else "finished")
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", val=(0.1, 0.0001), seed=seed)
    found = checked(tmp_path)
    pair = found.pair("sgd", "adam")
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
    found = checked(tmp_path)
    assert claims(found) == set()
    assert verdict.sentences(found)[0] == "No order is claimed: 1 run still training."


def test_a_copied_run_is_one_seed(tmp_path: Path) -> None:
    """Ten folders of one and the same run, bit by bit, have one vote."""
    rng = np.random.default_rng(0)
    for optimizer, level in (("adam", 0.9), ("sgd", 0.8)):
        curve = [level + float(x) / 100 for x in rng.random(12)]
        for seed in range(10):
            write_run(tmp_path / f"{optimizer}{seed}", f"optimizer={optimizer}", val=curve, seed=seed)
    found = checked(tmp_path)
    assert found.pairs[0].seeds == 1
    assert any("9 seeds repeat the run of another one bit by bit" in note for note in found.notes)


def test_ties_leave_nothing_to_decide(tmp_path: Path) -> None:
    found = checked(sweep(tmp_path, {"adam": [0.9] * 9, "sgd": [0.9] * 9}))
    assert verdict.sentences(found) == [
        "adam and sgd tie on all 9 seeds.",
        "No order is claimed: none of 9 seeds tells adam and sgd apart; at least 6 must.",
    ]


def test_a_candidate_named_beforehand_needs_fewer_seeds(tmp_path: Path) -> None:
    names = ("adam", "sgd", "momentum", "nesterov", "rmsprop")
    scores = {name: [0.9 - k / 100] * 7 for k, name in enumerate(names)}
    found = checked(sweep(tmp_path, scores))
    assert claims(found) == set()
    found = checked(tmp_path, candidate="adam")
    assert claims(found) == {("adam", other) for other in names[1:]}
    assert "over 4 statements (adam named beforehand)" in wording.facts(found)["verdict"]
    assert claims(checked(tmp_path, candidate="sgd")) == {("sgd", other) for other in names[2:]}
    said = " ".join(verdict.sentences(checked(tmp_path, candidate="rmsprop")))
    assert "rmsprop is not shown to be ahead of" in said or "rmsprop was named beforehand" in said
    assert "differ" not in said
    with pytest.raises(UserError, match="candidate: 'adm' is not compared"):
        analysed(tmp_path, candidate="adm")
    with pytest.raises(UserError, match="candidate: the seeds that are reported did the search"):
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
    found = checked(tmp_path, workloads=["data"])
    assert claims(found) == {("adam", "sgd")}
    first = verdict.sentences(found)[0]
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
    found = checked(tmp_path)
    assert (found.pairs[0].seeds, found.pairs[0].runs) == (3, 12)
    assert claims(found) == set()
    assert not found.competitors[0].test.known


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
    found = checked(tmp_path)
    assert claims(found) == {("sgd", "adam")}
    assert any("adam: 8 runs have the seed of another one" in note for note in found.notes)


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
    said = verdict.sentences(checked(sweep(tmp_path, {"adam": [0.9, 0.8] * 4, "sgd": [0.8, 0.9] * 4})))
    assert said[0].startswith("adam and sgd won the same share of seeds: against sgd, the next, 4 of 8 seeds")


def test_nobody_with_results_on_all_workloads(tmp_path: Path) -> None:
    for k, (optimizer, name) in enumerate((("adam", "digits"), ("sgd", "moons"))):
        write_run(tmp_path / str(k), f"optimizer={optimizer}", data__name=name, changes={"data_sha256": name})
    said = verdict.sentences(checked(tmp_path, workloads=["data"]))
    assert said == ["Nobody has results on both workloads, so that nobody can be compared over them."]


def test_a_rival_that_is_better_as_shipped_is_a_but(tmp_path: Path) -> None:
    for optimizer, tuned, shipped in (("adam", 0.9, 0.7), ("sgd", 0.8, 0.95)):
        write_run(tmp_path / f"{optimizer}-t", f"optimizer={optimizer}", seed=100, lr=0.1, stage="tune")
        for seed in range(8):
            keys: dict[str, Any] = {"seed": seed}
            name = f"{optimizer}-{seed}"
            write_run(
                tmp_path / name, f"optimizer={optimizer}", val=(0.1, tuned), lr=0.1, stage="final", **keys
            )
            val = (0.1, shipped)
            write_run(tmp_path / f"{name}-d", f"optimizer={optimizer}", val=val, stage="default", **keys)
    said = verdict.sentences(checked(tmp_path))
    assert said[0].startswith("adam is ahead of sgd: better on 8 of 8 seeds")
    assert said[1].startswith("No claim is made against others as shipped")
    assert said[1].endswith("adam has 0 won, 8 lost against sgd.")


# --- sentences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 8, 9, 10, 30])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_sentences_of_few_and_many_seeds(tmp_path: Path, k: int, n: int) -> None:
    """A claim only from the fewest seeds on that could carry it; what is said below them is said as that."""
    rng = np.random.default_rng(n)
    names = ("adam", "sgd", "momentum", "nesterov", "rmsprop")[:k]
    scores = {name: [*map(float, 0.9 - i / 20 + rng.normal(0, 0.001, n))] for i, name in enumerate(names)}
    found = checked(sweep(tmp_path, scores))
    said = verdict.sentences(found)
    assert all(re.fullmatch(r"[A-Za-z].*\.", line) for line in said)
    assert not any("nan" in line or "  " in line for line in said)
    if k == 1:
        assert said[0].startswith("The run reaches " if n == 1 else "The runs reach ")
        return
    enough = n >= {2: 6, 5: 9}[k]
    assert bool(claims(found)) == enough
    assert ("is ahead of" in said[0]) == enough
    if n == 1:
        assert said[0].startswith("On the one seed that both have, adam scored higher than sgd, the next (")
        assert said[1].startswith("One seed orders nothing")
    elif n == 2:
        assert "share of seeds: against sgd, the next, both seeds (share 15–100 %)" in said[0]
    elif not enough:
        assert f"No order is claimed: {n} seeds cannot order" in said[1]
    table = tables.summary(found)
    assert [row[1] for row in table.cells()] == list(names)


def test_losses_in_sentences(tmp_path: Path) -> None:
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", loss=(1.0, 0.5 + seed / 1000), seed=seed)
        write_run(tmp_path / f"s{seed}", "optimizer=sgd", loss=(1.0, 0.2 + seed / 1000), seed=seed)
    said = verdict.sentences(checked(tmp_path, metric="loss/train"))
    assert said[0].startswith(
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
