"""A worker that does what a test says: it listens on a unix socket, speaks frames, and knows no model."""

import contextlib
import queue
import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from leyden.serve.wire import Decoder, Frame, Kind, Reassembler, encode

DEADLINE = 10.0


class Said(NamedTuple):
    """What a worker says to a request."""

    kind: Kind
    body: bytes = b""
    meta: dict[str, Any] | None = None


Answering = Callable[[Frame], Iterable[Said]]


def echo(frame: Frame) -> list[Said]:
    """Answer with the body of the request."""
    return [Said(Kind.RES, bytes(frame.body), {"b": 1, "us": [1, 2, 1]})]


class FakeWorker:
    """One worker. Without `answering` the test takes each request (`take`) and answers it (`say`).

    Args:
        path: Of its socket; it listens from the beginning.
        answering: What it says to each request.
        ready: The meta of READY; `None` to never be ready.
    """

    def __init__(self, path: Path, answering: Answering | None = None, ready: dict[str, Any] | None = None) -> None:
        self.address = f"unix:{path}"
        self.told: queue.Queue[Frame] = queue.Queue()  # CANCEL, WINDOW, …
        self._requests: queue.Queue[Frame] = queue.Queue()
        self._answering = answering
        self._ready = {"api": 0, "mb": 1, "stream": False, "conc": 1} | (ready or {})
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._links: dict[socket.socket, tuple[Decoder, Reassembler]] = {}
        self._owners: dict[int, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> Frame:
        """Return the next request."""
        return self._requests.get(timeout=DEADLINE)

    def has_request(self) -> bool:
        return not self._requests.empty()

    def heard(self, kind: Kind) -> Frame:
        """Return the next frame of a kind that is no request."""
        while True:
            frame = self.told.get(timeout=DEADLINE)
            if frame.kind is kind:
                return frame

    def say(self, frame: Frame, kind: Kind, body: bytes = b"", meta: dict[str, Any] | None = None) -> None:
        """Say something to a request."""
        with contextlib.suppress(OSError):
            self._owners[frame.stream].sendall(b"".join(encode(kind, frame.stream, meta, body)))

    def die(self) -> None:
        """End all links at once, as a process that is killed does, and listen no more."""
        self._wake.send(b"x")
        self._thread.join()

    def _run(self) -> None:
        with self._selector:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._woken:
                        for each in (self._listener, self._woken, self._wake, *self._links):
                            each.close()
                        return
                    self._handle(key.fileobj)

    def _handle(self, found: Any) -> None:
        if found is self._listener:
            link, _ = found.accept()
            self._links[link] = (Decoder(), Reassembler())
            self._selector.register(link, selectors.EVENT_READ)
            link.sendall(b"".join(encode(Kind.HELLO, 0, {"v": 1, "role": "worker"}) + encode(Kind.READY, 0, self._ready)))
            return
        decoder, reassembler = self._links[found]
        try:
            data = found.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(found)
            del self._links[found]
            found.close()
            return
        out = list[bytes]()
        for part in decoder.feed(data):
            frame = reassembler.add(part)
            if frame is not None:
                out += self._answers(found, frame)
        with contextlib.suppress(OSError):
            found.sendall(b"".join(out))

    def _answers(self, link: socket.socket, frame: Frame) -> Iterable[Any]:
        if frame.kind is not Kind.REQ:
            self.told.put(frame)
            if frame.kind is Kind.CANCEL and self._answering is not None:  # as workers do: each item ends
                yield from encode(Kind.ERROR, frame.stream, {"s": 499, "c": "request.cancelled"})
            return
        self._owners[frame.stream] = link
        if self._answering is None:
            self._requests.put(frame)
            return
        for said in self._answering(frame):
            yield from encode(said.kind, frame.stream, said.meta, said.body)
