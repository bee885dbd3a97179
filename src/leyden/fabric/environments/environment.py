"""`ClusterEnvironment`: who started this process, and as which of how many."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from leyden.core import settings


class ClusterEnvironment(ABC):
    """What a launcher tells its processes: address, ranks, world size.

    Setters do nothing where the launcher decides. Ours take `environ`, the mapping that they read (default: the process's
    environment, looked up at each use), so that their rules can be tested as functions of a mapping.
    """

    @property
    @abstractmethod
    def creates_processes_externally(self) -> bool:
        """Whether the launcher has started every rank already; if not, fabric starts the local ones itself."""

    @property
    @abstractmethod
    def main_address(self) -> str:
        """The host of rank 0."""

    @property
    @abstractmethod
    def main_port(self) -> int:
        """The port where rank 0's rendezvous listens; 0 lets the script launcher take a free one."""

    @staticmethod
    @abstractmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether this process was started by this launcher."""

    @abstractmethod
    def world_size(self) -> int:
        """Return the number of ranks over all nodes."""

    @abstractmethod
    def set_world_size(self, size: int) -> None:
        """Set the number of ranks, where the launcher leaves that to fabric."""

    @abstractmethod
    def global_rank(self) -> int:
        """Return this process's rank over all nodes."""

    @abstractmethod
    def set_global_rank(self, rank: int) -> None:
        """Set this process's global rank, where the launcher leaves that to fabric."""

    @abstractmethod
    def local_rank(self) -> int:
        """Return this process's rank on its node."""

    @abstractmethod
    def node_rank(self) -> int:
        """Return the number of this node, from 0."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:  # noqa: B027 - an optional hook
        """Compare what the launcher started with what the user asked for.

        Raises:
            ConfigError: They differ; the message holds both products.
        """

    def num_devices_hint(self) -> int | None:
        """Return how many processes per node the launcher started, so that `devices="auto"` can follow; else `None`."""
        return None

    def num_nodes_hint(self) -> int | None:
        """Return how many nodes the launcher uses, so that an untouched `num_nodes=1` can follow; else `None`."""
        return None

    @property
    def stop_signals(self) -> tuple[int, ...]:
        """Signals besides SIGTERM by which this launcher asks to save and leave."""
        return ()

    def teardown(self) -> None:  # noqa: B027 - an optional hook
        """Undo what the environment set for this run."""


def mapping_of(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return `environ`, or this process's environment if it is absent."""
    return settings.environment() if environ is None else environ


def kept(environ: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return what an environment object keeps of `environ`: nothing for this process's own, which cannot be pickled."""
    return None if environ is settings.environment() else environ
