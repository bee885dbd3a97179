"""Where an encoded leaf comes from: bytes in memory, or a file, read whole and stored as it is."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, NotFoundError


def stored_bytes(owner: str, path: str | os.PathLike[str] | None, data: Any) -> bytes | None:
    """Return what is stored as it is: `data` if given, else the file's content, else `None`.

    Args:
        owner: The wrapper's name, for messages.
        path: A local file.
        data: Anything with a buffer.

    Raises:
        NotFoundError: There is no such file.
    """
    if data is not None:
        return bytes(data)
    if path is None:
        return None
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a `Path` per file costs as much as reading it
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(f"{owner}(path={str(path)!r}): there is no such file. Pass the path of a local file, or bytes=….") from error


def as_array(values: Any) -> NDArray[Any]:
    """Return a numpy array of an array, a torch tensor (moved to the CPU) or nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def given(owner: str, **alternatives: Any) -> None:
    """Refuse a wrapper for which none or several of `alternatives` were given.

    Raises:
        ConfigError: None or several of them are not `None`, or an array hides some of its values.
    """
    if isinstance(alternatives.get("array"), np.ma.MaskedArray):
        raise ConfigError(f"{owner}(array=…) is a masked array, whose mask would be lost. Pass array.filled(…), or store array.mask too.")
    names = [name for name, value in alternatives.items() if value is not None]
    if len(names) != 1 and set(names) != {"path", "bytes"}:  # a path beside bytes is where they came from
        options = ", ".join(f"{name}=…" for name in alternatives)
        raise ConfigError(f"{owner}: {', '.join(names) or 'nothing'} given. Pass exactly one of {options}.")
