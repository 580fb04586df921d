"""Who a run is: what run.json says, and whether it is the same run."""

from __future__ import annotations

import datetime
import functools
import json
from typing import TYPE_CHECKING, Any

from ffn_bench import errors, guest
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder

if TYPE_CHECKING:
    from ffn_bench.engine.choice import Choice

FORMAT = 2
"""Of the run folder. In format 1 PyTorch drew the initial weights and NumPy's PCG64 the order of rows: a seed
has other ones since."""
READABLE = (1, FORMAT)

PROTOCOL = 3
"""Of how runs are measured and compared; results of different versions are never compared."""

REPAIR = "restore it, or train again in a new folder with force=true"


def check_identity(folder: Folder, identity: dict[str, Any], run: schema.TrainConfig) -> None:
    """Raise `UserError` (status 4) unless what run.json says is this run, and of the engine that `run` asks
    for by name: also where the run has ended."""
    current, recorded = fingerprint.result_keys(run), fingerprint.results_of(identity["config"])
    _refuse(folder, _differing(current, recorded), schema.flatten(run), identity["config"])
    engine, key = ("torch", "gradient") if run.gradient != "auto" else (None, "")  # only that one has one
    engine, key = (run.engine, "engine") if run.engine != "auto" else (engine, key)
    began = identity.get("engine", engine)  # which format 1 did not say
    if engine is not None and engine != began:
        what = f"was begun by the {began} engine, and {key}={getattr(run, key)} asks for the {engine} engine"
        raise UserError(str(folder), what, f"leave {key} out, or use another name", errors.RUN_FOLDER)


BITS_DEPEND_ON = {
    "compiled": ("numpy", "numba", "llvmlite"),
    "torch": ("numpy", "torch"),
    "batched": ("numpy", "torch"),
}
"""Packages whose version the numbers of an engine may depend on; NumPy draws initial weights and orders."""


@functools.cache
def _surroundings(engine: str) -> dict[str, Any]:
    """Versions of what an engine's numbers depend on, and the machine."""
    import platform
    from importlib.metadata import version

    from ffn_bench import __version__

    versions = {package: version(package) for package in BITS_DEPEND_ON[engine]}
    if "torch" in versions:
        import torch

        versions["torch"] = torch.__version__  # which says the build, too
    own = {"ffn_bench": __version__, **versions, "python": platform.python_version()}
    return {"versions": own, "machine": platform.platform()}


def identity(
    run: schema.TrainConfig,
    choice: Choice,
    device: str,
    threads: int,
    data_sha256: str,
    chance: dict[str, float],
) -> dict[str, Any]:
    """What run.json says: enough to tell whether two runs are the same one, and to repeat one.

    `chance` is what a constant prediction comes to, by kind of metric: what a failed run counts as in a mean.
    """
    return {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "fingerprint": fingerprint.fingerprint(run),
        "config": schema.flatten(run),
        "data_sha256": data_sha256,
        "chance": chance,
        "engine": choice.engine,
        "engine_reason": choice.reason or None,
        "device": device,
        "threads": threads,
        **_surroundings(choice.engine),
        "command": list(guest.command_line()),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def check_draws(folder: Folder, format_of_run: int) -> None:
    """Raise `UserError` (status 4) where this version draws other weights and orders than the run's."""
    if format_of_run != FORMAT:
        what = (
            "was begun by an earlier release, which drew other initial weights and data order from its seed"
        )
        todo = "use that release for it, or train it again with force=true"
        raise UserError(str(folder), what, todo, errors.RUN_FOLDER)


def check_same(folder: Folder, current: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Raise `UserError` (status 4), naming what differs, unless a run may be resumed in `folder`.

    `current` is compared with what was `recorded`; keys that only one of them has count, too.
    """
    _refuse(folder, _differing(current, recorded), current, recorded)


def _differing(current: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    current = json.loads(json.dumps(current))  # tuples are lists in a file
    return [key for key in {**recorded, **current} if recorded.get(key) != current.get(key)]


def _refuse(folder: Folder, keys: list[str], current: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Raise `UserError` where there are keys that differ."""
    if keys:
        key = keys[0]
        others = f" (and {', '.join(keys[1:4])})" if keys[1:] else ""
        now = json.loads(json.dumps(current.get(key)))
        what = f"holds another run: {key} was {recorded.get(key)}, now {now}{others}"
        todo = "it is never overwritten: use another name, or force=true, which trains again in a new folder"
        raise UserError(str(folder), what, todo, errors.RUN_FOLDER)


def unowned(folder: Folder, name: str) -> UserError:
    """The mistake of a file under one of our names where no run has started."""
    what = "exists, but no run.json says which run wrote it"
    return UserError(f"{folder}/{name}", what, "use another name", errors.RUN_FOLDER)
