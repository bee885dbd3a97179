"""Loggers that other processes can import, and an API that logs."""

import os
import threading
import time
from pathlib import Path
from typing import Any

from leyden.serve.api import LitAPI
from leyden.serve.loggers import Logger


class Logging(LitAPI):
    """Logs what it is sent, as often as it is told; answers how often."""

    def predict(self, x: Any) -> Any:
        for _ in range(x.get("times", 1)):
            self.log(x.get("key", "value"), x.get("value", 0) if "size" not in x else "x" * x["size"])
        return x.get("times", 1)


class Noting(Logger):
    """Appends each value to a file; does what keys say."""

    def __init__(self, file: str) -> None:
        self.file = file

    def process(self, key: str, value: Any) -> None:
        if key == "fail":
            raise ValueError("unlucky")
        if key == "die":
            os._exit(9)
        while key == "wait" and not os.path.exists(value):  # noqa: PTH110 - looked at again and again
            time.sleep(0.005)
        self.note(f"{key}={value!r:.60} {os.getpid()}")

    def close(self) -> None:
        self.note("closed")

    def note(self, text: str) -> None:
        with Path(self.file).open("a") as file:
            file.write(text + "\n")


class Anew(Noting):
    """Cannot be pickled; a new one writes into the file that the environment names."""

    def __init__(self) -> None:
        super().__init__(os.environ.get("ANEW_FILE", "anew.log"))
        self.lock = threading.Lock()


class Unmakeable(Noting):
    """Cannot be pickled, nor made without arguments."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.lock = threading.Lock()


class Broken(Logger):
    """Can be sent, and cannot be read again."""

    def __setstate__(self, state: Any) -> None:
        raise OSError("no such database")

    def __getstate__(self) -> Any:
        return {"a": 1}

    def process(self, key: str, value: Any) -> None:
        raise AssertionError("it gets no values")


class Shared(Logger):
    """Counts values in files that all processes share, as prometheus_client does with `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(self) -> None:
        import prometheus_client
        from prometheus_client import multiprocess

        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        self.seen = prometheus_client.Counter("shared", "Values that came.", registry=registry)
        self.mount("/metrics", prometheus_client.make_asgi_app(registry=registry))

    def process(self, key: str, value: Any) -> None:
        self.seen.inc()


class Counted(Logger):
    """Adds numbers up in an app of prometheus_client, or counts values there."""

    def __init__(self, path: str = "/metrics", *, measures: bool = True) -> None:
        import prometheus_client

        registry = prometheus_client.CollectorRegistry()
        self.seen = prometheus_client.Counter("seen", "Values that came.", ["key"], registry=registry)
        self.measures = measures
        self.mount(path, prometheus_client.make_asgi_app(registry=registry))

    def process(self, key: str, value: Any) -> None:
        if key == "fail":
            raise ValueError("unlucky")
        self.seen.labels(key=key).inc(value if self.measures else 1)
