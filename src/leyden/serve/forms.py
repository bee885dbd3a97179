"""Forms, from the raw body: what a worker gets is bytes, so uploads neither spool to a disk nor have to be pickled."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from leyden.core.lazy import Later
from leyden.serve.faults import Fault

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
MAX_FIELDS = 100_000  # each costs objects, and a body may consist of little else
_BYTES = "application/octet-stream"
_parser: Any = Later("python_multipart.multipart")


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


def read_form(body: bytes, content_type: str) -> dict[str, Any]:
    """Return a form's fields: text, or `Upload` for a file; a list where a name comes several times.

    Raises:
        Fault: 400 if it is no form, or not all of one.

    Example:
        >>> read_form(b"a=1&b=x+y&a=2", "application/x-www-form-urlencoded")
        {'a': ['1', '2'], 'b': 'x y'}
    """
    found: dict[str, Any] = {}
    try:
        if content_type.partition(";")[0].strip().lower() == URLENCODED:
            for name, value in parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS):
                _keep(found, name, value)
        else:
            _read_parts(body, content_type, lambda name, value: _keep(found, name, value))
    except Exception as error:  # the parser's errors have no common class, and every one is about the client's bytes
        raise Fault(400, "request.invalid_form", f"The body is no form: {error}") from error
    return found


def _read_parts(body: bytes, content_type: str, keep: Callable[[str, Any], None]) -> None:
    _, options = _parser.parse_options_header(content_type)
    ends, count = list[bool](), 0

    def counted(name: str, value: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} fields")
        keep(name, value)

    def on_field(field: Any) -> None:
        counted(_text(field.field_name), _text(field.value))

    def on_file(file: Any) -> None:
        kind = _text(getattr(file, "content_type", None)) or _BYTES
        file.file_object.seek(0)
        counted(_text(file.field_name), Upload(_text(file.file_name), kind, file.file_object))

    if not options.get(b"boundary"):
        raise ValueError(f"Content-Type {content_type!r} names no boundary; HTTP clients set it when they are given the fields and files")
    parser = _parser.FormParser(
        MULTIPART,
        on_field,
        on_file,
        on_end=lambda: ends.append(True),
        boundary=options[b"boundary"],
        config={"MAX_MEMORY_FILE_SIZE": max(len(body), 1)},  # all of it is in memory already
    )
    parser.write(body)
    parser.finalize()
    if not ends:  # the parser does not tell: it would leave out the field that was cut
        raise ValueError("it ends before its last boundary")


def _keep(found: dict[str, Any], name: str, value: Any) -> None:
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _text(value: Any) -> str:
    return "" if value is None else value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
