"""A front end of one thread, and workers that are really processes: for tests of the worker's side of a link."""

import contextlib
import json
import multiprocessing
import socket
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec

from leyden.serve.api import LitAPI
from leyden.serve.callbacks.callback import Callback
from leyden.serve.wire import LAST_OF_BATCH, LINK_STREAM, Decoder, Frame, Kind, Reassembler, encode
from leyden.serve.worker import WorkerSpec, packed, worker_main

SECONDS = 20.0  # the deadline of everything that is waited for
ENDS = (Kind.RES, Kind.END, Kind.ERROR)


class Wire:
    """Frames over a blocking socket, with a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(SECONDS)
        self._decoder, self._parts = Decoder(), Reassembler()
        self._frames: list[Frame] = []

    def send(self, kind: Kind, stream: int = LINK_STREAM, meta: dict[str, Any] | None = None, body: bytes = b"", flags: int = 0) -> None:
        self.socket.sendall(b"".join(encode(kind, stream, meta, body, flags)))

    def receive(self) -> Frame | None:
        """Return the next message; `None` at the end."""
        while not self._frames:
            count = self.socket.recv_into(self._decoder.space())
            if not count:
                return None
            self._frames = [whole for frame in self._decoder.filled(count) if (whole := self._parts.add(frame)) is not None]
        return self._frames.pop(0)

    def expect(self, *kinds: Kind) -> Frame:
        """Return the next message, which is one of these."""
        frame = self.receive()
        assert frame is not None, "the link has ended"
        assert frame.kind in kinds, frame
        return frame

    def close(self) -> None:
        self.socket.close()


class FrameClient(Wire):
    """A front end that is connected and greeted."""

    def __init__(self, address: str, *, token: str = "", greets: bool = True) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)
        super().__init__(sock)
        if greets:
            self.send(Kind.HELLO, meta={"v": 1, "role": "front", "id": "f0", "token": token})
            self.hello = self.expect(Kind.HELLO).meta
            self.ready = self.expect(Kind.READY).meta

    def ask(self, stream: int, value: Any, *, is_last: bool = True, **meta: Any) -> None:
        """Send a request."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send(Kind.REQ, stream, {"r": f"r-{stream}", **meta}, body, LAST_OF_BATCH if is_last else 0)

    def ask_all(self, values: dict[int, Any], **meta: Any) -> None:
        """Send one batch."""
        for stream, value in values.items():
            self.ask(stream, value, is_last=stream == list(values)[-1], **meta)

    def answer(self, stream: int) -> Frame:
        """Return the last frame of a request; nothing of another one may come before."""
        while True:
            frame = self.expect(Kind.CHUNK, *ENDS)
            assert frame.stream == stream, frame
            if frame.kind is not Kind.CHUNK:
                return frame

    def answers(self, count: int) -> dict[int, Frame]:
        """Return the last frames of so many requests, in the order in which they come."""
        found = [self.expect(*ENDS) for _ in range(count)]
        assert len({frame.stream for frame in found}) == count, "a request was answered twice"
        return {frame.stream: frame for frame in found}

    def wait_until_read(self) -> None:
        """Wait until the worker has read all that was sent; answers must not come meanwhile."""
        self.send(Kind.PING)
        self.expect(Kind.PONG)


def value_of(answer: Frame) -> Any:
    """Return the value of an answer that is one."""
    assert answer.kind is Kind.RES, answer
    return json.loads(bytes(answer.body))


class RunningWorker:
    """A worker process and the supervisor's end of its control line."""

    def __init__(self, process: BaseProcess, control: Wire, address: str) -> None:
        self.process, self.control, self.address = process, control, address
        self._clients: list[FrameClient] = []

    def connect(self, **options: Any) -> FrameClient:
        """Connect a front end, which is closed with the worker if not before."""
        self._clients.append(FrameClient(self.address, **options))
        return self._clients[-1]

    def leave(self, client: FrameClient) -> None:
        """Drain the worker, whose only front end this is."""
        self.control.send(Kind.DRAIN)
        client.expect(Kind.DRAIN)
        client.send(Kind.DRAIN)
        client.expect(Kind.BYE)
        assert client.receive() is None
        self.control.expect(Kind.BYE)
        assert self.wait() == 0
        assert not Path(self.address).exists()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.process.kill()
        self.process.join()
        self.process.close()

    def logged(self) -> tuple[str, Any]:
        """Return the next value for the loggers."""
        frame = self.control.expect(Kind.LOG)
        return frame.meta["k"], msgspec.msgpack.decode(frame.body)

    def wait(self) -> int | None:
        """Return the exit status."""
        self.process.join(SECONDS)
        return self.process.exitcode


@contextlib.contextmanager
def starting_worker(api: LitAPI, callbacks: Sequence[Callback] = (), **options: Any) -> Iterator[RunningWorker]:
    """Start a worker; afterwards it is gone."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="leyden-w-") as folder, ours:
        spec = WorkerSpec(packed=packed(api, callbacks), api=0, name="w0", address=str(Path(folder) / "w0.sock"), **options)
        process = multiprocessing.get_context("spawn").Process(target=worker_main, args=(spec, theirs), daemon=True)
        process.start()
        theirs.close()
        worker = RunningWorker(process, Wire(ours), spec.address)
        try:
            yield worker
        finally:
            worker.close()


@contextlib.contextmanager
def running_worker(api: LitAPI, callbacks: Sequence[Callback] = (), **options: Any) -> Iterator[RunningWorker]:
    """Start a worker and wait until it is ready."""
    with starting_worker(api, callbacks, **options) as worker:
        state = worker.control.expect(Kind.STATE)
        assert state.meta["state"] == "ready", bytes(state.body).decode()
        yield worker
