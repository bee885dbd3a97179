"""`WorkerLink`: frames over a stream socket without an event loop, for the one thread of a worker.

Nothing here blocks: what the other end does not take yet waits in memory, and whoever owns the link asks for the rest to be
written when the socket can be written to again. Sending is cheap: frames are collected, and `flush` hands them to the kernel
together.
"""

import select
import socket
import time
from typing import Any, final

from leyden.serve.wire import Buffer, Decoder, Frame, Kind, Reassembler, encode

_JOIN_BYTES = 64 << 10  # below, one copy into one buffer costs less than telling the kernel of each
_MOST_BUFFERS = 512  # that the kernel takes at once; the limit is 1,024
_MOST_READS = 16  # of one link, before the others get a turn


@final
class WorkerLink:
    """One connection.

    Args:
        sock: Connected; it is made non-blocking, and belongs to the link.

    Example:
        >>> here, there = (WorkerLink(each) for each in socket.socketpair())
        >>> here.send(Kind.REQ, 1, {"r": "a-1"}, b"hello")
        >>> here.flush()
        >>> there.read()
        [Frame(kind=<Kind.REQ: 3>, stream=1, flags=0, meta={'r': 'a-1'}, body=b'hello')]
        >>> here.close()
        >>> there.read(), there.is_ended
        ([], True)
        >>> there.close()
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket = sock
        self._decoder, self._parts = Decoder(), Reassembler()
        self._unsent: list[Buffer] = []
        self.unsent_bytes = 0  # after the last flush
        self.is_ended = False  # nothing comes any more, or nothing can be sent

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def read(self) -> list[Frame]:
        """Return the whole messages that are there; sets `is_ended` if they were the last.

        Raises:
            LinkError: What came is no frames: the link must be closed.
        """
        frames = list[Frame]()
        decoder = self._decoder
        for _ in range(_MOST_READS):
            space = decoder.space()
            try:
                count = self._socket.recv_into(space)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                count = 0
            if not count:
                self.is_ended = True
                break
            frames += decoder.filled(count)
            if count < len(space):  # there is no more: asking again would cost as much as reading did
                break
        add = self._parts.add
        return [whole for frame in frames if (whole := add(frame)) is not None]

    def send(self, kind: Kind, stream: int, meta: dict[str, Any] | None = None, body: bytes | bytearray = b"", flags: int = 0) -> None:
        """Say something with the next `flush`.

        Raises:
            ConfigError: The meta cannot be packed, or is too long.
        """
        self._unsent += encode(kind, stream, meta, body, flags)

    def flush(self) -> None:
        """Write as much as the other end takes now; `unsent_bytes` says what is left."""
        unsent, left = self._unsent, sum(map(len, self._unsent))
        while left and not self.is_ended:
            if left <= _JOIN_BYTES and len(unsent) > 1:
                unsent[:] = [b"".join(unsent)]
            try:
                sent = self._socket.send(unsent[0]) if len(unsent) == 1 else self._socket.sendmsg(unsent[:_MOST_BUFFERS])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.is_ended = True
                break
            left -= sent
            if left:
                self._forget(sent)
            else:
                unsent.clear()
        if self.is_ended:
            unsent.clear()
            left = 0
        self.unsent_bytes = left

    def _forget(self, sent: int) -> None:
        """Drop the first bytes of what is to be sent."""
        unsent, whole = self._unsent, 0
        for buffer in unsent:
            size = len(buffer)
            if size > sent:
                break
            sent -= size
            whole += 1
        del unsent[:whole]
        if sent:
            unsent[0] = memoryview(unsent[0])[sent:]

    def flush_all(self, seconds: float) -> None:
        """Write everything, or give up after so many seconds: for last words."""
        poll, until = select.poll(), time.monotonic() + seconds
        self.flush()
        while self.unsent_bytes and (left := until - time.monotonic()) > 0:
            poll.register(self._socket, select.POLLOUT)
            poll.poll(left * 1000)
            self.flush()

    def close(self) -> None:
        """Close the socket; what was not sent is lost."""
        self.is_ended = True
        self._socket.close()
