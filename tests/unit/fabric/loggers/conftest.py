from collections.abc import Iterator

import pytest

from leyden.fabric.loggers import writer_thread
from leyden.fabric.rank_zero import rank_zero_only


@pytest.fixture(autouse=True)
def _own_writer_and_rank() -> Iterator[None]:
    """Let each test begin with no writer and rank 0, and leave no thread."""
    rank_zero_only.rank = 0
    yield
    rank_zero_only.rank = None
    if (writer := writer_thread._writer) is not None:
        writer_thread._writer = None
        for channel in writer.channels:
            channel.close()
        writer.close(timeout=5.0)
