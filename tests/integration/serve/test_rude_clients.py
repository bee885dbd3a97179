"""Clients that leave, do not read, dawdle, or come ten times too many: real workers behind both ways in."""

import contextlib
import json
import select
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fronts import WAYS, Client, Front, until
from tests.support.noted_apis import AsyncFlood, Computed, Flood
from tests.support.real_workers import both_fronts

LIMIT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def fronts(folder: Path) -> Iterator[dict[str, Front]]:
    def apis() -> list[Any]:
        return [
            Computed(str(folder)),
            Flood(str(folder), api_path="/flood", stream=True, max_stream_buffer_bytes=1 << 16),
            AsyncFlood(str(folder), api_path="/floods", stream=True, enable_async=True, max_stream_buffer_bytes=1 << 16),
            Computed(str(folder), api_path="/quick"),  # of one test alone: what is known of its speed changes what is accepted
        ]

    with both_fronts(apis, body_timeout=0.4, header_timeout=0.4, max_queue_size=LIMIT) as found:
        yield found


@pytest.fixture(params=WAYS)
def front(fronts: dict[str, Front], request: pytest.FixtureRequest) -> Front:
    return fronts[request.param]


def notes(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (folder / "notes").read_text().split("\n")[:-1]
    return []


def ask(client: Client, path: str = "/predict", **body: Any) -> None:
    client.ask(json.dumps(body).encode(), path)


def num_open(front: Front) -> int:
    return front.front.dispatcher.num_open


def staged(front: Front, api: int) -> int:
    workers = front.front.dispatcher._router.lanes[api].workers.values()
    return sum(len(worker.staged) for worker in workers)


@pytest.mark.parametrize(("path", "api", "is_quick"), [("/predict", 0, False), ("/quick", 3, True)], ids=["queued", "staged"])
def test_what_nobody_waits_for_is_never_computed(front: Front, folder: Path, path: str, api: int, is_quick: bool) -> None:
    mark = uuid.uuid4().hex
    with front.client() as client:
        for _ in range(30 if is_quick else 0):  # a worker that is quick is sent some ahead
            assert client.post({"name": "quick"}, path).status == 200
        ask(client, path, name=f"first {mark}", wait=mark)
        until(lambda: f"first {mark}" in notes(folder))
        leavers = [front.client() for _ in range(LIMIT)]
        for leaver in leavers:
            ask(leaver, path, name=f"left {mark}")
        until(lambda: num_open(front) == 1 + LIMIT)
        assert staged(front, api) == (LIMIT if is_quick else 0)
        for leaver in leavers:
            leaver.close()
        until(lambda: num_open(front) == 1)
        (folder / mark).touch()
        assert client.response().json == f"first {mark}"
        assert client.post({"name": f"last {mark}"}, path).json == f"last {mark}"
    assert [line for line in notes(folder) if mark in line] == [f"first {mark}", f"last {mark}"]


@pytest.mark.parametrize("path", ["/flood", "/floods"])
def test_a_stream_whose_client_leaves_is_closed(front: Front, folder: Path, path: str) -> None:
    mark = uuid.uuid4().hex
    client = front.client()
    ask(client, path, name=mark)
    assert client.begin().read1(10)
    client.close()
    until(lambda: f"closed {mark}" in notes(folder))
    until(lambda: num_open(front) == 0)
    assert len(front.post({"name": "next", "count": 3}, path).body) == 3 * 16384


@pytest.mark.parametrize("path", ["/flood", "/floods"])
def test_a_client_that_does_not_read_is_given_up(front: Front, folder: Path, path: str) -> None:
    mark = uuid.uuid4().hex
    with front.client() as slow:
        ask(slow, path, name=mark)
        slow.begin()
        until(lambda: f"closed {mark}" in notes(folder))
        until(lambda: num_open(front) == 0)
        assert len(front.post({"name": "next", "count": 3}, path).body) == 3 * 16384
        rest = b""
        while part := slow.file.read(1 << 16):
            rest += part
        assert not rest.endswith(b"0\r\n\r\n"), "it breaks off, and is not taken for whole"


def test_others_go_on_while_a_client_does_not_read(front: Front, folder: Path) -> None:
    mark = uuid.uuid4().hex
    with front.client() as slow:
        ask(slow, "/floods", name=mark)
        slow.begin()
        assert len(front.post({"name": "other", "count": 50}, "/floods").body) == 50 * 16384
    until(lambda: f"closed {mark}" in notes(folder))


def trickle(client: Client, byte: bytes) -> None:
    """Send a byte again and again, until something comes."""
    with contextlib.suppress(ConnectionError):
        while not select.select([client.socket], [], [], 0.02)[0]:
            client.send(byte)


@pytest.mark.parametrize("path", ["/predict", "/docs"])
def test_heads_and_bodies_that_come_byte_by_byte_are_refused_and_hold_up_nobody(front: Front, path: str) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(front.client()) for _ in range(20)]
        for client in idle:
            client.send(b"POST /predict HTTP/1.1\r\nx: ")
        slow = stack.enter_context(front.client())
        slow.send(f"POST {path} HTTP/1.1\r\nx: ".encode())
        trickle(slow, b"y")
        found = slow.response()
        assert (found.status, found.json["code"]) == (408, "request.timeout")
        assert front.post({"name": "good"}).status == 200
        assert {client.response().status for client in idle} == {408}
        body = stack.enter_context(front.client())
        body.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n".encode())
        trickle(body, b"y")
        assert body.response().status == (408 if path == "/predict" else 405)
        trickle(body, b"y")
        assert body.is_closed(), "also where nobody reads the body"
    until(lambda: num_open(front) == 0)


def test_ten_times_too_many_are_refused_at_once_and_the_others_answered(front: Front, folder: Path) -> None:
    mark = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(front.client()) for _ in range(10 * LIMIT)]
        ask(clients[0], name=mark, wait=mark)
        until(lambda: mark in notes(folder))
        for client in clients[1:]:
            ask(client, name="burst")
        refused = clients[1 + LIMIT :]
        found = [client.response() for client in refused]  # while the worker goes on with the first one
        assert {(each.status, each.json["code"]) for each in found} == {(429, "queue.full")}
        assert all(1 <= int(each.headers["retry-after"]) <= 60 for each in found)
        (folder / mark).touch()
        assert [client.response().status for client in clients[: 1 + LIMIT]] == [200] * (1 + LIMIT)
        assert clients[-1].post({"name": "after"}).status == 200
