"""A unit that is given is answered, whenever its worker dies."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from leyden.data.format.filling import FillSettings
from leyden.data.format.leaves import LeafRules
from leyden.data.write import pool as pools
from leyden.data.write.pool import Order, ProcessPool
from leyden.data.write.unit import Task


def die(number: int) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_after_it_was_waited_for_still_owes_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(job="a", function=die, output=str(tmp_path), options={}, settings=FillSettings(), rules=LeafRules())
    pool = ProcessPool(task, 1)
    try:
        pool.give(Order(0, 0, [1]))
        pools.wait([pool._workers[0].process.sentinel], 30)
        with monkeypatch.context() as patch:
            patch.setattr(pools, "wait", lambda handles, seconds: [])  # it was alive then
            assert pool.outcomes() == []
        assert pool.is_busy()
        (outcome,) = pool.outcomes()
        assert (outcome.kind, outcome.order.unit) == ("died", 0)
        assert pool.is_free()
    finally:
        pool.close()
