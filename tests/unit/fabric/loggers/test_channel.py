import logging
import threading
import time
from typing import Any

import pytest

from leyden.fabric.loggers import channel as channel_module
from leyden.fabric.loggers.channel import Channel


class ListSink:
    """Keeps what is written; fails as told."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.error: Exception | None = None
        self.bad_steps: set[int] = set()
        self.num_writes = 0

    def prepare(self, entry: Any) -> Any:
        if entry[1] in self.bad_steps:
            raise ValueError("bad entry")
        return entry[1], entry[2]

    def write(self, prepared: list[Any]) -> None:
        self.num_writes += 1
        if self.error is not None:
            raise self.error
        self.written.extend(prepared)


def make(sink: ListSink, **options: Any) -> tuple[Channel, list[str], list[Any]]:
    wakes: list[str] = []
    observed: list[Any] = []
    channel = Channel(
        sink, "TestLogger", wake=lambda: wakes.append("wake"), observe=lambda step, row: observed.append((step, row)), **options
    )
    return channel, wakes, observed


def row(step: int, **values: Any) -> tuple[float, int, dict[str, Any]]:
    return 0.0, step, values


def test_rows_are_written_in_order_and_once() -> None:
    sink = ListSink()
    channel, _, observed = make(sink)
    for step in range(5):
        channel.put(row(step, loss=lambda step=step: step * 2))
    assert channel.drain()
    assert channel.drain()
    assert sink.written == observed == [(step, {"loss": step * 2}) for step in range(5)]
    assert sink.num_writes == 1


def test_the_thread_is_woken_once_at_the_mark() -> None:
    channel, wakes, _ = make(ListSink(), wake_at=3)
    for step in range(5):
        channel.put(row(step))
    assert wakes == ["wake"]


def test_a_bad_entry_is_dropped_and_the_others_are_written(caplog: pytest.LogCaptureFixture) -> None:
    sink = ListSink()
    sink.bad_steps = {1}
    channel, _, _ = make(sink)
    for step in range(3):
        channel.put(row(step))
    channel.put(row(3, loss=lambda: 1 / 0))
    with caplog.at_level(logging.WARNING):
        assert channel.drain()
    assert [step for step, _ in sink.written] == [0, 2]
    assert channel.close() == 2
    assert len(caplog.records) == 1, "the second within a minute is not reported"
    assert "TestLogger failed; an entry is dropped. Training goes on. ValueError: bad entry" in caplog.text


def test_rows_wait_while_the_back_end_is_down(caplog: pytest.LogCaptureFixture) -> None:
    sink = ListSink()
    channel, _, _ = make(sink)
    sink.error = ConnectionError("refused")
    channel.put(row(0))
    assert not channel.drain()
    channel.put(row(1))
    assert not channel.drain()
    assert channel.num_waiting == 2
    sink.error = None
    assert channel.drain()
    assert [step for step, _ in sink.written] == [0, 1]
    assert channel.close() == 0
    assert caplog.text.count("refused") >= 1
    assert len(caplog.records) == 1


def test_rows_are_dropped_when_the_back_end_refuses_them() -> None:
    sink = ListSink()
    sink.error = ValueError("no such project")
    channel, _, _ = make(sink)
    channel.put(row(0))
    assert channel.drain()
    sink.error = None
    channel.put(row(1))
    channel.drain()
    assert [step for step, _ in sink.written] == [1]
    assert channel.close() == 1


def test_errors_are_reported_again_after_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(channel_module.time, "monotonic", lambda: now[0])
    sink = ListSink()
    sink.error = OSError("down")
    channel, _, _ = make(sink)
    channel.put(row(0))
    for _ in range(121):
        channel.drain()
        now[0] += 1.0
    assert len(caplog.records) == 3


def test_a_full_queue_writes_in_the_caller_with_one_warning() -> None:
    sink = ListSink()
    channel, _, _ = make(sink, limit=10)
    for step in range(10):
        channel.put(row(step))
    with pytest.warns(UserWarning, match="10 entries wait to be written"):
        channel.put(row(10))
    for step in range(11, 25):  # a second warning would be an error here
        channel.put(row(step))
    channel.drain()
    assert [step for step, _ in sink.written] == list(range(25))
    assert channel.close() == 0


def test_a_full_queue_before_a_service_waits_for_the_thread() -> None:
    sink = ListSink()
    asked = threading.Event()
    channel = Channel(sink, "TestLogger", wake=asked.set, observe=lambda step, values: None, limit=4, is_remote=True)

    def drain_when_asked() -> None:
        asked.wait(10)
        while channel.num_waiting > 4 or len(sink.written) < 5:
            channel.drain()

    thread = threading.Thread(target=drain_when_asked)
    for step in range(4):
        channel.put(row(step))
    asked.clear()
    thread.start()
    with pytest.warns(UserWarning, match="logging waits too"):
        channel.put(row(4))
    thread.join(10)
    assert [step for step, _ in sink.written] == list(range(5))


def test_while_the_back_end_is_down_the_oldest_rows_go_and_nobody_waits() -> None:
    sink = ListSink()
    sink.error = OSError("down")
    channel, _, _ = make(sink, limit=10)
    channel.put(row(0))
    channel.drain()
    begun = time.monotonic()
    for step in range(1, 31):
        channel.put(row(step))
    assert time.monotonic() - begun < 5
    sink.error = None
    while not channel.drain() or channel.pending:
        pass
    assert [step for step, _ in sink.written] == [0, *range(21, 31)]
    assert channel.close() == 20


def test_a_hung_drain_holds_nobody_up() -> None:
    channel, _, _ = make(ListSink())
    channel.put(row(0))
    assert channel.hold(patience=0)
    assert not channel.drain(patience=0.01)
    channel.let_go()
    assert channel.drain(patience=0.01)


def test_an_abandoned_channel_forgets_and_counts_nothing() -> None:
    sink = ListSink()
    channel, _, _ = make(sink)
    channel.put(row(0))
    channel.hold(patience=0)
    channel.abandon()
    assert channel.closed
    assert channel.drain(patience=0)
    assert sink.written == []
