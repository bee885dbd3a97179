"""`Heads`: the bytes with which answers begin, made once for each status and type and kept for the second that uvicorn's `date` lasts."""

import http
from collections.abc import Sequence
from typing import final

from leyden.serve.front.answers import Answer, HeaderLines, header_lines

MOST_KEPT = 256  # content types are the users' to choose


@final
class Heads:
    r"""Makes heads of answers.

    Example:
        >>> heads = Heads()
        >>> heads.plain(Answer(200, b"{}"), "a-1", [(b"server", b"x")], closes=False)
        b'HTTP/1.1 200 OK\r\nserver: x\r\ncontent-type: application/json\r\nx-request-id: a-1\r\ncontent-length: 2\r\n\r\n'
    """

    def __init__(self) -> None:
        self._defaults: Sequence[tuple[bytes, bytes]] = ()
        self._kept: dict[tuple[int, str], bytes] = {}
        self._lines: dict[int, bytes] = {}

    def plain(self, answer: Answer, request_id: str, defaults: Sequence[tuple[bytes, bytes]], *, closes: bool) -> bytes:
        """Return the head of an answer that has no headers of its own."""
        if defaults is not self._defaults:  # uvicorn makes a new list when the date changes
            self._defaults = defaults
            self._kept.clear()
        key = (answer.status, answer.content_type)
        begin = self._kept.get(key)
        if begin is None:
            line = header_lines(answer, "", is_stream=True)[0]
            begin = self._begin(answer.status, [*defaults, line]) + b"x-request-id: "
            if len(self._kept) < MOST_KEPT:
                self._kept[key] = begin
        end = b"\r\nconnection: close\r\n\r\n" if closes else b"\r\n\r\n"
        return b"%b%b\r\ncontent-length: %d%b" % (begin, request_id.encode(), len(answer.body), end)

    def full(self, status: int, lines: HeaderLines, defaults: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return a head with all its lines."""
        return self._begin(status, [*defaults, *lines]) + b"\r\n"

    def _begin(self, status: int, lines: Sequence[tuple[bytes, bytes]]) -> bytes:
        first = self._lines.get(status)
        if first is None:
            try:
                phrase = http.HTTPStatus(status).phrase
            except ValueError:
                phrase = ""
            first = self._lines[status] = f"HTTP/1.1 {status} {phrase}\r\n".encode()
        return first + b"".join([b"%b: %b\r\n" % line for line in lines])
