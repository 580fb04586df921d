"""`best.safetensors`: the weights of a run's best epoch as a file that any reader of safetensors opens.

Its tensors have the names of an `FFN`'s state_dict. The header says of which epoch and step they are, by
which tag and value, and has the SHA-256 of all that, so that no byte of it changes unseen.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from ffn_bench.data.rows import Array
from ffn_bench.errors import RUN_FOLDER, UserError
from ffn_bench.model.layers import by_names, from_names
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.folders import BEST

NAME = BEST


@dataclass(frozen=True, kw_only=True)
class BestWeights:
    """The weights of the best epoch."""

    layers: list[tuple[Array, Array]]
    """(W `[n_in, n_out]`, b `[n_out]`) of every layer."""
    epoch: int
    step: int
    tag: str | None
    """What was monitored, with its `value` there; None where the best epoch is the last one."""
    value: float | None


def to_bytes(
    layers: Sequence[tuple[Array, Array]], epoch: int, step: int, tag: str | None, value: float
) -> bytes:
    """The content of the file; its `value` is of no meaning without a `tag`."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in by_names(layers).items()}
    header = {"format": "1", "epoch": str(epoch), "step": str(step)}
    if tag is not None:
        header |= {"tag": tag, "value": repr(value)}
    return save(arrays, metadata={**header, "sha256": _digest(header, arrays)})


def read(folder: Folder) -> BestWeights | None:
    """What the file holds, or None where there is none; nothing of it is executed.

    Raises `UserError` (status 4) for anything but what `to_bytes` gives. Whether it is of a run is for the
    caller to see.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = folder.read(NAME, psutil.virtual_memory().available // 2)
    if content is None:
        return None
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        if header["format"] != "1":
            what = f"has format {str(header['format'])[:20]}"
            raise UserError(f"{folder}/{NAME}", what, "use a newer ffn-bench", RUN_FOLDER)
        arrays = load(content)
        if header.pop("sha256") != _digest(header, arrays):
            raise ValueError
        layers = from_names(arrays)
        if not layers:
            raise ValueError
        tag, value = header.get("tag"), float(header["value"]) if "tag" in header else None
        if not (value is None or math.isfinite(value)) or not all(
            np.isfinite(a).all() for a in arrays.values()
        ):
            raise ValueError
        epoch, step = int(header["epoch"]), int(header["step"])
    except (
        *(struct.error, ValueError, TypeError, KeyError, AttributeError, IndexError),
        *(RecursionError, OverflowError, SafetensorError),
    ) as e:
        todo = "use at=last, or restore the file"
        raise UserError(f"{folder}/{NAME}", "is damaged", todo, RUN_FOLDER) from e
    return BestWeights(layers=layers, epoch=epoch, step=step, tag=tag, value=value)


def _digest(header: Mapping[str, str], arrays: Mapping[str, Array]) -> str:
    """SHA-256 (hex) of the header and of every array with its name, dtype and shape."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
