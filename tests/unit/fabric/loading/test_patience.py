"""Workers of loaders and SIGTERM: they wait for whoever reads from them, and go when it goes or when they are told twice."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import pytest

from leyden.fabric.loading.patience import begin_worker


def work(own: Connection, initialised: list[int]) -> None:
    begin_worker(3, initialised.append)
    own.send(initialised)
    while own.recv():
        own.send("still here")


@pytest.fixture
def worker() -> Any:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, []), daemon=True)
    process.start()
    assert ours.recv() == [3]  # the loader's own function was called
    yield process, ours
    process.kill()
    process.join()


def test_a_worker_outlives_one_sigterm_and_obeys_a_second(worker: Any) -> None:
    process, pipe = worker
    os.kill(process.pid, signal.SIGTERM)
    pipe.send(True)
    assert pipe.recv() == "still here"
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == -signal.SIGTERM


def test_a_worker_that_is_done_ends_by_itself(worker: Any) -> None:
    process, pipe = worker
    os.kill(process.pid, signal.SIGTERM)
    pipe.send(False)
    process.join(20)
    assert process.exitcode == 0
