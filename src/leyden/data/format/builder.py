"""`LeafBuilder`: collects the values of one leaf and makes a column of them when a block is full.

Values of one leaf are nearly always of one type: that path is short; everything else goes through the rules of `leaves` and
widens the leaf, which outlives its blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leyden.data.codecs.array import to_npy
from leyden.data.errors import SchemaError
from leyden.data.format.column import FIXED, LIST, NULL, STRINGS, TENSOR, Column, bits_of, bytes_column_of, ends_of
from leyden.data.format.dtypes import by_name
from leyden.data.format.leaves import LARGEST_INT, SMALLEST_INT, VARIABLE_BYTES, LeafRules, array_of, json_text, stored, text_bytes
from leyden.data.format.schema import Leaf, unify_leaves

_LARGEST_RANK = 8
_SCALARS = {"int": "int64", "float": "float64", "bool": "bool"}
_TOKEN_TYPES = ("uint16", "uint32", "int16", "int32", "int64")


@final
class LeafBuilder:
    """Collects the values of one leaf.

    Args:
        name: The leaf's name.
        rules: What may be stored.
        token_dtype: Of the leaf of a token dataset: `auto`, or the type that its numbers are stored in.
    """

    def __init__(self, name: str, rules: LeafRules, token_dtype: str | None = None) -> None:
        self.name = name
        self.leaf: Leaf | None = None
        self.values: list[Any] = []
        self._rules, self._token_dtype = rules, token_dtype
        self._exact: type | None = None
        self._take: Callable[[Any], int] = self._take_other
        self._array: tuple[Any, tuple[int, ...] | None] = None, None  # type of the arrays so far, and their shape if it is one
        self._rank, self._plain = 0, _same

    def append(self, value: Any) -> int:
        """Add a value, and return how many bytes it counts for.

        Raises:
            SchemaError: It does not go with those before it; nothing was added.
        """
        return self._take(value) if type(value) is self._exact else self._take_other(value)

    def keep(self, rows: int) -> None:
        """Forget the values after the first `rows`."""
        del self.values[rows:]

    def mark(self) -> tuple[Any, ...]:
        """Return what `go_back` needs."""
        return self.leaf, self.values, self._exact, self._take, self._array, self._rank, self._plain

    def go_back(self, mark: tuple[Any, ...], rows: int) -> None:
        """Forget the values after the first `rows`, and what later ones said of the leaf."""
        self.leaf, self.values, self._exact, self._take, self._array, self._rank, self._plain = mark
        self.keep(rows)

    def finish(self) -> Column:
        """Return the column of the values so far, and begin the next one."""
        values, self.values = self.values, list[Any]()
        if self.leaf is None or self.leaf.type == "none":
            return Column(NULL, "none", (), len(values), np.empty(0, np.uint8))
        if self._token_dtype is not None:
            return _token_column(values, self._token_dtype)
        return column_of(self.leaf, values)

    # -- one value -------------------------------------------------------------------------------------------------

    def _take_other(self, value: Any) -> int:
        found = stored(self.name, value, self._rules)
        if self._token_dtype is not None:
            _check_tokens(self.name, found.leaf)
        leaf = found.leaf
        merged = leaf if self.leaf is None or self.leaf == leaf else unify_leaves(self.leaf, leaf, "this sample")
        kept = found.value
        if merged.type == "json" and (self.leaf is None or self.leaf.type == "list"):
            self.values = [item if item is None else json_text(item) for item in self.values]
        if merged.type == "json" and leaf.type == "list":
            kept = json_text(found.value)
        self.leaf = merged
        self._choose(value)
        self.values.append(kept)
        return found.cost

    def _choose(self, value: Any) -> None:
        """Set the short path for the next value of this type."""
        kind = None if self._rules.serializers or self.leaf is None else type(value)
        paths: dict[Any, Callable[[Any], int]] = {
            int: self._take_int,
            float: self._take_float,
            bool: self._take_bool,
            str: self._take_text,
            bytes: self._take_bytes,
        }
        if kind is np.ndarray or hasattr(kind, "untyped_storage"):  # torch's tensors, without importing torch
            is_array = kind is np.ndarray
            self._exact, self._take = (None, self._take_other) if is_array and value.dtype.byteorder == ">" else (kind, self._take_array)
            is_open = self.leaf is not None and self.leaf.shape is not None and all(size is None for size in self.leaf.shape)
            self._array = value.dtype, None if is_open else value.shape
            self._rank, self._plain = value.ndim, _same if is_array else _elements
        elif kind in paths:
            self._exact, self._take = kind, paths[kind]

    def _take_int(self, value: int) -> int:
        if not SMALLEST_INT <= value <= LARGEST_INT:
            return self._take_other(value)
        self.values.append(value)
        return 8

    def _take_float(self, value: float) -> int:
        self.values.append(value)
        return 8

    def _take_bool(self, value: bool) -> int:  # noqa: FBT001 - it is the value
        self.values.append(value)
        return 1

    def _take_text(self, value: str) -> int:
        try:
            data = value.encode()
        except UnicodeEncodeError:
            data = text_bytes(self.name, value)  # which says what is wrong
        self.values.append(data)
        return VARIABLE_BYTES + len(data)

    def _take_bytes(self, value: bytes) -> int:
        self.values.append(value)
        return VARIABLE_BYTES + len(value)

    def _take_array(self, value: Any) -> int:
        dtype, shape = self._array
        if value.dtype != dtype or (value.shape != shape if shape is not None else value.ndim != self._rank):
            return self._take_other(value)
        plain = self._plain(value).copy()  # the caller may use its array again
        self.values.append(plain)
        return plain.nbytes + 8 * plain.ndim


def _same(array: Any) -> NDArray[Any]:
    return array


def _elements(array: Any) -> NDArray[Any]:
    return array_of(array)[0]


def _check_tokens(name: str, leaf: Leaf) -> None:
    is_array = leaf.type == "array" and leaf.shape is not None and len(leaf.shape) == 1 and "int" in str(leaf.dtype)
    if name or not (is_array or (leaf.type == "list" and leaf.dtype in (None, "int64"))):
        raise SchemaError(
            "with item_loader=TokensLoader(), a sample is one array of token numbers: a one-dimensional array or tensor of whole numbers. "
            f"This one is {leaf.type} of {leaf.dtype}, shape {leaf.shape}. Return torch.tensor(ids)."
        )


def column_of(leaf: Leaf, values: Sequence[Any]) -> Column:
    """Return the column of stored values, `None` where there is none.

    Args:
        leaf: Their leaf.
        values: As `leyden.data.format.leaves.stored` gives them.
    """
    if leaf.type in _SCALARS:
        return _fixed(values, by_name(_SCALARS[leaf.type]).storage, _SCALARS[leaf.type], ())
    if leaf.type == "array":
        return _array_column(leaf, values)
    if leaf.type == "list":
        return _strings_column(values) if leaf.dtype == "str" else _list_column(values, leaf.dtype or "int64")
    return bytes_column_of(list(values))


def _fixed(values: Sequence[Any], storage: np.dtype[Any], dtype: str, dims: tuple[int, ...]) -> Column:
    present = [value is not None for value in values]
    if all(present):
        array = np.array(values, storage) if not dims else np.concatenate(values).reshape(len(values), *dims)
        return Column(FIXED, dtype, dims, len(values), array)
    array = np.zeros((len(values), *dims), storage)
    for row, value in enumerate(values):
        if value is not None:
            array[row] = value
    return Column(FIXED, dtype, dims, len(values), array, validity=bits_of(np.array(present, np.bool_)))


def _array_column(leaf: Leaf, values: Sequence[NDArray[Any] | None]) -> Column:
    dtype = str(leaf.dtype)
    storage = by_name(dtype).storage
    shapes = {value.shape for value in values if value is not None}
    if not shapes:
        return Column(NULL, "none", (), len(values), np.empty(0, np.uint8))
    ranks = {len(shape) for shape in shapes}
    if len(shapes) == 1 and max(ranks) <= _LARGEST_RANK:
        return _fixed(values, storage, dtype, next(iter(shapes)))
    if len(ranks) > 1 or max(ranks) > _LARGEST_RANK:
        return bytes_column_of([None if value is None else to_npy(value) for value in values], is_npy=True)
    rank = next(iter(ranks))
    flat = [value.reshape(-1) for value in values if value is not None]
    offsets = ends_of([0 if value is None else value.size for value in values])
    validity = bits_of(np.array([value is not None for value in values], np.bool_))
    joined = np.concatenate(flat).astype(storage, copy=False)
    if rank == 1:
        return Column(LIST, dtype, (), len(values), joined, offsets, validity=validity)
    sizes = np.array([(0,) * rank if value is None else value.shape for value in values], np.uint32)
    return Column(TENSOR, dtype, (), len(values), joined, offsets, shapes=sizes, validity=validity)


def _list_column(values: Sequence[list[Any] | None], dtype: str) -> Column:
    joined = np.array([item for value in values if value is not None for item in value], by_name(dtype).storage)
    offsets = ends_of([0 if value is None else len(value) for value in values])
    return Column(
        LIST, dtype, (), len(values), joined, offsets, validity=bits_of(np.array([value is not None for value in values], np.bool_))
    )


def _strings_column(values: Sequence[list[str] | None]) -> Column:
    texts = [item.encode("utf-8", "surrogatepass") for value in values if value is not None for item in value]
    offsets = ends_of([0 if value is None else len(value) for value in values])
    joined = np.frombuffer(b"".join(texts), np.uint8)
    validity = bits_of(np.array([value is not None for value in values], np.bool_))
    return Column(STRINGS, "uint8", (), len(values), joined, offsets, ends_of(list(map(len, texts))), validity=validity)


def _token_column(values: Sequence[Any], wanted: str) -> Column:
    arrays = [np.asarray(value) if not isinstance(value, list) else np.array(value, np.int64) for value in values]
    offsets = ends_of([array.size for array in arrays])
    joined = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
    dtype = smallest_token_dtype(joined) if wanted == "auto" else wanted
    _check_fit(joined, dtype)
    return Column(LIST, dtype, (), len(values), joined.astype(by_name(dtype).storage, copy=False), offsets)


def _check_fit(tokens: NDArray[Any], dtype: str) -> None:
    limits = np.iinfo(dtype)
    if tokens.size and (int(tokens.min()) < limits.min or int(tokens.max()) > limits.max):
        wrong = next(token for token in tokens.tolist() if not limits.min <= token <= limits.max)
        raise SchemaError(f"the token {wrong} does not fit store_dtype={dtype!r}. Leave store_dtype out: it fits itself to the tokens.")


def smallest_token_dtype(tokens: NDArray[Any]) -> str:
    """Return the smallest type that holds all these numbers."""
    low, high = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
    return next(name for name in _TOKEN_TYPES if np.iinfo(name).min <= low and high <= np.iinfo(name).max)
