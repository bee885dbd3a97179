"""What an offline run of Weights & Biases wrote, read from its log: `read_history(directory)`."""

import json
import time
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _FILE_HEADER = 32768, 7, 7  # LevelDB's log format, behind a file header


def read_records(directory: Path, seconds: float = 30.0) -> list[Any]:
    """Return the records of the one run below `directory`, which must be finished.

    `finish()` returns before W&B's own process has written everything: the record that says the run ended is waited for.
    """
    from wandb.proto import wandb_internal_pb2  # an optional package

    (path,) = directory.rglob("run-*.wandb")
    deadline = time.monotonic() + seconds
    while True:
        records = [wandb_internal_pb2.Record.FromString(data) for data in _entries(path.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        assert time.monotonic() < deadline, f"{path} has no end after {seconds} s"
        time.sleep(0.01)


def read_history(directory: Path) -> list[tuple[str, int, float]]:
    """Return (name, `trainer/global_step`, value) of every number logged; media are left out."""
    points = []
    for record in read_records(directory):
        if record.WhichOneof("record_type") != "history":
            continue
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        step = row.pop("trainer/global_step")
        points += [
            (name, step, float(value)) for name, value in row.items() if isinstance(value, (int, float)) and not name.startswith("_")
        ]
    return points


def _entries(data: bytes) -> list[bytes]:
    entries, parts, position = [], b"", _FILE_HEADER
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:  # no header is split: the rest of the block is padding
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if kind in (1, 4):  # whole, or last part
            entries.append(parts)
            parts = b""
    return entries
