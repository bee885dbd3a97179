"""The accelerators of fabric keep the promises; so does a vendor's of four lines."""

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.accelerators import (
    ACCELERATOR_REGISTRY,
    CPUAccelerator,
    CUDAAccelerator,
    IndexedAccelerator,
    MPSAccelerator,
    XPUAccelerator,
)
from leyden.fabric.testing import AcceleratorConformance


class VendorAccelerator(IndexedAccelerator):
    device_type = "mtia"  # in torch, registered by nobody here
    collective_backend = "hccl"


class TestCPU(AcceleratorConformance):
    def make(self):
        return CPUAccelerator()


class TestCUDA(AcceleratorConformance):
    def make(self):
        return CUDAAccelerator()


class TestMPS(AcceleratorConformance):
    def make(self):
        return MPSAccelerator()


class TestXPU(AcceleratorConformance):
    def make(self):
        return XPUAccelerator()


class TestVendor(AcceleratorConformance):
    def make(self):
        return VendorAccelerator()

    @pytest.fixture(autouse=True)
    def registered(self):
        ACCELERATOR_REGISTRY.register("mtia", VendorAccelerator, description="a vendor's")
        yield
        ACCELERATOR_REGISTRY.remove("mtia")

    def test_removed_name_is_gone(self):
        ACCELERATOR_REGISTRY.register("other", VendorAccelerator)
        ACCELERATOR_REGISTRY.remove("other")
        with pytest.raises(ConfigError, match="'other' is not known"):
            ACCELERATOR_REGISTRY.get("other")
