"""Checkpoints of a run: complete states, of which the last two are kept.

A checkpoint is one file, `checkpoint/step-<step>-<SHA-256 of the file>.safetensors`: arrays, and the
rest as JSON in its header. It is written atomically, and its name shows whether any byte of it has changed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
import psutil

from ffn_bench import errors
from ffn_bench.data.rows import Array
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.folders import CHECKPOINT

KEPT = 2


def save(folder: Folder, state: dict[str, Any]) -> None:
    """Write `state`, nested dicts and lists of arrays and plain values with its `step`; keep two."""
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, Array] = {}
    packed = pack(state, arrays, "")
    header = {"format": "1", "state": json.dumps(packed, allow_nan=True)}
    content = to_bytes({key: np.asarray(array, order="C") for key, array in arrays.items()}, metadata=header)
    name = f"step-{state['step']:010d}-{hashlib.sha256(content).hexdigest()}.safetensors"
    folder.replace(f"checkpoint/{name}", content)
    if len(names := _names(folder)) > KEPT:
        for old in [old for old in reversed(names) if folder.owns(old)][KEPT:]:
            folder.remove_owned(old)


def _names(folder: Folder) -> list[str]:
    """Names of checkpoints, `checkpoint/…`, the earliest step first. Other files are ignored."""
    names = [name for name in folder.names("checkpoint") if CHECKPOINT.fullmatch(name)]
    return [f"checkpoint/{name}" for name in sorted(names, key=lambda name: name.split("-")[1])]


def find(folder: Folder) -> tuple[str | None, list[str]]:
    """The name of the latest intact checkpoint, and the names of later ones that are damaged.

    None where there is no checkpoint at all. Raises `UserError` (status 4) where all are damaged.
    """
    damaged: list[str] = []
    for name in reversed(_names(folder)):
        if _read(folder, name) is not None:
            return name, damaged
        damaged.append(name.rpartition("/")[2][:15] + "….safetensors")
    if damaged:
        raise UserError(
            f"{folder}/checkpoint",
            f"every checkpoint is damaged: its checksum differs ({', '.join(damaged)})",
            "force=true trains again in a new folder",
            errors.RUN_FOLDER,
        )
    return None, []


def _read(folder: Folder, name: str) -> bytes | None:
    """A checkpoint's content; None where it is not what its name says."""
    try:
        content = folder.read(name, psutil.virtual_memory().available)
    except UserError:  # a link, a folder, unreadable
        return None
    intact = content is not None and hashlib.sha256(content).hexdigest() == name.rpartition("-")[2][:64]
    return content if intact else None


def step_of(name: str) -> int:
    """The step at which a checkpoint was taken."""
    return int(name.rpartition("/")[2].split("-")[1])


def load(folder: Folder, name: str) -> dict[str, Any]:
    """The state that `save` was given. Nothing of the file is executed.

    Raises `UserError` (status 4) where it is not what was written. What the state holds is for the engine to
    check, which knows what it must be: `check`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    where = f"{folder}/{name}"
    content = _read(folder, name)
    if content is None:
        raise UserError(where, "is damaged: its checksum differs", "run again", errors.RUN_FOLDER)
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        if header["format"] != "1":
            what = f"has format {header['format']}"
            raise UserError(where, what, "use a newer ffn-bench", errors.RUN_FOLDER)
        state = unpack(json.loads(header["state"]), from_bytes(content))
        if state["step"] != step_of(name):
            raise ValueError("its name says another step")
    except (
        *(struct.error, ValueError, TypeError, KeyError, AttributeError, IndexError),
        *(RecursionError, OverflowError, SafetensorError),
    ) as e:
        raise UserError(where, "is not a checkpoint of ffn-bench", "remove it", errors.RUN_FOLDER) from e
    return dict(state)


def noted_size(value: Any) -> tuple[int, str | None]:
    """Size and SHA-256 that a checkpoint notes of a file that grows; earlier releases noted no hash.

    Raises `ValueError` for anything else.
    """
    size, digest = (value.get("size"), value.get("sha256")) if isinstance(value, dict) else (value, None)
    if type(size) is not int or size < 0 or not (digest is None or isinstance(digest, str)):
        raise ValueError
    return size, digest


def pack(state: Any, arrays: dict[str, Array], path: str) -> Any:
    """A nested state as JSON-able values, its arrays moved into `arrays` below `path`.

    Dicts become lists of pairs, since their keys may be numbers.
    """
    if isinstance(state, np.ndarray):
        arrays[path] = state
        return {"tensor": path}
    if isinstance(state, dict):
        below = f"{path}/" if path else ""
        return {"dict": [[key, pack(value, arrays, f"{below}{key}")] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "tuple"
        return {kind: [pack(value, arrays, f"{path}/{k}") for k, value in enumerate(state)]}
    if state is None or isinstance(state, (bool, int, float, str)):
        return {"value": state}
    raise TypeError(f"cannot keep a {type(state).__name__} in a checkpoint ({path})")


def unpack(packed: Any, arrays: dict[str, Array]) -> Any:
    """The state that `pack` took apart."""
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return arrays[content]
    if kind == "dict":
        return {key: unpack(value, arrays) for key, value in content}
    if kind in ("list", "tuple"):
        values = [unpack(value, arrays) for value in content]
        return values if kind == "list" else tuple(values)
    return content
