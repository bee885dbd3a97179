"""APIs that write down what they have done, for tests of clients that leave; workers in other processes import them."""

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from leyden.serve.api import LitAPI


class Noting(LitAPI):
    """Writes lines into a file that tests read."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder

    def note(self, text: str) -> None:
        with (Path(self.folder) / "notes").open("a") as file:  # one write: lines of several processes do not mix
            file.write(text + "\n")

    def wait(self, name: str) -> None:
        """Wait for a file, and look at nothing else."""
        while not os.path.exists(os.path.join(self.folder, name)):  # noqa: PTH110, PTH118 - looked at again and again
            time.sleep(0.002)


class Computed(Noting):
    """Notes each request that it computes; `{"wait": name}` waits for that file."""

    def predict(self, x: Any) -> Any:
        self.note(str(x["name"]))
        if "wait" in x:
            self.wait(x["wait"])
        return x["name"]


class Flood(Noting):
    """Sends pieces of 16 KiB, so many or without end, and notes when it is closed."""

    def predict(self, x: Any) -> Iterator[bytes]:
        sent = 0
        try:
            while x.get("count") is None or sent < x["count"]:
                yield b"x" * 16384
                sent += 1
        finally:
            self.note(f"closed {x['name']}")


class AsyncFlood(Noting):
    """The same, many at once."""

    async def predict(self, x: Any) -> AsyncIterator[bytes]:
        sent = 0
        try:
            while x.get("count") is None or sent < x["count"]:
                yield b"x" * 16384
                sent += 1
        finally:
            self.note(f"closed {x['name']}")
