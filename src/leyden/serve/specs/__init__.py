"""Protocols that clients know already: OpenAI's, and those of users. Nothing outside of this folder knows one of them."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.specs.base import LitSpec as LitSpec
    from leyden.serve.specs.openai.chat import OpenAISpec as OpenAISpec
    from leyden.serve.specs.openai.protocol import ChatCompletionChunk as ChatCompletionChunk
    from leyden.serve.specs.openai.protocol import ChatCompletionRequest as ChatCompletionRequest
    from leyden.serve.specs.openai.protocol import ChatCompletionResponse as ChatCompletionResponse
    from leyden.serve.specs.openai_embedding import EmbeddingRequest as EmbeddingRequest
    from leyden.serve.specs.openai_embedding import EmbeddingResponse as EmbeddingResponse
    from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec as OpenAIEmbeddingSpec
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "ChatCompletionChunk": ".openai.protocol",
            "ChatCompletionRequest": ".openai.protocol",
            "ChatCompletionResponse": ".openai.protocol",
            "EmbeddingRequest": ".openai_embedding",
            "EmbeddingResponse": ".openai_embedding",
            "LitSpec": ".base",
            "OpenAIEmbeddingSpec": ".openai_embedding",
            "OpenAISpec": ".openai.chat",
        },
    )
