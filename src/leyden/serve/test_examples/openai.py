"""APIs for `OpenAISpec`. What they need of the spec itself comes with it."""

from collections.abc import Iterator
from typing import Any

from leyden.serve.api import LitAPI


class TestAPI(LitAPI):
    """Answers any chat with one sentence: `TestAPI(spec=OpenAISpec())`.

    Example:
        >>> list(TestAPI(stream=True).predict([{"role": "user", "content": "hi"}]))
        ['This is a generated output']
    """

    __test__ = False  # pytest: a name of the documented API, no tests

    def predict(self, x: Any, **kwargs: Any) -> Iterator[str]:
        yield "This is a generated output"
