"""Bodies of requests become values, values become bodies of answers. Used in workers, so that both HTTP paths have one code.

JSON is read by msgspec, and by Python's `json` where the two differ (NaN, integers beyond 64 bits, a byte order mark), so that
what users know stays true. What cannot be read is the client's mistake and says where.
"""

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from leyden.core.lazy import Later
from leyden.serve.faults import Fault
from leyden.serve.forms import MULTIPART, URLENCODED, read_form
from leyden.serve.hooks import HookPlan, InputKind
from leyden.serve.typed import validated

JSON, NDJSON = "application/json", "application/x-ndjson"
TEXT, BYTES = "text/plain; charset=utf-8", "application/octet-stream"
_SEQUENCES: tuple[type, ...] = (list, tuple, set, frozenset)
_ATOMS = frozenset({str, int, bool})
_EXACT: Mapping[type, str] = {str: "__str__", int: "__int__", float: "__float__"}
_USUAL, _ANY = ("", JSON), InputKind.ANY  # a member of an enum costs as much as reading a small body
_FORMS = (URLENCODED, MULTIPART)
_BRACKETS = (b"{", b"[")
_msgspec: Any = Later("msgspec")


def decode_body(body: bytes | bytearray | memoryview, content_type: str, plan: HookPlan) -> Any:
    """Return what `decode_request` gets.

    Args:
        body: As it came.
        content_type: Of the request; empty if it names none.
        plan: What the hook takes.

    Raises:
        Fault: 400 for what is no JSON or no form, 415 for a type that nobody reads, 422 for a wrong shape.
    """
    if content_type in _USUAL and plan.input is _ANY:  # no further questions
        return read_json(body)
    if plan.input is InputKind.RAW:
        return bytes(body)
    kind = content_type.partition(";")[0].strip().lower()
    is_form = kind in _FORMS
    if is_form:
        _refuse_json(body, kind)
        value: Any = read_form(body, content_type)
    elif kind in {"", "text/plain"} or kind == JSON or (kind.startswith("application/") and kind.endswith("+json")):
        value = read_json(body)
    else:
        raise Fault(415, "request.unsupported_type", f"Content-Type {kind!r} is not read here. Send {JSON}, {URLENCODED} or {MULTIPART}.")
    return validated(value, plan.input_type, is_form=is_form) if plan.input is InputKind.TYPED else value


def _refuse_json(body: bytes | bytearray | memoryview, kind: str) -> None:
    """Tell who sends JSON as a form, as `curl -d` does by itself: it would be read as one field with a long name."""
    if kind != URLENCODED or not bytes(body[:64]).lstrip().startswith(_BRACKETS):
        return
    try:
        read_json(body)
    except Fault:
        return
    raise Fault(415, "request.unsupported_type", f"The body is JSON, and its Content-Type {kind!r}. Send the header Content-Type: {JSON}.")


# -- JSON ---------------------------------------------------------------------------------------------------------


def read_json(body: bytes | bytearray | memoryview) -> Any:
    """Return the value of a JSON text, as `json.loads` would.

    Raises:
        Fault: 400, with the place of the mistake.

    Example:
        >>> read_json(b'{"input": 4.0}')
        {'input': 4.0}
    """
    try:
        return _decoder().decode(body)
    except (ValueError, RecursionError):  # msgspec is strict: Python's own reader decides
        return _read_slowly(bytes(body))


def _read_slowly(body: bytes) -> Any:
    if not body.strip():
        raise Fault(400, "request.invalid_json", 'The body is empty. Send a JSON value, such as {"input": 4.0}.')
    try:
        return json.loads(body)
    except RecursionError:
        raise Fault(400, "request.invalid_json", "The body is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise Fault(400, "request.invalid_json", f"The body is no UTF-8: byte {error.start} is {body[error.start]:#04x}.") from None
    except json.JSONDecodeError as error:
        hint = " Add the header Content-Type: application/x-www-form-urlencoded if it is a form." if b"=" in body[:200] else ""
        raise Fault(
            400, "request.invalid_json", f"The body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}.{hint}"
        ) from None
    except ValueError as error:  # an integer with thousands of digits
        raise Fault(400, "request.invalid_json", f"The body is no JSON: {error}.") from None


# -- answers ------------------------------------------------------------------------------------------------------


def encode_value(value: Any) -> tuple[bytes, str]:
    """Return an answer's body and content type.

    Args:
        value: JSON's types, a dataclass, a Struct, a pydantic model, arrays, tensors, bytes or text. NaN and infinities become null.

    Raises:
        TypeError: There is no way to write it.

    Example:
        >>> encode_value({"output": 16.0})
        (b'{"output":16.0}', 'application/json')
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), BYTES
    return write_json(value), JSON


def write_json(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        TypeError: It is nothing that JSON has.
    """
    try:
        return _encoder().encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Keys that are bools or None, integers beyond 64 bits, lone surrogates; and what nobody can write, which is told here.
        return json.dumps(_finite(value), separators=(",", ":")).encode()


@functools.cache
def _decoder() -> Any:
    return _msgspec.json.Decoder()


@functools.cache
def _encoder() -> Any:
    return _msgspec.json.Encoder(enc_hook=to_plain)


def to_plain(value: Any) -> Any:
    """Return a value that msgspec does not know as one that JSON has."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)  # as FastAPI does
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item()
        return float(item) if isinstance(item, numpy.generic) else item  # a long double is its own item
    if numpy is not None and isinstance(value, numpy.ndarray):
        return value.tolist()
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool):  # a class that the user derived; a bool is a key, for the other writer
            return getattr(kind, _EXACT[kind])(value)
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} cannot be written as JSON. Return numbers, text, lists, dicts, arrays or "
        "bytes from encode_response()."
    )


def _finite(value: Any) -> Any:
    """Return a value in Python's own types and without NaN, down to any depth: for the writer of the standard library."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or type(value) in _ATOMS:
        return value
    if isinstance(value, Mapping):
        return {_key(key): _finite(each) for key, each in value.items()}
    if isinstance(value, _SEQUENCES):
        return [_finite(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _finite(getattr(value, field.name)) for field in dataclasses.fields(value)}
    plain = _msgspec.to_builtins(value, enc_hook=to_plain)  # dates, enums, Structs, bytes, and what other libraries have
    return plain if isinstance(plain, str | int) else _finite(plain)


def _key(key: Any) -> Any:
    return key if key is None or isinstance(key, str | int | float) else _msgspec.to_builtins(key, enc_hook=to_plain)
