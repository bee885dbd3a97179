"""The app: FastAPI with the routes of all APIs and those of the server itself. Users may add their own."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, final

from fastapi import Depends, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount, Route

from leyden.core.log import get_logger
from leyden.serve.config import ServerConfig
from leyden.serve.faults import Fault
from leyden.serve.front.answers import error_answer, header_lines
from leyden.serve.front.asgi import REQUEST_ID, Receive, Relay, Scope, Send
from leyden.serve.front.counters import Counters
from leyden.serve.front.documents import operation
from leyden.serve.front.edge import Closing, Edge, Refused
from leyden.serve.front.mounted_app import MountedApp
from leyden.serve.front.own_routes import OwnRoutes
from leyden.serve.front.parts import Parts
from leyden.serve.front.submitter import ApiSubmitter
from leyden.serve.mcp import PATH
from leyden.serve.specs.base import LitSpec

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
_UNKNOWN = {404: ("Not Found", "request.not_found"), 405: ("Method Not Allowed", "request.method_not_allowed")}
_logger = get_logger(__name__)


@final
class Endpoint:
    """Where requests of an API arrive, as an ASGI app.

    Args:
        parts: What takes them.
        api: The number of the API.
    """

    def __init__(self, parts: Parts, api: int) -> None:
        self._parts, self.api = parts, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Relay(self._parts.dispatcher, self._parts.intake, self.api)(scope, receive, send)

    async def predict(self, request: Request) -> Response:
        """Return what answers, where FastAPI asks for it."""
        return Relay(self._parts.dispatcher, self._parts.intake, self.api)


def build(parts: Parts, lifespan: Lifespan) -> FastAPI:
    """Return the app.

    Args:
        parts: What its routes stand on.
        lifespan: What runs while it does.
    """
    is_open = not parts.config.is_openapi_disabled
    app = FastAPI(title="Leyden", openapi_url="/openapi.json" if is_open else None, lifespan=lifespan)
    schemas, paths = dict[str, Any](), dict[str, Any]()
    for number, api in enumerate(parts.config.apis):
        if api.spec is not None:
            _add_spec(app, parts, number, api.spec)
            continue
        paths[api.path] = {"post": operation(api, schemas)}
        endpoint = Endpoint(parts, number)
        if api.authorize is None:  # FastAPI's own routes cost as much as all the rest, and would do nothing here
            app.router.routes.append(Route(api.path, endpoint, methods=["POST"], name=api.name, include_in_schema=False))
        else:
            guard = [Depends(api.authorize)]
            app.add_api_route(api.path, endpoint.predict, methods=["POST"], dependencies=guard, name=api.name, include_in_schema=False)
    if parts.tools is not None:  # with and without the last slash, as clients are told either
        app.router.routes += [Route(PATH, parts.tools, include_in_schema=False), Mount(PATH, parts.tools)]
    OwnRoutes(parts).add_to(app)
    for path, mounted in dict(each.mounted for each in parts.config.loggers if each.mounted is not None).items():
        app.router.routes.append(MountedApp(path, mounted, parts.intake))
    _Errors(parts).add_to(app)
    _document(app, paths, schemas)
    for middleware, options in parts.config.middlewares:
        app.add_middleware(middleware, **options)
    app.add_middleware(Edge, intake=parts.intake, dispatcher=parts.dispatcher)  # type: ignore[arg-type]
    return app


def _add_spec(app: FastAPI, parts: Parts, number: int, spec: LitSpec) -> None:
    """Add the routes of a spec. A key is looked for before anything is read."""
    spec.setup(ApiSubmitter(parts.dispatcher, parts.intake, number))
    authorize = parts.config.apis[number].authorize

    async def has_key(request: Request) -> None:
        headers = dict(request.scope["headers"])
        fault = parts.intake.keys.refusal(headers)
        if fault is not None:
            raise Refused(fault, headers)

    guard = [Depends(has_key if authorize is None else authorize)]
    for endpoint in spec.endpoints:
        app.add_api_route(endpoint.path, endpoint.function, methods=list(endpoint.methods), dependencies=guard, response_model=None)


def _spec_at(parts: Parts, path: str) -> tuple[LitSpec | None, Counters]:
    """Return the spec that answers at a path, and who counts what is refused there."""
    for number, api in enumerate(parts.config.apis):
        if api.spec is not None and any(endpoint.path == path for endpoint in api.spec.endpoints):
            return api.spec, parts.dispatcher.counters(number)
        if api.path == path:
            return None, parts.dispatcher.counters(number)
    return None, parts.dispatcher.strays


def why_not_hot(app: FastAPI, config: ServerConfig, api: int) -> str:
    """Return why an API's requests need all of ASGI; nothing if they do not."""
    own = [each for each in app.user_middleware if each.cls is not Edge]
    if own:
        return f"the server has the middleware {getattr(own[0].cls, '__name__', own[0].cls)}"
    if config.apis[api].spec is not None:
        return "its spec answers"
    if config.apis[api].authorize is not None:
        return "it has authorize()"
    scope = {"type": "http", "method": "POST", "path": config.apis[api].path, "root_path": "", "headers": list[Any]()}
    for route in app.router.routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            endpoint: Any = getattr(route, "endpoint", None)
            return "" if isinstance(endpoint, Endpoint) and endpoint.api == api else "another route answers at its path"
    return "it has no route any more"


@final
class _Errors:
    """Writes the errors of an app as all of ours are, and counts those that are refusals.

    Args:
        parts: What the routes stand on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._exposes = parts, parts.config.exposes_errors

    def add_to(self, app: FastAPI) -> None:
        """Handle what its routes raise."""
        app.add_exception_handler(Refused, self._refused)
        app.add_exception_handler(Fault, self._of_spec)
        app.add_exception_handler(HTTPException, self._of_http)
        app.add_exception_handler(Exception, self._failed)

    def _answered(self, request: Request, fault: Fault, refused: Refused | None = None) -> Response:
        request_id = request.scope.get(REQUEST_ID) or self._parts.intake.request_id({})
        spec, counters = _spec_at(self._parts, request.scope["path"])
        if refused is not None:
            counters.refused(fault, refused.reason)
        told = fault.message if self._exposes or fault.status < 500 else str(fault.detail)
        answer = error_answer(fault, request_id, exposes=self._exposes, items={} if spec is None else spec.error_items(fault, told))
        response = (Closing if refused is not None and refused.closes else Response)(bytes(answer.body), answer.status)
        response.raw_headers = header_lines(answer, request_id)
        return response

    async def _refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, Refused):
            raise error
        return self._answered(request, error.fault, error)

    async def _of_spec(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, Fault):
            raise error
        return self._answered(request, error)

    async def _of_http(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        text, code = _UNKNOWN.get(error.status_code, ("", ""))
        if error.detail != text:
            return await http_exception_handler(request, error)
        path = request.scope["path"]
        message = f"Nothing is at {path!r:.200}." if error.status_code == 404 else f"{request.method} is not allowed at {path!r:.200}."
        fault = Fault(error.status_code, code, message, detail=text, headers=error.headers)
        return self._answered(request, fault, Refused(fault))

    async def _failed(self, request: Request, error: Exception) -> Response:
        _logger.error("%s: %s %s failed", request.scope.get(REQUEST_ID), request.method, request.url.path)
        message = f"{type(error).__name__}: {error}"[:300]
        return self._answered(request, Fault(500, "server.failed", message, detail="Internal server error"))


def _document(app: FastAPI, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["paths"] = {**paths, **document["paths"]}
        if schemas:
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return document

    app.openapi = openapi  # type: ignore[method-assign] - as FastAPI documents it
