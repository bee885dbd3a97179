"""`OpenAISpec`: any `LitAPI` whose `predict` yields answers as OpenAI's clients know them."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, final

from starlette.requests import Request
from starlette.responses import Response

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.api import LitAPI
from leyden.serve.codec import read_json, write_json
from leyden.serve.faults import Fault
from leyden.serve.hooks import form_of
from leyden.serve.specs.answers import ErrorStyle, body_of, json_response, options_of
from leyden.serve.specs.base import LitSpec
from leyden.serve.specs.openai.choices import ChatChoice, Choice, Head, TextChoice
from leyden.serve.specs.openai.completions import calls_of, prompts_of
from leyden.serve.specs.openai.models import Models
from leyden.serve.specs.openai.pieces import write_piece
from leyden.serve.specs.openai.protocol import MAX_CHOICES, ChatCompletionRequest, CompletionRequest
from leyden.serve.specs.openai.response import OpenAIResponse, Plan, openai_error
from leyden.serve.typed import validated

CHAT = "/v1/chat/completions"
_END = "/chat/completions"  # of a path whose beginning is what clients call their base URL
_SHAPES = {
    "predict": """
    async def predict(self, messages):
        yield "Hello"
""",
    "encode_response": """
    async def encode_response(self, outputs):
        async for output in outputs:
            yield {"role": "assistant", "content": output}
""",
}


@final
class OpenAISpec(LitSpec):
    """Answers `/v1/chat/completions`, `/v1/completions` and `/v1/models`: `LitAPI(spec=OpenAISpec())`.

    `predict` gets the messages of a chat as a list of dicts, or the prompt of a completion, and yields text, or dicts such as
    `{"role": "assistant", "content": "…", "tool_calls": […], "finish_reason": "stop", "usage": {…}}`. All else that a client
    sends is in `context`.

    Several of them in one server have paths of their own: `LitAPI(spec=OpenAISpec(), api_path="/small/v1/chat/completions")` is
    for clients with `base_url="http://…/small/v1"`. A path with another end answers chats alone.

    Args:
        models: The names of the models; then requests for others are refused. By default one with the name of the API's class,
            and a client may ask for any name.

    Example:
        >>> [endpoint.path for endpoint in OpenAISpec().endpoints if "POST" in endpoint.methods]
        ['/v1/chat/completions', '/v1/completions']
    """

    def __init__(self, models: Sequence[str] | None = None) -> None:
        super().__init__()
        if isinstance(models, str) or (models is not None and not models):
            raise ConfigTypeError(f"models={models!r} is not accepted: it takes a list of names, such as ['tiny'], or None.")
        self._models = Models(models or ["LitAPI"], int(time.time()), is_strict=models is not None)
        self._names_are_given = models is not None
        self.api_path = CHAT
        self._add_endpoints()

    @property
    def stream(self) -> bool:
        return True

    def _add_endpoints(self) -> None:
        self._endpoints.clear()
        chat = self.api_path or CHAT
        base = chat.removesuffix(_END)
        routes: list[tuple[str, Any, str, Any]] = [(chat, self.chat_completion, "POST", ChatCompletionRequest)]
        if base != chat:
            routes += [
                (f"{base}/completions", self.completion, "POST", CompletionRequest),
                (f"{base}/models", self.models, "GET", None),
                (f"{base}/models/{{name:path}}", self.model, "GET", None),
            ]
        for path, endpoint, method, kind in routes:
            self.add_endpoint(path, endpoint, [method], request_type=kind)
            self.add_endpoint(path, options_of(method), ["OPTIONS"])

    def pre_setup(self, lit_api: Any) -> None:
        if self._take_path(lit_api.api_path, CHAT):
            self._add_endpoints()
        if not self._names_are_given:
            self._models = Models([type(lit_api).__name__], int(time.time()))
        super().pre_setup(lit_api)
        if lit_api.loop is None:
            self._check("predict", lit_api)
        if type(lit_api).encode_response is not LitAPI.encode_response:
            self._check("encode_response", lit_api)

    def _check(self, name: str, lit_api: Any) -> None:
        form = form_of(getattr(lit_api, name))
        if form.yields:
            return
        shape = _SHAPES[name].replace("async ", "async " if lit_api.enable_async else "")
        raise ConfigError(f"{name}() is {form.value}, and OpenAISpec needs a generator, sync or async:\n\n{shape}")

    # -- the worker's side -----------------------------------------------------------------------------------------

    def read(self, value: Any) -> ChatCompletionRequest | CompletionRequest:
        is_completion = isinstance(value, dict) and "prompt" in value and "messages" not in value
        return validated(value, CompletionRequest if is_completion else ChatCompletionRequest)

    def populate_context(self, context: dict[str, Any], request: Any) -> None:
        context.update(request.settings())

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        if isinstance(request, CompletionRequest):
            return request.prompt
        return [message.model_dump(exclude_none=True) for message in request.messages]

    def checked(self, output: Any, context: Any = None) -> bytes:
        return write_piece(output)

    # -- the server's side -----------------------------------------------------------------------------------------

    async def chat_completion(self, request: Request) -> Response:
        """Answer a chat."""
        return await self._answer(request, self._chat_plan)

    async def completion(self, request: Request) -> Response:
        """Complete prompts."""
        return await self._answer(request, self._completion_plan)

    async def models(self, request: Request) -> Response:
        """Return which models there are."""
        return json_response(self._models.list())

    async def model(self, name: str, request: Request) -> Response:
        """Return one model."""
        try:
            return json_response(self._models.one(name))
        except Fault as fault:
            return self.style.response(fault, request.scope)

    def sample_request(self) -> tuple[str, Any]:
        messages = [{"role": "user", "content": "Hello"}]
        return self.api_path or CHAT, {"model": self._models.names[0], "messages": messages, "max_tokens": 8}

    def error_items(self, fault: Fault, told: str) -> Mapping[str, Any]:
        return openai_error(fault, told)

    @property
    def style(self) -> ErrorStyle:
        """How errors are told."""
        return ErrorStyle(self.server.exposes_errors, self.error_items)

    async def _answer(self, request: Request, plan_of: Any) -> Response:
        body = await body_of(request)
        try:
            return OpenAIResponse(self.server, plan_of(body, request.scope), self.style)
        except Fault as fault:
            self.server.refused(fault)
            return self.style.response(fault, request.scope)

    def _chat_plan(self, body: bytes, scope: Mapping[str, Any]) -> Plan:
        value = read_json(body)
        asked = validated(value, ChatCompletionRequest)
        return self._plan(asked, calls_of(asked, body, [value], scope), ChatChoice)

    def _completion_plan(self, body: bytes, scope: Mapping[str, Any]) -> Plan:
        value = read_json(body)
        asked = validated(value, CompletionRequest)
        prompts = prompts_of(asked.prompt)
        if len(prompts) * (asked.n or 1) > MAX_CHOICES:
            raise Fault(422, "request.invalid", f"{len(prompts)} prompts with n={asked.n} are more than {MAX_CHOICES} completions.")
        if prompts != [asked.prompt]:  # also a list of one: predict gets one prompt
            values = [{**value, "prompt": prompt} for prompt in prompts]
            calls = calls_of(asked, write_json(values[0]), values, scope)
        else:
            calls = calls_of(asked, body, [value], scope)
        return self._plan(asked, calls, TextChoice)._replace(num_prompts=len(prompts))

    def _plan(self, asked: ChatCompletionRequest | CompletionRequest, calls: Any, kind: type[Choice]) -> Plan:
        prefix = "chatcmpl" if kind is ChatChoice else "cmpl"
        head = Head(f"{prefix}-{os.urandom(12).hex()}", int(time.time()), self._models.checked(asked.model))
        choices = [kind(place, head, asked.max_completion) for place in range(len(calls))]
        options = asked.stream_options
        include_usage = None if options is None else options.include_usage
        return Plan(calls, choices, head, is_stream=bool(asked.stream), include_usage=include_usage)
