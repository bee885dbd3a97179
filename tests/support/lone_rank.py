"""A parallel strategy with one rank, in this process: fast, and everything but the other ranks is real."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from leyden.fabric import Fabric


@contextmanager
def lone_rank(**arguments: Any) -> Iterator[Fabric]:
    """Launch a Fabric of one rank, on the CPU unless told otherwise, and take it down afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")  # the rank exists: nothing is started
        given: dict[str, Any] = {"accelerator": "cpu", "devices": 1, **arguments}
        fabric = Fabric(**given)
        try:
            fabric.launch()
            yield fabric
        finally:
            fabric.strategy.teardown()
            assert not torch.distributed.is_initialized()
