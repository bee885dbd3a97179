"""APIs of every kind of input, for tables of what clients get wrong; workers in other processes import them."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any

from leyden.serve.api import LitAPI


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Number(LitAPI):
    """Reads a number out of JSON or a form; the answer is whatever came."""

    def decode_request(self, request: Any) -> Any:
        float(request["input"])
        return request

    def predict(self, x: Any) -> Any:
        return x


class Anything(LitAPI):
    """Returns whatever JSON it got."""

    def predict(self, x: Any) -> Any:
        return {"type": type(x).__name__, "value": x}


class Data(Number):
    def decode_request(self, request: Point) -> Any:
        return request


class Raw(LitAPI):
    def decode_request(self, request: bytes) -> Any:
        return request

    def predict(self, x: Any) -> Any:
        return {"bytes": len(x)}


class File(LitAPI):
    """Measures a file of a form."""

    def decode_request(self, request: Any) -> Any:
        return len(request["file"].file.read())

    def predict(self, x: Any) -> Any:
        return x


class Together(Number):
    """Numbers in batches; the batch is as large as it may be, or 20 ms old."""

    def decode_request(self, request: Any) -> Any:
        return float(request["input"])

    def batch(self, inputs: Any) -> Any:
        return list(inputs)

    def encode_response(self, output: Any) -> Any:
        return {"root": output**0.5} if output >= 0 else _refuse()


def _refuse() -> Any:
    raise ValueError("no root")


class Pieces(LitAPI):
    """Counts."""

    def decode_request(self, request: Any) -> Any:
        return int(request["count"])

    def predict(self, x: Any) -> Iterator[Any]:
        for number in range(x):
            yield {"n": number}


class Async(LitAPI):
    async def decode_request(self, request: Any) -> Any:
        return int(request["input"])

    async def predict(self, x: Any) -> Any:
        return x


class AsyncPieces(LitAPI):
    async def decode_request(self, request: Any) -> Any:
        return int(request["count"])

    async def predict(self, x: Any) -> AsyncIterator[Any]:
        for number in range(x):
            yield {"n": number}
