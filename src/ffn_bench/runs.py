"""The run folder: where runs live, their identity, their checkpoint, and reading them back.

    <folder>/run.json          who this run is: config fingerprint, versions, device, data hash
    <folder>/metrics.jsonl     a line a measurement
    <folder>/checkpoint/       the last complete state: safetensors, and JSON with its checksum
    <folder>/summary.json      how it ended, written last

Every file but the append-only logs is written whole: to a temporary name, flushed, renamed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ffn_bench import config, errors, schema
from ffn_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


# --- names ----------------------------------------------------------------------------------------------


def register_resolvers() -> None:
    """Make `${run_folder:name}` and `${run_name:overrides}` known to OmegaConf, for conf/config.yaml."""
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def _run_folder(name: str | None) -> str:
    """A run's or sweep's own name, or date/time with a tail that keeps starts in one second apart."""
    if name:
        return name
    return datetime.datetime.now().strftime("%Y-%m-%d/%H-%M-%S-") + secrets.token_hex(2)


def _run_name(overrides: str, *, _root_: DictConfig) -> str:
    """A sweep's folder for one run: what was overridden, readable and short, and a hash of its config."""
    readable = "".join(c if c.isalnum() or c in "=,._-" else "_" for c in overrides)[:100].strip(",.")
    run = config.parse(_root_)
    return f"{readable}-{config.fingerprint(run)[:8]}" if readable else config.fingerprint(run)[:8]


def check_folder(folder: Path, run: schema.TrainConfig | None) -> None:
    """Raise `UserError` (status 4) where a run, or a sweep when `run` is None, cannot or must not write."""
    if ".." in folder.parts:
        raise UserError(str(folder), "contains '..'", "name the folder itself", errors.RUN_FOLDER)
    if any(len(part.encode()) > 255 for part in folder.parts) or len(str(folder.absolute()).encode()) > 4000:
        raise UserError(str(folder)[:80] + "…", "is too long a path", "use a shorter name", errors.RUN_FOLDER)
    existing = folder
    while True:
        try:
            if existing.exists():
                break
        except OSError as e:
            raise UserError(
                str(folder), (e.strerror or str(e)).lower(), "use another", errors.RUN_FOLDER
            ) from e
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(str(existing), "is a file, not a folder", "use another name", errors.RUN_FOLDER)
    try:
        Path(tempfile.mkdtemp(dir=existing)).rmdir()  # root and odd file systems make os.access lie
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise UserError(
            str(existing), f"cannot be written to ({why})", "use another", errors.RUN_FOLDER
        ) from e
    below_here = [p for p in folder.parents if not Path.cwd().is_relative_to(p.absolute())]
    if inside := next((p for p in below_here if (p / "run.json").exists()), None):
        raise UserError(str(folder), f"is inside the run {inside}", "use another name", errors.RUN_FOLDER)
    if run is not None and (folder / "run.json").exists():
        raise UserError(
            str(folder),
            "already holds a run, which is never overwritten",
            "use another name",
            errors.RUN_FOLDER,
        )


# --- whole files ----------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even across a power cut."""
    part = path.with_name(path.name + ".tmp")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, whole: numbers that are not finite become null."""
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text.encode() + b"\n")


def finite(content: Any) -> Any:
    """The same structure with NaN and infinities replaced by None, which JSON can say."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


# --- identity -------------------------------------------------------------------------------------------


def identity(run: schema.TrainConfig, device: str, data_sha256: str) -> dict[str, Any]:
    """What run.json says: enough to tell whether two runs are the same one, and to repeat one."""
    import platform
    import sys

    import torch

    from ffn_bench import __version__

    return {
        "format": 1,
        "fingerprint": config.fingerprint(run),
        "config": config.flatten(run),
        "data_sha256": data_sha256,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {
            "ffn_bench": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.platform(),
        "command": sys.argv,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


# --- checkpoints ----------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state`, nested dicts and lists of tensors and plain values with its `step`, as the checkpoint.

    `folder/checkpoint/latest.json` names the tensors' file and its SHA-256; it is replaced last, so at
    any instant it points to a whole checkpoint. The one before is dropped then.
    """
    from safetensors.torch import save

    target = folder / "checkpoint"
    target.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    packed = pack(state, tensors, "")
    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    name = f"step-{state['step']:010d}.safetensors"
    write_whole(target / name, content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(target / "latest.json", {"format": 1, "tensors": name, "sha256": digest, "state": packed})
    for old in target.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` was given, tensors on the CPU.

    Raises `UserError` (status 4) where there is none or a byte of it is not what was written.
    """
    from safetensors.torch import load

    source = folder / "checkpoint"
    try:
        latest = json.loads((source / "latest.json").read_bytes())
        content = (source / Path(latest["tensors"]).name).read_bytes()
        whole = hashlib.sha256(content).hexdigest() == latest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(str(source), f"holds no checkpoint ({e})", "train the run", errors.RUN_FOLDER) from e
    if not whole:
        raise UserError(str(source), "is damaged: its checksum differs", "train again", errors.RUN_FOLDER)
    state: dict[str, Any] = unpack(latest["state"], load(content))
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


# --- reading back ---------------------------------------------------------------------------------------


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What summary.json says, or None where the run has not ended."""
    try:
        content = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
