"""`Accelerator`: what fabric needs to know of a kind of device."""

from abc import ABC, abstractmethod

import torch

from leyden.core.errors import ConfigError


class Accelerator(ABC):
    """A kind of device: how its devices are counted, chosen, set up and measured.

    Final classes are `CPUAccelerator`, `CUDAAccelerator`, `MPSAccelerator` and `XPUAccelerator`; a vendor's own is about
    thirty lines (see `IndexedAccelerator`) and is added with `ACCELERATOR_REGISTRY.register` or an entry point in
    `leyden.fabric.accelerators`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The registered name, such as `"cuda"`."""

    @abstractmethod
    def setup_device(self, device: torch.device) -> None:
        """Make `device` this process's current one.

        Raises:
            ConfigError: `device` is of another type.
        """

    @abstractmethod
    def teardown(self) -> None:
        """Release what this process holds on its device (caches)."""

    @staticmethod
    @abstractmethod
    def parse_devices(devices: object) -> object:
        """Turn `Fabric(devices=…)` into a count (CPU) or a list of ids.

        Raises:
            ConfigTypeError: A type that is never accepted.
            ConfigError: A value that names no device, or one that is not there.
        """

    @staticmethod
    @abstractmethod
    def get_parallel_devices(devices: object) -> list[torch.device]:
        """Return the devices of this node for what `parse_devices` returned, in local-rank order."""

    @staticmethod
    @abstractmethod
    def auto_device_count() -> int:
        """Return how many devices `devices="auto"` means."""

    @staticmethod
    @abstractmethod
    def is_available() -> bool:
        """Return whether this machine has at least one such device."""

    @classmethod
    def parse_among(cls, devices: object, available: int) -> object:
        """`parse_devices` where `available` devices are there, whatever this machine has.

        Ours answer from `available` alone, so that a plan can be made for another machine; by default it is ignored.
        """
        return cls.parse_devices(devices)

    @staticmethod
    def backend() -> str:
        """Return the `torch.distributed` backend string, such as `"cpu:gloo,cuda:nccl"`."""
        return "gloo"

    def device_stats(self, device: torch.device) -> dict[str, float]:
        """Return numbers about the device (bytes in use, …); empty where there are none."""
        return {}

    def peak_flops(self, device: torch.device, dtype: torch.dtype) -> float | None:
        """Return the chip's theoretical peak in FLOP/s for `dtype`, or `None` where it is unknown."""
        return None


def check_device_type(device: torch.device, expected: str) -> None:
    """Refuse a device of another type than the accelerator's.

    Raises:
        ConfigError: `device` is of another type.
    """
    if device.type != expected:
        raise ConfigError(
            f"the {expected} accelerator cannot set up {device}: device should be {expected}. Pass torch.device({expected!r})."
        )
