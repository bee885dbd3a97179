r"""What comes back, as values: JSON, or the items of a stream, one after another as they come.

| content type | items |
|---|---|
| `application/x-ndjson` | the value of each line |
| `text/event-stream` | the data of each event: parsed if it is a JSON object, else text |
| `text/…` | text, as it comes |
| `application/json` | one value |
| others | bytes, as they come |

A server of ours that cannot go on says so with the last line `{"error": …}` or an event `error`, and then cuts the connection.
A line that only looks like it is an item: what counts is that it names this very request.
"""

import codecs
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol, final

from leyden.serve.codec import read_json
from leyden.serve.errors import BrokenStreamError, LateError, RequestError
from leyden.serve.faults import Fault

_LATE = frozenset({"deadline.exceeded", "queue.expired"})
_OPENAI = frozenset({"message", "type", "param", "code"})
_DONE = "[DONE]"


class Reader(Protocol):
    """Makes values of bytes."""

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the items that are complete with these bytes.

        Raises:
            RequestError: The server says that it breaks off, or an item cannot be read.
        """
        ...

    def end(self) -> Iterator[Any]:
        """Yield what is left once all bytes are there."""
        ...

    def joined(self, items: list[Any]) -> Any:
        """Return all items as one value."""
        ...


def reader_for(content_type: str, status: int, request_id: str) -> Reader:
    r"""Return what reads an answer.

    Args:
        content_type: Of the answer.
        status: Its status, for errors.
        request_id: The request's, as the answer's head has it.

    Example:
        >>> reader = reader_for("application/x-ndjson", 200, "r1")
        >>> list(reader.feed(b'{"n": 1}\n{"n"')), list(reader.feed(b": 2}\n"))
        ([{'n': 1}], [{'n': 2}])
    """
    kind = content_type.partition(";")[0].strip().lower()
    place = _Place(status, request_id)
    if kind == "application/x-ndjson":
        return _JsonLines(place)
    if kind == "text/event-stream":
        return _Events(place)
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return _Whole(place)
    return _Texts() if kind.startswith("text/") else _Raw()


@final
class _Place:
    """Which answer it is, for errors."""

    def __init__(self, status: int, request_id: str) -> None:
        self._status, self._request_id = status, request_id

    def value(self, data: bytes) -> Any:
        """Return the value of JSON."""
        try:
            return read_json(data)
        except Fault as fault:
            raise BrokenStreamError(
                f"The answer cannot be read: {fault.message} It begins with {data[:80]!r} (request {self._request_id}).",
                status=self._status,
                code="serve.unreadable",
                request_id=self._request_id,
            ) from fault

    def is_end(self, value: Any) -> bool:
        """Return whether an item is a server's last word about this request."""
        if not isinstance(value, dict) or value.keys() != {"error"} or not isinstance(value["error"], dict):
            return False
        return "code" in value["error"] and value["error"].get("request_id") == self._request_id

    def break_off(self, error: Any) -> NoReturn:
        """Raise what a server said.

        Args:
            error: The value of `error`.
        """
        said = error if isinstance(error, dict) else {"message": error}
        code = str(said.get("code") or "")
        message = (
            f"The stream breaks off: {code or 'error'}: {said.get('message') or 'see the log of the server.'} (request {self._request_id})"
        )
        kind: type[RequestError] = LateError if code in _LATE else BrokenStreamError
        raise kind(message, status=self._status, code=code, request_id=self._request_id, detail=error)


@final
class _Lines:
    """Cuts bytes into lines, without looking at any of them twice."""

    def __init__(self) -> None:
        self._parts = list[bytes]()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete."""
        first, *others = data.split(b"\n")
        self._parts.append(first)
        if not others:
            return []
        whole = b"".join(self._parts)
        self._parts = [others.pop()]
        return [whole, *others]

    def end(self) -> bytes:
        """Return the last line, which has no end."""
        return b"".join(self._parts)


@final
class _JsonLines:
    def __init__(self, place: _Place) -> None:
        self._place, self._lines = place, _Lines()

    def feed(self, data: bytes) -> Iterator[Any]:
        for line in self._lines.feed(data):
            yield from self._items(line)

    def end(self) -> Iterator[Any]:
        yield from self._items(self._lines.end())

    def joined(self, items: list[Any]) -> Any:
        return items

    def _items(self, line: bytes) -> Iterator[Any]:
        if not line.strip():
            return
        value = self._place.value(line)
        if self._place.is_end(value):
            self._place.break_off(value["error"])
        yield value


@final
class _Events:
    """Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them."""

    def __init__(self, place: _Place) -> None:
        self._place, self._lines = place, _Lines()
        self._name, self._data = "", list[str]()

    def feed(self, data: bytes) -> Iterator[Any]:
        for line in self._lines.feed(data):
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            if text:
                self._take(text)
            else:
                yield from self._event()

    def end(self) -> Iterator[Any]:
        yield from self.feed(b"\n\n")

    def joined(self, items: list[Any]) -> Any:
        return items

    def _take(self, line: str) -> None:
        field, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value

    def _event(self) -> Iterator[Any]:
        name, data = self._name, "\n".join(self._data)
        is_empty = not self._data
        self._name = ""
        self._data.clear()
        if is_empty or data == _DONE:
            return
        value = self._value(data)
        if name == "error":
            self._place.break_off(value["error"] if isinstance(value, dict) and "error" in value else value)
        if self._place.is_end(value) or _is_openai_error(value):
            self._place.break_off(value["error"])
        yield value

    def _value(self, data: str) -> Any:
        if not (data.startswith("{") and data.endswith("}")):
            return data
        try:
            return read_json(data.encode())
        except Fault:
            return data


def _is_openai_error(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"error"} and isinstance(value["error"], dict) and value["error"].keys() == _OPENAI


@final
class _Texts:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> Iterator[Any]:
        text = self._decoder.decode(data)
        if text:
            yield text

    def end(self) -> Iterator[Any]:
        text = self._decoder.decode(b"", final=True)
        if text:
            yield text

    def joined(self, items: list[Any]) -> Any:
        return "".join(items)


@final
class _Raw:
    def feed(self, data: bytes) -> Iterator[Any]:
        yield data

    def end(self) -> Iterator[Any]:
        yield from ()

    def joined(self, items: list[Any]) -> Any:
        return b"".join(items)


@final
class _Whole:
    def __init__(self, place: _Place) -> None:
        self._place, self._parts = place, list[bytes]()

    def feed(self, data: bytes) -> Iterator[Any]:
        self._parts.append(data)
        yield from ()

    def end(self) -> Iterator[Any]:
        if any(self._parts):
            yield self._place.value(b"".join(self._parts))

    def joined(self, items: list[Any]) -> Any:
        return items[0] if items else None
