"""`LSFEnvironment`: ranks started by `jsrun` in an LSF job. The rank file lists the hosts, after one line for the launch node."""

import socket
from collections.abc import Mapping
from pathlib import Path

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.environments.environment import mapping_of
from leyden.fabric.environments.external import ExternalEnvironment
from leyden.fabric.environments.variables import integer, optional_integer

FIRST_PORT = 10000
REQUIRED = ("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")


class LSFEnvironment(ExternalEnvironment):
    """A task of `jsrun`, one per device.

    Args:
        environ: The mapping to read; the process's environment if absent.
        hostname: The name of this machine, as the rank file has it; asked of the system if absent.
    """

    launcher_name = "LSF"

    def __init__(self, *, environ: Mapping[str, str] | None = None, hostname: str | None = None) -> None:
        super().__init__(environ=environ)
        self._hostname = hostname or socket.gethostname()

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether `jsrun` started this process."""
        found = mapping_of(environ)
        return all(name in found for name in REQUIRED)

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`, else the first host of the rank file."""
        return self.environ.get("MASTER_ADDR") or self._hosts()[0]

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`, else one made from the job's number."""
        return integer(self.environ, "MASTER_PORT", FIRST_PORT + integer(self.environ, "LSB_JOBID") % 1000)

    def world_size(self) -> int:
        """`JSM_NAMESPACE_SIZE`."""
        return integer(self.environ, "JSM_NAMESPACE_SIZE")

    def global_rank(self) -> int:
        """`JSM_NAMESPACE_RANK`."""
        return integer(self.environ, "JSM_NAMESPACE_RANK")

    def local_rank(self) -> int:
        """`JSM_NAMESPACE_LOCAL_RANK`."""
        return integer(self.environ, "JSM_NAMESPACE_LOCAL_RANK")

    def node_rank(self) -> int:
        """The place of this host among the hosts of the rank file."""
        hosts = [_short(host) for host in self._hosts()]
        if _short(self._hostname) not in hosts:
            raise StateError(f"this host, {self._hostname!r}, is not in the rank file of the LSF job, which has {hosts}.")
        return hosts.index(_short(self._hostname))

    def num_devices_hint(self) -> int | None:
        """`JSM_NAMESPACE_LOCAL_SIZE`, else the ranks over the hosts."""
        return optional_integer(self.environ, "JSM_NAMESPACE_LOCAL_SIZE") or self.world_size() // len(self._hosts())

    def num_nodes_hint(self) -> int | None:
        """The hosts that the ranks fill; a job may hold more than the script uses."""
        return max(1, self.world_size() // (self.num_devices_hint() or 1))

    def _hosts(self) -> list[str]:
        path = Path(self.environ.get("LSB_DJOB_RANKFILE", ""))
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise ConfigError(
                f"the rank file of the LSF job, LSB_DJOB_RANKFILE={str(path)!r}, cannot be read: {error.strerror}."
            ) from error
        hosts = list(dict.fromkeys(line.strip() for line in lines[1:] if line.strip()))
        if not hosts:
            raise ConfigError(f"the rank file of the LSF job, {str(path)!r}, names no host after its first line.")
        return hosts


def _short(host: str) -> str:
    return host.split(".", maxsplit=1)[0]
