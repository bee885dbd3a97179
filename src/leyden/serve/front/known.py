"""`KnownHeads`: heads of requests that were read before. A client sends the same one again and again, byte for byte but for its body.

Reading a head costs more than anything else on the short way, and the same bytes say the same each time. So what a head said is
kept, if nothing in it is about one request alone. A request whose head is known and that came whole, in one read, needs no parser.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, final

from leyden.serve.front.calls import HttpCall

MOST_KEPT: Final = 256  # a client's host, type and length of the body are its own to choose
_MOST_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"
_OF_ONE_REQUEST: Final = frozenset({b"x-request-id", b"x-request-timeout", b"x-priority", b"traceparent", b"transfer-encoding"})


class KnownHead(NamedTuple):
    """What a head said.

    Args:
        api: The number of the API.
        size: Bytes of the whole request, its body included.
        url: As it came.
        headers: Their names in lower case.
        named: The same, by name.
        version: Of HTTP.
        content_type: What the worker is told.
        accepts_gzip: Whether an answer may be compressed.
        accepts_events: Whether a stream is to be one of events.
    """

    api: int
    size: int
    url: bytes
    headers: list[tuple[bytes, bytes]]
    named: Mapping[bytes, bytes]
    version: str
    content_type: str
    accepts_gzip: bool
    accepts_events: bool


@final
class KnownHeads:
    """Those of all connections of a front end, which has one set of rules for them all its life."""

    def __init__(self) -> None:
        self._kept: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return what the head of a request said before, and its body; `None` unless the request is whole, alone, and known.

        Args:
            data: What a read brought, at the begin of a request.
        """
        end = data.find(_END) + 4
        known = self._kept.get(data[:end])
        if known is None or len(data) != known.size:
            return None
        return known, data[end:]

    def learn(self, data: bytes, call: HttpCall, url: bytes, headers: list[tuple[bytes, bytes]], version: str) -> None:
        """Keep what a head says, if the next request with it can be told from it alone.

        Args:
            data: What a read brought, at the begin of a request.
            call: That request; its head was accepted, and its connection stays open.
            url: As the parser found it.
            headers: The same.
            version: The same.
        """
        end = data.find(_END) + 4
        if end > _MOST_BYTES or len(data) != end + call.num_bytes or call.config.wants_context:
            return
        if not _OF_ONE_REQUEST.isdisjoint(named := dict(headers)) or named.get(b"content-length") != b"%d" % call.num_bytes:
            return
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[data[:end]] = KnownHead(
            call.api, len(data), url, headers, named, version, call.content_type, call.accepts_gzip, call.accepts_events
        )
