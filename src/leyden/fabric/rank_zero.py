"""What only rank 0 does: calls, log records and warnings that N processes must not repeat N times.

`rank_zero_only.rank` is this process's global rank. The strategy sets it when it joins a group; before that it is read
once from the variables that launchers set. The functions take `stacklevel` as Lightning counts it (the default points at
the line that calls them), so calls that pass it mean the same here.
"""

import functools
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from leyden.core import settings

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
_logger = logging.getLogger(__name__)


class RankZeroOnly:
    """The decorator `rank_zero_only`, which also holds this process's rank."""

    def __init__(self) -> None:
        self._rank: int | None = None

    @property
    def rank(self) -> int:
        """This process's global rank; set `None` to have it read from the environment again."""
        if self._rank is None:
            self._rank = rank_from(settings.environment())
        return self._rank

    @rank.setter
    def rank(self, rank: int | None) -> None:
        self._rank = rank

    @overload
    def __call__(self, fn: Callable[P, T], default: None = None) -> Callable[P, T | None]: ...
    @overload
    def __call__(self, fn: Callable[P, T], default: D) -> Callable[P, T | D]: ...
    def __call__(self, fn: Callable[P, Any], default: Any = None) -> Callable[P, Any]:
        """Return `fn` as a function that runs on rank 0 and returns `default` on the others."""

        @functools.wraps(fn)
        def on_rank_zero(*args: P.args, **kwargs: P.kwargs) -> Any:
            return fn(*args, **kwargs) if self.rank == 0 else default

        return on_rank_zero


rank_zero_only = RankZeroOnly()


def rank_from(environ: Mapping[str, str]) -> int:
    """Return the rank that a launcher wrote into `environ`, 0 if none did.

    Example:
        >>> rank_from({"SLURM_PROCID": "3"}), rank_from({})
        (3, 0)
    """
    for name in _RANK_VARIABLES:
        if (text := environ.get(name, "").strip()).isdecimal():
            return int(text)
    return 0


def rank_zero_warn(message: str | Warning, stacklevel: int = 4, *, category: type[Warning] = UserWarning, **kwargs: Any) -> None:
    """Warn on rank 0 only.

    Args:
        message: What `warnings.warn` takes.
        stacklevel: 4 is the line that calls this function, 5 its caller, …
        category: The class of the warning.
        kwargs: More of `warnings.warn`'s.
    """
    if rank_zero_only.rank == 0:
        warnings.warn(message, category=category, stacklevel=stacklevel - 2, **kwargs)


def rank_zero_deprecation(message: str | Warning, stacklevel: int = 5, **kwargs: Any) -> None:
    """Warn on rank 0 only that something will go away; 5 is the line that calls this function."""
    kwargs.setdefault("category", DeprecationWarning)
    if rank_zero_only.rank == 0:
        warnings.warn(message, stacklevel=stacklevel - 3, **kwargs)


def rank_zero_info(*args: Any, stacklevel: int = 4, **kwargs: Any) -> None:
    """Log at level INFO on rank 0 only; arguments as for `logging.info`."""
    if rank_zero_only.rank == 0:
        _logger.info(*args, stacklevel=stacklevel - 2, **kwargs)


def rank_zero_debug(*args: Any, stacklevel: int = 4, **kwargs: Any) -> None:
    """Log at level DEBUG on rank 0 only; arguments as for `logging.debug`."""
    if rank_zero_only.rank == 0:
        _logger.debug(*args, stacklevel=stacklevel - 2, **kwargs)


def rank_prefixed_message(message: str, rank: int | None) -> str:
    """Return `message` with the rank in front of it.

    Example:
        >>> rank_prefixed_message("saved", 1)
        '[rank: 1] saved'
    """
    return message if rank is None else f"[rank: {rank}] {message}"
