"""Apps of loggers: where they answer, who may ask, and what becomes of values that are too many for them."""

import threading
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

from leyden.serve.config import Secrets, ServerConfig
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.front.mounted import MountedLoggers
from leyden.serve.log_values import pack
from leyden.serve.loggers import Logger
from tests.support.asgi_client import TestClient


class Kept(Logger):
    def __init__(self, path: str, app: Any) -> None:
        self.seen = list[Any]()
        self.go = threading.Event()
        self.go.set()
        self.mount(path, app)

    def process(self, key: str, value: Any) -> None:
        self.go.wait(10)
        self.seen.append(value)

    def close(self) -> None:
        self.seen.append("closed")


async def said(request: Any) -> Any:
    return PlainTextResponse(f"{request.scope['root_path']} {request.url.path}")


PAGES = Router([Route("/", said, methods=["GET", "POST"]), Route("/more", said)])


def client(path: str = "/numbers", **config: Any) -> TestClient:
    return TestClient(FrontEnd(ServerConfig(loggers=(Kept(path, PAGES),), **config)).app, follow_redirects=False)


@pytest.mark.parametrize(
    ("path", "answer"),
    [("/numbers", "/numbers /numbers/"), ("/numbers/", "/numbers /numbers/"), ("/numbers/more", "/numbers /numbers/more")],
)
def test_an_app_answers_at_its_path_and_below(path: str, answer: str) -> None:
    found = client().get(path)
    assert (found.status_code, found.text) == (200, answer)
    assert client().post("/numbers").status_code == 200


def test_others_are_not_its() -> None:
    assert client().get("/numbersX").status_code == 404
    assert client().get("/numbers/other").status_code == 404
    assert client().get("/").text == "litserve running"


def test_in_an_outer_app() -> None:
    outer = FastAPI()
    outer.mount("/models", FrontEnd(ServerConfig(loggers=(Kept("/numbers", PAGES),))).app)
    for path in ("/models/numbers", "/models/numbers/"):
        assert TestClient(outer, follow_redirects=False).get(path).text == "/models/numbers /models/numbers/"


def test_the_servers_own_numbers_give_way() -> None:
    found = client("/metrics")
    assert found.get("/metrics").text == "/metrics /metrics/"
    assert "leyden_serve_inflight" in found.get("/metrics/server").text
    assert "leyden_serve_inflight" in client().get("/metrics").text


def test_it_needs_the_servers_key() -> None:
    found = client(secrets=Secrets(api_keys=("secret",)))
    refused = found.get("/numbers")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert found.get("/numbers", headers={"x-api-key": "secret"}).status_code == 200


def test_values_are_processed_in_order_and_what_is_too_much_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    logger, counted = Kept("/numbers", PAGES), list[int]()
    loggers = MountedLoggers([logger], counted.append)
    logger.go.clear()
    with loggers.running():
        for number in range(10_050):
            loggers.take(1, "n", pack(number))
        logger.go.set()
    assert logger.seen[-1] == "closed"
    assert logger.seen[:-1] == list(range(len(logger.seen) - 1))
    assert len(logger.seen) - 1 + len(counted) == 10_050
    assert set(counted) == {1}
    assert caplog.text.count("a mounted logger is too slow") == 1


def test_without_loggers_there_is_no_thread() -> None:
    before = threading.active_count()
    with MountedLoggers([], lambda api: None).running():
        assert threading.active_count() == before
