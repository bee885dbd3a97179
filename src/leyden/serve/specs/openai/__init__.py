"""OpenAI's protocol: chats, completions, models; and the classes of its requests and answers.

```python
from leyden.serve.specs.openai import ChatCompletionRequest, OpenAISpec
```
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.specs.openai.chat import OpenAISpec as OpenAISpec
    from leyden.serve.specs.openai.protocol import AudioContent as AudioContent
    from leyden.serve.specs.openai.protocol import ChatCompletionChunk as ChatCompletionChunk
    from leyden.serve.specs.openai.protocol import ChatCompletionRequest as ChatCompletionRequest
    from leyden.serve.specs.openai.protocol import ChatCompletionResponse as ChatCompletionResponse
    from leyden.serve.specs.openai.protocol import ChatCompletionResponseChoice as ChatCompletionResponseChoice
    from leyden.serve.specs.openai.protocol import ChatCompletionStreamingChoice as ChatCompletionStreamingChoice
    from leyden.serve.specs.openai.protocol import ChatMessage as ChatMessage
    from leyden.serve.specs.openai.protocol import ChatMessageWithUsage as ChatMessageWithUsage
    from leyden.serve.specs.openai.protocol import ChoiceDelta as ChoiceDelta
    from leyden.serve.specs.openai.protocol import CompletionChoice as CompletionChoice
    from leyden.serve.specs.openai.protocol import CompletionRequest as CompletionRequest
    from leyden.serve.specs.openai.protocol import CompletionResponse as CompletionResponse
    from leyden.serve.specs.openai.protocol import Content as Content
    from leyden.serve.specs.openai.protocol import Function as Function
    from leyden.serve.specs.openai.protocol import FunctionCall as FunctionCall
    from leyden.serve.specs.openai.protocol import ImageContent as ImageContent
    from leyden.serve.specs.openai.protocol import ImageContentURL as ImageContentURL
    from leyden.serve.specs.openai.protocol import InputAudio as InputAudio
    from leyden.serve.specs.openai.protocol import JSONSchema as JSONSchema
    from leyden.serve.specs.openai.protocol import Model as Model
    from leyden.serve.specs.openai.protocol import ModelList as ModelList
    from leyden.serve.specs.openai.protocol import NamedFunction as NamedFunction
    from leyden.serve.specs.openai.protocol import NamedToolChoice as NamedToolChoice
    from leyden.serve.specs.openai.protocol import OtherContent as OtherContent
    from leyden.serve.specs.openai.protocol import ResponseFormat as ResponseFormat
    from leyden.serve.specs.openai.protocol import ResponseFormatJSONObject as ResponseFormatJSONObject
    from leyden.serve.specs.openai.protocol import ResponseFormatJSONSchema as ResponseFormatJSONSchema
    from leyden.serve.specs.openai.protocol import ResponseFormatText as ResponseFormatText
    from leyden.serve.specs.openai.protocol import Role as Role
    from leyden.serve.specs.openai.protocol import StreamOptions as StreamOptions
    from leyden.serve.specs.openai.protocol import TextContent as TextContent
    from leyden.serve.specs.openai.protocol import Tool as Tool
    from leyden.serve.specs.openai.protocol import ToolCall as ToolCall
    from leyden.serve.specs.openai.protocol import ToolChoice as ToolChoice
    from leyden.serve.specs.openai.protocol import UsageInfo as UsageInfo
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AudioContent": ".protocol",
            "ChatCompletionChunk": ".protocol",
            "ChatCompletionRequest": ".protocol",
            "ChatCompletionResponse": ".protocol",
            "ChatCompletionResponseChoice": ".protocol",
            "ChatCompletionStreamingChoice": ".protocol",
            "ChatMessage": ".protocol",
            "ChatMessageWithUsage": ".protocol",
            "ChoiceDelta": ".protocol",
            "CompletionChoice": ".protocol",
            "CompletionRequest": ".protocol",
            "CompletionResponse": ".protocol",
            "Content": ".protocol",
            "Function": ".protocol",
            "FunctionCall": ".protocol",
            "ImageContent": ".protocol",
            "ImageContentURL": ".protocol",
            "InputAudio": ".protocol",
            "JSONSchema": ".protocol",
            "Model": ".protocol",
            "ModelList": ".protocol",
            "NamedFunction": ".protocol",
            "NamedToolChoice": ".protocol",
            "OpenAISpec": ".chat",
            "OtherContent": ".protocol",
            "ResponseFormat": ".protocol",
            "ResponseFormatJSONObject": ".protocol",
            "ResponseFormatJSONSchema": ".protocol",
            "ResponseFormatText": ".protocol",
            "Role": ".protocol",
            "StreamOptions": ".protocol",
            "TextContent": ".protocol",
            "Tool": ".protocol",
            "ToolCall": ".protocol",
            "ToolChoice": ".protocol",
            "UsageInfo": ".protocol",
        },
    )
