"""APIs for tests of clients: they say who they are, wait for files, and tell by files that they were ended."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from leyden.serve.api import LitAPI


class Doing(LitAPI):
    """Squares `input`; describes a form; or waits for `file`, and says which process it is: `.begun` and `.cancelled` say how far it is."""

    def decode_request(self, request: Any) -> Any:
        return request

    def predict(self, request: Any, context: Any) -> Any:
        if "input" in request:
            return {"output": request["input"] ** 2}
        if "field" in request:
            return {name: _described(value) for name, value in request.items()}
        file = Path(request["file"])
        file.with_suffix(".begun").touch()
        while not file.exists():
            if context.cancelled:
                file.with_suffix(".cancelled").touch()
            time.sleep(0.002)
        return str(os.getpid())


def _described(value: Any) -> Any:
    return value if isinstance(value, str) else [value.filename, value.content_type, len(value.read())]


class Telling(LitAPI):
    """Tells its process and two numbers, waits for a file, and tells one more; fails or returns if it is told to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream=True, **kwargs)

    def decode_request(self, request: Any) -> Any:
        return request

    def predict(self, request: Any, context: Any) -> Iterator[Any]:
        file = Path(request["file"])
        try:
            yield {"pid": os.getpid()}
            yield from ({"n": number} for number in range(2))
            if request.get("fails"):
                raise ValueError("no more to tell")
            while not file.exists() and not context.cancelled:
                time.sleep(0.002)
            if request.get("returns") and context.cancelled:
                return
            yield {"n": 2}
        finally:
            file.with_suffix(".closed").touch()


class Point(BaseModel):
    """Where something is."""

    x: float
    name: str
    tags: list[str]
    size: int = 1


class Spells(LitAPI):
    """Streams text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream=True, **kwargs)

    def decode_request(self, point: Point) -> Point:
        return point

    def predict(self, point: Point) -> Iterator[str]:
        yield from (point.name, str(point.x), *point.tags)
