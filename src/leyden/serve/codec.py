"""Bodies of requests become values, values become bodies of answers. Used in workers, so that both HTTP paths have one code.

JSON is read by msgspec, and by Python's `json` where the two differ (NaN, integers beyond 64 bits, a byte order mark), so that
what users know stays true. What cannot be read is the client's mistake and says where.
"""

import dataclasses
import io
import json
import math
import sys
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from leyden.core.lazy import Later
from leyden.serve.faults import Fault
from leyden.serve.hooks import HookPlan, InputKind

JSON, TEXT, BYTES = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
_SEQUENCES: tuple[type, ...] = (list, tuple, set, frozenset)
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_msgspec: Any = Later("msgspec")
_form_parser: Any = Later("python_multipart.multipart")


class Upload(NamedTuple):
    """A file of a form.

    Args:
        filename: As the client calls it.
        content_type: As the client says.
        file: The bytes, open for reading.
    """

    filename: str
    content_type: str
    file: io.BytesIO

    def read(self) -> bytes:
        """Return all bytes, from the beginning."""
        return self.file.getvalue()


def decode_body(body: bytes | bytearray | memoryview, content_type: str, plan: HookPlan) -> Any:
    """Return what `decode_request` gets.

    Args:
        body: As it came.
        content_type: Of the request; empty if it names none.
        plan: What the hook takes.

    Raises:
        Fault: 400 for what is no JSON or no form, 415 for a type that nobody reads, 422 for a wrong shape.
    """
    if plan.input is InputKind.RAW:
        return bytes(body)
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _FORMS:
        value: Any = read_form(bytes(body), content_type)
    elif kind in {"", "text/plain"} or kind == JSON or (kind.startswith("application/") and kind.endswith("+json")):
        value = read_json(body)
    else:
        raise Fault(415, "request.unsupported_type", f"Content-Type {kind!r} is not read here. Send {JSON}, {_FORMS[0]} or {_FORMS[1]}.")
    return validated(value, plan.input_type) if plan.input is InputKind.TYPED else value


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
        return _msgspec.json.decode(body)
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


# -- forms --------------------------------------------------------------------------------------------------------


def read_form(body: bytes, content_type: str) -> dict[str, Any]:
    """Return a form's fields: text, or `Upload` for a file; a list where a name comes several times.

    Raises:
        Fault: 400 if it is no form.
    """
    found: dict[str, Any] = {}
    if content_type.partition(";")[0].strip().lower() == _FORMS[0]:
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True)
        except ValueError as error:
            raise Fault(400, "request.invalid_form", f"The body is no form: {error}.") from error
        for name, value in fields:
            _keep(found, name, value)
        return found

    def on_field(field: Any) -> None:
        _keep(found, _text(field.field_name), _text(field.value))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        kind = _text(getattr(file, "content_type", None)) or BYTES
        _keep(found, _text(file.field_name), Upload(_text(file.file_name), kind, io.BytesIO(file.file_object.read())))
        file.close()

    headers = {"Content-Type": content_type.encode("latin-1", "replace"), "Content-Length": str(len(body)).encode()}
    config = {"MAX_MEMORY_FILE_SIZE": max(len(body), 1)}  # all of it is in memory already
    try:
        parser = _form_parser.create_form_parser(headers, on_field, on_file, config=config)
        parser.write(body)
        parser.finalize()
    except Exception as error:  # its errors have no common class, and every one is about the client's bytes
        raise Fault(400, "request.invalid_form", f"The body is no form: {error}.") from error
    return found


def _keep(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        found[name] = [*found[name], value] if isinstance(found[name], list) else [found[name], value]
    else:
        found[name] = value


def _text(value: Any) -> str:
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- typed input --------------------------------------------------------------------------------------------------


def validated(value: Any, wanted: Any) -> Any:
    """Return a value as the class that a hook names.

    Raises:
        Fault: 422, with a list of what is wrong where, as FastAPI gives it.
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(wanted, type) and issubclass(wanted, pydantic.BaseModel):
        try:
            return typing.cast("Any", wanted).model_validate(value)
        except pydantic.ValidationError as error:
            mistakes = [{**each, "loc": ["body", *each["loc"]]} for each in error.errors(include_url=False, include_context=False)]
            raise _unfit(mistakes) from None
    try:
        return _msgspec.convert(value, wanted)
    except _msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        steps = [step for step in place.rstrip("`").replace("[", ".").replace("]", "").split(".") if step]
        raise _unfit([{"type": "invalid", "loc": ["body", *steps], "msg": text, "input": value}]) from None


def _unfit(mistakes: list[dict[str, Any]]) -> Fault:
    first = mistakes[0]
    where = ".".join(map(str, first["loc"]))
    return Fault(422, "request.invalid", f"{where}: {first['msg']}", detail=json.loads(write_json(mistakes)))


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
        return _msgspec.json.encode(value, enc_hook=_plain)
    except (OverflowError, ValueError, RecursionError):  # integers beyond 64 bits, lone surrogates
        return json.dumps(_finite(value), default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """Return a value of another library as one that JSON has."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return value.tolist()
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} cannot be written as JSON. Return numbers, text, lists, dicts, arrays or "
        "bytes from encode_response()."
    )


def _finite(value: Any) -> Any:
    """Return a value whose floats JSON has, down to any depth: for the slow writer, which would write NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, _SEQUENCES):
        return [_finite(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _finite(dataclasses.asdict(value))
    return value if isinstance(value, str | int | None) else _finite(_plain(value))
