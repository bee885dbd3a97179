"""The environments whose launcher starts every rank keep the promises."""

import pytest

from leyden.fabric.environments import (
    JobEnvironment,
    KubeflowEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from tests.conformance.environment_suite import EnvironmentSuite
from tests.support import launchers


class TestTorchrun(EnvironmentSuite):
    def make(self, rank, *, world_size=4, per_node=2):
        return TorchElasticEnvironment(environ=launchers.torchrun(rank, world_size=world_size, per_node=per_node))


class TestJob(EnvironmentSuite):
    def make(self, rank, *, world_size=4, per_node=2):
        return JobEnvironment(environ=launchers.job(rank, world_size=world_size, per_node=per_node))


class TestSlurm(EnvironmentSuite):
    def make(self, rank, *, world_size=4, per_node=2):
        return SLURMEnvironment(environ=launchers.slurm(rank, world_size=world_size, per_node=per_node))


class TestLSF(EnvironmentSuite):
    @pytest.fixture(autouse=True)
    def rank_file(self, tmp_path):
        self.path = tmp_path / "ranks"
        self.path.write_text("launch-node\nhost-a\nhost-a\nhost-b\nhost-b\n", encoding="utf-8")

    def make(self, rank, *, world_size=4, per_node=2):
        environ = launchers.lsf(rank, str(self.path), world_size=world_size, per_node=per_node)
        return LSFEnvironment(environ=environ, hostname=f"host-{'ab'[rank // per_node]}.site")


class TestMPI(EnvironmentSuite):
    pickles = False

    def make(self, rank, *, world_size=4, per_node=2):
        seats = [(f"host-{'ab'[each // per_node]}", 40000 if each == 0 else 0) for each in range(world_size)]
        return MPIEnvironment(communicator=launchers.Communicator(rank, seats), hostname=seats[rank][0], environ={})


class TestKubeflow(EnvironmentSuite):
    per_node = 1

    def make(self, rank, *, world_size=4, per_node=1):
        return KubeflowEnvironment(environ=launchers.kubeflow(rank, world_size=world_size))
