"""An unpickler that runs nothing: it records what a pickle asks for, and a table of rebuilders makes values of the record.

A pickle is a program whose instructions import names and call them. Here a name becomes a `_Reference`, a call a
`_Recorded(name, arguments)`, a later state or element a note on that record; so reading imports nothing and calls
nothing, whatever the bytes say. Afterwards `settle` walks over the result: records whose name is in the table of
`rebuild` (tensors, arrays, ordered dictionaries, namespaces, …) become those values, every other one an inert `Opaque`.

The module stands in for `pickle` in `torch.load(…, pickle_module=restricted, weights_only=False)`: torch parses the
archive and finds the storages, we read its pickle. Python's own unpickler is the base, not the C one, because its
instructions can be replaced one by one, and because a hostile memo index makes the C one allocate gigabytes.
"""

import _compat_pickle
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

import torch

from leyden.core.errors import CorruptDataError, LeydenError, NotFoundError, StateError, StorageError
from leyden.fabric.checkpoint import rebuild
from leyden.fabric.checkpoint.opaque import Opaque

_PythonUnpickler: Any = pickle._Unpickler  # untyped: its stack and instruction table are not in the type stubs


class _Reference:
    """A name that a pickle would import."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Recorded:
    """A call that a pickle would make, and what it would do with the result."""

    __slots__ = ("args", "items", "kwargs", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        self.name, self.args, self.kwargs = name, args, dict(kwargs or {})
        self.state: Any = None
        self.items: list[Any] = []


class Unpickler(_PythonUnpickler):
    """Reads a pickle into records; `settle` makes values of them.

    Args:
        file: Open for reading bytes.
        fix_imports: Accepted as `pickle` does; names are always mapped to those of Python 3.
        encoding: How to decode byte strings of Python 2.
        errors: What to do where that fails.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: IO[bytes], *, fix_imports: bool = True, encoding: str = "ASCII", errors: str = "strict") -> None:
        super().__init__(file, fix_imports=fix_imports, encoding=encoding, errors=errors)
        self._references: dict[str, _Reference] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a reference to the name; it is not imported."""
        if (module, name) in _compat_pickle.NAME_MAPPING:
            module, name = _compat_pickle.NAME_MAPPING[module, name]
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        path = f"{module}.{name}"
        return self._references.setdefault(path, _Reference(path))

    def get_extension(self, code: int) -> None:
        """Refuse: extension codes stand for names in the reader's own process."""
        raise pickle.UnpicklingError(f"extension code {code} is not read")

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_record(klass, tuple(args)))

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _record(self.stack[-1], args)

    def _load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _record(self.stack[-1], args)

    def _load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self.stack[-1] = _record(self.stack[-1], args, kwargs)

    def _load_build(self) -> None:
        state = self.stack.pop()
        _expect(self.stack[-1], _Recorded, "a state is given to").state = state

    def _load_append(self) -> None:
        value = self.stack.pop()
        _extend(self.stack[-1], [value])

    def _load_appends(self) -> None:
        values = self.pop_mark()
        _extend(self.stack[-1], values)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [(key, value)])

    def _load_setitems(self) -> None:
        values = self.pop_mark()
        _set_items(self.stack[-1], list(zip(values[::2], values[1::2], strict=True)))

    def _load_additems(self) -> None:
        values = self.pop_mark()
        if type(self.stack[-1]) is set:
            self.stack[-1].update(values)
        else:
            _extend(self.stack[-1], values)

    def _load_binpersid(self) -> None:
        identity = self.stack.pop()
        if isinstance(identity, tuple):
            identity = tuple(_storage_class(part) for part in identity)
            if identity[:1] == ("module",):  # how torch 0.x stored a module together with its source
                self.append(identity[1] if len(identity) > 1 else None)
                return
        self.append(self.persistent_load(identity))

    dispatch |= {
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
        pickle.APPEND[0]: _load_append,
        pickle.APPENDS[0]: _load_appends,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.ADDITEMS[0]: _load_additems,
        pickle.BINPERSID[0]: _load_binpersid,
    }


def load(file: IO[bytes], *, encoding: str = "ASCII", errors: str = "strict", **_: Any) -> Any:
    """Read one pickle of a stream, as `pickle.load` does; the result still has to be settled.

    Args:
        file: Open for reading bytes.
        encoding: How to decode byte strings of Python 2.
        errors: What to do where that fails.
    """
    return Unpickler(file, encoding=encoding, errors=errors).load()


def read_pickle(data: bytes, where: str) -> Any:
    """Return the value of a pickle, with `Opaque` in place of everything that is no plain value.

    Args:
        data: The pickle.
        where: What to call it in errors.

    Raises:
        CorruptDataError: It is damaged, or no pickle.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"lr": 0.1, "clean": eval}), "example")
        {'lr': 0.1, 'clean': Opaque('builtins.eval')}
    """
    with _refusing(where):
        return settle(Unpickler(io.BytesIO(data), encoding="utf-8").load())


def read_torch(path: Path, *, is_mapped: bool = True) -> Any:
    """Return the content of a file that `torch.save` wrote, tensors on the CPU.

    Args:
        path: The file; it must not be overwritten in place while mapped tensors live.
        is_mapped: Whether tensors are mapped from the file, so that only what is used is read.

    Raises:
        NotFoundError: There is no such file.
        StorageError: It cannot be read.
        CorruptDataError: It is truncated, tampered with, or something else.
        StateError: The environment forbids torch's reader a pickle module.
    """
    is_archive = _is_archive(path)
    with _refusing(str(path)):
        if not is_archive:  # the format before torch 1.6
            return settle(_torch_load(io.BytesIO(path.read_bytes()), mmap=False))
        _check_archive(path)
        if is_mapped and path.suffix != ".safetensors":  # torch.load goes by that name, we by content
            return settle(_torch_load(path, mmap=True))
        with path.open("rb") as file:
            return settle(_torch_load(file, mmap=False))


def read_torch_bytes(data: bytes, where: str) -> Any:
    """Return the content of what `torch.save` wrote into memory; as `read_torch`.

    Args:
        data: The bytes.
        where: What to call them in errors.
    """
    with _refusing(where):
        if data[:4] == b"PK\x03\x04":
            _check_archive(io.BytesIO(data))
        return settle(_torch_load(io.BytesIO(data), mmap=False))


def _torch_load(file: Path | IO[bytes], *, mmap: bool) -> Any:
    # A stream without a file descriptor also keeps torch from trying its tar format of 2016, which unpacks links.
    return torch.load(file, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False, mmap=mmap)


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_archive(file: Path | io.BytesIO) -> None:
    """Refuse TorchScript: `torch.load` would hand it to `torch.jit.load`, which is not ours. The same parser, so no disguise helps."""
    reader = torch._C.PyTorchFileReader(str(file) if isinstance(file, Path) else file)
    if "constants.pkl" in reader.get_all_records():
        raise CorruptDataError("it is a TorchScript program, not a checkpoint; load it with torch.jit.load if you trust it")


def settle(raw: Any) -> Any:
    """Return the values that a raw result of `Unpickler` stands for.

    Args:
        raw: The result; it is used up.

    Raises:
        pickle.UnpicklingError: The record makes no sense, such as a tensor larger than its storage.
    """
    return _Settler().value(raw)


class _Settler:
    """Walks over a raw result once; shared and cyclic objects stay shared and cyclic."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._under_way: set[int] = set()

    def value(self, raw: Any) -> Any:
        kind = type(raw)
        if kind is _Reference:
            return rebuild.CONSTANTS[raw.name] if raw.name in rebuild.CONSTANTS else Opaque(raw.name)
        settle_one = _SETTLE.get(kind)
        if settle_one is None:
            return raw
        identity = id(raw)
        if identity in self._done:
            return self._done[identity]
        if identity in self._under_way:
            raise pickle.UnpicklingError(f"a {kind.__name__.strip('_')} is needed to make itself")
        self._under_way.add(identity)
        result = self._done[identity] = settle_one(self, raw)
        return result

    def _list(self, raw: list[Any]) -> list[Any]:
        self._done[id(raw)] = raw
        raw[:] = [self.value(item) for item in raw]
        return raw

    def _dict(self, raw: dict[Any, Any]) -> dict[Any, Any]:
        self._done[id(raw)] = raw
        settled = [(self.value(key), self.value(item)) for key, item in raw.items()]
        raw.clear()
        raw.update(settled)
        return raw

    def _tuple(self, raw: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self.value(item) for item in raw)

    def _set(self, raw: set[Any]) -> set[Any]:
        return {self.value(item) for item in raw}

    def _frozenset(self, raw: frozenset[Any]) -> frozenset[Any]:
        return frozenset(self.value(item) for item in raw)

    def _recorded(self, raw: _Recorded) -> Any:
        if raw.name in rebuild.CONTAINERS:
            container = rebuild.CONTAINERS[raw.name]
            made = self._done[id(raw)] = container.make(*self.value(raw.args))
            container.fill(made, self.value(raw.state), self.value(raw.items))
            return made
        if raw.name in rebuild.VALUES:
            made = rebuild.VALUES[raw.name](self.value(raw.args), self.value(raw.state))
            if made is not NotImplemented:
                return made
        opaque = self._done[id(raw)] = Opaque(raw.name)
        opaque.args, opaque.kwargs = self.value(raw.args), self.value(raw.kwargs)
        opaque.state, opaque.items = self.value(raw.state), self.value(raw.items)
        return opaque


_SETTLE: dict[type, Callable[[Any, Any], Any]] = {
    list: _Settler._list,
    dict: _Settler._dict,
    tuple: _Settler._tuple,
    set: _Settler._set,
    frozenset: _Settler._frozenset,
    _Recorded: _Settler._recorded,
}


class _refusing:  # noqa: N801 - reads as a statement: `with _refusing(where):`
    """Turns whatever a damaged or hostile pickle makes Python or torch raise into one error that names the file."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, LeydenError) and not isinstance(error, CorruptDataError):
            return
        if "pickle_module" in str(error):
            raise StateError(
                "TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, which forbids torch.load our reader. It never runs pickled code: unset the variable."
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CorruptDataError(f"{self._where} cannot be read: {reason}. It is damaged or no checkpoint; nothing in it was run.") from error


def _record(function: Any, args: Any, kwargs: Any = None) -> _Recorded:
    name = _expect(function, _Reference, "a call is made of").name
    _expect(args, tuple, "a call has as arguments")
    _expect(kwargs or {}, dict, "a call has as keywords")
    if name in ("copyreg._reconstructor", "copyreg.__newobj__") and args and type(args[0]) is _Reference:
        return _Recorded(args[0].name, args[1:] if name == "copyreg.__newobj__" else ())
    return _Recorded(name, args, kwargs)


def _extend(target: Any, values: list[Any]) -> None:
    if type(target) is list:
        target.extend(values)
    else:
        _expect(target, _Recorded, "elements are added to").items.extend(values)


def _set_items(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    if type(target) is dict:
        target.update(pairs)
    else:
        _expect(target, _Recorded, "items are set in").items.extend(pairs)


def _expect(value: Any, kind: type, doing: str) -> Any:
    if type(value) is not kind:
        raise pickle.UnpicklingError(f"{doing} a {type(value).__name__.strip('_')}")
    return value


def _storage_class(part: Any) -> Any:
    """Return torch's class for the one storage that its wrapper of `find_class` lets through to us."""
    is_untyped = type(part) is _Reference and part.name in ("torch.UntypedStorage", "torch.storage.UntypedStorage")
    return torch.UntypedStorage if is_untyped else part
