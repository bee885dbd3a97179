"""`OpenAIEmbeddingSpec`: any `LitAPI` that makes vectors, as OpenAI's clients know it: `/v1/embeddings`.

A client may send one text or token list, or many. Where the API batches (`max_batch_size > 1`), each of many is a call of its
own: requests of several clients then fill batches together. Vectors are written where they are made, in the worker, and go
through the front end as they are.

Follows https://platform.openai.com/docs/api-reference/embeddings.
"""

import array
import asyncio
import base64
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, final

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from leyden.core.errors import ConfigError
from leyden.serve.codec import read_json, write_json
from leyden.serve.faults import Fault
from leyden.serve.hooks import form_of
from leyden.serve.specs.answers import ErrorStyle, Sender, Work, body_of, options_of
from leyden.serve.specs.base import LitSpec, Scope, SpecCall, Submitter
from leyden.serve.specs.openai.response import openai_error
from leyden.serve.typed import validated

EMBEDDINGS = "/v1/embeddings"
MAX_ITEMS = 2048
_LISTS: tuple[type, ...] = (list, tuple)
_COUNTS: Final = ("prompt_tokens", "total_tokens")
_SHAPE = """
    def encode_response(self, output):
        return {"embeddings": output, "prompt_tokens": 8, "total_tokens": 8}   # one vector for each input; the counts may be left out
"""
Item = str | list[int]
Tokens = Annotated[list[int], Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    """What `/v1/embeddings` takes."""

    model_config = ConfigDict(extra="allow")

    input: Annotated[str, Field(min_length=1)] | Annotated[list[str] | list[int] | list[Tokens], Field(min_length=1)]
    model: str = ""
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] | None = "float"
    user: str | None = None

    def ensure_list(self) -> list[Any]:
        """Return what is to be embedded, one entry for each vector; a list of tokens is one entry.

        Example:
            >>> [EmbeddingRequest(input=value).ensure_list() for value in ("a", ["a", "b"], [1, 2], [[1], [2]])]
            [['a'], ['a', 'b'], [[1, 2]], [[1], [2]]]
        """
        is_many = isinstance(self.input, list) and not isinstance(self.input[0], int)
        return list(self.input) if is_many else [self.input]


class Embedding(BaseModel):
    """A vector."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(BaseModel):
    """Tokens, counted."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingResponse(BaseModel):
    """What `/v1/embeddings` answers."""

    data: list[Embedding]
    model: str
    object: Literal["list"] = "list"
    usage: EmbeddingUsage = EmbeddingUsage()


class _Vectors(msgspec.Struct):
    """What a worker sends: vectors as they are to be written, and tokens."""

    embeddings: list[msgspec.Raw]
    usage: dict[str, int] = {}


_read: Final = msgspec.json.Decoder(_Vectors).decode


@final
class OpenAIEmbeddingSpec(LitSpec):
    """Answers `/v1/embeddings`: `LitAPI(spec=OpenAIEmbeddingSpec())`.

    `decode_request` gets an `EmbeddingRequest`, `predict` by default its `input`; with `max_batch_size > 1` a list of single
    inputs. `encode_response` returns `{"embeddings": vectors}`, the vectors, or one of them.

    Example:
        >>> [endpoint.path for endpoint in OpenAIEmbeddingSpec().endpoints]
        ['/v1/embeddings', '/v1/embeddings']
    """

    def __init__(self) -> None:
        super().__init__()
        self.api_path = EMBEDDINGS
        self._name = "LitAPI"
        self._add_endpoints()

    def _add_endpoints(self) -> None:
        self._endpoints.clear()
        self.add_endpoint(self.api_path or EMBEDDINGS, self.embeddings, ["POST"], request_type=EmbeddingRequest)
        self.add_endpoint(self.api_path or EMBEDDINGS, options_of("POST"), ["OPTIONS"])

    def pre_setup(self, lit_api: Any) -> None:
        for name in ("predict", "encode_response"):
            form = form_of(getattr(lit_api, name))
            if form.yields or lit_api.stream:
                found = f"{name}() is {form.value}" if form.yields else "stream=True is set"
                raise ConfigError(f"{found}, and OpenAIEmbeddingSpec does not stream: return instead of yield.\n{_SHAPE}")
        if self._take_path(lit_api.api_path, EMBEDDINGS):
            self._add_endpoints()
        self._name = type(lit_api).__name__
        super().pre_setup(lit_api)

    # -- the worker's side -----------------------------------------------------------------------------------------

    def read(self, value: Any) -> EmbeddingRequest:
        return validated(value, EmbeddingRequest)

    def populate_context(self, context: dict[str, Any], request: Any) -> None:
        context.update(request.model_dump(exclude={"input"}))
        context["num_inputs"] = len(request.ensure_list())

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        return request.input

    def checked(self, output: Any, context: Any = None) -> dict[str, Any]:
        vectors, usage = _parts(output)
        wanted = context["num_inputs"]
        if len(vectors) != wanted:
            raise _wrong(f"there are {len(vectors)} vectors for {wanted} inputs")
        packs = context["encoding_format"] == "base64"
        return {"embeddings": [packed(each) if packs else each for each in vectors], "usage": usage}

    # -- the server's side -----------------------------------------------------------------------------------------

    def sample_request(self) -> tuple[str, Any]:
        return self.api_path or EMBEDDINGS, {"model": self._name, "input": "Hello"}

    def error_items(self, fault: Fault, told: str) -> Mapping[str, Any]:
        return openai_error(fault, told)

    async def embeddings(self, request: Request) -> Response:
        """Make vectors."""
        style = ErrorStyle(self.server.exposes_errors, self.error_items)
        body = await body_of(request)
        try:
            value = read_json(body)
            asked = validated(value, EmbeddingRequest)
            return _Embeddings(self.server, self._calls(asked, value, body, request.scope), asked.model or self._name, style)
        except Fault as fault:
            self.server.refused(fault)
            return style.response(fault, request.scope)

    def _calls(self, asked: EmbeddingRequest, value: dict[str, Any], body: bytes, scope: Scope) -> list[SpecCall]:
        items = asked.ensure_list()
        if len(items) > MAX_ITEMS:
            raise Fault(422, "request.invalid", f"{len(items)} inputs are more than {MAX_ITEMS}: send them in several requests.")
        if self._max_batch_size == 1 or items == [asked.input]:
            return [SpecCall(body, "embeddings", scope)]
        return [SpecCall(write_json({**value, "input": item}), "embeddings", scope) for item in items]


@final
class _Embeddings(Work):
    """Vectors, once all of them are made."""

    def __init__(self, server: Submitter, calls: Sequence[SpecCall], model: str, style: ErrorStyle) -> None:
        super().__init__(style)
        self._server, self._calls, self._model = server, calls, model

    async def work(self, sender: Sender) -> None:
        parts = [_read(body) for body in await all_of(self._server, self._calls)]
        usage = {name: sum(part.usage.get(name, 0) for part in parts) for name in _COUNTS}
        vectors = [vector for part in parts for vector in part.embeddings]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        self._server.used(usage)
        await sender.write(write_json({"object": "list", "data": data, "model": self._model, "usage": usage}), is_last=True)


async def all_of(server: Submitter, calls: Sequence[SpecCall]) -> list[bytes]:
    """Return what calls that run side by side are answered.

    Args:
        server: Computes them.
        calls: Each for itself.

    Raises:
        Fault: The first error; the others are given up.
    """
    tasks = [asyncio.ensure_future(server.submit(call)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def packed(vector: Any) -> str:
    """Return a vector as OpenAI's clients read base64: 32-bit floats, the least significant byte first.

    Example:
        >>> packed([1.0, -2.0])
        'AACAPwAAAMA='
    """
    numbers = array.array("f", vector.tolist() if hasattr(vector, "tolist") else vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _parts(output: Any) -> tuple[list[Any], dict[str, int]]:
    """Return the vectors and the tokens of what the hooks made."""
    usage: Mapping[str, Any] = {}
    if isinstance(output, BaseModel):
        output = output.model_dump()
    if isinstance(output, Mapping):
        if "embeddings" not in output:
            raise _wrong(f"the dict has no key 'embeddings', only {list(output)}"[:200])
        nested = output.get("usage")
        usage = {**(nested if isinstance(nested, Mapping) else {}), **{name: output[name] for name in _COUNTS if name in output}}
        output = output["embeddings"]
    return _vectors(output), _counted(usage)


def _counted(usage: Mapping[str, Any]) -> dict[str, int]:
    prompt = int(usage.get("prompt_tokens") or 0)
    return {"prompt_tokens": prompt, "total_tokens": int(usage.get("total_tokens") or prompt)}


def _vectors(output: Any) -> list[Any]:
    if hasattr(output, "tolist") and hasattr(output, "ndim"):  # an array or a tensor
        output = output.tolist()
    if not isinstance(output, _LISTS) or not output:
        raise _wrong(f"there is {output!r:.80}, and no vector")
    return list(output) if hasattr(output[0], "__len__") else [output]


def _wrong(reason: str) -> Fault:
    return Fault(
        500,
        "worker.malformed_output",
        f"Malformed output from LitAPI.encode_response: {reason}. Return one vector for each input:\n{_SHAPE}",
        detail="Malformed output from LitAPI.encode_response",
    )
