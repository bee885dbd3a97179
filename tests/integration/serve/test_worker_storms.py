"""Front ends that ask, cancel, are too late, leave and send rubbish, in any order: a worker answers each request once, and drains."""

import random
from typing import Any

import pytest

from leyden.core.log import LogSetup
from leyden.serve.api import LitAPI
from leyden.serve.loops import ContinuousBatchingLoop
from leyden.serve.wire import LAST_OF_BATCH, Kind, encode
from tests.support.frame_client import ENDS, FrameClient, RunningWorker, running_worker
from tests.support.serve_apis import AsyncEcho, AsyncStream, Batch, Echo, Stream, Tokens

INPUTS = [{"input": 1}, {"input": 3}, {"input": "x"}, {"x": 1}]
COUNTS = [{"count": count, "size": 30} for count in (0, 1, 5)]
KINDS = {
    "single": (Echo(), INPUTS),
    "batched": (Batch(max_batch_size=4), INPUTS),
    "streams": (Stream(stream=True), COUNTS),
    "async": (AsyncEcho(enable_async=True, concurrency=3), INPUTS),
    "async streams": (AsyncStream(enable_async=True, stream=True, max_stream_buffer_bytes=10), COUNTS),
    "continuous": (Tokens(loop=ContinuousBatchingLoop(), stream=True), [{"input": 1}, {"input": 5}, {"input": -1}, {}]),
}


class Busy:
    """A front end that does what chance wants, and knows what it is owed."""

    def __init__(self, worker: RunningWorker, values: list[Any], chance: random.Random) -> None:
        self._worker, self._values, self._chance = worker, values, chance
        self.connect()

    def connect(self) -> None:
        self.client, self.owed, self.asked = self._worker.connect(), set[int](), 0

    def do(self) -> None:
        action = self._chance.choices([self.ask, self.cancel, self.hear, self.leave, self.babble], [50, 25, 25, 1, 1])[0]
        action()

    def ask(self) -> None:
        size = self._chance.randint(1, 4)
        for place in range(size):
            self.asked += 1
            meta = self._chance.choice([{}, {}, {}, {"q": 0}, {"q": 1000, "d": 2}])
            self.client.ask(self.asked, self._chance.choice(self._values), is_last=place == size - 1, **meta)
            self.owed.add(self.asked)

    def cancel(self) -> None:
        if self.asked:
            self.client.send(Kind.CANCEL, self._chance.randint(1, self.asked))

    def hear(self) -> None:
        if self.owed:
            frame = self.client.expect(Kind.CHUNK, *ENDS)
            assert frame.stream in self.owed
            if frame.kind is Kind.CHUNK:
                self.client.send(Kind.WINDOW, frame.stream, {"n": len(frame.body)})
            else:
                self.owed.remove(frame.stream)

    def leave(self) -> None:
        self.client.close()
        self.connect()

    def babble(self) -> None:
        """Say something that was changed on its way, over another link."""
        stranger = FrameClient(self._worker.address)
        said = bytearray(b"".join([*encode(Kind.REQ, 1, {"ct": "", "q": 9}, b"{}", LAST_OF_BATCH), *encode(Kind.WINDOW, 1, {"n": 5})]))
        for _ in range(self._chance.randint(1, 3)):
            said[self._chance.randrange(len(said))] = self._chance.randrange(256)
        stranger.socket.sendall(said[: self._chance.randint(1, len(said))])
        stranger.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_is_answered_once_whatever_happens(kind: str) -> None:
    api, values = KINDS[kind]
    assert isinstance(api, LitAPI)
    chance = random.Random(7)
    with running_worker(api, log=LogSetup(level="critical")) as worker:
        fronts = [Busy(worker, values, chance) for _ in range(3)]
        for _ in range(600):
            chance.choice(fronts).do()
        for front in fronts:
            while front.owed:
                front.hear()
            front.client.wait_until_read()  # and nothing comes before its answer
            front.client.close()
        worker.control.send(Kind.DRAIN)
        worker.control.expect(Kind.BYE)
        assert worker.wait() == 0
