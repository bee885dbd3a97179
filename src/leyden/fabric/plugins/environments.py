"""The cluster environments at their documented path; they live in `leyden.fabric.environments`."""

from leyden.fabric.environments.environment import ClusterEnvironment as ClusterEnvironment
from leyden.fabric.environments.job import JobEnvironment as JobEnvironment
from leyden.fabric.environments.kubeflow import KubeflowEnvironment as KubeflowEnvironment
from leyden.fabric.environments.local import LightningEnvironment as LightningEnvironment
from leyden.fabric.environments.lsf import LSFEnvironment as LSFEnvironment
from leyden.fabric.environments.mpi import MPIEnvironment as MPIEnvironment
from leyden.fabric.environments.slurm import SLURMEnvironment as SLURMEnvironment
from leyden.fabric.environments.torchrun import TorchElasticEnvironment as TorchElasticEnvironment
