"""The accelerators by name: ours, registered ones, and those of entry points in `leyden.fabric.accelerators`."""

from collections.abc import Callable
from typing import Any

from leyden.fabric.registry import Registry


class AcceleratorRegistry(Registry):
    """Names of accelerators.

    Example:
        >>> ACCELERATOR_REGISTRY.get("cpu").name
        'cpu'
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("accelerator", "leyden.fabric.accelerators", **options)

    def available_accelerators(self) -> list[str]:
        """Return the names of the accelerators, sorted, those of entry points included."""
        self.discover()
        return list(self)

    def kind_of(self, name: str) -> Callable[..., Any]:
        """Return the class registered under `name`.

        Raises:
            ConfigError: There is no such name.
        """
        return self.entry(name).load()


ACCELERATOR_REGISTRY = AcceleratorRegistry()
for _name, _target, _description in (
    ("cpu", "leyden.fabric.accelerators.cpu:CPUAccelerator", "the processors of this machine"),
    ("cuda", "leyden.fabric.accelerators.cuda:CUDAAccelerator", "NVIDIA GPUs, and AMD's under ROCm"),
    ("mps", "leyden.fabric.accelerators.mps:MPSAccelerator", "the GPU of an Apple computer"),
    ("xpu", "leyden.fabric.accelerators.xpu:XPUAccelerator", "Intel GPUs"),
):
    ACCELERATOR_REGISTRY.register(_name, _target, _description)
