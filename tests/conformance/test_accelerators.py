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
from tests.conformance.accelerator_suite import AcceleratorSuite


class VendorAccelerator(IndexedAccelerator):
    device_type = "mtia"  # in torch, registered by nobody here
    collective_backend = "hccl"


class TestCPU(AcceleratorSuite):
    accelerator = CPUAccelerator()


class TestCUDA(AcceleratorSuite):
    accelerator = CUDAAccelerator()


class TestMPS(AcceleratorSuite):
    accelerator = MPSAccelerator()


class TestXPU(AcceleratorSuite):
    accelerator = XPUAccelerator()


class TestVendor(AcceleratorSuite):
    accelerator = VendorAccelerator()

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
