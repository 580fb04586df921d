"""The keys of update rules, typed by the values in their YAML files: conf/optimizer/<name>.yaml has all of
them, and they stand nowhere else."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffn_bench.configuration.omegaconf_internals import quick_yaml_loader
from ffn_bench.configuration.schema import SCHEMA, OptimizerConfig, RuleConfig

NOT_KEYS = ("name", "lr", "search_space")
"""Of a rule's file: no keys of its own."""
SCHEMA_OF = re.compile(r"/_schema/optimizer/([\w/]+)@")


def config_folder() -> Path:
    """The YAML files: inside the package once it is installed from a wheel, else at the checkout's top."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


@functools.cache
def optimizer_files() -> dict[str, Path]:
    """The files of our own optimizers by the optimizers' names."""
    folder = config_folder() / "optimizer"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}


@functools.cache
def _content(name: str) -> dict[str, Any]:
    loader = quick_yaml_loader()(optimizer_files()[name].read_text("utf-8"))
    content: dict[str, Any] = loader.get_single_data()
    return content


def defaults_of(name: str) -> dict[str, Any] | None:
    """The keys of an update rule and their values, where its own file has them; None for others."""
    if name not in optimizer_files() or "defaults" in (content := _content(name)):
        return None
    return {key: value for key, value in content.items() if key not in NOT_KEYS}


@functools.cache
def optimizer_keys(name: str) -> type[OptimizerConfig] | None:
    """The dataclass of one of our own optimizers; None for other names."""
    if name in SCHEMA["optimizer"]:
        return SCHEMA["optimizer"][name]
    if (defaults := defaults_of(name)) is not None:
        return typed_by(defaults, f"{PREFIX}{name}", RuleConfig)
    if name not in optimizer_files():
        return None
    (schema,) = SCHEMA_OF.findall(str(_content(name)["defaults"]))  # such as gd's, whose keys are sgd's
    return optimizer_keys(schema)


PREFIX = "Optimizer "
"""Of the names of these dataclasses; the name of the optimizer follows."""


def __getattr__(name: str) -> Any:
    """These dataclasses by their names: pickle looks for them here."""
    own = name.removeprefix(PREFIX)
    if own != name and (keys := optimizer_keys(own)) is not None:
        return keys
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def typed_by(
    defaults: Mapping[str, Any], class_name: str, base: type[OptimizerConfig]
) -> type[OptimizerConfig]:
    """A dataclass of hyper-parameters, typed by their defaults. The lists of our own rules, such as two
    betas, stay as long as they are."""
    fields: list[tuple[str, Any, Any]] = []
    for key, default in defaults.items():
        if isinstance(default, (list, tuple)):
            kind: Any = tuple[tuple(map(type, default))] if base is RuleConfig else list[Any]  # type: ignore[misc]
            fields.append((key, kind, dataclasses.field(default_factory=functools.partial(list, default))))
        else:
            kind = type(default) if isinstance(default, (bool, int, float, str)) else Any
            fields.append((key, kind, dataclasses.field(default=default)))
    namespace = {"__module__": __name__, "__doc__": base.__doc__}
    return dataclasses.make_dataclass(
        class_name, fields, bases=(base,), namespace=namespace, kw_only=True, eq=False, repr=False
    )
