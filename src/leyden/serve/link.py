"""`Link`: one worker as a front end sees it, an asyncio connection that carries frames.

It connects as soon as the worker listens, trying again until it is closed, and says what comes to a `Receiver`. The end of the
connection is the end of the worker: there is no second way to find out, and no pause before it is told.

```
CONNECTING ──► HELLO both ways ──► READY ──► frames of calls ──► EOF: lost() ──► CONNECTING again, until close()
```
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final, Protocol, final

from leyden.core.errors import ConfigError
from leyden.core.log import get_logger
from leyden.serve.effects import WorkerId, WorkerShape
from leyden.serve.errors import LinkError
from leyden.serve.wire import LINK_STREAM, MAX_PAYLOAD_BYTES, Body, Buffer, Decoder, Frame, Kind, Reassembler, encode, size_of

VERSION: Final = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5  # seconds between two tries to connect
_UNIX: Final = "unix:"
_JOINED_BYTES: Final = 64 << 10  # more than this is not copied to be written at once
_logger = get_logger(__name__)


class Receiver(Protocol):
    """Who is told what comes from a worker."""

    def ready(self, link: "Link", shape: WorkerShape) -> None:
        """Take note that the worker takes calls, or none any more."""

    def lost(self, link: "Link", why: str) -> None:
        """Take note that the worker is gone with all it had."""

    def received(self, link: "Link", frames: Sequence[Frame]) -> None:
        """Handle whole frames of calls, in order: what one read of the socket brought."""


@final
class Link:
    """A connection to one worker. `open` it in an event loop, `close` it in the same.

    Args:
        worker: Which.
        address: Where it listens: `unix:/path`.
        receiver: Who is told.
        name: Of this front end, for the worker's log.
        token: What workers on other machines ask for.

    Raises:
        ConfigError: The address is of no kind that is known.
    """

    def __init__(self, worker: WorkerId, address: str, receiver: Receiver, *, name: str = "front", token: str = "") -> None:
        if not address.startswith(_UNIX):
            raise ConfigError(f"a worker's address is {address!r}. Known are addresses like 'unix:/tmp/leyden-1/w0.sock'.")
        self.worker, self.address = worker, address
        self.is_ready = False
        self._receiver, self._name, self._token = receiver, name, token
        self._task: asyncio.Task[None] | None = None
        self._connection: _Connection | None = None
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._is_closed = False
        self._shape = WorkerShape()

    # -- life ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connecting())

    def close(self) -> None:
        """End the connection and all tries; nothing is told any more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _keep_connecting(self) -> None:
        loop, path, pause = asyncio.get_running_loop(), self.address.removeprefix(_UNIX), FIRST_PAUSE
        while not self._is_closed:
            try:
                _, connection = await loop.create_unix_connection(lambda: _Connection(self), path)
            except OSError:  # not there yet, or not there any more: who made this link says when to stop
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
            else:
                await connection.ended.wait()
                pause = FIRST_PAUSE
                await asyncio.sleep(pause)

    def reset(self) -> None:
        """End the connection, as if the worker were gone; then connect again."""
        self._out, self._out_bytes = list[Buffer](), 0
        if self._connection is not None:
            self._connection.close()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, kind: Kind, stream: int, meta: dict[str, Any] | None = None, body: Body = b"", flags: int = 0) -> None:
        """Take a frame to be written by the next `flush`; frames to a worker that is gone are dropped."""
        self._out += encode(kind, stream, meta, body, flags)
        self._out_bytes += size_of(body)

    def flush(self) -> None:
        """Write what was sent, in one go."""
        out = self._out
        if not out:
            return
        is_small = self._out_bytes <= _JOINED_BYTES
        self._out, self._out_bytes = list[Buffer](), 0
        connection = self._connection
        if connection is None:
            return
        if is_small:
            connection.transport.write(b"".join(out))
        else:
            connection.transport.writelines(out)

    # -- what the connection tells ---------------------------------------------------------------------------------

    def began(self, connection: "_Connection") -> None:
        """Say hello."""
        self._connection, self._out, self._out_bytes = connection, list[Buffer](), 0
        self.send(Kind.HELLO, LINK_STREAM, {"v": VERSION, "role": "front", "id": self._name, "token": self._token})
        self.flush()

    def ended(self, why: str) -> None:
        """Tell that the worker is gone, if it ever was there."""
        self._connection = None
        was_ready, self.is_ready = self.is_ready, False
        if was_ready and not self._is_closed:
            self._receiver.lost(self, why)

    def came_plain(self, frames: list[Frame]) -> None:
        """Handle frames that are all about calls."""
        if self.is_ready:
            self._receiver.received(self, frames)

    def came(self, frames: list[Frame]) -> None:
        """Handle frames: those about the link here, the others are the receiver's.

        Raises:
            LinkError: The worker speaks another version, or is not the one that was meant.
        """
        ours = list[Frame]()
        for frame in frames:
            if frame.stream != LINK_STREAM:
                ours.append(frame)
                continue
            if ours:
                self._receiver.received(self, ours)
                ours = list[Frame]()
            self._about_link(frame)
        if ours:
            self._receiver.received(self, ours)

    def _about_link(self, frame: Frame) -> None:
        meta = frame.meta
        if frame.kind is Kind.HELLO:
            if meta.get("v") != VERSION:
                self.send(Kind.ERROR, LINK_STREAM, {"m": f"version {VERSION} is spoken here"})
                self.flush()
                raise LinkError(f"A worker speaks version {meta.get('v')!r} of the protocol, and this front end {VERSION}.")
        elif frame.kind is Kind.READY:
            self._ready(meta)
        elif frame.kind in {Kind.DRAIN, Kind.BYE}:
            if self.is_ready:
                self._receiver.ready(self, self._shape._replace(takes_work=False))
            if frame.kind is Kind.DRAIN:  # nothing more comes from here, so the worker need not wait for it
                self.send(Kind.DRAIN, LINK_STREAM)
                self.flush()
        elif frame.kind is Kind.PING:
            self.send(Kind.PONG, LINK_STREAM)
            self.flush()
        elif frame.kind is Kind.ERROR:
            raise LinkError(f"A worker refused this front end: {meta.get('m', 'it did not say why')}.")

    def _ready(self, meta: dict[str, Any]) -> None:
        if meta.get("api", self.worker.api) != self.worker.api:
            raise LinkError(f"{self.address} is a worker of API {meta.get('api')}, and one of API {self.worker.api} was meant.")
        self._shape = WorkerShape(max_batch_size=max(1, int(meta.get("mb", 1))), concurrency=max(1, int(meta.get("conc", 1))))
        self.is_ready = True
        self._receiver.ready(self, self._shape)


@final
class _Connection(asyncio.BufferedProtocol):
    """The socket of a link: bytes are read to where frames are cut, without a copy."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._decoder, self._reassembler = Decoder(), Reassembler()
        self._why = "its connection ended"
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        # A whole frame at once, as far as the system allows it: with its default a body of 1 MB takes 15 % more CPU time.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PAYLOAD_BYTES)
        self._link.began(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.space()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            frames = self._decoder.filled(nbytes)
            if self._decoder.is_plain and not self._reassembler.held_bytes:
                if frames:
                    self._link.came_plain(frames)
            elif frames := [whole for frame in frames if (whole := self._reassembler.add(frame)) is not None]:
                self._link.came(frames)
        except LinkError as error:
            _logger.error("%s", error)
            self._why = "its link was broken"
            self.close()

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._link.ended(self._why)

    def close(self) -> None:
        """End the connection at once."""
        self.transport.abort()
