"""Loggers of all kinds keep the promises of `ServeLoggerSuite`: a file, one that is made anew, one with an app, one that batches."""

import collections
import json
import re
from pathlib import Path
from typing import Any

import pytest

from leyden.serve.loggers import Logger
from tests.conformance.serve_logger_suite import ServeLoggerSuite
from tests.support.asgi_client import TestClient
from tests.support.serve_loggers import Anew, Counted, Noting


def counts(lines: list[str]) -> dict[str, int]:
    return dict(collections.Counter(line.partition("=")[0] for line in lines if "=" in line))


class Batching(Logger):
    """Writes when it has enough, and when it is closed."""

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, list[Any]()

    def process(self, key: str, value: Any) -> None:
        self.rows.append([key, repr(value)])
        if len(self.rows) >= 64:
            self.close()

    def close(self) -> None:
        with self.file.open("a") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in self.rows)
        self.rows.clear()


class TestFile(ServeLoggerSuite):
    def logger(self, folder: Path) -> Logger:
        return Noting(str(folder / "values"))

    def taken(self, logger: Logger, folder: Path) -> dict[str, int]:
        return counts((folder / "values").read_text().splitlines())


class TestAnew(ServeLoggerSuite):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANEW_FILE", str(tmp_path / "values"))

    def logger(self, folder: Path) -> Logger:
        return Anew()

    def taken(self, logger: Logger, folder: Path) -> dict[str, int]:
        return counts((folder / "values").read_text().splitlines())


class TestBatching(ServeLoggerSuite):
    def logger(self, folder: Path) -> Logger:
        return Batching(folder / "values")

    def taken(self, logger: Logger, folder: Path) -> dict[str, int]:
        return dict(collections.Counter(json.loads(line)[0] for line in (folder / "values").read_text().splitlines()))


class TestPrometheus(ServeLoggerSuite):
    is_mounted = True

    def logger(self, folder: Path) -> Logger:
        return Counted("/numbers", measures=False)

    def taken(self, logger: Logger, folder: Path) -> dict[str, int]:
        assert logger.mounted is not None
        text = TestClient(logger.mounted.app).get("/").text
        return {key: int(float(value)) for key, value in re.findall(r'^seen_total\{key="(\w+)"\} (\S+)$', text, re.MULTILINE)}
