"""LitData's JSON leaves: a byte says what follows, and lists of one type and records have layouts of their own.

| tag | what follows |
|---|---|
| 0 | u32 bytes, JSON text |
| 1, 2, 3, 4 | u32 n, then n times (u32 bytes, text), i64, f64, one byte for a bool |
| 5 | u32 n, then n times (u32 bytes, key, value) |
| 6 | u32 rows, u32 keys, the keys, then each row's cells: 0x10 null, 0x11 text, 0x12 i64, 0x13 f64, 0x14 bool |
| 7, 8, 9, 10, 11 | text, i64, f64, bool, null |
| > 0x20 | no tag: the whole leaf is JSON text |
"""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from leyden.core.errors import CorruptDataError

U32, I64, F64 = struct.Struct("<I"), struct.Struct("<q"), struct.Struct("<d")
PLAIN_JSON_ABOVE = 0x20


def decode(data: Any) -> Any:
    """Return the value of a leaf.

    Raises:
        CorruptDataError: It ends too early or has a tag that nobody writes.
    """
    raw = bytes(data)
    if not raw or raw[0] > PLAIN_JSON_ABOVE:
        return json.loads(raw)
    try:
        return _Reader(raw).value()
    except (struct.error, IndexError, KeyError) as error:
        raise CorruptDataError(f"a JSON leaf of {len(raw)} bytes is damaged") from error


def encode(value: Any) -> bytes:
    """Return the leaf of a JSON value: the text form, which every version of LitData reads."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"\0" + U32.pack(len(text)) + text


class _Reader:
    """Reads one leaf from front to back."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0
        self.kinds: dict[int, Callable[[], Any]] = {
            0: self._json, 1: self._texts, 2: lambda: self._numbers("<i8"), 3: lambda: self._numbers("<f8"),
            4: self._bools, 5: self._mapping, 6: self._records, 7: self._text,
            8: lambda: self._scalar(I64), 9: lambda: self._scalar(F64), 10: self._bool, 11: lambda: None,
        }  # fmt: skip
        self.cells: dict[int, Callable[[], Any]] = {
            0x10: self.kinds[11], 0x11: self.kinds[7], 0x12: self.kinds[8], 0x13: self.kinds[9], 0x14: self.kinds[10],
        }  # fmt: skip

    def value(self) -> Any:
        return self.kinds[self._byte()]()

    def _take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.raw):
            raise IndexError(self.at)
        return self.raw[start : self.at]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _scalar(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _bool(self) -> bool:
        return self._byte() != 0

    def _text(self) -> str:
        return self._take(self._scalar(U32)).decode()

    def _json(self) -> Any:
        return json.loads(self._take(self._scalar(U32)))

    def _texts(self) -> list[str]:
        return [self._text() for _ in range(self._scalar(U32))]

    def _numbers(self, dtype: str) -> list[Any]:
        return np.frombuffer(self._take(8 * self._scalar(U32)), dtype).tolist()

    def _bools(self) -> list[bool]:
        return [byte != 0 for byte in self._take(self._scalar(U32))]

    def _mapping(self) -> dict[str, Any]:
        return {self._text(): self.value() for _ in range(self._scalar(U32))}

    def _records(self) -> list[dict[str, Any]]:
        rows, keys = self._scalar(U32), self._scalar(U32)
        names = [self._text() for _ in range(keys)]
        return [{name: self.cells[self._byte()]() for name in names} for _ in range(rows)]
