"""APIs for `OpenAISpec`: `TestAPI(spec=OpenAISpec())`. What they yield is what `predict` and `encode_response` may yield."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from leyden.serve.api import LitAPI

_SENTENCE = "This is a generated output"


class TestAPI(LitAPI):
    """Answers any chat with one sentence.

    Example:
        >>> list(TestAPI(stream=True).predict([{"role": "user", "content": "hi"}]))
        ['This is a generated output']
    """

    __test__ = False  # pytest: a name of the documented API, no tests

    def predict(self, x: Any, **kwargs: Any) -> Iterator[Any]:
        yield _SENTENCE


class TestAPIWithCustomEncode(TestAPI):
    """Answers with a message of its own.

    Example:
        >>> list(TestAPIWithCustomEncode().encode_response(["text"]))
        [{'role': 'assistant', 'content': 'This is a custom encoded output'}]
    """

    def encode_response(self, output: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        for _ in output:
            yield {"role": "assistant", "content": "This is a custom encoded output"}


class TestAPIWithStructuredOutput(TestAPI):
    """Answers with JSON, as a `response_format` asks for it.

    Example:
        >>> [message["content"] for message in TestAPIWithStructuredOutput().encode_response(["text"])]
        ['{"name": "Science Fair", "date": "Friday", "participants": ["Alice", "Bob"]}']
    """

    def encode_response(self, output: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        for _ in output:
            yield {"role": "assistant", "content": '{"name": "Science Fair", "date": "Friday", "participants": ["Alice", "Bob"]}'}


class TestAPIWithToolCalls(TestAPI):
    """Calls a function.

    Example:
        >>> [message["tool_calls"][0]["id"] for message in TestAPIWithToolCalls().encode_response(["text"])]
        ['call_1']
    """

    def encode_response(self, output: Iterable[Any], **kwargs: Any) -> Iterator[Any]:
        function = {"name": "function_1", "arguments": '{"arg_1": "arg_1_value"}'}
        for _ in output:
            yield {"role": "assistant", "content": _SENTENCE, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}


class OpenAIWithUsage(TestAPI):
    """Counts tokens.

    Example:
        >>> [message["total_tokens"] for message in OpenAIWithUsage().predict([])]
        [35]
    """

    def predict(self, x: Any, **kwargs: Any) -> Iterator[Any]:
        yield {"role": "assistant", "content": _SENTENCE, "prompt_tokens": 25, "completion_tokens": 10, "total_tokens": 35}


class OpenAIBatchContext(TestAPI):
    """Answers batches, word by word, and says how warm each was asked to be: `OpenAIBatchContext(max_batch_size=2, …)`.

    Example:
        >>> contexts = [{"temperature": 0.0}, {"temperature": 1.0}]
        >>> list(OpenAIBatchContext().predict(["a", "b"], contexts))[-1]
        ['0.0', '1.0']
    """

    def batch(self, inputs: Sequence[Any]) -> Any:
        return inputs

    def predict(self, x: Any, context: Any) -> Iterator[Any]:  # type: ignore[override]
        for word in ("Hi! ", "It's ", "me. "):
            yield [word] * len(x)
        yield [f"{each['temperature']:.1f}" for each in context]

    def unbatch(self, output: Iterable[Any]) -> Iterator[Any]:
        yield from output

    def encode_response(self, output: Iterable[Any], context: Any) -> Iterator[Any]:  # type: ignore[override]
        for words in output:
            yield [{"role": "assistant", "content": word} for word in words]
