"""Which launcher started this process: the first of a fixed order that finds its marks in the environment."""

import shutil
import sys
from collections.abc import Callable, Mapping

from leyden.fabric.environments.environment import ClusterEnvironment, mapping_of
from leyden.fabric.environments.job import JobEnvironment
from leyden.fabric.environments.local import LightningEnvironment
from leyden.fabric.environments.lsf import LSFEnvironment
from leyden.fabric.environments.mpi import MPIEnvironment
from leyden.fabric.environments.slurm import SLURMEnvironment, warn_if_srun_is_unused
from leyden.fabric.environments.torchrun import TorchElasticEnvironment

# torchrun first: it may run inside a Slurm or LSF job, and then it is who started this process.
ORDER = (TorchElasticEnvironment, JobEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)


def detect_environment(
    environ: Mapping[str, str] | None = None, *, which: Callable[[str], str | None] = shutil.which
) -> ClusterEnvironment:
    """Return the environment of the launcher that started this process; `LightningEnvironment` if none did.

    Args:
        environ: The mapping to read; the process's environment if absent (then the environment follows its changes).
        which: Finds a program on the path.

    Example:
        >>> type(detect_environment({})).__name__
        'LightningEnvironment'
    """
    found = next((kind for kind in ORDER if kind.detect(environ)), LightningEnvironment)
    if found in (SLURMEnvironment, LightningEnvironment) and which("srun") is not None:
        warn_if_srun_is_unused(mapping_of(environ), sys.argv)
    return found(environ=environ)
