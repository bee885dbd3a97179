"""`StreamingDataset` on samples in memory: its arguments and laws are tested without any file format."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from leyden.data.read.dataset import StreamingDataset
from leyden.data.read.opening import Opened
from tests.support.array_source import ArraySource


@contextmanager
def opened(source: ArraySource, deleted: Any = None, find_key: Callable[[Any], int] | None = None) -> Iterator[None]:
    """Let `StreamingDataset(anything)` open this source."""
    gone = None if deleted is None else np.array(deleted, np.int64)
    with patch("leyden.data.read.dataset.open_source", lambda options: Opened(source, {}, gone, find_key)):
        yield


def dataset_of(samples: Sequence[dict[str, Any]], per_block: int = 4, *, deleted: Any = None, **arguments: Any) -> StreamingDataset:
    """Return a dataset of samples, without torch unless `output` says so."""
    with opened(ArraySource(samples, per_block), deleted):
        return StreamingDataset("memory://samples", **{"output": "numpy", **arguments})


def numbers(count: int, per_block: int = 4, **arguments: Any) -> StreamingDataset:
    """Return a dataset whose sample i is `{"x": i}`."""
    return dataset_of([{"x": number} for number in range(count)], per_block, **arguments)


def xs(dataset: Any) -> list[int]:
    """Return the numbers of the samples that a dataset hands out."""
    return [int(sample["x"]) for sample in dataset]
