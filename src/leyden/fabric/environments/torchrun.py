"""`TorchElasticEnvironment`: ranks started by torchrun, which sets `RANK`, `LOCAL_RANK`, `GROUP_RANK` and `WORLD_SIZE`."""

import warnings
from collections.abc import Mapping

from leyden.fabric.environments.environment import mapping_of
from leyden.fabric.environments.external import ExternalEnvironment
from leyden.fabric.environments.variables import integer, optional_integer

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 12910


class TorchElasticEnvironment(ExternalEnvironment):
    """A process that torchrun started.

    Args:
        environ: The mapping to read; the process's environment if absent.

    Example:
        >>> TorchElasticEnvironment(environ={"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}).global_rank()
        3
    """

    launcher_name = "torchrun"

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether torchrun started this process."""
        return "TORCHELASTIC_RUN_ID" in mapping_of(environ)

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`."""
        if "MASTER_ADDR" not in self.environ:
            warnings.warn(f"MASTER_ADDR is not set; {DEFAULT_ADDRESS} is used, which is right on one machine only.", stacklevel=2)
        return self.environ.get("MASTER_ADDR", DEFAULT_ADDRESS)

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`."""
        if "MASTER_PORT" not in self.environ:
            warnings.warn(f"MASTER_PORT is not set; {DEFAULT_PORT} is used. Set it where two runs share a machine.", stacklevel=2)
        return integer(self.environ, "MASTER_PORT", DEFAULT_PORT)

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
        """`GROUP_RANK`."""
        return integer(self.environ, "GROUP_RANK", 0)

    def num_devices_hint(self) -> int | None:
        """`LOCAL_WORLD_SIZE`."""
        return optional_integer(self.environ, "LOCAL_WORLD_SIZE")

    def num_nodes_hint(self) -> int | None:
        """The number of nodes: `WORLD_SIZE` over `LOCAL_WORLD_SIZE`, which is also right where torchrun does not say."""
        return optional_integer(self.environ, "GROUP_WORLD_SIZE") or self.world_size() // (self.num_devices_hint() or self.world_size())
