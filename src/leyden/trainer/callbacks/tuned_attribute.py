"""Where a value that a finder tunes is kept: an attribute of the module or data module, or an entry of their hyper-parameters."""

from typing import Any

from leyden.core.errors import ConfigError


class MissingFieldError(ConfigError, AttributeError):
    """Nobody has the attribute that a finder is to set."""


def holders(name: str, module: Any, datamodule: Any = None) -> list[Any]:
    """Return everything that keeps a value under `name`: mappings of hyper-parameters, and objects with such an attribute."""
    found: list[Any] = []
    for owner in (module, datamodule):
        if owner is None:
            continue
        if hasattr(owner, name):
            found.append(owner)
        hparams = getattr(owner, "hparams", None)
        if hparams is not None and name in hparams:
            found.append(hparams)
    return found


def get(holder: Any, name: str) -> Any:
    """Return the value that a holder keeps."""
    return holder[name] if isinstance(holder, dict) else getattr(holder, name)


def put(name: str, value: Any, module: Any, datamodule: Any = None) -> None:
    """Set the value wherever it is kept."""
    for holder in holders(name, module, datamodule):
        put_into(holder, name, value)


def put_into(holder: Any, name: str, value: Any) -> None:
    """Set the value that one holder keeps."""
    if isinstance(holder, dict):
        holder[name] = value
    else:
        setattr(holder, name, value)
