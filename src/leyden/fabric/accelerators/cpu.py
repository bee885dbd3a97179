"""`CPUAccelerator`: processes on this machine's processors."""

import os
import sys

import torch

from leyden.fabric.accelerators.accelerator import Accelerator, check_device_type
from leyden.fabric.accelerators.device_list import process_count


class CPUAccelerator(Accelerator):
    """The processors: always there, one process unless `devices` asks for more.

    Example:
        >>> CPUAccelerator.get_parallel_devices(CPUAccelerator.parse_devices("2"))
        [device(type='cpu'), device(type='cpu')]
    """

    @property
    def name(self) -> str:
        """`"cpu"`."""
        return "cpu"

    def setup_device(self, device: torch.device) -> None:
        """Check that `device` is a CPU.

        Raises:
            ConfigError: It is of another type.
        """
        check_device_type(device, "cpu")

    def teardown(self) -> None:
        """Do nothing: a CPU holds nothing."""

    @staticmethod
    def parse_devices(devices: object) -> int:
        """Return the number of processes.

        Raises:
            ConfigTypeError: Not a positive number.
            ConfigError: A value that names no device.
        """
        return process_count(devices)

    @classmethod
    def parse_among(cls, devices: object, available: int) -> int:
        """Return the number of processes; there may be more than cores."""
        return process_count(devices)

    @staticmethod
    def get_parallel_devices(devices: object) -> list[torch.device]:
        """Return one CPU device for each process."""
        return [torch.device("cpu")] * process_count(devices)

    @staticmethod
    def auto_device_count() -> int:
        """Return 1: more processes are asked for, never guessed."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Return True."""
        return True

    def device_stats(self, device: torch.device) -> dict[str, float]:
        """Return the cores this process may use, the machine's load and this process's peak memory (where the system tells)."""
        stats = {"cores": float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)}
        if hasattr(os, "getloadavg"):
            stats["load_1min"] = os.getloadavg()[0]
        if sys.platform != "win32":
            import resource  # Unix only

            unit = 1 if sys.platform == "darwin" else 1024
            stats["peak_resident_bytes"] = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        return stats
