"""The errors of Leyden: one tree, each with a stable code.

```
LeydenError
├── ConfigError (ValueError)                    what you passed cannot be right
│   ├── ConfigTypeError (TypeError)             … because it is of the wrong type
│   ├── UnavailableError (RuntimeError)         … because this machine lacks it
│   └── UnsupportedError (NotImplementedError)  … because these two do not go together
├── NotFoundError (LookupError)                 nothing of that name is there
│   └── CheckpointKeyError (KeyError)           the checkpoint lacks a requested key
├── ConflictError                               somebody else changed or holds it
├── StateError (RuntimeError)                   right call, wrong moment
├── MissingDependencyError (ModuleNotFoundError)
├── StorageError (OSError)                      disk, network or permission
│   └── CorruptDataError                        bytes are there, but damaged
└── RemoteError (RuntimeError)                  another process failed; carries its traceback
    └── RankFailedError                         a rank of this run failed
```

A message says what was given, what is accepted, and the fix as code. `code` never changes: HTTP bodies, pages and the
error index of the docs use it. Libraries raise and never print; only `cli` and the HTTP layers translate.
"""

import difflib
from collections.abc import Iterable


class LeydenError(Exception):
    """Anything Leyden raises on purpose. Catch this to catch them all.

    Example:
        >>> issubclass(ConfigError, LeydenError) and issubclass(ConfigError, ValueError)
        True
    """

    code = "leyden.error"

    def __str__(self) -> str:
        # KeyError, one of our bases, would show repr() of the message; ImportError would show its `msg` only.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigError(LeydenError, ValueError):
    """An argument, setting or file has a value that cannot be right."""

    code = "config.invalid"


class ConfigTypeError(ConfigError, TypeError):
    """An argument is of the wrong type."""

    code = "config.type"


class UnavailableError(ConfigError, RuntimeError):
    """A device, port or program that this machine lacks was asked for."""

    code = "config.unavailable"


class UnsupportedError(ConfigError, NotImplementedError):
    """Two settings, each fine alone, do not go together."""

    code = "config.unsupported"


class NotFoundError(LeydenError, LookupError):
    """Nothing of that name or at that path exists."""

    code = "not_found"


class CheckpointKeyError(NotFoundError, KeyError):
    """A key was requested from a checkpoint that does not hold it."""

    code = "checkpoint.key"


class ConflictError(LeydenError):
    """Somebody else changed, holds or already made what was asked for."""

    code = "conflict"


class StateError(LeydenError, RuntimeError):
    """The call is right, but not at this moment."""

    code = "state.invalid"


class MissingDependencyError(LeydenError, ModuleNotFoundError):
    """An optional package is not installed; the message holds the command that adds it."""

    code = "dependency.missing"


class StorageError(LeydenError, OSError):
    """A disk, a network or a permission stood in the way of reading or writing."""

    code = "storage.failed"


class CorruptDataError(StorageError):
    """The bytes are there but damaged: truncated, of another length, or of another checksum."""

    code = "storage.corrupt"


class RemoteError(LeydenError, RuntimeError):
    """Another process failed.

    Args:
        message: What failed, and where.
        remote_traceback: The other process's traceback as text; empty if it left none.
    """

    code = "remote.failed"

    def __init__(self, message: str, remote_traceback: str = "") -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.args[0], self.remote_traceback), self.__dict__)  # the state carries what subclasses add


class RankFailedError(RemoteError):
    """A rank of this run raised, exited or was killed.

    Args:
        message: What failed, and where.
        remote_traceback: The rank's traceback as text; empty if it left none.
        rank: The global rank that failed first.
        exit_code: The exit status this process should end with (128 + n for signal n).
    """

    code = "remote.rank_failed"

    def __init__(self, message: str, remote_traceback: str = "", *, rank: int | None = None, exit_code: int = 1) -> None:
        super().__init__(message, remote_traceback)
        self.rank = rank
        self.exit_code = exit_code


def closest(name: str, options: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the option most like `name`, or an empty string.

    Example:
        >>> closest("fdsp", ["ddp", "fsdp", "deepspeed"])
        " Did you mean 'fsdp'?"
    """
    spelt = {str(option).lower(): str(option) for option in options}
    matches = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.5)
    return f" Did you mean {spelt[matches[0]]!r}?" if matches else ""


def listed(options: Iterable[object]) -> str:
    """Return the options as a person would write them: `'a', 'b', 'c'`.

    Example:
        >>> listed(["a", "b"])
        "'a', 'b'"
    """
    return ", ".join(repr(option) for option in options)
