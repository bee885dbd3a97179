"""`LightningEnvironment`: no launcher; fabric starts this node's ranks itself, and the user starts each node."""

from collections.abc import Mapping, MutableMapping

from leyden.core.errors import ConfigError
from leyden.fabric.environments.environment import ClusterEnvironment, kept, mapping_of
from leyden.fabric.environments.variables import integer, optional_integer


class LightningEnvironment(ClusterEnvironment):
    """One machine, or several on each of which the script is started by hand.

    Several nodes need `MASTER_ADDR`, `MASTER_PORT` and `NODE_RANK`. `LOCAL_RANK` says that all ranks are there already:
    fabric's own launchers set it for the ranks they start.

    Args:
        environ: The mapping to read; the process's environment if absent.

    Example:
        >>> LightningEnvironment(environ={}).creates_processes_externally
        False
    """

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = kept(environ)
        self._global_rank = 0
        self._world_size = 1

    @property
    def environ(self) -> Mapping[str, str]:
        """The mapping that is read."""
        return mapping_of(self._environ)

    @property
    def creates_processes_externally(self) -> bool:
        """Whether the ranks exist: `LOCAL_RANK` is set."""
        return "LOCAL_RANK" in self.environ

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`, else this machine."""
        return self.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`, else 0: a free one is taken."""
        return integer(self.environ, "MASTER_PORT", 0)

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return True: this is what is left when no launcher is found."""
        return True

    def world_size(self) -> int:
        """Return what was set, 1 at first."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Set the number of ranks."""
        self._world_size = size

    def global_rank(self) -> int:
        """Return what was set, 0 at first."""
        return self._global_rank

    def set_global_rank(self, rank: int) -> None:
        """Set this process's rank."""
        self._global_rank = rank

    def local_rank(self) -> int:
        """`LOCAL_RANK`, else 0."""
        return integer(self.environ, "LOCAL_RANK", 0)

    def node_rank(self) -> int:
        """`NODE_RANK`, else `GROUP_RANK`, else 0."""
        return integer(self.environ, "NODE_RANK", integer(self.environ, "GROUP_RANK", 0))

    def num_devices_hint(self) -> int | None:
        """`LOCAL_WORLD_SIZE`, where the ranks exist and their launcher says how many."""
        return optional_integer(self.environ, "LOCAL_WORLD_SIZE") if self.creates_processes_externally else None

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Check what several nodes and existing ranks need.

        Raises:
            ConfigError: Several nodes without a common port, a node or local rank outside of what was asked for.
        """
        if num_nodes > 1 and not self.main_port:
            raise ConfigError(
                f"num_nodes={num_nodes}, but MASTER_PORT is not set: each node would choose a port of its own and wait for the others. "
                "Start the script on every node with the same MASTER_ADDR and MASTER_PORT=29400, and with NODE_RANK=0, 1, …"
            )
        if num_nodes > 1 and not 0 <= self.node_rank() < num_nodes:
            raise ConfigError(f"NODE_RANK={self.node_rank()}, but num_nodes={num_nodes}: it should be from 0 to {num_nodes - 1}.")
        if num_devices > 1 and not 0 <= self.local_rank() < num_devices:
            raise ConfigError(
                f"LOCAL_RANK={self.local_rank()}, but devices={num_devices}: it should be from 0 to {num_devices - 1}. "
                "Unset LOCAL_RANK to let fabric start the processes, or ask for as many devices as there are ranks."
            )

    def teardown(self) -> None:
        """Take `WORLD_SIZE` out of the environment."""
        environ = self.environ
        if isinstance(environ, MutableMapping):
            environ.pop("WORLD_SIZE", None)
