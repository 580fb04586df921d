"""Every key of every command × values of other types: what was typed, or one line that names the key."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.lecture.command
import ffn_bench.predict.command
import ffn_bench.race.command
from cases import DATA_NEEDS, OPTIMIZER_NEEDS, composed, options
from conftest import Command, Result, call
from ffn_bench.command_line.mistakes import explain
from ffn_bench.configuration import parsing, rule_files, schema
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.errors import CONFIGURATION, UserError

ODD = (
    *("true", "false", "7", "1", "0", "-1", "1.5", "1e3", "0.0", "nan", "yes", "on", "off", "auto", "0x10"),
    *(
        "'7'",
        "'1'",
        "'0.5'",
        "'true'",
        "010",
        "'010'",
        "1_000",
        "12345678901234567890",
        "null",
        "''",
        "'null'",
    ),
    *("[1]", "[true]", "[]", "['a']", "[[1],2]", "[0.9,'0.99']", "[1,2,3]", "{a:1}", "{a:true}", "{1:2}"),
)
ANALYSES: dict[str, tuple[type, Any]] = {
    "lecture": (schema.LectureConfig, ffn_bench.lecture.command),
    "compare": (schema.CompareConfig, ffn_bench.compare.command),
    "landscape": (schema.LandscapeConfig, ffn_bench.landscape.command),
    "race": (schema.RaceConfig, ffn_bench.race.command),
    "predict": (schema.PredictConfig, ffn_bench.predict.command),
    "export": (schema.ExportConfig, ffn_bench.export.command),
}
GROUPS = [(group, option) for group in schema.GROUPS for option in options(group)]


def parsed_value(text: str) -> Any:
    return OverridesParser.create().parse_override(f"key={text}").value()


def is_what_was_typed(got: Any, given: Any) -> bool:
    """The same value of the same type, but that a whole number may be a float or text."""
    if isinstance(got, (list, tuple)) and isinstance(given, list):
        return len(got) == len(given) and all(map(is_what_was_typed, got, given))
    if isinstance(got, dict) and isinstance(given, dict):
        as_text = {str(k) if type(k) is int else k: value for k, value in given.items()}
        return got.keys() == as_text.keys() and all(is_what_was_typed(got[k], as_text[k]) for k in got)
    if type(given) is int and type(got) in (float, str):
        return bool(got == type(got)(given))
    return type(got) is type(given) and repr(got) == repr(given)


def assert_strict(
    cfg: DictConfig, key: str, read: Callable[[DictConfig], Any], text: str, taken: set[type]
) -> None:
    """Set a key, as an override or a sweep does, and read the configuration."""
    given = parsed_value(text)
    again = copy.deepcopy(cfg)
    with flag_override(again, "struct", False):
        try:
            OmegaConf.update(again, key, copy.deepcopy(given), merge=True)
        except OmegaConfBaseException as e:  # a table in place of a list
            assert explain(e) is not None
            return
    try:
        value = read(again)
    except UserError as e:
        assert e.status == CONFIGURATION
        assert e.where.partition(".")[0] == key.partition(".")[0] or "lr" in key, (key, text, e)
        return
    for name in key.split("."):
        value = getattr(value, name)
    assert is_what_was_typed(value, given), (key, text, value)
    taken.add(type(given))


def is_bool_or(hint: Any) -> bool:
    return hint is bool or bool in typing.get_args(hint)


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_keys_of_groups(group: str, option: str) -> None:
    needs = {"data": DATA_NEEDS, "optimizer": OPTIMIZER_NEEDS}.get(group, {}).get(option, [])
    cfg = composed(f"{group}={option}", *needs)
    config = parsing.parse(cfg)
    for name, hint in typing.get_type_hints(type(getattr(config, group))).items():
        if name == "name" and group != "optimizer":
            continue  # comes with the option
        taken: set[type] = set()
        for text in ODD:
            assert_strict(cfg, f"{group}.{name}", parsing.parse, text, taken)
        assert is_bool_or(hint) == (bool in taken), name


def test_keys_of_a_run() -> None:
    cfg = composed()
    for name, hint in typing.get_type_hints(schema.TrainConfig).items():
        if name in schema.GROUPS:
            continue
        taken: set[type] = set()
        for text in ODD:
            assert_strict(cfg, name, parsing.parse, text, taken)
        assert is_bool_or(hint) == (bool in taken), name


@pytest.mark.parametrize("command", ANALYSES)
def test_keys_of_analyses(command: str) -> None:
    node, _ = ANALYSES[command]
    ConfigStore.instance().store(
        group="_schema", name=command, node=parsing.untyped(node), package="_global_"
    )
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = compose(command)
    for name, hint in typing.get_type_hints(node).items():
        if name in schema.GROUPS:
            continue
        taken: set[type] = set()
        for text in ODD:
            assert_strict(cfg, name, partial(parsing.typed, node=node), text, taken)
        assert is_bool_or(hint) == (bool in taken), name


# --- through the commands -------------------------------------------------------------------------------

WRONG = {bool: "7", int: "true", float: "true", str: "true", list: "true", tuple: "[true,false]", dict: "7"}


def wrong_for(hint: Any) -> str:
    """A value that a type does not take and that was once made to fit."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return wrong_for(typing.get_args(hint)[0])
    return WRONG[typing.get_origin(hint) or hint]


def wrong_keys() -> Iterator[list[str]]:
    for name, hint in typing.get_type_hints(schema.TrainConfig).items():
        if name not in schema.GROUPS and name != "chunk_file":
            yield [f"{name}={wrong_for(hint)}"]
    yield ["data.standardize=7"]
    yield ["data=csv", "data.path=x", "data.target=true"]
    yield ["model.hidden=[1,true]"]
    yield ["optimizer.betas=[0.9,'0.99']"]
    yield ["schedule=step", "schedule.every='5'"]


def assert_refused(result: Result, key: str, folder: Path, command: str = "ffn-train") -> None:
    assert result.code == CONFIGURATION, (key, result)
    assert result.err.startswith(f"{command}: error: {key}: "), result.err
    assert result.err.count("\n") == 1, result.err
    assert list(folder.iterdir()) == []


def test_a_wrong_type_is_one_line(ffn: Command, tmp_path: Path) -> None:
    for arguments in wrong_keys():
        key = arguments[-1].partition("=")[0]
        assert_refused(ffn(*arguments), key, tmp_path)


@pytest.mark.parametrize(
    "key",
    [f.name for f in dataclasses.fields(schema.TrainConfig) if f.name not in (*schema.GROUPS, "chunk_file")]
    + ["data.standardize", "model.hidden", "optimizer.betas", "optimizer.amsgrad"],
)
def test_a_wrong_type_in_a_sweep_is_one_line(ffn: Command, tmp_path: Path, key: str) -> None:
    adam: Any = rule_files.optimizer_keys("adam")
    value: Any = schema.TrainConfig(optimizer=adam(), data=schema.DataConfig())
    value.model = schema.HiddenConfig()
    hint: Any = type(value)
    for name in key.split("."):
        hint = typing.get_type_hints(type(value))[name]
        value = getattr(value, name)
    swept = "seed=1,2" if key != "seed" else "epochs=1,2"
    assert_refused(ffn("-m", swept, f"{key}={wrong_for(hint)}"), key, tmp_path)
    good = {"optimizer.betas": "[0.9,0.999]", "model.hidden": "[4]"}.get(key, str(value).lower())
    if value is not None and key != "max_runs":
        assert_refused(ffn("-m", f"{key}={good},{wrong_for(hint)}"), key, tmp_path)


def test_a_wrong_type_in_a_file_is_one_line(ffn: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    wrong = ["drop_last: 7", "epochs: '010'", "name: true", "lr: '0.1'", "name: [a]", "epochs: 2.0"]
    wrong += ["model:\n  hidden: 5", "optimizer:\n  betas: [true, 0.9]"]
    for text, sweep in itertools.product(wrong, ([], ["-m"])):
        (folder / "x.yaml").write_text(f"# @package _global_\n{text}\n")
        result = ffn("--config-dir", str(tmp_path / "mine"), "+experiment=x", *sweep)
        key = ".".join(line.partition(":")[0].strip() for line in text.splitlines())
        assert result.code == CONFIGURATION, (text, result)
        assert result.err.startswith(f"ffn-train: error: {key}: "), (text, result.err)
        assert result.err.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("command", ANALYSES)
def test_a_wrong_type_to_an_analysis_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node, module = ANALYSES[command]
    monkeypatch.chdir(tmp_path)
    for name, hint in typing.get_type_hints(node).items():
        if name in schema.GROUPS or name in (
            "run",
            "runs",
            "save",
            "out",
            "to",
        ):  # which are quoted: true is a folder
            continue
        arguments = f"{name}={wrong_for(hint)}"
        result = call(module.main, f"ffn-{command}", monkeypatch, capsys, arguments)
        assert_refused(result, name, tmp_path, f"ffn-{command}")


@pytest.mark.parametrize(
    "key", ["search", "trials", "side_by_side", "search_seed", "tuning_seeds", "final_seeds", "space"]
)
def test_a_wrong_type_to_a_tuning_is_one_line(ffn: Command, tmp_path: Path, key: str) -> None:
    for text in ("true", "1.5", "'010'", "{a:1}", "[true]", "[[1]]", "nan"):
        if key == "space" and text in ("{a:1}",):
            continue
        assert_refused(
            ffn("+tune=random_25", f"hydra.sweeper.{key}={text}"), f"hydra.sweeper.{key}", tmp_path
        )


def test_options_of_torch_are_held_against_their_types(ffn: Command, tmp_path: Path) -> None:
    common = ["optimizer=torch", "optimizer.name=SGD"]
    for option in ("nesterov=7", "momentum=true", "momentum='0.9'", "maximize=yes", "weight_decay=[0.1]"):
        key = f"optimizer.options.{option.partition('=')[0]}"
        assert_refused(ffn(*common, f"+optimizer.options.{option}"), key, tmp_path)
    assert_refused(ffn(*common, "+optimizer.options.momentum=nan"), "optimizer.options", tmp_path)
    assert ffn(*common, "+optimizer.options={momentum:0.9,nesterov:true}", "epochs=1").code == 0
