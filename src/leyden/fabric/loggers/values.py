"""What may be logged as a number, and how it is read: at once on the CPU, later and elsewhere on an accelerator."""

from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from leyden.core.errors import ConfigError, ConfigTypeError

_STREAMED = ("cuda", "xpu")  # devices on which another thread must wait for the stream that made the value


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metrics` with every one-element tensor or array as a Python number; other values stay as they are.

    Raises:
        ConfigError: A tensor has several elements.

    Example:
        >>> as_numbers({"loss": torch.tensor([0.5]), "note": "warm-up"})
        {'loss': 0.5, 'note': 'warm-up'}
    """
    return {name: value if type(value) in (float, int) else as_number(name, value) for name, value in metrics.items()}


def as_number(name: str, value: Any) -> Any:
    """Return a one-element tensor or array as a Python number, and anything else as it is.

    Raises:
        ConfigError: It has several elements.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ConfigError(_several(name, tuple(value.shape)))
        return value.item()
    if isinstance(shape := getattr(value, "shape", None), tuple) and callable(item := getattr(value, "item", None)):  # numpy
        if any(size != 1 for size in shape):
            raise ConfigError(_several(name, shape))
        return item()
    return value


def readable(name: str, value: Any) -> Any:
    """Return `value` as a number where that costs nothing, else as a callable that another thread may resolve later.

    Raises:
        ConfigError: A tensor or array has several elements.
    """
    if isinstance(value, Tensor) and value.device.type != "cpu" and value.numel() == 1:
        return Snapshot(value)
    return as_number(name, value)


def resolve(name: str, value: Any) -> Any:
    """Return the number that a `Snapshot` or a function stands for; anything else as it is."""
    return as_number(name, value()) if isinstance(value, (Snapshot, FunctionType, MethodType, partial)) else value


def number_or_refuse(name: str, value: Any) -> float | int:
    """Return `value` if it is a number.

    Raises:
        ConfigTypeError: It is anything else.
    """
    if isinstance(value, (int, float)):  # bool is an int
        return value
    raise ConfigTypeError(
        f"metric {name!r} is {value!r}, a {type(value).__name__}, which is currently not supported here. "
        "Log a number or a tensor of one element; for text use `experiment.add_text`."
    )


class Snapshot:
    """A clone of a tensor, so that its owner may overwrite it; calling it, in any thread, returns the clone on the CPU."""

    __slots__ = ("_stream", "_value")

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().clone()
        # Another thread's copy to the CPU would wait for that thread's stream only.
        self._stream: Any = torch.accelerator.current_stream(value.device) if value.device.type in _STREAMED else None

    def __call__(self) -> Tensor:
        if self._stream is not None:
            self._stream.synchronize()
        return self._value.cpu()


def _several(name: str, shape: tuple[int, ...]) -> str:
    return f"metric {name!r} of shape {shape} cannot be converted to a scalar. Reduce it first, for example: {name}.mean()."
