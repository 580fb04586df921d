"""Tuning: what is tried, what is chosen, what is trained then, and that a kill changes none of it."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import json
import math
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cases import OPTIMIZER_NEEDS, composed, options, parsed
from conftest import Command, Result
from ffn_bench import tags
from ffn_bench.command_line.composition import guarded
from ffn_bench.configuration import schema
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.errors import UserError
from ffn_bench.run_folder import files
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.identity import FORMAT
from ffn_bench.run_folder.lock import Lock
from ffn_bench.run_folder.recorder import Record
from ffn_bench.sweeps.planning import Planned
from ffn_bench.sweeps.search_space import Axis, draws, read_space
from ffn_bench.sweeps.trials import Combination, Trial
from ffn_bench.sweeps.tuning import Rules
from run_folder.test_folders import start
from run_folder.test_survival import outcome
from sweeps.test_sweep import swap

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="the extra `optuna` is not installed"
)
SMALL = ("data=moons", "epochs=2")


def space_of(option: str) -> list[Axis]:
    with (
        guarded(schema.TrainConfig),
        initialize_config_dir(version_base="1.3", config_dir=str(config_folder())),
    ):
        _, texts = read_space(GlobalHydra.instance().config_loader(), option)
    return [Axis.read(key, text, option) for key, text in texts.items()]


def configs(tmp_path: Path, name: str) -> dict[str, dict[str, Any]]:
    """By folder, what run.json says of the configuration."""
    files = (tmp_path / "outputs" / "sweeps" / name).glob("*/run.json")
    return {f.parent.name: json.loads(f.read_text())["config"] for f in files}


def tally(tmp_path: Path, name: str) -> Counter[tuple[str, str | None]]:
    return Counter((c["optimizer.name"], c["stage"]) for c in configs(tmp_path, name).values())


def sweep_folder(tmp_path: Path, name: str) -> Path:
    return tmp_path / "outputs" / "sweeps" / name


# --- what is tried --------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_space_draws_valid_settings_within_its_bounds(option: str) -> None:
    space = space_of(option)
    assert space[0].key == "lr"
    settings = list(itertools.islice(draws(space, option, 0), 40))
    assert len(set(settings)) == 40
    parser = OverridesParser.create()
    for setting in settings:
        for axis, override in zip(space, parser.parse_overrides(list(setting)), strict=True):
            if axis.choices:
                assert override.get_value_element_as_str() in axis.choices
            else:
                value = override.value()
                assert isinstance(value, (int, float))
                assert axis.low <= value <= axis.high
    for setting in settings[:2]:  # composed with the optimizer's defaults
        run = parsed(f"optimizer={option}", *OPTIMIZER_NEEDS.get(option, []), *setting)
        assert f"lr={run.lr:.10g}" == setting[0]


def test_an_optimizer_without_a_space_has_the_default() -> None:
    of_none = {option for option in options("optimizer") if space_of(option) == space_of("my/own")}
    assert of_none == {"torch"}


@pytest.mark.parametrize("option", options("optimizer"))
def test_a_space_is_no_part_of_a_configuration(option: str) -> None:
    """Neither where the optimizer's keys are nor, in a file for `_global_`, where the run's are."""
    file = config_folder() / "optimizer" / f"{option}.yaml"
    assert (option == "torch") or "search_space:" in file.read_text()
    assert "search_space" not in OmegaConf.to_yaml(composed(f"optimizer={option}"))


def test_draws_of_a_budget_are_the_first_of_a_larger_one() -> None:
    space = space_of("adam")
    small, large = (list(itertools.islice(draws(space, "adam", 0), n)) for n in (25, 75))
    assert large[:25] == small
    assert list(itertools.islice(draws(space, "adam", 1), 25)) != small
    assert list(itertools.islice(draws(space, "nadam", 0), 25)) != small
    # A range of a person's own moves the rates and leaves the other draws where they were.
    narrow = [Axis.read("lr", "interval(0.1,0.2)", "lr"), *space[1:]]
    assert [s[1] for s in itertools.islice(draws(narrow, "adam", 0), 25)] == [s[1] for s in small]


def test_draws_end_where_a_space_is_used_up() -> None:
    axis = Axis.read("optimizer.momentum", "choice(0.5,0.9,0.99)", "x")
    assert sorted(draws([axis], "sgd", 0)) == [(f"optimizer.momentum={m}",) for m in (0.5, 0.9, 0.99)]


def test_axes() -> None:
    rates = Axis.read("lr", "tag(log, interval(1e-5, 1e2))", "x").grid(36)
    assert (len(rates), rates[0], rates[9], rates[-1]) == (36, "1e-05", "0.000631", "100")
    steps = [math.log10(float(b) / float(a)) for a, b in itertools.pairwise(rates)]
    assert steps == pytest.approx([0.2] * 35, abs=1e-3)
    assert Axis.read("x", "int(interval(0,1))", "x").grid(3) == ["0", "1"]
    assert Axis.read("x", "interval(0.0,1.0)", "x").grid(3) == ["0", "0.5", "1"]
    assert {Axis.read("x", "int(interval(1,3))", "x").at(k / 99) for k in range(100)} == {"1", "2", "3"}
    assert Axis.read("b", "choice([0.9,0.99],[0.5,0.9])", "x").choices == ("[0.9,0.99]", "[0.5,0.9]")
    for text in ("interval(1,0)", "tag(log,interval(0,1))", "interval(1", "interval(0,inf)"):
        with pytest.raises(UserError):
            Axis.read("lr", text, "x")


# --- what is chosen -------------------------------------------------------------------------------------


def combination(
    tmp_path: Path, outcomes: dict[float, list[tuple[str, float, float]]], *keys: str
) -> Combination:
    """A search of adam's rates whose runs ended so: (status, best validation accuracy, loss), a seed each."""
    default_run = parsed("stage=default", "seed=9", *keys)
    trials = []
    for rate, of_seeds in outcomes.items():
        plans = []
        for seed, (status, accuracy, loss) in enumerate(of_seeds):
            folder = Folder(tmp_path / f"{rate:g}-{seed}")
            best = {"epoch": 1, "accuracy/val": accuracy, "loss/val": loss}
            counts: dict[str, Any] = {
                "epochs": default_run.epochs,
                "steps": default_run.epochs,
                "final": {"accuracy/train": accuracy},
            }
            counts["monitor"] = default_run.monitored
            summary = {"status": status, **counts, "best": None if status == "failed" else best}
            run = replace(default_run, lr=rate, seed=seed, stage="tune")
            identity = {"format": FORMAT, "config": schema.flatten(run), "data_sha256": ""}
            folder.replace("run.json", files.to_json(identity))
            folder.replace("summary.json", files.to_json(summary))
            plans.append(Planned((f"lr={rate:g}",), run, folder))
        trials.append(Trial((f"lr={rate:g}",), plans))
    default = [Planned((), default_run, Folder(tmp_path / "default"))]
    return Combination(
        base=(),
        optimizer="adam",
        shown={"optimizer": "adam"},
        tuned=frozenset({"lr"}),
        trials=trials,
        default=default,
    )


def test_the_best_mean_over_the_tuning_seeds_is_chosen(tmp_path: Path) -> None:
    outcomes = {
        0.1: [("finished", 0.99, 0.1), ("finished", 0.5, 0.1)],
        0.2: [("finished", 0.8, 0.1), ("finished", 0.8, 0.1)],
        0.3: [("finished", 0.99, 0.1), ("diverged", 0.99, 0.1)],
        0.4: [("finished", 0.99, 0.1), ("failed", 0.99, 0.1)],
    }
    tuned = combination(tmp_path, outcomes)
    assert [t.score() for t in tuned.trials[1:]] == [(0.8, 0.1), (0.495, math.inf), None]
    choice = tuned.choose()
    assert (choice.setting, choice.score, choice.edge) == (("lr=0.2",), 0.8, None)
    assert choice.tally == {"finished": 6, "diverged": 1, "failed": 1}


def test_ties_go_to_the_lower_loss_then_to_the_first(tmp_path: Path) -> None:
    tied = {0.1: 0.5, 0.2: 0.3, 0.3: 0.3, 0.4: 0.9}
    choice = combination(tmp_path, {r: [("finished", 0.9, loss)] for r, loss in tied.items()}).choose()
    assert choice.setting == ("lr=0.2",)


def test_what_is_monitored_chooses(tmp_path: Path) -> None:
    """Here the validation loss, of which lower is better; diverged runs rank last."""
    outcomes = {
        0.1: [("finished", 0.99, 0.5)],
        0.2: [("finished", 0.5, 0.1)],
        0.3: [("diverged", 0.99, 0.01)],
    }
    choice = combination(tmp_path, outcomes, "monitor=loss/val").choose()
    assert (choice.setting, choice.score) == (("lr=0.2",), 0.1)


@pytest.mark.parametrize(("best", "edge"), [(0.01, True), (0.1, False), (1.0, True)])
def test_the_edge_of_the_search_is_reported(tmp_path: Path, best: float, edge: bool) -> None:
    outcomes = {r: [("finished", 0.9 if r == best else 0.5, 0.1)] for r in (0.01, 0.1, 1.0)}
    choice = combination(tmp_path, outcomes).choose()
    assert choice.edge == ((f"{best:g}", "0.01", "1") if edge else None)


def test_a_diverged_search_chooses_and_a_failed_one_does_not(tmp_path: Path) -> None:
    for status, setting in (("diverged", ("lr=0.1",)), ("failed", None)):
        (folder := tmp_path / status).mkdir()
        assert combination(folder, {0.1: [(status, 0.9, 0.1)]}).choose().setting == setting


def test_tuning_and_final_seeds_are_disjoint() -> None:
    def rules(search: str, tuning: Any, final: Any) -> Rules:
        return Rules(search=search, trials=3, search_seed=0, tuning_seeds=tuning, final_seeds=final)

    given = rules("grid", "range(0,3)", [7, 8])
    assert (given.tuning_seeds, given.final_seeds) == ((0, 1, 2), (7, 8))
    assert rules("none", [0], [0, 1]).final_seeds == (0, 1)  # nothing is searched
    for tuning, final in (([0], [0, 1]), ("range(0,3)", [2]), ([0, 0], [1]), ([], [1]), (["a"], [1])):
        with pytest.raises(UserError):
            rules("grid", tuning, final)


# --- the command ----------------------------------------------------------------------------------------

TUNE = ("+tune=grid_deepobs", "hydra.sweeper.trials=5", "hydra.sweeper.final_seeds=[5,6]", *SMALL)


def test_a_tuning_from_the_command_line(ffn: Command, tmp_path: Path) -> None:
    """Both stages of two optimizers on two data sets; the summaries say the same as what was chosen."""
    command = (*TUNE, "data=moons,digits", "optimizer=adam,momentum", "name=t")
    result = ffn(*(argument for argument in command if argument != "data=moons"))
    assert result.code == 0, result.err
    every = configs(tmp_path, "t")
    assert tally(tmp_path, "t") == {
        (name, stage): n
        for name in ("adam", "momentum")
        for stage, n in (("tune", 10), ("final", 4), ("default", 4))
    }
    for name, data in itertools.product(("adam", "momentum"), ("moons", "digits")):
        own = {f: c for f, c in every.items() if (c["optimizer.name"], c["data.name"]) == (name, data)}
        tried = {c["lr"]: f for f, c in own.items() if c["stage"] == "tune"}
        assert sorted(tried) == pytest.approx([1e-5, 10**-3.25, 10**-1.5, 10**0.25, 100], rel=1e-3)
        scores = {}
        for rate, folder in tried.items():
            summary = json.loads((sweep_folder(tmp_path, "t") / folder / "summary.json").read_text())
            accuracy = summary["best"]["accuracy/val"] if summary["status"] == "finished" else 0.0
            scores[rate] = (-accuracy, summary["best"]["loss/val"] or math.inf)
        best = min(scores, key=lambda rate: scores[rate])
        assert {c["lr"] for c in own.values() if c["stage"] == "final"} == {best}
        assert {c["lr"] for c in own.values() if c["stage"] == "default"} == {0.005}
        for stage, seeds in (("tune", [0]), ("final", [5, 6]), ("default", [5, 6])):
            assert sorted({c["seed"] for c in own.values() if c["stage"] == stage}) == seeds
        assert re.search(rf"{name} +data={data} +lr={best:g}|{name} data={data} +lr={best:g}", result.out)
    assert "stage 1 of 2" in result.out
    board = result.out[result.out.index("leaderboard") : result.out.index("tuned against default settings")]
    rows = [line.split()[1:4] for line in board.splitlines() if re.match(r" *\d", line)]
    assert sorted(map(tuple, rows)) == sorted(
        itertools.product(("adam", "momentum"), ("moons", "digits"), ("tuned", "default"))
    )
    # The same command again trains nothing, and says the same.
    again = ffn(*(argument for argument in command if argument != "data=moons"))
    assert again.out[again.out.index("leaderboard") :] == result.out[result.out.index("leaderboard") :]
    assert "20 runs have already ended" in again.out and "16 runs have already ended" in again.out


@pytest.mark.parametrize("tag", ["calibration_error/val", "roc_auc/val"])
def test_a_tuning_for_a_score_of_a_split(ffn: Command, tmp_path: Path, tag: str) -> None:
    """It chooses, ranks, and says how much was gained."""
    quantity = tags.quantity(tag)
    result = ffn(*TUNE, f"monitor={tag}", "data=moons", "optimizer=adam", "name=t")
    assert result.code == 0, result.err
    rates, scores = set(), {}
    for file in tmp_path.glob("outputs/sweeps/t/*/summary.json"):
        config = json.loads((file.parent / "run.json").read_text())["config"]
        summary = json.loads(file.read_text())
        assert summary["monitor"] == tag
        assert {quantity.tag("val"), quantity.tag("test")} <= summary["best"].keys()
        if config["stage"] == "tune":
            scores[config["lr"]] = quantity.sign * summary["best"][tag]
        elif config["stage"] == "final":
            rates.add(config["lr"])
    assert len(scores) == 5 and rates == {max(scores, key=lambda rate: scores[rate])}
    assert f"leaderboard by validation {quantity.label}" in result.out
    assert f"  {quantity.label}" in result.out[result.out.index("tuned against default settings") :]


def test_the_default_setting_where_it_is_best_is_trained_once(ffn: Command, tmp_path: Path) -> None:
    """A space whose only choice is the default; then, in the same folder, one with a better choice."""
    choices = "+hydra.sweeper.space={lr: 'choice(0.005)'}"
    command = ("+tune=random_25", "hydra.sweeper.final_seeds=[5,6]", "optimizer=sgd", *SMALL, "name=t")
    result = ffn(*command, choices.removeprefix("+"))
    assert result.code == 0, result.err
    assert "sgd: the default setting was best" in result.out
    assert "sgd: the space has 1 settings, all of which were tried" in result.out
    assert tally(tmp_path, "t") == {("sgd", "tune"): 1, ("sgd", "final"): 2}
    result = ffn(*command, choices.removeprefix("+").replace("0.005", "0.005,0.3"))
    assert result.code == 0, result.err
    assert "sgd: the best learning rate 0.3 is at the edge of the searched range (0.005 to 0.3)" in result.out
    stages = Counter((c["lr"], c["stage"]) for c in configs(tmp_path, "t").values())
    assert stages == {(0.005, "tune"): 1, (0.3, "tune"): 1, (0.005, "default"): 2, (0.3, "final"): 2}


def test_a_search_takes_no_other_runs_numbers(ffn: Command, tmp_path: Path) -> None:
    """Two of its folders were swapped: both fail, and neither is chosen."""
    keys = ("hydra.sweeper.trials=4", "hydra.sweeper.final_seeds=[5]", "optimizer=sgd", *SMALL)
    command = ("+tune=random_25", *keys, "name=t")
    assert ffn(*command).code == 0
    of_rate = {c["lr"]: f for f, c in configs(tmp_path, "t").items() if c["stage"] == "tune"}
    best = next(c["lr"] for c in configs(tmp_path, "t").values() if c["stage"] == "final")
    other = next(rate for rate in of_rate if rate != best)
    swap(*(sweep_folder(tmp_path, "t") / of_rate[rate] for rate in (best, other)))
    result = ffn(*command)
    assert result.code == 1, result.err
    assert result.out.count("holds another run: lr was") == 2
    assert "2 damaged" in result.out and "2 runs of the search failed" in result.out
    chosen = {c["lr"] for c in configs(tmp_path, "t").values() if c["stage"] == "final"}
    assert chosen and not chosen & {best, other}


def test_a_longer_search_uses_a_shorter_one(ffn: Command, tmp_path: Path) -> None:
    """In one folder: what was measured stays, and every run has the stage of the last command."""
    command = ("+tune=random_25", "hydra.sweeper.final_seeds=[5]", "optimizer=adam", *SMALL, "name=t")
    assert ffn("+tune=defaults", *command[1:]).code == 0
    assert tally(tmp_path, "t") == {("adam", "final"): 1}
    assert ffn(*command, "hydra.sweeper.trials=3").code == 0
    assert tally(tmp_path, "t") == {("adam", "tune"): 3, ("adam", "final"): 1, ("adam", "default"): 1}
    chosen_of_3 = {c["lr"] for c in configs(tmp_path, "t").values() if c["stage"] == "final"}
    result = ffn(*command, "hydra.sweeper.trials=12")
    assert "3 runs have already ended" in result.out
    counts = tally(tmp_path, "t")
    no_longer = counts.pop(("adam", None), 0)  # the run of the setting that was chosen of three
    chosen_of_12 = {c["lr"] for c in configs(tmp_path, "t").values() if c["stage"] == "final"}
    assert no_longer == (chosen_of_12 != chosen_of_3)
    assert counts == {("adam", "tune"): 12, ("adam", "final"): 1, ("adam", "default"): 1}


def test_a_status_trains_nothing(ffn: Command, tmp_path: Path) -> None:
    result = ffn(*TUNE, "optimizer=sgd", "name=t", "status=true")
    assert (result.code, list(tmp_path.iterdir())) == (0, [])
    assert "7 missing" in result.out
    assert ffn(*TUNE, "optimizer=sgd", "name=t").code == 0
    result = ffn(*TUNE, "optimizer=sgd", "name=t", "status=true")
    assert "9 finished" in result.out or "diverged" in result.out
    assert "chosen settings" in result.out
    forced = ffn(*TUNE, "optimizer=sgd", "name=t", "force=true")
    assert forced.code == 0
    assert configs(tmp_path, "t-2").keys() == configs(tmp_path, "t").keys()


@pytest.mark.parametrize(("arguments", "optimizers"), [((), 12), (("-m", "optimizer=adam,sgd"), 2)])
def test_the_lectures_optimizers(ffn: Command, arguments: tuple[str, ...], optimizers: int) -> None:
    """The experiment's list, or the command line's; twenty seeds each for chosen and default settings."""
    result = ffn("+experiment=lecture_optimizers", "hydra.sweeper.trials=3", "status=true", *arguments)
    assert result.code == 0, result.err
    assert f"{optimizers * (3 + 20)} missing" in result.out


@pytest.mark.parametrize(("rules", "seeds"), [("random_25", 20), ("defaults", 20), ("grid_deepobs", 10)])
def test_final_seeds_are_twenty_but_for_deepobs(ffn: Command, rules: str, seeds: int) -> None:
    trials = 0 if rules == "defaults" else 3
    result = ffn(f"+tune={rules}", "hydra.sweeper.trials=3", "optimizer=adam", "status=true", *SMALL)
    assert result.code == 0, result.err
    assert f"{trials + seeds} missing" in result.out


def test_runs_of_a_search_that_fail(ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of adam's is not measured; all of sgd's: nothing is chosen for it, and the others go on."""
    write = Record.write

    def failing(self: Record, measurement: Any) -> None:
        tried = (self.folder.read_json("run.json") or {})["config"]
        if tried["stage"] == "tune" and (tried["optimizer.name"] == "sgd" or tried["lr"] < 1e-4):
            raise OSError(errno.EIO, "Input/output error")
        write(self, measurement)

    monkeypatch.setattr(Record, "write", failing)
    result = ffn(*TUNE, "optimizer=sgd,adam", "name=t")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.startswith("ffn-train: error: sgd: every run of the search failed")
    assert "sgd: 5 runs of the search failed and count as not measured; nothing was chosen" in result.out
    assert "adam: 1 runs of the search failed and count as not measured" in result.out
    assert tally(tmp_path, "t") == {
        ("adam", "tune"): 5,
        ("adam", "final"): 2,
        ("adam", "default"): 2,
        ("sgd", "tune"): 5,
        ("sgd", "default"): 2,
    }
    # With the fault gone, only what failed is trained, and stage two follows.
    monkeypatch.setattr(Record, "write", write)
    result = ffn(*TUNE, "optimizer=sgd,adam", "name=t")
    assert result.code == 0, result.err
    assert tally(tmp_path, "t")["sgd", "final"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1"], "seed: is set by +tune for every run; set hydra.sweeper.tuning_seeds and"),
        (["stage=final"], "stage: is set by +tune for every run"),
        (["lr=0.1"], "lr: is searched by +tune; leave it out, or give a range"),
        (["lr=0.1,0.2"], "lr: is searched by +tune"),
        (["hydra.sweeper.tuning_seeds=[5]"], "hydra.sweeper.final_seeds: seed 5 is also one of"),
        (["hydra.sweeper.search=gird"], "hydra.sweeper.search: 'gird' is not known (did you mean 'grid'?)"),
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials: 0 is too small"),
        (["hydra.sweeper.trials=x"], "hydra.sweeper.trials: must be an integer, not 'x'"),
        (["data.val_fraction=0"], "data.val_fraction: leaves no validation part"),
        (["optimizer=gd,lbfgs", "batch_size=32"], "batch_size: 32 cannot be combined with optimizer=gd"),
        (["max_runs=8"], "max_runs: the tuning has 9 runs, the limit is 8"),
        (["optimizer.weight_decay=interval(0,1)"], "optimizer.weight_decay: a grid searches lr only"),
        (["lr=interval(1,0.1)"], "lr: lr: interval(1,0.1) is not an interval"),
        (["optimizer=adam,adma"], "optimizer: 'adma' is not known"),
        (["optimizer=adam,sgd", "epchs=3"], "epchs: no such key (did you mean 'epochs'?)"),
    ],
)
def test_mistakes_are_one_line_and_create_nothing(
    ffn: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = ffn(*TUNE, *arguments)
    assert result.code == 2
    assert result.err.startswith(f"ffn-train: error: {message}")
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("apart", [True, False])
def test_a_space_of_a_persons_own(ffn: Command, tmp_path: Path, apart: bool) -> None:
    """In a file of its own, or in the optimizer's."""
    own = tmp_path / "mine"
    (own / "search_space").mkdir(parents=True)
    (own / "optimizer").mkdir()
    text = (config_folder() / "optimizer" / "momentum.yaml").read_text().replace("0.9", "0.8")
    text = text.partition("search_space:")[0]
    (own / "optimizer" / "heavy.yaml").write_text(text)
    file = own / ("search_space" if apart else "optimizer") / "heavy.yaml"

    def write(space: str) -> None:
        lines = "".join(f"  {line}\n" for line in space.splitlines())
        file.write_text(space if apart else f"{text}search_space:\n{lines}")

    write("lr: interval(0.1, 0.2)\noptimizer.momentum: choice(0.3, 0.4)\n")
    short = ("hydra.sweeper.trials=3", "hydra.sweeper.final_seeds=[5]")
    command = (f"--config-dir={own}", "+tune=random_25", *short, *SMALL, "optimizer=heavy", "name=t")
    assert ffn(*command).code == 0
    tried = [c for c in configs(tmp_path, "t").values() if c["stage"] == "tune"]
    assert all(0.1 <= c["lr"] <= 0.2 and c["optimizer.momentum"] in (0.3, 0.4) for c in tried)
    where = "search_space/heavy" if apart else "optimizer/heavy.yaml, search_space"
    write("lr: intervall(0.1, 0.2)\n")
    assert f"{where}: lr: 'intervall" in ffn(*command).err
    write("")
    assert ("is empty" if apart else f"{where}: contains no lines of the form key") in ffn(*command).err
    write("lr: interval(0.1, 0.2)\nlr: 3\n")
    line = 2 if apart else text.count("\n") + 3
    assert f"heavy.yaml, line {line}: key 'lr' is duplicated" in ffn(*command).err


# --- that a kill changes nothing ------------------------------------------------------------------------

KILLED = ("+tune=random_25", "hydra.sweeper.trials=6", "hydra.sweeper.final_seeds=[5,6]", "data=moons",
          "epochs=400", "optimizer=momentum,adam", "checkpoint_seconds=0.02")  # fmt: skip


def test_a_killed_tuning_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Killed at four instants, in both stages: the same choice and runs; what had ended stays as it was."""
    process = start(*KILLED, "name=whole", cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    reference = sweep_folder(tmp_path, "whole")
    sweep = sweep_folder(tmp_path, "t")
    rng, hit, ended = random.Random(1), 0, dict[str, bytes]()
    started = {"tune": False, "final": False}
    for stage in ("tune", "tune", "final", "final"):
        process = start(*KILLED, "name=t", cwd=tmp_path)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            stages = [json.loads(f.read_text())["config"]["stage"] for f in sweep.glob("*/run.json")]
            if stage in stages:
                started[stage] = True
                break
            time.sleep(0.02)
        try:
            process.wait(rng.uniform(0.0, 0.3))
        except subprocess.TimeoutExpired:
            process.kill()
            hit += 1
        process.communicate(timeout=30)
        summaries = {f.parent.name: f.read_bytes() for f in sweep.glob("*/summary.json")}
        assert ended.items() <= summaries.items()
        ended = summaries
    assert hit >= 2 and all(started.values())
    process = start(*KILLED, "name=t", cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    folders = sorted(f.parent.name for f in reference.glob("*/summary.json"))
    assert sorted(f.parent.name for f in sweep.glob("*/summary.json")) == folders
    assert len(folders) == 12 + 8
    stages = [{f: c["stage"] for f, c in configs(tmp_path, name).items()} for name in ("whole", "t")]
    assert stages[0] == stages[1]
    for folder in folders:
        assert outcome(sweep / folder) == outcome(reference / folder), folder


def test_ctrl_c_in_the_search_ends_it_all(tmp_path: Path) -> None:
    long = [argument for argument in KILLED if not argument.startswith("epochs")]
    process = start(*long, "epochs=100000", "name=t", cwd=tmp_path)
    sweep = sweep_folder(tmp_path, "t")
    deadline = time.monotonic() + 60
    while not list(sweep.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert {c["stage"] for c in configs(tmp_path, "t").values()} == {"tune"}
    assert "chosen settings" not in out and "stage 2" not in out


# --- Optuna ---------------------------------------------------------------------------------------------


@needs_optuna
@pytest.mark.filterwarnings("ignore")  # of Optuna 2 and SQLAlchemy 1
def test_optuna_resumes_from_what_the_folders_say(ffn: Command, tmp_path: Path) -> None:
    """Cut off after its first round and gone on with: the same settings as in one go, none trained twice."""
    rules = ("hydra.sweeper.trials=12", "hydra.sweeper.parallel_trials=4", "hydra.sweeper.final_seeds=[5]")
    command = ("+tune=optuna", *rules, "optimizer=adam,sgd", *SMALL)
    assert ffn(*command, "name=whole").code == 0
    assert tally(tmp_path, "whole") == {
        (name, stage): n
        for name in ("adam", "sgd")
        for stage, n in (("tune", 12), ("final", 1), ("default", 1))
    }
    first = ffn(*command, "hydra.sweeper.trials=4", "name=t")
    assert first.code == 0
    ended = {f: f.read_bytes() for f in sweep_folder(tmp_path, "t").glob("*/summary.json")}
    assert ffn(*command, "name=t").code == 0
    assert all(f.read_bytes() == content for f, content in ended.items())

    def searched(name: str) -> dict[str, str]:
        return {f: c["stage"] for f, c in configs(tmp_path, name).items() if c["stage"] is not None}

    assert searched("t") == searched("whole")


@needs_optuna
@pytest.mark.filterwarnings("ignore")  # of Optuna 2 and SQLAlchemy 1
@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None, reason="no hydra-optuna-sweeper"
)
def test_hydras_own_optuna_sweeper(ffn: Command, tmp_path: Path) -> None:
    """With its sampler's seed the same command goes on without training anything twice; locks hold."""

    def optuna(*arguments: str) -> Result:
        keys = {"n_trials": 6, "n_jobs": 3, "direction": "maximize", "sampler.seed": 1}
        own = [f"hydra.sweeper.{key}={value}" for key, value in keys.items()]
        return ffn("-m", "hydra/sweeper=optuna", *own, *SMALL, "lr=tag(log,interval(1e-4,1))", *arguments)

    assert optuna("name=t").code == 0
    folder = sweep_folder(tmp_path, "t")
    assert len(configs(tmp_path, "t")) == 6
    ended = {f: f.read_bytes() for f in folder.glob("*/summary.json")}
    again = optuna("name=t")
    assert again.out.count("3 runs have already ended") == 2
    assert {f: f.read_bytes() for f in folder.glob("*/summary.json")} == ended
    lock = Lock(Folder(folder))
    assert "outputs/sweeps/t: is in use by" in optuna("name=t").err
    lock.release()
    assert "status: cannot be used with this sweeper" in optuna("name=t", "status=true").err
