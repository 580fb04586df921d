"""The one way to read a run back: its JSON only, so that nothing in a foreign folder is executed.

Runs may be live: what they have written so far is read.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ffn_bench import tags
from ffn_bench.configuration.fingerprint import fingerprint_of
from ffn_bench.configuration.schema import LOSS_OF_TASK
from ffn_bench.errors import RUN_FOLDER, UserError, printable
from ffn_bench.model.losses import LOSSES, Criterion
from ffn_bench.run_folder import lock, reading
from ffn_bench.run_folder.files import Folder

if TYPE_CHECKING:
    from ffn_bench.configuration.schema import TrainConfig
    from ffn_bench.data.rows import Data
    from ffn_bench.engine.build import Prepared

COMPARED = tuple(quantity.tag("") for quantity in tags.HELD_OUT)
"""Beginnings of the tags that are read."""

LARGEST = 1e150
"""Measured values beyond are taken for none: their squares would overflow."""


@dataclass(frozen=True)
class Curve:
    """Measurements of one tag: arrays of one length, in the order of training."""

    steps: NDArray[np.float64]
    epochs: NDArray[np.float64]
    """The epoch that a measurement was made in, whole."""
    seconds: NDArray[np.float64]
    """Of training; evaluation and logging are not in it."""
    values: NDArray[np.float64]
    """NaN where the number was not finite."""


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What one folder says."""

    folder: Path
    config: dict[str, Any]
    """Flat keys, as in `run.json`."""
    status: str
    """`finished`, `diverged`, `interrupted`, `failed`, `running` (a process holds it) or `killed`."""
    reason: str
    format: int
    """Of its folder."""
    data: str
    """The hash of its data."""
    fingerprint: str | None
    """Of the configuration that it was trained with."""
    protocol: int | None
    machine: str
    """Operating system, device and threads: seconds are compared within one of them only."""
    engine: str | None
    """What trained it; earlier releases do not say."""
    co_trained_runs: int
    """Runs that were trained at the same time."""
    chance: dict[str, float]
    """What predicting the same for every row comes to, by name of the quantity."""
    curves: dict[str, Curve] = field(repr=False)

    @property
    def task(self) -> tags.Task:
        """What its network was trained for."""
        return tags.task_of(self.config)

    @property
    def loss_unit(self) -> str:
        """Of its loss; empty where it has none."""
        name = self.config.get("loss.name", "auto")
        name = LOSS_OF_TASK[self.task][0] if name == "auto" else name
        return Criterion(name).unit if name in LOSSES else ""

    @property
    def ended(self) -> bool:
        """Whether it has a result: it finished, or diverged, which is one."""
        return self.status in reading.ENDED

    @property
    def failed(self) -> bool:
        """Whether it began and came to no result: it diverged, ended in an error, or was stopped or
        killed."""
        return self.status not in ("finished", "running")

    @property
    def seed(self) -> tuple[Any, Any]:
        """What two runs must share to be a pair: the seed of initial weights and data order (`init/order`
        where these are two), and that of the split."""
        seed = self.config.get("seed")
        init, order = (self.config.get(key) for key in ("init_seed", "order_seed"))
        init, order = seed if init is None else init, seed if order is None else order
        return init if init == order else f"{init}/{order}", self.config.get("data.split_seed")


def read_run(folder: Path, live: bool = False) -> RecordedRun:
    """One run. `live` says that a process holds its sweep. Raises `UserError` (status 4)."""
    inside = Folder(folder)
    identity = reading.read_identity(inside)
    if identity is None:
        raise UserError(f"{inside}/run.json", "is missing", "leave this run out", RUN_FOLDER)
    # texts that all runs share
    config = {sys.intern(key): value for key, value in identity["config"].items()}
    curves = _read_curves(inside)
    summary, reason = reading.read_summary(inside), ""
    if summary is None:
        status = "running" if live or lock.holder(inside) else "killed"
    else:
        status, reason = summary["status"], printable(summary["reason"])
        if status == reading.DAMAGED:
            raise UserError(f"{inside}/summary.json", "is damaged", "leave this run out", RUN_FOLDER)
    device = f"{identity.get('device')}, {identity.get('threads')} threads"
    return RecordedRun(
        folder=folder,
        config=config,
        status=status,
        reason=reason,
        format=identity["format"],
        data=identity["data_sha256"],
        fingerprint=identity.get("fingerprint"),
        protocol=identity.get("protocol"),
        machine=printable(f"{identity.get('machine')}, {device}"),
        engine=identity.get("engine"),
        co_trained_runs=identity.get("trained_beside", 0),
        chance=identity.get("chance", {}),
        curves=curves,
    )


def config_of(run: RecordedRun) -> TrainConfig:
    """The configuration that a run was trained with.

    Raises `UserError` (status 4) for one that is no run's, or was changed since.
    """
    from ffn_bench.engine import build

    config = build.config_of(run.folder, run.config)
    if run.fingerprint not in (None, fingerprint_of(run.config)):
        what = "its configuration was changed since the run began"
        raise UserError(f"{run.folder}/run.json", what, "restore it, or train again", RUN_FOLDER)
    return config


def prepare_again(run: RecordedRun) -> tuple[TrainConfig, Prepared]:
    """The configuration of a run and what it trained with, on the CPU, for analysis.

    Raises `UserError`: status 4 as `config_of` does, and where its data are no longer those
    that it was trained on.
    """
    from ffn_bench.engine import build

    config, prepared = build.prepare_again(run.folder, config_of(run))
    check_data(run, prepared.data)
    return config, prepared


def check_data(run: RecordedRun, data: Data[Any]) -> None:
    """Raise `UserError` (status 4) unless these are the data that a run was trained on."""
    if data.sha256 != run.data:
        path = getattr(config_of(run).data, "path", None)
        what = f"was trained on other data than the current {path or data.name}"
        raise UserError(str(run.folder), what, "restore the data", RUN_FOLDER)


@functools.cache
def _readable() -> int:
    """Bytes of a metrics.jsonl that memory can hold as numbers, too."""
    return psutil.virtual_memory().available // 4


def measured_numbers(
    folder: Folder, beginnings: tuple[str, ...] = ("",)
) -> Iterator[tuple[float, float, float, str, float]]:
    """Step, epoch, seconds of training, tag and number of all that metrics.jsonl has, for tags that begin so.

    A torn last line is ignored; a faulty line before it is damage: `UserError` (status 4).
    """
    path, name = folder.path / "metrics.jsonl", "metrics.jsonl"
    lines = (folder.read(name, _readable()) or b"").split(b"\n")
    last_step: dict[str, float] = {}
    for number, text in enumerate(lines, 1):
        if not text:
            continue
        try:
            line = json.loads(text)
            step, epoch, seconds = (
                reading.value_of(key, line.pop(key)) for key in ("step", "epoch", "train_seconds")
            )
            if not (0 <= step < math.inf and 0 <= epoch < math.inf and 0 <= seconds < math.inf):
                raise ValueError
            numbers = []
            for tag, value in line.items():
                if tag == "time" or not tag.startswith(beginnings):
                    continue
                if step <= last_step.get(tag, -1.0):
                    raise ValueError  # time goes forward
                measured = reading.value_of(tag, value)
                measured = math.nan if abs(measured) > LARGEST else measured
                numbers.append((step, epoch, seconds, tag, measured))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as e:
            if number == len(lines):
                break
            raise UserError(str(path), f"line {number} is damaged", "leave this run out", RUN_FOLDER) from e
        last_step.update((tag, step) for _, _, _, tag, _ in numbers)
        yield from numbers


def _read_curves(folder: Folder) -> dict[str, Curve]:
    """What metrics.jsonl has of the tags that are compared, by tag."""
    columns_of: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}
    for step, epoch, seconds, tag, measured in measured_numbers(folder, COMPARED):
        columns = columns_of.get(tag)
        if columns is None:
            columns = columns_of[tag] = ([], [], [], [])
        for column, entry in zip(columns, (step, epoch, seconds, measured), strict=True):
            column.append(entry)
    kept: dict[tuple[float, ...], NDArray[np.float64]] = {}  # most tags are measured at the same steps

    def once(column: list[float]) -> NDArray[np.float64]:
        return kept.setdefault(tuple(column), np.asarray(column))

    return {tag: Curve(*map(once, columns)) for tag, columns in columns_of.items()}
