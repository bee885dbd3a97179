"""`ExternalEnvironment`: what environments share whose launcher has started every rank and says where each one stands."""

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

from leyden.core.errors import ConfigError
from leyden.fabric.environments.environment import ClusterEnvironment, kept, mapping_of


class ExternalEnvironment(ClusterEnvironment, ABC):
    """An environment that is read only: the setters do nothing.

    Args:
        environ: The mapping to read; the process's environment if absent.
    """

    launcher_name: ClassVar[str]

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = kept(environ)

    @property
    def environ(self) -> Mapping[str, str]:
        """The mapping that is read."""
        return mapping_of(self._environ)

    @property
    def creates_processes_externally(self) -> bool:
        """True: every rank is there."""
        return True

    def set_world_size(self, size: int) -> None:
        """Do nothing: the launcher decides."""

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the launcher decides."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Compare devices times nodes with the number of ranks.

        Raises:
            ConfigError: They differ.
        """
        if num_devices * num_nodes != self.world_size():
            raise ConfigError(
                f"devices={num_devices} * num_nodes={num_nodes} = {num_devices * num_nodes} processes, but {self.launcher_name} started "
                f"{self.world_size()}{self._as_product()}. Leave devices and num_nodes out to follow the launcher, or make both the same."
            )

    def _as_product(self) -> str:
        devices, nodes = self.num_devices_hint(), self.num_nodes_hint()
        return f" ({devices} per node * {nodes} nodes)" if devices and nodes else ""
