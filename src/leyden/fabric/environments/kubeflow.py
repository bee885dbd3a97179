"""`KubeflowEnvironment`: one process per pod, started by Kubeflow's PyTorchJob operator. Given as a plug-in, never detected."""

from collections.abc import Mapping

from leyden.core.errors import ConfigError, UnsupportedError
from leyden.fabric.environments.external import ExternalEnvironment
from leyden.fabric.environments.variables import integer


class KubeflowEnvironment(ExternalEnvironment):
    """A pod of a PyTorchJob: its variables look like anybody's, so it has to be named: `plugins=KubeflowEnvironment()`.

    Args:
        environ: The mapping to read; the process's environment if absent.
    """

    launcher_name = "Kubeflow"

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Refuse to guess.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("a Kubeflow pod cannot be told from other processes. Pass it: Fabric(plugins=KubeflowEnvironment()).")

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`."""
        if not self.environ.get("MASTER_ADDR"):
            raise ConfigError("MASTER_ADDR is not set, but the PyTorchJob operator sets it. Start the pod through a PyTorchJob.")
        return self.environ["MASTER_ADDR"]

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
        """Return 0: one process per pod."""
        return 0

    def node_rank(self) -> int:
        """`RANK`: each pod is a node."""
        return self.global_rank()

    def num_devices_hint(self) -> int | None:
        """Return 1."""
        return 1

    def num_nodes_hint(self) -> int | None:
        """`WORLD_SIZE`: each pod is a node."""
        return self.world_size()
