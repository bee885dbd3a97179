"""`Counters`: the numbers of one API in one front end, each in its slot of the page; or of requests that are no API's."""

from collections.abc import Mapping
from typing import Any, final

from leyden.serve.effects import Timing
from leyden.serve.faults import Fault
from leyden.serve.metrics import STATUSES, Layout, Page

# What a refusal counts as, by its code; errors of other codes are none.
_REASONS: Mapping[str, str] = {
    "queue.full": "queue",
    "server.draining": "draining",
    "server.not_ready": "not_ready",
    "auth.missing_key": "key",
    "auth.invalid_key": "key",
    "request.too_large": "size",
    "request.headers_too_large": "head",
    "request.timeout": "slow",
    "request.not_found": "path",
    "request.method_not_allowed": "path",
    "request.invalid_header": "invalid",
    "request.invalid_http": "invalid",
}


@final
class Counters:
    """Counts what becomes of the requests of an API.

    Args:
        page: Of this front end, its only writer.
        layout: Of the page.
        api: The number of the API; one beyond the last for requests that are no API's.
    """

    def __init__(self, page: Page, layout: Layout, api: int) -> None:
        self._page, self._layout, self._api = page, layout, api
        other = layout.slot("requests_total", api, "other")
        self._requests = {int(status): layout.slot("requests_total", api, status) for status in STATUSES if status.isdecimal()}
        self._other = other
        self._seconds = layout.histogram("request_seconds", api)
        self._queued = layout.histogram("queue_seconds", api)
        self._predict = layout.histogram("predict_seconds", api)
        self._first = layout.histogram("first_chunk_seconds", api)
        self._sizes = layout.histogram("batch_size", api)
        self._chunks = layout.slot("stream_chunks_total", api)

    def ended(self, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        self._page.values[self._requests.get(status, self._other)] += 1.0
        self._page.observe(self._seconds, seconds)

    def answered(self, status: int) -> None:
        """Count a request that is answered without a call."""
        self._page.values[self._requests.get(status, self._other)] += 1.0

    def refused(self, fault: Fault, reason: str = "") -> None:
        """Count a request that is refused without a call."""
        self.answered(fault.status)
        self.rejected(fault.code, reason)

    def waited(self, seconds: float) -> None:
        """Count how long a request waited until its computation began."""
        self._page.observe(self._queued, seconds)

    def computed(self, timing: Timing, predict: float) -> None:
        """Count a batch."""
        self._page.observe(self._sizes, timing.num_items)
        self._page.observe(self._predict, predict)

    def began(self, seconds: float) -> None:
        """Count the first piece of a stream."""
        self._page.observe(self._first, seconds)

    def pieces(self, number: int) -> None:
        """Count pieces of streams."""
        self._page.values[self._chunks] += number

    def expired(self) -> None:
        """Count a request that waited or ran for too long."""
        self._add("expired_total")

    def rejected(self, code: str, reason: str = "") -> None:
        """Count a refusal; nothing, if an error of this code is none.

        Args:
            code: Of the error.
            reason: What it counts as, where the code does not tell.
        """
        reason = reason or _REASONS.get(code, "")
        if reason:
            self._add("rejected_total", reason)

    def cancelled(self, why: str) -> None:
        """Count a request that nobody waits for any more."""
        self._add("cancelled_total", why)

    def used(self, usage: Any) -> None:
        """Count the tokens that a spec counted."""
        if isinstance(usage, dict):
            for kind in ("prompt", "completion"):
                number = usage.get(f"{kind}_tokens")
                if isinstance(number, int):
                    self._page.add(self._layout.slot("tokens_total", self._api, kind), number)

    def show(self, *, waiting: int, inflight: int, inflight_bytes: int) -> None:
        """Set the gauges."""
        for name, value in (("queue_depth", waiting), ("inflight", inflight), ("inflight_bytes", inflight_bytes)):
            self._page.set(self._layout.slot(name, self._api), value)

    def _add(self, name: str, value: str = "") -> None:
        self._page.add(self._layout.slot(name, self._api, value))
