"""`ApiSubmitter`: calls of specs go the way of all others; their answers come back to the endpoint that made them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, final

from leyden.serve.codec import read_json
from leyden.serve.config import ServerConfig
from leyden.serve.faults import Fault
from leyden.serve.front.answers import Answer
from leyden.serve.front.asgi import REQUEST_ID
from leyden.serve.front.calls import HttpCall
from leyden.serve.front.dispatcher import Dispatcher
from leyden.serve.front.intake import Intake
from leyden.serve.mcp import Tools
from leyden.serve.specs.base import SpecCall
from leyden.serve.wire import Frame


@final
class _Listener:
    """The endpoint of a call: it waits here for what comes."""

    def __init__(self) -> None:
        self.pieces = list[bytes]()
        self.is_ended = False
        self.fault: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_congested(self) -> bool:
        """Whether the endpoint has not taken what came."""
        return bool(self.pieces)

    def wake(self) -> None:
        """Let the endpoint look."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self) -> None:
        """Wait until something has come."""
        while not self.pieces and not self.is_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class InnerCall(HttpCall):
    """A call whose client is an endpoint: pieces stay pieces, and errors stay errors."""

    def reply(self, answer: Answer) -> None:
        """Hand the answer over."""
        listener: Any = self.client
        if listener is not None:
            listener.pieces.append(bytes(answer.body))
            self._over(answer.status)

    def fail(self, fault: Fault, *, raw_detail: bytes | None = None) -> None:
        """Hand the error over."""
        listener: Any = self.client
        if listener is not None:
            if raw_detail is not None:
                fault.detail = read_json(raw_detail)
            listener.fault = fault
            self._over(fault.status)

    def on_chunk(self, frame: Frame) -> bool:
        """Keep a piece; return whether the endpoint is to be woken for it."""
        listener: Any = self.client
        if listener is None:
            return False
        if not self.is_answering:
            self.is_answering = True
            self.counters.began(self.owner.now() - self.began)
        listener.pieces.append(bytes(frame.body))
        return len(listener.pieces) == 1

    def flush(self) -> None:
        """Wake the endpoint."""
        listener: Any = self.client
        if listener is not None:
            listener.wake()

    def on_end(self, frame: Frame) -> None:
        """Take note that no more pieces come."""
        del frame
        if self.client is not None:
            self._over(200)

    def taken(self, num_bytes: int) -> None:
        """Take note that the endpoint asks for more: what it took may come again."""
        self._given += num_bytes
        if self.client is not None:
            self.caught_up()

    def _over(self, status: int) -> None:
        listener: Any = self.client
        listener.is_ended = True
        listener.wake()
        self.finish(status)


@final
class ApiSubmitter:
    """What a spec asks of a front end.

    Args:
        dispatcher: Takes calls.
        intake: Reads heads.
        api: The number of the API.
    """

    def __init__(self, dispatcher: Dispatcher, intake: Intake, api: int) -> None:
        self._dispatcher, self._intake, self._api = dispatcher, intake, api

    @property
    def exposes_errors(self) -> bool:
        """Whether answers tell what went wrong in a hook."""
        return self._dispatcher.exposes_errors

    async def submit(self, call: SpecCall) -> bytes:
        """Return the body that the worker answers.

        Raises:
            Fault: Whatever else the answer would be.
        """
        async for pieces in self.stream(call):
            return pieces[0]
        raise AssertionError("an answer is one piece, or an error")

    async def stream(self, call: SpecCall) -> AsyncGenerator[list[bytes], None]:
        """Yield the pieces of a stream, as they came.

        Raises:
            Fault: Whatever ends it otherwise than well.
        """
        listener = _Listener()
        inner = self._opened(call, listener)
        try:
            while True:
                await listener.news()
                pieces, listener.pieces = listener.pieces, list[bytes]()
                if pieces:
                    if inner.is_answering:  # a stream, of which the numbers tell
                        inner.counters.pieces(len(pieces))
                    yield pieces
                    inner.taken(sum(map(len, pieces)))
                elif listener.fault is not None:
                    raise listener.fault
                else:
                    return
        finally:
            inner.abandon()

    def used(self, usage: Mapping[str, int]) -> None:
        """Count tokens."""
        self._dispatcher.counters(self._api).used(dict(usage))

    def refused(self, fault: Fault) -> None:
        """Count a request that is refused before anything is computed."""
        self._dispatcher.counters(self._api).refused(fault)

    def _opened(self, call: SpecCall, listener: _Listener) -> Any:
        headers = dict(call.scope.get("headers", ()))
        request_id = call.scope.get(REQUEST_ID) or self._intake.request_id(headers)
        client: Any = listener  # of an `InnerCall`, which asks less of it than calls ask of others
        inner: Any = self._dispatcher.open(self._api, client, request_id, InnerCall)
        try:
            self._intake.read(inner, headers)
            inner.content_type, inner.endpoint = "", call.endpoint
            inner.add(call.body)
        except Fault as fault:
            inner.refuse(fault)
        else:
            self._dispatcher.submit(inner)
        return inner


def tools_of(config: ServerConfig, dispatcher: Dispatcher, intake: Intake) -> Tools | None:
    """Return the APIs that language models may call as tools; `None` if there is none.

    Args:
        config: Of the server.
        dispatcher: Takes their calls.
        intake: Knows the keys.
    """
    numbers = [number for number, api in enumerate(config.apis) if api.tool is not None]
    if not numbers:
        return None
    return Tools(
        [tool for api in config.apis if (tool := api.tool) is not None],
        [ApiSubmitter(dispatcher, intake, number) for number in numbers],
        refusal=lambda scope: intake.keys.refusal(dict(scope["headers"])),
        max_payload_bytes=config.max_payload_bytes,
    )
