"""Around a user's hooks: which of them are called, and that a worker without a spec pays nothing for specs."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from leyden.serve.api import LitAPI
from leyden.serve.hooks import Form, plan_of
from leyden.serve.specs.adapted import adapted
from leyden.serve.specs.base import LitSpec


class Counting(LitSpec):
    """A spec of streams with an encoder of its own."""

    @property
    def stream(self) -> bool:
        return True

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Iterator[Any]:
        for each in output:
            yield {"n": each}


class Plain(LitSpec):
    """A spec of streams without one."""

    @property
    def stream(self) -> bool:
        return True


class Numbers(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield from range(x)


class AsyncNumbers(LitAPI):
    async def predict(self, x: Any) -> AsyncIterator[Any]:
        for number in range(x):
            yield number


class Own(Numbers):
    def encode_response(self, output: Any) -> Iterator[Any]:
        yield from output


@pytest.mark.parametrize(
    ("api", "spec", "form", "is_own"),
    [(Numbers, Counting, Form.GENERATOR, True), (Numbers, Plain, Form.SYNC, False), (Own, Counting, Form.GENERATOR, True)],
)
def test_streams_are_encoded_by_the_user_or_the_spec_or_nobody(api: type[LitAPI], spec: type[LitSpec], form: Form, is_own: bool) -> None:
    made = api(spec=spec(), stream=True)
    hooks, plan = adapted(made, plan_of(made, LitAPI))
    assert (plan.encode_response.form, plan.encode_response.is_own) == (form, is_own)
    assert plan.encode_response.wants_context is (spec is Counting and api is Numbers)
    if is_own:
        more = {"context": {}} if plan.encode_response.wants_context else {}
        found = list(hooks.encode_response(iter([1, 2]), **more))
        assert found == ([1, 2] if api is Own else [{"n": 1}, {"n": 2}])


def test_pieces_are_lines_of_json_whatever_they_are() -> None:
    made = Numbers(spec=Plain(), stream=True)
    hooks, _ = adapted(made, plan_of(made, LitAPI))
    assert [hooks.format_encoded_response(piece) for piece in (1, "a\n", {"b": None})] == [b"1\n", b'"a\\n"\n', b'{"b":null}\n']


def test_async_streams_keep_their_encoder() -> None:
    made = AsyncNumbers(spec=Counting(), stream=True, enable_async=True)
    hooks, plan = adapted(made, plan_of(made, LitAPI))
    assert plan.decode_request.form is Form.ASYNC
    assert plan.encode_response.form is Form.GENERATOR
    assert list(hooks.encode_response(iter([1]), context={})) == [{"n": 1}]


def test_a_worker_without_a_spec_loads_none() -> None:
    heavy = ("pydantic", "starlette", "fastapi", "msgspec")
    code = f"import sys; import leyden.serve.specs.adapted; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
