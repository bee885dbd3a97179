"""TensorBoard's event files, written without TensorBoard: TFRecord frames around hand-encoded protocol buffers.

A file is a sequence of records: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all
little-endian. The data is an `Event` message. Field numbers in the code are those of TensorBoard's `event.proto`,
`summary.proto`, `tensor.proto` and its hparams plug-in's `plugin_data.proto`.
"""

import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leyden.fabric.loggers.append import append_or_undo
from leyden.fabric.loggers.channel import Row
from leyden.fabric.loggers.values import number_or_refuse

_CRC_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_STRING, _BOOL, _FLOAT64 = 1, 2, 3  # hparams.DataType
_file_numbers = itertools.count()


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CRC_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - the loop divides it
        table.append(value)
    return tuple(table)


_TABLE = _table()


def masked_crc32c(data: bytes) -> int:
    """Return the checksum of a record's part, rotated and shifted as TFRecord does."""
    table, crc = _TABLE, 0xFFFFFFFF
    for byte in data:  # about 60 ns a byte; a row of metrics has some fifty
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Return `data` as a TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # negative numbers travel as their two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _float(field: int, value: float) -> bytes:
    try:
        return _varint(field << 3 | 5) + struct.pack("<f", value)
    except OverflowError:  # beyond float32
        return _varint(field << 3 | 5) + struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def event(wall_time: float, step: int, *parts: bytes) -> bytes:
    """Return a record with an `Event` of these encoded fields."""
    return record(_double(1, wall_time) + _int(2, step) + b"".join(parts))


def scalars(row: Row) -> bytes:
    """Return a record with every number of a row.

    Raises:
        ConfigTypeError: A value is no number.
    """
    wall_time, step, values = row
    summary = b"".join(_bytes(1, _bytes(1, name) + _float(2, number_or_refuse(name, value))) for name, value in values.items())
    return event(wall_time, step, _bytes(5, summary))


def text(wall_time: float, step: int, tag: str, content: str) -> bytes:
    """Return a record with a text, which TensorBoard shows as Markdown."""
    tensor = _int(1, 7) + _bytes(2, _bytes(2, _int(1, 1))) + _bytes(8, content)  # DT_STRING, shape (1,)
    value = _bytes(1, f"{tag}/text_summary") + _bytes(8, tensor) + _metadata("text", b"")
    return event(wall_time, step, _bytes(5, _bytes(1, value)))


def image(wall_time: float, step: int, tag: str, png: bytes, shape: tuple[int, int, int]) -> bytes:
    """Return a record with a PNG of `shape` (height, width, channels)."""
    height, width, channels = shape
    encoded = _int(1, height) + _int(2, width) + _int(3, channels) + _bytes(4, png)
    return event(wall_time, step, _bytes(5, _bytes(1, _bytes(1, tag) + _bytes(4, encoded))))


class Histogram(NamedTuple):
    """Counts of values up to each limit, with their moments."""

    limits: Sequence[float]
    counts: Sequence[float]
    minimum: float
    maximum: float
    total: float
    sum_of_squares: float


def histogram(wall_time: float, step: int, tag: str, values: Histogram) -> bytes:
    """Return a record with a histogram."""
    moments = (values.minimum, values.maximum, sum(values.counts), values.total, values.sum_of_squares)
    encoded = b"".join(_double(field, value) for field, value in enumerate(moments, start=1))
    for field, numbers in ((6, values.limits), (7, values.counts)):
        encoded += _bytes(field, struct.pack(f"<{len(numbers)}d", *numbers))
    return event(wall_time, step, _bytes(5, _bytes(1, _bytes(1, tag) + _bytes(5, encoded))))


def hparams(
    wall_time: float, params: Mapping[str, Any], metrics: Iterable[str], domains: Mapping[str, Sequence[Any]] | None = None
) -> bytes:
    """Return the records that make a run a row of TensorBoard's HPARAMS page; values are numbers, booleans or text."""
    infos = b""
    for name, value in params.items():
        kind = _BOOL if isinstance(value, bool) else _FLOAT64 if isinstance(value, (int, float)) else _STRING
        domain = _bytes(5, b"".join(_bytes(1, _value(each)) for each in domains[name])) if domains and name in domains else b""
        infos += _bytes(4, _bytes(1, name) + _int(4, kind) + domain)
    infos += b"".join(_bytes(5, _bytes(1, _bytes(2, name))) for name in metrics)
    started = b"".join(_bytes(1, _bytes(1, name) + _bytes(2, _value(value))) for name, value in params.items()) + _double(5, wall_time)
    parts = (("experiment", _bytes(2, infos)), ("session_start_info", _bytes(3, started)), ("session_end_info", _bytes(4, _int(1, 1))))
    values = (_bytes(1, f"_hparams_/{name}") + _metadata("hparams", content) for name, content in parts)
    return b"".join(event(wall_time, 0, _bytes(5, _bytes(1, value))) for value in values)


def session_start(wall_time: float, step: int) -> bytes:
    """Return a record that makes TensorBoard forget points at or after `step`, which an earlier process wrote."""
    return event(wall_time, step, _bytes(7, _int(1, 1)))


def _metadata(plugin: str, content: bytes) -> bytes:
    return _bytes(9, _bytes(1, _bytes(1, plugin) + _bytes(2, content)))


def _value(value: Any) -> bytes:  # google.protobuf.Value
    if isinstance(value, bool):
        return _int(4, value)
    return _double(2, value) if isinstance(value, (int, float)) else _bytes(3, str(value))


class EventFile:
    """The event file of one run; the sink of `TensorBoardLogger`. The file appears with the first record.

    Args:
        directory: The run's directory.
        suffix: Put at the end of the file's name.
        purge_step: Points at or after it, of earlier files in the directory, are hidden.
    """

    def __init__(self, directory: Path, suffix: str = "", purge_step: int | None = None) -> None:
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}{suffix}"
        self.path = directory / name
        self._head = record(_double(1, now) + _bytes(3, "brain.Event:2"))
        if purge_step is not None:
            self._head += session_start(now, purge_step)

    def prepare(self, entry: Row | Callable[[], bytes]) -> bytes:
        """Return the records of a row, or those that a function encodes."""
        return scalars(entry) if isinstance(entry, tuple) else entry()

    def write(self, prepared: list[bytes]) -> None:
        """Append records, all or nothing.

        Raises:
            OSError: The file cannot be written; it is as it was before.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            prepared = [self._head, *prepared]
        append_or_undo(self.path, b"".join(prepared))
