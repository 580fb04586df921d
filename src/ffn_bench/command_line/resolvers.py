"""Resolvers of OmegaConf: those that may be used, and ours, which name folders: `${run_folder:…}`."""

from __future__ import annotations

import datetime
import secrets

from omegaconf import DictConfig, OmegaConf

from ffn_bench.configuration import parsing
from ffn_bench.errors import UserError
from ffn_bench.run_folder.folders import run_name

RESOLVERS = (
    "oc.env", "oc.select", "oc.dict.keys", "oc.dict.values", "oc.deprecated", "now", "hydra",
    "python_version", "run_folder", "run_name", "config_groups",
)  # fmt: skip
"""All that `${name:…}` may call: they compute a text or look a value up."""


def register_resolvers() -> None:
    """Make `${run_folder:name}` and `${run_name:overrides}` known to OmegaConf, for conf/config.yaml."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def _run_folder(name: str | None) -> str:
    """A run's or sweep's own name, or date/time with a tail that keeps starts in one second apart."""
    if name not in (None, ""):  # a name may be 0
        return str(name)
    return datetime.datetime.now().strftime("%Y-%m-%d/%H-%M-%S-") + secrets.token_hex(2)


def _run_name(overrides: str, *, _root_: DictConfig) -> str:
    return run_name(overrides, parsing.parse(_root_))


SUBDIR = "${run_name:${hydra.job.override_dirname}}"
"""A run's folder below its sweep's, unless somebody wants another (conf/config.yaml)."""


def unlisted(name: str, key: str) -> UserError:
    """The mistake of a resolver that is not on the list."""
    todo = f"use one of: {', '.join(RESOLVERS)}"
    return UserError(key or "configuration", f"resolver {name!r} is not on the list", todo)
