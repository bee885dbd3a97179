"""`HotProtocol`: uvicorn's HTTP/1.1 protocol, with a short way for the routes of APIs.

It takes a request only if nothing about it is special: the path equals a route byte for byte, the request before it on this
connection is answered, there is no upgrade and no `Expect`. All else goes to the class that it extends, which knows ASGI. It also
adds what uvicorn lacks for all requests: time-outs of heads and idle connections, and a limit for the size of heads.

What it relies on beyond uvicorn's public settings is listed in `probe.py`, which is asked when a server starts and by a test. If
something is missing the server works without the short way.

A request that is refused before its body was read is answered with `Connection: close`, and up to 256 KiB of what still comes are
thrown away: a connection that is closed with unread bytes is reset, and the client may never see the answer.
"""

import asyncio
import functools
import logging
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leyden.serve.faults import Fault
from leyden.serve.front.access import Address, Clients
from leyden.serve.front.answers import Answer, error_answer, header_lines
from leyden.serve.front.calls import Ending, HttpCall, slow_body
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.heads import Heads
from leyden.serve.front.intake import Intake, has_body
from leyden.serve.front.known import KnownHeads
from leyden.serve.front.upgrades import is_misleading, parser_after_head

HEAD_BYTES, DISCARDED_BYTES = 64 << 10, 256 << 10
BODY_BYTES_PER_SECOND: Final = 64 << 10  # a body may take a second longer for each
_LINGER_SECONDS: Final = 2.0  # for what still comes after a refusal
_JOINED_BYTES: Final = 64 << 10  # more than this is not copied to be written at once
_MOST_PIPELINED: Final = 100  # requests of a connection that wait for the one before them; one read may bring ten thousand


@final
class HotPath:
    """What all connections of a front end share.

    Args:
        dispatcher: Takes the calls.
        intake: Reads the heads.
    """

    def __init__(self, dispatcher: Dispatcher, intake: Intake) -> None:
        self.dispatcher, self.intake = dispatcher, intake
        self.routes: dict[bytes, int] = {}  # the paths of hot routes, and the numbers of their APIs
        self.heads, self.known = Heads(), KnownHeads()
        self.connections: set[HotProtocol] = set()
        self.clients = Clients()
        config = dispatcher.config
        self.header_timeout, self.body_timeout, self.keep_alive = config.header_timeout, config.body_timeout, config.keep_alive

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """Return what uvicorn's setting `http` takes."""
        return functools.partial(HotProtocol, path=self)

    def sweep(self, now: float) -> None:
        """End what has taken too long; to be called about once a second, which costs less than a timer for each request."""
        for connection in [each for each in self.connections if each.due <= now]:
            connection.overdue()


@final
class _HotCycle:
    """A connection's request on the short way, as far as uvicorn's class looks at it; used for one after the other."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self) -> None:
        self.disconnected, self.keep_alive, self.response_complete = False, True, True
        self.message_event = _Nobody()


@final
class _Nobody:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Wake nobody."""


@final
class HotProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        args: What uvicorn hands over.
        path: What connections share.
        kwargs: What uvicorn hands over.
    """

    def __init__(self, *args: Any, path: HotPath, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self.due = math.inf  # when it is overdue
        self._path = path
        self._call: HttpCall | None = None  # on the short way, until it is answered
        self._receiving: HttpCall | None = None  # the same, until its body is there
        self._hot = _HotCycle()
        self._cycles: list[Any] = []  # those of ASGI that were not answered when the last one came
        self._is_in_head = self._is_discarding = self._is_fresh = False
        self._is_between = True  # whether the parser is at the begin of a request
        self._unread = 0  # bytes of answers, at the last look
        self._is_misled, self._skipped_from = False, 0  # the parser skips the body of this request; where that begins in the last read
        self._body_by = math.inf  # when the body of a request of ASGI should be there: for one that is answered before
        # Bytes of the last read, of all reads that may be the head's, of those that are no part of a body; thrown away.
        self._read = self._head_read = self._surely_read = self._discarded = 0
        self._head_began = 0.0
        self._asked: tuple[Address | None, str, str] = None, "", ""  # what the access log is to say of the request on the short way

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._path.connections.add(self)
        self.due = self._path.dispatcher.now() + self._path.keep_alive

    def connection_lost(self, exc: Exception | None) -> None:
        self._path.connections.discard(self)
        self._hot.disconnected = True
        call, self._call, self._receiving = self._call, None, None
        if call is not None:
            call.abandon()
        for cycle in self._cycles:  # the base class tells the last one alone, and the others would write to what is closed
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_discarding:
            self._discard(len(data))
            return
        self.due = math.inf
        may_be_known = self._is_between and self._hot.response_complete and self.limit_concurrency is None
        if may_be_known and self._is_taken_as_known(data):
            return
        self._read = len(data)
        self._surely_read += self._read
        if self._is_in_head:
            self._head_read += self._read
        elif self._read > HEAD_BYTES:
            self._is_fresh = self._receiving is None and (self.cycle is None or self.cycle.response_complete)
        super().data_received(data)
        if self._is_misled:
            self._is_misled = False
            self.parser = parser_after_head(self)
            if rest := data[self._skipped_from :]:
                self.data_received(rest)
        if may_be_known and self._call is not None and self._is_between and self._hot.keep_alive:
            self._path.known.learn(data, self._call, self.url, self.headers, self.parser.get_http_version())
        self._expect()

    def _expect(self) -> None:
        """Note by when what comes next should have come, now that all that came is read."""
        if self._is_in_head:
            self._wait_for_head()
        elif self._surely_read > HEAD_BYTES and self._is_in_body():
            self._break_off(_too_long("trailer"))
        elif self._receiving is not None:
            call = self._receiving
            self.due = call.began + self._path.body_timeout + call.num_bytes / BODY_BYTES_PER_SECOND
        elif (self.cycle is None or self.cycle.response_complete) and not self._is_discarding:
            self.due = self._idle_until()  # empty lines between requests, or an answer at once

    def handle_websocket_upgrade(self) -> None:
        self._path.connections.discard(self)  # another protocol has the connection from here on, and looks at the time itself
        super().handle_websocket_upgrade()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._call is not None:
            self._call.caught_up()

    def overdue(self) -> None:
        """End what has taken too long."""
        self.due = math.inf
        if self._is_being_read() or self.transport.is_closing():
            return
        if self._is_discarding:
            self.transport.abort()
        elif self._is_in_head:
            self._refuse_head(Fault(408, "request.timeout", f"The head of this request took more than {self._path.header_timeout:g} s."))
        elif self._receiving is not None:
            self._refuse(self._receiving, slow_body(self._path.body_timeout), is_unread=True)
        else:
            self.transport.close()

    def _is_being_read(self) -> bool:
        """Return whether an answer is still on its way. A connection whose client has read nothing since the last look ends."""
        unread = self.transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.transport.abort()
        elif unread:
            self.due = self._path.dispatcher.now() + self._path.body_timeout
        self._unread = unread
        return unread > 0

    # -- what the parser finds ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._is_between = False
        self._is_in_head = not self._is_discarding
        self._head_read, self._surely_read, self._head_began = self._read, self._read if self._is_fresh else 0, 0.0
        self._is_fresh = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer of a body in chunks, which nobody asks for, and there may be any number
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self._is_discarding:
            return
        if self._head_read > HEAD_BYTES and self._head_bytes() > HEAD_BYTES:
            self._refuse_head(_too_long("head"))
            return
        url = self.url
        api = self._path.routes.get(url)
        if api is None and b"?" in url:
            api = self._path.routes.get(url.partition(b"?")[0])
        if api is None or (self.cycle is not None and not self.cycle.response_complete):
            self._fall_through()
            return
        headers = dict(self.headers)
        if self._is_plain(headers, api):
            self._begin(api, headers)
        else:
            self._fall_through()

    def on_body(self, body: bytes) -> None:
        self._surely_read = 0
        call = self._receiving
        if call is None:
            if not self._is_discarding:
                super().on_body(body)
            return
        try:
            call.add(body)
        except Fault as fault:
            self._refuse(call, fault, is_unread=True)

    def on_message_complete(self) -> None:
        call = self._receiving
        if call is not None:
            self._receiving = None
            self._is_between = True
            self._path.dispatcher.submit(call)
        elif not self._is_discarding and not self._is_misled:
            self._is_between = True
            self._body_by = math.inf
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.due = self._idle_until()
        else:
            self.due = self._path.dispatcher.now() + self._path.body_timeout  # by then the client has read the answer

    def _idle_until(self) -> float:
        return min(self._path.dispatcher.now() + self._path.keep_alive, self._body_by)

    def _is_plain(self, headers: Mapping[bytes, bytes], api: int) -> bool:
        """Return whether nothing about a request is special."""
        version = self.parser.get_http_version()
        if self.parser.get_method() != b"POST" or b"upgrade" in headers or b"expect" in headers:
            return False
        if version != "1.1" and (version != "1.0" or self._path.dispatcher.config.apis[api].is_stream):  # 1.0 knows no chunks
            return False
        return self.limit_concurrency is None or len(self.connections) < self.limit_concurrency

    def _begin(self, api: int, headers: Mapping[bytes, bytes]) -> None:
        """Take a request on the short way."""
        version = self.parser.get_http_version()
        call = self._open(api, headers, version, keep_alive=self.parser.should_keep_alive() and version != "1.0")
        try:
            self._path.intake.read(call, headers)
        except Fault as fault:
            self._refuse(call, fault, is_unread=has_body(headers))
        else:
            self._receiving = call

    def _open(self, api: int, headers: Mapping[bytes, bytes], version: str, *, keep_alive: bool) -> HttpCall:
        path, hot = self._path, self._hot
        hot.keep_alive, hot.response_complete = keep_alive, False
        self.cycle = hot  # type: ignore[assignment] - all that the base class reads of it
        if self.access_log:  # a pipelined request may be read before this one is answered
            client = path.clients.behind(self.config, self.client, self.headers) if b"x-forwarded-for" in headers else self.client
            self._asked = client, self.url.decode("latin-1"), version
        self._call = call = path.dispatcher.open(api, self, path.intake.request_id(headers))
        return call

    def _is_taken_as_known(self, data: bytes) -> bool:
        """Return whether this is a whole request whose head was read before; then it is on the short way."""
        found = self._path.known.find(data)
        if found is None or (self.cycle is not None and not self.cycle.response_complete):
            return False
        known, body = found
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self.url, self.headers = known.url, known.headers
        call = self._open(known.api, known.named, known.version, keep_alive=True)
        call.content_type, call.accepts_gzip, call.accepts_events = known.content_type, known.accepts_gzip, known.accepts_events
        call.body, call.num_bytes = body, len(body)
        self._path.dispatcher.submit(call)
        return True

    def _fall_through(self) -> None:
        """Let the base class have a request whose head is read."""
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._take_no_more()
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers  # the list that is in the scope by now
        self.expect_100_continue = any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)
        self._is_misled = self.parser.should_upgrade() and is_misleading(dict(headers))
        super().on_headers_complete()
        self._body_by = self._path.dispatcher.now() + self._path.body_timeout
        if self.cycle is not None and self.cycle is not self._hot:
            self._cycles = [*(cycle for cycle in self._cycles if not cycle.response_complete), self.cycle]

    # -- heads that are too long or too slow, bodies that are not read ------------------------------------------------

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _wait_for_head(self) -> None:
        if self._surely_read > HEAD_BYTES or (self._head_read > HEAD_BYTES and self._head_bytes() > HEAD_BYTES):
            self._refuse_head(_too_long("head"))
            return
        if not self._head_began:
            self._head_began = self._path.dispatcher.now()
        self.due = self._head_began + self._path.header_timeout

    def _unsupported_upgrade_warning(self) -> None:
        """Note where the parser stopped; the base class calls it while it handles what the parser raised."""
        upgrade = sys.exc_info()[1]
        if self._is_misled and upgrade is not None:
            self._skipped_from = upgrade.args[0]
        else:
            super()._unsupported_upgrade_warning()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; the base class calls it."""
        self._break_off(Fault(400, "request.invalid_http", msg))

    def _is_in_body(self) -> bool:
        """Return whether a request is being read, after its head."""
        cycle = self.cycle
        return self._receiving is not None or not (cycle is None or cycle is self._hot or cycle.response_complete or not cycle.more_body)

    def _take_no_more(self) -> None:
        """Answer what was taken, and then end the connection."""
        self.cycle.keep_alive = False
        self._is_discarding = True

    def _break_off(self, fault: Fault) -> None:
        """Refuse what comes and cannot be read on."""
        cycle = self.cycle
        if self._receiving is not None:
            self._refuse(self._receiving, fault, is_unread=True)
        elif cycle is None or cycle.response_complete:
            self._refuse_head(fault)
        elif isinstance(cycle, _HotCycle) or not cycle.more_body:  # what came before is answered, and then the connection ends
            self._take_no_more()
        elif cycle.response_started:
            self.transport.close()
        else:
            self._write_refusal(fault)

    def _refuse_head(self, fault: Fault) -> None:
        """Answer a request of which not even the head is known; the connection ends here."""
        self._is_in_head = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # the answer that is due cannot be told from this one
        else:
            self._write_refusal(fault)

    def _write_refusal(self, fault: Fault) -> None:
        self._path.dispatcher.strays.refused(fault)
        request_id = self._path.intake.request_id({})
        answer = error_answer(fault, request_id, exposes=True)
        head = self._path.heads.plain(answer, request_id, self.server_state.default_headers, closes=True)
        self.transport.write(head + answer.body)
        self._linger()

    def _refuse(self, call: HttpCall, fault: Fault, *, is_unread: bool) -> None:
        """Answer a request before its body is read."""
        self._receiving = None
        if is_unread:
            self._hot.keep_alive = False
            self._is_discarding = True
        call.refuse(fault)

    def _linger(self) -> None:
        """Throw away what still comes, for a while, and then close."""
        self._is_discarding = True
        self.due = self._path.dispatcher.now() + _LINGER_SECONDS
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, num_bytes: int) -> None:
        self._discarded += num_bytes
        if self._discarded > DISCARDED_BYTES:
            self.transport.close()

    # -- answers -----------------------------------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether the client does not read what it was sent."""
        return self.flow.write_paused

    def answer(self, call: HttpCall, answer: Answer) -> None:
        """Send a whole answer, with one write."""
        closes, defaults, body = not self._hot.keep_alive, self.server_state.default_headers, answer.body
        has_body = answer.has_body
        if answer.headers or call.shows_trace or not has_body:
            lines = header_lines(answer, call.request_id, call.traceparent if call.shows_trace else "")
            if closes:
                lines.append((b"connection", b"close"))
            head = self._path.heads.full(answer.status, lines, defaults)
        else:
            head = self._path.heads.plain(answer, call.request_id, defaults, closes=closes)
        if not has_body:
            self.transport.write(head)
        elif len(body) > _JOINED_BYTES:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)
        if self.access_log:
            self._log(call, answer.status)
        self._ended()

    def stream(self, call: HttpCall, head: Answer | None, data: bytes, ending: Ending) -> None:
        """Send a part of a stream, with one write."""
        parts = list[bytes]()
        if head is not None:
            lines = header_lines(head, call.request_id, call.traceparent if call.shows_trace else "", is_stream=True)
            if not self._hot.keep_alive:
                lines.append((b"connection", b"close"))
            lines.append((b"transfer-encoding", b"chunked"))
            parts.append(self._path.heads.full(head.status, lines, self.server_state.default_headers))
            if self.access_log:
                self._log(call, head.status)
        if data:
            parts += (b"%x\r\n" % len(data), data, b"\r\n")
        if ending == "whole":
            parts.append(b"0\r\n\r\n")
        self.transport.write(b"".join(parts))
        if ending:
            self._hot.keep_alive = self._hot.keep_alive and ending == "whole"
            self._ended()

    def _ended(self) -> None:
        """Make the connection ready for the next request, or end it."""
        self._call = None
        self._hot.response_complete = True
        if self._is_discarding and not self.pipeline:
            self._linger()
        elif not self._hot.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _log(self, call: HttpCall, status: int) -> None:
        client, url, version = self._asked
        address = "%s:%d" % client if client else ""  # noqa: UP031 - as uvicorn has it
        extra = {"fields": call.log_fields()}
        self.access_logger.info('%s - "%s %s HTTP/%s" %d', address, "POST", url, version, status, extra=extra)


def _too_long(part: str) -> Fault:
    return Fault(431, "request.headers_too_large", f"The {part} of this request is longer than {HEAD_BYTES:,} bytes.")
