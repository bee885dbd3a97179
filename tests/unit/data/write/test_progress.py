"""Progress: what the line says, how often it is drawn, and who sees none."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from leyden import data as ld
from leyden.core.errors import ConfigError
from leyden.core.failpoints import InjectedError, armed
from leyden.data.write.progress import CalledWatch, Seen
from leyden.data.write.progress_line import ProgressLine, line_of
from leyden.data.write.watching import watch_of
from tests.support.fake_clock import FakeClock

START = Seen(0, 100, 0, 0, 0, 1)


def row(number: int) -> dict[str, int]:
    return {"id": number}


@pytest.mark.parametrize(
    ("first", "seen", "seconds", "said"),
    [
        (START, START, 0.0, "0/100 inputs · 0 rows/s · 0.0 MB/s"),
        (START, Seen(25, 100, 25, 10**8, 0, 1), 100.0, "25/100 inputs · 0 rows/s · 1.0 MB/s · 5m00s left"),
        (
            Seen(50, 100, 50, 0, 0, 1),
            Seen(75, 100, 75, 0, 2, 3),
            10.0,
            "75/100 inputs · 2 rows/s · 0.0 MB/s · 10s left · 2 failed · 3 drivers",
        ),
        (START, Seen(100, 100, 90, 0, 0, 1), 7322.0, "100/100 inputs · 0 rows/s · 0.0 MB/s · in 2h02m"),
        (Seen(0, None, 0, 0, 0, 1), Seen(512, None, 512, 0, 0, 1), 1.0, "512 inputs · 512 rows/s · 0.0 MB/s"),
    ],
)
def test_what_the_line_says(first: Seen, seen: Seen, seconds: float, said: str) -> None:
    assert line_of(first, seen, seconds) == said


def test_it_is_drawn_four_times_a_second_at_most_and_at_the_end() -> None:
    clock, out = FakeClock(), io.StringIO()
    line = ProgressLine("sample", clock, Console(file=out, force_terminal=True, width=120), things="packs")
    line.see(START)
    for number in range(100):
        clock.advance(0.01)
        line.see(START._replace(inputs=number))
    assert out.getvalue().count(" packs") == 5, "at 0, 0.25, 0.5, 0.75 and 1 s"
    line.close(START._replace(inputs=100))
    assert "100/100 packs" in out.getvalue()
    assert "in 1s" in out.getvalue()


def test_who_is_shown_what(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(watch_of(print, "x"), CalledWatch)
    assert watch_of(None, "x") is None, "tests have no terminal"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert watch_of(False, "x") is None
    for wanted in (None, True):
        watch = watch_of(wanted, "x")
        assert isinstance(watch, ProgressLine)
        watch.close(None)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert watch_of(True, "x") is None, "the first of several drivers shows it"


def test_a_function_is_told_of_all_that_is_done(tmp_path: Path) -> None:
    told: list[tuple[int, int, int, int]] = []
    with armed("data.unit.written:31=raise"), pytest.raises((InjectedError, RuntimeError)):
        ld.optimize(row, range(100), str(tmp_path), num_workers=0)
    ld.optimize(row, range(100), str(tmp_path), num_workers=0, progress=lambda *numbers: told.append(numbers))
    assert told[0][:2] == (46, 46), "what an earlier run has done counts"
    assert told[-1] == (100, 100, 800, 0)
    assert told == sorted(told)


def test_other_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="progress='yes'"):
        ld.optimize(row, [1], str(tmp_path), num_workers=0, progress="yes")  # type: ignore[arg-type]
