"""The configuration of a run: its checks and its fingerprint.

Hydra composes YAML and overrides against the dataclasses of `schema`; `parse` turns the result into one plain
`TrainConfig`. Past this door nobody sees a DictConfig, and nothing here knows tensors or files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import field
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from ffn_bench import schema
from ffn_bench.errors import RUN_FOLDER, UserError, nearest
from ffn_bench.schema import (
    GROUPS,
    OURS,
    SCHEMA,
    CsvConfig,
    DataConfig,
    MlpConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SgdConfig,
    TorchOptimizerConfig,
    TorchvisionConfig,
    TrainConfig,
)

T = TypeVar("T")

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "float64")
GRADIENTS = ("autograd", "manual")
DUPLICATES = ("warn", "keep_together")
STAGES = ("tune", "default", "final")
"""What a run is for in a comparison: choosing a setting, the setting as shipped, or the setting chosen."""

FULL_BATCH_ONLY = {
    "lbfgs": "L-BFGS compares losses of successive steps, which must be of the same batch",
    "LBFGS": "L-BFGS compares losses of successive steps, which must be of the same batch",
    "gd": "gradient descent is SGD on the whole training set",
    "newton": "a Newton step is of the whole objective",
}


def register() -> None:
    """Put the schema where Hydra's defaults lists find it: `/_schema/train`, `/_schema/<group>/<kind>`."""
    store = ConfigStore.instance()
    store.store(group="_schema", name="train", node=untyped(TrainConfig), package="_global_")
    for group, kinds in SCHEMA.items():
        for kind, node in kinds.items():
            store.store(group=f"_schema/{group}", name=kind, node=untyped(node))


@functools.cache
def untyped(node: type) -> type:
    """A schema whose keys OmegaConf knows and whose values it takes as they come.

    By their types it would make true of 7, 10 of "010" and text of a list; `typed` says what they may be.
    """
    keys = [
        (f.name, Any, field(default=f.default, default_factory=f.default_factory))
        for f in dataclasses.fields(node)
    ]
    own = {"__typed__": node, "__module__": __name__}
    return dataclasses.make_dataclass(f"{UNTYPED}{node.__name__}", keys, namespace=own)


UNTYPED = "Untyped"


def __getattr__(name: str) -> Any:
    """The classes that `untyped` makes, by their names: launchers pickle configurations, and a dataclass that
    is pickled by its content loses its fields."""
    if name.startswith(UNTYPED) and isinstance(node := vars(schema).get(name.removeprefix(UNTYPED)), type):
        return untyped(node)
    raise AttributeError(name)


def schema_of(cfg: DictConfig) -> type | None:
    """The dataclass that describes a composed configuration or one of its groups; None where none does."""
    return getattr(OmegaConf.get_type(cfg), "__typed__", None)


def register_optimizer(name: str, defaults: dict[str, Any]) -> None:
    """Make `optimizer=<name>` known, with hyper-parameters typed by their defaults; ours keep their names."""
    if name in SCHEMA["optimizer"]:
        return
    node = _plugin_config(defaults)
    ConfigStore.instance().store(group="optimizer", name=name, node=untyped(node)(name=name))
    SCHEMA["optimizer"][name] = node


def _plugin_config(defaults: dict[str, Any]) -> type:
    """A dataclass of an optimizer that another package offers."""
    fields: list[tuple[str, Any, Any]] = []
    for key, default in defaults.items():
        if isinstance(default, (list, tuple)):
            fields.append((key, list[Any], field(default_factory=functools.partial(list, default))))
        else:
            plain = type(default) if isinstance(default, (bool, int, float, str)) else Any
            fields.append((key, plain, field(default=default)))
    return dataclasses.make_dataclass("PluginConfig", fields, bases=(OptimizerConfig,))


def parse(cfg: DictConfig) -> TrainConfig:
    """The composed configuration as plain typed values, checked.

    Raises `UserError` where a value is missing, of the wrong type, out of its bounds or at odds with another
    one, and OmegaConf's own errors (which `errors.explain` turns into one line) where an interpolation fails.
    """
    config = typed(cfg, TrainConfig)
    check(config)
    return config


def typed(cfg: DictConfig, node: type[T], within: str = "") -> T:
    """A composed configuration as the dataclass that describes it. Every value is what was given: only a
    whole number becomes a float, or text, where one is wanted. `within` is where `cfg` lies: `data.`.

    Raises as `parse` does.
    """
    hints = _hints(node)
    for key in map(str, cfg):
        if key not in hints and (within or key != "hydra"):
            path = f"{within}{key}"
            raise UserError(path, f"no such key{nearest(key, hints)}", f"keys here: {', '.join(hints)}")
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
            raise UserError(path, "is of no known kind", todo)
        return typed(value, kind, f"{path}.")
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return fitted(value, hint, path)


_hints: Callable[[Any], dict[str, Any]] = functools.cache(get_type_hints)


def fitted(value: Any, hint: Any, path: str) -> Any:
    """A value as a key's type has it. Raises `UserError` where it is of another type."""
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
        return f"a list, of each element {in_words(inner[0])}" if inner[0] is not Any else "a list"
    if origin is tuple:
        return f"a list of {'two' if len(inner) == 2 else len(inner)} values, each {in_words(inner[0])}"
    if origin is dict:
        return "a table of keys and values"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
    return words.get(hint, str(hint))


def set_values(config: TrainConfig, values: dict[tuple[str, ...], Any]) -> TrainConfig:
    """`config` with other values at some paths, (key,) or (group, key), checked; what is the same is shared.

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


def check(config: TrainConfig) -> None:
    """Find what types cannot: bounds, names from a list, settings that exclude each other.

    Raises `UserError` at the first fault.
    """
    for path, value in flatten(config).items():
        for number in _numbers(value) if path != "optimizer.lr" else ():
            if not math.isfinite(number):
                raise UserError(path, f"{number} is not a finite number", "give a finite one")
        if isinstance(value, str) and not value.strip(" "):
            raise UserError(path, "is empty", f"give a value: {path}=…")

    at_least(config.lr, 0.0, "lr", open_bound=True)
    if config.optimizer.lr != config.lr:
        raise UserError(
            "optimizer.lr",
            f"is {config.optimizer.lr:g} but lr is {config.lr:g}, and they are one setting",
            "set lr at the top level",
        )
    for key in ("epochs", "log_every", "max_runs"):
        at_least(getattr(config, key), 1, key)
    check_seed(config.seed, "seed")
    at_least(config.l2, 0.0, "l2")
    if config.batch_size != "full":
        at_least(config.batch_size, 1, "batch_size")
    at_least(config.checkpoint_seconds, 0.0, "checkpoint_seconds")
    at_least(config.log_curvature, 0, "log_curvature")
    at_least(config.chunk, 1, "chunk")
    if config.retry is not None:
        one_of(config.retry, ("failed",), "retry")
    if config.stage is not None:
        one_of(config.stage, STAGES, "stage")
    one_of(config.gradient, GRADIENTS, "gradient")
    one_of(config.dtype, DTYPES, "dtype")
    one_of(config.device.split(":")[0], DEVICES, "device")
    check_name(config.name)
    check_data(config.data)
    check_model(config.model)
    check_schedule(config.schedule)
    check_optimizer(config.optimizer)

    if config.gradient == "manual" and config.optimizer.name == "newton":
        raise UserError(
            "gradient",
            "manual does not go with optimizer=newton, which takes second derivatives by autograd",
            "use gradient=autograd",
        )
    reason = FULL_BATCH_ONLY.get(config.optimizer.name)
    if reason and config.batch_size != "full":
        raise UserError(
            "batch_size",
            f"{config.batch_size} does not go with optimizer={config.optimizer.name}: {reason}",
            "use batch_size=full",
        )


def _numbers(value: Any) -> Iterator[float]:
    """The floats in a value, its lists and tables."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def check_name(name: str | None) -> None:
    """A name is one folder or several below each other, of letters, digits, `.`, `_`, `-`, `=` and `,`."""
    if name is None:
        return
    parts = name.split("/")
    if name.startswith("/") or {"", ".", ".."} & set(parts):
        raise UserError("name", f"{name!r} leaves the folder of the outputs", "use a plain name")
    if bad := sorted({c for c in name if not (c.isalnum() or c in "._-=,+/")}):
        raise UserError("name", f"{name!r} contains {bad[0]!r}", "use letters, digits and ._-=,+/")
    if any(len(part.encode()) > 200 for part in parts) or len(name.encode()) > 1000:
        raise UserError("name", f"is too long ({len(name.encode())} bytes)", "use at most 200 bytes")
    if parts[0] == "sweeps":
        raise UserError("name", "'sweeps' is where sweeps live", "use another name")


def check_data(data: DataConfig) -> None:
    """Bounds of the data group."""
    check_seed(data.split_seed, "data.split_seed")
    one_of(data.duplicates, DUPLICATES, "data.duplicates")
    shares = 0.0
    for key in ("val_fraction", "test_fraction"):
        share = getattr(data, key, 0.0)
        at_least(share, 0.0, f"data.{key}")
        shares += share
    if shares >= 1.0:
        raise UserError(
            "data.val_fraction", f"leaves nothing to train on (shares sum to {shares:g})", "use less"
        )
    at_least(getattr(data, "noise", 0.0), 0.0, "data.noise")
    at_most(getattr(data, "noise", 0.0), 1000.0, "data.noise")
    at_most(getattr(data, "n_samples", 10), 100_000_000, "data.n_samples")
    at_most(getattr(data, "n_features", 2), 100_000, "data.n_features")
    at_least(getattr(data, "n_samples", 10), 10, "data.n_samples")
    at_least(getattr(data, "n_features", 2), 2, "data.n_features")
    at_least(getattr(data, "n_classes", 2), 2, "data.n_classes")
    if isinstance(data, CsvConfig):
        data.delimiter = {"\\t": "\t", "tab": "\t"}.get(data.delimiter, data.delimiter)
        if len(data.delimiter) != 1 or data.delimiter in '"\r\n':
            raise UserError("data.delimiter", f"{data.delimiter!r} is not one character", "use , or ; or tab")
    kind = SCHEMA["data"].get(data.name, TorchvisionConfig)
    if type(data) is not kind:
        raise UserError(
            "data.name", f"{data.name!r} is not what these keys are for", f"choose data={data.name}"
        )


def check_model(model: ModelConfig) -> None:
    """Bounds of the model group. Names of activations and inits are checked where their tables live."""
    at_least(getattr(model, "depth", 0), 0, "model.depth")
    at_most(getattr(model, "depth", 0), 1000, "model.depth")
    at_least(model.init_std, 0.0, "model.init_std", open_bound=True)
    key = "model.width" if isinstance(model, MlpConfig) else "model.hidden"
    for width in model.widths():
        if type(width) is not int:
            raise UserError(key, f"{width!r} is not a whole number", "write a list such as [64,32]")
        at_least(width, 1, key)


def check_schedule(schedule: ScheduleConfig) -> None:
    """Bounds of the schedule group."""
    at_least(getattr(schedule, "decay", 0.0), 0.0, "schedule.decay")
    at_least(getattr(schedule, "every", 1), 1, "schedule.every")
    at_least(getattr(schedule, "gamma", 1.0), 0.0, "schedule.gamma", open_bound=True)
    at_most(getattr(schedule, "gamma", 1.0), 1.0, "schedule.gamma")
    if type(schedule) is not SCHEMA["schedule"].get(schedule.name):
        raise UserError(
            "schedule.name", f"{schedule.name!r} is not what these keys are for", "use schedule=…"
        )
    for key in ("final", "warmup"):
        share = getattr(schedule, key, 0.0)
        if not 0.0 <= share <= 1.0:
            raise UserError(f"schedule.{key}", f"{share:g} is not between 0 and 1", "use a share of 1")


SHARES = ("betas", "beta", "rho")
NOT_NEGATIVE = (
    "eps",
    "momentum",
    "momentum_decay",
    "weight_decay",
    "lr_decay",
    "initial_accumulator_value",
    "damping",
)
AT_LEAST_ONE = ("max_iter", "history_size", "max_parameters")
"""Bounds of the optimizers' keys, by name; what else PyTorch refuses shows when one is built."""


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Bounds of the optimizer group, of our own optimizers."""
    if isinstance(optimizer, TorchOptimizerConfig):
        if "lr" in optimizer.options:
            raise UserError("optimizer.options.lr", "is the run's learning rate", "write lr=…")
        return
    if type(optimizer) not in OURS:
        return
    if (
        isinstance(optimizer, SgdConfig)
        and optimizer.nesterov
        and not (optimizer.momentum and not optimizer.dampening)
    ):
        raise UserError("optimizer.nesterov", "needs momentum and no dampening", "set optimizer.momentum=0.9")
    for key, value in optimizer.hyperparameters().items():
        path = f"optimizer.{key}"
        if key == "betas" and len(value) != 2:
            raise UserError(path, f"has {len(value)} values", "give two: [0.9,0.999]")
        for number in value if isinstance(value, tuple) else (value,):
            if key in SHARES and not 0 <= number < 1:
                raise UserError(path, f"{number:g} is not in [0, 1)", "use a share below 1")
            if key == "alpha" and not 0 <= number <= 1:
                raise UserError(path, f"{number:g} is not in [0, 1]", "use a share of 1")
            if key in NOT_NEGATIVE:
                at_least(number, 0.0, path)
            if key in AT_LEAST_ONE:
                at_least(number, 1, path)


def at_most(value: float, bound: float, key: str) -> None:
    """Raise `UserError` unless `value` ≤ `bound`."""
    if value > bound:
        raise UserError(key, f"{value:g} is too large", f"use a number of at most {bound:,g}")


def check_seed(seed: int, key: str) -> None:
    """Raise `UserError` unless every random generator takes the seed (scikit-learn's takes 32 bits)."""
    if not 0 <= seed < 2**32:
        raise UserError(key, f"{seed} is not between 0 and {2**32 - 1}", "use a smaller whole number")


def at_least(value: float, bound: float, key: str, *, open_bound: bool = False) -> None:
    """Raise `UserError` unless `value` ≥ `bound` (> with `open_bound`)."""
    if value < bound or (open_bound and value == bound):
        relation = "above" if open_bound else "at least"
        raise UserError(key, f"{value:g} is too small", f"use a number {relation} {bound:g}")


def one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
    """Raise `UserError`, with the nearest right name, unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError(
            key, f"{value!r} is not known{nearest(value, allowed)}", f"use one of: {', '.join(allowed)}"
        )


# --- a configuration as flat keys -----------------------------------------------------------------------


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 0.005, …}`: every leaf of a (nested) dataclass, lists and dicts as leaves."""
    flat: dict[str, Any] = {}
    for spec in dataclasses.fields(config):
        value, path = getattr(config, spec.name), f"{prefix}{spec.name}"
        flat.update(flatten(value, f"{path}.") if dataclasses.is_dataclass(value) else {path: value})
    return flat


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
                raise bad(f"{prefix}{key}", f"{value!r} is of the wrong type") from None
        return node(**given)

    top: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for key, value in (LATER | flat).items():
        group, _, rest = key.partition(".")
        if (rest != "") != (group in parts):
            raise bad(key, "no such key")
        (parts[group] if rest else top)[rest or key] = value
    for group, keys in parts.items():
        name = keys.get("name")
        if not isinstance(name, str):
            raise bad(f"{group}.name", "is missing, or no text")
        kinds = list(SCHEMA[group].values())
        own = SCHEMA[group].get(name)  # of several kinds with the same keys, the name chooses
        if group == "optimizer" and own is not None and own not in OURS:
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
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        return {key: _as(v, inner[1]) for key, v in value.items()}
    if origin is Literal and value in inner:
        return value
    if hint is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    if hint is str and type(value) is int:
        return str(value)
    if type(value) is hint or (hint is NoneType and value is None):
        return value
    raise TypeError


NOT_RESULTS = (
    "name",
    "max_runs",
    "force",
    "retry",
    "status",
    "checkpoint_seconds",
    "stage",
    "chunk",
    "chunk_file",
    "optimizer.lr",
)
"""Keys that say where a run is kept, what is done about it, or repeat another; no result depends on them."""

LATER: dict[str, Any] = {"data.duplicates": "warn"}
"""Keys that runs once did not have, each with what was done then; a run of that value is the same run."""


def result_keys(config: TrainConfig) -> dict[str, Any]:
    """The flat keys on which a run's result depends."""
    return {key: value for key, value in flatten(config).items() if key not in NOT_RESULTS}


def fingerprint(config: TrainConfig) -> str:
    """SHA-256 (hex) of `result_keys`: two runs share it exactly when they are the same run.

    Keys of `LATER` count only where they are not what was done before, so that fingerprints stay.
    """
    keys = {key: value for key, value in result_keys(config).items() if (key, value) not in LATER.items()}
    text = json.dumps(keys, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def superset_of_keys() -> dict[str, Any]:
    """Every flat key any run can have, with a value of its type (numbers 0, strings empty).

    TensorBoard takes the columns of its HParams table from one run, so all runs must name the same ones.
    """

    def example(annotation: Any) -> Any:
        name = getattr(annotation, "__name__", annotation)
        return {"float": 0.0, "int": 0, "bool": False}.get(name, "")

    def leaves(node: type, prefix: str) -> Iterator[tuple[str, Any]]:
        for spec in dataclasses.fields(node):
            if spec.name not in SCHEMA or prefix:
                yield f"{prefix}{spec.name}", example(spec.type)

    keys = dict(leaves(TrainConfig, ""))
    for group, kinds in SCHEMA.items():
        for node in kinds.values():
            keys |= dict(leaves(node, f"{group}."))
    return {key: keys[key] for key in sorted(keys) if key not in NOT_RESULTS}
