"""`Place`: which share of a dataset this process reads.

Asked for when iteration starts, in this order: what the dataset was given, what the trainer or fabric has set, a running
`torch.distributed`, and the variables of torchrun, Slurm and MPI. torch is never imported to ask.
"""

import sys
from collections.abc import Mapping
from typing import NamedTuple

from leyden.core import settings
from leyden.core.errors import ConfigError

# A Slurm batch script sees SLURM_NTASKS too, but is no task: only `srun` sets the step's id for the tasks that it starts.
_PAIRS = (
    ("RANK", "WORLD_SIZE", None),
    ("GLOBAL_RANK", "WORLD_SIZE", None),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
)


class Place(NamedTuple):
    """A rank and how many there are.

    Example:
        >>> Place.checked(1, 2)
        Place(rank=1, world_size=2)
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def checked(cls, rank: int | None, world_size: int | None) -> "Place | None":
        """Return the place of two arguments, or `None` if neither is given.

        Raises:
            ConfigError: Only one is given, or the rank is not below the world size.
        """
        if rank is None and world_size is None:
            return None
        if rank is None or world_size is None or not 0 <= rank < world_size:
            raise ConfigError(
                f"rank={rank!r}, world_size={world_size!r} is not accepted: give both, with 0 ≤ rank < world_size, or neither "
                "to have them found."
            )
        return cls(int(rank), int(world_size))


def check_enough(rows: int | None, place: Place) -> None:
    """Refuse more ranks than samples, where what fills no step of all ranks is left out: nobody would get any.

    Raises:
        ConfigError: There are.
    """
    if rows is not None and 0 < rows < place.world_size:
        raise ConfigError(
            f"{place.world_size} ranks for {rows} samples, and what is left over is dropped: no rank gets any. Take fewer ranks, or "
            "last_batch='pad' of StreamingDataLoader."
        )


def find_place(environ: Mapping[str, str] | None = None) -> Place:
    """Return where this process stands, by `torch.distributed` if it runs, else by the launcher's variables.

    Args:
        environ: The variables; the process's if absent.

    Example:
        >>> find_place({"RANK": "3", "WORLD_SIZE": "8"})
        Place(rank=3, world_size=8)
    """
    return _of_torch() or _of_variables(settings.environment() if environ is None else environ) or Place()


def _of_torch() -> Place | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return Place(distributed.get_rank(), distributed.get_world_size())


def _of_variables(environ: Mapping[str, str]) -> Place | None:
    for rank, size, witness in _PAIRS:
        if environ.get(rank, "").isdecimal() and environ.get(size, "").isdecimal() and (witness is None or witness in environ):
            return Place.checked(int(environ[rank]), int(environ[size]))
    return None
