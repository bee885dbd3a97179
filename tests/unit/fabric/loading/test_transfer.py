from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from leyden.fabric.loading.transfer import move_data_to_device

Pair = namedtuple("Pair", ["x", "y"])
META = torch.device("meta")


@dataclass(frozen=True)
class Sample:
    x: Tensor
    name: str = "a"
    later: Tensor = field(init=False)


class Movable:
    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Movable":
        self.device = device
        return self


class ForgetsToReturn(Movable):
    def to(self, device: torch.device) -> None:  # type: ignore[override]
        self.device = device


def devices(value: Any) -> list[str]:
    if isinstance(value, Tensor):
        return [value.device.type]
    if isinstance(value, dict | UserDict | MappingProxyType):
        value = list(value.values())
    return [name for item in value for name in devices(item)]


def tensor() -> Tensor:
    return torch.zeros(2)


@pytest.mark.parametrize(
    "make",
    [
        tensor,
        lambda: [tensor(), tensor()],
        lambda: (tensor(), [tensor()]),
        lambda: {"a": tensor(), "b": {"c": [tensor()]}},
        lambda: Pair(tensor(), (tensor(),)),
        lambda: OrderedDict(b=tensor(), a=tensor()),
        lambda: UserDict(a=tensor()),
        lambda: MappingProxyType({"a": tensor()}),
        lambda: deque([tensor()], maxlen=3),
    ],
    ids=["tensor", "list", "tuple", "dict", "namedtuple", "ordered", "userdict", "proxy", "deque"],
)
def test_every_tensor_of_a_collection_is_moved_and_its_kind_kept(make: Any) -> None:
    batch = make()
    moved = move_data_to_device(batch, META)
    assert type(moved) is type(batch)
    assert set(devices(moved)) == {"meta"}
    assert len(devices(moved)) == len(devices(batch))
    assert set(devices(batch)) == {"cpu"}, "the batch itself was changed"


@pytest.mark.parametrize(
    "make", [tensor, lambda: [tensor(), 1], lambda: {"a": (tensor(), "x")}, lambda: Pair(tensor(), None)], ids=[1, 2, 3, 4]
)
def test_what_is_there_already_is_the_same_object(make: Any) -> None:
    batch = make()
    assert move_data_to_device(batch, "cpu") is batch


@pytest.mark.parametrize("value", ["text", b"bytes", 3, 2.5, None, {1, 2}, object(), Tensor, range(3)])
def test_anything_else_is_returned_as_it_is(value: Any) -> None:
    assert move_data_to_device(value, META) is value


def test_a_default_dict_keeps_its_factory() -> None:
    moved = move_data_to_device(defaultdict(list, a=tensor()), META)
    assert moved["a"].device == META
    assert moved["new"] == []


def test_a_dataclass_is_copied_also_if_frozen_or_unfinished() -> None:
    sample = Sample(tensor())
    moved = move_data_to_device([sample], META)[0]
    assert (moved.x.device, moved.name, sample.x.device.type) == (META, "a", "cpu")


def test_objects_with_a_method_to_move_themselves() -> None:
    assert move_data_to_device({"a": Movable()}, META)["a"].device == META
    assert move_data_to_device([ForgetsToReturn()], "meta")[0].device == META


def test_a_module_is_moved_in_place() -> None:
    module = torch.nn.Linear(2, 2)
    assert move_data_to_device(module, META) is module
    assert module.weight.device == META


def test_packed_sequences_move_by_their_own_method() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)])
    assert move_data_to_device(packed, META).data.device == META


def test_only_accelerators_are_copied_to_without_waiting() -> None:
    class Recorder(Tensor):
        calls: ClassVar[list[tuple[Any, bool]]] = []

        def to(self, device: Any, *, non_blocking: bool = False) -> Any:  # type: ignore[override]
            self.calls.append((device.type, non_blocking))
            return self

    batch = [torch.zeros(1).as_subclass(Recorder)]
    for name in ("cpu", "mps", "cuda", "xpu"):
        move_data_to_device(batch, torch.device(name))
    assert Recorder.calls == [("cpu", False), ("mps", False), ("cuda", True), ("xpu", True)]
