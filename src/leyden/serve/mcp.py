"""`MCP`: an API as a tool that language models call, by the Model Context Protocol, at `/mcp/`.

`LitAPI(mcp=MCP(description="Raises a number to a power."))` is all that a user writes. A front end makes one `Tools` of all such
APIs, and mounts it: streamable HTTP without sessions, each answer one JSON. A call of a tool is a request like any other:
it waits in the same queue, and its arguments are the JSON that `decode_request` gets.

The package `mcp` is imported when a server is made, here and nowhere else: others run without it, and whatever its version.
Follows https://modelcontextprotocol.io/specification.
"""

import contextlib
import inspect
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, final

from leyden.core.errors import ConfigError, ConfigTypeError, MissingDependencyError, StateError, closest
from leyden.core.lazy import Later
from leyden.core.optional import require
from leyden.serve.api import LitAPI
from leyden.serve.codec import read_json, write_json
from leyden.serve.faults import Fault
from leyden.serve.hooks import InputKind, plan_of
from leyden.serve.specs.base import Scope, SpecCall, Submitter
from leyden.serve.typed import is_pydantic, name_of

PATH = "/mcp"
_PURPOSE = "LitAPI(mcp=…)"
_OPEN: Mapping[str, Any] = {"type": "object", "additionalProperties": True}
_msgspec: Any = Later("msgspec")
_pydantic: Any = Later("pydantic")
Asgi = Callable[..., Awaitable[None]]


@final
class MCP:
    """Makes an API a tool.

    Args:
        description: What it is for: a model decides by it whether to call it. By default the docstring of the API's class.
        input_schema: The JSON schema of its arguments; by default of the class that `decode_request` names.
        name: What models call it; by default its path, `/` written as `_`.

    Raises:
        ConfigError: The schema is none of an object.

    Example:
        >>> MCP(description="Squares a number.", input_schema={"type": "object"}).tool(LitAPI(api_path="/v1/square")).name
        'v1_square'
    """

    def __init__(self, description: str | None = None, input_schema: Mapping[str, Any] | None = None, name: str | None = None) -> None:
        if input_schema is not None and (not isinstance(input_schema, Mapping) or input_schema.get("type") != "object"):
            raise ConfigError(
                f"input_schema={input_schema!r:.80} is not accepted: it takes the schema of an object, such as "
                "{'type': 'object', 'properties': {'input': {'type': 'number'}}, 'required': ['input']}."
            )
        self.description, self.input_schema, self.name = description, input_schema, name

    def tool(self, api: LitAPI) -> "Tool":
        """Return what clients are told of an API.

        Raises:
            ConfigError: It cannot be a tool.
        """
        name = self.name or api.api_path.strip("/").replace("/", "_")
        if not name:
            raise ConfigError(f"A tool needs a name, and api_path is {api.api_path!r}: pass MCP(name=…).")
        if api.spec is not None:
            raise ConfigError(
                f"{type(api).__name__} has a spec, and mcp: a tool is called with the arguments of decode_request(). Drop one."
            )
        if getattr(api, "authorize", None) is not None:
            raise ConfigError(
                f"{type(api).__name__} has authorize(), and mcp: tools are guarded by the server's keys alone. Set LEYDEN_SERVE_API_KEY "
                "and drop authorize(), or drop mcp."
            )
        schema = dict(self.input_schema) if self.input_schema is not None else _schema_of(api)
        own = inspect.getdoc(type(api)) if type(api).__doc__ and type(api) is not LitAPI else None
        return Tool(name, self.description or own or name, schema, is_stream=api.stream)


class Tool(NamedTuple):
    """A tool.

    Args:
        name: What models call it.
        description: What it is for.
        input_schema: Of its arguments.
        is_stream: Whether its answer comes in pieces.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    is_stream: bool = False


@final
class Tools:
    """The tools of a server, as an ASGI app.

    Args:
        tools: What clients are told of them.
        servers: In the same order: what computes each of them.
        refusal: Returns why a request is refused, by its scope; `None` if it is not.
        max_payload_bytes: The most bytes of a request's body; `None` if any.

    Raises:
        MissingDependencyError: The package `mcp` is not installed, or is of version 1.
        ConfigError: Two have one name.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        servers: Sequence[Submitter],
        *,
        refusal: Callable[[Scope], Fault | None] = lambda scope: None,
        max_payload_bytes: int | None = None,
    ) -> None:
        self._package = require("mcp", purpose=_PURPOSE, extra="mcp")
        if not hasattr(self._package, "MCPError"):
            raise MissingDependencyError(f"{_PURPOSE} needs the package 'mcp' from 2.0 on. Install it with: pip install -U \"leyden[mcp]\"")
        self._tools: dict[str, tuple[Tool, Submitter]] = {}
        for tool, server in zip(tools, servers, strict=True):
            if tool.name in self._tools:
                raise ConfigError(f"Two tools have the name {tool.name!r}. Pass MCP(name=…) to one of them.")
            self._tools[tool.name] = (tool, server)
        self._refusal, self._most = refusal, sys.maxsize if max_payload_bytes is None else max_payload_bytes
        self._manager: Any = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer until the context ends; in the lifespan of the outer app, as nobody runs that of a mounted one."""
        lowlevel = require("mcp.server.lowlevel", purpose=_PURPOSE, extra="mcp")
        managers = require("mcp.server.streamable_http_manager", purpose=_PURPOSE, extra="mcp")
        server = lowlevel.Server("leyden", on_list_tools=self._list, on_call_tool=self._call)
        manager = managers.StreamableHTTPSessionManager(server, json_response=True, stateless=True, max_request_body_size=self._most)
        async with manager.run():
            self._manager = manager
            try:
                yield
            finally:
                self._manager = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request: mount this at `PATH`."""
        fault = self._refusal(scope)
        if fault is None and scope["method"] != "POST":  # the other methods are for sessions, which this server does not have
            fault = Fault(405, "request.method_not_allowed", f"{scope['method']} is not allowed here.", headers={"allow": "POST"})
        if fault is None and self._manager is None:
            raise StateError("Tools.running() was not entered: put it into the lifespan of the app that this one is mounted in.")
        if fault is None:
            await self._manager.handle_request(scope, receive, send)
            return
        headers = [(name.encode(), value.encode()) for name, value in {"content-type": "application/json", **fault.headers}.items()]
        await send({"type": "http.response.start", "status": fault.status, "headers": headers})
        await send({"type": "http.response.body", "body": write_json(fault.body)})

    # -- what the protocol asks --------------------------------------------------------------------------------------

    async def _list(self, context: Any, params: Any) -> Any:
        types = self._package.types
        return types.ListToolsResult(
            tools=[types.Tool(name=tool.name, description=tool.description, input_schema=tool.input_schema) for tool, _ in self._all()]
        )

    def _all(self) -> list[tuple[Tool, Submitter]]:
        return list(self._tools.values())

    async def _call(self, context: Any, params: Any) -> Any:
        if params.name not in self._tools:
            raise self._package.MCPError(
                self._package.types.INVALID_PARAMS, f"There is no tool {params.name!r:.80}.{closest(params.name, self._tools)}"
            )
        tool, server = self._tools[params.name]
        scope = getattr(context.request, "scope", {})
        try:
            answer = await _answered(tool, server, SpecCall(write_json(params.arguments or {}), "mcp", scope))
        except Fault as fault:
            told = fault.message if server.exposes_errors or fault.status < 500 else "Internal server error"
            return self._result(told, is_error=True)
        return self._result(answer)

    def _result(self, answer: Any, *, is_error: bool = False) -> Any:
        """Return an answer as text, and as it is if it is an object: only these may be, by the protocol."""
        text = answer if isinstance(answer, str) else write_json(answer).decode()
        types = self._package.types
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)],
            structured_content=answer if isinstance(answer, dict) else None,
            is_error=is_error,
        )


def checked_mcp(mcp: Any) -> MCP:
    """Return what makes an API a tool, or say what was given instead.

    Raises:
        ConfigTypeError: It is no `MCP`.
    """
    if isinstance(mcp, MCP):
        return mcp
    raise ConfigTypeError(f"mcp={mcp!r:.80} is not accepted: it takes MCP(description='…'), from leyden.serve.mcp.")


async def _answered(tool: Tool, server: Submitter, call: SpecCall) -> Any:
    """Return what a worker answers: JSON, or text."""
    if not tool.is_stream:
        return _value(await server.submit(call))
    values = list[Any]()
    async with contextlib.aclosing(server.stream(call)) as lists:
        async for pieces in lists:
            values += [_value(piece) for piece in pieces]
    return "".join(values) if all(isinstance(value, str) for value in values) else values


def _value(body: bytes) -> Any:
    try:
        return read_json(body)
    except Fault:
        return body.decode("utf-8", "replace")


def _schema_of(api: LitAPI) -> dict[str, Any]:
    plan = plan_of(api, LitAPI)
    if plan.input is InputKind.RAW:
        raise ConfigError(f"{type(api).__name__}.decode_request() takes bytes, and a tool is called with JSON: annotate it otherwise.")
    if plan.input is InputKind.TYPED:
        schema = _object_schema(plan.input_type)
        if schema.get("type") != "object":
            raise ConfigError(
                f"{type(api).__name__}.decode_request() takes {name_of(plan.input_type)}, and a tool is called with one object: pass "
                "MCP(input_schema={'type': 'object', …}), or annotate with one class."
            )
        return schema
    warnings.warn(
        f"No model knows with what to call {type(api).__name__}: annotate decode_request(self, request: MyRequest), or pass "
        "MCP(input_schema={…}).",
        UserWarning,
        stacklevel=2,
    )
    return dict(_OPEN)


def _object_schema(kind: Any) -> dict[str, Any]:
    """Return the schema of a class, which stands at its root: the protocol wants an object there, and no reference."""
    schema: dict[str, Any] = _pydantic.TypeAdapter(kind).json_schema() if is_pydantic(kind) else _msgspec.json.schema(kind)
    if "$ref" not in schema:
        return schema
    parts = schema["$defs"]
    name = schema["$ref"].rpartition("/")[2]
    root = dict(parts[name])
    return {**root, "$defs": parts} if len(parts) > 1 or f"/{name}" in write_json(root).decode() else root
