"""`JobEnvironment`: ranks that the supervisor of a Leyden job started, with the variables of `leyden run`'s launchers."""

from collections.abc import Mapping

from leyden.core.errors import ConfigError
from leyden.core.job import current_job
from leyden.fabric.environments.environment import mapping_of
from leyden.fabric.environments.external import ExternalEnvironment
from leyden.fabric.environments.variables import integer


class JobEnvironment(ExternalEnvironment):
    """A rank of a Leyden job. A job that starts its ranks itself (launcher `none`) is not one: there is no `RANK` then.

    Args:
        environ: The mapping to read; the process's environment if absent.
    """

    launcher_name = "the Leyden job"

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether this is a rank of a Leyden job."""
        found = mapping_of(environ)
        return bool(found.get("RANK")) and bool(found.get("WORLD_SIZE")) and current_job(found) is not None

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`."""
        address = self.environ.get("MASTER_ADDR", "")
        if not address:
            raise ConfigError("MASTER_ADDR is not set, but a Leyden job's launcher sets it. Do not unset it in the script.")
        return address

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`."""
        return integer(self.environ, "MASTER_PORT")

    def world_size(self) -> int:
        """`WORLD_SIZE`."""
        return integer(self.environ, "WORLD_SIZE")

    def global_rank(self) -> int:
        """`RANK`."""
        return integer(self.environ, "RANK")

    def local_rank(self) -> int:
        """`LOCAL_RANK`."""
        return integer(self.environ, "LOCAL_RANK")

    def node_rank(self) -> int:
        """`GROUP_RANK`, else `LEYDEN_NODE_RANK`."""
        return integer(self.environ, "GROUP_RANK", integer(self.environ, "LEYDEN_NODE_RANK", 0))

    def num_devices_hint(self) -> int | None:
        """The ranks on each node."""
        return integer(self.environ, "LOCAL_WORLD_SIZE", self.world_size() // (self.num_nodes_hint() or 1))

    def num_nodes_hint(self) -> int | None:
        """The nodes of the job."""
        return integer(self.environ, "GROUP_WORLD_SIZE", integer(self.environ, "LEYDEN_NUM_NODES", 1))
