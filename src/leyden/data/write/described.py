"""What names a user's function, so that a job that does something else is another job: its text, and all that it depends on.

The same function has the same description in every process: sets are sorted, addresses in memory do not matter. What cannot be
seen are the functions that it calls in turn, what it reads from files, and globals that it sets. Modules, and classes that it merely
holds, are named; objects are what pickle would keep of them.
"""

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterable
from typing import Any, final

import numpy as np

from leyden.data.format import canonical
from leyden.data.format.hashing import digest128

_SIMPLE = (type(None), bool, int, float, complex, str, bytes)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_PROTOCOL = 4  # of pickle, from which on every object is asked for its state


def describe(function: Any) -> dict[str, Any]:
    """Return what names a function: module, qualified name, and digests of its text and of all that it holds.

    Example:
        >>> def times(factor):
        ...     return lambda x: x * factor
        >>> describe(times(2)) == describe(times(2)), describe(times(2)) == describe(times(3))
        (True, False)
    """
    return _Describer().function(function)


def digest_of(value: Any) -> str:
    """Return the digest of a value: equal in every process for values that are alike.

    Example:
        >>> digest_of({"b", "a"}) == digest_of({"a", "b"}), digest_of([1]) == digest_of((1,))
        (True, False)
    """
    return _Describer().digest(value)


@final
class _Describer:
    """Makes a digest of each value; one that holds itself is named by how far outside it began, so that cycles end."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # by identity: how deep each value lies that is being described
        self._done: dict[int, tuple[str, Any]] = {}  # by identity; the value is kept, so that nothing else gets its place

    def function(self, function: Any) -> dict[str, Any]:
        if isinstance(function, functools.partial):
            return {**self.function(function.func), "partial": self.digest((function.args, sorted(function.keywords.items())))}
        plain = getattr(function, "__func__", function)
        named = plain if hasattr(plain, "__qualname__") else type(plain)
        return {
            "module": named.__module__,
            "qualname": named.__qualname__,
            "source": _source_digest(named),
            "closure": self.digest(_state_of(function, plain)),
        }

    def digest(self, value: Any) -> str:
        if isinstance(value, _SIMPLE):
            return _digest([type(value).__qualname__, repr(value)])
        known = self._done.get(id(value))
        if known is not None:
            return known[0]
        if id(value) in self._open:
            return _digest(["outside", len(self._open) - self._open[id(value)]])
        self._open[id(value)] = len(self._open)
        try:
            found = _digest(self._parts(value))
        finally:
            del self._open[id(value)]
        self._done[id(value)] = found, value
        return found

    def _parts(self, value: Any) -> list[Any]:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, type | types.ModuleType):
            return [name, getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
        if isinstance(value, _FUNCTIONS):
            return [name, self.function(value)]
        if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            return [name, str(value.dtype), list(value.shape), digest128(np.ascontiguousarray(value).tobytes())]
        inner = map(self.digest, _inner(value))
        return [name, *(sorted(inner) if kind in {set, frozenset} else inner)]


def _inner(value: Any) -> Iterable[Any]:
    kind = type(value)
    if kind is dict:
        return (part for item in value.items() for part in item)
    return value if kind in {list, tuple, set, frozenset} else _reduced(value)


def _reduced(value: Any) -> Iterable[Any]:
    """Return what pickle would keep of an object; of one that cannot be pickled its attributes, and else nothing."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        plain = value.detach().cpu().contiguous()  # pickle would name its storage by the address
        return str(plain.dtype), tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else None
    if isinstance(value, bytearray | memoryview):
        return (bytes(value),)
    try:
        reduced = value.__reduce_ex__(_PROTOCOL)
    except Exception:  # noqa: BLE001 - it runs any code
        return (getattr(value, "__dict__", None),)
    if isinstance(reduced, str):
        return (reduced,)
    function, arguments, *state = reduced
    return function, arguments, *(list(part) if hasattr(part, "__next__") else part for part in state)


def _state_of(function: Any, plain: Any) -> Any:
    """Return what a function's answers depend on beside its text: what it closes over, defaults, globals, its object."""
    if not hasattr(plain, "__qualname__"):
        return plain  # an object that can be called
    cells = tuple(cell.cell_contents for cell in getattr(plain, "__closure__", None) or () if _is_filled(cell))
    defaults = getattr(plain, "__defaults__", None), getattr(plain, "__kwdefaults__", None)
    owner = getattr(function, "__self__", None)
    text = None if owner is None or isinstance(owner, types.ModuleType | type) else _source_digest(type(owner))
    state = cells, defaults, owner, text, _globals_of(plain)
    return (*state, _code_digest(plain.__code__)) if _shares_its_text(plain) else state


def _shares_its_text(function: Any) -> bool:
    """Return whether the text of a lambda is that of another one too: it is all lines that they stand on."""
    if getattr(function, "__name__", "") != "<lambda>":
        return False
    try:
        return inspect.getsource(function).count("lambda") > 1
    except (OSError, TypeError):
        return False  # its code is its text


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises
    except ValueError:
        return False
    return True


def _globals_of(function: Any) -> list[tuple[str, Any]]:
    """Return the plain values among the globals that a function names, but for those that it sets: a counter makes no other job."""
    code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    names = sorted(_names_in(code)) if isinstance(code, types.CodeType) else []
    return [(name, scope[name]) for name in names if name in scope and not name.startswith("__") and isinstance(scope[name], _SIMPLE)]


def _names_in(code: types.CodeType) -> set[str]:
    inner = [_names_in(const) for const in code.co_consts if isinstance(const, types.CodeType)]
    changed = {step.argval for step in dis.get_instructions(code) if step.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}}
    return set(code.co_names).union(*inner) - changed


def _source_digest(named: Any) -> str:
    try:
        return digest128(inspect.getsource(named).encode())
    except (OSError, TypeError):
        inner = vars(named).values() if isinstance(named, type) else [named]
        codes = [each.__code__ for each in inner if isinstance(getattr(each, "__code__", None), types.CodeType)]
        return digest128(b"\0".join(map(_code_bytes, codes)))


def _code_digest(code: types.CodeType) -> str:
    return digest128(_code_bytes(code))


def _code_bytes(code: types.CodeType) -> bytes:
    """Return what code does: its instructions, and the constants and names that they use."""
    constants = [_code_bytes(const) if isinstance(const, types.CodeType) else digest_of(const).encode() for const in code.co_consts]
    return b"\0".join([code.co_code, " ".join(code.co_names).encode(), *constants])


def _digest(parts: list[Any]) -> str:
    return digest128(canonical.dumps(parts))
