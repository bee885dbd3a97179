"""How a server's log is written: what users may choose, and how uvicorn's lines fit in."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from leyden.core import log
from leyden.core.errors import ConfigError, MissingDependencyError
from leyden.serve.logging import announce, configure_logging, prepare, uvicorn_config

ARGUMENTS = ("127.0.0.1:5000", "POST", "/predict?x=1", "1.1", 200)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(each, list(each.handlers), each.propagate, list(each.filters), each.level) for each in loggers]
    log.about(None)  # other tests of this process have left what theirs were about
    for logger in loggers:
        logger.setLevel(logging.INFO)  # as uvicorn does
    yield
    log.hide()
    for logger, handlers, propagates, filters, level in before:
        logger.handlers, logger.propagate, logger.filters = handlers, propagates, filters
        logger.setLevel(level)


def access(stream: io.StringIO, **fields: Any) -> str:
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *ARGUMENTS, extra={"fields": fields})
    return stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("level", "found"), [("DEBUG", "debug"), (logging.WARNING, "warning"), ("info", "info"), (50, "critical"), ("trace", "debug")]
)
def test_levels_are_names_or_numbers(level: Any, found: str) -> None:
    configure_logging(level=level)
    setup = log.shown()
    assert setup is not None
    assert (setup.level, setup.style, setup.stream, setup.is_chosen) == (found, "text", "stdout", True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"level": "loud"}, "level='loud' is not accepted"),
        ({"level": 17}, "level=17 is not accepted"),
        ({"json": True, "use_rich": True}, "takes one of"),
        ({"json": True, "format": "%(message)s"}, "takes one of"),
        ({"format": "no names"}, "format='no names' is not accepted"),
    ],
)
def test_what_is_not_accepted(options: Any, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configure_logging(**options)
    assert told in str(raised.value)


def test_access_lines_are_json_with_their_facts() -> None:
    stream = io.StringIO()
    configure_logging(json=True, stream=stream, also=["mine"])
    configure_logging(json=True, stream=stream, also=["mine"])
    found = json.loads(access(stream, request_id="a-1", api="/predict", seconds=0.25))
    wanted = {"client": "127.0.0.1:5000", "method": "POST", "path": "/predict?x=1", "status": 200, "request_id": "a-1", "api": "/predict"}
    assert wanted.items() <= found.items()
    assert (found["logger"], found["seconds"], stream.getvalue().count("\n")) == ("uvicorn.access", 0.25, 1)
    logging.getLogger("uvicorn.error").warning("starting")
    logging.getLogger("mine.part").warning("hello")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()[1:]] == ["starting", "hello"]
    assert uvicorn_config() is None, "uvicorn sets up nothing of its own"


def test_a_format_of_ones_own_is_that_of_access_lines_too() -> None:
    stream = io.StringIO()
    configure_logging(format="%(request_id)s %(message)s", stream=stream)
    assert access(stream, request_id="a-1") == 'a-1 127.0.0.1:5000 - "POST /predict?x=1 HTTP/1.1" 200'


def test_uvicorns_own_look_names_the_request() -> None:
    config = uvicorn_config()
    assert config is not None
    assert config["formatters"]["access"]["fmt"].endswith(" %(request_id)s")
    logging.config.dictConfig(config)
    handler = logging.getLogger("uvicorn.access").handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream := io.StringIO())
    assert access(stream, request_id="a-1").endswith('127.0.0.1:5000 - "POST /predict?x=1 HTTP/1.1" 200 OK a-1')
    assert access(stream).endswith("200 OK -")


def shown() -> log.LogSetup:
    found = log.shown()
    assert found is not None
    return found


def test_a_server_that_runs_shows_its_level_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("error", pretty=False)
    assert (shown().level, shown().style, shown().stream) == ("error", "text", "stderr")
    prepare("info", pretty=False)
    assert shown().level == "info", "a program's own setup is none of the user's"
    configure_logging("debug", json=True)
    prepare("info", pretty=False)
    assert (shown().level, shown().style) == ("debug", "json")
    prepare("warning", pretty=True)
    assert (shown().level, shown().style) == ("warning", "rich")
    log.hide()
    monkeypatch.setenv("LEYDEN_LOG_FORMAT", "json")
    prepare("info", pretty=False)
    assert (shown().level, shown().style, shown().also) == ("info", "json", ("uvicorn",))


def test_colours_need_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingDependencyError, match="logs in colours needs the package 'rich'"):
        prepare("info", pretty=True)
    assert log.shown() is None


def test_what_is_said_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    announce("it serves")
    assert capsys.readouterr().out == "it serves\n"
    configure_logging("error", json=True)
    announce("it serves")
    assert json.loads(capsys.readouterr().out)["message"] == "it serves"
