"""The records of TensorBoard's event file as bytes, encoded by hand.

TensorBoard's protobuf classes take longer to fill than the file takes to write, and cost every process their
import. Tests compare every function with what those classes serialise, byte by byte.

A message of protobuf is a sequence of fields, in the order of their numbers. A field is its key, the varint
of `number << 3 | wire type`, and its value: a varint (wire type 0), a double (1), a length and so many bytes
(2: strings, messages), a float (5). Fields that are 0 or empty are left out, unless they are one of a `oneof`
(marked `!`). The fields that are written (tensorboard/compat/proto, tensorboard/plugins/hparams):

    Event              wall_time 1 double, step 2 int64, file_version 3! string, summary 5! Summary
    Summary            value 1 repeated Value
    Value              tag 1 string, simple_value 2! float, image 4! Image, tensor 8! TensorProto,
                       metadata 9 SummaryMetadata
    Image              height 1, width 2, colorspace 3 int32 (3: RGB), encoded_image_string 4 bytes
    TensorProto        dtype 1 enum (7: string), tensor_shape 2 {dim 2 repeated {size 1 int64}},
                       string_val 8 repeated bytes
    SummaryMetadata    plugin_data 1 {plugin_name 1 string, content 2 bytes}
    HParamsPluginData  experiment 2! Experiment, session_start_info 3! SessionStartInfo,
                       session_end_info 4! SessionEndInfo
    Experiment         hparam_infos 4 repeated {name 1 string, type 4 enum (1: string, 3: float64),
                       differs 7 bool}, metric_infos 5 repeated {name 1 {tag 2 string}}
    SessionStartInfo   hparams 1 map: repeated {key 1 string, value 2 {number_value 2! double,
                       string_value 3! string}}, start_time_secs 5 double
    SessionEndInfo     status 1 enum (1: success, 2: failure), end_time_secs 2 double
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Mapping

from google_crc32c import value as crc32c

# --- protobuf -------------------------------------------------------------------------------------------


_ONE_BYTE = [bytes([number]) for number in range(128)]


def _varint(number: int) -> bytes:
    """A number of 0 … 2⁶⁴ − 1, seven bits a byte, the lowest first; the top bit says that more follow."""
    if number < 128:
        return _ONE_BYTE[number]
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _integer(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number) if number else b""


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _bytes(field: int, content: bytes) -> bytes:
    """A message, bytes or a string, also where it is empty."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _string(field: int, text: str) -> bytes:
    # A path that is not UTF-8 has lone surrogates, which no protobuf may hold.
    return _bytes(field, text.encode(errors="backslashreplace")) if text else b""


# --- events ---------------------------------------------------------------------------------------------


def record(event: bytes) -> bytes:
    """An event as it stands in a file of TensorFlow's format: its length, its masked CRC-32C, the event, the
    event's."""
    return b"".join((_header(len(event)), event, _masked_checksum(event)))


def _masked_checksum(content: bytes) -> bytes:
    checksum: int = crc32c(content)
    return (((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


@functools.lru_cache(maxsize=64)
def _header(length: int) -> bytes:
    """Most events of a run have one of a few lengths."""
    content = length.to_bytes(8, "little")
    return content + _masked_checksum(content)


def version(wall_time: float) -> bytes:
    """What the first event of a file must be."""
    return _double(1, wall_time) + _bytes(3, b"brain.Event:2")


def event(wall_time: float, step: int, value: bytes) -> bytes:
    """An event with a summary of one value; times are seconds since 1970, and positive."""
    return _double(1, wall_time) + _integer(2, step) + _bytes(5, _bytes(1, value))


def scalars(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """An event with a summary of numbers by tag, rounded to float32."""
    before, summary, pieces = _scalars(tuple(values))
    fields: list[bytes | float] = [*pieces]
    fields[1::2] = values.values()
    try:
        content = summary.pack(*fields)
    except OverflowError:  # past the largest float32, which C's conversion makes infinite
        fields[1::2] = map(_representable, values.values())
        content = summary.pack(*fields)
    return b"".join((_double(1, wall_time), _integer(2, step), before, content))


def _representable(number: float) -> float:
    try:
        struct.pack("<f", number)
    except OverflowError:
        return math.copysign(math.inf, number)
    return number


@functools.lru_cache(maxsize=64)
def _scalars(tags: tuple[str, ...]) -> tuple[bytes, struct.Struct, tuple[bytes | float, ...]]:
    """Of a summary of numbers by these tags: what stands before it, its layout, and what is packed by that,
    every second of which is a number to be replaced. A run's lines have one of a few sets of tags."""
    pieces: list[bytes | float] = []
    for tag in tags:
        value = _string(1, tag) + _varint(2 << 3 | 5)
        pieces += [_varint(1 << 3 | 2) + _varint(len(value) + 4) + value, 0.0]
    layout = struct.Struct(
        "<" + "".join(f"{len(piece)}sf" for piece in pieces[::2] if isinstance(piece, bytes))
    )
    return _varint(5 << 3 | 2) + _varint(layout.size), layout, tuple(pieces)


def text(tag: str, markdown: str) -> bytes:
    """A value of the Text tab."""
    tensor = _integer(1, 7) + _bytes(2, _bytes(2, _integer(1, 1))) + _bytes(8, markdown.encode())
    return _string(1, tag) + _bytes(8, tensor) + _plugin("text")


def image(tag: str, png: bytes) -> bytes:
    """A value of the Images tab."""
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    size = _integer(1, height) + _integer(2, width)
    return _string(1, tag) + _bytes(4, size + _integer(3, 3) + _bytes(4, png))


def _plugin(name: str, content: bytes = b"") -> bytes:
    """The metadata of a value, which say what shows it."""
    return _bytes(9, _bytes(1, _string(1, name) + (_bytes(2, content) if content else b"")))


# --- the HParams table ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def hparams_columns(
    columns: tuple[tuple[str, bool], ...], first: tuple[str, ...], metrics: tuple[str, ...]
) -> bytes:
    """The value with the table's columns: settings, each with whether it is text, those of `first` marked as
    differing; tags of metrics. The same for every run of a process."""
    settings = (
        _bytes(4, _string(1, key) + _integer(4, 1 if is_text else 3) + _integer(7, int(key in first)))
        for key, is_text in columns
    )
    tags = (_bytes(5, _bytes(1, _string(2, tag))) for tag in metrics)
    return _hparams("experiment", 2, (*settings, *tags))


def hparams_row(start: float, settings: Mapping[str, str | float]) -> bytes:
    """The value with the table's row of a run."""
    fields = []
    for key, value in settings.items():
        content = value.encode(errors="backslashreplace") if isinstance(value, str) else b""
        typed = _bytes(3, content) if isinstance(value, str) else _double(2, value)
        fields.append(_bytes(1, _bytes(1, key.encode()) + _bytes(2, typed)))
    return _hparams("session_start_info", 3, (*fields, _double(5, start)))


def hparams_end(end: float, finished: bool) -> bytes:
    """The value with the status of the table's row."""
    return _hparams("session_end_info", 4, (_integer(1, 1 if finished else 2), _double(2, end)))


def _hparams(name: str, field: int, content: Iterable[bytes]) -> bytes:
    return _string(1, f"_hparams_/{name}") + _plugin("hparams", _bytes(field, b"".join(content)))
