import pytest
from torch import nn

from leyden.core.errors import UnsupportedError
from leyden.fabric.strategies import SingleDeviceStrategy


def test_a_module_without_values_is_refused_with_both_ways_out():
    with pytest.raises(UnsupportedError, match=r"'weight' of Linear is on the meta device.*init_module\(\).*fsdp"):
        SingleDeviceStrategy("cpu").module_to_device(nn.Linear(2, 2, device="meta"))
