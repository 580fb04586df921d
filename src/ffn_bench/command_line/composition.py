"""What Hydra composes, checked before anything acts on it: every file that took part, and the result.

Hydra calls what a configuration names: `_target_` in callbacks, launchers and sweepers, `()` in logging,
resolvers in `${name:…}`. Text gets into a configuration in many ways (defaults lists, packages, search
paths, quotes, interpolations), so the check is not of what was typed but of what was composed, in the one
method that all of Hydra's commands and launchers compose with: `Loader.load_configuration`. Files are read by
one path, too: `Repository` finds them and `FolderSource` reads them. `guarded` substitutes all of this for
Hydra's classes; nothing else in this package reaches into Hydra for it.
"""

from __future__ import annotations

import importlib.resources
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ffn_bench import errors
from ffn_bench.command_line import plugin_packages
from ffn_bench.command_line.hydra_internals import (
    ConfigLoaderImpl,
    ConfigRepository,
    FileConfigSource,
    IConfigRepository,
    SourcesRegistry,
    hydra_module,
)
from ffn_bench.command_line.invocation import command_name
from ffn_bench.command_line.quick_hydra import QuickHydra
from ffn_bench.command_line.resolvers import RESOLVERS, unlisted
from ffn_bench.configuration import parsing, schema, yaml_files
from ffn_bench.configuration.notation import misread, plain
from ffn_bench.configuration.omegaconf_internals import (
    BaseContainer,
    full_key,
    omegaconf_utils,
    parsed_once,
    quick_yaml_loader,
    resolvers,
)
from ffn_bench.configuration.rule_files import config_folder, optimizer_keys
from ffn_bench.errors import UserError

ARGUMENT = re.compile(r"[:,]\s*([-+]?[.\d][\w.+-]*)(?=\s*[,}])")
"""Numbers that are given to a resolver."""
RESOLVER = re.compile(r"(?<!\\)\$\{\s*([\w.]+)\s*:")

PLAIN_OVERRIDE = re.compile(r"(?!hydra)[\w./]+=[^$]*\Z")
"""Sets a key of the run, or chooses a file by its name."""

OURS = "hydra_plugins.ffn_bench_launcher."
LAUNCHERS = (
    f"{OURS}WorkersLauncher",
    f"{OURS}SequentialLauncher",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
)
SWEEPERS = (f"{OURS}CheckedSweeper", "hydra._internal.core_plugins.basic_sweeper.BasicSweeper")
"""Launchers and sweepers that are known whether or not they are installed; others must be installed."""
SAMPLER = re.compile(r"optuna\.samplers\.[A-Z]\w*Sampler")
"""Below `hydra.sweeper.sampler` of the Optuna sweeper."""
CALLBACKS = {"check_first": {"_target_": "ffn_bench.train.CheckFirst"}}
"""Of a run, whose checks and lock they are; other commands have none."""

CALLS = re.compile(r"_\w*_|\(\)")
"""Keys with which a mapping asks to be called: `_target_`, `_partial_`, …, and `()` of logging."""
ENVIRONMENT = re.compile(
    r"\w+_(NUM|MAX)_THREADS|(CUDA|HIP|ROCR|NVIDIA)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|CUBLAS_WORKSPACE_CONFIG"
)
"""Variables that jobs may be given: they change how fast a program is, not which one it is."""

LAUNCHER_KEYS = {
    "n_jobs", "prefer", "verbose", "timeout", "batch_size",
    "name", "partition", "timeout_min", "max_num_timeout", "signal_delay_s", "nodes", "tasks_per_node",
    "cpus_per_task", "mem_gb", "gpus_per_node", "array_parallelism", "stderr_to_stdout", "qos", "account",
    "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu",
    "ray.init.num_cpus", "ray.remote.num_cpus", "ray.remote.num_gpus", "ray.remote.max_retries",
}  # fmt: skip
"""Settings of launchers that a person's file may hold. Others name programs, folders of pickles or hosts, and
are the command line's."""
TYPED_ONLY = ("overrides", "runtime", "sweeper.storage", "launcher", "help", "hydra_help")
"""Keys below `hydra` that a person's file may not set, but for `LAUNCHER_KEYS`."""
HELP = ("FLAGS_HELP", "HYDRA_CONFIG_GROUPS", "APP_CONFIG_GROUPS", "CONFIG")
"""What Hydra fills into the template of a help text."""


@contextmanager
def guarded(node: type) -> Iterator[None]:
    """Let Hydra compose for a command whose configuration `node` types, with all checks in place."""
    replacements: list[tuple[Any, str, Any]] = [
        (hydra_module, "ConfigLoaderImpl", partial(Loader, command=node)),
        (BaseContainer, "_resolvers", resolvers()),
        (HydraOverrideVisitor, "_createPrimitive", _primitive),
        (overrides_parser, "create_functions", _functions),
        (omegaconf_utils, "get_yaml_loader", quick_yaml_loader),
        (omegaconf_utils, "parse", parsed_once),
        (hydra_module, "Hydra", QuickHydra),
        (Plugins, "_scan_all_plugins", staticmethod(plugin_packages.scan_early)),
    ]
    originals = [(owner, name, inspect.getattr_static(owner, name)) for owner, name, _ in replacements]
    try:
        for replacement in replacements:
            setattr(*replacement)
        yield
    finally:
        for original in originals:
            setattr(*original)


# --- files ----------------------------------------------------------------------------------------------


def _is_ours(folder: str) -> bool:
    """Whether it is the folder of YAML files that came with the package."""
    return Path(folder) == config_folder()


class FolderSource(FileConfigSource):
    """A folder of YAML files. One that is not ours is read by `yaml_files`, once."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read an option; an optimizer's search space apart, and its keys typed. Raises `UserError` for
        faults in a person's file."""
        result = self._read(config_path)
        if config_path.startswith("optimizer/"):
            result = _search_space_apart(result)
            _name_schema(result.config)
        return result

    def _read(self, config_path: str) -> ConfigResult:
        if _is_ours(self.path):
            return super().load_config(config_path)
        name = self._normalize_file_name(config_path)
        file = Path(self.path) / name
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {file}")
        text = yaml_files.read_text(file)
        content = yaml_files.parse(text, file)
        _check_defaults(content.get("defaults"), file)
        try:
            header = self._get_header_dict(text)
        except ValueError as e:
            raise UserError(str(file), f"its header cannot be read ({e})", "write # @package _global_") from e
        return ConfigResult(
            provider=self.provider,
            path=f"file://{self.path}",
            config=OmegaConf.create(content),
            header=header,
        )


class OptimizerFile(ConfigResult):
    """An optimizer's file that has a `search_space`: what tuning tries, and no part of a configuration."""

    search_space: Any = None


def _search_space_apart(result: ConfigResult) -> ConfigResult:
    if "search_space" not in result.config:
        return result
    content = OmegaConf.to_container(result.config, resolve=False)
    assert isinstance(content, dict)
    space = content.pop("search_space")
    optimizer = OptimizerFile(**{**vars(result), "config": OmegaConf.create(content)})
    optimizer.search_space = space
    return optimizer


def _name_schema(content: Any) -> None:
    """Give a file that only has an update rule's keys the defaults list that types them."""
    name = None if "defaults" in content else content.get("name")
    if isinstance(name, str) and optimizer_keys(name):
        content["defaults"] = [f"/_schema/optimizer/{name}@_here_"]


def _check_defaults(entries: Any, file: Path) -> None:
    """Raise `UserError` unless a defaults list is a list of choices."""

    def is_choice(entry: Any) -> bool:
        if not isinstance(entry, dict):
            return isinstance(entry, str)
        names = [name for value in entry.values() for name in (value if isinstance(value, list) else [value])]
        return len(entry) == 1 and all(isinstance(n, str | None) for n in [*entry, *names])

    if entries is None:
        return
    if not isinstance(entries, list) or not all(map(is_choice, entries)):
        raise UserError(f"{file}, defaults", "is not a list of choices", "write - group: option lines")


class Repository(ConfigRepository):
    """Where configurations are found: Hydra's package, folders, and what installed packages register."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Called by Hydra. Raises `UserError` where a person names no folder: other schemes import it."""
        self.sources = []
        for entry in config_search_path.get_path():
            path, provider = str(entry.path), str(entry.provider)
            scheme = self._get_scheme(path)
            is_folder = scheme == "file" and Path(path.removeprefix("file://")).is_dir()
            if not is_folder and (provider in ("main", "command-line") or "hydra.searchpath" in provider):
                where = "hydra.searchpath" if "hydra.searchpath" in provider else "--config-path"
                raise UserError(where, f"{path} is not a folder", "name an existing folder")
            kind: type[ConfigSource] = (
                FolderSource if scheme == "file" else SourcesRegistry.instance().resolve(scheme)
            )
            self.sources.append(kind(provider, path))

    def __deepcopy__(self, memo: dict[int, Any]) -> Repository:
        """Hydra copies a repository whenever it looks something up, to give the copy other sources. These
        hold a path and no state, and one of them all registered configurations: 15 ms a copy."""
        copy = object.__new__(Repository)
        copy.sources = list(self.sources)
        return copy

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        _check_below(config_path)
        if config_path.startswith(plugin_packages.GROUPS) and config_path not in plugin_packages.EARLY:
            _import_late()
        source = super()._find_object_source(config_path, object_type)
        is_ours = isinstance(source, FolderSource) and _is_ours(source.path)
        if config_path.startswith("optimizer/") and not is_ours:
            _register_offered()
            source = super()._find_object_source(config_path, object_type)
        return source

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        """Called by Hydra, for messages and completion."""
        _check_below(group_name)
        if group_name.startswith(plugin_packages.GROUPS):
            _import_late()
        if group_name.startswith("optimizer"):
            _register_offered()
        return super().get_group_options(group_name, results_filter)


def _import_late() -> None:
    with _resolvers_kept():
        plugin_packages.import_late()


def _register_offered() -> None:
    with _resolvers_kept():
        parsing.register_offered()


def _check_below(config_path: str) -> None:
    """Raise `UserError` for an option that is not below the folders of the configuration."""
    path = PurePosixPath(config_path)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(config_path, "is outside the configuration folder", "name an option in it")


# --- composing ------------------------------------------------------------------------------------------


class Loader(ConfigLoaderImpl):
    """Hydra's loader, whose configurations are checked. Workers of launchers get it with their job.

    `command` is the schema of the command that runs.
    """

    def __init__(self, config_search_path: ConfigSearchPath, command: type | None = None) -> None:
        self.command = command
        self._announced: Announced = set()
        _keep_resolvers(self._announced)
        self.config_search_path = config_search_path
        self.repository = Repository(config_search_path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose and check. Raises `UserError`, and Hydra's errors."""
        _keep_resolvers(self._announced)
        try:
            cfg = super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        except (HydraException, OmegaConfBaseException):
            raise
        except (AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError) as e:
            if errors.of_system(e):
                raise
            # Nothing of ours runs in there: Hydra stumbles over a defaults list, a package, a key.
            line = (str(e).strip().splitlines() or [""])[0]
            raise UserError("configuration", f"{type(e).__name__}: {line}", "see --help") from e
        kind = parsing.schema_of(cfg)
        expected = self.command if from_shell else None
        if config_name is None:  # Hydra's own help
            kind = None
        elif kind is None or expected not in (None, kind):
            what = "is not a configuration of this command: its defaults list has no /_schema/… of it"
            raise UserError(f"--config-name {config_name}", what, "leave it out, and --config-path")
        _check(OmegaConf.to_container(cfg, resolve=False), kind, run_mode)
        given = cfg.hydra.overrides
        if len(given.hydra) + len(given.task) != len(overrides):
            raise UserError(
                "hydra.overrides", "cannot be changed: it records the command line", "leave it out"
            )
        return cfg

    def leaves_mode_open(self, config_name: str | None, overrides: Sequence[str]) -> bool:
        """Whether no file and no override can set `hydra.mode`: none but the command's own files take part,
        and of these only those do that are chosen with a `+` (+tune=…)."""
        path = [str(entry.path) for entry in self.config_search_path.get_path()]
        own_files = path == ["pkg://hydra.conf", str(config_folder()), "structured://"]
        return own_files and "/" not in str(config_name) and all(map(PLAIN_OVERRIDE.match, overrides))

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        result = repo.load_config(str(default.config_path))
        scheme, _, folder = result.path.partition("://") if result else ("", "", "")
        if result and scheme == "file" and not _is_ours(folder):
            placed = self._embed_result_config(result, default.package)
            content = OmegaConf.to_container(placed.config, resolve=False)
            assert isinstance(content, dict)
            file = Path(folder) / f"{default.config_path}.yaml"
            _check_file(content.get("hydra", {}), file)
            if content.get("chunk_file") is not None:
                raise UserError(str(file), "chunk_file is set by a sweep for its jobs", "leave it out")
        return super()._load_single_config(default, repo)


def _check_file(node: Any, file: Path) -> None:
    """Raise `UserError` where a person's file sets what only the command line may set below `hydra`."""
    for path, value in _leaves(node):
        name = path.removeprefix("launcher.")
        if name in LAUNCHER_KEYS and name != path and "${" not in str(value):
            continue
        typed_only = any(f"{key}.".startswith(f"{path}.") or path.startswith(f"{key}.") for key in TYPED_ONLY)
        if path.startswith("sweeper.params."):
            typed_only = path.removeprefix("sweeper.params.").lstrip("+~").startswith("hydra")
        if typed_only and value is not None:
            what = f"hydra.{path} cannot be set in a file"
            raise UserError(str(file), what, "write it on the command line")


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths of what is not a mapping, or of an empty one."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


# --- what was composed ----------------------------------------------------------------------------------


def _check(raw: Any, kind: type | None, run_mode: RunMode) -> None:
    """Raise `UserError` for a composed configuration that names anything to call but what is on the lists.

    `raw` has its interpolations as they are written, so that nothing is resolved; `kind` is its schema, None
    for Hydra's own help.
    """
    node = raw["hydra"]
    for key in ("", "run", "sweep", "launcher", "sweeper", "hydra_logging", "job_logging", "callbacks", "job",
                "overrides", "runtime", "help", "hydra_help"):  # fmt: skip
        value = node[key] if key else node
        if not isinstance(value, dict):
            raise UserError(f"hydra.{key}".strip("."), f"{value!r} is not a mapping", "write keys and values")
    for key, plugin, known in (("launcher", Launcher, LAUNCHERS), ("sweeper", Sweeper, SWEEPERS)):
        target = _target(node[key])
        if not str(target).startswith((OURS, "hydra._internal.")):
            _import_late()
        if target not in known and target not in _installed(plugin):
            what = f"{target!r} is not an installed {key}"
            raise UserError(f"hydra.{key}._target_", what, f"choose by name: hydra/{key}=…")
    sampler = node["sweeper"].get("sampler")
    if sampler is not None and not SAMPLER.fullmatch(str(_target(sampler))):
        raise UserError("hydra.sweeper.sampler", "is not one of Optuna's", "choose by name: random, tpe, …")
    if node["sweeper"].get("custom_search_space") is not None:
        raise UserError("hydra.sweeper.custom_search_space", "names a function to call", "leave it out")
    if node["callbacks"] != (CALLBACKS if kind is schema.TrainConfig else {}):
        raise UserError("hydra.callbacks", "cannot be changed: the command sets them", "leave them out")
    calling = ("callbacks.check_first", "launcher", "sweeper", "sweeper.sampler")
    _check_nodes(raw, "", {f"hydra.{node_name}._target_" for node_name in calling})
    _check_printable(node["launcher"], "hydra.launcher")
    for key, options in (("hydra_logging", ("default", "disabled")), ("job_logging", ("disabled", "stdout"))):
        quiet = "root" in node[key] and node[key]["root"] is None  # Hydra then leaves logging alone
        if not quiet and (kind or key == "hydra_logging") and node[key] not in _hydra_options(key, options):
            todo = f"use one of: none, {', '.join(options)}"
            raise UserError(f"hydra/{key}", "opens files or calls what it names", todo)
    if node["output_subdir"] not in (".hydra", None):
        raise UserError("hydra.output_subdir", f"{node['output_subdir']!r} is refused", "use .hydra or null")
    given = node["job"]["env_set"]
    for name in given if isinstance(given, dict) else [given]:
        if not ENVIRONMENT.fullmatch(str(name)):
            what = f"{name!r} is not one of the variables that jobs are given"
            raise UserError("hydra.job.env_set", what, "set it in the shell that starts the command")
    for key in ("help", "hydra_help"):
        text = re.sub(r"\$\{[^}]*\}", "", str(node[key].get("template")))  # of OmegaConf, filled in before
        try:
            Template(text).substitute(dict.fromkeys(HELP, ""))
        except (LookupError, ValueError) as e:
            raise UserError(f"hydra.{key}.template", f"cannot be filled in: {e}", "leave it as it is") from e
    launcher, sweeper = (node[key]["_target_"] for key in ("launcher", "sweeper"))
    sweeps = kind is schema.TrainConfig and run_mode == RunMode.MULTIRUN
    if sweeps and sweeper != SWEEPERS[0] and launcher not in LAUNCHERS[:2]:
        what = "does not lock the runs of this hydra/sweeper"
        raise UserError("hydra/launcher", what, "use hydra/launcher=workers or sequential")


def _target(node: Any) -> Any:
    return node.get("_target_") if isinstance(node, dict) else None


def _installed(kind: type) -> set[str]:
    """The names of the launchers or sweepers of installed packages."""
    return {f"{plugin.__module__}.{plugin.__name__}" for plugin in Plugins.instance().discover(kind)}


def _hydra_options(group: str, options: Sequence[str]) -> list[Any]:
    """The content of some of Hydra's own options of a group."""
    folder = importlib.resources.files("hydra.conf") / "hydra" / group
    return [yaml.safe_load((folder / f"{option}.yaml").read_text("utf-8")) for option in options]


def _check_nodes(node: Any, path: str, allowed: set[str]) -> None:
    """Raise `UserError` for a key that asks to be called, but for `allowed` places, or a resolver that is not
    on the list. (A name that is put together is refused when it is looked up.)"""
    if isinstance(node, dict):
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            if CALLS.fullmatch(str(key)) and here not in allowed:
                raise UserError(here, f"{str(key)!r} cannot be set in a configuration", "choose by name")
            _check_nodes(value, here, allowed)
    elif isinstance(node, list):
        for k, value in enumerate(node):
            _check_nodes(value, f"{path}.{k}", allowed)
    elif isinstance(node, str):
        for name in RESOLVER.findall(node):
            if name not in RESOLVERS:
                raise unlisted(name, path)
        for number in ARGUMENT.findall(node) if "${" in node else ():
            if what := misread(number):
                raise UserError(
                    path, f"{number!r} is read as {what}", "write it in plain digits, or quote it"
                )


def _check_printable(node: Any, path: str) -> None:
    """Raise `UserError` for text of several lines: launchers write it into scripts."""
    for key, value in _leaves(node):
        for text in value if isinstance(value, list) else [value]:
            if not str(text).isprintable():
                raise UserError(f"{path}.{key}", "holds a line break or a control character", "remove it")


# --- resolvers ------------------------------------------------------------------------------------------


Announced = set[tuple[str, str]]
"""Keys whose values come from the environment, and the variables, as far as they have been reported."""


def _keep_resolvers(announced: Announced) -> None:
    """Forget all resolvers but those on the list; packages register theirs when they are imported."""
    for name in resolvers():
        if name not in RESOLVERS:
            OmegaConf.clear_resolver(name)
    OmegaConf.register_new_resolver("oc.env", partial(_environment, announced), replace=True)


@contextmanager
def _resolvers_kept() -> Iterator[None]:
    """Undo what packages that are imported meanwhile do to the resolvers."""
    before = resolvers()
    try:
        yield
    finally:
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(before)


def _environment(announced: Announced, name: str, *default: Any, _node_: Node) -> Any:
    """`oc.env`, which says so, once a command; plain numbers, true and false are what they say. A variable
    that is not set is an error without a `default`."""
    if name not in os.environ:
        if not default:
            raise KeyError(f"environment variable {name!r} is not set")
        return default[0]
    key = full_key(_node_)
    key = "a defaults list" if not key or key.startswith("_dummy_") else key  # where Hydra resolves choices
    if (key, name) not in announced:
        announced.add((key, name))
        print(f"{command_name()}: {key} is taken from the environment variable {name}", file=sys.stderr)
    return plain(os.environ[name])


# --- numbers --------------------------------------------------------------------------------------------

_hydras_functions = overrides_parser.create_functions
CASTS = ("int", "float", "bool", "str", "json_str")


def _functions() -> Any:
    """The functions of Hydra's overrides, without casts: `int(010)` is 10, `int(3.7)` is 3."""
    functions = _hydras_functions()
    for name in CASTS:
        functions.functions.pop(name, None)
        functions.definitions.pop(name, None)
    return functions


_hydras_primitive = HydraOverrideVisitor._createPrimitive


def _primitive(self: HydraOverrideVisitor, ctx: Any) -> Any:
    """A value of the command line, whose numbers are what they look like. Raises `UserError`."""
    text = ctx.getText().strip()
    try:
        value = _hydras_primitive(self, ctx)
    except ValueError:
        what: str | None = f"a number of {len(text):,} digits"
    else:
        what = misread(text) if type(value) in (int, float) else None
    if what is None:
        return value
    while ctx.parentCtx is not None:
        ctx = ctx.parentCtx
    key = ctx.getText().partition("=")[0].lstrip("+")
    raise UserError(key, f"{text[:80]!r} is read as {what}", "write it in plain digits, or quote it")
