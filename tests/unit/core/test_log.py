"""Logging: silent by default; text or JSON, with ranks, once a program asks for it."""

import io
import json
import re
import subprocess
import sys

import pytest

from leyden.core.errors import ConfigError
from leyden.core.log import configure, current_rank, get_logger


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
