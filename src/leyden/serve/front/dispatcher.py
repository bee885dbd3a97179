"""`Dispatcher`: calls go to workers and their answers come back, as the router says; it has the links and the clock.

Everything that comes in is told to the router at once; once in a turn of the event loop (`_turn`) the router is asked what is to
be done. So requests that came together leave together, as one batch and with one write for each worker.
"""

import asyncio
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

from leyden.core.log import get_logger, speaking_of
from leyden.serve.config import ServerConfig
from leyden.serve.effects import CancelOnWorker, Dispatch, Effect, Fail, Kill, Timing, Wake, WorkerId, WorkerShape
from leyden.serve.faults import Fault
from leyden.serve.front.calls import Client, HttpCall
from leyden.serve.front.counters import Counters
from leyden.serve.front.peers import SILENT_SECONDS, Peer
from leyden.serve.link import Link
from leyden.serve.metrics import Layout, Page
from leyden.serve.router import Router
from leyden.serve.wire import LAST_OF_BATCH, Frame, Kind

_REQ, _RES, _CHUNK, _END = Kind.REQ, Kind.RES, Kind.CHUNK, Kind.END  # a member of an enum costs 0.3 µs in Python 3.11
_logger = get_logger(__name__)


def unheard(**said: Any) -> None:
    """Tell nobody: there is no supervisor."""
    if "shutdown" in said:
        _logger.warning("somebody asked for a shutdown, and nobody listens to that: the server was started by another program")


@final
class Dispatcher:  # noqa: SIZE003 - what calls, links, routes and the process ask of it
    """The middle of a front end. Make it anywhere, `start` it in the event loop that it is used in.

    Args:
        config: Of the server.
        page: The counters of this front end.
        layout: Of the page.
        on_request: Called for each request of an API.
        on_response: Called for each that is answered.
        now: Returns seconds that never go back.

    Attributes:
        num_open: Calls from their heads to the last bytes of their answers.
        strays: Counts requests that are no API's.
        tell: Tells the supervisor something, as `process.py` has it; whoever connects the two sets it.
    """

    def __init__(
        self,
        config: ServerConfig,
        page: Page,
        layout: Layout,
        *,
        on_request: Callable[[], None] | None = None,
        on_response: Callable[[], None] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.exposes_errors = config.exposes_errors
        self.max_payload_bytes = float(config.payload_bytes)
        self.now = now
        self.num_open = 0
        self._router = _router_of(config)
        self._counters = [Counters(page, layout, api) for api in range(len(config.apis))]
        self.strays = Counters(page, layout, len(config.apis))
        self.tell: Callable[..., None] = unheard
        self._on_request, self._on_response = on_request, on_response
        self._numbers = itertools.count(1)
        self._peers: dict[WorkerId, Peer] = {}
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment] - `start` sets it
        self._is_turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # -- life ------------------------------------------------------------------------------------------------------

    def reconfigure(self, config: ServerConfig) -> None:
        """Keep other limits; before the first worker and the first call."""
        self.config, self._router = config, _router_of(config)

    def start(self) -> None:
        """Begin, in the running event loop: links that were added before connect now."""
        self._loop = asyncio.get_running_loop()
        self._router.is_draining = False  # an app may be served again
        for peer in self._peers.values():
            peer.link.open()

    def drain(self) -> None:
        """Refuse what comes from now on; go on with what is there."""
        self._router.is_draining = True

    def stop(self) -> None:
        """Answer all that is left with 503."""
        self._router.is_draining = True
        for call_id in list(self._router.open_calls):
            self._router.cancel(call_id, "shutdown", self.now())
        self._turn()

    def close(self) -> None:
        """End all links; nothing can be submitted any more."""
        self.stop()
        for peer in self._peers.values():
            peer.link.close()
        self._peers.clear()
        if self._timer is not None:
            self._timer.cancel()

    # -- workers ---------------------------------------------------------------------------------------------------

    def add_worker(self, worker: WorkerId, address: str) -> None:
        """Connect to a worker, now or as soon as it listens, and again whenever its connection ends."""
        known = self._peers.get(worker)
        if known is not None:
            if known.link.address == address:
                return
            self.remove_worker(worker)
        link = Link(worker, address, self, name=f"front-{os.getpid()}")
        self._peers[worker] = Peer(link)
        if self._loop is not None:
            link.open()

    def remove_worker(self, worker: WorkerId) -> None:
        """Forget a worker; what it still has is lost."""
        peer = self._peers.pop(worker, None)
        if peer is not None:
            self._forget(peer, "it was removed")
            peer.link.close()

    def set_failing(self, api: int, *, is_failing: bool) -> None:
        """Refuse an API's requests, or take them again."""
        lane = self._router.lanes[api]
        lane.is_failing, lane.wake_at = is_failing, self.now()
        self._wake()

    def num_ready(self, api: int) -> int:
        """Return how many workers of an API take calls."""
        return sum(worker.shape.takes_work for worker in self._router.lanes[api].workers.values())

    def ready(self, link: Link, shape: WorkerShape) -> None:
        """Take note that a worker takes calls, or none any more (a link says so)."""
        self._router.worker_ready(link.worker, shape, self.now())
        self._wake()

    def lost(self, link: Link, why: str) -> None:
        """Answer what a worker had, at once (a link says so)."""
        peer = self._peers.get(link.worker)
        if peer is not None and peer.link is link:
            self._forget(peer, why)

    def _forget(self, peer: Peer, why: str) -> None:
        peer.calls.clear()
        self._router.worker_gone(peer.link.worker, why, self.now())
        self._turn()

    # -- calls -----------------------------------------------------------------------------------------------------

    def counters(self, api: int) -> Counters:
        """Return the numbers of an API."""
        return self._counters[api]

    def open(self, api: int, client: Client, request_id: str, kind: type[HttpCall] = HttpCall) -> HttpCall:
        """Return a new call of an API; each ends in `finished`."""
        self.num_open += 1
        call = kind(next(self._numbers), api, self.config.apis[api], self._counters[api], self, client, request_id)
        if self._on_request is not None:
            _told(self._on_request, call)
        return call

    def submit(self, call: HttpCall) -> None:
        """Route a call whose body is there."""
        if call.reserved:
            call.give_back()
        self._router.submit(call, self.now())
        if self._loop is None:
            self.start()  # an app that is mounted in another one, which runs no lifespan but its own
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def reserve(self, num_bytes: int) -> bool:
        """Count bytes of a body that is on its way, if there is room."""
        return self._router.reserve(num_bytes)

    def release(self, num_bytes: int) -> None:
        """Count them no longer."""
        self._router.release(num_bytes)

    def abandon(self, call: HttpCall) -> None:
        """Take note that a call's client left."""
        self._router.cancel(call.id, "disconnect", self.now())
        self._wake()

    def consumed(self, call: HttpCall, num_bytes: int) -> None:
        """Tell a worker how much of a stream was read."""
        peer = self._peers.get(call.worker) if call.worker is not None else None
        if peer is not None and peer.calls.get(call.stream) is call:
            peer.link.send(Kind.WINDOW, call.stream, {"n": num_bytes})
            peer.link.flush()

    def finished(self, call: HttpCall) -> None:
        """Take note that a call has ended."""
        self.num_open -= 1
        if self._on_response is not None:
            _told(self._on_response, call)

    # -- what comes from workers -----------------------------------------------------------------------------------

    def received(self, link: Link, frames: Sequence[Frame]) -> None:
        """Hand frames to the calls that they are for (a link says so)."""
        peer = self._peers.get(link.worker)
        if peer is None or peer.link is not link:
            return
        peer.has_spoken = True
        flushed = list[HttpCall]()
        for frame in frames:
            if frame.kind is _CHUNK:
                call = peer.calls.get(frame.stream)
                if call is not None and call.on_chunk(frame):
                    flushed.append(call)
                continue
            call = peer.calls.pop(frame.stream, None)
            if call is not None:
                self._ended_item(link.worker, call, frame)
        for call in flushed:
            try:
                call.flush()
            except Exception:  # the same
                _logger.exception("%s: a part of its answer could not be sent", call.request_id, extra={"fields": call.log_fields()})
                call.abandon()
        for lane in self._router.lanes:
            if lane.num_waiting:
                self._turn()
                break

    def _ended_item(self, worker: WorkerId, call: HttpCall, frame: Frame) -> None:
        """Free the place of an item, and answer its client if there still is one."""
        is_open, counters, meta = call.is_open, call.counters, frame.meta
        timing = None
        if (spent := meta.get("us")) is not None:
            timing = Timing(meta.get("b", 1), sum(spent) * 1e-6)
            counters.computed(timing, spent[1] * 1e-6)
        if is_open:
            counters.waited(max(0.0, call.since - call.arrival))
        self._router.item_ended(worker, call.id, timing, self.now())
        if not is_open:
            return
        try:
            if frame.kind is _RES:
                call.on_result(frame)
            elif frame.kind is _END:
                call.on_end(frame)
            else:
                call.on_error(frame)
        except Exception:  # one call's answer must not end the others of this link
            _logger.exception("%s: its answer could not be sent", call.request_id, extra={"fields": call.log_fields()})
            call.finish(500)

    # -- turns -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_turning and self._loop is not None:
            self._is_turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Do what the router wants, and wake up when it wants."""
        self._is_turning = False
        router, now = self._router, self.now()
        router.tick(now)
        effects = router.take_effects()
        if effects:
            self._act(effects, now)
        wake = router.next_wakeup()
        if wake is not None and wake < self._timer_at and self._loop is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = wake
            self._timer = self._loop.call_later(max(0.0, wake - now), self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._turn()

    def _act(self, effects: Iterable[Effect[HttpCall]], now: float) -> None:
        touched = dict[WorkerId, Link]()
        for effect in effects:
            if isinstance(effect, Dispatch):
                peer = self._peers.get(effect.worker)
                if peer is not None:  # else it is gone, and a later effect says what becomes of the calls
                    touched[effect.worker] = peer.link
                    try:
                        self._send(peer, effect, now)
                    except Exception:  # the worker has half of a batch: what it has is lost, and nobody waits for it
                        _logger.exception("requests cannot be sent to worker %d of %s", effect.worker.index, self._path(effect.worker.api))
                        peer.link.reset()
            elif isinstance(effect, Fail):
                self._fail(effect)
            elif isinstance(effect, Wake):
                self.show()  # whoever looks at the load sees what waits
                self.tell(wake=effect.api)
            elif isinstance(effect, Kill):
                self._tell_of(effect.worker, kill=list(effect.worker))
            else:
                peer = self._peers.get(effect.worker)
                if peer is not None and peer.calls.get(effect.call.stream) is effect.call:
                    self._cancel(peer, effect)
                    touched[effect.worker] = peer.link
        for link in touched.values():
            link.flush()

    def _path(self, api: int) -> str:
        return self.config.apis[api].path

    def _send(self, peer: Peer, effect: Dispatch[HttpCall], now: float) -> None:
        last = len(effect.calls) - 1
        for place, call in enumerate(effect.calls):
            flags = LAST_OF_BATCH if place == last or not effect.closes_batch else 0
            peer.link.send(_REQ, peer.keep(call), self._meta(call, now), call.body, flags)
            if not call.is_idempotent:
                call.body = b""  # the link has it; it counts as held until the call ends

    def _meta(self, call: HttpCall, now: float) -> dict[str, Any]:
        meta: dict[str, Any] = {"r": call.request_id}
        if call.content_type:
            meta["ct"] = call.content_type
        config = call.config
        if config.timeout != math.inf:
            waits_since = call.since if call.is_retry else call.arrival  # one that runs again waits anew
            meta["q"] = int((waits_since + config.timeout - now) * 1000)
        deadline = min(call.deadline, call.arrival + self.config.deadline)
        if deadline != math.inf:
            meta["d"] = int((deadline - now) * 1000)
        if call.traceparent:
            meta["t"] = call.traceparent
        if call.priority:
            meta["p"] = call.priority
        if call.headers is not None:
            meta["h"] = call.headers
        if call.endpoint:
            meta["e"] = call.endpoint
        return meta

    def _fail(self, effect: Fail[HttpCall]) -> None:
        call = effect.call
        headers = {} if effect.retry_after is None else {"retry-after": str(effect.retry_after)}
        if effect.status == 504:
            call.counters.expired()
        else:
            call.counters.rejected(effect.code, effect.reason)
        call.fail(Fault(effect.status, effect.code, effect.message, headers=headers))

    def _cancel(self, peer: Peer, effect: CancelOnWorker[HttpCall]) -> None:
        if effect.why != "disconnect":  # a call counts its own client
            effect.call.counters.cancelled(effect.why)
        peer.link.send(Kind.CANCEL, effect.call.stream, {"why": effect.why})

    def _tell_of(self, worker: WorkerId, **said: Any) -> None:
        """Tell the supervisor something of a worker, if it is there: the address says which of those that had its number."""
        peer = self._peers.get(worker)
        if peer is not None:
            self.tell(at=peer.link.address, **said)

    def sweep(self, now: float) -> None:
        """Set the gauges, and look for workers that may hang; to be called about once a second."""
        self.show()
        for worker, peer in self._peers.items():
            if peer.falls_silent(now):
                self._tell_of(worker, silent=list(worker), seconds=SILENT_SECONDS)

    def show(self) -> None:
        """Set the gauges of this front end."""
        router = self._router
        inflight = [0] * len(self._counters)
        held = [0] * len(self._counters)
        for call in router.open_calls.values():
            inflight[call.api] += 1
            held[call.api] += call.num_bytes
        for api, counters in enumerate(self._counters):
            counters.show(waiting=router.lanes[api].num_waiting, inflight=inflight[api], inflight_bytes=held[api])


def _told(callback: Callable[[], None], call: HttpCall) -> None:
    """Call a user's callback about a call; if it raises, the request goes on."""
    with speaking_of(call):
        try:
            callback()
        except Exception:  # whatever it raises, it is not the client's fault
            _logger.exception("a callback failed")


def _router_of(config: ServerConfig) -> "Router[HttpCall]":
    deadline = None if config.deadline == math.inf else config.deadline
    kill_after = None if config.kill_after == math.inf else config.kill_after
    return Router(config.limits(), deadline=deadline, max_inflight_bytes=config.inflight_bytes, kill_after=kill_after)
