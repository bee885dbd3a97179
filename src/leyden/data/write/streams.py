"""Inputs that come one after another: iterators, queues and loaders, as one kind of thing that can be stopped."""

import dataclasses
import queue as queues
import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.data.write.arguments import ALL_DONE, batched, collect_inputs, dev_inputs

_LOOK_SECONDS = 0.5


@final
class InputStream(Iterator[Any]):
    """Yields inputs until there are none, or it is stopped.

    Args:
        values: Where they come from.
        stopped: Says to the rest of the chain that nobody reads any more.
    """

    def __init__(self, values: Iterator[Any], stopped: threading.Event) -> None:
        self._values, self._stopped = values, stopped

    def __next__(self) -> Any:
        if self._stopped.is_set():
            raise StopIteration
        return next(self._values)

    def stop(self) -> None:
        """Yield no more; a queue that is waited for is let go."""
        self._stopped.set()


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Grouping:
    """What is done to inputs before they are a job's.

    Args:
        reader: `remap_items` makes other inputs of them.
        batch_size: Groups them into lists.
        fast_dev_run: Takes only the first ones.
        weights: What each costs.
    """

    reader: Any = None
    batch_size: int | None = None
    fast_dev_run: bool | int = False
    weights: Sequence[float] | None = None


def job_inputs(inputs: Any, queue: Any, grouping: Grouping, *, may_stream: bool) -> "Sequence[Any] | InputStream":
    """Return a job's inputs: a sequence, or a stream if they come one after another.

    Args:
        inputs: As they were given.
        queue: Instead of them.
        grouping: What is done to them.
        may_stream: Whether one driver does the job: streams are not shared.

    Raises:
        ConfigError: None are given, both ways are, or an argument does not go with a stream.
    """
    if (inputs is None) == (queue is None):
        raise ConfigError("give exactly one of inputs= (a sequence or an iterator) and queue= (ended by one ALL_DONE).")
    is_loader = queue is None and _is_loader(inputs)
    comes_one_by_one = is_loader or queue is not None or (isinstance(inputs, Iterable) and not isinstance(inputs, Sized))
    kind = "queue=" if queue is not None else f"inputs={type(inputs).__name__}(…)"
    if comes_one_by_one:
        _check_stream(kind, grouping, may_stream=may_stream)
    if is_loader and grouping.batch_size is not None:
        raise ConfigError(f"batch_size={grouping.batch_size!r}: each batch of {kind} is an input already. Leave it out.")
    stopped = threading.Event()
    values = _drained(queue, stopped) if queue is not None else inputs
    if not comes_one_by_one or grouping.reader is not None:  # a reader is shown all of them
        return collect_inputs(values, reader=grouping.reader, batch_size=grouping.batch_size, fast_dev_run=grouping.fast_dev_run)
    return InputStream(islice(batched(iter(values), grouping.batch_size), dev_inputs(grouping.fast_dev_run)), stopped)


def _check_stream(kind: str, grouping: Grouping, *, may_stream: bool) -> None:
    if not may_stream:
        raise ConfigError(f"{kind} cannot be shared by several drivers: pass a list, or run one process with engine='local'.")
    if grouping.weights is not None:
        raise ConfigError(f"weights= needs inputs of a known number, and {kind} gives them one after another. Pass a list.")


def _is_loader(inputs: Any) -> bool:
    """Return whether inputs are a loader, ours or torch's: its batches are the inputs."""
    return all(hasattr(inputs, name) for name in ("__iter__", "dataset", "batch_size", "num_workers"))


def _drained(queue: Any, stopped: threading.Event) -> Iterator[Any]:
    while not stopped.is_set():
        try:
            item = queue.get(timeout=_LOOK_SECONDS)
        except queues.Empty:
            continue
        if type(item) is type(ALL_DONE):
            return
        yield item
