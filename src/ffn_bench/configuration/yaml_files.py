"""A person's YAML file: read, checked node by node, its mistakes as one line."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from ffn_bench.configuration.notation import misread
from ffn_bench.configuration.omegaconf_internals import get_yaml_loader
from ffn_bench.errors import UserError, first_line


def yaml_error(error: Exception) -> UserError:
    """A fault in a YAML file, with its file, line and column."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    location = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "YAML"
    return UserError(location, first_line(str(getattr(error, "problem", None) or error)), "fix the file")


MAX_BYTES = 100_000
"""Of a YAML file; reading one takes a second for every 100 kB."""
MAX_NODES = 20_000
"""Values a YAML file may hold with its aliases written out."""
TAGS = ("str", "int", "float", "bool", "null", "map", "seq", "merge")
"""Of YAML's own, which a value may have."""

UNSEEN = re.compile("[\x85\u2028\u2029]|\r(?!\n)")
"""Ends of lines to YAML, and so of comments, that an editor does not show as such."""


def read_text(file: Path) -> str:
    """A file of configuration as text. Raises `UserError` for anything but a small, regular UTF-8 file."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # which does not wait for a pipe's writer
        with os.fdopen(opened, "rb") as stream:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(str(file), "is not a regular file", "name a file")
            if status.st_size > MAX_BYTES:
                what = f"has {status.st_size:,} bytes, and a configuration may have at most {MAX_BYTES:,}"
                raise UserError(str(file), what, "name a file of key: value lines")
            return stream.read(MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(
            str(file), f"is not UTF-8 (byte 0x{e.object[e.start]:02x})", "save it as UTF-8"
        ) from e
    except OSError as e:
        raise UserError(str(file), (e.strerror or str(e)).lower(), "check its permissions") from e


def parse(text: str, file: Path) -> dict[Any, Any]:
    """The values of a YAML file. Raises `UserError` where it does not say what its author means."""
    if unseen := UNSEEN.search(text):
        location = f"{file}, line {text.count(chr(10), 0, unseen.start()) + 1}"
        what = f"YAML begins a line at the character U+{ord(unseen[0]):04X}, and editors do not"
        raise UserError(location, what, "remove it, or write a line feed")
    try:
        loader = get_yaml_loader()(text)
        loader.name = str(file)
        root = loader.get_single_node()
        if root is None:
            raise UserError(str(file), "is empty", "write key: value lines, or do not choose it")
        if not isinstance(root, yaml.MappingNode):
            raise UserError(str(file), "has no key: value lines at the top level", "write key: value lines")
        sizes: dict[int, int] = {}
        _check_node(root, file, sizes)
        if sizes[id(root)] > MAX_NODES:
            raise UserError(str(file), f"its aliases expand to {sizes[id(root)]:,} values", "use fewer")
        content: dict[Any, Any] = loader.construct_document(root)
    except yaml.MarkedYAMLError as e:
        raise yaml_error(e) from e
    except RecursionError as e:
        raise UserError(str(file), "is nested too deeply", "use fewer levels") from e
    except yaml.YAMLError as e:
        raise UserError(str(file), str(e).splitlines()[0], "fix the file") from e
    return content


def _check_node(node: yaml.Node, file: Path, sizes: dict[int, int]) -> None:
    """Check a node and those below it, each once. `sizes` takes how many values a node stands for."""
    location = f"{file}, line {node.start_mark.line + 1}"
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise UserError(location, "an alias refers to itself", "write it out")
        return
    sizes[id(node)] = 0  # being looked at
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in TAGS:
        raise UserError(location, f"tag {kind!r} is not allowed", "remove it")
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            key_location = f"{file}, line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge" and not isinstance(value, yaml.MappingNode):
                raise UserError(key_location, "'<<' of several mappings is ambiguous", "write the keys out")
            if name in seen:
                raise UserError(key_location, f"key {name!r} is duplicated", "keep one")
            if name == "_target_":
                raise UserError(
                    key_location, "'_target_' is not allowed in a configuration", "choose by name"
                )
            seen.add(name)
            children += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    elif isinstance(node, yaml.ScalarNode):
        _check_scalar(node.value, kind, location)
    for child in children:
        _check_node(child, file, sizes)
    sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)


def _check_scalar(value: str, kind: str, location: str) -> None:
    """A value must be what it looks like (YAML 1.1 has surprises)."""
    if kind == "bool" and value.lower() not in ("true", "false"):
        raise UserError(location, f"YAML reads {value!r} as true or false", "write true, false, or quote it")
    if kind == "null" and value.lower() not in ("", "~", "null"):
        raise UserError(location, f"YAML reads {value!r} as null", "write null")
    if kind in ("int", "float") and (what := misread(value)):
        raise UserError(location, f"YAML reads {value!r} as {what}", "write it in plain digits, or quote it")
