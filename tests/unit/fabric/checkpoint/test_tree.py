import argparse
import enum
import functools
import io
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.fabric.checkpoint.tree import plain_name, storable, tensors_of
from tests.support.training_state import assert_same_tree

Point = namedtuple("Point", "x y")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def round_trip(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(min_size=1, max_size=20)
    | st.complex_numbers()
    | st.sampled_from([torch.float16, torch.device("cpu"), torch.Size([2, 3]), torch.arange(3), torch.zeros(())])
)
keys = st.text(max_size=5) | st.integers(-9, 9)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=20,
)


@given(trees)
def test_what_is_accepted_round_trips_through_the_safe_reader(value: Any) -> None:
    assert_same_tree(round_trip(storable(value)), value)


@given(
    st.recursive(
        scalars | st.sampled_from([print, object(), range(3), frozenset({1}), Point(1, 2), torch.nn.Linear]), st.lists, max_leaves=8
    )
)
def test_anything_round_trips_or_is_refused(value: Any) -> None:
    try:
        stored = storable(value)
    except ConfigError:
        return
    assert_same_tree(round_trip(stored), value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Path("a/b"), "a/b"),
        (np.float32(1.5), 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(int, a=1), {"a": 1}),
        ({np.int64(1): "one"}, {1: "one"}),
    ],
)
def test_values_of_libraries_become_plain(value: Any, stored: Any) -> None:
    result = storable({"value": value})["value"]
    assert result == stored
    assert type(result) is type(stored)


def test_arrays_become_tensors_of_their_own() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    tensor = storable(array)
    array[0, 0] = 9
    assert torch.equal(tensor, torch.arange(6.0).reshape(2, 3))


def test_objects_with_state_dict_become_their_state() -> None:
    module = torch.nn.Linear(1, 1)
    assert storable([module])[0].keys() == {"weight", "bias"}


def test_parameters_are_stored_detached() -> None:
    stored = storable(torch.nn.Parameter(torch.ones(2)))
    assert type(stored) is torch.Tensor
    assert not stored.requires_grad


def test_the_error_names_the_attribute() -> None:
    hparams = argparse.Namespace(lr=0.1, optimizer=functools.partial(print))
    with pytest.raises(ConfigError, match=r"state\['hparams'\]\.optimizer is a functools\.partial; give it state_dict"):
        storable({"hparams": hparams})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": print}]}, r"state\['a'\]\[1\]\['b'\]"),
        ({(1, 2): 3}, r"state has the key \(1, 2\) of type tuple"),
        ({True: 3}, "has the key True of type bool"),
        (Point(1, 2), r"named tuple\); store x\._asdict"),
        (np.array(["a"]), "numpy array of dtype"),
        (np.array([object()]), "numpy array of dtype object"),
        (torch.nn.Linear, "is a type"),
        ({"a": b""}, r"state\['a'\] is an empty bytes object"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_path(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        storable(value)


def test_a_container_inside_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append(value)
    with pytest.raises(ConfigError, match=r"state\[1\] contains itself"):
        storable(value)


def test_the_same_container_twice_is_no_cycle() -> None:
    shared = [1]
    assert storable([shared, shared]) == [[1], [1]]


def test_tensors_are_found_at_any_depth() -> None:
    assert len(list(tensors_of({"a": [torch.ones(1), (torch.ones(1),)], "b": 1}))) == 2


@pytest.mark.parametrize("name", ["_orig_mod.layer.weight", "layer._orig_mod.weight", "layer._checkpoint_wrapped_module.weight"])
def test_marks_of_wrappers_leave_no_trace_in_names(name: str) -> None:
    assert plain_name(name) == "layer.weight"
