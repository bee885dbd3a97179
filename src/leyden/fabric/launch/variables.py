"""The variables that make a process a rank, as both launchers set them."""

import os
from collections.abc import Callable, Mapping

from leyden.core import settings
from leyden.fabric.environments.environment import ClusterEnvironment


def rank_variables(environment: ClusterEnvironment, *, num_processes: int, num_nodes: int, port: int) -> dict[str, str]:
    """Return what all ranks of this node are told; `LOCAL_RANK` is still missing."""
    variables = {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(port),
        "NODE_RANK": str(environment.node_rank()),
        "WORLD_SIZE": str(num_processes * num_nodes),
    }
    if "OMP_NUM_THREADS" not in settings.environment():  # else N ranks with a thread per core each
        variables["OMP_NUM_THREADS"] = str(cores_per_process(num_processes))
    return variables


def cores_per_process(num_processes: int) -> int:
    """Return how many threads each of `num_processes` may use, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // max(num_processes, 1), 1)


def set_variables(variables: Mapping[str, str]) -> Callable[[], None]:
    """Set variables of this process; returns what puts the former values back."""
    environ = settings.environment()
    before = {name: environ.get(name) for name in variables}
    environ.update(variables)

    def undo() -> None:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value

    return undo
