import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from leyden.core.job import current_job
from leyden.fabric.loggers import writer_thread
from leyden.fabric.loggers.csv_file import CSVLogger
from leyden.fabric.loggers.writer_thread import WriterThread, flush_all, process_writer
from tests.support.jobs import job_environ


class ListSink:
    def __init__(self) -> None:
        self.written: list[int] = []
        self.has_written = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def prepare(self, entry: Any) -> int:
        return entry[1]

    def write(self, prepared: list[int]) -> None:
        self.gate.wait(30)
        self.written.extend(prepared)
        self.has_written.set()


def row(step: int, **values: float) -> Any:
    return 0.0, step, values


def test_rows_are_written_within_the_interval_without_being_asked() -> None:
    writer, sink = WriterThread(interval=0.01), ListSink()
    writer.open(sink, "a").put(row(1))
    assert sink.has_written.wait(10)
    assert writer.close(10)


def test_flush_writes_every_channel() -> None:
    writer, sinks = WriterThread(interval=3600), [ListSink(), ListSink()]
    for index, sink in enumerate(sinks):
        writer.open(sink, "a").put(row(index))
    assert writer.flush(10)
    assert [sink.written for sink in sinks] == [[0], [1]]
    assert writer.close(10)


def test_a_hung_back_end_delays_flush_by_its_timeout_only_and_the_others_are_written() -> None:
    writer, hung, good = WriterThread(interval=3600), ListSink(), ListSink()
    hung.gate.clear()
    writer.open(hung, "hung", is_remote=True).put(row(0))
    writer.open(good, "good").put(row(1))
    assert not writer.flush(0.2)
    assert good.written == [1], "channels that may hang come last"
    begun = time.monotonic()
    with pytest.warns(UserWarning, match=r"hung: 1 entries were not written\."):
        assert not writer.close(0.2)
    assert time.monotonic() - begun < 5
    hung.gate.set()


def test_threads_may_log_at_once() -> None:
    writer, sink = WriterThread(interval=0.001), ListSink()
    channel = writer.open(sink, "a")
    threads = [threading.Thread(target=lambda base=base: [channel.put(row(base + step)) for step in range(500)]) for base in (0, 500, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close(10)
    assert sorted(sink.written) == list(range(1500))
    for base in (0, 500, 1000):
        assert [step for step in sink.written if base <= step < base + 500] == list(range(base, base + 500))


def test_the_process_has_one_writer_and_flush_all_needs_none() -> None:
    assert flush_all()
    assert process_writer() is process_writer()
    sink = ListSink()
    process_writer().open(sink, "a").put(row(7))
    assert flush_all(10)
    assert sink.written == [7]


def test_where_no_thread_can_start_rows_are_written_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sink = ListSink()
    WriterThread().open(sink, "a").put(row(3))
    assert sink.written == [3]


def test_numbers_reach_the_job_at_most_once_a_second(tmp_path: Path) -> None:
    environ = job_environ(tmp_path)
    writer = WriterThread(interval=3600, job=current_job(environ))
    channel = writer.open(ListSink(), "a")
    metrics = Path(environ["LEYDEN_METRICS_FILE"])
    for step in range(50):
        channel.put(row(step, loss=1.0 / (step + 1), **({"accuracy": 0.5} if step == 3 else {})))
        writer.flush(10)
    writer.close(10)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [(line["step"], line["value"]) for line in lines if line["name"] == "loss"]
    assert losses[0] == (0, 1.0)
    assert losses[-1] == (49, 1.0 / 50)
    assert len(losses) < 10, "fifty rounds took less than a second each"
    assert "accuracy" in {line["name"] for line in lines}


def test_text_and_steps_do_not_reach_the_job(tmp_path: Path) -> None:
    environ = job_environ(tmp_path)
    writer = WriterThread(interval=3600, job=current_job(environ))
    writer.open(ListSink(), "a").put((0.0, 1, {"note": "warm-up", "step": 5, "loss": 0.5}))
    assert writer.close(10)
    lines = [json.loads(line) for line in Path(environ["LEYDEN_METRICS_FILE"]).read_text().splitlines()]
    assert [(line["name"], line["step"]) for line in lines] == [("loss", 1)]


def log_in_child(logger: CSVLogger, step: int) -> None:
    logger.log_metrics({"loss": 0.5}, step=step)  # nothing saves: the end of the child has to


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_starts_its_own_thread_and_writes_only_its_own_rows(tmp_path: Path) -> None:
    parent = CSVLogger(tmp_path, version="parent", flush_logs_every_n_steps=10_000)
    parent.log_metrics({"loss": 1.0}, step=0)
    parent_rows = parent.experiment.metrics
    child = CSVLogger(tmp_path, version="child")
    process = multiprocessing.get_context("fork").Process(target=log_in_child, args=(child, 7))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert (tmp_path / "lightning_logs/child/metrics.csv").read_text() == "loss,step\n0.5,7\n"
    parent.log_metrics({"loss": 2.0}, step=1)
    parent.save()
    assert (tmp_path / "lightning_logs/parent/metrics.csv").read_text() == "loss,step\n1.0,0\n2.0,1\n"
    assert parent_rows in ([], [{"loss": 1.0, "step": 0}])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_logger_that_has_logged_goes_on_in_a_forked_child(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, version="one")
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    process = multiprocessing.get_context("fork").Process(target=log_in_child, args=(logger, 1))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert (tmp_path / "lightning_logs/one/metrics.csv").read_text() == "loss,step\n1.0,0\n0.5,1\n"


def test_fork_hooks_hold_channels_only_while_forking() -> None:
    sink = ListSink()
    channel = process_writer().open(sink, "a")
    writer_thread._before_fork()
    channel.put(row(1))
    assert not channel.drain(patience=0)
    writer_thread._after_fork_in_parent()
    assert flush_all(10)
    assert sink.written == [1]
