"""How a worker takes turns between its desk and its executor: batch by batch, step by step, or in an event loop."""

import asyncio
import time
from typing import final

from leyden.core.log import about
from leyden.serve.answers import QUICK_SECONDS, Answers
from leyden.serve.desk import Desk
from leyden.serve.executors.aio import AsyncExecutor, new_loop
from leyden.serve.executors.continuous import ContinuousExecutor
from leyden.serve.executors.executor import Executor

_MOST_SINGLES = 16  # that are handed over together while they are quick
_FADE = 0.8  # of the slowest item, with each batch


@final
class Pace:
    """Whether items are so quick that their answers may wait for each other: those of one read are sent together.

    It follows the slowest of the last items, not their mean: a slow one among quick ones would hold up what is done.

    Example:
        >>> pace = Pace()
        >>> for _ in range(20):
        ...     pace.learn(0.00001)
        >>> pace.is_quick
        True
        >>> pace.learn(0.5)
        >>> pace.is_quick
        False
    """

    __slots__ = ("_slowest",)

    def __init__(self) -> None:
        self._slowest = 0.01  # unknown: not quick

    def learn(self, seconds: float) -> None:
        """Take note of how long an item took."""
        faded = self._slowest * _FADE
        self._slowest = max(seconds, faded)

    @property
    def is_quick(self) -> bool:
        """Whether the last items took less than 0.2 ms each."""
        return self._slowest < QUICK_SECONDS


def serve(desk: Desk, executor: Executor, answers: Answers) -> None:
    """Do requests until the worker has drained."""
    if isinstance(executor, AsyncExecutor):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve_tasks(desk, executor, answers))
    elif isinstance(executor, ContinuousExecutor):
        _serve_steps(desk, executor, answers)
    elif executor.api.max_batch_size == 1:
        _serve_singles(desk, executor, answers)
    else:
        _serve_batches(desk, executor, answers)


def _serve_singles(desk: Desk, executor: Executor, answers: Answers) -> None:
    pace = Pace()
    while not desk.is_done:
        desk.look(None)
        began = time.monotonic()
        while requests := desk.take_singles(_MOST_SINGLES if pace.is_quick else 1):
            executor.run(requests, answers)  # which looks for each whether somebody has left, and so at what has come
            ended = time.monotonic()
            pace.learn((ended - began) / len(requests))
            if not pace.is_quick:
                desk.flush()
            began = ended


def _serve_batches(desk: Desk, executor: Executor, answers: Answers) -> None:
    pace = Pace()
    while not desk.is_done:
        desk.look(None)
        began = time.monotonic()
        while batch := desk.take():
            answers.begin(len(batch))
            executor.run(batch, answers)  # which looks whether somebody has left, and so at what has come
            ended = time.monotonic()
            pace.learn((ended - began) / len(batch))
            if not pace.is_quick:
                desk.flush()
            began = ended


def _serve_steps(desk: Desk, executor: ContinuousExecutor, answers: Answers) -> None:
    has_made = True
    while not desk.is_done:
        if not executor.is_active and not desk.has_waiting:
            desk.look(None)
        elif has_made:
            desk.glance()
        else:
            desk.look(executor.sleep_delay)
        while executor.has_room and (batch := desk.take(1)):
            executor.take(batch, answers)
        has_made = executor.advance(answers)
        about(None)
        desk.flush()


async def _serve_tasks(desk: Desk, executor: AsyncExecutor, answers: Answers) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def start() -> None:
        while (room := executor.room) > 0 and (batch := desk.take(room)):
            executor.start(batch, answers)

    def settle() -> None:
        desk.settle()
        if desk.is_done and not done.done():
            done.set_result(None)

    def look() -> None:
        try:
            desk.look()
            start()
            settle()
        except Exception as error:  # noqa: BLE001 - raised where somebody sees it
            if not done.done():
                done.set_exception(error)

    desk.on_dirty = lambda: loop.call_soon(settle)
    desk.on_drain = lambda seconds: loop.call_later(seconds, look)
    executor.on_room = start
    loop.add_reader(desk.fileno(), look)
    look()
    await done
