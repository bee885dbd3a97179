"""What every `ReplicaEngine` promises: workers become ready and can be reached, their ends are told once and with the reason,
a drained worker finishes first, and after `close` nothing is left.

A subclass makes the engine. Its workers are APIs of `tests.support.serve_apis`.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leyden.serve.api import LitAPI
from leyden.serve.effects import WorkerId
from leyden.serve.engines.base import Gone, Logged, Ready, ReplicaEngine, ReplicaEvent, ReplicaSpec
from leyden.serve.worker import WorkerSpec, packed
from tests.support.frame_client import FrameClient, value_of
from tests.support.serve_apis import Echo, FailsSetUp, Square

SECONDS = 30.0


def spec_of(api: LitAPI, index: int = 0) -> ReplicaSpec:
    return ReplicaSpec(
        WorkerId(0, index), WorkerSpec(packed=packed(api, ()), api=0, name=f"/predict {index}", address="", device="cpu", logs=True)
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.005)


class EngineSuite:
    """Subclass with `made`."""

    def made(self) -> ReplicaEngine:
        raise NotImplementedError

    @pytest.fixture
    def engine(self) -> Iterator[ReplicaEngine]:
        engine = self.made()
        yield engine
        engine.close()

    def wait(self, engine: ReplicaEngine, kind: type, count: int = 1) -> list[Any]:
        """Return the first events of a kind, waiting as a supervisor does."""
        found = list[ReplicaEvent]()
        deadline = time.monotonic() + SECONDS
        while sum(isinstance(event, kind) for event in found) < count:
            assert time.monotonic() < deadline, found
            poll = select.poll()
            for descriptor in engine.descriptors():
                poll.register(descriptor, select.POLLIN)
            due = engine.next_wakeup()
            poll.poll(1000 * min(1.0, SECONDS if due is None else max(0.0, due - time.monotonic())))
            found += engine.events()
        return [event for event in found if isinstance(event, kind)]

    def test_workers_become_ready_and_answer_at_their_addresses(self, engine: ReplicaEngine) -> None:
        handles = [engine.start(spec_of(Square(), index)) for index in range(2)]
        ready = self.wait(engine, Ready, 2)
        assert {event.replica.worker for event in ready} == {WorkerId(0, 0), WorkerId(0, 1)}
        assert all(event.setup_seconds >= 0 for event in ready)
        for handle in handles:
            with closing(FrameClient(handle.address)) as client:
                client.ask(1, {"input": 3})
                assert value_of(client.answer(1)) == {"output": 9}
            assert handle.node
            assert handle.pid > 0

    def test_a_killed_worker_is_told_once_with_the_signal(self, engine: ReplicaEngine) -> None:
        handle = engine.start(spec_of(Square()))
        self.wait(engine, Ready)
        os.kill(handle.pid, signal.SIGKILL)
        (gone,) = self.wait(engine, Gone)
        assert gone.replica is handle
        assert "SIGKILL" in gone.why
        assert engine.events() == []

    def test_a_setup_that_raises_is_told_with_its_traceback(self, engine: ReplicaEngine) -> None:
        engine.start(spec_of(FailsSetUp()))
        (gone,) = self.wait(engine, Gone)
        assert "setup" in gone.why
        assert "Traceback" in gone.traceback

    def test_a_drained_worker_finishes_what_it_has(self, engine: ReplicaEngine, tmp_path: Path) -> None:
        handle = engine.start(spec_of(Square()))
        self.wait(engine, Ready)
        with closing(FrameClient(handle.address)) as client:
            client.ask(1, {"input": [str(tmp_path / "go")]})
            wait_for(tmp_path / "go.pid")
            engine.stop(handle, SECONDS)
            assert engine.next_wakeup() is not None
            (tmp_path / "go").touch()
            assert value_of(client.answer(1)) == {"output": "done"}
            (gone,) = self.wait(engine, Gone)
        assert gone.replica is handle

    def test_a_worker_that_does_not_drain_is_ended_in_time(self, engine: ReplicaEngine, tmp_path: Path) -> None:
        handle = engine.start(spec_of(Square()))
        self.wait(engine, Ready)
        with closing(FrameClient(handle.address)) as client:
            client.ask(1, {"input": [str(tmp_path / "never")]})
            wait_for(tmp_path / "never.pid")
            engine.stop(handle, 0.1)
            assert "SIGKILL" in self.wait(engine, Gone)[0].why

    def test_a_worker_that_is_to_end_at_once_ends_and_says_why(self, engine: ReplicaEngine, tmp_path: Path) -> None:
        handle = engine.start(spec_of(Square()))
        self.wait(engine, Ready)
        with closing(FrameClient(handle.address)) as client:
            client.ask(1, {"input": [str(tmp_path / "never")]})
            wait_for(tmp_path / "never.pid")
            engine.kill(handle, "it does not listen")
            engine.kill(handle, "it does not listen at all")
            (gone,) = self.wait(engine, Gone)
            assert client.receive() is None
        engine.kill(handle, "it is gone")
        assert (gone.replica, gone.why, engine.events()) == (handle, "it does not listen", [])

    def test_what_workers_log_comes_through(self, engine: ReplicaEngine) -> None:
        handle = engine.start(spec_of(Echo()))
        self.wait(engine, Ready)
        with closing(FrameClient(handle.address)) as client:
            client.ask(1, {"input": "log"})
            (logged,) = self.wait(engine, Logged)
        assert (logged.key, msgspec.msgpack.decode(logged.value)) == ("size", {"n": 3})

    def test_a_worker_that_is_not_ready_is_stopped_at_once(self, engine: ReplicaEngine) -> None:
        engine.stop(engine.start(spec_of(Square())), SECONDS)
        self.wait(engine, Gone)
        assert engine.next_wakeup() is None

    def test_workers_that_died_leave_nothing_open(self, engine: ReplicaEngine) -> None:
        counts = list[int]()
        for _ in range(3):  # with the first one comes what stays
            handle = engine.start(spec_of(Square()))
            os.kill(handle.pid, signal.SIGKILL)
            self.wait(engine, Gone)
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
        assert counts[0] == counts[1] == counts[2]

    def test_nothing_is_left_after_close(self) -> None:
        engine = self.made()
        pids = [engine.start(spec_of(Square(), index)).pid for index in range(2)]
        engine.close()
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        assert engine.descriptors() == []
