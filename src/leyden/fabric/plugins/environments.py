"""The cluster environments at their documented path; they live in `leyden.fabric.environments`."""

from leyden.fabric.environments.environment import ClusterEnvironment
from leyden.fabric.environments.job import JobEnvironment
from leyden.fabric.environments.kubeflow import KubeflowEnvironment
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.environments.lsf import LSFEnvironment
from leyden.fabric.environments.mpi import MPIEnvironment
from leyden.fabric.environments.slurm import SLURMEnvironment
from leyden.fabric.environments.torchrun import TorchElasticEnvironment

__all__ = [
    "ClusterEnvironment",
    "JobEnvironment",
    "KubeflowEnvironment",
    "LSFEnvironment",
    "LightningEnvironment",
    "MPIEnvironment",
    "SLURMEnvironment",
    "TorchElasticEnvironment",
]
