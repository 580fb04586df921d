"""Where measurements go in a run folder: metrics.jsonl, which is the truth, TensorBoard's event file,
train.log.

Writers gather what they are given and append it to their file on `flush`. No file stays open, so a sweep
may have any number of runs in training.
"""

from __future__ import annotations

import functools
import io
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from ffn_bench import tags
from ffn_bench.data.rows import Array
from ffn_bench.engine.metrics import Measurement
from ffn_bench.errors import printable
from ffn_bench.run_folder import event_messages
from ffn_bench.run_folder.appended import Appended
from ffn_bench.run_folder.files import Folder

METRICS: dict[tags.Task, tuple[str, ...]] = {
    task: (
        *(one.tag(split) for one in tags.HELD_OUT if one.task in (None, task) for split in ("test", "val")),
        tags.LOSS.tag("train"),
    )
    for task in tags.TASKS
}
"""The tags that TensorBoard's HParams table shows beside the settings, by task; the value is the tag's last
one."""

FIRST_COLUMNS = ("optimizer.name", "lr", "seed", "batch_size", "l2")
"""Settings the table shows at first: TensorBoard puts those that are marked as differing before others."""


class Writer(Protocol):
    """Takes measurements during training."""

    def write(self, measurement: Measurement) -> None:
        """Record one measurement."""


class TextLog:
    """train.log: a line for every epoch, warnings, and how the run ended."""

    def __init__(self, folder: Folder) -> None:
        self.file = Appended(folder, "train.log", strict=False)  # a person may have noted something there

    def write(self, measurement: Measurement) -> None:
        """A line for the end of an epoch."""
        if measurement.ends_epoch:
            values = " ".join(f"{tag} {value:.6g}" for tag, value in measurement.values.items())
            self.note("INFO", f"epoch {measurement.epoch} step {measurement.step} {values}")

    def note(self, level: str, message: str) -> None:
        """A line of its own, or several."""
        message = "\n".join(map(printable, message.split("\n")))
        second, fraction = divmod(time.time(), 1)
        self.file.write(f"{_clock(int(second))},{int(fraction * 1000):03d} {level} {message}\n".encode())


@functools.lru_cache(maxsize=1)
def _clock(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


class JsonLines:
    """metrics.jsonl: `{"step", "epoch", "time" (s since 1970), "train_seconds", tag: value, …}` a line."""

    def __init__(self, folder: Folder) -> None:
        self.file = Appended(folder, "metrics.jsonl")

    def write(self, measurement: Measurement) -> None:
        """Append one line; numbers that are not finite become null."""
        line = {
            "step": measurement.step,
            "epoch": measurement.epoch,
            "time": round(time.time(), 3),
            "train_seconds": round(measurement.train_seconds, 6),
            **measurement.values,
        }
        self.file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))


class Trajectory:
    """trajectory.bin: the weights at every epoch's end.

    A record is the step (int64) and the parameters, layer by layer W `[n_in, n_out]` and b, in the run's
    dtype; all little-endian. run.json tells dtype and widths.
    """

    NAME = "trajectory.bin"

    def __init__(self, folder: Folder) -> None:
        self.file = Appended(folder, self.NAME)

    def keep(self, step: int, layers: Sequence[tuple[Array, Array]]) -> None:
        """Append one record."""
        arrays = [array for layer in layers for array in layer]
        content = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
        self.file.write(struct.pack("<q", step) + content)


EVENTS = re.compile(r"events\.out\.tfevents\.\d{1,20}\.[\w.-]{1,200}\.\d{1,20}")
"""Names of event files."""


def event_name() -> str:
    """The name of a new event file."""
    return f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"


class Sink(Protocol):
    """Takes bytes: a file of a run, or of a report, which is written at once."""

    def write(self, content: bytes, /) -> object:
        """Take some bytes."""


class TensorBoard:
    """The event file: scalars, the configuration as text, HParams and pictures."""

    def __init__(self, file: Sink) -> None:
        # Written here and now: tensorboard's own event writer has a thread, where a full disk goes unseen.
        self.file = file

    def begin(self) -> None:
        """What the first record of a file must be."""
        self.file.write(event_messages.record(event_messages.version(time.time())))

    def write(self, measurement: Measurement) -> None:
        """One event with every scalar of the measurement."""
        event = event_messages.scalars(time.time(), measurement.step, measurement.values)
        self.file.write(event_messages.record(event))

    def write_text(self, tag: str, markdown: str) -> None:
        """A page of TensorBoard's Text tab."""
        self._add(event_messages.text(f"{tag}/text_summary", markdown))

    def write_hparams(self, settings: Mapping[str, Any], superset: Mapping[str, Any]) -> None:
        """The run's row of the HParams table.

        TensorBoard reads the table's columns from the first run it meets, so every run names the same
        `superset` of settings, whichever of them it has.
        """
        columns = tuple((key, isinstance(example, str)) for key, example in superset.items())
        values = ((key, settings.get(key), is_text) for key, is_text in columns)
        row = {key: str(value) if is_text else value for key, value, is_text in values if value is not None}
        self._add(event_messages.hparams_columns(columns, FIRST_COLUMNS, METRICS[tags.task_of(settings)]))
        self._add(event_messages.hparams_row(time.time(), row))

    def write_end(self, finished: bool) -> None:
        """The row's status in the HParams table."""
        self._add(event_messages.hparams_end(time.time(), finished))

    def write_image(self, tag: str, png: bytes, step: int) -> None:
        """A picture of TensorBoard's Images tab."""
        self._add(event_messages.image(tag, png), step)

    def _add(self, value: bytes, step: int = 0) -> None:
        self.file.write(event_messages.record(event_messages.event(time.time(), step, value)))


def of_pictures(pictures: Mapping[str, bytes], step: int) -> bytes:
    """The content of an event file with pictures (PNG), by the names of their files."""
    board = TensorBoard(content := io.BytesIO())
    board.begin()
    for name, png in pictures.items():
        board.write_image(name.removesuffix(".png"), png, step)
    return content.getvalue()
