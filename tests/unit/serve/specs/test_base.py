"""The seam of specs: endpoints on one side, hooks in the worker on the other, and nothing of a request in between."""

import asyncio
import pickle
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

import httpx
import pytest

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.serve.api import LitAPI
from leyden.serve.context import RequestContext
from leyden.serve.faults import Fault
from leyden.serve.hooks import Form, InputKind, plan_of
from leyden.serve.specs.adapted import adapted
from leyden.serve.specs.base import LitSpec, SpecCall, checked_spec
from tests.support.spec_server import SpecServer


class Shouting(LitSpec):
    """`{"text", "times"}` → the text, shouted."""

    def __init__(self) -> None:
        super().__init__()
        self.api_path = "/shout"
        self.add_endpoint("/shout", self.shout, ["POST"])

    async def shout(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"shouted": await self.submit(payload)}

    def populate_context(self, context: dict[str, Any], request: Any) -> None:
        context["times"] = request["times"]

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        return request["text"]

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        return output + "!" * context_kwargs["times"]


class Upper(LitAPI):
    def predict(self, x: Any) -> Any:
        return x.upper()


class OwnHooks(Upper):
    def decode_request(self, request: Any) -> Any:
        return request["text"][::-1]

    def encode_response(self, output: Any, context: Any) -> Any:
        return f"{output} {context['times']}"


async def posted(server: SpecServer, path: str, value: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app()), base_url="http://serve") as client:
        return await client.post(path, json=value)


@pytest.mark.parametrize(("api", "wanted"), [(Upper, "AB!!"), (OwnHooks, "BA 2")])
def test_the_hooks_of_a_spec_stand_in_for_those_that_an_api_has_not(api: type[LitAPI], wanted: str) -> None:
    with SpecServer(api(spec=Shouting())) as server:
        answers = asyncio.run(posted(server, "/shout", {"text": "ab", "times": 2}))
        assert answers.json() == {"shouted": wanted}
        assert server.calls == [SpecCall(b'{"text":"ab","times":2}')]


class Spelling(LitSpec):
    """A stream, read in one go."""

    def __init__(self) -> None:
        super().__init__()
        self.add_endpoint("/spell", self.spell, ["post"])

    @property
    def stream(self) -> bool:
        return True

    async def spell(self, payload: dict[str, Any]) -> list[Any]:
        return [item async for item in self.stream_items(payload)]

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        for letter in output:
            yield {"letter": letter, "of": context_kwargs.request_id}


class Letters(LitAPI):
    def predict(self, x: Any) -> Iterator[Any]:
        yield from x["text"]


class OwnLetters(Letters):
    def encode_response(self, output: Iterable[Any]) -> Iterator[Any]:
        yield from (letter + "?" for letter in output)


NAMED = [{"letter": letter, "of": "r-1"} for letter in "ab"]


@pytest.mark.parametrize(("api", "wanted"), [(Letters, NAMED), (OwnLetters, ["a?", "b?"])])
def test_items_of_a_stream_come_as_values(api: type[LitAPI], wanted: list[Any]) -> None:
    with SpecServer(api(spec=Spelling())) as server:
        assert asyncio.run(posted(server, "/spell", {"text": "ab"})).json() == wanted


def test_what_a_worker_refuses_is_raised_where_it_was_submitted() -> None:
    with SpecServer(Upper(spec=Shouting())) as server:

        async def refused() -> None:
            with pytest.raises(Fault, match="KeyError: 'times'") as caught:
                await server.spec.submit({"text": "ab"})
            assert caught.value.status == 422

        asyncio.run(refused())


def test_what_an_endpoint_lets_through_is_the_answer() -> None:
    with SpecServer(Upper(spec=Shouting())) as server:
        found = asyncio.run(posted(server, "/shout", {"text": "ab"}))
    assert (found.status_code, found.json()["code"]) == (422, "request.invalid")
    assert server.spec.error_items(Fault(422, "request.invalid", "a"), "a") == {}


def test_a_stream_that_is_left_is_closed() -> None:
    with SpecServer(Letters(spec=Spelling())) as server:

        async def left() -> None:
            items: AsyncGenerator[Any, None] = server.spec.stream_items({"text": "abc"})
            assert (await anext(items))["letter"] == "a"
            await items.aclose()

        asyncio.run(left())
        assert len(server.ended) == 1


# -- the worker's side --------------------------------------------------------------------------------------------


def test_an_api_without_a_spec_stays_as_it_is() -> None:
    api = Upper()
    plan = plan_of(api, LitAPI)
    assert adapted(api, plan) == (api, plan)


def test_all_but_the_hooks_is_the_users_object() -> None:
    api = Upper(spec=Shouting(), max_batch_size=3)
    hooks, plan = adapted(api, plan_of(api, LitAPI))
    assert hooks.predict.__self__ is api
    assert hooks.max_batch_size == 3
    assert plan.decode_request.form is Form.SYNC
    assert plan.input is InputKind.ANY
    with pytest.raises(AttributeError, match="nonsense"):
        hooks.nonsense  # noqa: B018 - the access is the test


class Waiting(LitAPI):
    async def decode_request(self, request: Any) -> Any:
        return request["text"]

    async def predict(self, x: Any) -> Any:
        return x.upper()


class HalfWaiting(LitAPI):
    def decode_request(self, request: Any, context: Any) -> Any:
        return request["text"] * context["times"]

    async def predict(self, x: Any) -> Any:
        return x.upper()

    async def encode_response(self, output: Any) -> Any:
        return output + "?"


@pytest.mark.parametrize(("api", "decoded", "encoded"), [(Waiting, "ab", "AB!!"), (HalfWaiting, "abab", "AB?")])
def test_async_hooks_are_awaited(api: type[LitAPI], decoded: str, encoded: str) -> None:
    made = api(spec=Shouting(), enable_async=True)
    hooks, plan = adapted(made, plan_of(made, LitAPI))
    assert plan.decode_request.form is plan.encode_response.form is Form.ASYNC

    async def both() -> None:
        context = RequestContext("a")
        assert await hooks.decode_request({"text": "ab", "times": 2}, context=context) == decoded
        assert await hooks.encode_response("AB", context=context) == encoded

    asyncio.run(both())


def test_a_spec_has_its_hooks_as_async_ones() -> None:
    async def both() -> None:
        hooks = Shouting().as_async()
        assert await hooks.decode_request({"text": "a"}) == "a"
        assert await hooks.encode_response("a", {"times": 1}) == "a!"

    asyncio.run(both())


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["request_queue", "response_buffer"])
def test_litserves_queues_name_what_is_there_instead(name: str) -> None:
    with pytest.raises(StateError, match=rf"{name} does not exist.*self\.submit.*self\.stream_items"):
        getattr(Shouting(), name)


def test_a_spec_without_a_server_says_so() -> None:
    with pytest.raises(StateError, match="Shouting belongs to no server yet"):
        Shouting().server  # noqa: B018 - the access is the test


def test_a_spec_travels_without_what_belongs_to_a_front_end() -> None:
    spec = Shouting()
    spec.add_endpoint("/more", lambda: None, ["GET"])
    spec.setup(object())  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(spec))
    assert copy.endpoints == []
    assert len(spec.endpoints) == 2
    with pytest.raises(StateError):
        copy.server  # noqa: B018 - the access is the test


@pytest.mark.parametrize(
    ("path", "methods", "message"),
    [("shout", ["POST"], "path must start with '/'"), ("/a", "POST", "methods='POST'"), ("/a", [], r"methods=\[\]")],
)
def test_endpoints_that_cannot_be(path: str, methods: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LitSpec().add_endpoint(path, print, methods)


class Unmade(LitSpec):
    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (Shouting, ConfigError, r"Shouting is a class: pass an object of it, spec=Shouting\(\)"),
        ("openai", ConfigTypeError, "spec='openai' is not accepted"),
        (Unmade(), ConfigError, r"does not call super\(\).__init__\(\)"),
    ],
)
def test_what_is_no_spec(spec: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        checked_spec(spec)


def test_a_spec_is_itself() -> None:
    spec = Shouting()
    assert checked_spec(spec) is spec


def test_an_api_may_stream_for_a_spec_that_does_not_say_so() -> None:
    api = Letters(stream=True)
    Shouting().pre_setup(api)
    assert (api.stream, api.api_path) == (True, "/shout")


class Formatting(Upper):
    def format_encoded_response(self, data: Any) -> Any:
        return data


def test_a_hook_that_nobody_calls_is_told() -> None:
    with pytest.warns(UserWarning, match="format_encoded_response.. is not called: Shouting"):
        Shouting().pre_setup(Formatting())
