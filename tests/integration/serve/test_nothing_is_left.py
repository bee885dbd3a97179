"""Whatever clients and workers do, in any order: nothing is left behind, and the next request is answered."""

import contextlib
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from leyden.serve.config import ApiConfig, ServerConfig
from leyden.serve.wire import Frame, Kind
from tests.support.fake_worker import FakeWorker, Said
from tests.support.fronts import WAYS, Client, Front, serving, until


def answering(frame: Frame) -> list[Said]:
    """Answer, stream, fail or stay silent, as the body says."""
    body = bytes(frame.body)
    if body.startswith(b"never"):
        return []
    if body.startswith(b"stream"):
        return [*(Said(Kind.CHUNK, b'"x"\n', {"ct": "application/x-ndjson"}) for _ in range(50)), Said(Kind.END)]
    if body.startswith(b"cut"):
        return [Said(Kind.CHUNK, b"1\n"), Said(Kind.ERROR, b"", {"s": 500})]
    return [Said(Kind.RES, body, {"b": 1, "us": [1, 1, 1]})]


def act(client: Client, what: int, chance: random.Random) -> None:
    """Do one of the things that clients do, good or bad."""
    size = chance.choice([0, 10, 5000, 200_000])
    match what:
        case 0:
            assert client.post(b"ok" + b"x" * size).status == 200
        case 1:
            client.ask(b"ok" + b"x" * size)  # and leave
        case 2:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        case 3:
            client.ask(b"never", x_request_timeout="0.05")
            assert client.response().status == 504
        case 4:
            client.ask(b"stream")
            client.begin()
        case 5:
            assert not client.post(b"cut").is_whole
        case 6:
            client.send(b"POST /predict HTTP/1.1\r\nx: " + b"y" * chance.choice([10, 90_000]))
        case 7:
            client.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok" * 5)
            client.response()
        case 8:
            client.send(bytes(chance.randrange(256) for _ in range(40)))
        case _:
            client.ask(b"x" * 300_000)
            with contextlib.suppress(OSError):
                assert client.response().status == 413


@pytest.mark.parametrize("name", WAYS)
def test_after_a_mixture_of_everything(name: str, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    config = ServerConfig(apis=(ApiConfig(is_stream=True),), middlewares=WAYS[name], max_payload_bytes=250_000)
    with serving(config) as front:
        workers = [front.worker(answering, conc=4) for _ in range(2)]
        for number in range(150):
            with front.client() as client:
                act(client, chance.randrange(10), chance)
            if number % 50 == 49:
                workers[0].die()
                path = Path(workers[0].address.removeprefix("unix:"))
                path.unlink()
                workers[0] = FakeWorker(path, answering, {"conc": 4})
                front.workers.append(workers[0])
        assert front.post(b"ok").status == 200
        until(lambda: is_empty(front))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def is_empty(front: Front) -> bool:
    dispatcher: Any = front.front.dispatcher
    router = dispatcher._router
    return (
        dispatcher.num_open == len(router.open_calls) == router.inflight_bytes == router.lanes[0].num_waiting == 0
        and not front.front._hot.connections
    )


@pytest.mark.parametrize("name", WAYS)
def test_a_thousand_connections_at_once(name: str) -> None:
    count = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 100)
    with serving(ServerConfig(middlewares=WAYS[name])) as front, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(front.client()) for _ in range(count)]
        for number, client in enumerate(clients):
            client.ask(b"%d" % number)
        front.worker(answering)
        assert [client.response().body for client in clients] == [b"%d" % number for number in range(count)]
