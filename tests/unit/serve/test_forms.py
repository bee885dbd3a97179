"""Forms are read from raw bytes, wholly or not at all."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.serve import forms
from leyden.serve.codec import decode_body
from leyden.serve.faults import Fault
from leyden.serve.forms import MULTIPART, URLENCODED, Upload, read_form
from leyden.serve.hooks import Form, Hook, HookPlan

HOOK = Hook(Form.SYNC, wants_context=False, is_own=False)
PLAN = HookPlan(decode_request=HOOK, batch=HOOK, predict=HOOK, unbatch=HOOK, encode_response=HOOK)
BOUNDARY = f"{MULTIPART}; boundary=x"


def part(name: str, data: bytes, extra: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"


texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), min_size=1, max_size=12)


@given(st.dictionaries(texts, st.binary(max_size=300).filter(lambda data: b"--x" not in data), max_size=5))
def test_multipart_forms_come_back_as_they_were(files: dict[str, bytes]) -> None:
    body = b"".join(part(name, data, '; filename="f"') for name, data in files.items()) + b"--x--\r\n"
    found = read_form(body, BOUNDARY)
    assert {name: upload.read() for name, upload in found.items()} == files


def seen(body: bytes) -> Any:
    """Return what a form says, in a shape that can be compared; or the error."""
    try:
        found = read_form(body, BOUNDARY)
    except Fault as fault:
        return fault.message
    each = {name: value if isinstance(value, list) else [value] for name, value in found.items()}
    return {name: [(v.filename, v.content_type, v.read()) if isinstance(v, Upload) else v for v in values] for name, values in each.items()}


PIECES = (
    b"--x",
    b"--x--",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b'Content-Disposition: form-data; name="a"',
    b'content-disposition:form-data; name=b; filename="c d"',
    b"Content-Type: text/plain",
    b"Content-Type:",
    b"Content-Transfer-Encoding: base64",
    b"QUJD",
    b"y",
    b" ",
    part("a", b"1"),
    part("b", b"\r\n2", '; filename="f"'),
    part("", b"", '; filename=""'),
)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=9), st.booleans())
def test_plain_forms_are_read_as_the_parser_reads_them(pieces: list[bytes], is_closed: bool) -> None:
    body = b"".join(pieces) + b"--x--\r\n" * is_closed
    with pytest.MonkeyPatch.context() as patch:
        short = seen(body)
        patch.setattr(forms, "_plain_parts", lambda *_: None)
        assert short == seen(body)


def test_names_that_come_several_times_are_lists() -> None:
    assert read_form(b"a=1&a=2&a=3&b=4", URLENCODED) == {"a": ["1", "2", "3"], "b": "4"}
    found = read_form(part("a", b"1") + part("a", b"2", '; filename="f"') + b"--x--\r\n", BOUNDARY)
    assert found["a"][0] == "1"
    assert isinstance(found["a"][1], Upload)


def test_a_large_text_field_and_a_quoted_boundary() -> None:
    large = b"x" * 3_000_000
    body = (part("text", large) + b"--x--\r\n").replace(b"--x", b"--x y")
    assert read_form(body, f'{MULTIPART}; boundary="x y"') == {"text": large.decode()}


@pytest.mark.parametrize("cut", [-1, -4, -8, -12, 60, 10, 0])
def test_a_form_that_was_cut_is_refused_and_loses_no_field_in_silence(cut: int) -> None:
    body = part("first", b"1") + part("second", b"2") + b"--x--"
    with pytest.raises(Fault, match="The body is no form: it ends before its last boundary") as raised:
        read_form(body[:cut], BOUNDARY)
    assert (raised.value.status, raised.value.code) == (400, "request.invalid_form")


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"", MULTIPART, "names no boundary"),
        (b"--y\r\n", BOUNDARY, "boundary"),
        (b"a=\xff", URLENCODED, "utf-8"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n", BOUNDARY, "name"),
    ],
)
def test_what_is_no_form_says_why(body: bytes, kind: str, told: str) -> None:
    with pytest.raises(Fault, match=told) as raised:
        read_form(body, kind)
    assert raised.value.status == 400


def test_forms_of_nothing_but_names_cost_no_more_than_their_length(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.process_time()
    assert len(read_form(b"&".join([b"a=1"] * 100_000), URLENCODED)["a"]) == 100_000
    assert time.process_time() - start < 4  # 0.1 s; with a copy of the list for each field, 13 s
    monkeypatch.setattr(forms, "MAX_FIELDS", 3)
    for body, kind in ((b"a&b&c&d", URLENCODED), (part("a", b"1") * 4 + b"--x--\r\n", BOUNDARY)):
        with pytest.raises(Fault, match="fields"):
            read_form(body, kind)


@pytest.mark.parametrize("body", [b'{"input": 4.0}', b' [1, {"a": "b=c"}]\n'])
def test_json_sent_as_a_form_is_told_which_header_to_send(body: bytes) -> None:
    with pytest.raises(Fault, match="Send the header Content-Type: application/json") as raised:
        decode_body(body, URLENCODED, PLAN)
    assert (raised.value.status, raised.value.code) == (415, "request.unsupported_type")


@pytest.mark.parametrize("body", [b"[0]=1", b"{=", b"input=4"])
def test_forms_that_begin_like_json_are_forms(body: bytes) -> None:
    assert isinstance(decode_body(body, URLENCODED, PLAN), dict)
