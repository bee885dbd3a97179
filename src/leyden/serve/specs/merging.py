"""`merged`: several streams of workers as one, in the order in which their pieces come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from leyden.serve.specs.base import SpecCall, Submitter

Pieces = list[bytes] | None


async def merged(server: Submitter, calls: Sequence[SpecCall]) -> AsyncGenerator[tuple[int, Pieces], None]:
    """Yield the pieces of each call with its place, and `None` when it has ended well; closing it ends all.

    Args:
        server: Computes them.
        calls: Each for itself.

    Raises:
        Fault: One was answered with an error: the others are given up.
    """
    if len(calls) > 1:
        async with aclosing(_several(server, calls)) as several:
            async for each in several:
                yield each
        return
    async with aclosing(server.stream(calls[0])) as lists:
        async for pieces in lists:
            yield 0, pieces
    yield 0, None


async def _several(server: Submitter, calls: Sequence[SpecCall]) -> AsyncGenerator[tuple[int, Pieces], None]:
    # A stream waits while its pieces are not taken, as a slow client is to be noticed: the queue has room for one list of each.
    queue: asyncio.Queue[tuple[int, Pieces | BaseException]] = asyncio.Queue(len(calls))

    async def feed(place: int, call: SpecCall) -> None:
        try:
            async with aclosing(server.stream(call)) as lists:
                async for pieces in lists:
                    await queue.put((place, pieces))
            await queue.put((place, None))
        except Exception as error:  # noqa: BLE001 - raised where the pieces are taken
            await queue.put((place, error))

    tasks = [asyncio.create_task(feed(place, call)) for place, call in enumerate(calls)]
    try:
        for_all = len(calls)
        while for_all:
            place, pieces = await queue.get()
            if isinstance(pieces, BaseException):
                raise pieces
            for_all -= pieces is None
            yield place, pieces
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
