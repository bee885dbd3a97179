"""A front end on a real port, in a thread, with fake workers; and a client that writes and reads bytes."""

import contextlib
import http.client
import itertools
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leyden.serve.config import ApiConfig, ServerConfig
from leyden.serve.effects import WorkerId
from leyden.serve.front.front_end import Events, FrontEnd
from leyden.serve.front.process import FrontProcess
from tests.support.fake_worker import Answering, FakeWorker

SECONDS = 10.0


class Front:
    """A front end that serves."""

    def __init__(self, config: ServerConfig, events: Events | None = None, **options: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="front-")
        self.numbers = itertools.count()
        self.workers: list[FakeWorker] = []
        self.front = FrontEnd(config, events=events)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = listener.getsockname()[1]
        self.process = FrontProcess(self.front, listener, options={"log_config": None, "access_log": False, **options})
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.process.run, daemon=True)

    def start(self) -> "Front":
        self.thread.start()
        return self

    def worker(self, answering: Answering | None = None, *, api: int = 0, **ready: Any) -> FakeWorker:
        """Add a worker, and return once it is ready for requests: those that come before wait for it."""
        number = next(self.numbers)
        made = FakeWorker(Path(self.folder.name) / f"w{number}.sock", answering, {"api": api, **ready})
        self.workers.append(made)
        self.call(lambda: self.front.add_worker(WorkerId(api, number), made.address))
        return made

    def call(self, function: Any) -> None:
        """Run something in the front end's own thread."""
        loop = self.process._loop
        if loop is None:
            function()
        else:
            loop.call_soon_threadsafe(function)

    def stop(self) -> None:
        self.process.drain_soon()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.die()
        self.folder.cleanup()

    def client(self) -> "Client":
        return Client(self.port)

    def post(self, body: Any = b"{}", path: str = "/predict", **headers: str) -> "Response":
        with self.client() as client:
            return client.post(body, path, **headers)

    def get(self, path: str, **headers: str) -> "Response":
        with self.client() as client:
            client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n{lines(headers)}\r\n".encode())
            return client.response()


@contextlib.contextmanager
def serving(config: ServerConfig | None = None, answering: Answering | None = None, **options: Any) -> Iterator[Front]:
    """Serve one API, with a worker if `answering` is given."""
    made = Front(config or ServerConfig(), **options)
    if answering is not None:
        made.worker(answering)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def one(**fields: Any) -> ServerConfig:
    """Return a server of one API; fields that are an API's are that one's."""
    api = {name: fields.pop(name) for name in list(fields) if name in ApiConfig.__slots__}
    return ServerConfig(apis=(ApiConfig(**api),), **fields)


def lines(headers: dict[str, str]) -> str:
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())


class Response:
    """What came."""

    def __init__(self, found: http.client.HTTPResponse, body: bytes, *, is_whole: bool) -> None:
        self.status = found.status
        self.headers = {name.lower(): value for name, value in found.getheaders()}
        self.body, self.is_whole = body, is_whole

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, port: int, timeout: float = SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def begin(self) -> http.client.HTTPResponse:
        """Return a response of which only the head is read."""
        found = http.client.HTTPResponse(_Pretended(self.file))  # type: ignore[arg-type]
        found.begin()
        return found

    def response(self) -> Response:
        found = self.begin()
        try:
            return Response(found, found.read(), is_whole=True)
        except http.client.IncompleteRead as error:
            return Response(found, error.partial, is_whole=False)

    def ask(self, body: bytes, path: str = "/predict", **headers: str) -> None:
        given = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        self.send(f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines(given)}\r\n".encode() + body)

    def post(self, body: Any = b"{}", path: str = "/predict", **headers: str) -> Response:
        self.ask(body if isinstance(body, bytes) else json.dumps(body).encode(), path, **headers)
        return self.response()

    def is_closed(self) -> bool:
        """Return whether the server ends the connection, and nothing more comes."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


class _Pretended:
    """What `HTTPResponse` takes for a socket; it would close the file of one after each answer."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, mode: str) -> Any:
        return _Kept(self._file)


class _Kept:
    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Stay open for the next answer."""

    def flush(self) -> None:
        """Nothing to do."""


class Passes:
    """A middleware of a user's, which sends all requests through ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


THROUGH_ASGI: Any = ((Passes, {}),)
WAYS: Any = {"hot": (), "asgi": THROUGH_ASGI}


def until(condition: Any) -> None:
    """Return once something holds that only another thread can bring about."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise TimeoutError("it never came about")
