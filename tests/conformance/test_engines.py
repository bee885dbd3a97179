"""Engines keep the promises of their kit."""

from leyden.serve.engines.base import ReplicaEngine
from leyden.serve.engines.local import LocalEngine
from tests.conformance.engine_suite import EngineSuite


class TestLocal(EngineSuite):
    def made(self) -> ReplicaEngine:
        return LocalEngine()
