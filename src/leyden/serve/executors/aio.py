"""`AsyncExecutor`: many requests at once in one thread, each a task of an event loop.

A cancelled request is a cancelled task. Hooks that are not async, and not the defaults, run in a thread, of which `LitAPI.check`
warns: who writes `async def predict` does not expect another hook to hold up all requests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, final

from leyden.core.log import about
from leyden.core.optional import installed, require
from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.codec import decode_body
from leyden.serve.executors.executor import Executor, Stopwatch, answered, broken_by, called, reply_of, undecoded
from leyden.serve.executors.requests import Request, Sink, Timing
from leyden.serve.faults import HookCall
from leyden.serve.hooks import Form, HookPlan


@final
class AsyncExecutor(Executor):
    """Answers requests side by side, with or without streams.

    Args:
        api: The user's `LitAPI`, set up.
        plan: What its hooks are.
        callbacks: Told before and after each step.
    """

    def __init__(self, api: Any, plan: HookPlan, callbacks: CallbackRunner | None = None) -> None:
        super().__init__(api, plan, callbacks)
        self._tasks: dict[asyncio.Task[None], Request] = {}
        self.on_room: Callable[[], None] = _do_nothing  # called whenever a request has ended

    @property
    def concurrency(self) -> int:
        return self.api.concurrency

    @property
    def room(self) -> int:
        """How many more requests may be started."""
        return self.api.concurrency - len(self._tasks)

    def answer(self, requests: Sequence[Request], sink: Sink) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(self._run_all(requests, sink))

    async def _run_all(self, requests: Sequence[Request], sink: Sink) -> None:
        waiting = list(reversed(requests))
        while waiting or self._tasks:
            while waiting and self.room > 0:
                self.start([waiting.pop()], sink)
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def start(self, requests: Sequence[Request], sink: Sink) -> None:
        """Begin requests, in the event loop that runs; each is answered when it is done."""
        for request in requests:
            if request.is_cancelled():
                sink.fault(request, request.end)
                continue
            task = asyncio.create_task(self._one(request, sink))
            self._tasks[task] = request
            request.on_cancel = task.cancel
            task.add_done_callback(lambda task: self._ended(task, sink))

    def _ended(self, task: asyncio.Task[None], sink: Sink) -> None:
        request = self._tasks.pop(task)
        request.on_cancel = None
        if task.cancelled():  # also one that never began: no code of it ran that could have answered
            sink.fault(request, request.end)
        elif (error := task.exception()) is not None:
            if not isinstance(error, Exception):
                raise error  # SystemExit: the user wants the process to end
            sink.fault(request, answered(error, HookCall("predict"), request))
        self.on_room()

    async def _one(self, request: Request, sink: Sink) -> None:
        about(request)  # for this task, and threads that it waits for
        hook, watch = "decode_request", Stopwatch()
        try:
            self.events.before_decode()
            value = await self._decoded(request)
            self.events.after_decode()
            decode = watch.lap()
            hook = "predict"
            self.events.before_predict()
            if self.plan.predict.form is Form.ASYNC_GENERATOR:
                await self._stream(value, request, sink)
                self.events.after_predict()
                return sink.end(request, Timing(decode, watch.lap()))
            output = await called(self.api.predict, self.plan.predict, value, request)
            self.events.after_predict()
            predict = watch.lap()
            hook = "encode_response"
            self.events.before_encode()
            reply = reply_of(await self._encoded(output, request))
            self.events.after_encode()
        except Exception as error:  # noqa: BLE001 - the user's hook may raise anything: it is answered
            call = broken_by(error, self.api) if hook == "predict" else HookCall(hook)
            return sink.fault(request, answered(error, call, request))
        return sink.reply(request, reply, Timing(decode, predict, watch.lap()))

    # -- hooks -----------------------------------------------------------------------------------------------------

    async def _decoded(self, request: Request) -> Any:
        hook = self.plan.decode_request
        if not hook.is_own:
            return self.decode(request)
        if not hook.form.is_async:
            return await asyncio.to_thread(self.decode, request)
        value = decode_body(request.body, request.content_type, self.plan)
        if hook.form is Form.ASYNC_GENERATOR:  # predict() takes what it yields
            return called(self.api.decode_request, hook, value, request)
        try:
            return await called(self.api.decode_request, hook, value, request)
        except Exception as error:
            raise undecoded(error, value, request) from error

    async def _encoded(self, output: Any, request: Request) -> Any:
        hook = self.plan.encode_response
        if not hook.is_own:
            return output
        if hook.form.is_async:
            return await called(self.api.encode_response, hook, output, request)
        return await asyncio.to_thread(called, self.api.encode_response, hook, output, request)

    # -- streams ---------------------------------------------------------------------------------------------------

    async def _stream(self, value: Any, request: Request, sink: Sink) -> None:
        """Send pieces as they come; the generator is closed in any case."""
        pieces = self._pieces(value, request)
        try:
            async for piece in pieces:
                await self._until_room(request, sink)
                sink.chunk(request, *self.piece(piece))
                await asyncio.sleep(0)  # a generator that never waits would let nobody else run, and nothing be sent
        finally:
            await pieces.aclose()

    def _pieces(self, value: Any, request: Request) -> Any:
        outputs = called(self.api.predict, self.plan.predict, value, request)
        encode = self.plan.encode_response
        if not encode.is_own:
            return outputs
        if encode.form.is_async:
            return called(self.api.encode_response, encode, outputs, request)
        return self._encoded_each(outputs, request)

    async def _encoded_each(self, outputs: AsyncIterator[Any], request: Request) -> AsyncIterator[Any]:
        """Yield what a generator that is not async makes of the outputs, each alone."""
        async for output in outputs:
            for piece in await asyncio.to_thread(self._all_pieces, output, request):
                yield piece

    def _all_pieces(self, output: Any, request: Request) -> list[Any]:
        return list(called(self.api.encode_response, self.plan.encode_response, iter([output]), request))

    async def _until_room(self, request: Request, sink: Sink) -> None:
        """Wait until the client has read enough for another piece.

        Raises:
            Fault: It did not for too long.
        """
        if sink.has_room(request):
            return
        has_read = asyncio.Event()
        request.on_read = has_read.set
        try:
            async with asyncio.timeout(sink.stall_seconds):
                while not sink.has_room(request):
                    has_read.clear()
                    await has_read.wait()
        except TimeoutError:
            raise sink.stalled() from None
        finally:
            request.on_read = None


def _do_nothing() -> None:
    """Do nothing."""


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop, uvloop's where that is installed."""
    if installed("uvloop"):
        return require("uvloop", purpose="enable_async", extra="serve").new_event_loop()
    return asyncio.new_event_loop()
