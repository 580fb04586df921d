"""What keys may be: bounds, names from a list, settings that exclude each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ffn_bench import tags
from ffn_bench.checks import at_least, at_most, check_seed, delimiter, one_of
from ffn_bench.configuration.fingerprint import REPLACED
from ffn_bench.configuration.rule_files import optimizer_keys
from ffn_bench.configuration.schema import (
    SCHEMA,
    ColumnsConfig,
    CsvConfig,
    DataConfig,
    FriedmanConfig,
    LossConfig,
    MlpConfig,
    ModelConfig,
    OptimizerConfig,
    RuleConfig,
    ScheduleConfig,
    SplitDataConfig,
    TorchOptimizerConfig,
    TorchvisionConfig,
    TrainConfig,
    flatten,
)
from ffn_bench.errors import UserError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "float64")
ENGINES = ("auto", "compiled", "torch", "batched")
GRADIENTS = ("auto", "autograd", "manual")
DUPLICATES = ("warn", "keep_together")
CLASS_WEIGHTS = ("none", "balanced")
MISSING_CELLS = ("error", "impute", "drop_rows")
KEEPS = ("best", "last")
STAGES = ("tune", "default", "final")
"""What a run is for in a comparison: choosing a setting, its default setting, or the setting chosen."""

FULL_BATCH_ONLY = {
    "lbfgs": "L-BFGS compares losses of successive steps, which must be of the same batch",
    "LBFGS": "L-BFGS compares losses of successive steps, which must be of the same batch",
    "gd": "gradient descent is SGD on the whole training set",
    "newton": "a Newton step is of the whole objective",
}


def check(config: TrainConfig) -> None:
    """Check what types cannot: bounds, names from a list, settings that exclude each other.

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
            f"is {config.optimizer.lr:g} but lr is {config.lr:g}, and they are the same setting",
            "set lr at the top level",
        )
    for key in ("epochs", "log_every", "max_runs"):
        at_least(getattr(config, key), 1, key)
    check_seed(config.seed, "seed")
    for key in ("init_seed", "order_seed"):
        if (seed := getattr(config, key)) is not None:
            check_seed(seed, key)
    at_least(config.l2, 0.0, "l2")
    at_least(config.l1, 0.0, "l1")
    if config.batch_size != "full":
        at_least(config.batch_size, 1, "batch_size")
    at_least(config.checkpoint_seconds, 0.0, "checkpoint_seconds")
    at_least(config.log_curvature, 0, "log_curvature")
    at_least(config.chunk, 1, "chunk")
    one_of(config.keep, KEEPS, "keep")
    if config.patience is not None:
        at_least(config.patience, 1, "patience")
    at_least(config.min_delta, 0.0, "min_delta")
    if config.retry is not None:
        one_of(config.retry, ("failed",), "retry")
    if config.stage is not None:
        one_of(config.stage, STAGES, "stage")
    one_of(config.engine, ENGINES, "engine")
    one_of(config.gradient, GRADIENTS, "gradient")
    one_of(config.dtype, DTYPES, "dtype")
    one_of(config.device.split(":")[0], DEVICES, "device")
    check_name(config.name)
    check_data(config.data)
    check_monitor(config.monitor, config.task)
    check_model(config.model)
    check_schedule(config.schedule)
    check_loss(config.loss)
    check_optimizer(config.optimizer)

    if config.gradient == "manual" and config.optimizer.name == "newton":
        raise UserError(
            "gradient",
            "manual cannot be combined with optimizer=newton, which takes second derivatives by autograd",
            "use gradient=auto",
        )
    reason = FULL_BATCH_ONLY.get(config.optimizer.name)
    if reason and config.batch_size != "full":
        raise UserError(
            "batch_size",
            f"{config.batch_size} cannot be combined with optimizer={config.optimizer.name}: {reason}",
            "use batch_size=full",
        )


def _numbers(value: Any) -> Iterator[float]:
    """The floats in a value, its lists and mappings."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for element in value.values() if isinstance(value, dict) else value:
            yield from _numbers(element)


def no_such_key(path: str, known: Iterable[str], todo: str) -> UserError:
    """The mistake of a key that does not exist, or not any more; `known` are those beside it."""
    if path in REPLACED:
        return UserError(path, f"was removed: {REPLACED[path]}", "leave it out")
    return UserError(path, f"no such key{nearest(path.rpartition('.')[2], known)}", todo)


def check_monitor(tag: str | None, task: tags.Task) -> None:
    """Raise `UserError` for a tag that cannot say which epoch is the best."""
    monitored = tags.MONITORED_IN[task]
    if tag is None or tag in monitored:
        return
    quantity, todo = tags.quantity(tag), f"use one of: {', '.join(monitored)}"
    if tag in tags.MONITORED:
        raise UserError("monitor", f"{tag} is not measured in a {task}", todo)
    if tag not in (map(quantity.tag, quantity.splits) if quantity.splits else (quantity.name,)):
        raise UserError("monitor", f"{tag!r} is not known{nearest(tag, monitored)}", todo)
    what = "is not measured at the ends of epochs" if quantity.direction else "has no better and worse values"
    raise UserError("monitor", f"{tag} {what}", todo)


def check_name(name: str | None) -> None:
    """A name is one folder or several below each other, of letters, digits, `.`, `_`, `-`, `=` and `,`."""
    if name is None:
        return
    folders = name.split("/")
    if name.startswith("/") or {"", ".", ".."} & set(folders):
        raise UserError("name", f"{name!r} is outside the outputs folder", "use a plain name")
    if bad := sorted({c for c in name if not (c.isalnum() or c in "._-=,+/")}):
        raise UserError("name", f"{name!r} contains {bad[0]!r}", "use letters, digits and ._-=,+/")
    if any(len(folder.encode()) > 200 for folder in folders) or len(name.encode()) > 1000:
        raise UserError("name", f"is too long ({len(name.encode())} bytes)", "use at most 200 bytes")
    if folders[0] == "sweeps":
        raise UserError("name", "'sweeps' is reserved for sweeps", "use another name")


def check_data(data: DataConfig) -> None:
    """Bounds of the data group."""
    one_of(data.task, tags.TASKS, "data.task")
    check_seed(data.split_seed, "data.split_seed")
    one_of(data.duplicates, DUPLICATES, "data.duplicates")
    held_out = 0.0
    own_test = getattr(data, "test_path", None) is not None
    for key in ("val_fraction",) if own_test else ("val_fraction", "test_fraction"):
        fraction = getattr(data, key, 0.0)
        at_least(fraction, 0.0, f"data.{key}")
        held_out += fraction
    if held_out >= 1.0:
        raise UserError(
            "data.val_fraction",
            f"leaves nothing to train on (the fractions sum to {held_out:g})",
            "use smaller fractions",
        )
    at_least(getattr(data, "noise", 0.0), 0.0, "data.noise")
    at_most(getattr(data, "noise", 0.0), 1000.0, "data.noise")
    at_least(getattr(data, "factor", 0.0), 0.0, "data.factor")
    at_most(getattr(data, "factor", 0.0), 1.0, "data.factor")
    at_most(getattr(data, "n_samples", 10), 100_000_000, "data.n_samples")
    at_most(getattr(data, "n_features", 2), 100_000, "data.n_features")
    at_least(getattr(data, "n_samples", 10), 10, "data.n_samples")
    fewest = 5 if isinstance(data, FriedmanConfig) else 2
    at_least(getattr(data, "n_features", fewest), fewest, "data.n_features")
    at_least(getattr(data, "n_classes", 2), 2, "data.n_classes")
    if isinstance(data, ColumnsConfig):
        check_columns(data)
    if isinstance(data, CsvConfig) and data.delimiter is not None:
        data.delimiter = delimiter(data.delimiter)
    shared = (SplitDataConfig, TorchvisionConfig)  # of those that have no keys of their own
    if type(data) not in ((SCHEMA["data"][data.name],) if data.name in SCHEMA["data"] else shared):
        raise other_keys(data.name)


def check_columns(data: ColumnsConfig) -> None:
    """Names of columns: none is empty, or stands for two things."""
    one_of(data.missing, MISSING_CELLS, "data.missing")
    targets = getattr(data, "target", [])
    named = {
        "data.target": [targets] if isinstance(targets, str) else targets,
        "data.weight": [] if data.weight is None else [data.weight],
        "data.drop": data.drop,
        "data.categories": data.categories,
    }
    keys: dict[str, str] = {}
    for key, names in named.items():
        if key == "data.target" and hasattr(data, "target") and not names:
            raise UserError(key, "is empty", "name the column of the target")
        for name in names:
            if not name.strip():
                raise UserError(key, "has an empty name of a column", "name a column")
            if keys.get(name) == key:
                raise UserError(key, f"names the column {name!r} twice", "name it once")
            if name in keys:
                raise UserError(key, f"names {name!r}, which is also in {keys[name]}", "name it in one")
            keys[name] = key


def other_keys(name: str) -> UserError:
    """The mistake of a data set that has the keys of another one."""
    return UserError("data.name", f"{name!r} does not match these keys", f"choose data={name}")


def check_model(model: ModelConfig) -> None:
    """Bounds of the model group. Names of activations and inits are checked where their tables are."""
    at_least(getattr(model, "depth", 0), 0, "model.depth")
    at_most(getattr(model, "depth", 0), 1000, "model.depth")
    at_least(model.init_std, 0.0, "model.init_std", open_bound=True)
    key = "model.width" if isinstance(model, MlpConfig) else "model.hidden"
    for width in model.widths():
        if type(width) is not int:
            raise UserError(key, f"{width!r} is not an integer", "write a list such as [64,32]")
        at_least(width, 1, key)


def check_schedule(schedule: ScheduleConfig) -> None:
    """Bounds of the schedule group."""
    at_least(getattr(schedule, "decay", 0.0), 0.0, "schedule.decay")
    at_least(getattr(schedule, "every", 1), 1, "schedule.every")
    at_least(getattr(schedule, "gamma", 1.0), 0.0, "schedule.gamma", open_bound=True)
    at_most(getattr(schedule, "gamma", 1.0), 1.0, "schedule.gamma")
    if type(schedule) is not SCHEMA["schedule"].get(schedule.name):
        raise UserError("schedule.name", f"{schedule.name!r} does not match these keys", "use schedule=…")
    for key in ("final", "warmup"):
        fraction = getattr(schedule, key, 0.0)
        if not 0.0 <= fraction <= 1.0:
            raise UserError(
                f"schedule.{key}", f"{fraction:g} is not between 0 and 1", "use a number between 0 and 1"
            )


def check_loss(loss: LossConfig) -> None:
    """Bounds of the loss group. Names are checked where their table is."""
    at_least(loss.label_smoothing, 0.0, "loss.label_smoothing")
    if loss.label_smoothing >= 1:
        raise UserError("loss.label_smoothing", f"{loss.label_smoothing:g} is not below 1", "use 0.1, say")
    at_least(loss.delta, 0.0, "loss.delta", open_bound=True)
    if isinstance(loss.class_weight, str):
        one_of(loss.class_weight, CLASS_WEIGHTS, "loss.class_weight")
        return
    if not loss.class_weight:
        raise UserError("loss.class_weight", "is empty", "name classes: {a: 2}")
    for name, weight in loss.class_weight.items():
        at_least(weight, 0.0, f"loss.class_weight.{name}", open_bound=True)
        at_most(weight, 1e6, f"loss.class_weight.{name}")


BELOW_ONE = ("betas", "beta", "rho")
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


def is_ours(optimizer: OptimizerConfig) -> bool:
    """Whether its keys are those of one of our own optimizers."""
    return isinstance(optimizer, RuleConfig) or type(optimizer) in SCHEMA["optimizer"].values()


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Bounds of the optimizer group, of our own optimizers."""
    if isinstance(optimizer, TorchOptimizerConfig):
        if "lr" in optimizer.options:
            raise UserError("optimizer.options.lr", "is the run's learning rate", "write lr=…")
        return
    if not is_ours(optimizer):
        return
    hyper = optimizer.hyperparameters()
    if own := optimizer_keys(optimizer.name):
        names = {field.name for field in dataclasses.fields(own)}
        if names != {field.name for field in dataclasses.fields(optimizer)}:
            what = f"{optimizer.name!r} does not match these keys"
            raise UserError("optimizer.name", what, f"choose optimizer={optimizer.name}")
    if hyper.get("nesterov") and (not hyper["momentum"] or hyper["dampening"]):
        raise UserError("optimizer.nesterov", "needs momentum and no dampening", "set optimizer.momentum=0.9")
    for key, value in hyper.items():
        path = f"optimizer.{key}"
        if key == "betas" and len(value) != 2:
            raise UserError(path, f"has {len(value)} values", "give two: [0.9,0.999]")
        for number in value if isinstance(value, tuple) else (value,):
            if key in BELOW_ONE and not 0 <= number < 1:
                raise UserError(path, f"{number:g} is not in [0, 1)", "use a number from 0 to below 1")
            if key == "alpha" and not 0 <= number <= 1:
                raise UserError(path, f"{number:g} is not in [0, 1]", "use a number between 0 and 1")
            if key in NOT_NEGATIVE:
                at_least(number, 0.0, path)
            if key in AT_LEAST_ONE:
                at_least(number, 1, path)
