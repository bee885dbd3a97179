"""APIs that workers in other processes can import."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from leyden.serve.api import LitAPI
from leyden.serve.loops import LitAPIStatus, Output


class Echo(LitAPI):
    """Answers a number with its square; does what it is told with text."""

    def decode_request(self, request: Any, context: Any) -> Any:
        context["text"] = request["input"]
        return request["input"]

    def predict(self, x: Any, context: Any) -> Any:
        if x == "wait":
            while not context.cancelled:  # until the client says so: this reads what has come
                time.sleep(0.0005)
            return "woken"
        if x == "exit":
            os._exit(9)
        if x == "leave":
            raise SystemExit(5)
        if x == "log":
            self.log("size", {"n": 3})
        return x if isinstance(x, str) else x**2

    def encode_response(self, output: Any) -> Any:
        return {"output": output}


class Batch(LitAPI):
    """Squares numbers together, and says how many they were; `"wait"` waits."""

    def decode_request(self, request: Any) -> Any:
        return request["input"]

    def batch(self, inputs: Any) -> Any:
        return list(inputs)

    def predict(self, x: Any, context: Any) -> Any:
        while "wait" in x and not any(each.cancelled for each in context):
            time.sleep(0.0005)
        return [(each if isinstance(each, str) else each**2, len(x)) for each in x]

    def encode_response(self, output: Any) -> Any:
        return {"output": output[0], "size": output[1]}


class SlowEncode(LitAPI):
    """Answers a batch; the last one only when a file is there."""

    def __init__(self, file: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = file

    def predict(self, x: Any) -> Any:
        return x

    def encode_response(self, output: Any) -> Any:
        if output == "first":
            time.sleep(0.001)  # slow
        while output == "last" and not Path(self.file).exists():
            time.sleep(0.0005)
        return output


class Stream(LitAPI):
    """Yields pieces of so many bytes, so many of them; tells when its generator was closed."""

    def decode_request(self, request: Any) -> Any:
        return request

    def predict(self, x: Any) -> Iterator[bytes]:
        try:
            for _ in range(x["count"]):
                yield bytes(x["size"])
        finally:
            self.log("closed", True)


class AsyncEcho(LitAPI):
    """Answers at once, or when somebody asks it to wake the others."""

    def setup(self, device: Any) -> None:
        self.woken = asyncio.Event()

    async def decode_request(self, request: Any) -> Any:
        return request["input"]

    async def predict(self, x: Any) -> Any:
        if x == "wait":
            try:
                await self.woken.wait()
            except asyncio.CancelledError:
                self.log("cancelled", True)
                raise
        if x == "wake":
            self.woken.set()
        return {"output": x}


class AsyncStream(LitAPI):
    """Yields so many pieces, or pieces without end."""

    async def predict(self, x: Any) -> AsyncIterator[str]:
        try:
            number = 0
            while x["count"] is None or number < x["count"]:
                yield f"{number} "
                number += 1
        finally:
            self.log("closed", True)


class Tokens(LitAPI):
    """Counts down for each request, one token a step; -1 fails the step."""

    def setup(self, device: Any) -> None:
        self.left: dict[str, int] = {}

    def decode_request(self, request: Any) -> Any:
        return int(request["input"])

    def add_request(self, uid: str, request: Any) -> None:
        self.left[uid] = request

    def has_capacity(self) -> bool:
        return len(self.left) < 2

    def has_active_requests(self) -> bool:
        return bool(self.left)

    def cancel_request(self, uid: str) -> None:
        self.left.pop(uid, None)
        self.log("dropped", True)

    def step(self, prev_outputs: Any) -> list[Output]:
        if -1 in self.left.values():
            raise ValueError("no such token")
        outputs = [Output(uid, f"{left} ", LitAPIStatus.OK) for uid, left in self.left.items()]
        for uid in list(self.left):
            self.left[uid] -= 1
            if not self.left[uid]:
                del self.left[uid]
                outputs.append(Output(uid, "", LitAPIStatus.FINISH_STREAMING))
        return outputs


class Broken(LitAPI):
    """Cannot be set up."""

    def setup(self, device: Any) -> None:
        raise OSError("no weights")

    def predict(self, x: Any) -> Any:
        return x


class Slow(LitAPI):
    """Computes for longer than any test waits, and looks at nothing."""

    def predict(self, x: Any) -> Any:
        os.write(1, b"computing\n")
        time.sleep(1000)


class Square(LitAPI):
    """Squares; does what text says: waits until told, ends its process, or says which one it is."""

    def decode_request(self, request: Any) -> Any:
        return request["input"]

    def predict(self, x: Any) -> Any:
        if x == "pid":
            return os.getpid()
        if x == "die":
            os._exit(9)
        if isinstance(x, list):  # wait for a file to appear, after saying who does
            Path(x[0] + ".pid").write_text(str(os.getpid()))
            while not os.path.exists(x[0]):  # noqa: PTH110 - a hot loop of a test
                time.sleep(0.005)
            return "done"
        return x**2

    def encode_response(self, output: Any) -> Any:
        return {"output": output}


class Replies(LitAPI):
    """Answers with responses of its own."""

    def encode_response(self, output: Any) -> Any:
        from starlette.responses import StreamingResponse

        import leyden.serve as ls

        if output == "stream":
            return StreamingResponse(iter([b"1"]))
        response = ls.Response(b"\x89PNG", status_code=201, media_type="image/png", headers={"x-model": "m1"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    def predict(self, x: Any) -> Any:
        return x


class FailsSetUp(Square):
    """Cannot be set up."""

    def setup(self, device: Any) -> None:
        raise ValueError("no weights here")


class LeavesSetUp(Square):
    """Ends its process while it is set up."""

    def setup(self, device: Any) -> None:
        os._exit(7)


class Counting(LitAPI):
    """Counts up slowly, until it is told to go on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream=True, **kwargs)

    def decode_request(self, request: Any) -> Any:
        return request["file"]

    def predict(self, file: str) -> Iterator[Any]:
        yield from range(3)
        while not os.path.exists(file):  # noqa: PTH110 - looked at again and again
            time.sleep(0.005)
        yield 3

    def encode_response(self, output: Any) -> Iterator[Any]:
        for number in output:
            yield {"n": number}


class Spelling(LitAPI):
    """Says the last message again, letter by letter."""

    def predict(self, messages: Any) -> Iterator[str]:
        for letter in messages[-1]["content"]:
            if letter == "!":
                raise ValueError("too loud")
            yield letter


class Lengths(LitAPI):
    """A vector of the length of each text."""

    def predict(self, texts: Any) -> Any:
        return [[float(len(text)), 0.5] for text in texts]


class StaysDown:
    """A middleware that keeps its app from starting."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("not today")
