"""The app by itself, as a foreign ASGI server has it: readiness, documentation, information, routes of the user's own."""

import asyncio
import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest
from fastapi import FastAPI

from leyden.serve.config import ApiConfig, ServerConfig
from leyden.serve.front.front_end import FrontEnd
from leyden.serve.front.routes import why_not_hot
from tests.support.asgi_client import TestClient


class Point(pydantic.BaseModel):
    x: float


class Cloud(pydantic.BaseModel):
    points: list[Point]


class Struct(msgspec.Struct):
    name: str


@dataclasses.dataclass
class Data:
    structs: list[Struct]


def client(**fields: Any) -> TestClient:
    return TestClient(FrontEnd(ServerConfig(**fields)).app)


def test_openapi_knows_typed_bodies_of_every_library() -> None:
    apis = (
        ApiConfig(path="/a", input_type=Cloud, output_type=Point, name="a", description="Clouds."),
        ApiConfig(path="/b", input_type=Data, name="b"),
        ApiConfig(path="/c", is_stream=True, name="c"),
        ApiConfig(path="/d", input_type=list[Cloud], name="d"),
    )
    with client(apis=apis) as http:
        document = http.get("/openapi.json").json()
        assert http.get("/docs").status_code == 200
    post = document["paths"]["/a"]["post"]
    assert post["description"] == "Clouds."
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Cloud"}
    assert post["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Point"}
    assert {"Cloud", "Point", "Data", "Struct"} <= set(document["components"]["schemas"])
    many = document["paths"]["/d"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert many == {"type": "array", "items": {"$ref": "#/components/schemas/Cloud"}}
    assert "text/event-stream" in document["paths"]["/c"]["post"]["responses"]["200"]["content"]


def test_openapi_can_be_left_out() -> None:
    with client(is_openapi_disabled=True) as http:
        assert [http.get(path).status_code for path in ("/docs", "/openapi.json", "/info")] == [404, 404, 200]


def test_information() -> None:
    info = {"devices": ["cpu"], "workers_per_device": 2, "track_requests": True}
    with client(model_metadata={"name": "m"}, info=info, max_payload_bytes=10) as http:
        assert http.get("/info").json() == {
            "model": {"name": "m"},
            "server": {
                "devices": ["cpu"],
                "workers_per_device": 2,
                "timeout": 30.0,
                "stream": {"/predict": False},
                "max_payload_size": 10,
                "track_requests": True,
            },
        }


def test_a_server_without_workers_is_alive_and_not_ready() -> None:
    with client() as http:
        assert (http.get("/").text, http.get("/health/live").status_code) == ("litserve running", 200)
        found = [http.get(path) for path in ("/health", "/health/ready", "/health/startup")]
        assert [each.status_code for each in found] == [503] * 3
        assert found[0].text == "not ready"
        assert http.head("/health").status_code == 503


def test_an_api_that_sleeps_is_well() -> None:
    with client(apis=(ApiConfig(num_workers=0),)) as http:
        assert [http.get(path).status_code for path in ("/health", "/health/ready", "/health/startup")] == [200] * 3


async def _well() -> bool:
    return True


async def _never() -> bool:
    await asyncio.Event().wait()
    return True


def _raises() -> bool:
    raise ValueError("no")


@pytest.mark.parametrize(("health", "status"), [(lambda: True, 200), (lambda: False, 503), (_well, 200), (_raises, 503), (_never, 503)])
def test_the_users_health_is_asked(health: Any, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.serve.front.readiness.HEALTH_SECONDS", 0.05)
    with client(apis=(ApiConfig(num_workers=0, health=health),)) as http:
        assert http.get("/health").status_code == status


def test_numbers_are_there_for_prometheus() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with client() as http:
        found = http.get("/metrics")
    families = {family.name for family in text_string_to_metric_families(found.text)}
    assert {"leyden_serve_requests", "leyden_serve_queue_depth"} <= families


def test_users_may_add_routes_and_what_they_raise_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    front = FrontEnd(ServerConfig(max_payload_bytes=10))

    @front.app.get("/own")
    def own() -> dict[str, int]:
        return {"own": 1}

    @front.app.get("/broken")
    def broken() -> None:
        raise KeyError("x")

    @front.app.post("/takes")
    def takes(body: dict[str, int]) -> int:
        return len(body)

    with TestClient(front.app, raise_server_exceptions=False) as http:
        found = http.get("/own", headers={"x-request-id": "mine"})
        assert (found.json(), found.headers["x-request-id"]) == ({"own": 1}, "mine")
        found = http.get("/broken")
        assert (found.status_code, found.json()["code"], found.json()["detail"]) == (500, "server.failed", "Internal server error")
        assert found.headers["x-request-id"] == found.json()["request_id"]
        found = http.post("/takes", json={"a": 1, "b": 2})
        assert (found.status_code, found.json()["code"]) == (413, "request.too_large")
        assert http.post("/takes", json={"a": 1}).json() == 1


def test_a_request_that_nobody_computes_waits_until_the_server_ends() -> None:
    with client(apis=(ApiConfig(timeout=0.05),)) as http:
        found = http.post("/predict", json={})
        assert (found.status_code, found.json()["code"]) == (504, "queue.expired")


def test_an_app_within_another_one_works_without_a_lifespan() -> None:
    outer = FastAPI()
    outer.mount("/model", FrontEnd(ServerConfig(apis=(ApiConfig(timeout=0.05),))).app)
    with TestClient(outer) as http:
        assert http.get("/model/health/live").text == "ok"
        assert http.post("/model/predict", json={}).json()["code"] == "queue.expired"


class TestHot:
    def test_a_plain_api_is(self) -> None:
        front = FrontEnd(ServerConfig())
        assert why_not_hot(front.app, front.config, 0) == ""

    def test_a_route_of_the_users_at_its_path_is_in_the_way(self) -> None:
        front = FrontEnd(ServerConfig())

        @front.app.post("/predict")
        def own() -> None: ...

        assert why_not_hot(front.app, front.config, 0) == ""
        front.app.router.routes.insert(0, front.app.router.routes.pop())
        assert why_not_hot(front.app, front.config, 0) == "another route answers at its path"

    def test_authorize_and_middlewares_need_all_of_asgi(self) -> None:
        from starlette.middleware.cors import CORSMiddleware

        front = FrontEnd(ServerConfig(apis=(ApiConfig(authorize=lambda: None),)))
        assert why_not_hot(front.app, front.config, 0) == "it has authorize()"
        front.app.add_middleware(CORSMiddleware)
        assert why_not_hot(front.app, front.config, 0) == "the server has the middleware CORSMiddleware"


def test_front_ends_share_limits_also_when_the_app_was_made_before() -> None:
    front = FrontEnd(ServerConfig(apis=(ApiConfig(),), max_queue_size=10, max_inflight_bytes=1000))
    front.share_limits(4)
    assert front.dispatcher._router.lanes[0].limits.max_queue_size == 3
    assert front.dispatcher.config.inflight_bytes == 250
