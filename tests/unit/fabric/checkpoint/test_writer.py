import threading

import pytest

from leyden.fabric.checkpoint.writer import Writer


def test_one_save_at_a_time_in_order() -> None:
    writer, gate, seen = Writer(), threading.Event(), []
    writer.submit(lambda: (gate.wait(10), seen.append("first")))
    assert writer.is_busy
    assert seen == []
    gate.set()
    writer.submit(lambda: seen.append("second"))
    assert seen[0] == "first"
    writer.wait()
    assert seen == ["first", "second"]
    assert not writer.is_busy


def test_an_error_surfaces_once_at_the_next_call() -> None:
    writer, ran = Writer(), []

    def fail() -> None:
        raise OSError("disk")

    writer.submit(fail)
    with pytest.raises(OSError, match="disk"):
        writer.submit(lambda: ran.append(1))
    assert ran == []
    writer.submit(lambda: ran.append(1))
    writer.wait()
    assert ran == [1]


def test_what_follows_runs_after_the_save_in_its_thread() -> None:
    writer, gate, seen = Writer(), threading.Event(), []
    writer.submit(lambda: (gate.wait(10), seen.append("save")))
    writer.then(lambda: seen.append(threading.current_thread().name))
    assert seen == []
    gate.set()
    writer.wait()
    assert seen == ["save", "leyden-checkpoint-writer"]


def test_what_follows_runs_at_once_when_nothing_is_written() -> None:
    writer, seen = Writer(), []
    writer.then(lambda: seen.append(threading.current_thread()))
    assert seen == [threading.current_thread()]


def test_what_follows_a_failed_save_is_dropped() -> None:
    writer, gate, seen = Writer(), threading.Event(), []

    def fail() -> None:
        gate.wait(10)
        raise OSError("disk")

    writer.submit(fail)
    writer.then(lambda: seen.append(1))
    gate.set()
    with pytest.raises(OSError, match="disk"):
        writer.wait()
    writer.then(lambda: seen.append(2))
    assert seen == [2]


def test_waiting_inside_the_thread_is_no_deadlock() -> None:
    writer, seen = Writer(), []
    writer.submit(lambda: (writer.wait(), seen.append(1)))
    writer.wait()
    assert seen == [1]


def test_what_the_thread_submits_is_part_of_what_it_does() -> None:
    writer, seen = Writer(), []
    writer.submit(lambda: (writer.submit(lambda: seen.append("inner")), seen.append("outer")))
    writer.wait()
    assert seen == ["inner", "outer"]
