"""Logging: silent by default; text or JSON, with ranks, once a program asks for it."""

import datetime
import io
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.core.log import LogSetup, by_settings, configure, current_rank, get_logger, hide, show, shown, speaking_of


def test_a_library_shows_nothing_by_itself() -> None:
    program = "from leyden.core.log import get_logger; get_logger('leyden.x').error('shout')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_line_names_time_level_and_logger() -> None:
    stream = io.StringIO()
    configure("info", stream=stream, environ={})
    get_logger("leyden.part").info("step %d", 3)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO leyden\.part: step 3\n", stream.getvalue())


def test_a_rank_is_shown_even_if_it_comes_late() -> None:
    stream, environ = io.StringIO(), {}
    configure("info", stream=stream, environ=environ)
    environ["RANK"] = "3"
    get_logger("leyden").warning("here")
    assert "WARNING [rank 3] leyden: here" in stream.getvalue()


def test_records_below_the_level_are_not_shown() -> None:
    stream = io.StringIO()
    configure(stream=stream, environ={"LEYDEN_LOG_LEVEL": "error"})
    get_logger("leyden.part").warning("quiet")
    get_logger("leyden.part").error("loud")
    assert "loud" in stream.getvalue()
    assert "quiet" not in stream.getvalue()


def test_json_lines_hold_rank_and_traceback() -> None:
    stream = io.StringIO()
    configure("debug", json=True, stream=stream, environ={"LOCAL_RANK": "1"})
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("leyden.part").exception("failed: %s", "x")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"], line["rank"]) == ("error", "leyden.part", "failed: x", 1)
    assert "ValueError: broken" in line["traceback"]
    assert line["time"].endswith("+00:00")


def test_configuring_twice_shows_a_record_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", stream=first, environ={})
    configure("info", stream=second, environ={})
    get_logger("leyden").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="LEYDEN_LOG_LEVEL='loud'"):
        configure("loud")


def test_a_logger_outside_of_the_package_is_refused() -> None:
    with pytest.raises(ConfigError, match="'leydenish'"):
        get_logger("leydenish")


@pytest.mark.parametrize(
    ("environ", "rank"), [({}, None), ({"SLURM_PROCID": "5"}, 5), ({"RANK": "2", "LOCAL_RANK": "0"}, 2), ({"RANK": "x"}, None)]
)
def test_the_rank_is_the_launchers(environ: dict[str, str], rank: int | None) -> None:
    assert current_rank(environ) == rank


class Job:
    """What records may be about."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def log_fields(self) -> Mapping[str, object]:
        return self.fields


def logged(setup: LogSetup, *messages: str, name: str = "leyden.part", **options: Any) -> list[str]:
    stream = io.StringIO()
    show(setup, stream=stream, environ={}, **options)
    for message in messages:
        logging.getLogger(name).warning(message)
    return stream.getvalue().splitlines()


def test_json_lines_hold_what_they_are_about() -> None:
    with speaking_of(Job(request_id="a-1", api="/predict", message="never")):
        (line,) = logged(LogSetup(style="json"), "slow", always={"worker": "w0"})
    found = json.loads(line)
    assert (found["request_id"], found["api"], found["worker"], found["message"], found["pid"]) == (
        "a-1",
        "/predict",
        "w0",
        "slow",
        os.getpid(),
    )
    (after,) = logged(LogSetup(style="json"), "later")
    assert "request_id" not in json.loads(after)


def test_what_a_process_always_says_stays_when_the_rest_is_chosen_anew() -> None:
    show(LogSetup(), always={"worker": "w0"})
    (line,) = logged(LogSetup(style="json"), "slow")
    assert json.loads(line)["worker"] == "w0"


def test_the_fields_of_a_record_come_first() -> None:
    stream = io.StringIO()
    show(LogSetup(style="json"), stream=stream, environ={})
    with speaking_of(Job(request_id="a-1", api="/predict")):
        get_logger("leyden").warning("x", extra={"fields": {"request_id": "a-2", "at": datetime.date(2026, 1, 2)}})
    found = json.loads(stream.getvalue())
    assert (found["request_id"], found["api"], found["at"]) == ("a-2", "/predict", "2026-01-02")


@pytest.mark.parametrize(
    ("fields", "message", "shown"),
    [
        ({"request_id": "a-1"}, "slow", "slow (a-1)"),
        ({"request_id": "a-1"}, "a-1: slow", "a-1: slow"),
        ({"request_ids": ["a-1", "a-2"]}, "slow", "slow (a-1, a-2)"),
        ({"request_ids": [f"a-{n}" for n in range(9)]}, "slow", "slow (a-0, a-1, a-2, a-3, … 5 more)"),
        ({"api": "/predict"}, "100% slow", "100% slow"),
        ({"request_id": "%s"}, "100% slow", "100% slow (%s)"),
    ],
)
def test_text_names_the_request(fields: dict[str, object], message: str, shown: str) -> None:
    with speaking_of(Job(**fields)):
        (line,) = logged(LogSetup(), message)
    assert line.endswith(f" WARNING leyden.part: {shown}")


def test_a_format_of_ones_own() -> None:
    setup = LogSetup(format="%(levelname)s|%(request_id)s|%(api)s|%(trace_id)s|%(message)s")
    with speaking_of(Job(request_id="a-1", api="/p")):
        assert logged(setup, "slow") == ["WARNING|a-1|/p|-|slow"]


def test_other_loggers_are_shown_in_the_same_way_until_the_next_setup() -> None:
    assert logged(LogSetup(level="info", also=("theirs",)), "hello", name="theirs.part")[0].endswith("WARNING theirs.part: hello")
    assert logged(LogSetup(level="info"), "hello", name="theirs.part") == []


def test_warnings_are_lines_of_json_too() -> None:
    stream = io.StringIO()
    show(LogSetup(style="json"), stream=stream, environ={})
    try:
        warnings.showwarning("careful", UserWarning, "file.py", 3)
        assert "careful" in json.loads(stream.getvalue())["message"]
    finally:
        hide()
    assert warnings.showwarning.__module__ == "warnings"


def test_in_colours() -> None:
    with speaking_of(Job(request_id="a-1")):
        (line,) = logged(LogSetup(style="rich"), "slow [b]not bold[/b]")
    assert re.fullmatch(r"\[?[\d:/ ]*\]? *WARNING +slow \[b\]not bold\[/b\] \(a-1\) *", line)


def test_what_is_shown_can_be_asked_for_and_hidden() -> None:
    setup = LogSetup(level="error", style="json", stream="stdout", is_chosen=True)
    show(setup)
    assert shown() == setup
    assert pickle.loads(pickle.dumps(setup)) == setup
    hide()
    assert shown() is None


def test_the_settings_choose() -> None:
    assert by_settings({"LEYDEN_LOG_FORMAT": "json", "LEYDEN_LOG_LEVEL": "error"}) == LogSetup(level="error", style="json")
    stream = io.StringIO()
    configure("info", stream=stream, environ={"LEYDEN_LOG_FORMAT": "json"})
    get_logger("leyden").info("hello")
    assert json.loads(stream.getvalue())["message"] == "hello"
    with pytest.raises(ConfigError, match="LEYDEN_LOG_FORMAT='xml'"):
        by_settings({"LEYDEN_LOG_FORMAT": "xml"})


@pytest.fixture(autouse=True)
def _nothing_is_shown_after_a_test() -> Iterator[None]:
    yield
    hide()
