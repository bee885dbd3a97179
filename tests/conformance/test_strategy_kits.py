"""The strategies of fabric keep the promises of the kit that is shipped; `test_strategies` has what only fabric's own promise."""

import pytest

from leyden.fabric import MeshSpec
from leyden.fabric.strategies import FSDPStrategy, ModelParallelStrategy
from leyden.fabric.testing import StrategyConformance
from tests.conformance.strategy_suite import tensor_and_data_parallel, tensor_parallel
from tests.support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def call(kit: str, method: str) -> object:
    return getattr(globals()[kit](), method)()


class ForkedRanks(StrategyConformance):
    """Forks the ranks of a process that has imported torch, since that takes most of the time."""

    @classmethod
    def run_ranks(cls, method):
        return run_ranks(call, cls.ranks, args=(cls.__name__, method), join=False, timeout=240)


class TestSingle(ForkedRanks):
    ranks = 1

    def make(self):
        return "auto"


class TestDDP(ForkedRanks):
    def make(self):
        return "ddp"


class TestFSDP(ForkedRanks):
    def make(self):
        return "fsdp"


class TestHSDP(ForkedRanks):
    ranks = 4

    def make(self):
        return FSDPStrategy(sharding_strategy="HYBRID_SHARD", device_mesh=(2, 2))


class TestTensorParallel(ForkedRanks):
    trains_any_module = False

    def make(self):
        return ModelParallelStrategy(tensor_parallel)


class TestTensorAndDataParallel(ForkedRanks):
    ranks = 4
    trains_any_module = False

    def make(self):
        return ModelParallelStrategy(tensor_and_data_parallel, mesh=MeshSpec(dp_shard=2, tp=2))
