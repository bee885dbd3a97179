"""Kinds of devices: how they are counted, chosen and set up."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator as Accelerator
    from leyden.fabric.accelerators.cpu import CPUAccelerator as CPUAccelerator
    from leyden.fabric.accelerators.cuda import CUDAAccelerator as CUDAAccelerator
    from leyden.fabric.accelerators.cuda import find_usable_cuda_devices as find_usable_cuda_devices
    from leyden.fabric.accelerators.indexed import IndexedAccelerator as IndexedAccelerator
    from leyden.fabric.accelerators.mps import MPSAccelerator as MPSAccelerator
    from leyden.fabric.accelerators.probe import Probe as Probe
    from leyden.fabric.accelerators.probe import accelerator_for as accelerator_for
    from leyden.fabric.accelerators.probe import probe_machine as probe_machine
    from leyden.fabric.accelerators.registry import ACCELERATOR_REGISTRY as ACCELERATOR_REGISTRY
    from leyden.fabric.accelerators.xpu import XPUAccelerator as XPUAccelerator
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ACCELERATOR_REGISTRY": ".registry",
            "Accelerator": ".accelerator",
            "CPUAccelerator": ".cpu",
            "CUDAAccelerator": ".cuda",
            "IndexedAccelerator": ".indexed",
            "MPSAccelerator": ".mps",
            "Probe": ".probe",
            "XPUAccelerator": ".xpu",
            "accelerator_for": ".probe",
            "find_usable_cuda_devices": ".cuda",
            "probe_machine": ".probe",
        },
    )
