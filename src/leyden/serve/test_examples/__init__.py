"""Small APIs to try a server with: their models are one line, so what is left is the server.

```python
from leyden.serve.test_examples.simple import SimpleLitAPI
```
"""

from typing import TYPE_CHECKING

from leyden.core.lazy import exports

if TYPE_CHECKING:
    from leyden.serve.test_examples.openai import OpenAIBatchContext as OpenAIBatchContext
    from leyden.serve.test_examples.openai import OpenAIWithUsage as OpenAIWithUsage
    from leyden.serve.test_examples.openai import TestAPI as TestAPI
    from leyden.serve.test_examples.openai import TestAPIWithCustomEncode as TestAPIWithCustomEncode
    from leyden.serve.test_examples.openai import TestAPIWithStructuredOutput as TestAPIWithStructuredOutput
    from leyden.serve.test_examples.openai import TestAPIWithToolCalls as TestAPIWithToolCalls
    from leyden.serve.test_examples.openai_embedding import TestEmbedAPI as TestEmbedAPI
    from leyden.serve.test_examples.openai_embedding import TestEmbedAPIWithUsage as TestEmbedAPIWithUsage
    from leyden.serve.test_examples.openai_embedding import TestEmbedBatchedAPI as TestEmbedBatchedAPI
    from leyden.serve.test_examples.simple import SimpleBatchedAPI as SimpleBatchedAPI
    from leyden.serve.test_examples.simple import SimpleLitAPI as SimpleLitAPI
    from leyden.serve.test_examples.simple import SimpleStreamAPI as SimpleStreamAPI
    from leyden.serve.test_examples.simple import SimpleTorchAPI as SimpleTorchAPI
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "OpenAIBatchContext": ".openai",
            "OpenAIWithUsage": ".openai",
            "SimpleBatchedAPI": ".simple",
            "SimpleLitAPI": ".simple",
            "SimpleStreamAPI": ".simple",
            "SimpleTorchAPI": ".simple",
            "TestAPI": ".openai",
            "TestAPIWithCustomEncode": ".openai",
            "TestAPIWithStructuredOutput": ".openai",
            "TestAPIWithToolCalls": ".openai",
            "TestEmbedAPI": ".openai_embedding",
            "TestEmbedAPIWithUsage": ".openai_embedding",
            "TestEmbedBatchedAPI": ".openai_embedding",
        },
    )
