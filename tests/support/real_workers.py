"""Real workers behind two front ends of this process: one takes the short way, one goes through ASGI."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pydantic

from leyden.serve import LitServer, OpenAIEmbeddingSpec, OpenAISpec
from leyden.serve.api import LitAPI
from leyden.serve.testing import running
from tests.support import bad_input_apis as plain
from tests.support.fronts import WAYS, Front
from tests.support.serve_apis import Lengths, Spelling


class Item(pydantic.BaseModel):
    x: float
    name: str = "a"


class Model(plain.Number):
    def decode_request(self, request: Item) -> Any:
        return request


def every_kind() -> list[LitAPI]:
    """Return one API of each kind, at the path of its name."""
    return [
        plain.Number(api_path="/number"),
        plain.Anything(api_path="/any"),
        Model(api_path="/model"),
        plain.Data(api_path="/data"),
        plain.Raw(api_path="/raw"),
        plain.File(api_path="/file"),
        plain.Together(api_path="/together", max_batch_size=4, batch_timeout=0.02),
        plain.Pieces(api_path="/pieces", stream=True),
        plain.Async(api_path="/async", enable_async=True),
        plain.AsyncPieces(api_path="/async-pieces", enable_async=True, stream=True),
        Spelling(spec=OpenAISpec()),
        Lengths(spec=OpenAIEmbeddingSpec(), max_batch_size=8),
    ]


@contextlib.contextmanager
def both_fronts(apis: Callable[[], Sequence[LitAPI]], **options: Any) -> Iterator[dict[str, Front]]:
    """Serve APIs by one set of workers; the front ends are not told of workers that come later.

    Args:
        apis: Makes them: the front ends share no spec.
        options: Of the server.
    """
    with running(LitServer(apis(), accelerator="cpu", **options)) as server, contextlib.ExitStack() as stack:
        found = {}
        for name, middlewares in WAYS.items():
            front = Front(LitServer(apis(), accelerator="cpu", middlewares=middlewares, **options).config)
            for worker in server.inference_workers:
                front.front.add_worker(worker.worker, f"unix:{worker.address}")
            stack.callback(front.stop)
            found[name] = front.start()
        yield found
