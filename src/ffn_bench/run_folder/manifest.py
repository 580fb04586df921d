"""What the manifest of a folder says: which files are ours. Pure functions of its content; `files` writes it.

    {"ffn-bench manifest": 1}
    {"file": "summary.json", "size": 512, "sha256": "…", "temporary": ".summary.json.91c5….tmp"}
    {"log": "metrics.jsonl"}
    {"output": "predictions.csv", "size": 17, "sha256": "…"}

It may come from anywhere: a line that is none of ours, such as a torn one, names nothing.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from pathlib import PurePosixPath
from typing import Any

HEADER = {"ffn-bench manifest": 1}

TEMPORARY = re.compile(r"[0-9a-f]{16}\.tmp")

Entries = dict[str, dict[str, set[tuple[int, str]]]]
"""Under `file`, `output` (what a person has named) and `temporary` (size, SHA-256) by name; under `log`
names."""


def has_header(content: bytes) -> bool:
    """Whether it starts as a manifest does."""
    return _object(content.partition(b"\n")[0]) == HEADER


@functools.lru_cache(4)
def entries(content: bytes) -> Entries:
    """What the lines after the header name. Not to be changed: it is kept for the same content."""
    named: Entries = {"file": {}, "output": {}, "log": {}, "temporary": {}}
    for line in map(_object, content.splitlines()[1:]):
        size, digest = line.get("size"), line.get("sha256")
        if not _is_temporary(line.get("temporary"), line.get("file", line.get("output"))):
            line.pop("temporary", None)
        for key in named:
            if isinstance(name := line.get(key), str) and _is_below(name):
                hashes = named[key].setdefault(name, set())
                if type(size) is int and isinstance(digest, str):
                    hashes.add((size, digest))
    return named


def temporary_name(name: str) -> str:
    """A name for a file on its way to its own, in the same folder."""
    return f".{PurePosixPath(name).name[:200]}.{secrets.token_hex(8)}.tmp"


def _is_below(name: Any) -> bool:
    """Whether a name that comes from a file is one of a file below."""
    if not isinstance(name, str) or "\0" in name:
        return False
    path = PurePosixPath(name)
    try:
        fits = all(len(component.encode()) <= 255 for component in path.parts) and len(name.encode()) < 2000
    except UnicodeEncodeError:
        return False
    return fits and bool(path.parts) and ".." not in path.parts and not path.is_absolute()


def _is_temporary(name: Any, of: Any) -> bool:
    """Whether a name that comes from a file is one that we give a file on its way to its own."""
    if not (_is_below(name) and _is_below(of)) or PurePosixPath(name).parent != PurePosixPath(of).parent:
        return False
    before, after = f".{PurePosixPath(of).name[:200]}.", PurePosixPath(name).name
    return after.startswith(before) and TEMPORARY.fullmatch(after[len(before) :]) is not None


def _object(line: bytes) -> dict[str, Any]:
    """The object of a line of JSON, or an empty one."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
