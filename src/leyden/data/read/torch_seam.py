"""What `torch.utils.data` needs to know of our datasets, told only if torch is loaded; it is never imported here."""

import sys
from typing import NamedTuple


class Worker(NamedTuple):
    """A worker process of torch's `DataLoader`.

    Args:
        number: Its number.
        count: How many there are.
    """

    number: int = 0
    count: int = 1


def register(kind: type) -> None:
    """Make torch take datasets of this class as iterable-style, if torch is loaded."""
    data = sys.modules.get("torch.utils.data")
    if data is not None and not issubclass(kind, data.IterableDataset):
        data.IterableDataset.register(kind)


def current_worker() -> Worker | None:
    """Return the worker of torch's loader that this process is, or `None`."""
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    return None if info is None else Worker(info.id, info.num_workers)
