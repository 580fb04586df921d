"""What run.json and summary.json say, checked."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from types import NoneType
from typing import Any

from ffn_bench import errors, tags
from ffn_bench.configuration import fingerprint, schema
from ffn_bench.errors import UserError
from ffn_bench.run_folder.files import Folder
from ffn_bench.run_folder.identity import (
    BITS_DEPEND_ON,
    FORMAT,
    READABLE,
    REPAIR,
    check_draws,
    check_identity,
    check_same,
    unowned,
)


def read_identity(folder: Folder) -> dict[str, Any] | None:
    """What run.json says of the run, or None where none has started.

    Its configuration has the keys that are `config.LATER` than the run, too.

    Raises `UserError` (status 4) for one that is damaged or of another format.
    """
    identity = folder.read_json("run.json")
    if identity is None:
        return None
    where = f"{folder}/run.json"
    if type(identity.get("format")) is int and identity["format"] not in READABLE:
        what = f"has format {identity['format']}, expected {FORMAT}"
        raise UserError(where, what, "use the version that wrote it", errors.RUN_FOLDER)
    kinds = {"config": dict, "data_sha256": str, "format": int}
    optional = {"versions": dict, "trained_beside": int, "fingerprint": str, "chance": dict, "engine": str}
    sound = all(type(identity.get(key)) is kind for key, kind in kinds.items())
    sound = sound and all(type(identity.get(key, kind())) is kind for key, kind in optional.items())
    numbers = sound and all(
        type(value) in (int, float) and 0 <= value < math.inf for value in identity.get("chance", {}).values()
    )
    engine = sound and identity.get("engine", "torch") in BITS_DEPEND_ON
    if not (numbers and engine and _is_plain(identity["config"])):
        raise UserError(where, "is damaged", "restore it, or use another name", errors.RUN_FOLDER)
    config = {key: value for key, value in identity["config"].items() if key not in fingerprint.FORMER}
    return {**identity, "config": fingerprint.later(config) | config}


def as_begun(folder: Folder, run: schema.TrainConfig) -> schema.TrainConfig:
    """A run with the engine that it was begun with, unless it names one itself."""
    engine = (read_identity(folder) or {}).get("engine", "auto")
    return dataclasses.replace(run, engine=engine) if run.engine == "auto" else run


def _is_plain(config: dict[str, Any]) -> bool:
    """Whether a configuration holds what ours do: plain values and lists of them, seeds that are numbers."""

    if config.get("data.task", tags.TASKS[0]) not in tags.TASKS:
        return False

    def plain(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(plain, value))
        if isinstance(value, (int, float)):
            return abs(value) < math.inf if isinstance(value, float) else abs(value) < 2**63
        return value is None or isinstance(value, str)

    for key, value in config.items():
        if key in ("optimizer.options", "loss.class_weight") and isinstance(value, dict):
            if not all(map(plain, value.values())):
                return False
        elif not plain(value):
            return False
    names = all(isinstance(config.get(f"{group}.name", ""), str) for group in ("data", "model", "optimizer"))
    seeds = all(type(config.get(key, 0)) is int for key in ("seed", "data.split_seed"))
    own = all(type(config.get(key)) in (int, NoneType) for key in ("init_seed", "order_seed"))
    return names and seeds and own


def value_of(tag: str, value: Any) -> float:
    """A measured value of JSON, null being NaN. Raises `TypeError` or `ValueError` for what cannot be one."""
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise TypeError
    number = float(value)
    quantity = tags.quantity(tag)
    if number < quantity.lowest or number > quantity.highest:
        raise ValueError
    return number


DAMAGED = "damaged"
"""The status of a summary that is none."""
STATUSES = ("finished", "diverged", "interrupted", "failed")


def read_summary(folder: Folder) -> dict[str, Any] | None:
    """What summary.json says, or None where the run has not ended.

    One that is damaged has the status `damaged`, with the reason. Raises `OSError` for a disk that fails.
    """
    try:
        summary = folder.read_json("summary.json")
        if summary is None:
            return None
        empty = {"reason": "", "epochs": 0, "steps": 0, "train_seconds": 0.0, "final": {}, "best": None}
        summary = {"task": "classification", **empty, **summary}
        if "monitor" not in summary:  # earlier releases knew one
            summary["monitor"] = tags.PRIMARY["classification"].tag("val")
        if _is_sound_summary(summary):
            return summary
        reason = f"{folder}/summary.json is damaged"
    except UserError as e:
        reason = str(e)
    return {**failure(reason), "status": DAMAGED}


def score_of(summary: Mapping[str, Any], tag: str | None = None) -> float | None:
    """What a run counts as in a search or a choice of settings: its value of `tag`, by default what it
    monitored, at the best epoch, or at the end where there is none. Where the run diverged that is the worst
    value, whatever it had reached before; it is None where the tag was not measured."""
    tag = tag or summary.get("monitor") or tags.PRIMARY[summary.get("task", "classification")].tag("val")
    if summary.get("status") == "diverged":
        return tags.quantity(tag).worst
    value = (summary.get("best") or summary.get("final") or {}).get(tag)
    return None if value is None else float(value)


def failure(reason: str) -> dict[str, Any]:
    """The summary of a run that failed before anything was measured."""
    nothing: dict[str, Any] = {"epochs": 0, "steps": 0, "train_seconds": 0.0, "final": {}, "best": None}
    return {"status": "failed", "reason": reason, **nothing}


def _is_sound_summary(summary: dict[str, Any]) -> bool:
    def number(value: Any) -> bool:
        return type(value) in (int, float) and abs(value) < sys.float_info.max

    def values(content: Any) -> bool:
        try:
            return isinstance(content, dict) and all(
                v is None or (number(v) and value_of(tag, v) >= -math.inf) for tag, v in content.items()
            )
        except ValueError:
            return False

    status, epochs, steps = summary.get("status"), summary["epochs"], summary["steps"]
    best, final = summary["best"], summary["final"]
    return (
        status in STATUSES
        and isinstance(summary["reason"], str)
        and all(type(n) is int and n >= 0 for n in (epochs, steps))
        and number(summary["train_seconds"])
        and summary["task"] in tags.TASKS
        and summary["monitor"] in (None, *tags.MONITORED_IN[summary["task"]])
        and values(final)
        and (best is None or (values(best) and type(best.get("epoch")) is int))
    )


def _is_of(summary: dict[str, Any], run: schema.TrainConfig) -> bool:
    """Whether a summary says what can become of this run."""
    status, epochs, steps = summary["status"], summary["epochs"], summary["steps"]
    best, final = summary["best"], summary["final"]
    stopped_early = status == "finished" and epochs < run.epochs
    if (
        summary["task"] != run.task
        or epochs > run.epochs
        or (stopped_early and run.patience is None)
        or summary["train_seconds"] < 0
    ):
        return False
    # A checkpoint's name has ten digits for its step; every epoch has a step, and as many as any other.
    if steps >= 10**10 or (run.batch_size == "full" and steps > run.epochs):
        return False
    if status in ENDED and steps < epochs:
        return False
    score = tags.PRIMARY[run.task].tag("train")
    if status == "finished" and (epochs < 1 or steps % epochs or final.get(score) is None):
        return False
    monitor = summary["monitor"]
    if monitor != run.monitored and (monitor or run.monitor or run.patience):  # null: the last epoch is best
        return False
    if best is None:  # there is one wherever anything was monitored
        return bool(status != "finished" or final.get(run.monitored) is None)
    at_most = epochs if status == "finished" else epochs + 1
    measured = monitor is None or best.get(monitor) is not None
    return bool(0 <= best["epoch"] <= at_most and measured)


ENDED = ("finished", "diverged")
"""Statuses of runs that are never trained again."""


def status_and_summary(folder: Folder, run: schema.TrainConfig) -> tuple[str, dict[str, Any] | None]:
    """The status of a run, and its summary if it has ended.

    It is `missing`, `begun`, or as it ended: `finished`, `diverged`, `interrupted` or `failed`; or `damaged`,
    where files are not what we write, or are those of another run.
    """
    try:
        started, summary = started_and_summary(folder, run)
    except UserError as e:
        return DAMAGED, {**failure(str(e)), "status": DAMAGED}
    if summary is not None:
        return str(summary["status"]), summary
    return "begun" if started else "missing", None


def started_and_summary(folder: Folder, run: schema.TrainConfig) -> tuple[bool, dict[str, Any] | None]:
    """Whether a run has started, and its summary if it has ended. Raises `UserError` (status 4) where one of
    the two is damaged, or another run's."""
    identity, summary = read_identity(folder), read_summary(folder)
    if identity is None:
        if summary and summary["status"] in ENDED:
            raise unowned(folder, "summary.json")
        return False, summary
    check_identity(folder, identity, run)
    if summary and (summary["status"] == DAMAGED or not _is_of(summary, run)):
        raise UserError(f"{folder}/summary.json", "is damaged", REPAIR, errors.RUN_FOLDER)
    return True, summary


def check_surroundings(folder: Folder, identity: dict[str, Any]) -> None:
    """Raise `UserError` (status 4) where data, versions or the device are not those a run began with."""
    began = read_identity(folder) or {}
    check_draws(folder, began.get("format", FORMAT))

    def essence(content: dict[str, Any]) -> dict[str, Any]:
        versions = content.get("versions", {})
        device = str(content.get("device")).partition(" ")[0]  # what follows are words about it
        same = {"data": content.get("data_sha256"), "device": device, "engine": content.get("engine")}
        ignored = {"python", "safetensors"}
        if "numpy" not in began.get("versions", {}):  # which was not recorded at first
            ignored.add("numpy")
        depends = [name for name in versions if name not in ignored]
        return {**same, **{name: versions.get(name) for name in depends}}

    check_same(folder, essence(identity), essence(began))
