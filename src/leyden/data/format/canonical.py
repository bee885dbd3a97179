"""Canonical JSON: one text for one value, so that equal things have equal digests."""

import json
from typing import Any

from leyden.core.errors import CorruptDataError


def dumps(value: object) -> bytes:
    r"""Return a value as UTF-8 with sorted keys, no spaces, text as it is, and a newline at the end.

    Example:
        >>> dumps({"b": 1, "a": "é"}).decode()
        '{"a":"é","b":1}\n'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def loads(data: bytes, where: str) -> Any:
    """Return the value of a text.

    Args:
        data: UTF-8.
        where: The file's name, for the error.

    Raises:
        CorruptDataError: It is no JSON.
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise CorruptDataError(f"{where} is damaged: it holds no JSON ({error}).") from error
