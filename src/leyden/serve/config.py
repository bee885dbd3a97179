"""What a server is: plain values that `LitServer` has checked, handed to front ends, the supervisor and workers.

Nothing here checks anything: the arguments of users are read in `arguments.py` and `api.py`. Seconds that are infinite mean
"never", bytes that are `None` mean "without a limit".
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from leyden.serve.api import StreamFormat
from leyden.serve.limits import HARD_CAP, Limits, share
from leyden.serve.loggers import Logger
from leyden.serve.mcp import Tool
from leyden.serve.specs.base import LitSpec
from leyden.serve.wire import MOST_BODY_BYTES

Compression = Literal["auto", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiConfig:
    """One API, as its front ends see it.

    Args:
        path: Where it answers.
        num_workers: How many workers it is to have; 0 while it is scaled to zero.
        max_batch_size: The most requests of a batch.
        batch_timeout: Seconds that the first request of a batch may wait for others.
        timeout: Seconds that a request may wait until its computation starts.
        is_stream: Whether it answers in pieces.
        stream_format: How pieces are written; `"auto"` follows the client's `Accept` and what the pieces are.
        max_stream_buffer_bytes: What a client that reads slowly may be behind.
        is_idempotent: Whether a request that was lost with its worker may run again.
        wants_context: Whether a hook takes the context: then the headers travel with the request.
        input_type: The class that `decode_request` names, for the documentation.
        output_type: The class that `encode_response` names, for the documentation.
        authorize: A FastAPI dependency of its routes, instead of the server's keys.
        health: What is asked whether all is well; `None` if the user wrote no `health`.
        spec: The protocol that answers in the place of a route at `path`.
        tool: What language models are told of it, if it is a tool of theirs.
        name: For the documentation.
        description: For the documentation.
    """

    path: str = "/predict"
    num_workers: int = 1
    max_batch_size: int = 1
    batch_timeout: float = 0.0
    timeout: float = 30.0
    is_stream: bool = False
    stream_format: StreamFormat = "auto"
    max_stream_buffer_bytes: int = 2**20
    is_idempotent: bool = False
    wants_context: bool = False
    input_type: Any = None
    output_type: Any = None
    authorize: Callable[..., Any] | None = None
    health: Callable[[], bool | Awaitable[bool]] | None = None
    spec: LitSpec | None = None
    tool: Tool | None = None
    name: str = "predict"
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Secrets:
    """The keys of a server. They stay out of logs.

    Args:
        api_keys: Any of them opens the API; none opens it to all.
        shutdown_key: Stops the server; empty if nobody may.
    """

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    shutdown_key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """A server.

    Args:
        apis: In their order; the numbers of APIs everywhere are places in it.
        secrets: Its keys.
        healthcheck_path: Where it says whether all workers are ready.
        info_path: Where it says what it is.
        shutdown_path: Where it is stopped, if there is a shutdown key.
        is_openapi_disabled: Whether `/docs` and `/openapi.json` are left out.
        model_metadata: What `info_path` tells of the model.
        info: What else it tells of the server: `devices`, `workers_per_device`, `track_requests`.
        loggers: Those with an app, which run in front ends.
        middlewares: The user's own, each with its keywords; the last one is the outermost, as in Starlette.
        deadline: Seconds for queue and computation.
        max_queue_size: Requests of an API that may wait; `None` refuses what would wait longer than its time-out.
        max_inflight_bytes: Bytes of all bodies that are held.
        max_payload_bytes: The most bytes of a body.
        header_timeout: Seconds that the head of a request may take.
        body_timeout: Seconds that its body may take, and one more for each 64 KiB of it.
        keep_alive: Seconds that a connection may be idle.
        drain_delay: Seconds between "not ready" and no new connections.
        drain_timeout: Seconds after which what is left when the server stops is given up.
        kill_after: Seconds after which a worker is ended that goes on with what it was told to leave.
        exposes_errors: Whether answers tell what went wrong in a hook.
        compression: `"auto"` compresses answers of 1,000 bytes and more for clients that accept it.
        num_front_ends: How many processes share the limits.
    """

    apis: tuple[ApiConfig, ...] = (ApiConfig(),)
    secrets: Secrets = Secrets()
    healthcheck_path: str = "/health"
    info_path: str = "/info"
    shutdown_path: str = "/shutdown"
    is_openapi_disabled: bool = False
    model_metadata: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)
    loggers: tuple[Logger, ...] = ()
    middlewares: tuple[tuple[Any, Mapping[str, Any]], ...] = ()
    deadline: float = math.inf
    max_queue_size: int | None = None
    max_inflight_bytes: int = 2**30
    max_payload_bytes: int | None = 100 * 2**20
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    keep_alive: float = 75.0
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
    kill_after: float = math.inf
    exposes_errors: bool = True
    compression: Compression = "auto"
    num_front_ends: int = 1

    def limits(self) -> list[Limits]:
        """Return the limits of each API in one front end."""
        return [
            Limits(
                timeout=None if api.timeout == math.inf else api.timeout,
                max_queue_size="auto" if self.max_queue_size is None else min(self.max_queue_size, HARD_CAP),
                batch_timeout=api.batch_timeout,
            ).shared_by(self.num_front_ends)
            for api in self.apis
        ]

    @property
    def payload_bytes(self) -> int:
        """The most bytes of a body: without a limit, what frames can carry."""
        return MOST_BODY_BYTES if self.max_payload_bytes is None else min(self.max_payload_bytes, MOST_BODY_BYTES)

    @property
    def inflight_bytes(self) -> int:
        """What one front end may hold of all bodies."""
        return share(self.max_inflight_bytes, self.num_front_ends)
