"""An API that ends its own process at any moment it is told to; workers in other processes import it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leyden.serve.api import LitAPI
from leyden.serve.worker_link import WorkerLink


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_within_the_next_frame() -> None:
    """Send the first bytes of the next frame, and no more."""

    def flush(link: WorkerLink) -> None:
        link._socket.sendall(b"".join(link._unsent)[:20])
        _die()

    WorkerLink.flush = flush  # type: ignore[method-assign]


class Doomed(LitAPI):
    """Squares. `{"input": 3, "die": "predict"}` dies there; with a file `die` in the folder, so does the next set-up."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = Path(folder)

    def setup(self, device: Any) -> None:
        flag = self.folder / "die"
        if flag.exists():
            flag.unlink()
            _die()

    def decode_request(self, request: Any) -> Any:
        if request.get("die") == "decode":
            _die()
        return request

    def predict(self, x: Any) -> Any:
        where = x.get("die")
        if where == "predict":
            _die()
        if where == "frame":
            _die_within_the_next_frame()
        if where == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if where == "leave":
            raise SystemExit(5)
        if x["input"] == "pid":
            return os.getpid()
        return x["input"] ** 2

    def encode_response(self, output: Any) -> Any:
        return {"output": output}


class DoomedStream(LitAPI):
    """Counts to ten, and dies on the way if told to."""

    def predict(self, x: Any) -> Iterator[Any]:
        for number in range(10):
            if number == x.get("die"):
                _die()
            yield {"n": number}


class Stuck(LitAPI):
    """Squares; 0 computes until a file is there, and looks at nothing else meanwhile."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = str(Path(folder) / "go")

    def predict(self, x: Any) -> Any:
        while x["input"] == 0 and not os.path.exists(self.file):  # noqa: PTH110 - looked at again and again
            time.sleep(0.005)
        return x["input"] ** 2


class StuckBatch(Stuck):
    """The same for batches."""

    def batch(self, inputs: Any) -> Any:
        return list(inputs)

    def predict(self, x: Any) -> Any:
        return [super(StuckBatch, self).predict(each) for each in x]


class FirstTimeOnly(LitAPI):
    """Can be set up once."""

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.flag = Path(folder) / "set-up"

    def setup(self, device: Any) -> None:
        if self.flag.exists():
            raise OSError("the weights are gone")
        self.flag.touch()

    def predict(self, x: Any) -> Any:
        _die()


class NeverSetUp(LitAPI):
    """Is set up for longer than any test waits."""

    def setup(self, device: Any) -> None:
        os.write(2, b"setting up\n")
        time.sleep(1000)

    def predict(self, x: Any) -> Any:
        return x
