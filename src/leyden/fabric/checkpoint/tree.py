"""What a checkpoint may hold: plain values that a reader can load without running code.

`storable(value, path)` returns the value as it will be stored, or raises and names the place, such as
`state['hparams'].optimizer`. Nothing here touches a disk, so a save fails before its first byte.

| kept as they are | converted | everything else |
|---|---|---|
| tensors, numbers, `str`, `bytes`, `None`, `dict` (str or int keys), `list`, `tuple`, `set`, `torch.Size/dtype/device` | numpy scalars and arrays, `Path` → `str`, subclasses of `dict`, `str` and numbers → their base, objects with `state_dict` | `ConfigError` |
"""  # noqa: E501 - a table row

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError

Path = tuple[str | int, ...]
_NUMBERS = (bool, int, float, complex)
_FINAL = (type(None), bytes, torch.Size, torch.dtype, torch.device)


def storable(value: Any, path: str = "state", *, tensor: Callable[[Tensor], Any] | None = None) -> Any:
    """Return `value` in the form a checkpoint stores, containers copied, tensors detached but not copied.

    Args:
        value: Anything the table above allows.
        path: How the value is reached, for the error.
        tensor: What to make of each tensor, instead of detaching it.

    Raises:
        ConfigError: A value that a checkpoint cannot hold; a container inside itself; a key that is no str or int.

    Example:
        >>> from pathlib import Path
        >>> storable({"lr": 0.1, "root": Path("data"), "sizes": (1, 2)})
        {'lr': 0.1, 'root': 'data', 'sizes': (1, 2)}
    """
    return _convert(value, path, tensor or _detached, ())


def _convert(value: Any, path: str, tensor: Callable[[Tensor], Any], above: tuple[int, ...]) -> Any:  # noqa: PLR0911 - a table of kinds
    if isinstance(value, Tensor):
        return tensor(value)
    if isinstance(value, _FINAL):
        return value if value != b"" else _refuse_empty_bytes(path)
    if isinstance(value, (*_NUMBERS, str)):
        return _plain_scalar(value)
    if id(value) in above:
        raise ConfigError(f"{path} contains itself; a checkpoint stores trees. Store the inner object once, under a key of its own.")
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return {_key(key, path): _convert(item, _item_path(path, key), tensor, inside) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_convert(item, f"{path}[{index}]", tensor, inside) for index, item in enumerate(value))
    if type(value) is set:
        return {_convert(item, f"{path}{{…}}", tensor, inside) for item in value}
    return _convert_object(value, path, tensor, inside)


def _convert_object(value: Any, path: str, tensor: Callable[[Tensor], Any], above: tuple[int, ...]) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    numpy = sys.modules.get("numpy")  # its values cannot exist before it is imported
    if numpy is not None and isinstance(value, numpy.generic):
        return _convert(value.item(), path, tensor, (*above, id(value))) if value.dtype != object else _refuse(value, path)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _from_array(value, path, tensor)
    if callable(getattr(value, "state_dict", None)) and not isinstance(value, type):
        return _convert(value.state_dict(), path, tensor, above)
    return _refuse(value, path)


def _plain_scalar(value: Any) -> Any:
    """Return numbers and strings as their base type: `StrEnum`, `np.float64` and `IntEnum` pickle as classes otherwise."""
    base = next(kind for kind in (*_NUMBERS, str) if isinstance(value, kind))
    return value if type(value) is base else base(value.value if hasattr(value, "_value_") else value)


def _from_array(array: Any, path: str, tensor: Callable[[Tensor], Any]) -> Any:
    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=True)
        return tensor(torch.from_numpy(native))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is a numpy array of dtype {array.dtype}, which no tensor holds; store path.tolist() or numbers instead."
        ) from error


def _detached(value: Tensor) -> Tensor:
    return value.detach()


def _key(key: Any, path: str) -> str | int:
    if type(key) in (str, int):
        return key
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(key, numpy.integer):
        return int(key)
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        plain: str | int = _plain_scalar(key)
        return plain
    raise ConfigError(f"{path} has the key {key!r} of type {type(key).__name__}; keys are str or int. Use str(key), or a list of pairs.")


def _item_path(path: str, key: Any) -> str:
    return f"{path}[{key!r}]"


def _refuse_empty_bytes(path: str) -> Any:
    # Protocol 2 pickles b"" as a call of `bytes`, which torch's safe reader does not know (found by hypothesis).
    raise ConfigError(f"{path} is an empty bytes object, which torch.load(weights_only=True) cannot read; store None or '' instead.")


def _refuse(value: Any, path: str) -> Any:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ not in ("builtins", "__main__") else kind.__qualname__
    if isinstance(value, functools.partial):
        name = "functools.partial"
    place, inner = path, _first_refused_attribute(value)
    if inner is not None:  # an object that holds values: name the attribute, since that is what the user looks for
        place, name = f"{path}.{inner[0]}", inner[1]
    article = "an" if name[0].lower() in "aeiou" else "a"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        raise ConfigError(f"{path} is {article} {name} (a named tuple); store x._asdict() or tuple(x)")
    raise ConfigError(f"{place} is {article} {name}; give it state_dict()/load_state_dict() or store vars(x)")


def _first_refused_attribute(value: Any) -> tuple[str, str] | None:
    """Return name and type of the first attribute of a namespace-like object that could not be stored either."""
    if callable(value) or not hasattr(value, "__dict__"):
        return None
    for name, item in vars(value).items():
        try:
            storable(item)
        except ConfigError:
            kind = type(item)
            prefix = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
            return name, f"{prefix}{kind.__qualname__}"
        except RecursionError:
            return None
    return None


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """Yield every tensor of a stored tree."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_of(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_of(item)


def mapped(tree: Any, function: Callable[[Tensor, Path], Any], path: Path = ()) -> Any:
    """Return a stored tree with `function(tensor, path)` in place of each tensor."""
    if isinstance(tree, Tensor):
        return function(tree, path)
    if isinstance(tree, dict):
        return {key: mapped(item, function, (*path, key)) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(mapped(item, function, (*path, index)) for index, item in enumerate(tree))
    return tree


def memory_key(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return what two tensors that are the same memory seen the same way share; `None` for unusual and empty tensors."""
    if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.is_quantized or not tensor.numel():
        return None
    view = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), *view)


def plain_name(name: str) -> str:
    """Return a parameter's name without the marks of wrappers: `torch.compile` and activation checkpointing.

    Example:
        >>> plain_name("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
        'layers.0.weight'
    """
    if "_orig_mod." not in name and "_checkpoint_wrapped_module." not in name:
        return name
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "_checkpoint_wrapped_module"))
