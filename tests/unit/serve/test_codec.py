"""Bodies in and out: JSON as Python reads and writes it, forms, typed values; and no mistake of a client is ever a 500."""

import dataclasses
import datetime
import gzip
import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, TypedDict

import msgspec
import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.serve.codec import BYTES, JSON, decode_body, encode_value, read_json, write_json
from leyden.serve.faults import Fault, HookCall, fault_of
from leyden.serve.forms import Upload, read_form
from leyden.serve.hooks import Form, Hook, HookPlan, InputKind

HOOK = Hook(Form.SYNC, wants_context=False, is_own=False)


def plan(kind: InputKind = InputKind.ANY, wanted: Any = None) -> HookPlan:
    hooks = dict.fromkeys(("decode_request", "batch", "predict", "unbatch", "encode_response"), HOOK)
    return HookPlan(**hooks, input=kind, input_type=wanted)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def status_of(call: Callable[[], Any]) -> int:
    """Return the status of the fault that a call raises; 0 if it raises none."""
    try:
        call()
    except Fault as fault:
        return fault.status
    return 0


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


@given(values)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    text = json.dumps(value).encode()
    assert same(read_json(text), json.loads(text))


@given(values)
def test_json_is_written_as_python_writes_it_but_for_what_is_no_json(value: Any) -> None:
    def finite(each: Any) -> Any:
        if isinstance(each, float):
            return each if math.isfinite(each) else None
        if isinstance(each, list):
            return [finite(inner) for inner in each]
        return {key: finite(inner) for key, inner in each.items()} if isinstance(each, dict) else each

    assert same(json.loads(write_json(value)), finite(value))


WORDS = r"""
0 -0 1 -1 01 1. .5 +1 -0.0 1e5 1E+5 1e400 1e-400 5e-324 0.1 9007199254740993.0 9223372036854775808 18446744073709551616 0x10 1_0
NaN Infinity -Infinity -NaN nan true True null // [ ] { } , : ' \
" "a" "\ud800" "\ud800\u0041" "\udc00\ud800" "\ud83d\ude00" "\x" "\/" "\u12" "é" "a":1
"""
PIECES = (*WORDS.split(), " ", "\n", "\t", "\x0b", "\x00", "\u00a0", "\ufeff", '"\x01"', '"\x7f"')


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.sampled_from(["{}", "[{}]", '{{"a":{}}}', "{{{}:1}}", '{{"a":1,"a":{}}}']))
def test_what_python_refuses_is_refused_and_what_it_reads_is_read_the_same(pieces: list[str], around: str) -> None:
    text = around.format("".join(pieces)).encode()
    try:
        wanted = json.loads(text)
    except ValueError:
        assert status_of(lambda: read_json(text)) == 400
    else:
        assert same(read_json(text), wanted)


@given(st.floats(allow_nan=False), st.text("0123456789", min_size=1, max_size=30), st.integers(-340, 320))
def test_numbers_are_rounded_as_python_rounds_them(number: float, digits: str, exponent: int) -> None:
    for text in (repr(number), f"1.{digits}e{exponent}", f"0.{digits}"):
        assert repr(read_json(text.encode())) == repr(json.loads(text))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_400(body: bytes) -> None:
    assert status_of(lambda: read_json(body)) in {0, 400}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "The body is empty"),
        (b'{"a": }', "line 1, column 7"),
        (b"[" * 100_000, "too deeply"),
        (b'{"a": "\xff"}', "byte 7 is 0xff"),
        (b"input=4&b=2", "x-www-form-urlencoded"),
        (b"1" * 5000, "no JSON"),
    ],
)
def test_what_is_no_json_says_where(body: bytes, told: str) -> None:
    with pytest.raises(Fault, match=told) as raised:
        read_json(body)
    assert raised.value.status == 400


def test_what_msgspec_and_json_see_differently_is_as_json_sees_it() -> None:
    assert read_json(b"\xef\xbb\xbf{}") == {}
    assert math.isnan(read_json(b"NaN"))
    assert read_json(b"-Infinity") == -math.inf
    assert read_json(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert read_json(b'{"a": 1, "a": 2}') == {"a": 2}
    assert read_json(b'"\\ud800"') == "\ud800"
    assert json.loads(write_json(["\ud800", 2**70, math.nan])) == ["\ud800", 2**70, None]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"])
def test_types_that_are_json(kind: str) -> None:
    assert decode_body(b"[1]", kind, plan()) == [1]


def test_other_types() -> None:
    with pytest.raises(Fault, match="'image/png' is not read here") as raised:
        decode_body(b"x", "image/png", plan())
    assert raised.value.status == 415
    assert decode_body(memoryview(b"\x00x"), "image/png", plan(InputKind.RAW)) == b"\x00x"


# -- forms --------------------------------------------------------------------------------------------------------


def test_forms_with_fields_and_files() -> None:
    assert read_form(b"a=1&b=x+y&a=2&c=%C3%A9", "application/x-www-form-urlencoded") == {"a": ["1", "2"], "b": "x y", "c": "é"}
    large = bytes(range(256)) * 8000  # beyond what is usually kept in memory
    body = (
        b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nhello\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        + large
        + b"\r\n--x--\r\n"
    )
    found = decode_body(body, "multipart/form-data; boundary=x", plan())
    assert found["text"] == "hello"
    assert isinstance(found["file"], Upload)
    assert (found["file"].filename, found["file"].content_type) == ("a.png", "image/png")
    assert found["file"].read() == found["file"].file.read() == large


@given(st.binary(max_size=80))
def test_any_bytes_are_a_form_or_a_400(body: bytes) -> None:
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data"):
        assert status_of(lambda kind=kind: read_form(body, kind)) in {0, 400}


# -- typed values -------------------------------------------------------------------------------------------------


class Model(pydantic.BaseModel):
    x: float
    tags: list[str] = []


class Struct(msgspec.Struct):
    x: float
    tags: list[str] = []


@dataclasses.dataclass
class Data:
    x: float
    tags: list[str] = dataclasses.field(default_factory=list)


class Typed(TypedDict):
    x: float
    tags: list[str]


class Renamed(pydantic.BaseModel):
    x: int = pydantic.Field(serialization_alias="ecks")


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


DERIVED = '{"null":["t",3,0.5,[4],{"x":1.0,"tags":[]},{"x":1.0,"tags":[]}]}'


@pytest.mark.parametrize("wanted", [Model, Struct, Data, Typed])
def test_typed_bodies_are_validated(wanted: Any) -> None:
    typed = plan(InputKind.TYPED, wanted)
    found = decode_body(b'{"x": 1.5, "tags": ["a"]}', JSON, typed)
    assert (found["x"] if wanted is Typed else found.x) == 1.5
    assert isinstance(found, dict if wanted is Typed else wanted)
    with pytest.raises(Fault) as raised:
        decode_body(b'{"x": 1.5, "tags": [3]}', JSON, typed)
    assert (raised.value.status, raised.value.code) == (422, "request.invalid")
    (mistake,) = raised.value.detail
    assert mistake["loc"][:2] == ["body", "tags"]
    assert {"type", "loc", "msg"} <= set(mistake)
    with pytest.raises(Fault):
        decode_body(b"[]", JSON, typed)


# -- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"output": np.float32(2.5)}, '{"output":2.5}'),
        (np.arange(3), "[0,1,2]"),
        (torch.tensor([[1.0, math.nan]]), "[[1.0,null]]"),
        (torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "[1.0,1.0]"),
        (Model(x=1), '{"x":1.0,"tags":[]}'),
        (Struct(1.0), '{"x":1.0,"tags":[]}'),
        ([Data(1.0)], '[{"x":1.0,"tags":[]}]'),
        ({1: (True, None)}, '{"1":[true,null]}'),
        ({True: 1, None: 2.0, 0.5: math.nan}, '{"true":1,"null":2.0,"0.5":null}'),
        ({None: [Text("t"), Number(3), Real(0.5), {4}, Data(1.0), Struct(1.0)]}, DERIVED),
        ({"when": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), True: b"x"}, '{"when":"2026-01-02T03:00:00Z","true":"eA=="}'),
        ([np.longdouble(1.5), np.bool_(True), np.array(["a"])], '[1.5,true,["a"]]'),
        ({np.int64(3): np.float64(math.inf)}, '{"3":null}'),
        (Renamed(x=1), '{"ecks":1}'),
        ({"big": 2**70, "model": Model(x=1)}, '{"big":1180591620717411303424,"model":{"x":1.0,"tags":[]}}'),
    ],
)
def test_what_can_be_returned(value: Any, text: str) -> None:
    assert encode_value(value) == (text.encode(), JSON)


def test_bytes_are_sent_as_they_are_and_other_objects_are_refused() -> None:
    assert encode_value(b"\x00") == (b"\x00", BYTES)
    with pytest.raises(TypeError, match=r"object cannot be written as JSON\. Return numbers"):
        encode_value({"a": object()})


# -- faults -------------------------------------------------------------------------------------------------------


class HTTPException(Exception):  # noqa: N818 - it is called so
    def __init__(self) -> None:
        self.status_code, self.detail, self.headers = 402, {"pay": 1}, {"X-Why": "money"}


def test_what_hooks_raise_becomes_an_answer() -> None:
    wrong = fault_of(KeyError("input"), HookCall("decode_request", ("x",)))
    assert (wrong.status, wrong.code) == (422, "request.invalid")
    broken = fault_of(ValueError("boom"), HookCall("predict"))
    assert (broken.status, broken.body["detail"], broken.body["message"]) == (
        500,
        "Internal server error",
        "predict() raised ValueError: boom",
    )
    assert fault_of(OSError("disk"), HookCall("decode_request")).status == 500
    own = fault_of(HTTPException(), HookCall("predict"))
    assert (own.status, own.body, own.headers) == (402, {"detail": {"pay": 1}}, {"X-Why": "money"})
    again = pickle.loads(pickle.dumps(own))
    assert (again.status, again.body, again.headers) == (own.status, own.body, own.headers)
    assert fault_of(own, HookCall("predict")) is own


def test_a_payload_of_another_shape_is_the_clients_mistake() -> None:
    def raised(call: Callable[[], Any]) -> Fault:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - what a hook raises
            return fault_of(error, HookCall("decode_request", tuple(map(str, range(1000)))))
        raise AssertionError

    payload: Any = [1]
    assert raised(lambda: payload.get("input")).status == 422
    assert raised(lambda: payload["input"]).status == 422
    assert raised(lambda: object().missing).status == 500  # type: ignore[attr-defined]
    assert raised(lambda: {}["x"]).message.endswith("'18', '19', …]")
    assert fault_of(AttributeError("x"), HookCall("decode_request")).status == 500


def cut_image() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((90, 90), 9).save(file, "JPEG")
    return file.getvalue()[:500]


def fail(error: Exception) -> None:
    raise error


def check(value: int) -> None:
    assert value > 0


UNREADABLE: dict[str, Callable[[], Any]] = {
    "no image": lambda: open_image(b"no image"),
    "a part of an image": lambda: open_image(cut_image()),
    "no gzip": lambda: gzip.decompress(b"abc"),
    "no zip": lambda: zipfile.ZipFile(io.BytesIO(b"abc")),
    "too few bytes": lambda: struct.unpack("<i", b"a"),
    "a number too large": lambda: np.array([2**70], dtype=np.int64),
    "a division": lambda: 1 / 0,
    "an assertion": lambda: check(-1),
}
OUR_OWN: dict[str, Callable[[], Any]] = {
    "a file that is not there": lambda: open_image("/not/there.png"),
    "a disk": lambda: fail(OSError("disk")),
    "a device": lambda: fail(RuntimeError("no device")),
}


@pytest.mark.parametrize("what", [*UNREADABLE, *OUR_OWN])
def test_a_file_or_a_number_that_a_decoder_cannot_read_is_the_clients_mistake(what: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what a hook raises
        (UNREADABLE | OUR_OWN)[what]()
    assert fault_of(caught.value, HookCall("decode_request")).status == (422 if what in UNREADABLE else 500)
    assert fault_of(caught.value, HookCall("predict")).status == 500


def open_image(data: Any) -> Any:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data) if isinstance(data, bytes) else data)
    image.load()
    return image


def test_what_a_client_sent_can_be_told_whatever_it_was() -> None:
    fault = fault_of(ValueError("bad \ud800"), HookCall("decode_request", ("\ud800",)))
    assert fault.message.encode()
    assert json.loads(write_json(fault.body))["message"] == fault.message


def test_headers_of_a_hooks_own_exception_are_text() -> None:
    error = HTTPException()
    error.headers = {"Retry-After": 5}  # type: ignore[dict-item]
    assert fault_of(error, HookCall("predict")).headers == {"Retry-After": "5"}
