"""The kit for accelerators: names, counting, choosing, set-up. Nothing here needs the device to be there."""

from abc import ABC, abstractmethod

import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.accelerators.accelerator import Accelerator
from leyden.fabric.accelerators.registry import ACCELERATOR_REGISTRY
from leyden.fabric.testing.expectations import expect, expect_equal, refused, skip

_ONE = ("auto", " AUTO ", 1, "1", "1 ")
_NOT_VALID: tuple[object, ...] = (0, "0", [])
_NONE = (*_NOT_VALID, "", "none", -2, "1.5", (), ",")
_OTHER_TYPES = (True, 1.0, None, [0, "1"], [0, True], {0}, {"a": 1})


class AcceleratorConformance(ABC):
    """What every accelerator promises. Register yours under its name before the tests run.

    Example:
        ```python
        class TestNPU(AcceleratorConformance):
            def make(self):
                return NPUAccelerator()
        ```
    """

    @abstractmethod
    def make(self) -> Accelerator:
        """Return the accelerator."""

    def test_name_is_a_lower_case_word(self) -> None:
        name = self.make().name
        expect(name and name == name.lower().strip(), f"the name should be a word in lower case, but is {name!r}")

    def test_is_found_by_its_name_in_any_case(self) -> None:
        accelerator = self.make()
        expect_equal(type(ACCELERATOR_REGISTRY.get(accelerator.name.upper())), type(accelerator), "the registry's class of that name")

    def test_available_means_at_least_one_device(self) -> None:
        accelerator = self.make()
        expect(not accelerator.is_available() or accelerator.auto_device_count() >= 1, "is_available() without any auto_device_count()")

    def test_one_device_is_one_device(self) -> None:
        accelerator = self.make()
        devices = accelerator.get_parallel_devices(accelerator.parse_among(1, 1))
        expect_equal([type(device) for device in devices], [torch.device], "the devices of devices=1")

    def test_ways_to_write_one_device_agree(self) -> None:
        accelerator = self.make()
        for written in _ONE:
            expect_equal(accelerator.parse_among(written, 1), accelerator.parse_among(1, 1), f"devices={written!r} where one is there")

    def test_what_names_no_device_is_refused(self) -> None:
        for nothing in _NONE:
            with refused(f"devices={nothing!r}", ConfigError):
                self.make().parse_among(nothing, 4)

    def test_zero_devices_is_not_a_valid_input(self) -> None:
        for nothing in _NOT_VALID:
            with refused(f"devices={nothing!r}", ConfigError, words="not a valid input"):
                self.make().parse_among(nothing, 4)

    def test_other_types_are_refused(self) -> None:
        for other in _OTHER_TYPES:
            with refused(f"devices={other!r}", ConfigTypeError):
                self.make().parse_among(other, 4)

    def test_device_of_another_type_is_refused(self) -> None:
        with refused("setup_device of a meta device", ConfigError, words="meta"):
            self.make().setup_device(torch.device("meta"))

    def test_backend_serves_tensors_on_the_cpu(self) -> None:
        backend = self.make().backend()
        expect("gloo" in backend, f"objects and stores need gloo for the CPU, such as 'cpu:gloo,cuda:nccl', but backend() is {backend!r}")

    def test_torn_down_twice_is_torn_down(self) -> None:
        accelerator = self.make()
        accelerator.teardown()
        accelerator.teardown()

    def test_device_here_can_be_set_up_and_measured(self) -> None:
        accelerator = self.make()
        if not accelerator.is_available():
            skip(f"this machine has no {accelerator.name} device")
        device = accelerator.get_parallel_devices(accelerator.parse_devices(1))[0]
        accelerator.setup_device(device)
        expect_equal(torch.ones(2, device=device).sum().item(), 2.0, "the sum of two ones on the device")
        for name, value in accelerator.device_stats(device).items():
            expect(isinstance(value, float) and value >= 0, f"device_stats()[{name!r}] should be a float ≥ 0, but is {value!r}")
        accelerator.teardown()
