"""A server whose APIs are tools: the protocol's own client lists and calls them, with the server's keys, at either path."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve import LitServer
from leyden.serve.mcp import MCP
from tests.support.serve_apis import Square
from tests.support.served import served

httpx2 = pytest.importorskip("httpx2")
pytest.importorskip("mcp")

APIS = """[
    Square(mcp=MCP("Squares a number.", {"type": "object", "properties": {"input": {"type": "number"}}, "required": ["input"]})),
    Counting(api_path="/v1/count", mcp=MCP("Counts.", {"type": "object"}, "count")),
    Square(api_path="/plain"),
]"""


@asynccontextmanager
async def session_at(url: str, key: str) -> AsyncIterator[Any]:
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        yield session


async def used(url: str, file: str) -> tuple[Any, ...]:
    async with session_at(url, "k") as session:
        listed = (await session.list_tools()).tools
        calls = [("predict", {"input": 4}), ("count", {"file": file}), ("predict", {"x": 1})]
        return listed, *[await session.call_tool(name, arguments) for name, arguments in calls]


def test_tools_of_a_real_server(tmp_path: Any) -> None:
    flag = tmp_path / "go"
    flag.touch()
    with served(APIS, env={"LEYDEN_SERVE_API_KEY": "k"}) as server:
        for path in ("/mcp/", "/mcp"):
            listed, squared, counted, wrong = asyncio.run(asyncio.wait_for(used(server.url + path, str(flag)), 60))
            assert [(tool.name, tool.description) for tool in listed] == [("predict", "Squares a number."), ("count", "Counts.")]
            assert (squared.structured_content, squared.is_error) == ({"output": 16}, False)
            assert counted.content[0].text == '[{"n":0},{"n":1},{"n":2},{"n":3}]'
            assert wrong.is_error
            assert "KeyError" in wrong.content[0].text
        assert httpx2.post(server.url + "/mcp/", json={}).status_code == 401
        assert httpx2.post(server.url + "/predict", json={"input": 3}, headers={"X-API-Key": "k"}).json() == {"output": 9}


def test_paths_and_values_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigTypeError, match="mcp=<object object"):
        LitServer(Square(mcp=object()), accelerator="cpu")
    with pytest.raises(ConfigError, match=r"api_path ./mcp. is already in use by the tools of models"):
        LitServer(Square(api_path="/mcp", mcp=MCP(input_schema={"type": "object"})), accelerator="cpu")
