import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.trainer.metrics.options import Options
from leyden.trainer.metrics.slot import Slot


class OnDevice(torch.Tensor):
    """Says that it is not on the CPU, so that slots treat it as a tensor on a device; it cannot be read."""

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def item(self) -> Any:
        raise AssertionError("a device was waited for")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def on_device(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(value, dtype=dtype).as_subclass(OnDevice)


def on_cpu(value: float) -> torch.Tensor:
    return torch.tensor(value)


def slot(reduce: Any = "mean", *, on_step: bool = True, on_epoch: bool = True, enable_graph: bool = False) -> Slot:
    options = Options(
        prog_bar=False,
        logger=True,
        on_step=on_step,
        on_epoch=on_epoch,
        reduce=reduce,
        enable_graph=enable_graph,
        sync_dist=False,
        sync_dist_group=None,
        add_dataloader_idx=True,
        metric_attribute=None,
        rank_zero_only=False,
    )
    return Slot("a", "training_step", None, options, None, is_weighted=True)


def plain(value: Any) -> float:
    return float(value.as_subclass(torch.Tensor)) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("make", [float, on_cpu, on_device])
@pytest.mark.parametrize(("reduce", "expected"), [("mean", (1 * 3 + 5 * 1 + 2 * 2) / 6), ("sum", 8.0), ("max", 5.0), ("min", 1.0)])
def test_an_epoch_is_reduced_with_the_weights_of_its_batches(make: Any, reduce: str, expected: float) -> None:
    kept = slot(reduce)
    for value, size in ((1.0, 3), (5.0, 1), (2.0, 2)):
        kept.update(make(value), size)
    assert plain(kept.own_epoch_value()) == expected
    assert plain(kept.step_value()) == 2.0


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_numbers_and_tensors_of_a_device_mix(reduce: str) -> None:
    mixed, floats = slot(reduce), slot(reduce)
    for index, value in enumerate((1.0, 5.0, 2.0)):
        mixed.update(value if index == 1 else on_device(value), index + 1)
        floats.update(value, index + 1)
    assert plain(mixed.own_epoch_value()) == pytest.approx(floats.own_epoch_value())


@pytest.mark.parametrize("make", [float, on_cpu, on_device])
@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "min"])
def test_not_a_number_is_never_lost(make: Any, reduce: str) -> None:
    kept = slot(reduce)
    for value in (1.0, math.nan, 2.0):
        kept.update(make(value), 1)
    assert math.isnan(plain(kept.own_epoch_value()))


@pytest.mark.parametrize("make", [on_cpu, on_device])
def test_a_tensor_may_be_changed_by_its_owner_afterwards(make: Any) -> None:
    kept, value = slot(), make(1.0)
    kept.update(value, 1)
    with torch.no_grad():
        value.mul_(100)
    assert plain(kept.step_value()) == plain(kept.own_epoch_value()) == 1.0


def test_a_published_sum_does_not_grow() -> None:
    kept = slot("sum")
    kept.update(on_device(1.0), 1)
    published = kept.own_epoch_value()
    kept.update(on_device(1.0), 1)
    assert plain(published) == 1.0


def test_values_of_half_precision_are_added_up_in_a_wider_one() -> None:
    kept = slot("sum")
    for _ in range(3000):
        kept.update(on_device(1.0, torch.float16), 1)
    assert plain(kept.own_epoch_value()) == 3000.0


def test_an_accumulator_made_in_inference_mode_takes_values_of_training() -> None:
    kept = slot()
    with torch.inference_mode():
        kept.update(on_device(1.0), 1)
    kept.update(on_device(3.0), 1)
    assert plain(kept.own_epoch_value()) == 2.0


def test_the_graph_is_dropped_unless_asked_for() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    kept, cut = slot(enable_graph=True), slot()
    for each in (kept, cut):
        each.update(weight * 3, 1)
        each.update(weight * 5, 1)
    assert isinstance(cut.own_epoch_value(), float)
    total = kept.own_epoch_value()
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert weight.grad is not None
    assert weight.grad.item() == 4.0


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warnings")
@pytest.mark.parametrize("value", [True, 1, np.float64(1), np.float32(1), np.int64(1), torch.ones(1, 1), torch.nn.Parameter(torch.ones(1))])
def test_whatever_is_one_number_can_be_logged(value: Any) -> None:
    kept = slot()
    kept.update(value, 1)
    assert kept.step_value() == 1.0
    assert type(kept.step_value()) is float


def test_integer_tensors_are_converted_with_one_warning() -> None:
    kept = slot()
    with pytest.warns(UserWarning, match="means need floating point"):
        kept.update(torch.tensor(1), 1)
    kept.update(torch.tensor(2), 1)  # warnings are errors in tests
    assert kept.own_epoch_value() == 1.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2), "the tensor must have a single element"),
        ({"b": 1.0}, "nested dictionaries cannot be logged"),
        ([1.0], "`list` values cannot be logged"),
        ("text", "`str` values cannot be logged"),
        (None, "`NoneType` values cannot be logged"),
        (np.zeros(1), "`ndarray` values cannot be logged"),
        (1j, "`complex` values cannot be logged"),
    ],
)
def test_what_is_no_number_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        slot().update(value, 1)


def test_double_precision_is_remembered() -> None:
    kept = slot()
    kept.update(1.0, 1)
    assert not kept.double
    kept.update(torch.tensor(1.0, dtype=torch.float64), 1)
    assert kept.double


def test_only_what_forks_gets_a_suffix() -> None:
    assert (slot().step_name, slot().epoch_name, slot().plain) == ("a_step", "a_epoch", "a")
    assert slot(on_step=False).epoch_name == "a"
    assert slot(on_epoch=False).step_name == "a"
