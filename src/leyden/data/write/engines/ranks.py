"""How many drivers run one job: the ranks of torchrun, srun or MPI, and the tasks of a Slurm array, each running the same script."""

from collections.abc import Mapping

from leyden.core import settings
from leyden.data.placement import find_place

_ARRAY_COUNT = "SLURM_ARRAY_TASK_COUNT"


def drivers_of(engine: object, environ: Mapping[str, str] | None = None) -> int:
    """Return how many drivers run this call; they share its units, and each may die.

    Args:
        engine: `"auto"` and `"ranks"` look at the launcher's variables, others start from one process.
        environ: The variables; the process's if absent.

    Example:
        >>> drivers_of("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"})
        8
    """
    if engine not in ("auto", "ranks"):
        return 1
    found = settings.environment() if environ is None else environ
    array = found.get(_ARRAY_COUNT, "")
    tasks = int(array) if "SLURM_ARRAY_TASK_ID" in found and array.isdecimal() else 1
    return tasks * find_place(environ).world_size
