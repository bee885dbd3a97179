"""Values that hooks hand to loggers, as they travel: msgpack, so that no process reads a pickle.

Numbers, text, bytes, dates, lists and dicts come out as they went in. Scalars and small arrays of numpy, tensors and the arrays of
other libraries come out as numbers and lists; dataclasses, Structs and pydantic models as dicts.
"""

from typing import Any, Final

import msgspec

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.codec import to_plain

MAX_ITEMS: Final = 1 << 16
MAX_BYTES: Final = 256 << 10


def pack(value: Any) -> bytes:
    """Return a value as msgpack.

    Raises:
        ConfigTypeError: It is, or holds, what cannot be sent.
        ConfigError: It is too large.

    Example:
        >>> unpack(pack({"loss": 0.5, "tags": ("a", "b")}))
        {'loss': 0.5, 'tags': ['a', 'b']}
    """
    try:
        packed = msgspec.msgpack.encode(value, enc_hook=_plain)
    except ConfigError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigTypeError(f"{error}. Log numbers, text, bytes, lists, dicts, small arrays or tensors.") from error
    if len(packed) > MAX_BYTES:
        raise ConfigError(f"it has {len(packed):,} bytes, and loggers take {MAX_BYTES:,}. Log a summary, or where it is stored.")
    return packed


def unpack(packed: bytes | bytearray | memoryview) -> Any:
    """Return the value that was packed."""
    return msgspec.msgpack.decode(packed)


def _plain(value: Any) -> Any:
    """Return what msgspec does not know as what it knows."""
    count = _count(value)
    if count > MAX_ITEMS:
        raise ConfigError(
            f"its {type(value).__name__} has {count:,} items, and loggers take {MAX_ITEMS:,}. Log a summary, such as its mean."
        )
    try:
        return to_plain(value)
    except TypeError:
        if hasattr(value, "tolist"):  # arrays of JAX and others
            return value.tolist()
    kind = type(value)
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__} is no value that can be sent")


def _count(value: Any) -> int:
    """Return how many items an array or a tensor has: before they are made into objects of Python."""
    shape = getattr(value, "shape", None)
    count = 1
    for size in shape if isinstance(shape, tuple) else ():
        count *= size if isinstance(size, int) else 1
    return count
