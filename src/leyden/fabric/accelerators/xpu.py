"""`XPUAccelerator`: Intel GPUs. All it needs is in `IndexedAccelerator`, as for every device with a torch module."""

from leyden.fabric.accelerators.indexed import IndexedAccelerator


class XPUAccelerator(IndexedAccelerator):
    """The GPUs behind `torch.xpu`."""

    device_type = "xpu"
    collective_backend = "xccl"
