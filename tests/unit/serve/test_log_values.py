"""Values for loggers: what can be sent comes out as it went in, or as plain numbers and lists; what cannot is told."""

import dataclasses
import datetime
import enum
import math
import sys
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
import torch

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.log_values import MAX_BYTES, MAX_ITEMS, pack, unpack


@dataclasses.dataclass
class Point:
    x: float


class Struct(msgspec.Struct):
    x: float


class Model(pydantic.BaseModel):
    x: float


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [0.5, -3, 2**63, True, None, "text", "ü\u0000", b"\x00\xff", [1, [2.5, None]], {"a": {"b": [1]}}, {1: "one"}, math.inf, 10**15, [], {}],
)
def test_plain_values_come_out_as_they_went_in(value: Any) -> None:
    assert unpack(pack(value)) == value


def test_nan_and_dates_stay_what_they_are() -> None:
    assert math.isnan(unpack(pack(math.nan)))
    now = datetime.datetime.now(datetime.UTC)
    assert unpack(pack(now)) == now


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(2.0), 2.0),
        (np.arange(3), [0, 1, 2]),
        (torch.tensor(0.5), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 2.0]),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        ({"loss": torch.tensor(0.5), "shape": torch.Size([1, 2])}, {"loss": 0.5, "shape": [1, 2]}),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (Point(1.0), {"x": 1.0}),
        (Struct(1.0), {"x": 1.0}),
        (Model(x=1.0), {"x": 1.0}),
        (Color.RED, "red"),
    ],
)
def test_others_come_out_as_numbers_lists_and_dicts(value: Any, found: Any) -> None:
    came = unpack(pack(value))
    assert (came, type(came)) == (found, type(found))


class Array:
    """As other libraries have them."""

    shape = (2,)

    def tolist(self) -> list[int]:
        return [1, 2]


def test_arrays_of_other_libraries() -> None:
    assert unpack(pack(Array())) == [1, 2]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "a builtins.object is no value that can be sent. Log numbers, text"),
        ({"f": sys.stdout}, "is no value that can be sent"),
        (2**64, "Log numbers"),
        (1j, "a builtins.complex is no value"),
        (lambda: 1, "a builtins.function is no value"),
    ],
)
def test_what_cannot_be_sent_is_told(value: Any, told: str) -> None:
    with pytest.raises(ConfigTypeError, match=told.replace(".", r"\.")):
        pack(value)


def test_what_holds_itself_is_told() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigTypeError):
        pack(endless)


def test_large_values_are_told_before_they_are_made() -> None:
    big = torch.zeros(1).expand(MAX_ITEMS + 1)
    with pytest.raises(ConfigError, match=r"its Tensor has 65,537 items, and loggers take 65,536. Log a summary"):
        pack({"weights": big})
    with pytest.raises(ConfigError, match="its ndarray has"):
        pack(np.broadcast_to(np.zeros(1), (1 << 20, 1 << 10)))
    with pytest.raises(ConfigError, match="it has 262,149 bytes, and loggers take 262,144"):
        pack("x" * MAX_BYTES)
