"""What a request carries: JSON, bytes as they are, or a form with files; so that it can be sent more than once."""

import io
from collections.abc import Mapping
from typing import Any, Final

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.codec import BYTES, JSON, write_json

Options = dict[str, Any]
_LISTS: tuple[type, ...] = (list, tuple)
NOTHING: Final = object()  # None is a payload: null


def body_of(payload: Any, form: Mapping[str, Any] | None, files: Mapping[str, Any] | None) -> tuple[Options, str]:
    """Return what httpx sends, and the content type; none for a form, whose type httpx writes.

    Args:
        payload: Anything that JSON has, a dataclass, a pydantic model, an array; or bytes.
        form: Its fields.
        files: By field: bytes, an open file, or `(name, bytes or file)`, or `(name, bytes or file, content type)`.

    Raises:
        ConfigError: There is more than one of payload and form, or one cannot be sent.

    Example:
        >>> body_of({"input": 4.0}, None, None)
        ({'content': b'{"input":4.0}'}, 'application/json')
        >>> body_of(b"PNG...", None, None)
        ({'content': b'PNG...'}, 'application/octet-stream')
    """
    if form is None and files is None:
        if isinstance(payload, bytes | bytearray | memoryview):
            return {"content": bytes(payload)}, BYTES
        return {"content": b"" if payload is NOTHING else _json(payload)}, JSON
    if payload is not NOTHING:
        raise ConfigError("payload and form or files are both given, and a request has one body. Put the payload's values into form={…}.")
    options: Options = {}
    if form is not None:
        options["data"] = {name: _field(name, value) for name, value in _mapping("form", form).items()}
    if files is not None:
        options["files"] = {name: _file(name, value) for name, value in _mapping("files", files).items()}
    return options, ""


def _json(payload: Any) -> bytes:
    try:
        return write_json(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigTypeError(
            f"payload={payload!r:.80} cannot be written as JSON. Send numbers, text, lists, dicts, arrays, dataclasses or pydantic "
            "models; bytes are sent as they are, and open files with files={'field': file}."
        ) from error


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigTypeError(f"{name}={given!r:.80} is not accepted: it takes a dict, {{'field': value}}.")
    return given


def _field(name: str, value: Any) -> Any:
    if isinstance(value, _LISTS):
        return [_field(name, each) for each in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    raise ConfigTypeError(
        f"form={{{name!r}: {value!r:.80}}} is not accepted: fields are text or numbers; bytes and files go into files={{…}}."
    )


def _file(name: str, value: Any) -> Any:
    if isinstance(value, tuple) and len(value) in {2, 3} and isinstance(value[0], str):
        return (value[0], _content(name, value[1]), *value[2:])
    return _content(name, value)


def _content(name: str, value: Any) -> Any:
    """Return bytes, or a file that can be read again for another try."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, io.TextIOBase):
        raise ConfigTypeError(f"files={{{name!r}: …}} is open as text. Open it as bytes: open(path, 'rb').")
    read = getattr(value, "read", None)
    if read is None:
        raise ConfigTypeError(
            f"files={{{name!r}: {value!r:.80}}} is not accepted: it takes bytes, an open file, (name, file) or (name, file, content type). "
            f"Of a path: open(path, 'rb')."
        )
    seekable = getattr(value, "seekable", None)
    return value if seekable is not None and seekable() else read()
