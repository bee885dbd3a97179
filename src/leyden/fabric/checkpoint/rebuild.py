"""What a record of the restricted unpickler may become: tensors, arrays, plain containers, paths; and `Opaque`.

Three tables by name. `CONSTANTS` are names that are values themselves (`torch.float32`). `VALUES` make a value of settled
arguments and state, or return `NotImplemented` to leave it opaque. `CONTAINERS` make an empty container first and fill
it later, so that it may contain itself. Every function here is our own: no function of the file's choice is called, and
arguments are checked as what they are, input from a stranger.
"""

import argparse
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.storage import TypedStorage

from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.checkpoint.opaque import Opaque


class Container(NamedTuple):
    """How to make an empty container of its arguments, and how to fill it with state and items."""

    make: Callable[..., Any]
    fill: Callable[[Any, Any, list[Any]], None]


# --- tensors


def tensor_of(storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Return a view of a storage.

    Args:
        storage: What torch found in the archive.
        offset: Index of the first element.
        size: The shape.
        stride: Elements to go on by, per axis.
        dtype: The element type; the storage's if absent.

    Raises:
        pickle.UnpicklingError: It does not lie inside the storage.
    """
    if type(storage) is not TypedStorage:
        raise pickle.UnpicklingError(f"a tensor has a {type(storage).__name__} as its storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor has offset {offset!r}, size {size!r} and stride {stride!r}")
    untyped, kind = storage._untyped_storage, dtype or storage.dtype
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * kind.itemsize > untyped.nbytes():
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} does not fit into its storage of {untyped.nbytes():,} bytes")
    return torch.empty(0, dtype=kind).set_(untyped, offset, tuple(size), tuple(stride))


def _tensor(args: tuple[Any, ...], state: Any) -> Tensor:
    """`_rebuild_tensor`, and `_v2` with requires_grad, hooks and conjugate or negative bits behind."""
    made = tensor_of(*args[:4])
    bits = args[6] if len(args) > 6 and isinstance(args[6], Mapping) else {}
    if bits.get("conj"):
        made = made.conj()
    if bits.get("neg"):
        made = torch._neg_view(made)
    return made.requires_grad_() if len(args) > 4 and args[4] is True and made.is_floating_point() else made


def _tensor_v3(args: tuple[Any, ...], state: Any) -> Any:
    if len(args) < 7 or not isinstance(args[6], torch.dtype):
        return NotImplemented
    return tensor_of(*args[:4], dtype=args[6])


def _first_tensor(args: tuple[Any, ...], state: Any) -> Any:
    """Parameters, and tensors of other devices that were stored through the CPU: the first argument is the data."""
    return args[0] if args and isinstance(args[0], Tensor) else NotImplemented


def _tensor_of_type(args: tuple[Any, ...], state: Any) -> Any:
    """`_rebuild_from_type_v2(function, type, args, state)`: plain tensors that carried Python attributes, which are dropped."""
    if len(args) < 3 or not isinstance(args[0], Opaque) or not isinstance(args[1], Opaque):
        return NotImplemented
    is_plain = args[1].name in ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
    builder = VALUES.get(args[0].name)
    if not is_plain or builder is None or builder is _tensor_of_type or not isinstance(args[2], tuple):
        return NotImplemented
    return builder(args[2], None)


def _sparse(args: tuple[Any, ...], state: Any) -> Any:
    if len(args) != 2 or not isinstance(args[1], tuple):
        return NotImplemented
    layout: Any = args[0]
    data: tuple[Any, ...] = args[1]
    if layout is torch.sparse_coo and 3 <= len(data) <= 4:  # a fourth value claims that it is coalesced: not believed
        return torch.sparse_coo_tensor(data[0], data[1], tuple(data[2]), check_invariants=True)
    if layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc) and len(data) == 4:
        return torch.sparse_compressed_tensor(data[0], data[1], data[2], tuple(data[3]), layout=layout, check_invariants=True)
    return NotImplemented


def _meta_tensor(args: tuple[Any, ...], state: Any) -> Any:
    return torch.empty_strided(tuple(args[1]), tuple(args[2]), dtype=args[0], device="meta") if len(args) == 4 else NotImplemented


def _layout(args: tuple[Any, ...], state: Any) -> Any:
    return CONSTANTS.get(f"torch.{str(args[0]).removeprefix('torch.')}", NotImplemented) if args else NotImplemented


# --- numpy: only what tensors and numbers need; records and dates stay opaque


def _numpy_dtype(args: tuple[Any, ...], state: Any) -> Any:
    import numpy as np  # at the first array: torch starts without it

    code = args[0] if args else None
    if not isinstance(code, str) or not re.fullmatch(r"[bifcuSUO?]\d{0,6}", code):
        return NotImplemented
    order = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=") else "="
    return np.dtype(code).newbyteorder(order)


def _numpy_array(args: tuple[Any, ...], state: Any) -> Any:
    import numpy as np  # at the first array: torch starts without it

    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], np.dtype):
        return NotImplemented
    _, shape, dtype, is_fortran, data = state
    flat = np.empty(len(data), dtype=object) if dtype.hasobject else np.frombuffer(data, dtype=dtype).copy()
    if dtype.hasobject:
        flat[:] = data
    return flat.reshape(shape, order="F" if is_fortran and not dtype.hasobject else "C")  # objects are listed in C order


def _numpy_from_buffer(args: tuple[Any, ...], state: Any) -> Any:
    import numpy as np  # at the first array: torch starts without it

    if len(args) != 4 or not isinstance(args[1], np.dtype) or args[1].hasobject:
        return NotImplemented
    return np.frombuffer(args[0], dtype=args[1]).copy().reshape(args[2], order="F" if args[3] == "F" else "C")


def _numpy_scalar(args: tuple[Any, ...], state: Any) -> Any:
    import numpy as np  # at the first array: torch starts without it

    if len(args) != 2 or not isinstance(args[0], np.dtype) or args[0].hasobject:
        return NotImplemented
    return np.frombuffer(args[1], dtype=args[0])[0]


# --- Python's own


def _encode(args: tuple[Any, ...], state: Any) -> Any:
    """Bytes, as protocol 2 writes them."""
    is_latin = len(args) == 2 and isinstance(args[0], str) and args[1] in ("latin1", "latin-1")
    return args[0].encode("latin-1") if is_latin else NotImplemented


def _bytearray(args: tuple[Any, ...], state: Any) -> Any:
    if args and isinstance(args[0], str):
        return bytearray(args[0].encode("latin-1"))
    return bytearray(args[0]) if args and isinstance(args[0], bytes) else (NotImplemented if args else bytearray())


def _set(args: tuple[Any, ...], state: Any) -> Any:
    return set(args[0]) if args and isinstance(args[0], (list, tuple)) else (NotImplemented if args else set())


def _frozenset(args: tuple[Any, ...], state: Any) -> Any:
    made = _set(args, state)
    return made if made is NotImplemented else frozenset(made)


def _complex(args: tuple[Any, ...], state: Any) -> Any:
    return complex(*args) if all(isinstance(arg, float) for arg in args) and len(args) == 2 else NotImplemented


def _path(kind: type[PurePosixPath] | type[PureWindowsPath]) -> Callable[[tuple[Any, ...], Any], Any]:
    return lambda args, state: str(kind(*args)) if all(isinstance(arg, str) for arg in args) else NotImplemented


def _size(args: tuple[Any, ...], state: Any) -> Any:
    return torch.Size(args[0]) if args and all(type(length) is int for length in args[0]) else (NotImplemented if args else torch.Size())


def _device(args: tuple[Any, ...], state: Any) -> Any:
    is_device = bool(args) and isinstance(args[0], str) and all(type(index) is int for index in args[1:2])
    return torch.device(*args[:2]) if is_device else NotImplemented


def _default_dict(*args: Any) -> Any:
    factory = _FACTORIES.get(args[0].name) if args and isinstance(args[0], Opaque) else None
    return defaultdict(factory)


def _ordered_dict(*args: Any) -> Any:
    return OrderedDict(args[0]) if args and isinstance(args[0], (list, Mapping)) else OrderedDict()


def _fill_dict(made: Any, state: Any, items: list[Any]) -> None:
    made.update(items)
    if isinstance(state, Mapping) and isinstance(made, OrderedDict) and "_metadata" in state:
        made._metadata = state["_metadata"]  # type: ignore[attr-defined]  # versions of modules, which load_state_dict reads


def _fill_namespace(made: Any, state: Any, items: list[Any]) -> None:
    if isinstance(state, Mapping):
        vars(made).update((name, value) for name, value in state.items() if isinstance(name, str))


_FACTORIES: dict[str, Callable[[], Any]] = {f"builtins.{kind.__name__}": kind for kind in (dict, list, set, int, float, str, tuple, bool)}
CONSTANTS: dict[str, Any] = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, (torch.dtype, torch.layout, torch.memory_format))
}
_POSIX, _WINDOWS = _path(PurePosixPath), _path(PureWindowsPath)
VALUES: dict[str, Callable[[tuple[Any, ...], Any], Any]] = (
    {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_v3,
        "torch._utils._rebuild_parameter": _first_tensor,
        "torch._utils._rebuild_parameter_with_state": _first_tensor,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first_tensor,
        "torch._utils._rebuild_sparse_tensor": _sparse,
        "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
        "torch._tensor._rebuild_from_type_v2": _tensor_of_type,
        "torch.serialization._get_layout": _layout,
        "torch.Size": _size,
        "torch.device": _device,
        "_codecs.encode": _encode,
        "builtins.bytearray": _bytearray,
        "builtins.set": _set,
        "builtins.frozenset": _frozenset,
        "builtins.complex": _complex,
        "numpy.dtype": _numpy_dtype,
    }
    | {
        f"{package}.{name}": function
        for package in ("numpy.core", "numpy._core")
        for name, function in (
            ("multiarray._reconstruct", _numpy_array),
            ("multiarray.scalar", _numpy_scalar),
            ("numeric._frombuffer", _numpy_from_buffer),
        )
    }
    | {
        f"{module}.{name}": function
        for module in ("pathlib", "pathlib._local")
        for name, function in (
            ("PosixPath", _POSIX),
            ("PurePosixPath", _POSIX),
            ("Path", _POSIX),
            ("WindowsPath", _WINDOWS),
            ("PureWindowsPath", _WINDOWS),
        )
    }
)
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data",
    "lightning.pytorch.utilities.parsing",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
    "leyden.fabric.attribute_dict",
)
CONTAINERS: dict[str, Container] = {
    "collections.OrderedDict": Container(_ordered_dict, _fill_dict),
    "collections.defaultdict": Container(_default_dict, _fill_dict),
    "argparse.Namespace": Container(argparse.Namespace, _fill_namespace),
    "types.SimpleNamespace": Container(SimpleNamespace, _fill_namespace),
} | {f"{module}.AttributeDict": Container(AttributeDict, _fill_dict) for module in _ATTRIBUTE_DICTS}
