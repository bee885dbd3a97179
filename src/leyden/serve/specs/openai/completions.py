"""`/v1/completions`: each prompt of a request becomes calls of its own, and so does each of its `n` completions.

The same is done for chats, which have one prompt: `calls_of` is for both.
"""

from collections.abc import Sequence
from typing import Any

from leyden.serve.codec import write_json
from leyden.serve.specs.base import Scope, SpecCall
from leyden.serve.specs.openai.protocol import ChatCompletionRequest, CompletionRequest


def prompts_of(prompt: Any) -> list[Any]:
    """Return the prompts of a request: texts, or lists of tokens.

    Example:
        >>> prompts_of("a"), prompts_of(["a", "b"]), prompts_of([1, 2]), prompts_of([[1], [2]])
        (['a'], ['a', 'b'], [[1, 2]], [[1], [2]])
    """
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return prompt
    return [prompt]


def calls_of(
    asked: ChatCompletionRequest | CompletionRequest, body: bytes, values: Sequence[dict[str, Any]], scope: Scope
) -> list[SpecCall]:
    """Return one call for each choice of a request.

    Args:
        asked: The request.
        body: What goes on if there is but one choice: the bytes that came, where nothing is to be changed.
        values: What JSON the request is for each prompt.
        scope: ASGI's.
    """
    endpoint = "completions" if isinstance(asked, CompletionRequest) else "chat"
    count, seed = asked.n or 1, asked.seed
    if count == len(values) == 1:
        return [SpecCall(body, endpoint, scope)]
    # Choices of one prompt with one seed would all be the same: each has the next one.
    return [
        SpecCall(write_json(value if seed is None else {**value, "seed": seed + place}), endpoint, scope)
        for value in values
        for place in range(count)
    ]
