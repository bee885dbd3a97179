"""APIs for `OpenAIEmbeddingSpec`: `TestEmbedAPI(spec=OpenAIEmbeddingSpec())`. Their vectors say how long a text is."""

from collections.abc import Sequence
from typing import Any

from leyden.serve.api import LitAPI

WIDTH = 4


def _vector(text: Any) -> list[float]:
    return [float(len(text) + place) for place in range(WIDTH)]


class TestEmbedAPI(LitAPI):
    """One vector for a text, a list of them for a list.

    Example:
        >>> TestEmbedAPI().predict(["a", "bc"])
        [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]
    """

    __test__ = False  # pytest: a name of the documented API, no tests

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return [_vector(text) for text in ([x] if isinstance(x, str) else x)]

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"embeddings": output}


class TestEmbedAPIWithUsage(TestEmbedAPI):
    """Counts tokens, too.

    Example:
        >>> TestEmbedAPIWithUsage().encode_response([[1.0]])["total_tokens"]
        10
    """

    def encode_response(self, output: Any, **kwargs: Any) -> Any:
        return {"embeddings": output, "prompt_tokens": 10, "total_tokens": 10}


class TestEmbedBatchedAPI(TestEmbedAPI):
    """One vector for each text of a batch: `TestEmbedBatchedAPI(max_batch_size=8, …)`.

    Example:
        >>> TestEmbedBatchedAPI().predict(["a", "bc"])
        [[[1.0, 2.0, 3.0, 4.0]], [[2.0, 3.0, 4.0, 5.0]]]
    """

    def batch(self, inputs: Sequence[Any]) -> Any:
        return inputs

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return [[_vector(text)] for text in x]
