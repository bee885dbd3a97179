"""What the head of a request says: keys, sizes, encodings, deadlines; and what of it is refused."""

import math
from typing import Any

import pytest

from leyden.serve.config import ApiConfig, Secrets, ServerConfig
from leyden.serve.faults import Fault
from leyden.serve.front.auth import opens, read_secrets
from leyden.serve.front.calls import HttpCall
from leyden.serve.front.counters import Counters
from leyden.serve.front.intake import Intake, has_body
from leyden.serve.metrics import Layout, Page
from leyden.serve.tracing import RequestIds


class Owner:
    exposes_errors, max_payload_bytes = True, math.inf

    def now(self) -> float:
        return 100.0


def read(headers: dict[str, str], config: ServerConfig | None = None) -> HttpCall:
    config = config or ServerConfig(apis=(ApiConfig(is_stream=True),))
    layout = Layout(["/predict"])
    owner: Any = Owner()
    call = HttpCall(1, 0, config.apis[0], Counters(Page(layout), layout, 0), owner, None, "r")  # type: ignore[arg-type]
    Intake(config, RequestIds("p"), owner.now).read(call, {name.encode(): value.encode() for name, value in headers.items()})
    return call


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.1", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_gzip_is_accepted_as_the_standard_says(accepted: str, is_gzip: bool) -> None:
    assert read({"accept-encoding": accepted}).accepts_gzip is is_gzip


def test_nothing_is_compressed_where_that_is_off() -> None:
    assert not read({"accept-encoding": "gzip"}, ServerConfig(compression="off")).accepts_gzip


def test_json_needs_no_word_and_other_types_do() -> None:
    assert read({"content-type": "application/json"}).content_type == ""
    assert read({"content-type": "application/json; charset=utf-8"}).content_type == "application/json; charset=utf-8"


def test_a_time_out_of_the_client_is_a_deadline() -> None:
    assert read({"x-request-timeout": "2.5"}).deadline == 102.5
    assert read({}).deadline == math.inf


@pytest.mark.parametrize(
    "headers", [{"x-request-timeout": "0"}, {"x-request-timeout": "inf"}, {"x-priority": "1.5"}, {"x-priority": "9" * 20}]
)
def test_what_cannot_be_read_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Fault, match="Send") as raised:
        read(headers)
    assert raised.value.status == 400


def test_a_body_that_is_too_large_is_refused_by_its_head() -> None:
    config = ServerConfig(max_payload_bytes=10)
    read({"content-length": "10"}, config)
    with pytest.raises(Fault, match="up to 10 bytes"):
        read({"content-length": "11"}, config)
    read({"content-length": "4294967296"}, ServerConfig(max_payload_bytes=None))
    with pytest.raises(Fault, match="up to 4,294,967,296 bytes"):  # no frames would carry it
        read({"content-length": "4294967297"}, ServerConfig(max_payload_bytes=None))


def test_events_are_for_streams_alone() -> None:
    assert read({"accept": "text/event-stream"}).accepts_events
    assert not read({"accept": "text/event-stream"}, ServerConfig()).accepts_events


def test_names_are_the_clients_if_they_can_be() -> None:
    intake = Intake(ServerConfig(), RequestIds("p"), lambda: 0.0)
    assert [intake.request_id({b"x-request-id": name}) for name in (b"ok", b"not ok", b"\xff")] == ["ok", "p-1", "p-2"]


def test_which_requests_have_a_body() -> None:
    heads: list[dict[bytes, bytes]] = [{}, {b"content-length": b"0"}, {b"content-length": b"1"}, {b"transfer-encoding": b"chunked"}]
    assert [has_body(head) for head in heads] == [False, False, True, True]


def test_keys_are_read_when_they_are_asked_for_and_stay_out_of_sight(caplog: pytest.LogCaptureFixture) -> None:
    assert read_secrets({}) == Secrets()
    found = read_secrets({"LIT_SERVER_API_KEY": "a,b", "LIT_SHUTDOWN_API_KEY": "c"}, may_shut_down=True)
    assert (found.api_keys, found.shutdown_key, repr(found)) == (("a", "b"), "c", "Secrets()")
    made = read_secrets({}, may_shut_down=True).shutdown_key
    assert made in caplog.text
    assert opens(made, {b"authorization": b"Bearer " + made.encode()})
    assert not opens("", {b"authorization": b"Bearer "})


@pytest.mark.parametrize("seconds", ["1e9", "1e18", "1e300", "1e308", "9" * 300])
def test_deadlines_that_are_none_are_none(seconds: str) -> None:
    assert read({"x-request-timeout": seconds}).deadline == math.inf


def test_a_length_of_thousands_of_digits_is_too_large() -> None:
    for length in ("9" * 21, "9" * 5000):
        with pytest.raises(Fault) as caught:
            read({"content-length": length})
        assert caught.value.status == 413
