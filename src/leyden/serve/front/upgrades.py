"""Requests that ask for another protocol which is not spoken here, and have a body: `curl --http2` and Java's client send such.

HTTP says to answer them as if they did not ask (RFC 9110, 7.8). The parser takes what follows the head for the other protocol, and
skips the body, so the request would be answered as one without a body: it is read on with another parser, which is shown the head again
without the question.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, final

import httptools

from leyden.serve.front.intake import has_body

_ASKING = frozenset({b"upgrade", b"http2-settings", b"connection", b"expect"})


def is_misleading(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the parser skips the body of a request that it takes for an upgrade."""
    return has_body(headers) and headers.get(b"upgrade", b"").lower() != b"websocket"


@final
class Parser(httptools.HttpRequestParser):
    """Tells where what it takes for another protocol begins, in the bytes that it was fed last."""

    offset = 0

    def feed_data(self, data: Any) -> None:
        """Read bytes.

        Raises:
            HttpParserUpgrade: What follows is for another protocol.
        """
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.offset = upgrade.args[0]
            raise


def parser_of(protocol: Any) -> Parser:
    """Return a parser that tells a protocol what it finds; as lenient as uvicorn's own is."""
    parser = Parser(protocol)
    with contextlib.suppress(AttributeError):  # httptools before 0.6.3
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def skipped(protocol: Any, data: bytes) -> bytes:
    """Return what a protocol's parser skipped of the last bytes, and give it another one that reads on from there.

    Args:
        protocol: Knows the head of the request, and is told all that follows.
        data: What the parser was fed last.
    """
    before = protocol.parser
    kept = [(name, value) for name, value in protocol.headers if name not in _ASKING]
    if not before.should_keep_alive():
        kept.append((b"connection", b"close"))
    lines = b"".join(b"%b: %b\r\n" % line for line in kept)
    protocol.parser = parser_of(_AfterHead(protocol))
    protocol.parser.feed_data(b"%b / HTTP/%b\r\n%b\r\n" % (before.get_method(), before.get_http_version().encode(), lines))
    return data[before.offset :]


@final
class _AfterHead:
    """Hands on what a parser finds, but for the first head."""

    def __init__(self, protocol: Any) -> None:
        self._protocol, self._is_known = protocol, True
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_known:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_known:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_known:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_known:
            self._is_known = False
        else:
            self._protocol.on_headers_complete()
