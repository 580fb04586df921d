"""Ways to smuggle a call or an odd scalar into a configuration: none runs, each is one line."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

import ffn_bench.compare.command
import ffn_bench.export.command
import ffn_bench.landscape.command
import ffn_bench.lecture.command
import ffn_bench.predict.command
import ffn_bench.race.command
from conftest import Command, Result, call
from ffn_bench.configuration.notation import REAL, misread

# --- what is called: each leaves a mark in the working directory ------------------------------------------

FUNCTIONS: dict[str, dict[str, Any]] = {
    "shutil.copyfile": {"src": "victim", "dst": "canary"},
    "shutil.copytree": {"src": "mine", "dst": "canary"},
    "shutil.make_archive": {"base_name": "canary", "format": "tar", "root_dir": "mine"},
    "builtins.open": {"file": "victim", "mode": "w"},
    "io.open": {"file": "canary", "mode": "w"},
    "os.makedirs": {"name": "canary"},
    "os.mkfifo": {"path": "canary"},
    "os.symlink": {"src": "victim", "dst": "canary"},
    "os.link": {"src": "victim", "dst": "canary"},
    "tempfile.mkdtemp": {"dir": "."},
    "tempfile.mkstemp": {"dir": "."},
    "sqlite3.dbapi2.connect": {"database": "canary"},
    "logging.FileHandler": {"filename": "canary"},
    "zipfile.ZipFile": {"file": "canary", "mode": "w"},
    "gzip.open": {"filename": "canary", "mode": "w"},
    "urllib.request.urlretrieve": {"url": "file:///etc/hostname", "filename": "canary"},
    "torch.load": {"f": "pickled", "weights_only": False},
    "pandas.read_pickle": {"filepath_or_buffer": "pickled"},
    "numpy.load": {"file": "pickled", "allow_pickle": True},
    "os.truncate": {"path": "victim", "length": 0},
    "shutil.rmtree": {"path": "mine"},
}
Body = dict[str, Any]


class _Mark:
    """What unpickling of which makes the canary."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("canary",)


def nested(path: str, value: Any) -> Body:
    """`nested("a.b", 1)` is {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def target(path: str, name: str) -> Body:
    return nested(path, {"_target_": name, **FUNCTIONS[name]})


def in_a_list(name: str) -> Body:
    return nested(
        "hydra.callbacks.x", {"_target_": "builtins.dict", "a": [{"_target_": name, **FUNCTIONS[name]}]}
    )


def handler(group: str, section: str, name: str) -> Body:
    called = {"()": name, **FUNCTIONS[name]}
    logging: Body = {"version": 1, "root": {"level": "INFO", "handlers": ["x"]}}
    logging["handlers"] = {"x": {"class": "logging.StreamHandler", "formatter": "f", "filters": ["g"]}}
    if section == "handlers":
        logging["handlers"] = {"x": called}
    else:
        logging |= {"formatters": {"f": {}}, "filters": {"g": {}}}
        logging[section] = dict.fromkeys(logging[section], called)
    return nested(f"hydra.{group}", logging)


PLACES = [
    "hydra.callbacks.x", "hydra.callbacks.check_first", "hydra.launcher", "hydra.launcher.nested",
    "hydra.sweeper", "hydra.sweeper.sampler", "hydra.help.x", "hydra", "optimizer", "data", "model", "lr",
]  # fmt: skip
PAYLOADS: dict[str, Callable[[str], Body]] = {
    **{f"_target_ in {path}": partial(target, path) for path in PLACES},
    **{
        f"() in {group}.{section}": partial(handler, group, section)
        for group in ("job_logging", "hydra_logging")
        for section in ("handlers", "formatters", "filters")
    },
    "_target_ in a list": in_a_list,
}
QUIET: dict[str, Body] = {
    "file handler": nested(
        "hydra.job_logging",
        {"version": 1, "root": {"handlers": ["x"]},
         "handlers": {"x": {"class": "logging.FileHandler", "filename": "canary"}}},
    ),
    "another class of handler": nested(
        "hydra.hydra_logging",
        {"version": 1, "root": {"handlers": ["x"]},
         "handlers": {"x": {"class": "logging.handlers.WatchedFileHandler", "filename": "canary"}}},
    ),
    "resolver": {"lr": "${evil:}"},
    "resolver in a text": {"name": "a${evil:}b"},
    "resolver in a resolver": {"lr": "${oc.select:x,${evil:}}"},
    "resolver by a name put together": {"name": "evil", "l2": "${${name}:}"},
    "resolver of a folder": nested("hydra.run.dir", "${evil:}"),
    "resolver of a job": nested("hydra.job.name", "${evil:}"),
    "resolver of the level": nested("hydra.verbose", "${evil:}"),
    "resolver of logging": nested("hydra.job_logging.version", "${evil:}"),
    "resolver of callbacks": nested("hydra.callbacks", "${evil:}"),
    "resolver of a launcher": nested("hydra.launcher", "${evil:}"),
    "resolver of a search path": nested("hydra.searchpath", ["${evil:}"]),
    "oc.create": {"lr": "${oc.create:'{_target_: os.mkdir}'}"},
    "oc.decode": {"lr": "${oc.decode:'${evil:}'}"},
    "interpolated hydra": {"hydra": "${optimizer}"},
    "interpolated callbacks": {"hydra": {"callbacks": "${optimizer}"}},
    "callbacks that are not there": {"hydra": {"callbacks": {"check_first": None}}},
    "another folder of .hydra": nested("hydra.output_subdir", "../canary"),
    "environment": nested("hydra.job.env_set", {"LD_PRELOAD": "./victim"}),
    "interpolated environment": nested("hydra.job", "${optimizer}"),
    "shell lines": nested("hydra.launcher", {"setup": ["touch canary"]}),
    "another Python": nested("hydra.launcher", {"python": "./victim"}),
    "a line of a script": nested("hydra.launcher", {"comment": "x\ntouch canary"}),
    "evaluated": nested("hydra.launcher", {"pre_dispatch": "open('canary', 'w')"}),
    "a search space by function": nested("hydra.sweeper", {"custom_search_space": "os.mkdir"}),
    "overrides": nested("hydra.overrides.task", ["lr=1"]),
    "hydra by a sweep's parameters": nested("hydra.sweeper.params", {"hydra.job.name": "x"}),
}  # fmt: skip
SCALARS = {
    "epochs: 010": "octal", "seed: 1_000": "1_000", "epochs: 0x10": "0x10", "epochs: 0b11": "0b11",
    "epochs: 12:30:00": "base 60", "lr: 1:30.5": "base 60", "drop_last: off": "off", "force: yes": "yes",
    "lr: 1e400": "infinity", "lr: 1e-400": "as 0", "epochs: '010'": "epochs", "lr: '1_0'": "lr",
    "epochs: ' 8'": "epochs", "epochs: .inf": "epochs", "name: 1e3": "name", "name: true": "name",
    "data: {name: 0.10}": "data.name", "off: 1": "off", "? [a]\n: 1": "line",
    "lr: 0.1\nlr: 0.2": "duplicated",
    "lr: !!python/name:os.mkdir": "python",
    "epochs: !!int '010'": "octal",
    "force: !!bool 'yes'": "yes", "name: !!null x": "null",
    "name: !!binary eA==": "binary", "lr:\t0.1\n\tx: 1": "line", "epochs: +5": "+5",
    f"seed: {'9' * 5000}": "5,000", "lr: {a: &a [*a]}": "itself", "defaults: 5": "defaults",
    "defaults: [1]": "defaults", "defaults: [{a: 1}]": "defaults", "defaults: [{a: b, c: d}]": "defaults",
    "defaults: [../../../x]": "outside", "defaults: [/experiment/../x]": "outside",
    "defaults: ['${evil:}']": "evil",
    "defaults: [{override /data: '${evil:}'}]": "evil", "lr: 1\n---\nlr: 2": "line",
}  # fmt: skip


# --- how it gets in ---------------------------------------------------------------------------------------

HEAD = "# @package _global_\n"


def write(name: str, text: str) -> None:
    file = Path("mine") / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def of_experiment(*arguments: str, body: str) -> list[str]:
    write("experiment/x.yaml", HEAD + body)
    return [*arguments]


def by_defaults(entry: str, body: str) -> list[str]:
    write("other/x.yaml", HEAD + body)
    write("other/z.yaml", f"{HEAD}defaults: [x]\n")
    write("experiment/y.yaml", f"{HEAD}defaults:\n  - {entry}\n")
    return ["--config-dir=mine", "+experiment=y"]


def by_primary(body: str) -> list[str]:
    write("mine.yaml", "defaults:\n  - config\n  - _self_\n" + body)
    return ["--config-dir=mine", "--config-name=mine"]


def by_foreign_folder(body: str) -> list[str]:
    write(".hydra/config.yaml", body)
    return [f"--config-path={Path('mine/.hydra').absolute()}"]


def by_schema_in_a_foreign_folder(body: str) -> list[str]:
    write("config.yaml", "defaults:\n  - /_schema/train\n  - _self_\n" + body)
    return ["-cp", str(Path("mine").absolute())]


def by_searchpath_of_a_primary(body: str) -> list[str]:
    write("experiment/x.yaml", HEAD + body)
    path = json.dumps([str(Path("mine").absolute())])
    Path("first").mkdir()
    Path("first/p.yaml").write_text(f"defaults: [config, _self_]\nhydra: {{searchpath: {path}}}\n")
    return ["--config-dir=first", "-cn=p", "+experiment=x"]


def by_group(body: str) -> list[str]:
    write("other/x.yaml", body)
    return ["--config-dir=mine", "+other@_global_=x"]


def by_package(body: str) -> list[str]:
    key = next(iter(yaml.safe_load(body)))
    inner = yaml.safe_load(body)[key]
    write("other/x.yaml", yaml.safe_dump(inner) if isinstance(inner, dict) else body)
    return ["--config-dir=mine", f"+other@{key if isinstance(inner, dict) else '_global_'}=x"]


def by_header(body: str) -> list[str]:
    key = next(iter(yaml.safe_load(body)))
    inner = yaml.safe_load(body)[key]
    plain = isinstance(inner, dict)
    write(
        "other/x.yaml",
        f"# @package {key if plain else '_global_'}\n{yaml.safe_dump(inner) if plain else body}",
    )
    return ["--config-dir=mine", "+other=x"]


def by_command_line(body: str, sign: str = "++", flags: tuple[str, ...] = ()) -> list[str]:
    return [*flags, *(f"{sign}{key}={text}" for key, text in leaves(yaml.safe_load(body)))]


def by_dict(body: str) -> list[str]:
    return [f"++{key}={grammar(value)}" for key, value in yaml.safe_load(body).items()]


def leaves(node: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(node, dict):
        return [leaf for k, v in node.items() for leaf in leaves(v, f"{path}.{k}" if path else str(k))]
    return [(path, grammar(node))]


def grammar(node: Any) -> str:
    """A value as Hydra's grammar writes it."""
    if isinstance(node, dict):
        keys = [str(key).replace("(", "\\(").replace(")", "\\)") for key in node]
        return "{" + ",".join(f"{k}:{grammar(v)}" for k, v in zip(keys, node.values(), strict=True)) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(grammar, node)) + "]"
    return json.dumps(node) if isinstance(node, (str, bool, type(None))) else str(node)


CARRIERS: dict[str, Callable[[str], list[str]]] = {
    "an option": lambda b: of_experiment("--config-dir=mine", "+experiment=x", body=b),
    "a list of options": lambda b: of_experiment("--config-dir=mine", "+experiment=[x]", body=b),
    "quotes": lambda b: of_experiment("--config-dir", "mine", "+experiment='x'", body=b),
    "quotes in a list": lambda b: of_experiment("-cd", "mine", '+experiment=["x"]', body=b),
    "the ending": lambda b: of_experiment("-cd=mine", "+experiment=x.yaml", body=b),
    "a package": lambda b: of_experiment("--config-dir=mine", "+experiment@_global_=x", body=b),
    "a search path": lambda b: of_experiment("hydra.searchpath=[mine]", "+experiment=x", body=b),
    "a search path's scheme": lambda b: of_experiment(
        f"hydra.searchpath=['file://{Path('mine').absolute()}']", "+experiment=x", body=b
    ),
    "--cfg": lambda b: of_experiment("--cfg=job", "--resolve", "-cd=mine", "+experiment=x", body=b),
    "--help": lambda b: of_experiment("--help", "--resolve", "-cd=mine", "+experiment=x", body=b),
    "a sweep": lambda b: of_experiment("-m", "--config-dir=mine", "+experiment=x", "seed=0,1", body=b),
    "a swept option": lambda b: of_experiment("-m", "--config-dir=mine", "+experiment=x,lecture", body=b),
    "a defaults list": lambda b: by_defaults("/other/x", b),
    "a defaults list's": lambda b: by_defaults("/other/z", b),
    "an entry's package": lambda b: by_defaults("/other/x@_global_", b),
    "an entry by group": lambda b: by_defaults("/other@_global_: x", b),
    "an optional entry": lambda b: by_defaults("optional /other: x", b),
    "an entry of several": lambda b: by_defaults("/other: [x]", b),
    "an interpolated entry": lambda b: by_defaults("/other: ${oc.env:CARRIER}", b),
    "a primary file": by_primary,
    "a primary file's search path": by_searchpath_of_a_primary,
    "a foreign folder": by_foreign_folder,
    "a foreign folder with the schema": by_schema_in_a_foreign_folder,
    "another group": by_group,
    "another group's package": by_package,
    "a package in the head": by_header,
    "the command line": by_command_line,
    "a value of the command line": by_dict,
    "the command line of a sweep": lambda b: [*by_command_line(b, flags=("-m",)), "seed=0,1"],
}  # fmt: skip

TYPED = ("shell lines", "another Python", "evaluated", "hydra by a sweep's parameters")
"""What a person may say on the command line, and a file may not."""
WAYS = [
    *itertools.product(CARRIERS, PAYLOADS, FUNCTIONS),
    *(w for w in itertools.product(CARRIERS, QUIET, [""]) if "command line" not in w[0] or w[1] not in TYPED),
]
_drawn = random.Random(0)
CHOSEN = [
    # every carrier, payload and function several times; the first part runs in the ordinary suite
    *((c, *_drawn.choice([w[1:] for w in WAYS if w[0] == c])) for c in CARRIERS for _ in range(2)),
    *(_drawn.choice([w for w in WAYS if w[1] == p]) for p in (*PAYLOADS, *QUIET)),
    *_drawn.sample(WAYS, 300),
]
ORDINARY = 2 * len(CARRIERS) + len(PAYLOADS) + len(QUIET)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def evil() -> int:
    """A resolver of another package."""
    Path("canary").mkdir()
    return 1


@pytest.fixture
def prepared(ffn: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`ffn` in a folder with a victim, a pickle that acts, and a resolver of another package that acts."""
    Path("victim").write_text("not yours")
    Path("pickled").write_bytes(pickle.dumps(_Mark()))
    Path("mine").mkdir()
    monkeypatch.setenv("CARRIER", "x")
    OmegaConf.register_new_resolver("evil", evil, replace=True)
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield ffn
    root.handlers[:], root.level = handlers, level
    OmegaConf.clear_resolver("evil")


def assert_refused(result: Result, before: dict[str, bytes | None], words: str = "") -> None:
    assert contents(Path()) == before, result.err
    assert result.code == 2, result.err or result.out
    lines = [line for line in result.err.splitlines() if "taken from the environment" not in line]
    assert len(lines) == 1, result.err
    assert ": error: " in lines[0]
    assert words in lines[0], result.err


@pytest.mark.parametrize(
    "way",
    [pytest.param(w, marks=[pytest.mark.slow] * (k >= ORDINARY)) for k, w in enumerate(CHOSEN)],
    ids=[f"{k}-{w[0]}-{w[1]}-{w[2]}" for k, w in enumerate(CHOSEN)],
)
def test_smuggled_calls(prepared: Command, way: tuple[str, str, str]) -> None:
    carrier, payload, function = way
    body = PAYLOADS[payload](function) if function else QUIET[payload]
    arguments = CARRIERS[carrier](yaml.safe_dump(body))
    before = contents(Path())
    assert_refused(prepared(*arguments, "epochs=1", "data=moons"), before)


@pytest.mark.parametrize("carrier", [c for c in CARRIERS if "foreign" not in c])
def test_carriers_carry(prepared: Command, carrier: str) -> None:
    """What is harmless arrives, so that the refusals are of what was carried."""
    result = prepared(*CARRIERS[carrier]("lr: 0.25\n"), "epochs=1", "data=moons")
    assert result.code == 0, result.err
    rates = [json.loads(f.read_text())["config"]["lr"] for f in Path("outputs").rglob("run.json")]
    assert 0.25 in rates or "lr: 0.25" in result.out


FILES = (
    "an option",
    "a list of options",
    "a search path",
    "a defaults list",
    "a primary file",
    "another group",
)


@pytest.mark.parametrize("text", SCALARS, ids=[s[:30] for s in SCALARS])
def test_odd_scalars_of_files(prepared: Command, text: str) -> None:
    carrier = FILES[[*SCALARS].index(text) % len(FILES)]
    if text.startswith("defaults") and "primary" in carrier:
        carrier = FILES[0]
    arguments = CARRIERS[carrier](f"{text}\n")
    before = contents(Path())
    assert_refused(prepared(*arguments, "status=true"), before, SCALARS[text])


@pytest.mark.parametrize(
    "argument",
    ["epochs=010", "epochs='010'", "epochs=+5", "epochs=1_0", "epochs='1_0'", "epochs=８", "epochs=0x10",
     "epochs='0x10'", "epochs=' 8'", "epochs=0b11", "epochs=1e1", "seed=00", "seed=-00", f"seed={'9' * 5000}",
     "lr=1e400", "lr=-1e400", "lr=1e-400", "lr=1_0.5", "lr=01.5", "lr='1_0'", "lr='infinity'", "lr=１",
     "model.hidden=[010]", "model.hidden=[1_0]", "optimizer.betas=[0.9,1_0e-2]", "name=1e3", "name=0.10",
     "name=true", "name=1_0", "data.split_seed=0o7"],
)  # fmt: skip
@pytest.mark.parametrize(
    "flags", [[], pytest.param(["-m", "l2=0,1"], marks=pytest.mark.slow)], ids=["run", "sweep"]
)
def test_odd_scalars_of_the_command_line(prepared: Command, argument: str, flags: list[str]) -> None:
    before = contents(Path())
    assert_refused(prepared(*flags, argument, "data=digits"), before, argument.partition("=")[0])


def test_plain_numbers_are_taken(prepared: Command) -> None:
    result = prepared("epochs=1", "lr=1e-3", "l2=.5e-3", "seed=0", "data=moons", "data.noise=1.", "name=7")
    assert result.code == 0, result.err
    config = json.loads(Path("outputs/7/run.json").read_text())["config"]
    assert (config["lr"], config["l2"], config["data.noise"]) == (1e-3, 5e-4, 1.0)


@given(st.one_of(st.integers(), st.floats(), st.text("0123456789_.:+-exbin", min_size=1, max_size=12)))
def test_numbers_that_pass_have_one_reading(written: float | str) -> None:
    """YAML, Python and Hydra read the same number from a text in which nothing is found."""
    text = repr(written) if not isinstance(written, str) else written
    if not REAL.fullmatch(text) or misread(text):
        assert isinstance(written, str)
        return
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    read = [
        yaml.load(text, get_yaml_loader()),
        OverridesParser.create().parse_overrides([f"a={text}"])[0].value(),
    ]
    for reading in read:
        assert isinstance(reading, str) or reading == value or (math.isnan(reading) and math.isnan(value))


def test_what_comes_from_the_environment_is_reported(
    prepared: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE", "0.125")
    result = prepared("lr=${oc.env:RATE}", "l2=${oc.env:NOT_THERE,0}", "epochs=1", "data=moons", "name=a")
    assert result.code == 0
    assert result.err == "ffn-train: lr is taken from the environment variable RATE\n"
    assert "${oc.env:RATE}" in Path("outputs/a/.hydra/config.yaml").read_text()
    result = prepared("-m", "lr=${oc.env:RATE}", "seed=0,1", "epochs=1", "data=moons", "name=s")
    assert result.code == 0
    assert result.err == "ffn-train: lr is taken from the environment variable RATE\n"
    before = contents(Path())
    assert_refused(prepared("lr=${oc.env:NOT_THERE}"), before, "NOT_THERE")
    monkeypatch.setenv("EPOCHS", "010")
    assert_refused(prepared("epochs=${oc.env:EPOCHS}"), before, "010")


def test_files_that_are_none(prepared: Command) -> None:
    folder = Path("mine/experiment")
    folder.mkdir()
    os.mkfifo(folder / "pipe.yaml")
    (folder / "device.yaml").symlink_to("/dev/zero")
    (folder / "dangling.yaml").symlink_to("nowhere")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "folder.yaml").mkdir()
    with (folder / "huge.yaml").open("wb") as file:
        file.truncate(2**42)
    (folder / "long.yaml").write_text("a: " + "x" * 200_000)
    before = [*folder.iterdir()]
    for name in ("pipe", "device", "dangling", "loop", "folder", "huge", "long"):
        result = prepared("--config-dir=mine", f"+experiment={name}")
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert name in result.err
    assert [*folder.iterdir()] == before


def test_a_byte_order_mark_hides_no_head(prepared: Command) -> None:
    write("experiment/x.yaml", "\ufeff" + HEAD + "lr: 0.5\n")
    assert "lr: 0.5" in prepared("--config-dir=mine", "+experiment=x", "--cfg", "job").out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["hydra.searchpath=[pkg://evil]"], "hydra.searchpath"),
        (["hydra.searchpath=[pkg://antigravity]"], "hydra.searchpath"),
        (["hydra.searchpath=[structured://evil]"], "hydra.searchpath"),
        (["hydra.job_logging=${data.root}"], "hydra.job_logging"),
        (["hydra.launcher=${data.root}"], "hydra.launcher"),
        (["hydra=${data.root}"], "hydra"),
        (["hydra.searchpath=[mine,nowhere]"], "nowhere"),
        (["--config-path=pkg://evil"], "--config-path"),
        (["--config-path=../evil"], "--config-path"),
        (["--config-path="], "--config-path"),
        (["-cp", "mine"], "not an absolute path"),
        (["--config-name=../../etc/x"], "outside"),
        (["--config-name=/etc/x"], "outside"),
        (["--config-name=experiment/lecture"], "configuration"),
        (["--config-name=race"], "_schema"),
        (["+experiment=../../x"], "outside"),
        (["+experiment=/etc/x"], "experiment"),
        (["hydra/env=../../x"], "outside"),
        (["+../x@_global_=y"], "../x"),
        (["~hydra.callbacks.check_first"], "hydra.callbacks"),
        (["~hydra.callbacks"], "hydra.callbacks"),
        (["hydra/job_logging=default"], "opens files"),
        (["hydra/hydra_logging=hydra_debug"], "opens files"),
        (["hydra/launcher=ray_aws"], "ray_pkg_version"),
        (["hydra/launcher=null"], "hydra/launcher"),
        (["hydra.job.env_copy=[NOPE]"], "NOPE"),
        (["hydra.job.env_copy=[CARRIER]"], "CARRIER"),
        (["+hydra.job.env_set.PYTHONPATH=mine"], "PYTHONPATH"),
        (["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "seed=0,1"], "hydra/launcher"),
        (["-m", "optimizer=torch", "+optimizer.options.a={_target_:x},{b:1}"], "_target_"),
        (["-m", "hydra.sweeper._target_=os.makedirs", "seed=0,1"], "is not an installed sweeper"),
        (["+hydra.sweeper.sampler._target_=os.mkdir"], "is not one of Optuna's"),
        (["--cfg", "hydra", "++hydra.help.app_name=${evil:}"], "evil"),
        (["--info", "config", "lr=${evil:}"], "evil"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)  # fmt: skip
def test_paths_and_choices(prepared: Command, arguments: list[str], word: str) -> None:
    Path("pkg:/antigravity").mkdir(parents=True)  # which looks like a folder, and would be imported
    before = contents(Path())
    assert_refused(prepared(*arguments), before, word)


def test_a_configuration_without_the_commands_schema(prepared: Command) -> None:
    """One that is harmless, but without checks and lock."""
    quiet = "defaults: [override hydra/job_logging: none, override hydra/hydra_logging: none]\n"
    arguments = by_foreign_folder(quiet + "lr: 0.1\n")
    before = contents(Path())
    assert_refused(prepared(*arguments), before, "_schema")


def test_what_is_meant_still_works(prepared: Command) -> None:
    write(
        "experiment/x.yaml",
        HEAD + "defaults: [{override /hydra/launcher: joblib}]\nhydra: {launcher: {n_jobs: 1}}",
    )
    for arguments in (
        ["--config-dir=mine", "+experiment=x"],
        ["hydra/job_logging=stdout", "hydra/hydra_logging=default"],
        ["+hydra.job.env_set.OMP_NUM_THREADS=1"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.setup=['source \\${HOME:-/}/a']"],
        ["hydra.output_subdir=null", "hydra.run.dir=there"],
        [f"hydra.searchpath=[{Path('mine').absolute()}]"],
    ):
        result = prepared(*arguments, "status=true")
        assert (result.code, result.err) == (0, ""), result.err
    for flag, key in (("--hydra-help", "hydra_help"), ("--help", "help")):
        result = prepared(flag)
        assert (result.code, result.err) == (0, "")
        result = prepared(flag, f"hydra.{key}.template='$HOME'")
        assert result.code == 2 and result.err.count("\n") == 1 and f"hydra.{key}.template" in result.err


WORKER = """
import pickle
from pathlib import Path
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import OmegaConf
from ffn_bench.command_line import composition, resolvers
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration import parsing
from ffn_bench.errors import UserError

Plugins.instance()  # finds Hydra's kinds of sources
OmegaConf.register_new_resolver("evil", lambda: Path("canary").write_text("called"))
path = ConfigSearchPathImpl()
for provider, place in (("hydra", "pkg://hydra.conf"), ("main", str(config_folder())),
                        ("command-line", "mine"), ("schema", "structured://")):
    path.append(provider, place)
parsing.register()
loader = pickle.loads(pickle.dumps(composition.Loader(path)))
for overrides in (["+experiment=x"], ["+hydra.callbacks.x._target_=os.mkdir"]):
    try:
        loader.load_configuration("config", overrides, RunMode.RUN)
    except UserError as e:
        print(e)
assert not OmegaConf.has_resolver("evil")
resolvers.register_resolvers()
cfg = loader.load_configuration("config", ["lr=0.5"], RunMode.RUN)
assert pickle.loads(pickle.dumps(cfg)).lr == 0.5
"""


def test_the_loader_of_a_launchers_worker_checks(prepared: Command, tmp_path: Path) -> None:
    """A launcher's job gets the loader pickled, and composes where nothing of ours was begun."""
    write("experiment/x.yaml", HEAD + "name: ${evil:}\n")
    done = subprocess.run(
        [sys.executable, "-c", WORKER], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    resolver, callback = done.stdout.splitlines()
    assert "'evil'" in resolver and "callbacks" in callback
    assert not (tmp_path / "canary").exists()


OTHERS: dict[str, Callable[[], None]] = {
    "ffn-compare": ffn_bench.compare.command.main,
    "ffn-export": ffn_bench.export.command.main,
    "ffn-landscape": ffn_bench.landscape.command.main,
    "ffn-lecture": ffn_bench.lecture.command.main,
    "ffn-predict": ffn_bench.predict.command.main,
    "ffn-race": ffn_bench.race.command.main,
}


ODD_NUMBERS = {"ffn-compare": "save=1e3", "ffn-predict": "at=010", "ffn-export": "at=1e3"}
"""Of commands without a seed."""


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_commands(
    prepared: Command, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("experiment/x.yaml", HEAD + yaml.safe_dump(handler("job_logging", "handlers", "shutil.copyfile")))
    write("experiment/y.yaml", HEAD + "save: ${evil:}\n")
    before = contents(Path())
    for arguments in (
        ["--config-dir=mine", "+experiment=[x]"],
        ["--config-dir=mine", "+experiment=y"],
        ["+hydra.callbacks.x._target_=os.mkdir", "+hydra.callbacks.x.path=canary"],
        ["hydra.searchpath=[pkg://evil]"],
        ["--config-name=config"],
        ["hydra/job_logging=default"],
        [ODD_NUMBERS.get(name, "seed=010")],
    ):
        result = call(OTHERS[name], name, monkeypatch, capsys, *arguments)
        assert_refused(result, before)


@pytest.mark.parametrize(
    "argument", ["epochs=int(010)", "epochs=int(3.7)", "lr=float('0_1')", "model.hidden=int([010,5])",
                 "epochs=${oc.env:NOPE_X,1_0}", "lr=${oc.select:zz,1_0.5}"],
)  # fmt: skip
def test_no_cast_and_no_argument_changes_a_number(prepared: Command, argument: str) -> None:
    result = prepared(argument, "data=moons")
    assert result.code == 2 and result.err.count("\n") == 1, result.err


@pytest.mark.parametrize(
    "text",
    [
        "chunk_file: c.json\n",
        "hydra: {help: {template: evil}}\n",
        "hydra: {hydra_help: {template: evil}}\n",
        "hydra: {launcher: {comment: '${oc.env:CARRIER}'}}\n",
        "hydra: {sweeper: {storage: 'sqlite:///x'}}\n",
        "hydra: {overrides: {task: []}}\n",
        "hydra: {runtime: {cwd: /}}\n",
        "a: &a {epochs: 3}\n<<: [*a, {epochs: 4}]\n",
    ],
)
def test_what_a_file_may_not_say(prepared: Command, text: str) -> None:
    write("experiment/x.yaml", HEAD + text)
    for arguments in (["--help" if "help" in text else "epochs=1"], ["-m", "seed=0,1"]):
        before = contents(Path())
        assert_refused(prepared("--config-dir=mine", "+experiment=x", *arguments), before, "x.yaml")


@pytest.mark.parametrize("head", ["# @package", "# @package a b"])
def test_a_head_that_cannot_be_read(prepared: Command, head: str) -> None:
    write("experiment/x.yaml", f"{head}\nlr: 0.5\n")
    before = contents(Path())
    assert_refused(prepared("--config-dir=mine", "+experiment=x"), before, "its header cannot be read")
