"""Inputs as bytes: what is journaled, hashed and sent to workers. Equal tensors give equal bytes, and no more than their own.

Pickle would write the whole storage that a tensor is a view of, under a name that is its address.
"""

import io
import pickle
import sys
from collections.abc import Sequence
from typing import Any, Final, final, overload

from leyden.core.errors import ConfigError

INPUTS_PER_GROUP: Final = 512


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")
        if torch is None or type(obj) is not torch.Tensor or obj.layout is not torch.strided or obj.is_quantized:
            return NotImplemented
        plain = obj.detach().cpu().contiguous()
        return _tensor, (str(plain.dtype).removeprefix("torch."), tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes())


def _tensor(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    import torch

    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return flat.view(getattr(torch, dtype)).reshape(shape)


def dumps(value: Any) -> bytes:
    """Return a value as bytes."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


@final
class PackedInputs(Sequence[Any]):
    """A few inputs, unpacked where they are first looked at: a driver sends on what it has not unpacked.

    Args:
        data: From `packed`.

    Example:
        >>> PackedInputs(packed([1, 2, 3], 0))[1:]
        [2, 3]
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._found: list[Any] | None = None

    def __reduce__(self) -> Any:
        return PackedInputs, (self._data,)

    def __len__(self) -> int:
        return len(self._inputs())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._inputs()[index]

    def _inputs(self) -> list[Any]:
        if self._found is None:
            self._found = pickle.loads(self._data)  # noqa: S301 - from our own job
        return self._found


def packed(inputs: Sequence[Any], first: int) -> bytes:
    """Return inputs as bytes.

    Args:
        inputs: A few.
        first: The number of the first one, for messages.

    Raises:
        ConfigError: One cannot be pickled.
    """
    try:
        return dumps(list(inputs))
    except Exception as error:
        text = f"one of the inputs from {first:,} on cannot be pickled ({error}). Pass paths or numbers, and open them in fn."
        raise ConfigError(text) from error
