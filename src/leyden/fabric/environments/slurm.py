"""`SLURMEnvironment`: ranks started by `srun`.

The address is the first host of the node list, the port is made from the job's number, so that all ranks agree without
talking. `MASTER_ADDR` and `MASTER_PORT` win over both.
"""

import logging
import signal
import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.environments.environment import mapping_of
from leyden.fabric.environments.external import ExternalEnvironment
from leyden.fabric.environments.variables import integer, optional_integer

DEFAULT_PORT = 12910  # without a job number
FIRST_PORT = 15000
INTERACTIVE_JOBS = ("bash", "interactive")
REQUEUE_SIGNAL: signal.Signals | None = getattr(signal, "SIGUSR1", None)  # Windows has none

_logger = logging.getLogger(__name__)


class SLURMEnvironment(ExternalEnvironment):
    """A task of `srun`, one per device.

    Args:
        auto_requeue: Whether `requeue_signal` asks for a checkpoint and the job is queued again after it.
        requeue_signal: The signal of `#SBATCH --signal=SIGUSR1@90`.
        environ: The mapping to read; the process's environment if absent.

    Raises:
        StateError: Several tasks without `--ntasks-per-node`: the ranks could be placed in any way.

    Example:
        >>> SLURMEnvironment(environ={"SLURM_NTASKS": "1", "SLURM_JOB_ID": "4321987"}).main_port
        16987
    """

    launcher_name = "Slurm"

    def __init__(
        self,
        auto_requeue: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        requeue_signal: signal.Signals | None = REQUEUE_SIGNAL,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(environ=environ)
        self.auto_requeue = auto_requeue
        self.requeue_signal = requeue_signal
        tasks = optional_integer(self.environ, "SLURM_NTASKS") or 1
        if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in self.environ:
            raise StateError(
                f"Slurm was asked for --ntasks={tasks}, which may place them on the nodes in any way. "
                "Use --ntasks-per-node and --nodes instead: one task for each device."
            )

    @staticmethod
    def detect(environ: Mapping[str, str] | None = None) -> bool:
        """Return whether this is a task of a Slurm job, and not an interactive shell in one."""
        found = mapping_of(environ)
        return "SLURM_NTASKS" in found and SLURMEnvironment.job_name(found) not in INTERACTIVE_JOBS

    @staticmethod
    def job_name(environ: Mapping[str, str] | None = None) -> str | None:
        """Return the job's name, or `None` outside of Slurm."""
        return mapping_of(environ).get("SLURM_JOB_NAME")

    @staticmethod
    def job_id(environ: Mapping[str, str] | None = None) -> int | None:
        """Return the job's number; `None` outside of Slurm and in an interactive shell."""
        found = mapping_of(environ)
        if SLURMEnvironment.job_name(found) in INTERACTIVE_JOBS:
            return None
        try:
            return optional_integer(found, "SLURM_JOB_ID")
        except ConfigError:  # some sites put other things there; it only chooses a port
            return None

    @staticmethod
    def resolve_root_node_address(nodes: str) -> str:
        """Return the first host of a Slurm node list.

        Example:
            >>> SLURMEnvironment.resolve_root_node_address("host[05-09,1],login")
            'host05'
        """
        return first_host(nodes)

    @property
    def main_address(self) -> str:
        """`MASTER_ADDR`, else the first host of the node list, else this machine."""
        if address := self.environ.get("MASTER_ADDR"):
            return address
        # A step may run on some of the job's nodes only; rank 0 is on the step's first.
        nodes = (self.environ.get(f"SLURM_{kind}NODELIST") for kind in ("STEP_", "", "JOB_"))
        return first_host(next(filter(None, nodes), "127.0.0.1"))

    @property
    def main_port(self) -> int:
        """`MASTER_PORT`, else one made from the job's number."""
        job_id = self.job_id(self.environ)
        return integer(self.environ, "MASTER_PORT", DEFAULT_PORT if job_id is None else FIRST_PORT + int(str(job_id)[-4:]))

    def world_size(self) -> int:
        """`SLURM_NTASKS`."""
        return integer(self.environ, "SLURM_NTASKS")

    def global_rank(self) -> int:
        """`SLURM_PROCID`."""
        return integer(self.environ, "SLURM_PROCID")

    def local_rank(self) -> int:
        """`SLURM_LOCALID`."""
        return integer(self.environ, "SLURM_LOCALID")

    def node_rank(self) -> int:
        """`SLURM_NODEID`."""
        return integer(self.environ, "SLURM_NODEID")

    def num_devices_hint(self) -> int | None:
        """`SLURM_NTASKS_PER_NODE`, else 1 where there is one task."""
        return optional_integer(self.environ, "SLURM_NTASKS_PER_NODE") or (1 if self.world_size() == 1 else None)

    def num_nodes_hint(self) -> int | None:
        """The nodes of this step, else of the job."""
        return optional_integer(self.environ, "SLURM_STEP_NUM_NODES") or optional_integer(self.environ, "SLURM_NNODES")

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Compare tasks and nodes with what was asked for.

        Raises:
            ConfigError: They differ.
        """
        tasks, nodes = self.num_devices_hint(), self.num_nodes_hint()
        if tasks is not None and tasks != num_devices:
            raise ConfigError(
                f"devices={num_devices}, but Slurm runs --ntasks-per-node={tasks}: {num_devices} * {num_nodes} processes against "
                f"{tasks} * {nodes or 1}. Make both the same, or leave devices out to follow Slurm."
            )
        if nodes is not None and nodes != num_nodes:
            raise ConfigError(
                f"num_nodes={num_nodes}, but Slurm runs --nodes={nodes}: {num_devices} * {num_nodes} processes against "
                f"{tasks or num_devices} * {nodes}. Make both the same, or leave num_nodes out to follow Slurm."
            )
        super().validate_settings(num_devices, num_nodes)

    @property
    def stop_signals(self) -> tuple[int, ...]:
        """The requeue signal, with `auto_requeue`."""
        return (self.requeue_signal,) if self.auto_requeue and self.requeue_signal is not None else ()

    def requeue(self, run: Callable[..., Any] = subprocess.run) -> bool:
        """Put this job back into the queue, from rank 0; call it after the checkpoint is complete.

        Returns:
            Whether Slurm took it; a failure is logged. On other ranks, and where there is no job, `False`.
        """
        if self.global_rank() != 0:
            return False
        job = self._job_name_for_requeue()
        if job is None:
            _logger.warning("this process runs in no Slurm job that could be queued again.")
            return False
        return _scontrol(["scontrol", "requeue", job], run)

    def _job_name_for_requeue(self) -> str | None:
        array, task = self.environ.get("SLURM_ARRAY_JOB_ID"), self.environ.get("SLURM_ARRAY_TASK_ID")
        return f"{array}_{task}" if array and task else self.environ.get("SLURM_JOB_ID")


def first_host(nodes: str) -> str:
    """Return the first host of a node list such as `gpu[05-09,12],login` or `a b c`.

    A bracket holds ranges and numbers separated by commas; zeros in front of a number belong to the name.
    """
    host = ""
    inside = first_taken = False
    for character in nodes.strip():
        if character == "[":
            inside, first_taken = True, False
        elif character == "]":
            inside = False
        elif inside:
            first_taken = first_taken or character in ",-"
            host += "" if first_taken else character
        elif character in ", ":
            break
        else:
            host += character
    return host


def warn_if_srun_is_unused(environ: Mapping[str, str], argv: Sequence[str]) -> None:
    """Say that a Slurm job has `srun`, but this script was started without it: it would run alone, or wait for the others."""
    interactive = SLURMEnvironment.job_name(environ) in INTERACTIVE_JOBS
    is_step = "SLURM_STEP_ID" in environ or "SLURM_STEP_NUM_TASKS" in environ
    if "SLURM_JOB_ID" in environ and not interactive and not is_step and environ.get("SLURM_NTASKS") != "1":
        warnings.warn(
            "this process runs in a Slurm job, but was not started by `srun`, so there is no other one. To run one process per device, "
            f"write: srun python {' '.join(argv)}",
            stacklevel=2,
        )


def _scontrol(command: list[str], run: Callable[..., Any]) -> bool:
    try:
        done = run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        _logger.warning("`%s` failed, the job is not queued again: %s", " ".join(command), error)
        return False
    if done.returncode != 0:
        _logger.warning("`%s` failed with exit code %d, the job is not queued again: %s", " ".join(command), done.returncode, done.stderr)
        return False
    _logger.info("the job %s is queued again.", command[-1])
    return True
