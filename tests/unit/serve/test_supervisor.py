"""The supervisor over engines that are not there: slow ones, failing ones, silent ones; and what front ends are told meanwhile."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from leyden.core.autoscale import AutoscalePolicy
from leyden.core.errors import RemoteError
from leyden.serve.effects import WorkerId
from leyden.serve.engines.base import Gone, Logged, Ready, ReplicaHandle, ReplicaSpec
from leyden.serve.fronts import FrontEvent, FrontGone, KillAsked, ShutdownAsked, WakeAsked, WorkerSilent, log_frame
from leyden.serve.log_routes import LogRoutes
from leyden.serve.metrics import Layout, Page
from leyden.serve.supervisor import Events, Replicas, Supervisor
from leyden.serve.wire import Decoder, Frame, Kind
from leyden.serve.worker import WorkerSpec

SECONDS = 20.0


class Told:
    """Something that is waited for with a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._events = deque[Any]()

    def tell(self, event: Any) -> None:
        self._events.append(event)
        os.write(self._write, b"\0")

    def events(self) -> list[Any]:
        found = []
        while self._events:
            found.append(self._events.popleft())
            os.read(self._read, 1)
        return found

    def descriptors(self) -> list[int]:
        return [self._read]

    def close_pipe(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Handle:
    node, pid = "elsewhere", 0

    def __init__(self, worker: WorkerId) -> None:
        self.worker, self.address = worker, f"/{worker.api}-{worker.index}"


class FakeEngine(Told):
    """Does with each start what `on_start` says."""

    def __init__(self, on_start: Callable[["FakeEngine", Handle], None]) -> None:
        super().__init__()
        self._on_start = on_start
        self.started, self.stopped, self.killed, self.is_closed = list[Handle](), list[ReplicaHandle](), list[ReplicaHandle](), False

    def start(self, spec: ReplicaSpec) -> ReplicaHandle:
        handle = Handle(spec.worker)
        self.started.append(handle)
        self._on_start(self, handle)
        return handle

    def stop(self, handle: ReplicaHandle, drain_seconds: float) -> None:
        self.stopped.append(handle)
        self.tell(Gone(handle, "it has drained"))

    def kill(self, handle: ReplicaHandle, why: str) -> None:
        self.killed.append(handle)
        self.tell(Gone(handle, why))

    def next_wakeup(self) -> float | None:
        return None

    def close(self) -> None:
        self.is_closed = True


class FakeFronts(Told):
    """Front ends that note what they are told, and are gone once they are told to drain."""

    def __init__(self) -> None:
        super().__init__()
        self.logged = list[bytes]()
        self.frames, self.num_starts, self._decoder, self._drains = list[Frame](), 0, Decoder(), False
        self.is_serving = True

    def start(self, greeting: Callable[[], Iterable[bytes]]) -> None:
        self.num_starts += 1
        for frame in greeting():
            self.tell_frame(frame)

    def tell_frame(self, frame: bytes) -> None:
        self.frames += self._decoder.feed(frame)

    def log(self, frame: bytes) -> bool:
        self.logged.append(frame)
        return len(self.logged) < 3

    def stop(self) -> None:
        self._drains = True

    def are_serving(self) -> bool:
        return self.is_serving

    def are_gone(self) -> bool:
        return self._drains

    def close(self) -> None:
        pass

    def said(self, name: str) -> list[Any]:
        return [frame.meta[name] for frame in self.frames if name in frame.meta]


class Fronts:
    """`FakeFronts` with the name that the supervisor calls."""

    def __init__(self, fake: FakeFronts) -> None:
        self.start, self.stop, self.are_gone, self.close = fake.start, fake.stop, fake.are_gone, fake.close
        self.are_serving = fake.are_serving
        self.events: Callable[[], Sequence[FrontEvent]] = fake.events
        self.descriptors, self.tell = fake.descriptors, fake.tell_frame
        self.writing: Callable[[], Sequence[int]] = list
        self.log = fake.log


class Run:
    """A supervisor in a thread."""

    def __init__(self, engine: FakeEngine, count: int = 1, autoscale: AutoscalePolicy | None = None, **options: Any) -> None:
        self.engine, self.fronts = engine, FakeFronts()
        spec = WorkerSpec(packed=b"", api=0, name="w", address="", device="cpu")
        self.pages = [Page(Layout(["/predict"])) for _ in range(2)]
        events = Events(logs=LogRoutes(reaches_fronts=True))
        self.supervisor = Supervisor(
            [Replicas(path="/predict", count=count, specs=[spec], autoscale=autoscale)],
            engine,
            Fronts(self.fronts),
            self.pages,
            events=events,
            **options,
        )
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.002)

    def counted(self, name: str) -> float:
        return self.pages[1].values[Layout(["/predict"]).slot(name, 0)]

    def counted_workers(self) -> float:
        return self.pages[1].values[Layout(["/predict"]).slot("workers", 0, "ready")]

    def end(self) -> None:
        self.supervisor.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def supervised(on_start: Callable[[FakeEngine, Handle], None], count: int = 1, **options: Any) -> Iterator[Run]:
    run = Run(FakeEngine(on_start), count, **options)
    try:
        yield run
    finally:
        run.end()
        run.engine.close_pipe()
        run.fronts.close_pipe()


def at_once(engine: FakeEngine, handle: Handle) -> None:
    engine.tell(Ready(handle, 0.1))


def silent(engine: FakeEngine, handle: Handle) -> None:
    del engine, handle


def refusing(engine: FakeEngine, handle: Handle) -> None:
    raise OSError(f"no machine for {handle.worker}")


def failing(engine: FakeEngine, handle: Handle) -> None:
    engine.tell(Gone(handle, "setup() raised ValueError", "Traceback: here"))


def test_workers_are_told_to_front_ends_when_they_are_ready_and_drained_at_the_end() -> None:
    with supervised(at_once, 2) as run:
        assert run.supervisor.started.wait(SECONDS)
        assert sorted(map(tuple, run.fronts.said("up"))) == [(0, 0), (0, 1)]
        assert sorted(run.fronts.said("at")) == ["unix:/0-0", "unix:/0-1"]
        assert run.fronts.said("wanted") == [2]
        assert len(run.supervisor.workers) == 2
    assert run.error is None
    assert len(run.engine.stopped) == 2
    assert run.engine.is_closed
    assert run.fronts.frames[-1].kind is Kind.STATE, "the workers went after the front ends"
    assert Kind.DRAIN in [frame.kind for frame in run.fronts.frames]


def test_nothing_is_announced_before_the_front_ends_take_requests() -> None:
    with supervised(silent) as run:
        run.fronts.is_serving = False
        run.wait(lambda: len(run.engine.started) == 1, "it is started")
        run.engine.tell(Ready(run.engine.started[0], 0.1))
        run.wait(lambda: run.counted_workers() == 1, "the worker is ready")
        assert not run.supervisor.started.is_set()
        run.fronts.is_serving = True
        run.supervisor.wake()
        assert run.supervisor.started.wait(SECONDS)


def test_a_front_end_that_cannot_start_ends_the_server() -> None:
    with supervised(silent) as run:
        run.fronts.tell(FrontGone(0, "ended with status 3", could_not_start=True))
        run.wait(lambda: run.error is not None, "it ends")
        assert isinstance(run.error, RemoteError)
        assert "the front end could not start (ended with status 3), so the server stops" in str(run.error)
        assert run.fronts.num_starts == 1


def test_slow_and_silent_engines_hold_up_nothing_but_their_workers() -> None:
    with supervised(silent, 2) as run:
        run.wait(lambda: len(run.engine.started) == 2, "both are started")
        run.engine.tell(Ready(run.engine.started[1], 3.0))
        run.wait(lambda: run.fronts.said("up") == [[0, 1]], "the one that is ready is told")
        assert not run.supervisor.started.is_set()
    assert run.error is None


def test_a_dead_worker_is_told_and_started_again() -> None:
    with supervised(at_once) as run:
        assert run.supervisor.started.wait(SECONDS)
        run.engine.tell(Gone(run.engine.started[0], "SIGKILL"))
        run.wait(lambda: len(run.engine.started) == 2 and len(run.fronts.said("up")) == 2, "it is back")
        assert run.fronts.said("down") == [[0, 0]]


@pytest.mark.parametrize(("on_start", "message"), [(failing, "setup.. raised ValueError\nTraceback: here"), (refusing, "no machine for")])
def test_an_api_that_cannot_start_stops_the_server(on_start: Callable[[FakeEngine, Handle], None], message: str) -> None:
    with supervised(on_start) as run:
        assert run.supervisor.started.wait(SECONDS)
    assert isinstance(run.error, RemoteError)
    assert run.supervisor.error is run.error
    with pytest.raises(RemoteError, match=message):
        raise run.error
    assert run.engine.is_closed


def test_without_restarts_a_death_ends_the_server() -> None:
    with supervised(at_once, restarts=False) as run:
        assert run.supervisor.started.wait(SECONDS)
        run.engine.tell(Gone(run.engine.started[0], "SIGSEGV"))
        run.wait(lambda: run.error is not None, "it stops")
    assert "restart_workers=False" in str(run.error)
    assert len(run.engine.started) == 1


def test_what_front_ends_ask_and_what_becomes_of_them() -> None:
    with supervised(at_once) as run:
        assert run.supervisor.started.wait(SECONDS)
        run.fronts.tell(FrontGone(0, "was killed"))
        run.wait(lambda: run.fronts.num_starts == 2, "it is started again")
        assert run.fronts.said("up") == [[0, 0], [0, 0]], "and greeted"
        run.fronts.tell(ShutdownAsked())
        run.wait(lambda: run.engine.is_closed, "it stops")
    assert run.error is None


def test_what_workers_log_is_handed_on_and_what_is_dropped_is_counted() -> None:
    with supervised(at_once) as run:
        assert run.supervisor.started.wait(SECONDS)
        for number in range(3):
            run.engine.tell(Logged(0, "size", bytes([number]), dropped=number))
        frames = [log_frame(0, "size", bytes([number])) for number in range(3)]
        run.wait(lambda: run.fronts.logged == frames, "they are handed on")
        run.wait(lambda: run.counted("log_dropped_total") == 4, "three that workers dropped, one that a front end did")


def test_a_worker_that_goes_on_is_killed_and_started_again() -> None:
    with supervised(at_once) as run:
        assert run.supervisor.started.wait(SECONDS)
        run.fronts.tell(KillAsked(WorkerId(0, 0), "unix:/of-another-one"))
        run.fronts.tell(KillAsked(WorkerId(0, 7), "unix:/0-7"))
        run.fronts.tell(KillAsked(WorkerId(0, 0), "unix:/0-0"))
        run.wait(lambda: len(run.fronts.said("up")) == 2, "it is back")
        assert run.engine.killed == [run.engine.started[0]]
        assert run.counted("worker_restarts_total") == 1


def test_a_worker_that_says_nothing_is_told_once_by_however_many_front_ends(caplog: pytest.LogCaptureFixture) -> None:
    with supervised(at_once) as run:
        assert run.supervisor.started.wait(SECONDS)
        for at in ("unix:/0-0", "unix:/0-0", "unix:/of-another-one"):
            run.fronts.tell(WorkerSilent(WorkerId(0, 0), at, 60.0))
        run.fronts.tell(FrontGone(0, "was killed"))
        run.wait(lambda: run.fronts.num_starts == 2, "all was heard")
        assert run.counted("worker_hangs_total") == 1
    assert caplog.text.count("worker 0 of /predict has said nothing for 60 s, and has requests") == 1


def test_who_waits_for_an_api_that_sleeps_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.serve.scaling.LOOK_SECONDS", 1e6)
    policy = AutoscalePolicy(min_replicas=0, initial_replicas=1, max_replicas=2)
    with supervised(at_once, 0, autoscale=policy) as run:
        assert run.supervisor.started.wait(SECONDS)
        run.pages[0].set(Layout(["/predict"]).slot("queue_depth", 0), 1)
        run.pages[0].set(Layout(["/predict"]).slot("inflight", 0), 1)
        run.fronts.tell(WakeAsked(0))
        run.wait(lambda: run.fronts.said("up") == [[0, 0]], "it is awake")
        assert run.fronts.said("wanted") == [0, 1]
