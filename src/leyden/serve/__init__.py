"""Any model as a fast, well-behaved HTTP service. Names are loaded when they are used."""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from fastapi import Request as Request
    from fastapi import Response as Response

    from leyden.core.autoscale import AutoscalePolicy as AutoscalePolicy
    from leyden.core.autoscale import AutoscaleState as AutoscaleState
    from leyden.core.autoscale import LoadSample as LoadSample
    from leyden.core.autoscale import desired_replicas as desired_replicas
    from leyden.serve import test_examples as test_examples
    from leyden.serve.api import LitAPI as LitAPI
    from leyden.serve.callbacks.callback import Callback as Callback
    from leyden.serve.client.aio import AsyncClient as AsyncClient
    from leyden.serve.client.sync import Client as Client
    from leyden.serve.debugging import set_trace as set_trace
    from leyden.serve.debugging import set_trace_if_debug as set_trace_if_debug
    from leyden.serve.loggers import Logger as Logger
    from leyden.serve.logging import configure_logging as configure_logging
    from leyden.serve.server import LitServer as LitServer
    from leyden.serve.specs.base import LitSpec as LitSpec
    from leyden.serve.specs.openai.chat import OpenAISpec as OpenAISpec
    from leyden.serve.specs.openai_embedding import OpenAIEmbeddingSpec as OpenAIEmbeddingSpec
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "AsyncClient": "leyden.serve.client.aio",
            "AutoscalePolicy": "leyden.core.autoscale",
            "AutoscaleState": "leyden.core.autoscale",
            "Callback": "leyden.serve.callbacks.callback",
            "Client": "leyden.serve.client.sync",
            "LitAPI": "leyden.serve.api",
            "LitServer": "leyden.serve.server",
            "LitSpec": "leyden.serve.specs.base",
            "LoadSample": "leyden.core.autoscale",
            "Logger": "leyden.serve.loggers",
            "OpenAIEmbeddingSpec": "leyden.serve.specs.openai_embedding",
            "OpenAISpec": "leyden.serve.specs.openai.chat",
            "Request": "fastapi",
            "Response": "fastapi",
            "configure_logging": "leyden.serve.logging",
            "desired_replicas": "leyden.core.autoscale",
            "set_trace": "leyden.serve.debugging",
            "set_trace_if_debug": "leyden.serve.debugging",
            "test_examples": "leyden.serve.test_examples",
        },
    )
