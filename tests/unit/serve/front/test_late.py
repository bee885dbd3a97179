"""Apps that come late: what they wait for, who gets them, and what becomes of those that cannot be made."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware

from leyden.serve.config import ApiConfig, ServerConfig
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.front.late import LateApp, may_be_late
from tests.support.fronts import serving


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def taken(app: Any) -> list[Any]:
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http"}, None, send)
    return sent


def test_an_app_is_made_once_and_not_in_the_thread_of_the_event_loop() -> None:
    makers = list[threading.Thread]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(scope["type"])

    def make() -> Any:
        makers.append(threading.current_thread())
        return app

    async def run() -> list[list[Any]]:
        late = LateApp(make, nothing)
        return await asyncio.gather(taken(late), taken(late))

    assert asyncio.run(run()) == [["http"], ["http"]]
    assert len(makers) == 1
    assert makers[0] is not threading.main_thread()


def test_what_cannot_be_made_is_logged_and_raised_to_each_request(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Any:
        raise ImportError("no FastAPI")

    async def run() -> None:
        late = LateApp(make, nothing)
        for _ in range(2):
            with pytest.raises(ImportError, match="no FastAPI"):
                await taken(late)

    asyncio.run(run())
    assert caplog.text.count("cannot be made: only requests of APIs are answered") == 1


@pytest.mark.parametrize(
    "config",
    [
        ServerConfig(num_front_ends=2),
        ServerConfig(middlewares=((CORSMiddleware, {}),)),
        ServerConfig(apis=(ApiConfig(authorize=lambda: None),)),
        ServerConfig(apis=(ApiConfig(), ApiConfig(path="/{name}"))),
    ],
)
def test_an_app_with_something_of_its_own_is_there_at_once(config: ServerConfig) -> None:
    assert not may_be_late(config)
    front = FrontEnd(config)
    assert front.served(lambda: None) is front.app


def test_an_app_that_somebody_has_asked_for_is_not_late() -> None:
    front = FrontEnd(ServerConfig())
    app = front.app
    assert front.served(lambda: None) is app


def test_routes_of_a_late_app_answer_before_any_worker_is_ready() -> None:
    with serving() as front:
        assert front.front._app is None
        assert front.get("/health/live").status == 200
        assert front.front._app is not None


def test_a_server_answers_before_it_has_loaded_fastapi() -> None:
    code = (
        "import json, sys; from leyden.serve.config import ServerConfig; from leyden.serve.front.front_end import FrontEnd\n"
        "import leyden.serve.front.process\n"
        "front = FrontEnd(ServerConfig()); front.share_limits(1); front.make_middlewares(); front.served(list); front.uvicorn_options()\n"
        "print(json.dumps([name for name in ('fastapi', 'starlette', 'pydantic') if name in sys.modules]), list(front._hot.routes))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert output == f"{json.dumps([])} [b'/predict']\n"
