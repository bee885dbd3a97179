"""What workers are told, from the arguments of a server."""

import pytest

from leyden.serve.devices import Device
from leyden.serve.test_examples import SimpleLitAPI
from leyden.serve.wiring import replicas_of


@pytest.mark.parametrize(
    ("devices", "given"),
    [
        (["cpu"], ["cpu", "cpu"]),
        ([["cuda:0"], ["cuda:1"]], ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        ([["mps:0"]], ["mps:0", "mps:0"]),
        ([["cuda:0", "cuda:1"]], [["cuda:0", "cuda:1"]] * 2),
    ],
)
def test_setup_gets_a_device_or_the_list_of_several(devices: list[Device], given: list[Device]) -> None:
    found = replicas_of([SimpleLitAPI()], devices, [2], [], stall_seconds=1.0, logs=False)
    assert [spec.device for spec in found[0].specs] == given
