"""`MPSAccelerator`: the one GPU of an Apple computer."""

import torch

from leyden.fabric.accelerators.accelerator import Accelerator, check_device_type
from leyden.fabric.accelerators.device_list import only_device


class MPSAccelerator(Accelerator):
    """Apple's GPU behind `torch.mps`: one device, so no parallel strategy runs on it."""

    @property
    def name(self) -> str:
        """`"mps"`."""
        return "mps"

    def setup_device(self, device: torch.device) -> None:
        """Check that `device` is the MPS device.

        Raises:
            ConfigError: It is of another type.
        """
        check_device_type(device, "mps")

    def teardown(self) -> None:
        """Give cached memory back."""
        if self.is_available():
            torch.mps.empty_cache()

    @staticmethod
    def parse_devices(devices: object) -> list[int]:
        """Return `[0]`.

        Raises:
            ConfigTypeError: A type that is never accepted.
            ConfigError: More than one device, or another id.
        """
        return only_device(devices, "mps")

    @classmethod
    def parse_among(cls, devices: object, available: int) -> list[int]:
        """Return `[0]`."""
        return only_device(devices, "mps")

    @staticmethod
    def get_parallel_devices(devices: object) -> list[torch.device]:
        """Return the one device."""
        return [torch.device("mps", index) for index in only_device(devices, "mps")]

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Return whether this is an Apple computer with a GPU that torch can use."""
        return torch.backends.mps.is_available()

    def device_stats(self, device: torch.device) -> dict[str, float]:
        """Return the bytes that tensors take, and those the driver has reserved."""
        return {
            "allocated_bytes": float(torch.mps.current_allocated_memory()),
            "reserved_bytes": float(torch.mps.driver_allocated_memory()),
        }
