"""Settings as keywords of Python, turned into what a person would type: `key=value` of Hydra's grammar.

A value arrives as it is: text is quoted where Hydra would read something else, and is never looked up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ffn_bench.configuration.schema import GROUPS
from ffn_bench.errors import UserError

WORD = re.compile(r"[A-Za-z_][\w./-]*")
"""Text that Hydra reads as itself, but for these."""
READ_OTHERWISE = ("true", "false", "null", "inf", "nan")
CHOSEN_BY_PLUS = ("experiment",)
"""Groups without a default: Hydra wants a + before them."""
OPTIONS = "optimizer.options."
COMMAND_ONLY = {
    "hydra": "name=… says where a run is kept; ffn-train takes the rest",
    "tune": "run ffn-train +tune=…, and ffn_bench.load its folder",
    "status": "use ffn_bench.load",
    "chunk_file": "leave it out",
    "data.preview": "run ffn-train data.preview=true",
}
"""Keys that only a command has, and what to do instead."""
KEY = re.compile(r"[A-Za-z_][\w]*([./][\w]+)*")
INTERPOLATION = re.compile(r"(\\*)\$\{")


def overrides(keys: Mapping[str, Any]) -> list[str]:
    """Settings of a run. A mapping holds what lies below its key, with `name` for the choice of a group.

    `{"optimizer": {"name": "sgd", "momentum": 0.9}}` and `{"optimizer": "sgd", "optimizer.momentum": 0.9}`
    are the same. Raises `UserError` for keys and values that no configuration could have.
    """
    return [f"{_prefixed(key)}={_text(value, key)}" for key, value in _flat(keys)]


def swept(keys: Mapping[str, Any]) -> list[str]:
    """Settings of a sweep: a list, tuple, range or array holds the values that are tried one by one."""
    return [f"{_prefixed(key)}={_choices(value, key)}" for key, value in _flat(keys)]


def _choices(value: Any, key: str) -> str:
    if isinstance(value, range):
        return f"range({value.start},{value.stop}{f',{value.step}' if value.step != 1 else ''})"
    values = _plain(value)
    if not isinstance(values, (list, tuple)):
        return _text(values, key)
    if not values:
        raise UserError(key, "contains no value", "give values in the list")
    if any(isinstance(each, Mapping) for each in values):
        what = "a mapping cannot stand in a list of values"
        raise UserError(key, what, 'make a sweep of each, under the same name: name="…"')
    return ",".join(_text(each, key) for each in values)


def _flat(keys: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in keys.items():
        key = f"{within}{name}"
        if not isinstance(name, str) or not KEY.fullmatch(name):
            raise UserError(printed(name), "is not a key", "use names of keys, such as lr or model.hidden")
        first = re.split(r"[./]", key)[0]
        for own in (first, key):
            if own in COMMAND_ONLY:
                raise UserError(key, "is a setting of the command", COMMAND_ONLY[own])
        if within.removesuffix(".") in GROUPS and name == "name":
            yield within.removesuffix("."), value
        elif isinstance(value, Mapping):
            yield from sorted(_flat(value, f"{key}."), key=lambda item: "." in item[0])
        else:
            yield key, value


def _prefixed(key: str) -> str:
    return f"+{key}" if key in CHOSEN_BY_PLUS or key.startswith(OPTIONS) else key


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and paths, as Python's own values."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "dtype") else value


def _text(value: Any, key: str) -> str:
    """A value as Hydra reads it."""
    value = _plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value, key)
    if isinstance(value, (list, tuple, range)):
        return f"[{','.join(_text(each, key) for each in value)}]"
    what = f"{type(value).__name__} is not a value of a setting"
    raise UserError(key, what, "use a number, text, true or false, None or a list")


def _quoted(text: str, key: str) -> str:
    if not text.isprintable():
        raise UserError(key, f"{printed(text)} holds a line break or a control character", "remove it")
    if WORD.fullmatch(text) and text.lower() not in READ_OTHERWISE:
        return text
    text = INTERPOLATION.sub(r"\1\1\\${", text)  # which OmegaConf reads as ${ and looks nothing up
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    end = re.search(r"\\*\Z", text)
    assert end is not None
    return f"'{text}{end[0]}'"


def printed(value: Any) -> str:
    """A value in a message, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
