"""The configuration of a run: its checks and its fingerprint.

Hydra composes YAML and overrides against the dataclasses of `schema`; `parse` turns the result into one plain
`TrainConfig`. Nothing after that sees a DictConfig, and nothing here knows tensors or files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import field
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf

from ffn_bench.configuration import rule_files, schema
from ffn_bench.configuration.fingerprint import later
from ffn_bench.configuration.schema import (
    GROUPS,
    SCHEMA,
    OptimizerConfig,
    RowsConfig,
    TrainConfig,
)
from ffn_bench.configuration.validation import check, no_such_key
from ffn_bench.errors import RUN_FOLDER, UserError

T = TypeVar("T")


def register() -> None:
    """Put the schema where Hydra's defaults lists find it: `/_schema/train`, `/_schema/<group>/<kind>`."""
    register_command("train", TrainConfig)
    _store("_schema/predict/rows", functools.partial(_same, RowsConfig), None)
    for group, kinds in SCHEMA.items():
        for kind, node in kinds.items():
            _store(f"_schema/{group}/{kind}", functools.partial(_same, node), None)
    for name in rule_files.optimizer_files().keys() - SCHEMA["optimizer"].keys():
        _store(f"_schema/optimizer/{name}", functools.partial(rule_files.optimizer_keys, name), None)


def register_command(name: str, node: type) -> None:
    """Put the schema of a command's keys where Hydra finds it: `/_schema/<name>`."""
    _store(f"_schema/{name}", functools.partial(_same, node), "_global_")


class _SchemaEntry(ConfigNode):
    """An entry of Hydra's store whose content is worked out when it is loaded: a command uses five of them,
    and for all 28 that takes 20 ms."""

    def __init__(self, path: str, package: str | None, schema: Callable[[], Any]) -> None:
        group, _, self.name = f"{path}.yaml".rpartition("/")
        self.group, self.package, self.provider = group, package, None
        self.schema = schema

    @functools.cached_property
    def node(self) -> DictConfig:  # type: ignore[override]  # `load` sets it in its copy of the entry
        return OmegaConf.structured(untyped(self.schema()))  # type: ignore[no-any-return]


def _same(node: type) -> type:
    return node


def _store(path: str, schema: Callable[[], Any], package: str | None) -> None:
    *groups, _ = path.split("/")
    entries = ConfigStore.instance().repo
    for group in groups:
        entries = entries.setdefault(group, {})
    entry = _SchemaEntry(path, package, schema)
    entries[entry.name] = entry


@functools.cache
def untyped(node: type) -> type:
    """A schema whose keys OmegaConf knows and whose values it takes as they come.

    With the types it would turn 7 into true, "010" into 10 and a list into text; `typed` checks them instead.
    """
    keys = [
        (f.name, Any, field(default=f.default, default_factory=f.default_factory))
        for f in dataclasses.fields(node)
    ]
    own = {"__typed__": node, "__module__": __name__}
    return dataclasses.make_dataclass(f"{UNTYPED}{node.__name__}", keys, namespace=own, repr=False, eq=False)


UNTYPED = "Untyped"


def __getattr__(name: str) -> Any:
    """The classes that `untyped` makes, by their names: launchers pickle configurations, and a dataclass that
    is pickled by its content loses its fields."""
    own = name.removeprefix(UNTYPED)
    node = vars(schema).get(own) or rule_files.optimizer_keys(own.removeprefix(rule_files.PREFIX))
    if own != name and isinstance(node, type):
        return untyped(node)
    raise AttributeError(name)


def schema_of(cfg: DictConfig) -> type | None:
    """The dataclass that describes a composed configuration or one of its groups; None where none does."""
    return getattr(OmegaConf.get_type(cfg), "__typed__", None)


def register_optimizers(plugins: Mapping[str, dict[str, Any]]) -> None:
    """Register `optimizer=<name>` for exactly these optimizers of other packages, with hyper-parameters typed
    by their defaults; names of our own optimizers are never replaced.

    Hydra finds them in its ConfigStore, one for the process, which every command fills anew.
    """
    store = ConfigStore.instance()
    store.repo.pop("optimizer", None)
    for name, defaults in plugins.items():
        if name not in SCHEMA["optimizer"]:
            store.store(group="optimizer", name=name, node=untyped(_plugin_config(defaults))(name=name))


class _Offers(dict[str, Any]):
    """The group `optimizer` of Hydra's store until somebody looks for an optimizer of another package."""

    def __init__(self, ask: Callable[[], Mapping[str, dict[str, Any]]]) -> None:
        super().__init__()
        self.ask = ask


def offer_optimizers(ask: Callable[[], Mapping[str, dict[str, Any]]]) -> None:
    """Have `register_offered` register what `ask` says: looking through all installed packages takes 20 ms,
    and our own optimizers need no such look."""
    ConfigStore.instance().repo["optimizer"] = _Offers(ask)


def register_offered() -> None:
    """Register the optimizers of other packages, unless that has been done."""
    offers = ConfigStore.instance().repo.get("optimizer")
    if isinstance(offers, _Offers):
        register_optimizers(offers.ask())


def _is_plugin(name: str) -> bool:
    """Whether an optimizer is one of `register_optimizers`; our own options are files."""
    register_offered()
    return f"{name}.yaml" in ConfigStore.instance().repo.get("optimizer", {})


def _plugin_config(defaults: dict[str, Any]) -> type:
    """A dataclass of an optimizer that another package offers."""
    return rule_files.typed_by(defaults, "PluginConfig", OptimizerConfig)


def parse(cfg: DictConfig) -> TrainConfig:
    """The composed configuration as plain typed values, checked.

    Raises `UserError` where a value is missing, of the wrong type, out of its bounds or in conflict with
    another one, and OmegaConf's own errors (which `command_line.mistakes` explains) where an interpolation
    fails.
    """
    config = typed(cfg, TrainConfig)
    check(config)
    return config


def typed(cfg: DictConfig, node: type[T], within: str = "") -> T:
    """A composed configuration as the dataclass that describes it. Every value is what was given: only an
    integer becomes a float, or text, where the type asks for one. `within` is where `cfg` lies: `data.`.

    Raises as `parse` does.
    """
    hints = _hints(node)
    for key in map(str, cfg):
        if key not in hints and (within or key != "hydra"):
            raise no_such_key(f"{within}{key}", hints, f"keys here: {', '.join(hints)}")
    groups_last = sorted(hints, key=GROUPS.__contains__)  # they refer to plain keys
    return node(**{key: _value(cfg, key, hints[key], f"{within}{key}") for key in groups_last})


def check_plain_keys(cfg: DictConfig) -> None:
    """Raise `UserError` where a key of a run outside its groups is of the wrong type."""
    for key, hint in _hints(TrainConfig).items():
        if key not in GROUPS:
            _value(cfg, key, hint, key)


def _value(cfg: DictConfig, key: str, hint: Any, path: str) -> Any:
    if OmegaConf.is_missing(cfg, key) or (dataclasses.is_dataclass(hint) and cfg[key] is None):
        raise UserError(path, "has no value", f"give one: {path}=…")
    value = cfg[key]
    if dataclasses.is_dataclass(hint):
        kind = schema_of(value)
        if kind is None:
            todo = f"begin its file with defaults: [/_schema/{key}/…@_here_]"
            raise UserError(path, "is not described by a schema", todo)
        return typed(value, kind, f"{path}.")
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return fitted(value, hint, path)


_hints: Callable[[Any], dict[str, Any]] = functools.cache(get_type_hints)


def fitted(value: Any, hint: Any, path: str) -> Any:
    """A value converted to a key's type. Raises `UserError` where it has another type."""
    try:
        return _as(value, hint)
    except TypeError:
        shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        todo = "quote it" if hint in (str, str | None) and isinstance(value, (bool, float)) else "change it"
        raise UserError(path, f"{shown} is not {in_words(hint)}", todo) from None


def in_words(hint: Any) -> str:
    """What a value of a type is, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(in_words(kind) for kind in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is list:
        return f"a list in which each element is {in_words(inner[0])}" if inner[0] is not Any else "a list"
    if origin is tuple:
        return f"a list of {'two' if len(inner) == 2 else len(inner)} values, each {in_words(inner[0])}"
    if origin is dict:
        return "a mapping of keys to values"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text", NoneType: "null"}
    return words.get(hint, str(hint))


def set_values(config: TrainConfig, values: dict[tuple[str, ...], Any]) -> TrainConfig:
    """`config` with other values at some paths, (key,) or (group, key), checked; unchanged groups are shared.

    Raises `UserError` as `parse` does.
    """
    top: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        (groups.setdefault(path[0], {}) if path[1:] else top)[path[-1]] = value
    top = {key: fitted(value, _hints(TrainConfig)[key], key) for key, value in top.items()}
    for group, keys in groups.items():
        old = getattr(config, group)
        hints = _hints(type(old))
        fitting = {key: fitted(value, hints[key], f"{group}.{key}") for key, value in keys.items()}
        new = dataclasses.replace(old, **fitting)
        top[group] = old if repr(new) == repr(old) else new  # 1 and 1.0 are equal, and not the same
    config = dataclasses.replace(config, **top)
    check(config)
    return config


def from_flat(flat: dict[str, Any]) -> TrainConfig:
    """`flatten` undone: the checked configuration that flat keys, such as those of a run.json, describe.

    The values are taken as they are: no interpolation is resolved, nothing is looked up or imported. A key
    that is missing at the top, or is one of `LATER` (the run is older than the key), takes its default.

    Raises `UserError` (status 4) for keys, types or values that are no run's.
    """

    def bad(key: str, what: str) -> UserError:
        return UserError(key, what, "use a run folder that this version wrote", RUN_FOLDER)

    def build(node: Any, values: dict[str, Any], prefix: str) -> Any:
        hints = get_type_hints(node)
        given = {}
        for key, value in values.items():
            try:
                given[key] = value if dataclasses.is_dataclass(value) else _as(value, hints[key])
            except KeyError:
                raise bad(f"{prefix}{key}", "no such key") from None
            except TypeError:
                raise bad(f"{prefix}{key}", f"{value!r} has the wrong type") from None
        return node(**given)

    top: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, value in (later(flat) | flat).items():
        group, _, rest = key.partition(".")
        if (rest != "") != (group in groups):
            raise bad(key, "no such key")
        (groups[group] if rest else top)[rest or key] = value
    for group, keys in groups.items():
        name = keys.get("name")
        if not isinstance(name, str):
            raise bad(f"{group}.name", "is missing or not text")
        kinds = list(SCHEMA[group].values())
        own = SCHEMA[group].get(name)  # of several kinds with the same keys, the name chooses
        if group == "optimizer" and (keys_of_name := rule_files.optimizer_keys(name)):
            kinds = [own := keys_of_name]
        elif group == "optimizer" and _is_plugin(name):
            try:
                kinds = [_plugin_config({key: None for key in keys if key not in ("name", "lr")})]
            except (TypeError, ValueError) as e:
                raise bad("optimizer", str(e)) from None
        fitting = [kind for kind in kinds if {f.name for f in dataclasses.fields(kind)} == keys.keys()]
        if not fitting:
            raise bad(f"{group}.name", f"{name!r} does not have the keys {', '.join(sorted(keys))}")
        top[group] = build(own if own in fitting else fitting[0], keys, f"{group}.")
    try:
        config: TrainConfig = build(TrainConfig, top, "")
        check(config)
    except UserError as e:
        raise UserError(e.where, e.what, e.todo, RUN_FOLDER) from e
    return config


def _as(value: Any, hint: Any) -> Any:
    """A value of JSON as a field's type has it. Raises `TypeError` where it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        for kind in inner:
            with contextlib.suppress(TypeError):
                return _as(value, kind)
        raise TypeError
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        if origin is tuple and len(value) != len(inner):
            raise TypeError
        kinds = inner if origin is tuple else inner * len(value)
        return [_as(v, kind) for v, kind in zip(value, kinds, strict=True)]
    if origin is dict and type(value) is dict and inner[0] is str:
        return {_as(key, str): _as(v, inner[1]) for key, v in value.items()}
    if origin is Literal and value in inner:
        return value
    if hint is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    if hint is str and type(value) is int:
        return str(value)
    if type(value) is hint or (hint is NoneType and value is None):
        return value
    raise TypeError
