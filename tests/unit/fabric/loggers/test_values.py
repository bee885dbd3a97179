import numpy
import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.fabric.loggers.values import Snapshot, as_numbers, number_or_refuse, readable, resolve


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        (0.5, 0.5),
        (True, True),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[2]]), 2),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (numpy.float64(0.5), 0.5),
        (numpy.array([3]), 3),
    ],
    ids=repr,
)
def test_one_element_is_a_number(value: object, number: float) -> None:
    (read,) = as_numbers({"x": value}).values()
    assert read == number
    assert not isinstance(read, torch.Tensor)


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(0), numpy.ones(3)])
def test_several_elements_are_refused_with_the_fix(value: object) -> None:
    with pytest.raises(ConfigError, match=r"cannot be converted to a scalar.*loss\.mean\(\)"):
        as_numbers({"loss": value})
    with pytest.raises(ConfigError, match="cannot be converted to a scalar"):
        readable("loss", value)


def test_what_is_no_number_stays() -> None:
    assert as_numbers({"note": "warm-up", "nothing": None}) == {"note": "warm-up", "nothing": None}
    with pytest.raises(ConfigTypeError, match="currently not supported"):
        number_or_refuse("note", "warm-up")


def test_a_value_on_the_cpu_is_read_at_once() -> None:
    value = torch.tensor(1.0)
    read = readable("x", value)
    value.fill_(2.0)
    assert read == 1.0


def test_a_value_on_a_device_is_cloned_and_read_later() -> None:
    assert isinstance(readable("x", torch.empty((), device="meta")), Snapshot)


def test_a_snapshot_does_not_see_later_changes() -> None:
    value = torch.tensor(1.0)
    snapshot = Snapshot(value)
    value.fill_(2.0)
    assert resolve("x", snapshot) == 1.0


def test_functions_are_resolved_and_classes_are_not() -> None:
    assert resolve("x", lambda: torch.tensor(3.0)) == 3.0
    assert resolve("x", dict) is dict
