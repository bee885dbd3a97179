"""What every `Logger` of `leyden.serve` promises: it gets into its process, takes each value in order whatever it is, and keeps
nothing back when it is closed. A subclass makes the logger, and says what it has taken.
"""

from pathlib import Path
from typing import Any

import pytest

from leyden.serve.log_values import pack
from leyden.serve.loggers import Logger, LoggerCalls, loggers_of, packed, unpacked
from tests.support.asgi_client import TestClient

NUMBERS = [0.5, -3, 0, 1e300, 2**40]
OTHERS: list[Any] = [True, None, "ü", "", b"\x00", [1, [2]], {"a": {"b": 1}}, float("nan")]


class ServeLoggerSuite:
    """Subclass with `logger` and `taken`; with `is_mounted` if it has an app."""

    is_mounted = False

    def logger(self, folder: Path) -> Logger:
        raise NotImplementedError

    def taken(self, logger: Logger, folder: Path) -> dict[str, int]:
        """Return how many values of each name it has, once it is closed."""
        raise NotImplementedError

    def arrived(self, folder: Path) -> Logger:
        """Return the logger where values are processed: in its process, or in the front end where it was made."""
        made = self.logger(folder)
        assert loggers_of(made) == (made,)
        assert (made.mounted is not None) == self.is_mounted
        if self.is_mounted:
            return made
        (found,) = unpacked(packed([made]))
        return found

    def test_it_takes_values_of_all_kinds(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        logger = self.arrived(tmp_path)
        calls = LoggerCalls([logger])
        for value in NUMBERS:
            calls.process("number", pack(value))
        for value in OTHERS:
            calls.process("other", pack(value))
        calls.close()
        assert self.taken(logger, tmp_path) == {"number": len(NUMBERS), "other": len(OTHERS)}
        assert caplog.text == "", "it raised nothing"

    def test_many_values_are_all_there_after_its_end(self, tmp_path: Path) -> None:
        logger = self.arrived(tmp_path)
        calls = LoggerCalls([logger])
        for number in range(500):
            calls.process(f"k{number % 3}", pack(number))
        calls.close()
        assert sum(self.taken(logger, tmp_path).values()) == 500

    def test_it_can_be_closed_without_a_value(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        LoggerCalls([self.arrived(tmp_path)]).close()
        assert caplog.text == ""

    def test_its_app_answers(self, tmp_path: Path) -> None:
        logger = self.logger(tmp_path)
        if logger.mounted is None:
            return
        LoggerCalls([logger]).process("shown", pack(1))
        answer = TestClient(logger.mounted.app).get("/")
        assert (answer.status_code, "shown" in answer.text) == (200, True)
