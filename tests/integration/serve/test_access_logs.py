"""Access lines name their request, its API and its trace, whichever way it came in; without them, nothing is spent on them."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from leyden.serve.front.calls import HttpCall
from leyden.serve.wire import Frame, Kind
from tests.support.fake_worker import Said, echo
from tests.support.fronts import Front, one, serving
from tests.support.told import Told

TRACE = "0af7651916cd43dd8448eb211c80319c"
ACCESS = "uvicorn.access"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    found = Told()
    with found.of(ACCESS):
        yield found


@pytest.fixture
def front(way: Any, told: Told) -> Iterator[Front]:
    with serving(one(middlewares=way), echo, access_log=True) as found:
        yield found


def test_lines_name_request_api_and_trace(front: Front, told: Told) -> None:
    answer = front.post(b"{}", x_request_id="mine-1", traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    assert answer.headers["x-request-id"] == "mine-1"
    (fields,) = told.fields('"POST /predict HTTP/1.1" 200')
    assert (fields["request_id"], fields["api"], fields["trace_id"]) == ("mine-1", "/predict", TRACE)
    assert fields["seconds"] >= 0


def test_requests_of_no_api_are_named_too(front: Front, told: Told) -> None:
    answer = front.get("/nothing?x=1")
    (fields,) = told.fields('"GET /nothing?x=1 HTTP/1.1" 404')
    assert fields["request_id"] == answer.headers["x-request-id"] == answer.json["request_id"]
    assert "api" not in fields


def test_refused_requests_are_named(front: Front, told: Told) -> None:
    answer = front.post(b"{}", x_priority="high", x_request_id="mine-2")
    assert answer.status == 400
    assert told.names('"POST /predict HTTP/1.1" 400') == [["mine-2"]]


def test_a_stream_is_one_line(way: Any, told: Told) -> None:
    def pieces(frame: Frame) -> list[Said]:
        return [Said(Kind.CHUNK, b"1\n", {"ct": "application/x-ndjson"}), Said(Kind.CHUNK, b"2\n"), Said(Kind.END)]

    with serving(one(middlewares=way, is_stream=True), access_log=True) as front:
        front.worker(pieces, stream=True)
        assert front.post(b"{}", x_request_id="mine-3").body == b"1\n2\n"
    assert told.names('"POST /predict HTTP/1.1" 200') == [["mine-3"]]


@pytest.mark.parametrize("options", [{"access_log": False}, {"access_log": True, "log_level": "warning"}])
def test_nothing_is_made_of_lines_that_nobody_wants(way: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpCall, "log_fields", lambda self: pytest.fail("nobody asks"))
    logger = logging.getLogger(ACCESS)
    level, propagates = logger.level, logger.propagate
    try:
        with serving(one(middlewares=way), echo, **options) as front:
            assert front.post(b"{}").status == 200
    finally:
        logger.setLevel(level)
        logger.propagate = propagates
