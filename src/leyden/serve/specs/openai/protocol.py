"""What OpenAI's clients send and get: `ChatCompletionRequest`, `CompletionRequest`, `ChatCompletionResponse`.

Fields that are not listed are kept: clients send what one of many servers knows. Requests are validated with these classes;
answers are written by `choices.py`, which builds no objects for a chunk.

Follows https://platform.openai.com/docs/api-reference/chat and `/completions`.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CHOICES = 128
Tokens = Annotated[list[int], Field(min_length=1)]


class _Open(BaseModel):
    """Keeps fields that it does not list."""

    model_config = ConfigDict(extra="allow")


class Role(StrEnum):
    """Who says a message."""

    system = "system"
    developer = "developer"
    user = "user"
    assistant = "assistant"
    tool = "tool"
    function = "function"


class UsageInfo(_Open):
    """Tokens, counted."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    total_tokens: int = 0


# -- tools --------------------------------------------------------------------------------------------------------


class Function(_Open):
    """A function that a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Open):
    """Something that a model may use."""

    type: str = "function"
    function: Function


class ToolChoice(StrEnum):
    """Whether a model is to use tools."""

    auto = "auto"
    none = "none"
    required = "required"
    any = "any"


class NamedFunction(_Open):
    """The name of a function."""

    name: str


class NamedToolChoice(_Open):
    """The one function that a model is to call."""

    type: Literal["function"] = "function"
    function: NamedFunction


class FunctionCall(_Open):
    """A call of a function; in a chunk a part of one."""

    name: str | None = None
    arguments: str = ""


class ToolCall(_Open):
    """A call of a tool; in a chunk a part of one."""

    id: str | None = None
    type: str = "function"
    function: FunctionCall
    index: int | None = None


# -- what is to come out ------------------------------------------------------------------------------------------


class ResponseFormatText(_Open):
    """Any text."""

    type: Literal["text"]


class ResponseFormatJSONObject(_Open):
    """Any JSON object."""

    type: Literal["json_object"]


class JSONSchema(_Open):
    """A schema, by `schema`, and its name."""

    name: str
    description: str | None = None
    schema_def: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = False

    model_config = ConfigDict(extra="allow", populate_by_name=True, serialize_by_alias=True)


class ResponseFormatJSONSchema(_Open):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat = Annotated[
    ResponseFormatText | ResponseFormatJSONObject | ResponseFormatJSONSchema,
    Field(discriminator="type"),
]


# -- messages -----------------------------------------------------------------------------------------------------


class TextContent(_Open):
    """A text in a message."""

    type: Literal["text"]
    text: str


class ImageContentURL(_Open):
    """An image, at a URL or in it (`data:image/png;base64,…`)."""

    url: str
    detail: str | None = None


class ImageContent(_Open):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageContentURL | str


class InputAudio(_Open):
    """A recording, as base64."""

    data: str
    format: str


class AudioContent(_Open):
    """A recording in a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class OtherContent(_Open):
    """A part of a message that is of no kind listed here."""

    type: str


Content = TextContent | ImageContent | AudioContent | OtherContent


class ChatMessage(_Open):
    """A message."""

    role: Role
    content: str | list[Content] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class ChatMessageWithUsage(ChatMessage, UsageInfo):
    """A message, and the tokens that it took: what `encode_response` may yield."""


class ChoiceDelta(_Open):
    """What a chunk adds to a message."""

    role: Role | None = None
    content: str | None = None
    tool_calls: list[ToolCall] | None = None


# -- requests -----------------------------------------------------------------------------------------------------


class StreamOptions(_Open):
    """What a stream tells beside its text."""

    include_usage: bool | None = None


class _Sampling(_Open):
    """What both kinds of requests have."""

    model: str = ""
    temperature: float | None = Field(0.7, ge=0, le=2)
    top_p: float | None = Field(1.0, ge=0, le=1)
    n: int | None = Field(1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=0)
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(0.0, ge=-2, le=2)
    frequency_penalty: float | None = Field(0.0, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None

    @property
    def max_completion(self) -> int | None:
        """How many tokens a choice may have; `None` if that is not said."""
        return self.max_tokens

    def settings(self) -> dict[str, Any]:
        """Return all but what is to be answered: what was not said, or said as null, is the default."""
        said = self.model_dump(exclude={"messages", "prompt"})
        fields = type(self).model_fields
        return {name: fields[name].default if value is None and name in fields else value for name, value in said.items()}


class ChatCompletionRequest(_Sampling):
    """What `/v1/chat/completions` takes."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | NamedToolChoice | None = ToolChoice.auto
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None

    @property
    def max_completion(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(_Sampling):
    """What `/v1/completions` takes."""

    prompt: str | Annotated[list[str] | list[int] | list[Tokens], Field(min_length=1)]
    logprobs: int | None = Field(None, ge=0)
    echo: bool | None = False
    suffix: str | None = None
    best_of: int | None = None

    @property
    def messages(self) -> list[ChatMessage]:
        """The prompt as a chat, for a `decode_request` that reads chats.

        Raises:
            ValueError: It is tokens, which the client wrote for another model: its mistake.
        """
        texts = [self.prompt] if isinstance(self.prompt, str) else [text for text in self.prompt if isinstance(text, str)]
        if not texts:
            raise ValueError("prompt has tokens, and this model reads messages: send text")
        return [ChatMessage(role=Role.user, content=text) for text in texts]


# -- answers ------------------------------------------------------------------------------------------------------


class ChatCompletionResponseChoice(_Open):
    """One answer of several."""

    index: int
    message: ChatMessage
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletionResponse(_Open):
    """What `/v1/chat/completions` answers."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo | None = None


class ChatCompletionStreamingChoice(_Open):
    """A part of one answer of several."""

    index: int
    delta: ChoiceDelta
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletionChunk(_Open):
    """A part of what `/v1/chat/completions` answers as a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatCompletionStreamingChoice]
    usage: UsageInfo | None = None


class CompletionChoice(_Open):
    """One completion of several, or a part of one."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class CompletionResponse(_Open):
    """What `/v1/completions` answers, at once or in parts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageInfo | None = None


class Model(_Open):
    """A model that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(_Open):
    """What `/v1/models` answers."""

    object: Literal["list"] = "list"
    data: list[Model]
