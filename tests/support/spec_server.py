"""A server for specs without sockets and processes: the front end's side of the seam, and a real executor in a thread."""

import asyncio
import contextlib
import math
import pickle
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from leyden.serve.api import LitAPI
from leyden.serve.codec import write_json
from leyden.serve.context import RequestContext
from leyden.serve.executors.executor import Executor
from leyden.serve.faults import Fault
from leyden.serve.hooks import plan_of
from leyden.serve.specs.adapted import adapted
from leyden.serve.specs.base import SpecCall

try:
    from leyden.serve.executors.choice import executor_for
    from leyden.serve.executors.requests import Reply, Request, Timing
except ModuleNotFoundError:  # before there are workers
    from leyden.serve.executors.batched import BatchedExecutor
    from leyden.serve.executors.executor import Reply, Request, Timing
    from leyden.serve.executors.single import SingleExecutor
    from leyden.serve.executors.streaming import StreamingExecutor

    def executor_for(api: Any, plan: Any) -> Executor:
        kind = StreamingExecutor if api.stream else BatchedExecutor if api.max_batch_size > 1 else SingleExecutor
        return kind(api, plan)


End = Fault | None


class Told:
    """What has come of one call, in the event loop that waits for it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pieces = list[bytes]()
        self.end: list[End] = []
        self.is_cancelled = False
        self.cancel: Callable[[], object] = bool
        self.news = asyncio.Event()

    def leave(self) -> None:
        """Take note that nobody waits any more; nothing, if it has ended."""
        if not self.end:
            self.is_cancelled = True
            self.cancel()

    def tell(self, piece: bytes | None, *end: End) -> None:
        def told() -> None:
            self.pieces += [] if piece is None else [piece]
            self.end += end
            self.news.set()

        with contextlib.suppress(RuntimeError):  # the loop is closed: who asked has left
            self.loop.call_soon_threadsafe(told)


class SpecServer:
    """A `Submitter` over an API.

    Args:
        api: Has a spec. A copy of it works, made as one for a worker is.
        exposes_errors: As the server's argument.
    """

    def __init__(self, api: LitAPI, *, exposes_errors: bool = True) -> None:
        self.exposes_errors = exposes_errors
        self.spec = api.spec
        self.spec.pre_setup(api)
        api.check()
        copy = pickle.loads(pickle.dumps(api))
        copy.device = "cpu"
        copy.setup("cpu")
        self.spec.setup(self)
        self.max_batch_size = api.max_batch_size
        self.calls = list[SpecCall]()
        self.batches = list[int]()
        self.ended = list[str]()
        self.tokens = list[Mapping[str, int]]()
        self._executor = executor_for(*adapted(copy, plan_of(copy, LitAPI)))
        self._told: dict[int, Told] = {}
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def __enter__(self) -> "SpecServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join(10)

    def app(self) -> FastAPI:
        """Return an app with the spec's routes."""
        app = FastAPI()
        for endpoint in self.spec.endpoints:
            app.add_api_route(endpoint.path, endpoint.function, methods=list(endpoint.methods), response_model=None)
        app.add_exception_handler(Fault, refused)
        return app

    # -- the front end's side --------------------------------------------------------------------------------------

    async def submit(self, call: SpecCall) -> bytes:
        told = self._sent(call)
        try:
            while not told.end:
                await self._news(told)
        finally:
            told.leave()
        if told.end[0] is not None:
            raise told.end[0]
        return b"".join(told.pieces)

    async def stream(self, call: SpecCall) -> AsyncGenerator[list[bytes], None]:
        told = self._sent(call)
        try:
            while True:
                await self._news(told)
                pieces, told.pieces = told.pieces, []
                if pieces:
                    yield pieces
                    continue  # more of them, and the end, may have come meanwhile
                if told.end and told.end[0] is not None:
                    raise told.end[0]
                if told.end:
                    return
        finally:
            self.ended.append("well" if told.end else "cancelled")
            told.leave()

    def used(self, usage: Mapping[str, int]) -> None:
        self.tokens.append(usage)

    def refused(self, fault: Fault) -> None:
        """Count nothing."""

    async def _news(self, told: Told) -> None:
        if not told.end:
            await asyncio.wait_for(told.news.wait(), 10)
            told.news.clear()

    def _sent(self, call: SpecCall) -> Told:
        self.calls.append(call)
        number, told = len(self.calls), Told()
        self._told[number] = told
        self._waiting.put(request_of(number, call.body, told))
        return told

    # -- the worker's side -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (request := self._waiting.get()) is not None:
            batch = [request]
            while len(batch) < self.max_batch_size:
                try:
                    more = self._waiting.get(timeout=0.02)
                except queue.Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            self.batches.append(len(batch))
            self._executor.run(batch, self)

    def reply(self, request: Request, reply: Reply, timing: Timing) -> None:
        self._told[request.number].tell(reply.body, None)

    def fault(self, request: Request, fault: Fault) -> None:
        self._told[request.number].tell(None, fault)

    def chunk(self, request: Request, data: bytes, content_type: str) -> None:
        self._told[request.number].tell(data)

    def end(self, request: Request, timing: Timing) -> None:
        self._told[request.number].tell(None, None)

    def has_room(self, request: Request) -> bool:
        return True

    def stalled(self) -> Fault:
        return Fault(408, "stream.stalled", "")

    stall_seconds = math.inf


async def refused(request: HttpRequest, fault: Exception) -> Response:
    """Return what an endpoint of a user's own spec lets through."""
    assert isinstance(fault, Fault)
    return Response(write_json(fault.body), fault.status)


def request_of(number: int, body: bytes, told: Told) -> Request:
    """Return a request that is cancelled when nobody waits for it."""
    if hasattr(Request, "cancel"):
        request = Request(number, body, facts={"r": f"r-{number}"})
        told.cancel = request.cancel
        return request
    return Request(number, body, "", RequestContext(f"r-{number}", is_cancelled=lambda: told.is_cancelled))
