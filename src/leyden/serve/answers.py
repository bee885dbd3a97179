"""`Answers`: what executors say, as frames to the front end that asked.

| frame | meta | body |
|---|---|---|
| RES | `s` status if not 200, `ct` content type if not JSON, `h` headers as a list of pairs | the answer |
| CHUNK | the first one of a stream: `ct` its content type | a piece |
| END | | |
| ERROR | `s`, `h`; `c` code and `m` message, which are missing if the answer is nothing but `{"detail": …}` | JSON of `detail` |

The last of RES, END and ERROR of a batch also has `b`, its size, and `us`, the microseconds of decode, predict and encode.
"""

import math
import time
from typing import Any, final

from leyden.core.errors import ConfigError
from leyden.core.log import get_logger
from leyden.serve.codec import JSON, write_json
from leyden.serve.desk import Desk, Front
from leyden.serve.executors.requests import GONE, TOO_LATE, Reply, Request, Timing
from leyden.serve.faults import Fault
from leyden.serve.wire import Kind

QUICK_SECONDS = 0.0002  # answers of items that take less are sent together
_SAID = 2000
_STREAM = 0xFFFFFFFF
_RES, _CHUNK = Kind.RES, Kind.CHUNK  # a member of an enum costs 0.3 µs in Python 3.11
_logger = get_logger(__name__)


@final
class Answers:
    """A `Sink` of one worker.

    Args:
        desk: Knows who asked.
        window_bytes: What a client may not have read of its stream.
        stall_seconds: For how long.
    """

    def __init__(self, desk: Desk, window_bytes: int, stall_seconds: float) -> None:
        self._desk, self._window_bytes, self._stall_seconds = desk, window_bytes, stall_seconds
        self._size = self._left = 0  # of the batch
        self._flushed = 0.0  # by when in its encoding
        self._timing: Timing | None = None
        desk.refuse = self._refuse

    def begin(self, size: int) -> None:
        """Take note that so many requests are one batch; without that each is one of its own."""
        self._size = self._left = size
        self._timing, self._flushed = None, 0.0

    # -- the sink --------------------------------------------------------------------------------------------------

    def reply(self, request: Request, reply: Reply, timing: Timing) -> None:
        if request.deadline != math.inf and request.is_late:
            self.fault(request, TOO_LATE)
            return
        front = self._desk.front_of(request)
        facts = self._facts(timing)
        if front is None:
            return
        if reply.status != 200:
            facts["s"] = reply.status
        if reply.content_type != JSON:
            facts["ct"] = reply.content_type
        if reply.headers:
            facts["h"] = reply.headers
        try:
            self._desk.send(front, _RES, request.number & _STREAM, facts, reply.body)
        except ConfigError as error:
            self._send_fault(front, request, _unsendable(error, request), {})
        self._desk.answered(front, request)
        if self._left > 0 and timing.encode - self._flushed >= QUICK_SECONDS:
            self._flushed = timing.encode  # encoding is slow: those that are done do not wait for the rest of their batch
            self._desk.flush()

    def end(self, request: Request, timing: Timing) -> None:
        if request.deadline != math.inf and request.is_late:  # a generator that returns when it is cancelled is not at its end
            self.fault(request, TOO_LATE)
            return
        front = self._desk.front_of(request)
        facts = self._facts(timing)
        if front is not None:
            self._desk.send(front, Kind.END, request.number & _STREAM, facts)
            self._desk.answered(front, request)

    def fault(self, request: Request, fault: Fault) -> None:
        front = self._desk.front_of(request)
        facts = self._facts(None)
        if front is not None:
            self._send_fault(front, request, fault, facts)
            self._desk.answered(front, request)

    def chunk(self, request: Request, data: bytes, content_type: str) -> None:
        if request.unread_bytes >= self._window_bytes:
            self._wait(request)
        front = self._desk.front_of(request)
        if front is None:
            raise GONE
        is_first = not request.has_chunks
        request.has_chunks = True
        request.unread_bytes += len(data)
        # At once: the next piece may be long in coming, and nobody else would send this one meanwhile.
        self._desk.send_now(front, _CHUNK, request.number & _STREAM, {"ct": content_type} if is_first else None, data)

    def has_room(self, request: Request) -> bool:
        return request.unread_bytes < self._window_bytes

    def stalled(self) -> Fault:
        return Fault(408, "stream.stalled", f"The client did not read its stream for {self._stall_seconds:g} s.")

    @property
    def stall_seconds(self) -> float:
        return self._stall_seconds

    # -- inside ----------------------------------------------------------------------------------------------------

    def _wait(self, request: Request) -> None:
        """Wait until a client has read enough of its stream.

        Raises:
            Fault: It did not for too long, or left.
        """
        until = time.monotonic() + self._stall_seconds
        while request.unread_bytes >= self._window_bytes:
            left = min(until, request.deadline) - time.monotonic()
            if left > 0:
                self._desk.look(left)
            if request.is_cancelled():
                raise request.end
            if left <= 0:
                raise self.stalled()

    def _facts(self, timing: Timing | None) -> dict[str, Any]:
        """Count an answer, and return what is said of its batch if it is the last one."""
        if timing is not None:
            self._timing = timing
        self._left -= 1
        if self._left > 0:
            return {}
        size = 1 if self._left < 0 else self._size
        timing, self._timing, self._left = self._timing, None, 0
        if timing is None:
            return {}
        return {"b": size, "us": (int(timing.decode * 1e6), int(timing.predict * 1e6), int(timing.encode * 1e6))}

    def _send_fault(self, front: Front, request: Request, fault: Fault, facts: dict[str, Any]) -> None:
        facts["s"] = fault.status
        if not fault.is_bare:
            facts["c"], facts["m"] = fault.code, fault.message[:_SAID]
        if fault.headers:
            facts["h"] = list(fault.headers.items())
        try:
            detail = write_json(fault.detail)
        except Exception:  # noqa: BLE001 - whatever the user put into an HTTPException
            detail = write_json(str(fault.detail))
        try:
            self._desk.send(front, Kind.ERROR, request.number & _STREAM, facts, detail)
        except ConfigError as error:
            self._send_fault(front, request, _unsendable(error, request), {})

    def _refuse(self, request: Request, fault: Fault) -> None:
        """Answer a request that is never begun: it is in no batch."""
        front = self._desk.front_of(request)
        if front is not None:
            self._send_fault(front, request, fault, {})
            self._desk.answered(front, request)


def _unsendable(error: ConfigError, request: Request) -> Fault:
    _logger.error("%s: the answer cannot be sent: %s", request.request_id, error)
    return Fault(500, "worker.failed", f"The answer cannot be sent: {error}", detail="Internal server error")
