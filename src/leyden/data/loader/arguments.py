"""The arguments of `StreamingDataLoader`, checked."""

import multiprocessing
from typing import Any

from leyden.core.arguments import one_of, whole
from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, listed


def batch_sizes(batch_size: int | None, global_batch_size: int | None) -> tuple[int, int | None]:
    """Return the batch size of a rank, and the global one if it was given instead."""
    if batch_size is not None and global_batch_size is not None:
        raise ConfigError("batch_size and global_batch_size both say how large a batch is: pass one of them.")
    if global_batch_size is not None:
        return 1, whole("global_batch_size", global_batch_size, 1)
    return whole("batch_size", 1 if batch_size is None else batch_size, 1), None


def checked_last_batch(last_batch: str, drop_last: bool | None) -> Any:  # noqa: FBT001 - as it was given
    """Return what becomes of the last samples, if it does not contradict `drop_last`."""
    one_of("last_batch", last_batch, ("auto", "drop", "partial", "pad"))
    if drop_last is not None and last_batch != "auto" and drop_last != (last_batch == "drop"):
        raise ConfigError(f"drop_last={drop_last} and last_batch={last_batch!r} contradict each other: pass one of them.")
    return last_batch


def refuse(**given: Any) -> None:
    """Refuse what would change the order."""
    for name, value in given.items():
        if value is not None:
            raise UnsupportedError(f"{name}=… is not accepted: the order is the dataset's. Set seed= and shuffle= there, or use subset().")


def checked_context(context: Any) -> Any:
    """Return how worker processes are started: a name, a context of `multiprocessing`, or `None`."""
    methods = multiprocessing.get_all_start_methods()
    if context is None or hasattr(context, "get_start_method") or context in methods:
        return context
    raise ConfigError(f"multiprocessing_context={context!r} is not accepted: it takes one of {listed(methods)}, or a context.")


def checked_function(name: str, function: Any) -> Any:
    """Return a function, or `None`."""
    if function is not None and not callable(function):
        raise ConfigTypeError(f"{name}={function!r} is not accepted: it takes a function.")
    return function
