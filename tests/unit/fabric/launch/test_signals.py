"""Signals become a flag, the flag a decision, the decision a `Stop`; handlers are chained and come back."""

import os
import signal
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from leyden.core.job import Job, current_job
from leyden.fabric.launch.lifeline import on_death
from leyden.fabric.launch.signals import SignalFlags, Stop, StopRequests
from leyden.fabric.launch.store import MemoryStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def _job(folder: Path) -> Job | None:
    names = ("STEP_DIR", "OUTPUT_DIR", "ATTEMPT_DIR")
    environ = {"LEYDEN_JOB_ID": "job_1", "LEYDEN_METRICS_FILE": str(folder / "metrics.jsonl")}
    return current_job(environ | {f"LEYDEN_{name}": str(folder) for name in names})


def _until_stopped(requests: StopRequests, deadline: float = 20.0) -> Stop:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if stop := requests.boundary():
            return stop
    raise AssertionError("no stop")


def test_a_handler_only_notes_the_first_signal_and_calls_the_former_handler() -> None:
    called: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: called.append(number))
    try:
        flags = SignalFlags([signal.SIGUSR1])
        signal.raise_signal(signal.SIGUSR1)
        assert flags.received == signal.SIGUSR1
        assert called == [signal.SIGUSR1]
        flags.restore()
        flags.restore()
        signal.raise_signal(signal.SIGUSR1)
        assert called == [signal.SIGUSR1] * 2
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_handlers_that_replaced_ours_stay() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    flags = SignalFlags([signal.SIGUSR1])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    flags.restore()

    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, before)


def test_another_thread_installs_no_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=SignalFlags)
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is before


def test_one_process_stops_at_the_next_boundary_and_stays_stopped() -> None:
    requests = StopRequests(MemoryStore(), 0, 1)
    assert requests.boundary() is None
    signal.raise_signal(signal.SIGTERM)

    assert requests.boundary() == Stop("SIGTERM", signal.SIGTERM, 128 + signal.SIGTERM)
    assert requests.boundary() == Stop("SIGTERM", signal.SIGTERM, 128 + signal.SIGTERM)
    requests.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_inside_a_job_the_exit_code_asks_for_a_new_attempt(tmp_path: Path) -> None:
    requests = StopRequests(MemoryStore(), 0, 1, job=lambda: _job(tmp_path))
    signal.raise_signal(signal.SIGTERM)

    assert requests.boundary() == Stop("SIGTERM", signal.SIGTERM, 75)
    requests.close()


def test_the_jobs_stop_file_is_a_request(tmp_path: Path) -> None:
    requests = StopRequests(MemoryStore(), 0, 1, job=lambda: _job(tmp_path), poll_seconds=0.005)
    (tmp_path / "stop.json").write_text('{"format": 1, "rea')  # half written
    assert requests.boundary() is None
    (tmp_path / "stop.json").write_text('{"format": 1, "reason": "preempted"}')

    assert _until_stopped(requests) == Stop("preempted", None, 75)
    requests.close()


def test_two_ranks_stop_at_one_step() -> None:
    store = MemoryStore()
    ranks = [StopRequests(store, rank, 2, poll_seconds=0.005) for rank in range(2)]
    signal.raise_signal(signal.SIGTERM)  # the later one chains to the earlier: both get it
    stops: list[Any] = [None, None]

    def work(rank: int) -> None:
        stops[rank] = _until_stopped(ranks[rank])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in reversed(ranks):
        rank.close()

    assert stops == [Stop("SIGTERM", signal.SIGTERM, 143)] * 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _two_signals(path: Path) -> None:
    on_death(path.touch)
    SignalFlags()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    os._exit(1)


def test_a_second_sigterm_flushes_and_exits_at_once(tmp_path: Path) -> None:
    process = get_context("fork").Process(target=_two_signals, args=(tmp_path / "flushed",))
    process.start()
    process.join(30)

    assert process.exitcode == 143
    assert (tmp_path / "flushed").exists()


def _forked_helper() -> None:
    signal.raise_signal(signal.SIGTERM)
    os._exit(1)


def test_a_forked_helper_dies_of_the_signal() -> None:
    flags = SignalFlags([signal.SIGTERM])
    process = get_context("fork").Process(target=_forked_helper)
    process.start()
    process.join(30)
    flags.restore()

    assert process.exitcode == -signal.SIGTERM
    assert flags.received is None
