"""Who started this process, and as which of how many: one class for each launcher."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.environments.detect import detect_environment as detect_environment
    from leyden.fabric.environments.environment import ClusterEnvironment as ClusterEnvironment
    from leyden.fabric.environments.job import JobEnvironment as JobEnvironment
    from leyden.fabric.environments.kubeflow import KubeflowEnvironment as KubeflowEnvironment
    from leyden.fabric.environments.local import LightningEnvironment as LightningEnvironment
    from leyden.fabric.environments.lsf import LSFEnvironment as LSFEnvironment
    from leyden.fabric.environments.mpi import MPIEnvironment as MPIEnvironment
    from leyden.fabric.environments.slurm import SLURMEnvironment as SLURMEnvironment
    from leyden.fabric.environments.torchrun import TorchElasticEnvironment as TorchElasticEnvironment
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ClusterEnvironment": ".environment",
            "JobEnvironment": ".job",
            "KubeflowEnvironment": ".kubeflow",
            "LSFEnvironment": ".lsf",
            "LightningEnvironment": ".local",
            "MPIEnvironment": ".mpi",
            "SLURMEnvironment": ".slurm",
            "TorchElasticEnvironment": ".torchrun",
            "detect_environment": ".detect",
        },
    )
