"""JSON leaves: values of str, int, float, bool, None, list and dict with str keys; what is read equals what was written."""

import json
from typing import Any

from leyden.data.errors import SchemaError


def encode(value: Any) -> bytes:
    """Return the JSON text of a value, UTF-8.

    Raises:
        SchemaError: JSON would give back another value: tuples, sets, keys that are no str, objects.
    """
    if not is_json(value):
        raise SchemaError(
            f"Json({value!r:.80}) holds what JSON cannot give back alike. Accepted are str, int, float, bool, None, list, and dict with "
            "str keys; turn tuples into lists and keys into str."
        )
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: UTF-8 has no bytes for it, JSON has an escape
        return json.dumps(value, separators=(",", ":")).encode()


def decode(data: Any) -> Any:
    """Return the value of a JSON text; in old datasets half of a surrogate pair may stand in it."""
    return json.loads(bytes(data).decode("utf-8", "surrogatepass"))


def is_json(value: Any) -> bool:
    """Return whether JSON gives the value back alike.

    Example:
        >>> is_json([{"a": None}, 1.5]), is_json({1: 2}), is_json((1, 2))
        (True, False, False)
    """
    kind = type(value)  # exactly these: an IntEnum or a str subclass would come back as its base
    if kind in {str, int, float, bool} or value is None:
        return True
    if kind is list:
        return all(map(is_json, value))
    return kind is dict and all(type(key) is str for key in value) and all(map(is_json, value.values()))
