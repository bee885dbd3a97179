"""Our middlewares before a front end of ours, and before an app of FastAPI, on real sockets."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, UploadFile

from leyden.core.errors import ConfigError
from leyden.serve.middlewares import MaxSizeMiddleware, RequestCounter, RequestCountMiddleware
from leyden.serve.server import LitServer
from leyden.serve.test_examples import SimpleLitAPI
from leyden.serve.wire import Kind
from tests.support.fake_worker import echo
from tests.support.fronts import Client, Front, one, serving, until

MOST = 100_000
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'


class Plain:
    """An app of FastAPI on uvicorn, in a thread."""

    def __init__(self, counter: RequestCounter) -> None:
        import uvicorn

        app = FastAPI()
        app.add_middleware(MaxSizeMiddleware, max_size=MOST)
        app.add_middleware(RequestCountMiddleware, active_counter=counter)
        self.go = threading.Event()

        @app.post("/predict")
        async def predict(request: Request) -> Any:
            return len(await request.body())

        @app.post("/json")
        async def json(payload: dict[str, Any]) -> Any:
            return len(payload)

        @app.post("/upload")
        async def upload(file: UploadFile) -> Any:
            return file.size

        @app.post("/wait")
        async def wait(request: Request) -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        @app.post("/fail")
        async def fail() -> None:
            raise KeyError("its own")

        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def client(self) -> Client:
        return Client(self.server.servers[0].sockets[0].getsockname()[1])

    def __enter__(self) -> "Plain":
        self.thread.start()
        until(lambda: self.server.started)
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture(scope="module")
def counter() -> RequestCounter:
    return RequestCounter()


@pytest.fixture(scope="module")
def plain(counter: RequestCounter) -> Iterator[Plain]:
    with Plain(counter) as found:
        yield found


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with serving(one(middlewares=((MaxSizeMiddleware, {"max_size": MOST}),)), echo) as found:
        yield found


@pytest.fixture(params=["ours", "theirs"])
def server(request: pytest.FixtureRequest, front: Front, plain: Plain) -> Any:
    return front if request.param == "ours" else plain


def chunked(client: Client, path: str, count: int, kind: str = "application/json", first: bytes = b"[") -> None:
    """Send a body in chunks of 50 kB, which says nothing of its length."""
    client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    for number in range(count):
        client.send(b"c350\r\n%b\r\n" % (b"" if number else first).ljust(50_000))
    client.send(b"0\r\n\r\n")


def test_what_fits(server: Any) -> None:
    with server.client() as client:
        assert client.post(b" " * MOST).status == 200
        assert client.post(b" " * MOST).status == 200, "on the same connection"
        chunked(client, "/predict", 2)
        assert client.response().status == 200


def test_what_says_that_it_is_too_large(server: Any) -> None:
    with server.client() as client:
        client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n")
        found = client.response()
        assert (found.status, found.json["code"], found.headers["connection"]) == (413, "request.too_large", "close")
    with server.client() as client:  # all of it is sent before the answer is read
        assert client.post(b" " * 200_000).status == 413
        assert client.is_closed()


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_what_says_nothing_of_its_length(server: Any, kind: str) -> None:
    with server.client() as client:
        chunked(client, "/predict", 4, kind)
        found = client.response()
        assert (found.status, found.json["detail"]) == (413, "Payload too large")
        assert ("request_id" in found.json) is isinstance(server, Front)
        assert client.is_closed()


@pytest.mark.parametrize(("path", "kind", "first"), [("/json", "application/json", b"{"), ("/upload", FORM, PART)])
def test_bodies_that_fastapi_reads(plain: Plain, path: str, kind: str, first: bytes) -> None:
    with plain.client() as client:
        chunked(client, path, 4, kind, first)
        assert client.response().status == 413


def test_counts_come_back_to_nothing(plain: Plain, counter: RequestCounter) -> None:
    with plain.client() as client:
        assert client.post(b"1", "/fail").status == 500
    clients = [plain.client() for _ in range(3)]
    for client in clients:
        client.ask(b"", "/wait")
    until(lambda: counter.value == 3)
    clients[0].close()
    until(lambda: counter.value == 2)
    for client in clients[1:]:
        client.close()
    until(lambda: counter.value == 0)


def test_a_stream_counts_until_its_last_piece() -> None:
    counter = RequestCounter()
    with serving(one(middlewares=((RequestCountMiddleware, {"active_counter": counter}),), is_stream=True)) as front:
        worker = front.worker()
        with front.client() as client:
            client.ask(b"")
            request = worker.take()
            worker.say(request, Kind.CHUNK, b"1\n", {"ct": "application/x-ndjson"})
            found = client.begin()
            assert found.read1(100) == b"1\n"
            assert counter.value == 1
            worker.say(request, Kind.END)
            assert found.read() == b""
            until(lambda: counter.value == 0)
        assert front.get("/health").status == 200
        with front.client() as client:
            client.ask(b"")
            worker.take()
            assert counter.value == 1
            worker.die()
            assert client.response().status == 503
            until(lambda: counter.value == 0)


def test_a_middleware_that_cannot_be_made_is_told_once() -> None:
    server = LitServer(SimpleLitAPI(), accelerator="cpu", middlewares=[(MaxSizeMiddleware, {"most": 5})])
    with pytest.raises(ConfigError, match=r"\(MaxSizeMiddleware\) cannot be made: TypeError.*'most'"):
        server.run(host="127.0.0.1", port=0, generate_client_file=False)
    server = LitServer(SimpleLitAPI(), accelerator="cpu", middlewares=[(MaxSizeMiddleware, {"max_size": "ten"})])
    with pytest.raises(ConfigError, match="max_size='ten' is not accepted"):
        server.run(host="127.0.0.1", port=0, generate_client_file=False)
