"""`LitSpec`: a protocol that clients know, spoken by any `LitAPI`; and `Submitter`, what it asks of the server.

A spec works at two places. Its endpoints are in the front end: they read an HTTP request, hand what a worker is to compute to
the `Submitter`, and write the answer. Its hooks are in the worker, around those of the user: `adapted` puts them there.

```
client ─► endpoint ─► Submitter ─► router ─► worker: read ─► populate_context ─► decode_request ─► predict ─► encode_response ─► checked
client ◄─ endpoint ◄─ Submitter ◄─────────────────────────────────────────────────────────────────────────────────────────────────┘
```
What belongs to one request lives in the call of its endpoint: a spec is one object for all requests.
"""

import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn, Protocol, final

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.serve.api import LitAPI
from leyden.serve.arguments import checked_path
from leyden.serve.codec import read_json, write_json
from leyden.serve.faults import Fault

Scope = Mapping[str, Any]
NO_SCOPE: Scope = {}


class SpecCall(NamedTuple):
    """What a worker is to compute.

    Args:
        body: JSON, as `decode_request` is to get it.
        endpoint: Where it came in, as the spec calls it: for logs and numbers.
        scope: ASGI's, of the HTTP request that it is part of: its headers say deadline, priority and trace.
    """

    body: bytes
    endpoint: str = ""
    scope: Scope = NO_SCOPE


class Submitter(Protocol):
    """What a front end does for the spec of one API. A call that is cancelled, or a stream that is closed, ends in the worker too."""

    @property
    def exposes_errors(self) -> bool:
        """Whether answers tell what went wrong in a hook."""
        ...

    async def submit(self, call: SpecCall) -> bytes:
        """Return the body that the worker answers.

        Raises:
            Fault: Whatever else the answer would be.
        """
        ...

    def stream(self, call: SpecCall) -> AsyncGenerator[list[bytes], None]:
        """Yield the pieces of a stream, exactly as the worker sent them: the first at once, later ones as many as have come.

        While the next list is not asked for, the client counts as slow.

        Raises:
            Fault: Whatever ends it otherwise than well, before or after pieces.
        """
        ...

    def used(self, usage: Mapping[str, int]) -> None:
        """Count tokens: `prompt_tokens`, `completion_tokens`."""

    def refused(self, fault: Fault) -> None:
        """Count a request that is refused before anything is computed."""


class Endpoint(NamedTuple):
    """A route of a spec.

    Args:
        path: Where it answers.
        function: Answers; as FastAPI calls it.
        methods: Of HTTP.
        request_type: The class of its JSON, for the documentation; `None` if the function names it.
    """

    path: str
    function: Callable[..., Any]
    methods: tuple[str, ...]
    request_type: Any = None


class LitSpec:
    """A protocol for a `LitAPI`: `LitAPI(spec=MySpec())`. Subclass it, and add endpoints.

    Example:
        >>> class Upper(LitSpec):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.add_endpoint("/upper", self.upper, ["POST"])
        ...
        ...     async def upper(self, payload: dict):
        ...         return {"text": (await self.submit(payload))["text"].upper()}
        >>> [endpoint.path for endpoint in Upper().endpoints]
        ['/upper']
    """

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []
        self._submitter: Submitter | None = None
        self._max_batch_size = 1
        self.api_path: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_submitter": None, "_endpoints": []}  # it travels to workers: what is for front ends stays there

    # -- the server's side -----------------------------------------------------------------------------------------

    @property
    def stream(self) -> bool:
        """Whether the API answers it piece by piece."""
        return False

    @property
    def endpoints(self) -> list[Endpoint]:
        """Its routes."""
        return list(self._endpoints)

    def add_endpoint(self, path: str, endpoint: Callable[..., Any], methods: Sequence[str], *, request_type: Any = None) -> None:
        """Add a route.

        Args:
            path: Where it answers.
            endpoint: An async function, as FastAPI takes them.
            methods: Of HTTP, such as `["POST"]`.
            request_type: The class of its JSON, for the documentation, where the function itself takes a `Request`.

        Raises:
            ConfigError: The path does not start with `/`, or there is no method.
        """
        if isinstance(methods, str) or not methods:
            raise ConfigTypeError(f"methods={methods!r} is not accepted: it takes a list of HTTP methods, such as ['POST'].")
        names = tuple(method.upper() for method in methods)
        self._endpoints.append(Endpoint(checked_path("path", path), endpoint, names, request_type))

    def pre_setup(self, lit_api: Any) -> None:
        """Look an API over, and tell it what it must know; called once, when the server is made, before `LitAPI.check`.

        Raises:
            ConfigError: They do not go together.
        """
        if type(lit_api).format_encoded_response is not LitAPI.format_encoded_response:
            warnings.warn(
                f"format_encoded_response() is not called: {type(self).__name__} writes the answers. Do it in encode_response().",
                UserWarning,
                stacklevel=2,
            )
        lit_api.stream = self.stream or lit_api.stream
        self._max_batch_size = lit_api.max_batch_size
        if self.api_path is not None:
            lit_api.api_path = self.api_path

    def _take_path(self, given: str, usual: str) -> bool:
        """Answer where the API was told to, if that is neither its default nor the usual place; return whether it is not."""
        if given in {"/predict", usual}:
            return False
        self.api_path = given
        end = usual.removeprefix("/v1")
        if not given.endswith(end):  # else it is in reach of clients, by their base URL
            told = f"api_path={given!r}: clients of this protocol expect {usual}. Leave api_path out, or end it with {end}."
            warnings.warn(told, UserWarning, stacklevel=3)
        return True

    def setup(self, server: Submitter) -> None:
        """Take note of the server; called once in each front end, before its first request."""
        self._submitter = server

    @property
    def server(self) -> Submitter:
        """The server.

        Raises:
            StateError: There is none yet.
        """
        if self._submitter is None:
            raise StateError(f"{type(self).__name__} belongs to no server yet: pass it as LitAPI(spec=…), and the API to LitServer.")
        return self._submitter

    async def submit(self, request: Any, scope: Scope = NO_SCOPE) -> Any:
        """Let a worker answer, and return what `encode_response` made.

        Args:
            request: What `decode_request` is to get: anything that JSON has, a pydantic model, or bytes of JSON.
            scope: Of the HTTP request, `request.scope`: then its deadline, priority and trace count.

        Raises:
            Fault: The answer is an error.
        """
        return read_json(await self.server.submit(SpecCall(_body(request), scope=scope)))

    async def stream_items(self, request: Any, scope: Scope = NO_SCOPE) -> AsyncGenerator[Any, None]:
        """Let a worker answer piece by piece, and yield what `encode_response` yields.

        Args:
            request: As for `submit`.
            scope: As for `submit`.

        Raises:
            Fault: The answer is an error, or breaks off.
        """
        async with aclosing(self.server.stream(SpecCall(_body(request), scope=scope))) as lists:
            async for pieces in lists:
                for piece in pieces:
                    yield read_json(piece)

    def sample_request(self) -> tuple[str, Any] | None:
        """Return the path and the JSON value of a request that any API with this spec can answer; `None` if there is no such."""
        return None

    def error_items(self, fault: Fault, told: str) -> Mapping[str, Any]:
        """Return what its clients read of an error, beside `detail`, `code`, `message` and `request_id`.

        Args:
            fault: The error.
            told: What they may know of it.
        """
        return {}

    @property
    def request_queue(self) -> NoReturn:
        """LitServe's way to a worker, which is not there."""
        raise _gone("request_queue")

    @property
    def response_buffer(self) -> NoReturn:
        """LitServe's way back from a worker, which is not there."""
        raise _gone("response_buffer")

    # -- the worker's side -----------------------------------------------------------------------------------------

    def read(self, value: Any) -> Any:
        """Return what `decode_request` gets of a request's JSON value: by default the value."""
        return value

    def populate_context(self, context: dict[str, Any], request: Any) -> None:
        """Put into a context what `predict` may want to know of a request."""

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Make the input of `predict`, where the API does not do it."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Make the answer of an output, or of a generator of outputs, where the API does not do it."""
        return output

    def checked(self, output: Any, context: Any = None) -> Any:
        """Return what is sent to the front end: an answer, or a piece of one, after all hooks.

        Args:
            output: What the hooks made.
            context: Of the request; not of the pieces of a stream.
        """
        return output

    def as_async(self) -> "AsyncSpec":
        """Return its hooks as async ones, for `enable_async`."""
        return AsyncSpec(self)


@final
class AsyncSpec:
    """The hooks of a spec, async.

    Args:
        spec: It.
    """

    def __init__(self, spec: LitSpec) -> None:
        self.spec = spec

    async def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Make the input of `predict`."""
        return self.spec.decode_request(request, context_kwargs)

    async def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Make the answer of an output."""
        return self.spec.encode_response(output, context_kwargs)


def checked_spec(spec: Any) -> LitSpec:
    """Return a spec, or say what was given instead.

    Raises:
        ConfigError: It is no object of a `LitSpec`, or was not made by its `__init__`.
    """
    if isinstance(spec, type) and issubclass(spec, LitSpec):
        raise ConfigError(f"{spec.__name__} is a class: pass an object of it, spec={spec.__name__}().")
    if not isinstance(spec, LitSpec):
        raise ConfigTypeError(f"spec={spec!r:.80} is not accepted: it takes an object of a LitSpec, such as OpenAISpec().")
    if "_endpoints" not in spec.__dict__:
        raise ConfigError(f"{type(spec).__name__}.__init__ does not call super().__init__(). Call it first.")
    return spec


def _body(request: Any) -> bytes:
    return request if isinstance(request, bytes) else write_json(request)


def _gone(name: str) -> StateError:
    return StateError(
        f"{name} does not exist here: no queue is shared between processes. Call `await self.submit(request)` for one answer, or "
        "`async for item in self.stream_items(request)` for a stream."
    )
