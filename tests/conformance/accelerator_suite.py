"""What every accelerator promises. Subclass it, set `accelerator`, and pytest runs the promises against yours.

```python
class TestNPU(AcceleratorSuite):
    accelerator = NPUAccelerator()
```
"""

from typing import ClassVar

import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.accelerators import ACCELERATOR_REGISTRY, Accelerator


class AcceleratorSuite:
    accelerator: ClassVar[Accelerator]

    def test_name_is_a_lower_case_word(self):
        assert self.accelerator.name == self.accelerator.name.lower().strip() != ""

    def test_is_found_by_its_name_in_any_case(self):
        assert type(ACCELERATOR_REGISTRY.get(self.accelerator.name.upper())) is type(self.accelerator)

    def test_available_means_at_least_one_device(self):
        assert not self.accelerator.is_available() or self.accelerator.auto_device_count() >= 1

    def test_one_device_is_one_device(self):
        devices = self.accelerator.get_parallel_devices(self.accelerator.parse_among(1, 1))
        assert len(devices) == 1
        assert isinstance(devices[0], torch.device)

    @pytest.mark.parametrize("written", ["auto", " AUTO ", 1, "1", "1 "], ids=repr)
    def test_ways_to_write_one_device_agree(self, written):
        assert self.accelerator.parse_among(written, 1) == self.accelerator.parse_among(1, 1)

    @pytest.mark.parametrize("nothing", [0, "0", [], "", "none", -2, "1.5", (), ","], ids=repr)
    def test_what_names_no_device_is_refused(self, nothing):
        with pytest.raises(ConfigError):
            self.accelerator.parse_among(nothing, 4)

    @pytest.mark.parametrize("nothing", [0, "0", []], ids=repr)
    def test_zero_devices_is_not_a_valid_input(self, nothing):
        with pytest.raises(ConfigError, match="not a valid input"):
            self.accelerator.parse_among(nothing, 4)

    @pytest.mark.parametrize("other", [True, 1.0, None, [0, "1"], [0, True], {0}, {"a": 1}], ids=repr)
    def test_other_types_are_refused(self, other):
        with pytest.raises(ConfigTypeError):
            self.accelerator.parse_among(other, 4)

    def test_device_of_another_type_is_refused(self):
        with pytest.raises(ConfigError, match="meta"):
            self.accelerator.setup_device(torch.device("meta"))

    def test_backend_serves_tensors_on_the_cpu(self):
        assert "gloo" in self.accelerator.backend()

    def test_torn_down_twice_is_torn_down(self):
        self.accelerator.teardown()
        self.accelerator.teardown()

    def test_device_here_can_be_set_up_and_measured(self):
        if not self.accelerator.is_available():
            pytest.skip(f"this machine has no {self.accelerator.name} device")
        device = self.accelerator.get_parallel_devices(self.accelerator.parse_devices(1))[0]
        self.accelerator.setup_device(device)
        assert torch.ones(2, device=device).sum().item() == 2.0
        stats = self.accelerator.device_stats(device)
        assert all(isinstance(value, float) and value >= 0 for value in stats.values())
        self.accelerator.teardown()
