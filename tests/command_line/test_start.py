"""How little a command does before it answers, and that it answers the same as Hydra would."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from conftest import Command
from ffn_bench.command_line import composition, plugin_packages
from ffn_bench.command_line.hydra_internals import Hydra
from ffn_bench.command_line.quick_hydra import QuickHydra
from ffn_bench.configuration import parsing, rule_files
from ffn_bench.configuration.rule_files import config_folder
from ffn_bench.configuration.schema import SCHEMA, TrainConfig
from ffn_bench.errors import UserError

HEAVY = {
    "torch", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "PIL", "rich", "tensorboard", "numba",
    "plotly", "psutil", "ray", "joblib", "submitit", "optuna", "sqlalchemy", "importlib.metadata",
    "multiprocessing",
    *plugin_packages.LATE,
}  # fmt: skip
"""What no answer below needs."""
OTHER_OPTIMIZERS = {"importlib.metadata"}
"""What lists them."""
LISTED = """
import atexit, sys
sys.argv[0] = "ffn-train"
atexit.register(lambda: sys.__stderr__.write("\\nmodules: " + " ".join(sys.modules)))
from ffn_bench.train import main
main()
"""
"""Runs `ffn-train` and says what is imported when it ends."""


def run_listed(*arguments: str, line: str = "") -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Of `ffn-train`, and the modules that are imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COMP_LINE": f"ffn-train {line}"},
    )
    return done, set(done.stderr.rpartition("\nmodules: ")[2].split())


QUICK = {
    "help": (["--help"], 0, "usage: ffn-train"),
    "version": (["--version"], 0, "ffn-bench"),
    "shown": (["--cfg", "job", "optimizer=sgd"], 0, "name: sgd"),
    "unknown key": (["lrr=1"], 2, "did you mean 'lr'"),
    "unknown option": (["optimizer=adm"], 2, "did you mean 'adam'"),
    "value out of bounds": (["lr=-1"], 2, "lr: -1"),
    "unknown key of a sweep": (["-m", "lrr=1,2"], 2, "did you mean 'lr'"),
    "value of a sweep": (["-m", "lr=-1,2"], 2, "lr: -1"),
    "unknown option of a sweep": (["-m", "optimizer=adm,sgd"], 2, "did you mean 'adam'"),
    "experiment": (["+experiment=lecture", "lrr=1"], 2, "did you mean 'lr'"),
}


@pytest.mark.parametrize("name", QUICK)
def test_an_answer_imports_only_what_it_needs(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, status, text = QUICK[name]
    done, modules = run_listed(*arguments)
    assert done.returncode == status and text in done.stdout + done.stderr
    needed = OTHER_OPTIMIZERS if "option" in name else set()
    assert "ffn_bench.train" in modules and not modules & HEAVY - needed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("line", "answer"), [("opt", "optimizer."), ("model.act", "model.activation=")])
def test_completion_imports_only_what_it_needs(line: str, answer: str) -> None:
    done, modules = run_listed("-sc", "query=bash", line=line)
    assert done.returncode == 0 and answer in done.stdout.split()
    assert "ffn_bench.train" in modules and not modules & HEAVY - OTHER_OPTIMIZERS


ANALYSES: dict[str, tuple[list[str], set[str]]] = {
    "compare": (["runs=outputs/sweeps/s"], {"torch", "sklearn", "scipy.stats", "pandas"}),
    "lecture": ([], {"torch._dynamo.eval_frame", "sympy", "triton", "sklearn", "scipy", "matplotlib"}),
    "predict": (
        ["run=outputs/sweeps/s/RUN", "split=test"],
        {"torch", "sklearn", "scipy", "matplotlib", "rich"},
    ),
    "export": (
        ["run=outputs/sweeps/s/RUN", "to=model.onnx"],
        {"torch", "sklearn", "scipy", "matplotlib", "polars"},
    ),
    "race": (
        ["surface=saddle"],
        {"torch._dynamo.eval_frame", "sympy", "triton", "sklearn", "scipy", "pandas"},
    ),
}
"""Arguments of commands that analyse, and what these do not import."""
UNUSED = {"matplotlib.pyplot", "IPython", "tensorboard", "numba", "plotly", "ray", "optuna"}


@pytest.mark.parametrize("command", ANALYSES)
def test_an_analysis_imports_only_what_it_needs(
    command: str, ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, unused = ANALYSES[command]
    if any("outputs/sweeps/s" in argument for argument in arguments):
        assert ffn("-m", "seed=0,1", "epochs=1", "name=s").code == 0
        run = next(tmp_path.glob("outputs/sweeps/s/*seed=0*"))
        arguments = [argument.replace("outputs/sweeps/s/RUN", f"'{run}'") for argument in arguments]
    code = LISTED.replace("ffn_bench.train", f"ffn_bench.{command}.command").replace(
        "ffn-train", f"ffn-{command}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stderr.rpartition("\nmodules: ")[2].split())
    assert f"ffn_bench.{command}.command" in modules and not modules & (unused | UNUSED)


JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "hydra", "hydra/launcher=joblib"],
        ["--cfg", "hydra", "-cd", "mine", "-cn", "theirs"],
        ["--cfg", "hydra", f"hydra.launcher._target_={JOBLIB}.JoblibLauncher"],
    ],
)
def test_a_launcher_that_is_named_is_imported(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    text = "defaults: [config, {override hydra/launcher: joblib}, _self_]\n"
    (tmp_path / "mine" / "theirs.yaml").write_text(text)
    done, modules = run_listed(*arguments)
    assert done.returncode == 0 and "JoblibLauncher" in done.stdout
    assert JOBLIB in modules


def test_completion_lists_the_launchers_of_all_packages() -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done, _ = run_listed("-sc", "query=bash", line="hydra/launcher=")
    assert {"hydra/launcher=joblib", "hydra/launcher=workers"} <= set(done.stdout.split())


def test_information_lists_the_plugins_of_all_packages() -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done, _ = run_listed("--info", "plugins")
    assert {"JoblibLauncher", "WorkersLauncher"} <= set(done.stdout.split())


def test_packages_that_are_imported_late_offer_launchers_and_sweepers_only() -> None:
    """Other kinds of plug-ins would have to be there from the start."""
    Plugins.instance()
    plugin_packages.import_late()
    kinds = [k for k in Plugins.instance().discover() if k.__module__.startswith(tuple(plugin_packages.LATE))]
    assert all(issubclass(kind, (Launcher, Sweeper)) for kind in kinds)
    entries = ConfigStore.instance().repo["hydra"]
    known = {"launcher", "sweeper", "config.yaml"}
    assert {key for key in entries if key not in known} <= {"hydra_help", "help", "job_logging", "output"}


# --- hydra.mode -----------------------------------------------------------------------------------------


def test_no_file_sets_the_mode_but_those_that_are_chosen_with_a_plus() -> None:
    """`Loader.leaves_mode_open` relies on it."""
    setting = {
        file.relative_to(config_folder()).parts[0]
        for file in config_folder().rglob("*.yaml")
        if OmegaConf.select(OmegaConf.load(file), "hydra.mode") is not None or file.parts[-2] == "hydra"
    }
    assert setting == {"tune"}


MODES = [
    ["lr=0.1"], ["optimizer=sgd", "model=mlp"], ["lrr=1"], ["optimizer=adm"], ["lr=1,2"], ["+tune=random_25"],
    ["hydra.mode=MULTIRUN"], ["+hydra.mode=RUN"], ["'hydra.mode=RUN'"], ["+experiment=lecture"], [],
    ["optimizer@hydra=sgd"], ["data=${oc.env:HOME}"], ["=3"], ["foo"],
]  # fmt: skip
PATHS: list[list[str]] = [[], ["-cd", "mine"], ["-cp", "MINE"], ["-cn", "tune/random_25"], ["-cn", "compare"]]


@pytest.mark.parametrize("flags", PATHS, ids=str)
@pytest.mark.parametrize("overrides", MODES, ids=str)
def test_the_mode_is_what_hydra_composes(
    ffn: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], flags: list[str]
) -> None:
    """Where it is not composed, Hydra would have found none."""
    (tmp_path / "mine" / "data").mkdir(parents=True)
    flags = [str(tmp_path / "mine") if flag == "MINE" else flag for flag in flags]
    modes: list[tuple[Any, Any]] = []
    quick = QuickHydra.get_mode

    def both(self: QuickHydra, config_name: str | None, overrides: list[str]) -> Any:
        modes.append((quick(self, config_name, overrides), Hydra.get_mode(self, config_name, overrides)))
        raise UserError("test", "is over", "go on")

    monkeypatch.setattr(QuickHydra, "get_mode", both)
    ffn(*flags, *overrides)
    assert len(modes) <= 1 and all(ours == theirs for ours, theirs in modes)


def test_a_persons_option_may_set_the_mode(ffn: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "swept.yaml").write_text(
        "# @package _global_\ndefaults: [/data/digits@data]\nhydra: {mode: MULTIRUN}\n"
    )
    result = ffn("-cd", "mine", "data=swept", "lr=-1,-2")
    assert result.code == 2 and result.err.startswith("ffn-train: error: lr: -1")


# --- the schema and other optimizers --------------------------------------------------------------------


def _keys(optimizer: str) -> type:
    keys = rule_files.optimizer_keys(optimizer)
    assert keys is not None
    return keys


def test_the_schema_is_in_hydras_store() -> None:
    """Loaded as Hydra loads it, it is what `ConfigStore.store` would have stored; each copy is its own."""
    parsing.register()
    store = ConfigStore.instance()
    nodes: dict[str, type] = {"_schema/train": TrainConfig}
    nodes |= {
        f"_schema/{group}/{kind}": node for group, kinds in SCHEMA.items() for kind, node in kinds.items()
    }
    nodes |= {f"_schema/optimizer/{name}": _keys(name) for name in rule_files.optimizer_files()}
    for path, node in nodes.items():
        loaded = store.load(f"{path}.yaml")
        assert loaded.node == OmegaConf.structured(parsing.untyped(node))
        assert loaded.package == ("_global_" if path == "_schema/train" else None)
        assert f"{loaded.group}/{loaded.name}" == f"{path}.yaml"
        loaded.node[next(iter(loaded.node))] = "changed"
        assert store.load(f"{path}.yaml").node != loaded.node


def test_other_optimizers_are_looked_for_once_and_only_where_they_may_be_meant() -> None:
    asked: list[int] = []

    def ask() -> dict[str, dict[str, Any]]:
        asked.append(1)
        return {"theirs": {"beta": 0.5}}

    parsing.offer_optimizers(ask)
    assert not ConfigStore.instance().repo["optimizer"] and not asked
    for _ in range(2):
        parsing.register_offered()
    assert [*ConfigStore.instance().repo["optimizer"]] == ["theirs.yaml"] and asked == [1]


def test_a_copy_of_a_repository_has_sources_of_its_own() -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    Plugins.instance()
    path = ConfigSearchPathImpl()
    for provider, place in (("main", str(config_folder())), ("schema", "structured://")):
        path.append(provider, place)
    repository = composition.Repository(path)
    other = copy.deepcopy(repository)
    assert other.sources == repository.sources
    other.initialize_sources(ConfigSearchPathImpl())
    assert not other.sources and len(repository.sources) == 2
