"""How values that `torch.load(weights_only=True)` does not read are written as ones that it does: one row per kind.

A row turns a value into a plain payload and back. Classes are written as `module:qualname` and found again **only if that
module is already imported**; nothing is ever imported or called for a file's sake. What is not found is an `Opaque`.
"""

import argparse
import dataclasses
import datetime
import decimal
import enum
import pathlib
import sys
import uuid
import zoneinfo
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from leyden.fabric.checkpoint.opaque import Opaque

Code = Callable[[Any], Any]
"""Encodes or decodes something inside a payload."""


class UnknownValueError(ValueError):
    """A value that no row describes; `hparams` decides what becomes of it."""


# -- classes by name ---------------------------------------------------------------------------------------------


def name_of(kind: type) -> str:
    """Return how a class is written.

    Raises:
        UnknownValueError: It lives in a function, so that nobody finds it again.
    """
    if "<" in kind.__qualname__:
        raise UnknownValueError(f"{kind.__qualname__} is defined in a function and cannot be found again.")
    return f"{kind.__module__}:{kind.__qualname__}"


def found(name: Any, base: type = object) -> type | None:
    """Return the class of that name if its module is imported already and it is a `base`; else `None`."""
    module, _, path = str(name).partition(":")
    value: Any = sys.modules.get(module)
    for part in path.split("."):
        value = getattr(value, "__dict__", {}).get(part)  # not getattr: a module's own __getattr__ may import
    return value if isinstance(value, type) and issubclass(value, base) else None


def missing(name: Any, *args: Any) -> Opaque:
    """Return what stands for a value whose class is not there."""
    return Opaque(str(name).replace(":", "."), args)


# -- rows --------------------------------------------------------------------------------------------------------


def _to_enum(value: enum.Enum, code: Code) -> Any:
    return [name_of(type(value)), value.name if value.name in type(value).__members__ else None, code(value.value)]


def _from_enum(payload: Any, code: Code) -> Any:
    kind, member, value = found(payload[0], enum.Enum), payload[1], code(payload[2])
    if kind is None or (member is not None and member not in kind.__members__):  # type: ignore[attr-defined] - an Enum
        return missing(payload[0], value)
    return kind.__members__[member] if member is not None else kind(value)  # type: ignore[attr-defined] - an Enum


def _to_fields(value: Any, code: Code) -> Any:
    fields = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    return [name_of(type(value)), {name: code(getattr(value, name)) for name in fields}]


def _from_fields(payload: Any, code: Code) -> Any:
    kind, values = found(payload[0]), {name: code(value) for name, value in payload[1].items()}
    if kind is None or not dataclasses.is_dataclass(kind):
        return missing(payload[0], values)
    result = object.__new__(kind)
    for name in values.keys() & {field.name for field in dataclasses.fields(kind)}:
        object.__setattr__(result, name, values[name])  # also where the class is frozen; no code of the class runs
    return result


def _to_named_tuple(value: Any, code: Code) -> Any:
    return [name_of(type(value)), [code(item) for item in value]]


def _from_named_tuple(payload: Any, code: Code) -> Any:
    kind, items = found(payload[0], tuple), [code(item) for item in payload[1]]
    return missing(payload[0], *items) if kind is None else tuple.__new__(kind, items)


def _to_path(value: pathlib.PurePath, code: Code) -> Any:
    is_concrete = isinstance(value, pathlib.Path)
    return ["Path" if is_concrete else type(value).__name__, str(value)]


def _from_path(payload: Any, code: Code) -> Any:
    kinds = {"Path": pathlib.Path, "PurePosixPath": pathlib.PurePosixPath, "PureWindowsPath": pathlib.PureWindowsPath}
    return kinds[payload[0]](payload[1])


def _to_datetime(value: datetime.datetime, code: Code) -> Any:
    zone = value.tzinfo
    if zone is not None and not isinstance(zone, (datetime.timezone, zoneinfo.ZoneInfo)):
        raise UnknownValueError(f"{value!r} has a time zone of class {type(zone).__qualname__}.")
    key = zone.key if isinstance(zone, zoneinfo.ZoneInfo) else None
    return [value.replace(tzinfo=None, fold=0).isoformat() if key else value.replace(fold=0).isoformat(), value.fold, key]


def _from_datetime(payload: Any, code: Code) -> Any:
    text, fold, key = payload
    value = datetime.datetime.fromisoformat(text).replace(fold=fold)
    return value if key is None else value.replace(tzinfo=zoneinfo.ZoneInfo(key))


def _to_namespace(value: Any, code: Code) -> Any:
    return ["Namespace" if isinstance(value, argparse.Namespace) else "SimpleNamespace", code(dict(vars(value)))]


def _from_namespace(payload: Any, code: Code) -> Any:
    kind = argparse.Namespace if payload[0] == "Namespace" else SimpleNamespace
    return kind(**code(payload[1]))


def _to_slice(value: slice, code: Code) -> Any:
    return [code(value.start), code(value.stop), code(value.step)]


def _to_default_dict(value: Any, code: Code) -> Any:
    return [code(value.default_factory), [[code(key), code(item)] for key, item in value.items()]]


def _from_default_dict(payload: Any, code: Code) -> Any:
    factory = code(payload[0])
    return defaultdict(factory if isinstance(factory, type) else None, ((code(key), code(item)) for key, item in payload[1]))


def _to_class(value: type, code: Code) -> Any:
    return name_of(value)


def _from_class(payload: Any, code: Code) -> Any:
    return found(payload) or Opaque(str(payload).replace(":", "."))


# -- numpy and omegaconf: only if the user imported them ---------------------------------------------------------


def _numpy() -> Any:
    import numpy  # a file may be read before the user's code imports it

    return numpy


def _to_numpy(value: Any, code: Code) -> Any:
    if value.dtype.hasobject or value.dtype.names is not None:
        raise UnknownValueError(f"a numpy value of dtype {value.dtype} is not made of plain numbers.")
    return [value.dtype.str, list(value.shape), value.tobytes() or None]


def _from_numpy_array(payload: Any, code: Code) -> Any:
    numpy = _numpy()
    return numpy.frombuffer(payload[2] or b"", numpy.dtype(payload[0])).reshape(payload[1]).copy()


def _from_numpy_scalar(payload: Any, code: Code) -> Any:
    numpy = _numpy()
    dtype = numpy.dtype(payload[0])
    return numpy.zeros((), dtype)[()] if payload[2] is None else numpy.frombuffer(payload[2], dtype)[0]


def _to_omegaconf(value: Any, code: Code) -> Any:
    return code(sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=False))


def _from_omegaconf(payload: Any, code: Code) -> Any:
    omegaconf, value = sys.modules.get("omegaconf"), code(payload)
    return value if omegaconf is None else omegaconf.OmegaConf.create(value)


# -- the table ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One row.

    Args:
        name: How the file calls it.
        to: Value → payload; the second argument encodes what is inside.
        back: Payload → value; the second argument decodes what is inside.
    """

    name: str
    to: Callable[[Any, Code], Any]
    back: Callable[[Any, Code], Any]


def _plain(function: Code) -> Callable[[Any, Code], Any]:
    return lambda value, code: function(value)


def _each(function: Code) -> Callable[[Any, Code], Any]:
    return lambda value, code: function(code(item) for item in value)


ENUM = Kind("enum", _to_enum, _from_enum)
DATACLASS = Kind("dataclass", _to_fields, _from_fields)
NAMED_TUPLE = Kind("namedtuple", _to_named_tuple, _from_named_tuple)
CLASS = Kind("class", _to_class, _from_class)
NUMPY_ARRAY = Kind("numpy_array", _to_numpy, _from_numpy_array)
NUMPY_SCALAR = Kind("numpy_scalar", _to_numpy, _from_numpy_scalar)
OMEGACONF = Kind("omegaconf", _to_omegaconf, _from_omegaconf)
SET = Kind("set", _each(list), _each(set))
EMPTY_BYTES = Kind("bytes", _plain(lambda value: None), _plain(lambda payload: b""))  # the safe reader refuses b"" alone
DICT = Kind(
    "dict",
    lambda value, code: [[code(key), code(item)] for key, item in value.items()],
    lambda payload, code: {code(key): code(item) for key, item in payload},
)

BY_TYPE: dict[type, Kind] = {
    pathlib.PurePath: Kind("path", _to_path, _from_path),
    datetime.timedelta: Kind(
        "timedelta",
        _plain(lambda value: [value.days, value.seconds, value.microseconds]),
        _plain(lambda payload: datetime.timedelta(*payload)),
    ),
    datetime.datetime: Kind("datetime", _to_datetime, _from_datetime),
    datetime.date: Kind("date", _plain(lambda value: value.isoformat()), _plain(datetime.date.fromisoformat)),
    argparse.Namespace: Kind("namespace", _to_namespace, _from_namespace),
    SimpleNamespace: Kind("namespace", _to_namespace, _from_namespace),
    frozenset: Kind("frozenset", _each(list), _each(frozenset)),
    range: Kind("range", _plain(lambda value: [value.start, value.stop, value.step]), _plain(lambda payload: range(*payload))),
    slice: Kind("slice", _to_slice, lambda payload, code: slice(*(code(item) for item in payload))),
    decimal.Decimal: Kind("decimal", _plain(str), _plain(decimal.Decimal)),
    uuid.UUID: Kind("uuid", _plain(str), _plain(uuid.UUID)),
    defaultdict: Kind("defaultdict", _to_default_dict, _from_default_dict),
}
BY_NAME: dict[str, Kind] = {
    kind.name: kind
    for kind in (*BY_TYPE.values(), ENUM, DATACLASS, NAMED_TUPLE, CLASS, NUMPY_ARRAY, NUMPY_SCALAR, OMEGACONF, SET, EMPTY_BYTES, DICT)
}


def kind_of(value: Any) -> Kind | None:
    """Return the row for a value that is not plain; `None` if there is none."""
    if isinstance(value, enum.Enum):
        return ENUM
    if isinstance(value, type):
        return CLASS
    if dataclasses.is_dataclass(value):
        return DATACLASS
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return NAMED_TUPLE
    row = BY_TYPE.get(type(value))
    if row is None:
        row = next((BY_TYPE[base] for base in (pathlib.PurePath, argparse.Namespace) if isinstance(value, base)), None)
    return row or _foreign_kind(value)


def _foreign_kind(value: Any) -> Kind | None:
    numpy, omegaconf = sys.modules.get("numpy"), sys.modules.get("omegaconf")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return NUMPY_ARRAY
    if numpy is not None and isinstance(value, numpy.generic):
        return NUMPY_SCALAR
    return OMEGACONF if omegaconf is not None and isinstance(value, omegaconf.Container) else None
