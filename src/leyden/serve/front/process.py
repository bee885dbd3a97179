"""A front end as a process: uvicorn on a socket that it inherits, told by the supervisor who its workers are.

What comes over the control socket, frames of kind STATE, DRAIN and LOG:

| meta | what it says |
|---|---|
| `{"up": [api, index], "at": address}` | a worker listens there, or soon will |
| `{"down": [api, index]}` | it is not coming back |
| `{"api": number, "wanted": count}` | so many workers are to be there; 0 while it sleeps |
| `{"api": number, "failing": message}` | its workers cannot start; an empty message: they can again |
| DRAIN | finish what is there and stop |
| DRAIN `{"now": true}` | give up what is there and stop |
| LOG `{"k": key, "a": api}`, and a value as msgpack | a worker of this API logged it |

What goes to the supervisor, frames of kind STATE; `at` says which of the workers is meant that had this number:

| meta | what it says |
|---|---|
| `{"serving": true}` | requests are taken |
| `{"leaving": true}` | no connections are taken any more |
| `{"shutdown": true}` | somebody with the key asks for the end of the server |
| `{"wake": api}` | a request waits for an API that has no worker |
| `{"silent": [api, index], "at": address, "seconds": s}` | a worker has said nothing for so long, and has requests |
| `{"kill": [api, index], "at": address}` | it goes on with what it was told to leave, for longer than it may |

The end of the control socket is the end of the supervisor: then this process is no server any more, and leaves at once.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import uvicorn

from leyden.core.log import get_logger
from leyden.serve.effects import WorkerId
from leyden.serve.errors import LinkError
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.wire import Decoder, Frame, Kind, encode

_LAST_SECONDS = 2.0  # for the last bytes of answers, after the rest was given up
_ABORT_SECONDS = 1.0  # for what ends then
_logger = get_logger(__name__)


@final
class _Server(uvicorn.Server):
    """Uvicorn without signal handlers: the supervisor alone says when to stop.

    Args:
        config: Of uvicorn.
        on_started: Called once requests are taken.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@final
class FrontProcess:
    """Runs a front end until it is told to stop.

    Args:
        front: What runs.
        listener: The socket that listens already.
        control: The end of a socket pair whose other end the supervisor has; `None` to run without one.
        options: Settings of uvicorn that the user gave.
    """

    def __init__(
        self, front: FrontEnd, listener: socket.socket, control: socket.socket | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self._front, self._listener, self._control = front, listener, control
        self._options = dict(options or {})
        self._server: _Server | None = None
        self._drain: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_done = False

    def run(self) -> None:
        """Serve, in an event loop of its own; return once it has drained."""
        app = self._front.served(self._settle)
        config = uvicorn.Config(app, **{**self._front.uvicorn_options(), **self._options})
        server = self._server = _Server(config, self._serving)
        if self._control is not None:  # a process of its own
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal signals the whole group: the supervisor decides
            self._settle()
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(self._serve(server))

    def _settle(self) -> None:
        if self._control is not None:
            gc.freeze()  # what is there by now stays, and is not looked through again and again; looking once for garbage takes 25 ms

    async def _serve(self, server: _Server) -> None:
        loop = self._loop = asyncio.get_running_loop()
        if self._control is not None:
            loop.add_signal_handler(signal.SIGTERM, self.drain)
            self._control.settimeout(0)
            _, line = await loop.create_connection(lambda: Control(self._said, self._orphaned), sock=self._control.dup())
            self._front.dispatcher.tell = line.tell
        await server.serve(sockets=[self._listener])
        self._is_done = True
        if self._drain is not None:
            self._drain.cancel()

    def _serving(self) -> None:
        if self._control is not None:
            self._control.sendall(encode(Kind.STATE, 0, {"serving": True})[0])

    # -- what it is told -----------------------------------------------------------------------------------------------

    def drain(self, *, now: bool = False) -> None:
        """Stop, from the event loop's own thread: not ready, then no new connections, then what is there ends, or is given up.

        Args:
            now: Whether what is there is given up at once.
        """
        if now:
            self._hurry.set()
        if self._drain is None and self._loop is not None:
            self._drain = self._loop.create_task(self._drained())

    def drain_soon(self) -> None:
        """Stop, from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)

    async def _drained(self) -> None:
        """Let uvicorn stop, which waits until answers are read, and then ends this task; give up what it waits for in vain."""
        front, config, server = self._front, self._front.config, self._server
        front.readiness.is_draining = True
        await self._hurried(config.drain_delay)
        if server is None:
            return
        server.should_exit = True
        front.dispatcher.tell(leaving=True)
        if not await self._hurried(config.drain_timeout):
            _logger.warning(
                "%d requests were not done, and %d connections not, after %g s and are given up",
                front.dispatcher.num_open,
                len(server.server_state.connections),
                config.drain_timeout,
            )
        front.dispatcher.stop()
        await asyncio.sleep(_LAST_SECONDS)
        for connection in server.server_state.connections:
            connection.transport.abort()
        for task in server.server_state.tasks:
            task.cancel()
        await asyncio.sleep(_ABORT_SECONDS)
        server.force_exit = True

    async def _hurried(self, seconds: float) -> bool:
        """Wait so long; return whether it was to go on at once."""
        try:
            async with asyncio.timeout(seconds):
                return await self._hurry.wait()
        except TimeoutError:
            return False

    def _said(self, frame: Frame) -> None:
        if frame.kind is Kind.DRAIN:
            self.drain(now=bool(frame.meta.get("now")))
        else:
            hear(self._front, frame)

    def _orphaned(self) -> None:
        if not self._is_done:
            os._exit(1)  # whoever started this is gone: no answer of ours can be trusted to mean anything


def hear(front: FrontEnd, frame: Frame) -> None:
    """Take note of what the supervisor says of workers, and of what they logged.

    Args:
        front: Who hears it.
        frame: Of kind STATE or LOG.
    """
    meta = frame.meta
    if frame.kind is Kind.LOG:
        front.loggers.take(meta["a"], meta["k"], bytes(frame.body))
    elif "up" in meta:
        front.add_worker(WorkerId(*meta["up"]), meta["at"])
    elif "down" in meta:
        front.remove_worker(WorkerId(*meta["down"]))
    elif "wanted" in meta:
        front.set_wanted(meta["api"], meta["wanted"])
    elif "failing" in meta:
        front.set_failing(meta["api"], meta["failing"])


@final
class Control(asyncio.Protocol):
    """The control socket, in a front end."""

    def __init__(self, said: Callable[[Frame], None], ended: Callable[[], None]) -> None:
        self._said, self._ended = said, ended
        self._decoder = Decoder()
        self._transport: asyncio.WriteTransport = None  # type: ignore[assignment] - the loop sets it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def tell(self, **said: Any) -> None:
        """Tell the supervisor something."""
        self._transport.write(b"".join(encode(Kind.STATE, 0, said)))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._said(frame)
        except LinkError:
            _logger.exception("the supervisor sent what is no frame")
            self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()
