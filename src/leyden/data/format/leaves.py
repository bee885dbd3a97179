"""What a value is as a leaf: its type in the schema, and what is stored of it.

The rules look at the value alone, never at a disk: a string is text, whatever it names.
"""

import dataclasses
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from leyden.data import types
from leyden.data.codecs import json
from leyden.data.errors import SchemaError
from leyden.data.format.dtypes import name_of
from leyden.data.format.schema import Leaf

SMALLEST_INT, LARGEST_INT = -(2**63), 2**63 - 1
LIST_TYPES = {int: "int64", float: "float64", bool: "bool", str: "str"}
VARIABLE_BYTES = 8  # what finding a value of any size costs in a block
_HELD_AS = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8}


class Serializer(Protocol):
    """A user's own way of storing a kind of value."""

    def can_serialize(self, item: Any) -> bool:
        """Return whether it takes this value."""
        ...

    def serialize(self, item: Any) -> tuple[bytes, str | None]:
        """Return the value's bytes, and a format that is ignored here."""
        ...


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafRules:
    """What may be stored.

    Args:
        allow_pickle: Whether objects of no known kind are pickled; reading them needs `trust=True`.
        serializers: Name → serializer, asked before anything else.
    """

    allow_pickle: bool = False
    serializers: Mapping[str, Serializer] = dataclasses.field(default_factory=dict)


class Stored(NamedTuple):
    """A value on its way into a column.

    Args:
        leaf: Its leaf.
        value: A scalar, bytes, an array or a list.
        cost: How many bytes it counts for in a block.
    """

    leaf: Leaf
    value: Any
    cost: int


def stored(name: str, value: Any, rules: LeafRules) -> Stored:
    """Return what is stored of a value.

    Args:
        name: The leaf's name.
        value: What the sample holds there.
        rules: What may be stored.

    Raises:
        SchemaError: It cannot be stored.
    """
    for kind, serializer in rules.serializers.items():
        if serializer.can_serialize(value):
            return _of_bytes(name, f"custom:{kind}", serializer.serialize(value)[0])
    known = _PLAIN.get(type(value)) or _of_array_like(value)
    if known is not None:
        return known(name, value)
    wrapper = value if isinstance(value, types.Wrapper) else types.wrap(value)
    return _of_object(name, value, rules) if wrapper is None else _of_wrapper(name, wrapper)


def _of_array_like(value: Any) -> Callable[[str, Any], Stored] | None:
    if isinstance(value, np.generic):
        return lambda name, scalar: _of_array(name, np.asarray(scalar), "scalar")
    if isinstance(value, np.ndarray):
        _refuse_mask(value)
        return lambda name, array: _of_array(name, array, "numpy")
    torch = sys.modules.get("torch")
    return _of_tensor if torch is not None and isinstance(value, torch.Tensor) else None


def _refuse_mask(array: Any) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise SchemaError("a masked array cannot be stored, for its mask would be lost. Return array.filled(…), or array and mask apart.")


def json_text(value: Any) -> bytes:
    """Return a value as JSON, which a list becomes that does not go with those before it."""
    return json.encode(value)


def array_of(tensor: Any) -> tuple[NDArray[Any], str]:
    """Return the elements of a torch tensor as numpy holds them, and the name of their type."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != sys.modules["torch"].strided or tensor.is_quantized or tensor.is_meta:
        what = "on the device meta, without values," if tensor.is_meta else f"of layout {tensor.layout}"
        raise SchemaError(f"a tensor {what} cannot be stored. Return tensor.to_dense() or tensor.dequantize().")
    plain = tensor.detach().cpu().contiguous()
    if dtype in _HELD_AS:
        torch = sys.modules["torch"]
        return plain.view(torch.int16 if dtype == "bfloat16" else torch.uint8).numpy().view(_HELD_AS[dtype]), dtype
    return plain.resolve_conj().resolve_neg().numpy(), dtype


def text_bytes(name: str, value: str) -> bytes:
    """Return text as UTF-8.

    Raises:
        SchemaError: It holds half of a surrogate pair, which no encoding has.
    """
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(
            f"leaf {name!r}: {value[error.start : error.end]!r} at {error.start} is no character, so the text cannot be stored. Return "
            "bytes, or text.encode(errors='replace').decode()."
        ) from None


def _of_int(name: str, value: int) -> Stored:
    if not SMALLEST_INT <= value <= LARGEST_INT:
        raise SchemaError(f"leaf {name!r}: {value} does not fit 64 bits. Pass str(value).")
    return Stored(Leaf(name, "int"), value, 8)


def _of_bytes(name: str, kind: str, data: Any) -> Stored:
    content = bytes(data)
    return Stored(Leaf(name, kind), content, VARIABLE_BYTES + len(content))


def _of_text(name: str, value: str) -> Stored:
    return _of_bytes(name, "str", text_bytes(name, value))


def _of_list(name: str, value: list[Any]) -> Stored:
    kinds = set(map(type, value))
    if len(kinds) <= 1 and kinds <= LIST_TYPES.keys():
        dtype = LIST_TYPES[next(iter(kinds))] if kinds else None
        if dtype == "int64" and not all(SMALLEST_INT <= item <= LARGEST_INT for item in value):
            raise SchemaError(f"leaf {name!r}: a number in the list does not fit 64 bits. Pass text, or an array of float64.")
        if dtype == "str" and not all(map(str.isascii, value)):
            for item in value:
                text_bytes(name, item)
        size = sum(VARIABLE_BYTES + len(item) for item in value) if dtype == "str" else len(value) * (1 if dtype == "bool" else 8)
        return Stored(Leaf(name, "list", dtype=dtype), list(value), VARIABLE_BYTES + size)
    if json.is_json(value):
        return _of_bytes(name, "json", json.encode(value))
    raise SchemaError(f"leaf {name!r}: a list of {', '.join(sorted(kind.__name__ for kind in kinds))} cannot be stored as one leaf.")


def _of_array(name: str, value: NDArray[Any], of: str, dtype: str | None = None) -> Stored:
    kind = dtype or name_of(value.dtype)
    content = np.array(value, dtype=value.dtype.newbyteorder("<"), order="C", copy=True)  # the caller may use its array again
    return Stored(Leaf(name, "array", dtype=kind, shape=value.shape, of=of), content, content.nbytes + 8 * content.ndim)


def _of_tensor(name: str, value: Any) -> Stored:
    array, dtype = array_of(value)
    return _of_array(name, array, "torch", dtype)


def _of_wrapper(name: str, value: types.Wrapper) -> Stored:
    if isinstance(value, types.Tensor):
        _refuse_mask(value.array)
        plain = value.unwrap()
        return _of_array(name, plain, "numpy") if isinstance(plain, np.ndarray) else _of_tensor(name, plain)
    if isinstance(value, types.Text):
        text_bytes(name, value.text or "")
    if isinstance(value, types.Encoded):
        return _of_bytes(name, value.leaf_type, value.encode())
    raise SchemaError(f"leaf {name!r}: a {type(value).__name__} cannot be stored here.")


def _of_object(name: str, value: Any, rules: LeafRules) -> Stored:
    if dataclasses.is_dataclass(value):
        raise SchemaError(f"leaf {name!r} is a dataclass, {type(value).__name__}. Return dataclasses.asdict(x).")
    for base in (str, bool, int, float):
        if isinstance(value, base):
            return stored(name, base(value), rules)
    if rules.allow_pickle:
        return _of_bytes(name, "pickle", pickle.dumps(value, protocol=5))
    raise SchemaError(
        f"leaf {name!r}: a {type(value).__module__}.{type(value).__qualname__} cannot be stored. Accepted are None, bool, int, float, str, "
        "bytes, lists of them, arrays, tensors, and wrappers such as Jpeg, File and Json. Convert it, or pass allow_pickle=True."
    )


_PLAIN: dict[type, Any] = {
    int: _of_int,
    float: lambda name, value: Stored(Leaf(name, "float"), value, 8),
    bool: lambda name, value: Stored(Leaf(name, "bool"), value, 1),
    str: _of_text,
    bytes: lambda name, value: _of_bytes(name, "bytes", value),
    bytearray: lambda name, value: _of_bytes(name, "bytes", value),
    memoryview: lambda name, value: _of_bytes(name, "bytes", value),
    type(None): lambda name, _: Stored(Leaf(name, "none", nullable=True), None, VARIABLE_BYTES),
    list: _of_list,
}
