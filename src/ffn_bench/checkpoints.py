"""Checkpoints of a run: complete states, of which the last two are kept.

A checkpoint is one file, `checkpoint/step-<step>-<SHA-256 of the file>.safetensors`: tensors, and what is no
tensor as JSON in its header. It is written whole, and its name tells whether any byte of it has changed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffn_bench import errors
from ffn_bench.errors import UserError
from ffn_bench.runs import write_whole

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write `state`, nested dicts and lists of tensors and plain values with its `step`; keep two."""
    from safetensors.numpy import save as to_bytes  # that for PyTorch leaves every tensor to the garbage

    target = folder / "checkpoint"
    target.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    packed = pack(state, tensors, "")
    header = {"format": "1", "state": json.dumps(packed, allow_nan=True)}
    whole = {key: tensor.detach().cpu().contiguous().numpy() for key, tensor in tensors.items()}
    content = to_bytes(whole, metadata=header)
    name = f"step-{state['step']:010d}-{hashlib.sha256(content).hexdigest()}.safetensors"
    write_whole(target / name, content)
    for old in _files(folder)[:-KEPT]:
        old.unlink()


def _files(folder: Path) -> list[Path]:
    """Checkpoint files, the earliest step first."""
    return sorted(
        (folder / "checkpoint").glob("step-*.safetensors"), key=lambda file: file.name.split("-")[1]
    )


def find(folder: Path) -> tuple[Path | None, list[str]]:
    """The file of the latest checkpoint that is whole, and the names of later ones that are not.

    None where there is no checkpoint at all. Raises `UserError` (status 4) where all are damaged.
    """
    damaged: list[str] = []
    for file in reversed(_files(folder)):
        try:
            content = file.read_bytes()
        except OSError as e:
            raise UserError(
                str(file), f"cannot be read ({e.strerror})", "make it readable", errors.RUN_FOLDER
            ) from e
        if hashlib.sha256(content).hexdigest() == file.stem.rpartition("-")[2]:
            return file, damaged
        damaged.append(file.name[:15] + "….safetensors")
    if damaged:
        raise UserError(
            str(folder / "checkpoint"),
            f"every checkpoint is damaged: its checksum differs ({', '.join(damaged)})",
            "force=true trains anew in another folder",
            errors.RUN_FOLDER,
        )
    return None, []


def step_of(file: Path) -> int:
    """The step at which a checkpoint was taken."""
    return int(file.name.split("-")[1])


def load(file: Path) -> dict[str, Any]:
    """The state that `save` was given, tensors on the CPU. Nothing of the file is executed.

    Raises `UserError` (status 4) where it is not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.stem.rpartition("-")[2]:
        raise UserError(str(file), "is damaged: its checksum differs", "run again", errors.RUN_FOLDER)
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        if header["format"] != "1":
            what = f"has format {header['format']}"
            raise UserError(str(file), what, "use a newer ffn-bench", errors.RUN_FOLDER)
        state = unpack(json.loads(header["state"]), from_bytes(content))
    except (struct.error, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as e:
        raise UserError(str(file), "is no checkpoint of ours", "remove it", errors.RUN_FOLDER) from e
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(str(file), "is no checkpoint of ours", "remove it", errors.RUN_FOLDER)
    return state


def pack(state: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """A nested state as JSON-able values, its tensors moved into `tensors` below `path`.

    Dicts become lists of pairs, since their keys may be numbers.
    """
    import torch

    if isinstance(state, torch.Tensor):
        tensors[path] = state
        return {"tensor": path}
    if isinstance(state, dict):
        below = f"{path}/" if path else ""
        return {"dict": [[key, pack(value, tensors, f"{below}{key}")] for key, value in state.items()]}
    if isinstance(state, (list, tuple)):
        kind = "list" if isinstance(state, list) else "tuple"
        return {kind: [pack(value, tensors, f"{path}/{k}") for k, value in enumerate(state)]}
    if state is None or isinstance(state, (bool, int, float, str)):
        return {"value": state}
    raise TypeError(f"cannot keep a {type(state).__name__} in a checkpoint ({path})")


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """The state that `pack` took apart."""
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(value, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        values = [unpack(value, tensors) for value in content]
        return values if kind == "list" else tuple(values)
    return content
