import argparse
import datetime
import enum
import io
import pickle
import sys
import threading
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leyden.core.errors import ConfigError, CorruptDataError
from leyden.fabric.attribute_dict import AttributeDict
from leyden.fabric.checkpoint.opaque import Opaque
from leyden.fabric.checkpoint.tree import storable
from leyden.trainer.core.hparams import decode, encode, encode_hparams, given_arguments, giving


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Named(enum.StrEnum):
    ONE = "one"


class Bits(enum.Flag):
    A = 1
    B = 2


@dataclass(frozen=True)
class Point:
    x: int
    y: "Point | None" = None
    tags: list[str] = field(default_factory=list)


Pair = namedtuple("Pair", ["left", "right"])


def stored(value: Any) -> Any:
    """Return what a file gives back that is read without running anything, written by torch and by a checkpoint."""
    for form in (value, storable(value)):
        buffer = io.BytesIO()
        torch.save(form, buffer)
        buffer.seek(0)
        result = torch.load(buffer, weights_only=True)
    return result


def round_trip(value: Any) -> Any:
    return decode(stored(encode(value)))


# -- the law -----------------------------------------------------------------------------------------------------

_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(datetime.UTC), allow_imaginary=False)
    | st.dates()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([*Color, *Named, Bits.A, Bits.A | Bits.B, Bits(0), Path("a/b"), PurePosixPath("c"), PureWindowsPath("d\\e")])
    | st.sampled_from([torch.float16, torch.device("cpu"), torch.Size([1, 2]), nn.ReLU, int, Color])
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9))
    | st.floats(allow_nan=False).map(np.float64)
    | st.integers(-100, 100).map(np.int8)
)
_keys = (
    st.text()
    | st.integers()
    | st.none()
    | st.booleans()
    | st.tuples(st.integers(), st.text())
    | st.sampled_from(Color)
    | st.just("$leyden")
)
_hashable = st.integers() | st.text() | st.sampled_from(Color) | st.dates()
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_keys, inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict)
        | st.frozensets(_hashable, max_size=3)
        | st.sets(_hashable, max_size=3)
        | st.builds(Point, st.integers(), st.none() | st.builds(Point, inner), st.lists(st.text(), max_size=2))
        | st.builds(Pair, inner, inner)
        | st.builds(slice, inner, inner)
        | st.dictionaries(st.text(), inner, max_size=2).map(lambda values: defaultdict(list, values))
        | st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), inner, max_size=2).map(lambda values: argparse.Namespace(**values))
        | st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), inner, max_size=2).map(lambda values: SimpleNamespace(**values))
    ),
    max_leaves=8,
)


@given(_values)
def test_what_is_encoded_is_read_safely_and_decoded_to_the_same(value: Any) -> None:
    assert round_trip(value) == value


@given(_leaves)
def test_leaves_keep_their_class(value: Any) -> None:
    assert type(round_trip(value)) is type(value)


@given(_values)
def test_plain_values_are_not_copied(value: Any) -> None:
    plain = encode(value)
    if plain is value:
        assert decode(plain) is plain


# -- kinds -------------------------------------------------------------------------------------------------------


def test_tensors_and_arrays_come_back() -> None:
    weights = torch.arange(4.0)
    assert encode(weights) is weights
    array = np.arange(6, dtype="<i2").reshape(2, 3)
    result = round_trip({"a": array, "s": np.array(["x", "yz"]), "e": np.zeros((0, 2)), "d": np.datetime64("2020-01-02")})
    assert np.array_equal(result["a"], array)
    assert result["a"].dtype == array.dtype
    assert result["a"].flags.writeable
    assert result["s"].tolist() == ["x", "yz"]
    assert result["e"].shape == (0, 2)
    assert result["d"] == np.datetime64("2020-01-02")


def test_containers_keep_their_factory_fields_and_zone() -> None:
    value = {
        "d": defaultdict(int, a=1),
        "n": argparse.Namespace(lr=0.1),
        "t": datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        "p": Pair(1, Path("x")),
    }
    result = round_trip(value)
    assert result["d"]["new"] == 0
    assert (type(result["n"]), type(result["p"])) == (argparse.Namespace, Pair)
    assert result["t"].fold == 1
    assert str(result["t"].tzinfo) == "Europe/Berlin"


def test_subclasses_of_plain_values_become_these() -> None:
    class Text(str):
        __slots__ = ()

    class Numbers(list[int]):
        pass

    result = round_trip({"c": Counter("aab"), "a": AttributeDict(x=1), "t": Text("x"), "n": Numbers([1])})
    assert result == {"c": {"a": 2, "b": 1}, "a": {"x": 1}, "t": "x", "n": [1]}
    assert [type(item) for item in result.values()] == [dict, dict, str, list]


def test_user_dictionaries_may_hold_the_mark() -> None:
    for value in ({"$leyden": "path", "value": ["Path", "x"]}, {"$leyden": 1}, {"a": {"$leyden": "opaque", "value": "x"}}):
        assert round_trip(value) == value


def test_a_class_that_is_not_imported_stays_opaque_and_nothing_is_imported() -> None:
    sys.modules.pop("colorsys", None)
    for kind, payload in (
        ("class", "colorsys:Absent"),
        ("enum", ["colorsys:Color", "RED", 1]),
        ("dataclass", ["colorsys:Point", {"x": 1}]),
        ("namedtuple", ["colorsys:Pair", [1]]),
    ):
        result = decode({"$leyden": kind, "value": payload})
        assert isinstance(result, Opaque)
        assert result.name.startswith("colorsys.")
    assert "colorsys" not in sys.modules


def test_a_lazy_attribute_of_a_module_is_not_asked_for() -> None:
    import leyden.trainer

    vars(leyden.trainer).pop("isolate_rng", None)
    assert isinstance(decode({"$leyden": "class", "value": "leyden.trainer:isolate_rng"}), Opaque)
    assert "isolate_rng" not in vars(leyden.trainer)


def test_only_enums_dataclasses_and_tuples_are_built_under_these_names() -> None:
    for kind, payload in (
        ("enum", ["subprocess:Popen", "RED", 1]),
        ("dataclass", ["subprocess:Popen", {"args": "ls"}]),
        ("namedtuple", ["subprocess:Popen", ["ls"]]),
        ("class", "os:system"),
    ):
        assert isinstance(decode({"$leyden": kind, "value": payload}), Opaque)
    gone = decode({"$leyden": "enum", "value": [f"{Color.__module__}:Color", "GREEN", 3]})
    assert isinstance(gone, Opaque)


def test_damaged_payloads_are_called_that() -> None:
    for kind, payload in (("range", ["a"]), ("path", ["PosixPath"]), ("uuid", "x"), ("numpy_array", ["O", [1], b"12345678"]), ("new", 1)):
        with pytest.raises(CorruptDataError, match="checkpoint holds a"):
            decode({"$leyden": kind, "value": payload})


def test_opaque_values_stay_opaque() -> None:
    result = round_trip({"a": Opaque("research.Mixup", (1,))})
    assert (type(result["a"]), result["a"].name) == (Opaque, "research.Mixup")


def test_a_container_inside_itself_is_refused() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    with pytest.raises(ConfigError, match=r"checkpoint\['a'\]\[0\] contains itself"):
        encode(value)


# -- objects without a row ---------------------------------------------------------------------------------------


def test_other_objects_are_pickled_and_read_only_from_trusted_files() -> None:
    plain = stored(encode({"state": [Fraction(1, 3)], "where": {"deep": Path("x")}}))
    with pytest.raises(ConfigError, match=r"only pickle can read, at \"checkpoint\['state'\]\[0\]\".*weights_only=False"):
        decode(plain)
    assert decode(plain, trusted=True) == {"state": [Fraction(1, 3)], "where": {"deep": Path("x")}}


def test_pickles_inside_other_kinds_are_found_too() -> None:
    plain = stored(encode({"n": argparse.Namespace(f=Fraction(1, 3))}))
    with pytest.raises(ConfigError, match="only pickle can read"):
        decode(plain)
    assert decode(plain, trusted=True)["n"].f == Fraction(1, 3)


def test_what_cannot_be_pickled_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\['a'\] is of type lock, which is neither plain data nor can be pickled"):
        encode({"a": threading.Lock()}, "callbacks")

    class Local(enum.Enum):
        A = 1

    with pytest.raises(ConfigError, match="neither plain data nor can be pickled"):
        encode(Local.A)


def test_hyper_parameters_without_a_row_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="Attribute 'lock' removed from hparams because it cannot be pickled"):
        plain = encode_hparams({"lr": 0.1, "lock": threading.Lock(), "net": nn.Linear(1, 1), "root": Path("x")})
    result = decode(stored(plain))
    assert result.keys() == {"lr", "lock", "root"}
    assert isinstance(result["lock"], Opaque)
    assert result["root"] == Path("x")


def test_functions_and_lambdas_are_left_out_by_name() -> None:
    with pytest.warns(UserWarning, match="removed from hparams"):
        result = decode(encode_hparams({"act": torch.relu, "f": lambda: 1, "g": pickle.dumps}))
    assert {name: type(value) for name, value in result.items()} == dict.fromkeys(("act", "f", "g"), Opaque)
    assert result["g"].name == "_pickle.dumps"


def test_arguments_can_be_given_by_somebody_else() -> None:
    assert given_arguments() is None
    with giving({"class_path": "Model"}):
        assert given_arguments() == {"class_path": "Model"}
    assert given_arguments() is None


def test_a_uuid_is_no_integer() -> None:
    value = uuid.UUID(int=7)
    assert round_trip([value, Decimal("1.0")]) == [value, Decimal("1.0")]
