"""The configuration: contract of keys and defaults, every option composes, fingerprints."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cases import DATA_NEEDS, OPTIMIZER_NEEDS, composed, options, parsed
from conftest import Command
from ffn_bench.configuration import fingerprint, parsing, rule_files, schema
from ffn_bench.errors import UserError

GROUPS = [(g, o) for g in ("data", "model", "optimizer", "schedule") for o in options(g)]


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_composes_and_is_typed(group: str, option: str) -> None:
    needs = {"data": DATA_NEEDS, "optimizer": OPTIMIZER_NEEDS}.get(group, {}).get(option, [])
    run = parsed(f"{group}={option}", *needs)
    node = getattr(run, group)
    if group == "optimizer":
        assert type(node) is rule_files.optimizer_keys(node.name if option != "torch" else option)
    else:
        assert isinstance(node, tuple(schema.SCHEMA[group].values()))
    if option != "torch":
        assert getattr(run, group).name == option


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes(name: str) -> None:
    parsed(f"+experiment={name}")


def test_defaults_are_the_lecture() -> None:
    run = parsed()
    assert run.data.name == "digits"
    assert run.model.widths() == [10, 20, 15]
    assert run.model.activation == "relu"
    assert run.optimizer.name == "adam"
    assert run.schedule.name == "constant"
    assert (run.lr, run.epochs, run.batch_size, run.seed, run.l2) == (0.005, 50, 32, 0, 0.0)
    assert (run.engine, run.gradient, run.device, run.dtype) == ("auto", "auto", "auto", "float32")
    assert (run.name, run.log_every, run.init_seed, run.order_seed) == (None, 10, None, None)
    assert run.data.split_seed == 0
    assert fingerprint.fingerprint(run) == fingerprint.fingerprint(parsed("+experiment=lecture"))


def test_one_learning_rate() -> None:
    assert parsed("lr=0.25").optimizer.lr == 0.25
    assert parsed("optimizer=lbfgs").lr == 1.0
    assert parsed("optimizer=lbfgs", "lr=0.5").optimizer.lr == 0.5


def test_optimizer_lr_is_another_name_for_lr(ffn: Command, tmp_path: Path) -> None:
    result = ffn("optimizer.lr=0.25", "epochs=1", "name=x")
    assert result.code == 0, result.err
    assert "lr 0.25" in result.out
    assert "lr: 0.25" in Path("outputs/x/.hydra/config.yaml").read_text()


def test_model_options() -> None:
    assert parsed("model=mlp", "model.depth=3", "model.width=7").model.widths() == [7, 7, 7]
    assert parsed("model.hidden=[4,5]").model.widths() == [4, 5]
    assert parsed("model=linear").model.widths() == []


def test_fingerprint_is_of_the_result_only() -> None:
    base = fingerprint.fingerprint(parsed())
    for same in (
        "name=x",
        "max_runs=3",
        "engine=torch",
        "gradient=autograd",
        "init_seed=null",
        "log_mistakes=true",
        "log_scores=true",
    ):
        assert base == fingerprint.fingerprint(parsed(same)), same
    changes = ("lr=0.1", "seed=1", "l2=1e-3", "data.split_seed=1", "schedule=cosine", "optimizer=adamw")
    for change in (*changes, "init_seed=0", "order_seed=0", "gradient=manual"):
        assert base != fingerprint.fingerprint(parsed(change)), change


def test_a_key_that_was_removed_says_what_replaces_it(ffn: Command, tmp_path: Path) -> None:
    for value in ("true", "false"):
        result = ffn(f"compile={value}")
        assert result.code == 2
        expected = "compile: was removed: the compiled engine is the default now; leave it out\n"
        assert result.err == f"ffn-train: error: {expected}"
        assert list(tmp_path.iterdir()) == []


def test_superset_names_every_key_of_every_run() -> None:
    superset = fingerprint.superset_of_keys()
    for group, option in GROUPS:
        needs = {"data": DATA_NEEDS, "optimizer": OPTIMIZER_NEEDS}.get(group, {}).get(option, [])
        assert set(fingerprint.result_keys(parsed(f"{group}={option}", *needs))) <= set(superset)


def command(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ffn-train")), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_help_and_completion(tmp_path: Path) -> None:
    text = command("--help")
    for word in ("usage:", "radam", "model.hidden", "batch_size", "lecture"):
        assert word in text
    assert "_schema" not in text
    line = "ffn-train optimizer=ad"
    words = command("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).split()
    assert words == [f"optimizer={name}" for name in ("adadelta", "adagrad", "adam", "adamax", "adamw")]
    assert "complete" in command("-sc", "install=bash")


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_a_configuration_survives_run_json(group: str, option: str) -> None:
    needs = {"data": DATA_NEEDS, "optimizer": OPTIMIZER_NEEDS}.get(group, {}).get(option, [])
    run = parsed(f"{group}={option}", *needs)
    read = parsing.from_flat(json.loads(json.dumps(schema.flatten(run))))
    assert type(getattr(read, group)) is type(getattr(run, group))
    assert schema.flatten(read) == schema.flatten(run)
    assert fingerprint.fingerprint(read) == fingerprint.fingerprint(run)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"epochs": "fifty"}, "epochs: 'fifty' has the wrong type"),
        ({"epochs": True}, "epochs"),
        ({"epochs": 0}, "epochs: 0 is too small"),
        ({"lr": None}, "lr"),
        ({"lr": "${oc.env:HOME}"}, "lr"),
        ({"typo": 1}, "typo: no such key"),
        ({"optimizer.typo": 1}, "optimizer.name"),
        ({"optimizer.betas": [0.9]}, "optimizer.betas"),
        ({"optimizer.betas": {"a": 1}}, "optimizer.betas"),
        ({"model.hidden": [10, "x"]}, "model.hidden"),
        ({"model": "lecture"}, "model"),
        ({"data.name": ["digits"]}, "data.name"),
        ({"data.name": None}, "data.name"),
        ({"schedule.name": "cosine"}, "schedule.name"),
    ],
)
def test_a_damaged_configuration_is_one_line(change: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as e:
        parsing.from_flat({**schema.flatten(parsed()), **change})
    assert str(e.value).startswith(where)
    assert e.value.status == 4


def test_a_run_older_than_a_key_has_its_default() -> None:
    flat = schema.flatten(parsed("epochs=3"))
    del flat["checkpoint_seconds"]
    assert parsing.from_flat(flat) == parsing.from_flat(schema.flatten(parsed("epochs=3")))


def test_a_plugin_keeps_its_keys() -> None:
    parsing.register_optimizers({"mine": {}})
    flat = {k: v for k, v in schema.flatten(parsed()).items() if not k.startswith("optimizer.")}
    plugin = {"optimizer.name": "mine", "optimizer.lr": 0.005, "optimizer.beta": [0.5, 1]}
    assert schema.flatten(parsing.from_flat(flat | plugin)) == flat | plugin
    with pytest.raises(UserError, match="'theirs'"):
        parsing.from_flat(flat | plugin | {"optimizer.name": "theirs"})


RULE_FILES = [name for name in rule_files.optimizer_files() if rule_files.defaults_of(name) is not None]


@pytest.mark.parametrize("name", RULE_FILES)
def test_a_rules_keys_are_typed_by_its_file(name: str) -> None:
    """Each takes a value of its type alone, from the command line and from run.json."""
    own = rule_files.defaults_of(name) or {}
    flat = schema.flatten(parsed(f"optimizer={name}"))
    assert {key: flat[f"optimizer.{key}"] for key in own} == own
    assert {type(value) for value in own.values()} <= {float, bool, list}  # 0 for 0.0 would refuse 0.5
    for key, value in own.items():
        wrong: Any = "text" if not isinstance(value, list) else [*value, 0.5]
        with pytest.raises(UserError, match=f"optimizer.{key}"):
            parsed(f"optimizer={name}", f"optimizer.{key}={wrong}")
        with pytest.raises(UserError, match=f"optimizer.{key}"):
            parsing.from_flat(flat | {f"optimizer.{key}": wrong})


def test_jobs_of_launchers_carry_the_keys_of_rules() -> None:
    cfg = composed("optimizer=lecture/adam", "optimizer.eps=0.5")
    assert parsing.parse(pickle.loads(pickle.dumps(cfg))) == parsing.parse(cfg)


def test_a_file_of_ones_own_has_the_keys_of_the_rule_that_it_names(ffn: Command, tmp_path: Path) -> None:
    """Whether it names the rule's schema, as it must where it has not all keys, or has no defaults list."""
    folder = tmp_path / "mine" / "optimizer"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text("name: lecture/rmsprop\nbeta: 0.8\n")
    (folder / "two.yaml").write_text("defaults: [/_schema/optimizer/adam@_here_]\nname: adamw\neps: 0.1\n")
    (folder / "three.yaml").write_text("defaults: [/_schema/optimizer/adam@_here_]\nname: nadam\n")
    (folder / "four.yaml").write_text("name: adam\nalpha: 0.8\n")
    for name, key in (("one", "beta"), ("two", "eps")):
        result = ffn("-cd", "mine", f"optimizer={name}", "epochs=1", f"name={name}")
        assert result.code == 0, result.err
        config = json.loads((tmp_path / "outputs" / name / "run.json").read_text())["config"]
        assert config[f"optimizer.{key}"] in (0.8, 0.1) and config["optimizer.lr"] == 0.005
    for name, where in (("three", "optimizer.name: 'nadam'"), ("four", "alpha")):
        result = ffn("-cd", "mine", f"optimizer={name}", "epochs=1")
        assert result.code == 2 and where in result.err and result.err.count("\n") == 1, result.err


@pytest.mark.parametrize(
    "kind", sorted({k for kinds in schema.SCHEMA.values() for k in kinds.values()}, key=str)
)
def test_keys_are_equal_and_written_as_those_of_any_dataclass(kind: type) -> None:
    plain = dataclasses.make_dataclass(
        kind.__name__,
        [(f.name, Any, dataclasses.field(default=f.default, default_factory=f.default_factory))
         for f in dataclasses.fields(kind)],
    )  # fmt: skip
    one, other = kind(name="x"), kind(name="y")
    assert repr(one) == repr(plain(name="x"))
    assert one == kind(name="x") and one != other and one != plain(name="x")
    with pytest.raises(TypeError):
        hash(one)
