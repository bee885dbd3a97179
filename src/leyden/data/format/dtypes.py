"""The element types of arrays: their numbers in files, their names, and what numpy calls their bytes.

bfloat16 and the float8 types have no numpy type: their bytes are held as unsigned integers of the same size.
"""

from typing import Any, NamedTuple

import numpy as np

from leyden.data.errors import SchemaError

_NAMES = (
    "none", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
    "float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip
_HELD_AS = {"none": "uint8", "bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


class DType(NamedTuple):
    """One element type.

    Args:
        code: Its number in files.
        name: Its name in schemas.
        storage: What numpy reads its bytes as; little-endian.
    """

    code: int
    name: str
    storage: np.dtype[Any]


_ALL = tuple(DType(code, name, np.dtype(_HELD_AS.get(name, name)).newbyteorder("<")) for code, name in enumerate(_NAMES))
_BY_NAME = {dtype.name: dtype for dtype in _ALL}


def by_code(code: int) -> DType:
    """Return the type with that number.

    Raises:
        IndexError: No such number.
    """
    return _ALL[code]


def by_name(name: str) -> DType:
    """Return the type of that name.

    Raises:
        KeyError: No such name.

    Example:
        >>> by_name("int32").code, by_name("bfloat16").storage.name
        (4, 'uint16')
    """
    return _BY_NAME[name]


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a numpy type, in either byte order.

    Raises:
        SchemaError: Objects, text, dates and structures are no numbers.
    """
    if dtype.name in _BY_NAME and dtype.kind != "V":
        return dtype.name
    hint = {
        "O": "Return one leaf for each value, or a list.",
        "U": "Return a list of str.",
        "S": "Return a list of bytes, or the bytes.",
        "M": "Store values.astype('int64') and the unit.",
        "m": "Store values.astype('int64') and the unit.",
    }.get(dtype.kind, "Return one array for each field.")
    raise SchemaError(f"an array of dtype {dtype.name!r} cannot be stored: arrays are of booleans and numbers. {hint}")
