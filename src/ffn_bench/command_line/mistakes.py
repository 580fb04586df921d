"""Exceptions of Hydra, OmegaConf, YAML and the system as a person's mistake: one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ffn_bench.command_line.resolvers import unlisted
from ffn_bench.configuration.validation import no_such_key
from ffn_bench.configuration.yaml_files import yaml_error
from ffn_bench.errors import UserError, first_line, nearest, of_system


def explain(error: BaseException) -> UserError | None:
    """The mistake behind an exception of Hydra, OmegaConf or YAML; None for a bug."""
    import yaml
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException):
        return _missing_option(error.missing_cfg_file or "", error.options or (), str(error))
    if isinstance(error, OverrideParseException):
        return _bad_override(error.override, str(error))
    if isinstance(error, OmegaConfBaseException):
        return _bad_value(error)
    if isinstance(error, RecursionError):
        return UserError("configuration", "contains a circular reference", "check the defaults lists")
    if isinstance(error, yaml.MarkedYAMLError):
        return yaml_error(error)
    if isinstance(error, HydraException):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError)):
            return explain(cause)
        return _composition(str(error))
    return of_system(error)


def _missing_option(path: str, options: Iterable[str], message: str) -> UserError:
    group, _, option = path.rpartition("/")
    if not group:
        return UserError(path or "--config-name", first_line(message), "name an existing file")
    if not option:
        return UserError(group, "is empty", f"use one of: {', '.join(options)}")
    choices = sorted(options)
    todo = f"use one of: {', '.join(choices)}" if choices else "see --help"
    return UserError(group, f"{option!r} is not known{nearest(option, choices)}", todo)


def _bad_override(override: str, message: str) -> UserError:
    if not re.match(r"[+~]*[\w./@-]+=", override) and not override.startswith("~"):
        return UserError(override or "''", "is not an override", "write key=value, such as lr=0.01")
    reason = first_line(message).partition(" expecting ")[0]
    return UserError(override, f"cannot be read ({reason})", "quote special characters: 'key=\"…\"'")


def _bad_value(error: BaseException) -> UserError:
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationResolutionError,
        UnsupportedInterpolationType,
    )

    key = str(getattr(error, "full_key", "") or "")
    what = first_line(str(getattr(error, "msg", "") or error))
    if isinstance(error, UnsupportedInterpolationType):
        return unlisted(what.rpartition(" ")[2], key)
    if isinstance(error, InterpolationResolutionError):
        return UserError(key or "configuration", f"an interpolation fails: {what}", "name an existing key")
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        parent = getattr(error, "parent_node", None)
        known = [str(k) for k in parent] if parent is not None and hasattr(parent, "keys") else []
        known = [k for k in known if k != "hydra"]
        leaf = str(getattr(error, "key", "") or key)
        prefix = key[: -len(leaf)] if key.endswith(leaf) else ""
        if key.startswith("optimizer.options"):
            return UserError(key, "does not exist yet", f"write +{key}=…")
        todo = f"keys here: {', '.join(prefix + k for k in known)}" if known else "see --help"
        return no_such_key(key or leaf, known, todo)
    return UserError(key or "configuration", what[:1].lower() + what[1:], "see --help")


def _composition(message: str) -> UserError:
    line = first_line(message)
    if match := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", line):
        key, value = match.groups()
        return UserError(
            key, f"{value!r} lists several values", f"add -m to sweep over them, or write {key}=[…]"
        )
    if match := re.match(r"Could not override '(.+)'\.", line):
        return UserError(match[1], "no such key or group", "see --help")
    return UserError("configuration", line[:1].lower() + line[1:], "see --help")
