"""What `torch.utils.data` needs to know of our datasets, told only if torch is loaded; it is never imported here."""

import multiprocessing.context
import sys
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple, final


class Worker(NamedTuple):
    """A worker process of torch's `DataLoader`.

    Args:
        number: Its number.
        count: How many there are.
        iteration: What tells the workers of one iteration of the loader from those of the next one.
    """

    number: int = 0
    count: int = 1
    iteration: int = 0


def register(kind: type) -> None:
    """Make torch take datasets of this class as iterable-style, if torch is loaded."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and not issubclass(kind, data.IterableDataset):
        data.IterableDataset.register(kind)


def current_worker() -> Worker | None:
    """Return the worker of torch's loader that this process is, or `None`."""
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    return None if info is None else Worker(info.id, info.num_workers, info.seed - info.id)


@final
class Traces:
    """What the workers of torch's loader leave behind for the process that their dataset came from, and for each other.

    The memory is shared with forked and with spawned workers. Other copies, such as a pickle in a file, begin without traces.
    """

    def __init__(self) -> None:
        self._cells: Any = RawArray("q", 3)  # whether one has iterated, the loaded state it began from, the iteration that it was of

    def begins(self, load: int, worker: Worker) -> bool:
        """Take note that a worker begins an iteration.

        Args:
            load: How many states were loaded until then.
            worker: Which worker.

        Returns:
            Whether it is to begin from the loaded state: no earlier iteration of the loader did.
        """
        cells = self._cells
        is_first = cells[1] != load or cells[2] == worker.iteration
        if is_first:
            cells[1], cells[2] = load, worker.iteration
        cells[0] = 1
        return is_first

    @property
    def has_iterated(self) -> bool:
        """Whether a worker has iterated."""
        return bool(self._cells[0])

    def was_begun(self, load: int) -> bool:
        """Return whether a worker has begun from a loaded state."""
        return self.has_iterated and self._cells[1] == load

    def __reduce__(self) -> tuple[Any, ...]:
        if multiprocessing.context.get_spawning_popen() is None:
            return (Traces, ())
        return (_shared, (self._cells,))


def _shared(cells: Any) -> Traces:
    traces = Traces.__new__(Traces)
    traces._cells = cells
    return traces
