"""Loggers: how they are given, how they get into another process, how they are called, and where values go."""

import json
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.serve.api import LitAPI
from leyden.serve.engines.base import Logged
from leyden.serve.fronts import log_frame
from leyden.serve.log_routes import LogRoutes
from leyden.serve.log_values import pack
from leyden.serve.logger_process import LoggerProcess
from leyden.serve.loggers import Logger, LoggerCalls, loggers_of, packed, unpacked
from leyden.serve.server import LitServer
from leyden.serve.wire import Decoder
from tests.support.serve_apis import Square
from tests.support.serve_loggers import Anew, Broken, Noting, Unmakeable


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


class Kept(Logger):
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen = list[Any]()

    def process(self, key: str, value: Any) -> None:
        self.seen.append((key, value))
        if isinstance(value, list):
            value.append("mine")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.seen.append("closed")
        if self.error is not None:
            raise self.error


def test_one_several_or_none() -> None:
    one, other = Kept(), Kept()
    assert [loggers_of(given) for given in (None, [], one, [one, other], (other,))] == [(), (), (one,), (one, other), (other,)]


@pytest.mark.parametrize(
    ("given", "told"),
    [(Kept, "pass an object, Kept()"), ([print], "takes objects of Logger"), (5, "takes objects of Logger"), ("wandb", "takes objects")],
)
def test_what_is_no_logger_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ConfigTypeError) as raised:
        LitServer(Square(), accelerator="cpu", loggers=given)
    assert told in str(raised.value)


def test_a_logger_needs_a_process_method() -> None:
    class Nothing(Logger):
        pass

    with pytest.raises(TypeError, match="process"):
        Nothing()  # type: ignore[abstract]


def test_an_app_is_mounted_at_a_path() -> None:
    logger = Kept()
    assert logger.mounted is None, "without super().__init__()"
    logger.mount("/numbers/", app)
    assert logger.mounted == ("/numbers", app)
    with pytest.raises(ConfigError, match=r"must start with '/'. Pass path='/numbers'"):
        logger.mount("numbers", app)
    with pytest.raises(ConfigTypeError, match="is no ASGI app"):
        logger.mount("/numbers", "app")


@pytest.mark.parametrize("path", ["/predict", "/info", "/health/live", "/docs", "/"])
def test_an_app_cannot_be_where_something_else_answers(path: str) -> None:
    logger = Kept()
    logger.mount(path, app)
    with pytest.raises(ConfigError, match=r"Kept cannot mount its app at .*Mount it at another path"):
        LitServer(Square(), accelerator="cpu", loggers=logger)


def test_two_different_apps_cannot_be_at_one_path() -> None:
    one, same, other = Kept(), Kept(), Kept()
    one.mount("/metrics", app)
    same.mount("/metrics", app)
    other.mount("/metrics", lambda: None)
    assert loggers_of([one, same]) == (one, same)
    with pytest.raises(ConfigError, match="two loggers mount different apps at '/metrics'"):
        loggers_of([one, other])


# -- into the other process -----------------------------------------------------------------------------------------


def test_loggers_travel_as_pickles_or_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEW_FILE", "first.log")
    data = packed([Noting("here.log"), Anew()])
    monkeypatch.setenv("ANEW_FILE", "second.log")
    noting, anew = unpacked(data)
    assert isinstance(noting, Noting)
    assert noting.file == "here.log"
    assert isinstance(anew, Anew)
    assert anew.file == "second.log"


def test_what_can_neither_be_sent_nor_made_anew_is_refused() -> None:
    class Local(Logger):
        def process(self, key: str, value: Any) -> None:
            """Take it."""

    with pytest.raises(ConfigError, match=r"nor can its class. Define it at the top of a module"):
        LitServer(Square(), accelerator="cpu", loggers=Local())
    with pytest.raises(ConfigError, match=r"Unmakeable cannot be sent to its process .* its class takes arguments. Give them defaults"):
        LitServer(Square(), accelerator="cpu", loggers=[Unmakeable("x")])
    mounted = Local()
    mounted.mount("/local", app)
    assert LitServer(Square(), accelerator="cpu", loggers=mounted).config.loggers == (mounted,), "it stays in front ends"


def test_one_that_cannot_be_read_again_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert [type(each) for each in unpacked(packed([Broken(), Noting("x")]))] == [Noting]
    assert "a logger could not be made" in caplog.text
    assert "no such database" in caplog.text


# -- calls ----------------------------------------------------------------------------------------------------------


def test_one_that_fails_harms_no_other_and_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now, bad, good = [0.0], Kept(ValueError("unlucky")), Kept()
    calls = LoggerCalls([bad, good], lambda: now[0])
    for number in range(5):
        calls.process("a", pack(number))
    assert good.seen == [("a", number) for number in range(5)]
    assert caplog.text.count("Kept.process('a', …) failed") == 1
    assert "ValueError: unlucky" in caplog.text
    now[0] = 11.0
    calls.process("b", pack(1))
    assert "Kept.process('b', …) failed (and 4 times since the last line)" in caplog.text
    calls.close()
    assert good.seen[-1] == "closed"
    assert "Kept.close() failed" in caplog.text


def test_each_gets_a_value_of_its_own() -> None:
    one, other = Kept(), Kept()
    LoggerCalls([one, other]).process("a", pack([1]))
    assert other.seen == [("a", [1, "mine"])]


def test_log_without_a_logger_warns() -> None:
    class Api(LitAPI):
        def predict(self, x: Any) -> Any:
            return x

    with pytest.warns(UserWarning, match=r"log\('loss', …\) went nowhere.*loggers="):
        Api().log("loss", 0.5)


# -- where values go ------------------------------------------------------------------------------------------------


class FakeFronts:
    def __init__(self, *, has_room: bool = True) -> None:
        self.frames, self.has_room = list[bytes](), has_room

    def log(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return self.has_room


def routed(routes: LogRoutes, fronts: Any, *events: Logged) -> list[int]:
    dropped = list[int]()
    for event in events:
        routes.take(event, fronts, dropped.append)
    return dropped


def test_values_reach_front_ends_only_if_an_app_is_mounted() -> None:
    fronts: Any = FakeFronts()
    assert routed(LogRoutes(), fronts, Logged(0, "a", pack(1))) == []
    assert fronts.frames == []
    assert routed(LogRoutes(reaches_fronts=True), fronts, Logged(1, "a", pack(1))) == []
    (frame,) = Decoder().feed(fronts.frames[0])
    assert (frame.meta, bytes(frame.body)) == ({"k": "a", "a": 1}, pack(1))


def test_what_is_dropped_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    fronts: Any = FakeFronts(has_room=False)
    routes = LogRoutes(reaches_fronts=True)
    assert routed(routes, fronts, Logged(0, "a", pack(1), dropped=2), Logged(0, "a", pack(2)), Logged(0, "", b"", dropped=5)) == [3, 1, 5]
    assert caplog.text.count("the loggers are too slow") == 1
    routes.close()
    assert "9 values for loggers were dropped in all" in caplog.text


def test_a_process_that_takes_nothing_holds_no_more_than_its_bound() -> None:
    process = LoggerProcess(packed([]), most_bytes=1000)
    taken = [process.take("key", pack("x" * 100)) for _ in range(50)]
    assert sorted(taken, reverse=True) == taken
    assert 5 < sum(taken) < 12
    process.close()


def test_a_frame_for_front_ends_is_one_frame() -> None:
    assert len(Decoder().feed(log_frame(0, "k", pack(json.dumps([0] * 80_000))))) == 1
