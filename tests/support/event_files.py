"""TensorBoard event files read back without TensorBoard, and without a line of the writer's code: `read_events(path)`.

Each event is a dictionary of field number → list of values, where a value is an int (varint), 8 or 4 raw bytes, or bytes
(a message, text or packed numbers; `fields` decodes a message). Field numbers are those of TensorBoard's `event.proto`.
"""

import struct
from pathlib import Path

Message = dict[int, list]


def read_events(path: Path) -> list[Message]:
    """Return every event of a file, having checked each record's length and both checksums."""
    data, position, events = path.read_bytes(), 0, []
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        body = data[position + 12 : position + 12 + length]
        assert len(body) == length, "the last record is cut off"
        assert struct.unpack_from("<I", data, position + 8)[0] == masked(data[position : position + 8])
        assert struct.unpack_from("<I", data, position + 12 + length)[0] == masked(body)
        events.append(fields(body))
        position += 16 + length
    return events


def fields(data: bytes) -> Message:
    """Decode one protocol buffer message."""
    message: Message = {}
    position = 0
    while position < len(data):
        key, position = varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = varint(data, position)
        else:
            size, position = {1: (8, position), 5: (4, position)}.get(kind) or varint(data, position)
            value, position = data[position : position + size], position + size
        message.setdefault(key >> 3, []).append(value)
    return message


def varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def masked(data: bytes) -> int:
    crc = 0xFFFFFFFF  # CRC-32C bit by bit: slow and plain, to check the table of the writer
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def read_scalars(directory: Path) -> list[tuple[str, int, float]]:
    """Return (tag, step, value) of every scalar in the event files of one directory, in the order written."""
    points = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        for event in read_events(path):
            step = event.get(2, [0])[0]
            step -= 2**64 if step >= 2**63 else 0
            values = [fields(each) for summary in event.get(5, []) for each in fields(summary).get(1, [])]
            points += [(value[1][0].decode(), step, struct.unpack("<f", value[2][0])[0]) for value in values if 2 in value]
    return points
