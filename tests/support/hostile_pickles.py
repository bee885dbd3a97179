"""Pickles that would run code, and a watch that notices if anything of them was imported or called."""

import builtins
import codecs
import contextlib
import importlib
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

MODULE = "hostile_canary"  # in sys.modules while watched, so a careless reader finds it
ABSENT = "hostile_absent"  # not importable: a reader that tries is noticed by the attempt


class Ran(BaseException):
    """Something of the pickle was imported or called; no `except Exception` hides it."""


@contextlib.contextmanager
def nothing_runs() -> Iterator[None]:
    """Raise `Ran` if the block imports a module anew, calls the canary, or reaches `os.system` or `eval`."""
    codecs.lookup("raw_unicode_escape")  # pickle's own codec, imported at its first use
    canary = types.ModuleType(MODULE)
    canary.fire = _ran("the canary")  # type: ignore[attr-defined]
    canary.Bomb = _bomb()  # type: ignore[attr-defined]
    original = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        is_relative = bool((args[3] if len(args) > 3 else kwargs.get("level", 0)) or not name)  # code importing its siblings
        is_known = name in sys.modules or name.partition(".")[0] in ("torch", "numpy")  # whose functions import late
        if not (is_known or is_relative) or name in (MODULE, ABSENT):
            raise Ran(f"import of {name}")
        return original(name, *args, **kwargs)

    original_exec = builtins.exec

    def execute(*args: Any, **kwargs: Any) -> None:
        if not sys._getframe(1).f_globals["__name__"].startswith("importlib."):  # which executes torch's late imports
            raise Ran(f"exec was called with {args!r}")
        original_exec(*args, **kwargs)

    replaced: list[tuple[Any, str, Any]] = [
        (builtins, "__import__", guarded),
        (builtins, "eval", _ran("eval")),
        (builtins, "exec", execute),
        (os, "system", _ran("os.system")),
        (sys.modules.get("posix", os), "system", _ran("posix.system")),  # by its own name, as it is pickled
        (importlib, "import_module", _ran("import_module")),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    sys.modules[MODULE] = canary
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)
        del sys.modules[MODULE]


def _ran(what: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Ran(f"{what} was called with {args!r}")

    return refuse


def _bomb() -> type:
    hooks = (
        "__new__",
        "__init__",
        "__setstate__",
        "__setitem__",
        "append",
        "extend",
        "add",
        "__call__",
        "__del__",
        "__getattr__",
        "__reduce__",
    )
    return type("Bomb", (), {name: _ran(f"Bomb.{name}") for name in hooks if name != "__del__"})


class Call:
    """Pickles as a call of `function(*args)`, whatever that is here."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def global_(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


NAMES = [
    (MODULE, "fire"),
    (MODULE, "Bomb"),
    (ABSENT, "anything"),
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("importlib", "import_module"),
    ("copyreg", "_reconstructor"),
    ("copyreg", "__newobj__"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("argparse", "Namespace"),
    ("pathlib", "PosixPath"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("torch", "load"),
    ("torch", "float32"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_sparse_tensor"),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.storage", "_load_from_bytes"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
]

_values = st.one_of(
    st.just(pickle.NONE),
    st.just(pickle.NEWTRUE),
    st.just(pickle.EMPTY_TUPLE),
    st.just(pickle.EMPTY_LIST),
    st.just(pickle.EMPTY_DICT),
    st.just(pickle.EMPTY_SET),
    st.integers(0, 255).map(lambda n: pickle.BININT1 + bytes([n])),
    st.sampled_from(["echo hostile", "__class__", "f8", "latin1", "cpu", "__setstate__", ""]).map(text),
    st.sampled_from([b"", b"abc"]).map(lambda data: pickle.SHORT_BINBYTES + bytes([len(data)]) + data),
    st.sampled_from(NAMES).map(lambda name: global_(*name)),
)
_actions = st.one_of(
    st.sampled_from(
        [
            pickle.REDUCE,
            pickle.BUILD,
            pickle.NEWOBJ,
            pickle.NEWOBJ_EX,
            pickle.OBJ,
            pickle.MARK,
            pickle.TUPLE,
            pickle.TUPLE1,
            pickle.TUPLE2,
            pickle.TUPLE3,
            pickle.LIST,
            pickle.DICT,
            pickle.APPEND,
            pickle.APPENDS,
            pickle.SETITEM,
            pickle.SETITEMS,
            pickle.ADDITEMS,
            pickle.FROZENSET,
            pickle.DUP,
            pickle.POP,
            pickle.POP_MARK,
            pickle.MEMOIZE,
            pickle.BINPERSID,
            pickle.STACK_GLOBAL,
            pickle.INST + b"os\nsystem\n",
            pickle.INST + f"{MODULE}\nBomb\n".encode(),
            pickle.EXT1 + b"\x01",
            pickle.BINPUT + b"\x00",
            pickle.BINGET + b"\x00",
        ]
    )
)
programs = st.lists(st.one_of(_values, _actions), min_size=1, max_size=25).map(lambda parts: b"\x80\x04" + b"".join(parts) + pickle.STOP)
"""Any sequence of instructions, sensible or not."""

calls = st.lists(st.tuples(st.sampled_from(NAMES), st.lists(_values, max_size=3), st.booleans()), min_size=1, max_size=4).map(
    lambda parts: (
        b"\x80\x04]("
        + b"".join(
            global_(*name) + b"(" + b"".join(args) + pickle.TUPLE + pickle.REDUCE + (pickle.EMPTY_DICT + pickle.BUILD if has_state else b"")
            for name, args, has_state in parts
        )
        + pickle.APPENDS
        + pickle.STOP
    )
)
"""A list of calls with a few arguments, some with a state behind: always a valid pickle."""
