"""`MPIEnvironment`: ranks started by `mpiexec` or `mpirun`, asked through mpi4py.

One `allgather` at the first question tells every rank who runs where; so all ranks must ask, and they do: resolving
Fabric's arguments asks. mpi4py starts MPI when it is imported, so it is imported only where a launcher left its marks.
"""

import socket
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from leyden.core.optional import installed, require
from leyden.fabric.environments.environment import mapping_of
from leyden.fabric.environments.external import ExternalEnvironment

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # Open MPI, MPICH and Intel, MVAPICH


class _Seat(NamedTuple):
    """Where a rank runs, and a port that was free there."""

    host: str
    port: int


class MPIEnvironment(ExternalEnvironment):
    """A rank of an MPI program.

    Args:
        communicator: An mpi4py communicator; `MPI.COMM_WORLD` if absent.
        environ: The mapping to read; the process's environment if absent.
        hostname: The name of this machine; asked of the system if absent.

    Raises:
        MissingDependencyError: mpi4py is not installed.
    """

    launcher_name = "MPI"

    def __init__(self, *, communicator: Any = None, environ: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        super().__init__(environ=environ)
        self._communicator = communicator if communicator is not None else _world()
        self._hostname = hostname or socket.gethostname()

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether an MPI launcher started more than one rank."""
        found = mapping_of(environ)
        sizes = [found[name] for name in SIZES if name in found]
        if not sizes and "PMIX_RANK" not in found:  # PMIx tells the rank, the size only through the library
            return False
        if sizes and set(sizes) == {"1"}:
            return False
        if not installed("mpi4py"):
            warnings.warn(
                "an MPI launcher started this process, but mpi4py is not installed, so each rank would run alone. "
                'Install it with: pip install "leyden[mpi]"',
                stacklevel=2,
            )
            return False
        return int(_world().Get_size()) > 1

    @property
    def main_address(self) -> str:
        """The host of rank 0."""
        return self._seats[0].host

    @property
    def main_port(self) -> int:
        """A port that was free on rank 0's host."""
        return self._seats[0].port

    def world_size(self) -> int:
        """Return the size of the communicator."""
        return int(self._communicator.Get_size())

    def global_rank(self) -> int:
        """Return the rank in the communicator."""
        return int(self._communicator.Get_rank())

    def local_rank(self) -> int:
        """Return how many lower ranks run on this host."""
        return sum(seat.host == self._hostname for seat in self._seats[: self.global_rank()])

    def node_rank(self) -> int:
        """Return the place of this host among the sorted host names."""
        return self._host_names.index(self._hostname)

    def num_devices_hint(self) -> int | None:
        """Return how many ranks run on this host."""
        return sum(seat.host == self._hostname for seat in self._seats)

    def num_nodes_hint(self) -> int | None:
        """Return how many hosts there are."""
        return len(self._host_names)

    @property
    def _host_names(self) -> list[str]:
        return sorted({seat.host for seat in self._seats})

    @cached_property
    def _seats(self) -> list[_Seat]:
        mine = _Seat(self._hostname, _free_port() if self.global_rank() == 0 else 0)
        return [_Seat(*seat) for seat in self._communicator.allgather(tuple(mine))]


def _world() -> Any:
    return require("mpi4py.MPI", extra="mpi", purpose="MPIEnvironment").COMM_WORLD


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
