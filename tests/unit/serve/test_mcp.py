"""APIs as tools: what clients are told of them, and, with the package `mcp`, calls of its own client."""

import asyncio
import contextlib
import dataclasses
import json
import pickle
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from fastapi import FastAPI

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError, StateError
from leyden.serve.api import LitAPI
from leyden.serve.faults import Fault
from leyden.serve.mcp import MCP, PATH, Tools, checked_mcp
from leyden.serve.specs.base import LitSpec, SpecCall


@dataclasses.dataclass
class Point:
    x: float


class Line(pydantic.BaseModel):
    """Two points."""

    start: Point
    end: Point


@pydantic.dataclasses.dataclass
class Checked:
    x: float


class Tree(msgspec.Struct):
    children: list["Tree"] = []


class Typed(TypedDict):
    x: float


class Square(LitAPI):
    """Squares a number."""

    def decode_request(self, request: Point) -> float:
        return request.x

    def predict(self, x: Any) -> Any:
        return {"y": x * x}


class Untyped(LitAPI):
    def predict(self, x: Any) -> Any:
        return x


class Raw(Untyped):
    def decode_request(self, request: bytes) -> bytes:
        return request


class Guarded(Untyped):
    def authorize(self) -> None:
        raise NotImplementedError


def test_a_tool_is_named_by_its_path_and_described_by_its_class() -> None:
    tool = MCP().tool(Square(api_path="/v1/square"))
    assert (tool.name, tool.description, tool.is_stream) == ("v1_square", "Squares a number.", False)
    assert tool.input_schema["properties"] == {"x": {"type": "number"}}
    named = MCP("Says x².", {"type": "object"}, "sq").tool(Square())
    assert named[:3] == ("sq", "Says x².", {"type": "object"})


@pytest.mark.parametrize("kind", [Point, Checked, Typed])
def test_schemas_come_from_the_annotation(kind: Any) -> None:
    schema = MCP().tool(annotated(kind)).input_schema
    assert schema["type"] == "object"
    assert schema["properties"]["x"]["type"] == "number"
    assert schema["required"] == ["x"]
    assert "$ref" not in schema


def test_schemas_of_parts_stay_with_the_whole() -> None:
    schema = MCP().tool(annotated(Line)).input_schema
    assert schema["type"] == "object"
    assert schema["properties"]["start"]["$ref"] == "#/$defs/Point"
    assert "Point" in schema["$defs"]
    assert MCP().tool(annotated(Tree)).input_schema["$defs"].keys() == {"Tree"}


def annotated(kind: Any) -> LitAPI:
    class Annotated(Untyped):
        def decode_request(self, request: kind) -> Any:  # type: ignore[valid-type]
            return request

    return Annotated()


def test_an_api_that_says_nothing_of_its_arguments_is_told() -> None:
    with pytest.warns(UserWarning, match="No model knows with what to call Untyped: annotate decode_request"):
        tool = MCP().tool(Untyped())
    assert tool.input_schema == {"type": "object", "additionalProperties": True}


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: MCP(input_schema={"x": "number"}), ConfigError, "it takes the schema of an object"),
        (lambda: MCP(input_schema="x"), ConfigError, "input_schema='x'"),  # type: ignore[arg-type]
        (lambda: MCP().tool(Square(api_path="/")), ConfigError, r"A tool needs a name.*MCP\(name=…\)"),
        (lambda: MCP().tool(Raw()), ConfigError, r"Raw.decode_request\(\) takes bytes"),
        (lambda: MCP().tool(annotated(list[Point])), ConfigError, r"takes list\[Point\], and a tool is called with one object"),
        (lambda: MCP().tool(Square(spec=LitSpec())), ConfigError, "Square has a spec"),
        (lambda: MCP().tool(Guarded()), ConfigError, r"Guarded has authorize\(\), and mcp"),
        (lambda: checked_mcp(True), ConfigTypeError, "mcp=True is not accepted"),
    ],
)
def test_what_cannot_be_a_tool(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_it_travels_with_its_api() -> None:
    assert pickle.loads(pickle.dumps(Square(mcp=MCP("a")))).mcp.description == "a"


class Old(types.ModuleType):
    __version__ = "1.0"


def test_the_package_is_asked_for_when_a_server_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingDependencyError, match=r"leyden\[mcp\]"):
        Tools([MCP().tool(Square())], [Computing()])
    monkeypatch.setitem(sys.modules, "mcp", Old("mcp"))
    with pytest.raises(MissingDependencyError, match=r"from 2\.0 on"):
        Tools([MCP().tool(Square())], [Computing()])


# -- with the package ---------------------------------------------------------------------------------------------


class Computing:
    """A `Submitter` that squares, or says what went wrong."""

    def __init__(self, *, exposes_errors: bool = True) -> None:
        self.exposes_errors, self.calls = exposes_errors, list[SpecCall]()

    async def submit(self, call: SpecCall) -> bytes:
        self.calls.append(call)
        x = json.loads(call.body).get("x")
        if x is None:
            raise Fault(422, "request.invalid", "body.x: Field required")
        if x < 0:
            raise Fault(500, "worker.failed", "predict() raised ValueError: secret", detail="Internal server error")
        return b"plain" if x == 0 else json.dumps(x * x if x > 9 else {"y": x * x}).encode()

    async def stream(self, call: SpecCall) -> AsyncIterator[list[bytes]]:
        self.calls.append(call)
        yield [b"a", b"b"]
        yield [b'{"c": 1}\n'] if b"json" in call.body else [b"c"]

    def used(self, usage: Any) -> None:
        raise NotImplementedError


class Spelling(Untyped):
    def predict(self, x: Any) -> Iterator[Any]:
        yield x


def tools(**options: Any) -> tuple[Tools, Computing]:
    pytest.importorskip("mcp")
    server = Computing()
    spelling = MCP(input_schema={"type": "object"}).tool(Spelling(api_path="/spell", stream=True))
    return Tools([MCP().tool(Square()), spelling], [server, server], **options), server


async def in_app(made: Tools, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return what comes of a use of a client that talks to an app with these tools."""
    import httpx2

    app = FastAPI(lifespan=lambda app: made.running())
    app.mount(PATH, made)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://serve") as client:
        return await use(client)


def with_session(made: Tools, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Return what comes of a use of a session of the package's own client."""
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def used(client: Any) -> Any:
        async with contextlib.AsyncExitStack() as stack:
            streams = await stack.enter_async_context(streamable_http_client("http://serve/mcp/", http_client=client))
            session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
            await session.initialize()
            return await use(session)

    return asyncio.run(asyncio.wait_for(in_app(made, used), 20))


def test_a_client_lists_and_calls() -> None:
    made, server = tools()

    async def use(session: Any) -> Any:
        listed = (await session.list_tools()).tools
        return listed, [await session.call_tool("predict", {"x": x}) for x in (2, 10, 0)]

    listed, (squared, number, plain) = with_session(made, use)
    assert [(tool.name, tool.description) for tool in listed] == [("predict", "Squares a number."), ("spell", "spell")]
    assert listed[0].input_schema["required"] == ["x"]
    assert (squared.content[0].text, squared.structured_content, squared.is_error) == ('{"y":4}', {"y": 4}, False)
    assert (number.content[0].text, number.structured_content) == ("100", None)
    assert plain.content[0].text == "plain"
    assert (server.calls[0].body, server.calls[0].endpoint, server.calls[0].scope["path"]) == (b'{"x":2}', "mcp", "/mcp/")


def test_streams_are_answered_at_once() -> None:
    made, _ = tools()

    async def use(session: Any) -> Any:
        return [await session.call_tool("spell", {"as": kind}) for kind in ("text", "json")]

    text, values = with_session(made, use)
    assert text.content[0].text == "abc"
    assert values.content[0].text == '["a","b",{"c":1}]'


def test_what_goes_wrong_is_told_to_the_model() -> None:
    made, server = tools()

    async def use(session: Any) -> Any:
        wrong, failed = await session.call_tool("predict", {}), await session.call_tool("predict", {"x": -1})
        server.exposes_errors = False
        hidden = await session.call_tool("predict", {"x": -1})
        with pytest.raises(Exception, match=r"There is no tool 'predct'\. Did you mean 'predict'"):
            await session.call_tool("predct", {})
        return wrong, failed, hidden

    wrong, failed, hidden = with_session(made, use)
    assert wrong.is_error
    assert wrong.content[0].text == "body.x: Field required"
    assert failed.content[0].text == "predict() raised ValueError: secret"
    assert hidden.content[0].text == "Internal server error"


def test_who_may_not_is_refused_and_sessions_are_not_had() -> None:
    made, _ = tools(refusal=lambda scope: None if (b"x-key", b"1") in scope["headers"] else Fault(401, "auth.missing_key", "Send a key."))

    async def use(client: Any) -> Any:
        return await client.post("/mcp/", json={}), await client.get("/mcp/", headers={"x-key": "1"})

    refused, read = asyncio.run(in_app(made, use))
    assert (refused.status_code, refused.json()["code"]) == (401, "auth.missing_key")
    assert (read.status_code, read.headers["allow"]) == (405, "POST")


def test_bodies_are_limited() -> None:
    made, _ = tools(max_payload_bytes=100)

    async def use(client: Any) -> Any:
        return await client.post("/mcp/", content=b"x" * 101, headers={"content-type": "application/json"})

    assert asyncio.run(in_app(made, use)).status_code == 413


def test_two_tools_of_one_name() -> None:
    pytest.importorskip("mcp")
    with pytest.raises(ConfigError, match="Two tools have the name 'predict'"):
        Tools([MCP().tool(Square())] * 2, [Computing()] * 2)


def test_tools_that_do_not_run_say_so() -> None:
    made, _ = tools()

    async def unused(*_: Any) -> Any:
        raise NotImplementedError

    with pytest.raises(StateError, match=r"Tools.running\(\) was not entered"):
        asyncio.run(made({"type": "http", "method": "POST", "headers": []}, unused, unused))
