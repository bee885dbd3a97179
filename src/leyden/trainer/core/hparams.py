"""Plain data out of any data: what a checkpoint holds of hyper-parameters, and of all that users put into it.

`encode` turns a value into what `torch.load(weights_only=True)` reads, `decode` turns it back. Plain values stay as they
are; others become `{"$leyden": kind, "value": payload}` by the table in `kinds`. So every file opens without running
anything that is in it.

Hyper-parameters without a row are left out with a warning, and an `Opaque` stands for them (`encode_hparams`). In other
places such objects are pickled into one bytes value, which is read back only from files that are trusted.
"""

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from leyden.core.errors import ConfigError, CorruptDataError, listed
from leyden.core.lazy import Later
from leyden.fabric.checkpoint.opaque import Opaque

if TYPE_CHECKING:
    from leyden.trainer.core import kinds
else:
    kinds = Later("leyden.trainer.core.kinds")  # decimals, time zones and more: for who saves or loads

MARK = "$leyden"
_PICKLED, _OPAQUE = "pickled", "opaque"
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size})
_BASES: tuple[Any, ...] = (int, float, complex, str, bytes)
_KEYS = (str, int)

Unknown = Callable[[str, Any], Any]
"""What to make of a value without a row: `(place, value)`."""


def encode(value: Any, place: str = "checkpoint") -> Any:
    """Return a value as plain data; the same object where nothing in it had to change.

    Args:
        value: Anything. Objects without a row are pickled.
        place: How the value is reached, for the error.

    Raises:
        ConfigError: An object that cannot be pickled either, or a container inside itself.

    Example:
        >>> from pathlib import Path
        >>> encode({"lr": 0.1, "root": Path("data")})
        {'lr': 0.1, 'root': {'$leyden': 'path', 'value': ['Path', 'data']}}
    """
    return _Encoder(_pickled).encode(value, place)


def encode_hparams(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters as plain data. Modules are left out, objects without a row too, with a warning.

    Example:
        >>> encode_hparams({"width": 8, "net": nn.Identity()})
        {'width': 8}
    """
    encoder = _Encoder(_left_out)
    return {str(name): encoder.encode(value, str(name)) for name, value in hparams.items() if not isinstance(value, nn.Module)}


def decode(value: Any, *, trusted: bool = False, place: str = "checkpoint") -> Any:
    """Return what `encode` was given; the same object where nothing in it had to change.

    Args:
        value: What `encode` returned.
        trusted: Whether to run the pickles in it (`weights_only=False`).
        place: How the value is reached, for the error.

    Raises:
        ConfigError: It holds pickles and is not trusted.
        CorruptDataError: It is not what `encode` writes.
    """
    if not trusted and (keys := list(_pickled_places(value, place))):
        raise ConfigError(
            f"The checkpoint holds objects that only pickle can read, at {listed(keys)}. Reading them runs code from the file: pass "
            "weights_only=False if you trust it, or store plain values and tensors there."
        )
    return _decode(value)


# -- encoding ----------------------------------------------------------------------------------------------------


class _Encoder:
    """Encodes a tree.

    Args:
        unknown: What to make of values without a row.
    """

    def __init__(self, unknown: Unknown) -> None:
        self._unknown = unknown
        self._above: list[int] = []

    def encode(self, value: Any, place: str) -> Any:
        kind = type(value)
        if (kind in _PLAIN and value != b"") or isinstance(value, Tensor):
            return value
        if id(value) in self._above:
            raise ConfigError(f"{place} contains itself; a checkpoint stores trees. Store the inner object once, under a key of its own.")
        self._above.append(id(value))
        try:
            return self._container(value, place) if kind in _CONTAINERS else self._other(value, place)
        finally:
            self._above.pop()

    def _container(self, value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            items = [self.encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return {MARK: "set", "value": items} if isinstance(value, set) else type(value)(items)
        changed = {key: new for key, item in value.items() if (new := self.encode(item, f"{place}[{key!r}]")) is not item}
        if MARK in value or not all(type(key) in _KEYS for key in value):
            return self._marked(kinds.DICT, value, place)
        return type(value)((key, changed.get(key, item)) for key, item in value.items()) if changed else value

    def _other(self, value: Any, place: str) -> Any:
        if isinstance(value, Opaque):
            return {MARK: _OPAQUE, "value": value.name}
        row = kinds.EMPTY_BYTES if type(value) is bytes else kinds.kind_of(value)
        if row is not None:
            try:
                return self._marked(row, value, place)
            except kinds.UnknownValueError:
                return self._unknown(place, value)
        for base in _BASES:
            if isinstance(value, base):
                return base(value)
        for container in (dict, list, tuple):  # of a subclass that adds nothing a file could know
            if isinstance(value, container):
                return self.encode(container(value), place)
        return self._unknown(place, value)

    def _marked(self, row: "kinds.Kind", value: Any, place: str) -> dict[str, Any]:
        return {MARK: row.name, "value": row.to(value, lambda inner: self.encode(inner, place))}


_CONTAINERS = (dict, OrderedDict, list, tuple, set)


def _pickled(place: str, value: Any) -> Any:
    try:
        return {MARK: _PICKLED, "value": pickle.dumps(value)}
    except Exception as error:  # any code of the user's object may run here
        raise ConfigError(
            f"{place} is of type {type(value).__qualname__}, which is neither plain data nor can be pickled ({error}). Store numbers, "
            "strings, tensors, or lists and dictionaries of them."
        ) from error


def _left_out(place: str, value: Any) -> Any:
    warnings.warn(
        f"Attribute {place!r} removed from hparams because it cannot be pickled: {type(value).__qualname__} is not made of plain values. "
        "Loading the checkpoint needs it as an argument; leave it out with save_hyperparameters(ignore=...).",
        stacklevel=6,
    )
    kind = value if hasattr(value, "__qualname__") else type(value)
    return {MARK: _OPAQUE, "value": f"{kind.__module__}.{kind.__qualname__}"}


# -- decoding ----------------------------------------------------------------------------------------------------


def _is_marked(value: Any) -> bool:
    return type(value) is dict and len(value) == 2 and MARK in value and "value" in value


def _pickled_places(value: Any, place: str) -> Iterator[str]:
    if _is_marked(value):
        if value[MARK] == _PICKLED:
            yield place
        else:
            yield from _pickled_places(value["value"], place)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _pickled_places(item, f"{place}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _pickled_places(item, f"{place}[{index}]")


def _decode(value: Any) -> Any:
    if _is_marked(value):
        return _unmarked(value[MARK], value["value"])
    if type(value) in (dict, OrderedDict):
        changed = {key: new for key, item in value.items() if (new := _decode(item)) is not item}
        return type(value)((key, changed.get(key, item)) for key, item in value.items()) if changed else value
    if type(value) in (list, tuple):
        items = [_decode(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else type(value)(items)
    return value


def _unmarked(name: Any, payload: Any) -> Any:
    if name == _PICKLED:
        return pickle.loads(payload)  # noqa: S301 - `decode` refuses these unless the file is trusted
    if name == _OPAQUE:
        return Opaque(str(payload))
    row = kinds.BY_NAME.get(name)
    if row is None:
        raise CorruptDataError(
            f"The checkpoint holds a value of kind {name!r}; known are {listed(kinds.BY_NAME)}. Use the version that wrote it."
        )
    try:
        return row.back(payload, _decode)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise CorruptDataError(f"The checkpoint holds a {name} that means nothing: {payload!r} ({error}).") from error


# -- arguments from elsewhere ------------------------------------------------------------------------------------

_GIVEN: ContextVar[tuple[Mapping[str, Any], type | None] | None] = ContextVar("given_arguments", default=None)


def given_arguments(kind: type | None = None) -> Mapping[str, Any] | None:
    """Return what `save_hyperparameters` keeps in place of the arguments of `__init__`, if somebody said so.

    Args:
        kind: The class of the object that asks.
    """
    arguments, wanted = _GIVEN.get() or (None, None)
    return arguments if wanted is None or kind is wanted else None


@contextmanager
def giving(arguments: Mapping[str, Any], of: type | None = None) -> Iterator[None]:
    """Let `save_hyperparameters` keep these in the block: a configuration, of which the arguments were built.

    Args:
        arguments: The configuration.
        of: Whose it is; objects of other classes, built inside, keep their own arguments. `None`: any.
    """
    token = _GIVEN.set((arguments, of))
    try:
        yield
    finally:
        _GIVEN.reset(token)
