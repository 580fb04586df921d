"""Where measurements go in a run folder: metrics.jsonl, which is the truth, TensorBoard's event file,
train.log.

Writers gather what they are given and append it to their file on `flush`. No file stays open, so a sweep
may have any number of runs in training.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from google_crc32c import value as crc32c
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

from ffn_bench import tags
from ffn_bench.data.splitting import Array
from ffn_bench.engine.metrics import Measurement
from ffn_bench.errors import printable
from ffn_bench.run_folder.appended import Appended
from ffn_bench.run_folder.files import Folder, finite

METRICS = (
    *(quantity.tag(split) for quantity in tags.HELD_OUT for split in ("test", "val")),
    tags.LOSS.tag("train"),
)
"""The tags that TensorBoard's HParams table shows beside the settings; the value is the tag's last one."""

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
        timestamp = time.time()
        stamp = (
            f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(timestamp))},{int(timestamp % 1 * 1000):03d}"
        )
        self.file.write(f"{stamp} {level} {message}\n".encode())


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
            **finite(measurement.values),
        }
        self.file.write(json.dumps(line, allow_nan=False).encode() + b"\n")


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
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, measurement: Measurement) -> None:
        """One event with every scalar of the measurement."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in measurement.values.items()]
        self._add(Summary(value=values), measurement.step)

    def write_text(self, tag: str, markdown: str) -> None:
        """A page of TensorBoard's Text tab."""
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        text = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=shape)
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._add(Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=plugin, tensor=text)]))

    def write_hparams(self, settings: dict[str, Any], superset: dict[str, Any]) -> None:
        """The run's row of the HParams table.

        TensorBoard reads the table's columns from the first run it meets, so every run names the same
        `superset` of settings, whichever of them it has.
        """
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo

        columns = api_pb2.Experiment(
            metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS]
        )
        row = SessionStartInfo(start_time_secs=time.time())
        for key, example in superset.items():
            text = isinstance(example, str)
            kind = api_pb2.DATA_TYPE_STRING if text else api_pb2.DATA_TYPE_FLOAT64
            columns.hparam_infos.add(name=key, type=kind, differs=key in FIRST_COLUMNS)
            value = settings.get(key)
            if value is not None:
                setattr(
                    row.hparams[key],
                    "string_value" if text else "number_value",
                    str(value) if text else value,
                )
        self._add_hparams("experiment", experiment=columns)
        self._add_hparams("session_start_info", session_start_info=row)

    def write_end(self, finished: bool) -> None:
        """The row's status in the HParams table."""
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

        status = api_pb2.STATUS_SUCCESS if finished else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=time.time())
        self._add_hparams("session_end_info", session_end_info=end)

    def _add_hparams(self, tag: str, **content: Any) -> None:
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        # The names of `tensorboard.plugins.hparams.metadata`, which takes 0.3 s to import.
        plugin = SummaryMetadata.PluginData(
            plugin_name="hparams", content=HParamsPluginData(**content).SerializeToString()
        )
        value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))
        self._add(Summary(value=[value]))

    def write_image(self, tag: str, png: bytes, step: int) -> None:
        """A picture of TensorBoard's Images tab."""
        width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def _add(self, summary: Any, step: int = 0) -> None:
        self._put(Event(wall_time=time.time(), step=step, summary=summary))

    def _put(self, event: Any) -> None:
        self.file.write(_framed(event.SerializeToString()))


def of_pictures(pictures: Mapping[str, bytes], step: int) -> bytes:
    """The content of an event file with pictures (PNG), by the names of their files."""
    board = TensorBoard(content := io.BytesIO())
    board.begin()
    for name, png in pictures.items():
        board.write_image(name.removesuffix(".png"), png, step)
    return content.getvalue()


def _framed(data: bytes) -> bytes:
    """A record of TensorFlow's format: length, its masked CRC-32C, data, the data's. TensorBoard's own writer
    computes the checksums in Python, which takes longer than all else about an event."""

    def masked(content: bytes) -> int:
        checksum: int = crc32c(content)
        return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF

    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked(length)), data, struct.pack("<I", masked(data))))
