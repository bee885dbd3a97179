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
from leyden.fabric.testing import EnvironmentConformance
from tests.support import launchers


class TestTorchrun(EnvironmentConformance):
    def make(self, rank):
        return TorchElasticEnvironment(environ=launchers.torchrun(rank))


class TestJob(EnvironmentConformance):
    def make(self, rank):
        return JobEnvironment(environ=launchers.job(rank))


class TestSlurm(EnvironmentConformance):
    def make(self, rank):
        return SLURMEnvironment(environ=launchers.slurm(rank))


class TestLSF(EnvironmentConformance):
    @pytest.fixture(autouse=True)
    def rank_file(self, tmp_path):
        self.path = tmp_path / "ranks"
        self.path.write_text("launch-node\nhost-a\nhost-a\nhost-b\nhost-b\n", encoding="utf-8")

    def make(self, rank):
        environ = launchers.lsf(rank, str(self.path))
        return LSFEnvironment(environ=environ, hostname=f"host-{'ab'[rank // self.per_node]}.site")


class TestMPI(EnvironmentConformance):
    is_picklable = False

    def make(self, rank):
        seats = [(f"host-{'ab'[each // self.per_node]}", 40000 if each == 0 else 0) for each in range(4)]
        return MPIEnvironment(communicator=launchers.Communicator(rank, seats), hostname=seats[rank][0], environ={})


class TestKubeflow(EnvironmentConformance):
    per_node = 1

    def make(self, rank):
        return KubeflowEnvironment(environ=launchers.kubeflow(rank))
