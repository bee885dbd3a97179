"""The collectives of fabric's parallel strategies keep the promises, on real ranks."""

import pytest

from leyden.fabric.strategies import ModelParallelStrategy
from leyden.fabric.testing import CollectiveConformance
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.slow


def call(kit: str, method: str) -> object:
    return getattr(globals()[kit](), method)()


class ForkedRanks(CollectiveConformance):
    """Forks the ranks of a process that has imported torch, since that takes most of the time."""

    @classmethod
    def run_ranks(cls, method):
        return run_ranks(call, cls.ranks, args=(cls.__name__, method), join=False)


class TestSingle(ForkedRanks):
    ranks = 1

    def make(self):
        return "auto"


class TestDDP(ForkedRanks):
    def make(self):
        return "ddp"


class TestFSDP(ForkedRanks):
    ranks = 3

    def make(self):
        return "fsdp"


class TestModelParallel(ForkedRanks):
    def make(self):
        return ModelParallelStrategy(lambda module, mesh: module, data_parallel_size=1)
