"""Tries one API in this process: its worker in the main thread, as a worker process has it, and a front end in another thread.

So `setup` and the hooks run where a debugger and a profiler see them, and the request goes the whole way: route, router, frames,
executor. Keys and `authorize` are left out.
"""

import asyncio
import contextlib
import dataclasses
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from leyden.serve.callbacks.runner import CallbackRunner
from leyden.serve.command.samples import Sample
from leyden.serve.config import Secrets, ServerConfig
from leyden.serve.control import ControlLine
from leyden.serve.effects import WorkerId
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.wire import Kind, encode
from leyden.serve.worker import WorkerSpec, listening_at, set_up, unpacked, work


class Answer(NamedTuple):
    """What came.

    Args:
        status: Of HTTP.
        body: Its bytes.
        is_whole: Whether it ends well; a stream may break off.
        seconds: How long it took.
    """

    status: int
    body: bytes
    is_whole: bool
    seconds: float


class Outcome(NamedTuple):
    """How a trial went.

    Args:
        setup_seconds: How long the setup took.
        answer: To the request; `None` if there was none.
    """

    setup_seconds: float
    answer: Answer | None


def attempt(spec: WorkerSpec, config: ServerConfig, sample: Sample | None) -> Outcome:
    """Set an API up, and let it answer a request.

    Args:
        spec: What its worker is to be.
        config: Of the server.
        sample: The request; `None` to set it up only.

    Raises:
        BaseException: Whatever `setup` raises, or a hook that ends its process.
    """
    api, callbacks = unpacked(spec)
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryDirectory(prefix="leyden-") as folder:
        control = ControlLine(theirs, leave=lambda _: None)
        began = time.monotonic()
        executor = set_up(api, CallbackRunner(callbacks), spec, control)
        setup_seconds = time.monotonic() - began
        if sample is None:
            return Outcome(setup_seconds, None)
        spec = dataclasses.replace(spec, address=str(Path(folder, "w.sock")))
        client = _Client(config, WorkerId(spec.api, 0), spec.address, sample)
        with listening_at(spec.address) as listener:
            thread = threading.Thread(target=client.run, args=(ours,), daemon=True)
            thread.start()
            try:
                work(spec, executor, listener, control, setup_seconds)
            except BaseException:
                client.give_up()  # nobody will answer
                raise
            finally:
                thread.join()
    if client.error is not None:
        raise client.error
    return Outcome(setup_seconds, client.answer)


class _Client:
    """Asks once, through a front end, in a thread of its own."""

    def __init__(self, config: ServerConfig, worker: WorkerId, address: str, sample: Sample) -> None:
        apis = tuple(dataclasses.replace(api, authorize=None) for api in config.apis)
        self._config = dataclasses.replace(config, apis=apis, secrets=Secrets(), num_front_ends=1)
        self._worker, self._address, self._sample = worker, address, sample
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Answer] | None = None

    def give_up(self) -> None:
        """Wait for no answer any more; from another thread."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: it was told already that the worker is gone
            self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    def run(self, control: socket.socket) -> None:
        """Ask, and let the worker go."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                self.answer = runner.run(self._ask())
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001 - raised again in the main thread
            self.error = error
        control.sendall(encode(Kind.DRAIN, 0)[0])

    async def _ask(self) -> Answer:
        self._task = asyncio.current_task()
        front = FrontEnd(self._config)
        front.add_worker(self._worker, f"unix:{self._address}")
        async with front.running():
            return await _answer_of(front.app, self._sample)


async def _answer_of(app: Any, sample: Sample) -> Answer:
    """Return what an ASGI app answers, also if it breaks off, which clients of HTTP do not show."""
    pieces, status, is_whole = list[bytes](), 0, False
    waiting = [{"type": "http.request", "body": sample.body, "more_body": False}]
    forever = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not waiting:
            await forever.wait()
        return waiting.pop()

    async def send(message: Any) -> None:
        nonlocal status, is_whole
        status = message.get("status", status)
        pieces.append(message.get("body", b""))
        is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

    began = time.monotonic()
    await app(_scope(sample), receive, send)
    return Answer(status, b"".join(pieces), is_whole, time.monotonic() - began)


def _scope(sample: Sample) -> dict[str, Any]:
    headers = {"host": "check", "content-type": sample.content_type, "content-length": str(len(sample.body))}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": sample.path,
        "raw_path": sample.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
