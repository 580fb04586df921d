"""The event file's records, byte by byte what TensorBoard's own classes write."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from ffn_bench.run_folder import event_messages
from ffn_bench.run_folder.writers import FIRST_COLUMNS, METRICS

encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tags = st.sampled_from(["loss/train", "a" * 127, "a" * 128, "λ" * 4100]) | encodable
times = st.floats(1e-300, 1e300)
steps = st.integers(0, 2**62) | st.sampled_from([0, 1, 127, 128, 2**14 - 1, 2**14, 2**62])
LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
"""Of float32; what is past it by less than half a step is rounded to it."""
numbers = st.floats() | st.sampled_from([LARGEST, LARGEST * (1 + 2**-26), -LARGEST * 2, -0.0, 5e-324, 1e-45])


def serialised(wall_time: float, step: int, *values: Any) -> bytes:
    event = Event(wall_time=wall_time, step=step, summary=Summary(value=values))
    return bytes(event.SerializeToString())


@given(times, steps, st.dictionaries(tags, numbers, max_size=20))
@example(1.0, 0, {})
@example(1.0, 2**62, {"": float("nan"), "x": -0.0, "y": float("-inf"), "z": 1e39, "zero": 0.0})
def test_scalars(wall_time: float, step: int, values: dict[str, float]) -> None:
    own = event_messages.scalars(wall_time, step, values)
    own_again = event_messages.scalars(wall_time, step, values)
    theirs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    assert own == own_again == serialised(wall_time, step, *theirs)


@given(st.lists(st.binary(max_size=300), max_size=5))
@example([bytes(range(256)) * 300])
def test_records(events: list[bytes]) -> None:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events:
        writer.write(event)
    assert b"".join(map(event_messages.record, events)) == file.getvalue()


@given(times)
def test_the_first_event(wall_time: float) -> None:
    theirs = Event(wall_time=wall_time, file_version="brain.Event:2")
    assert event_messages.version(wall_time) == theirs.SerializeToString()


@given(tags, encodable, times, steps)
def test_texts(tag: str, markdown: str, wall_time: float, step: int) -> None:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[markdown.encode()], tensor_shape=shape)
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    theirs = serialised(wall_time, step, Summary.Value(tag=tag, metadata=plugin, tensor=tensor))
    assert event_messages.event(wall_time, step, event_messages.text(tag, markdown)) == theirs


@given(tags, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.binary(max_size=300))
def test_images(tag: str, width: int, height: int, rest: bytes) -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + rest
    image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
    theirs = serialised(1.0, 7, Summary.Value(tag=tag, image=image))
    assert event_messages.event(1.0, 7, event_messages.image(tag, png)) == theirs


def hparams(tag: str, **content: Any) -> bytes:
    """Their value of the HParams table, the entries of a map by their keys."""
    data = HParamsPluginData(**content).SerializeToString(deterministic=True)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    return serialised(1.0, 0, Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin)))


@given(st.lists(st.tuples(tags, st.booleans()), max_size=6), st.lists(tags, max_size=3))
@example([(key, False) for key in FIRST_COLUMNS], list(METRICS["regression"]))
def test_columns_of_the_hparams_table(columns: list[tuple[str, bool]], metrics: list[str]) -> None:
    theirs = api_pb2.Experiment(
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics]
    )
    for key, is_text in columns:
        kind = api_pb2.DATA_TYPE_STRING if is_text else api_pb2.DATA_TYPE_FLOAT64
        theirs.hparam_infos.add(name=key, type=kind, differs=key in FIRST_COLUMNS)
    own = event_messages.hparams_columns(tuple(columns), FIRST_COLUMNS, tuple(metrics))
    assert event_messages.event(1.0, 0, own) == hparams(metadata.EXPERIMENT_TAG, experiment=theirs)


settings = encodable | st.floats() | st.integers(-(2**60), 2**60) | st.booleans()


@given(times, st.dictionaries(tags, settings, max_size=6))
def test_rows_of_the_hparams_table(start: float, settings: dict[str, str | float]) -> None:
    """Byte by byte, but that the entries of a map have no order."""
    theirs = SessionStartInfo(start_time_secs=start)
    for key, value in settings.items():
        setattr(theirs.hparams[key], "string_value" if isinstance(value, str) else "number_value", value)
    own = event_messages.event(1.0, 0, event_messages.hparams_row(start, settings))
    expected = hparams(metadata.SESSION_START_INFO_TAG, session_start_info=theirs)
    if len(settings) < 2:
        assert own == expected
    assert len(own) == len(expected)
    (value,) = Event.FromString(own).summary.value
    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    assert data.SerializeToString(deterministic=True) == HParamsPluginData(
        session_start_info=theirs
    ).SerializeToString(deterministic=True)


def test_a_path_that_is_not_utf_8_has_a_row() -> None:
    event = Event.FromString(
        event_messages.event(1.0, 0, event_messages.hparams_row(1.0, {"data.path": "a\udcff"}))
    )
    data = HParamsPluginData.FromString(event.summary.value[0].metadata.plugin_data.content)
    assert data.session_start_info.hparams["data.path"].string_value == "a\\udcff"


@pytest.mark.parametrize("finished", [True, False])
def test_ends_of_the_hparams_table(finished: bool) -> None:
    status = api_pb2.STATUS_SUCCESS if finished else api_pb2.STATUS_FAILURE
    theirs = SessionEndInfo(status=status, end_time_secs=1e9)
    own = event_messages.event(1.0, 0, event_messages.hparams_end(1e9, finished))
    assert own == hparams(metadata.SESSION_END_INFO_TAG, session_end_info=theirs)
