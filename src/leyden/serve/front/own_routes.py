"""`OwnRoutes`: what a server answers about itself: whether it is well, what it is, its numbers; and how it is stopped."""

from collections.abc import Awaitable, Callable
from typing import Any, final

from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from leyden.serve.codec import JSON, write_json
from leyden.serve.config import ServerConfig
from leyden.serve.faults import Fault
from leyden.serve.front.auth import opens
from leyden.serve.front.edge import Refused
from leyden.serve.front.parts import Parts
from leyden.serve.metrics import CONTENT_TYPE

METRICS = "/metrics"
Endpoint = Callable[[Request], Awaitable[Response]]


@final
class OwnRoutes:
    """The routes of the server itself. Those that an orchestrator asks never need a key.

    Args:
        parts: What they stand on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self._config, self._readiness = parts, parts.config, parts.readiness

    def add_to(self, app: FastAPI) -> None:
        """Add them to an app."""
        config = self._config
        routes: dict[str, Endpoint] = {
            "/": self._guarded(self._index),
            config.healthcheck_path: self._guarded(self._health),
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/health/startup": self._startup,
            config.info_path: self._guarded(self._info),
            self._metrics_path(): self._guarded(self._metrics),
        }
        for path, endpoint in routes.items():
            app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
            app.add_api_route(path, endpoint, methods=["GET"], response_model=None)  # for the documentation, which wants one method
        if config.secrets.shutdown_key:
            app.add_api_route(config.shutdown_path, self._shutdown, methods=["POST"], response_model=None)

    def _metrics_path(self) -> str:
        """Return where the server's numbers are: a logger's app may have their usual place."""
        is_taken = any(each.mounted is not None and each.mounted.path == METRICS for each in self._config.loggers)
        return f"{METRICS}/server" if is_taken else METRICS

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            fault = self._parts.intake.keys.refusal(dict(request.scope["headers"]))
            if fault is not None:
                raise Refused(fault)
            return await endpoint(request)

        guarded.__name__ = endpoint.__name__.removeprefix("_")
        return guarded

    async def _index(self, request: Request) -> Response:
        return PlainTextResponse("litserve running")

    async def _health(self, request: Request) -> Response:
        return _ok(await self._readiness.is_well())

    async def _live(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _ready(self, request: Request) -> Response:
        return Response(write_json(self._readiness.facts()), 200 if self._readiness.is_ready else 503, media_type=JSON)

    async def _startup(self, request: Request) -> Response:
        return _ok(self._readiness.has_started)

    async def _info(self, request: Request) -> Response:
        return Response(write_json(facts(self._config)), media_type=JSON)

    async def _metrics(self, request: Request) -> Response:
        return Response(self._parts.metrics(), media_type=CONTENT_TYPE)

    async def _shutdown(self, request: Request) -> Response:
        if not opens(self._config.secrets.shutdown_key, dict(request.scope["headers"])):
            raise Refused(Fault(401, "auth.invalid_key", "Invalid Bearer token for Shutdown API.", headers={"www-authenticate": "Bearer"}))
        self._parts.shut_down()
        return PlainTextResponse("Server is initiating a shutdown.")


def _ok(is_well: bool) -> Response:  # noqa: FBT001 - a question and its answer
    return PlainTextResponse("ok" if is_well else "not ready", 200 if is_well else 503)


def facts(config: ServerConfig) -> dict[str, Any]:
    """Return what a server tells of itself and of its model."""
    timeouts = [api.timeout for api in config.apis]
    server = {
        "devices": config.info.get("devices", []),
        "workers_per_device": config.info.get("workers_per_device", 1),
        "timeout": min(timeouts, default=0.0),
        "stream": {api.path: api.is_stream for api in config.apis},
        "max_payload_size": config.max_payload_bytes,
        "track_requests": config.info.get("track_requests", False),
    }
    return {"model": config.model_metadata, "server": server}
