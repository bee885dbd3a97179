"""How workers begin and end: set up, drained, killed, left alone; and what they tell their supervisor."""

import os
import sys
from typing import Any

from leyden.serve.callbacks.callback import Callback
from leyden.serve.control import ORPHANED, SETUP_FAILED
from leyden.serve.wire import Kind
from leyden.serve.worker import FAILED
from tests.support.frame_client import running_worker, starting_worker
from tests.support.processes import running_script
from tests.support.serve_apis import Batch, Broken, Echo


def test_a_worker_that_drains_finishes_what_it_has() -> None:
    with running_worker(Echo(), token="t") as worker:
        client, silent = worker.connect(token="t"), worker.connect(token="t")
        wrong = worker.connect(token="u", greets=False)
        wrong.send(Kind.HELLO, meta={"v": 1, "token": "u"})
        assert wrong.receive() is None
        client.ask(1, {"input": "wait"})
        client.ask(2, {"input": 2})
        client.wait_until_read()
        worker.control.send(Kind.DRAIN)
        client.expect(Kind.DRAIN)
        client.ask(3, {"input": 3})  # on its way when DRAIN came
        client.send(Kind.DRAIN)
        client.send(Kind.CANCEL, 1)
        assert list(client.answers(3)) == [1, 2, 3]
        client.expect(Kind.BYE)
        silent.expect(Kind.DRAIN)  # never answers it
        silent.expect(Kind.BYE)
        worker.control.expect(Kind.BYE)
        assert worker.wait() == 0


def test_a_setup_that_raises_is_told_with_its_traceback() -> None:
    with starting_worker(Broken()) as worker:
        state = worker.control.expect(Kind.STATE)
        assert state.meta == {"state": "failed", "message": "setup() raised OSError: no weights"}
        assert 'raise OSError("no weights")' in bytes(state.body).decode()
        assert worker.control.receive() is None
        assert worker.wait() == SETUP_FAILED


def test_an_api_that_cannot_be_loaded_is_told() -> None:
    api = Echo()
    api.__class__ = type("Gone", (Echo,), {"__module__": "no.such.module", "__reduce__": lambda self: (_load, ())})
    with starting_worker(api) as worker:
        state = worker.control.expect(Kind.STATE)
        assert state.meta["message"] == "Loading the API raised ImportError: no such module"
        assert worker.wait() == SETUP_FAILED


def _load() -> None:
    raise ImportError("no such module")


def test_a_worker_that_is_told_to_drain_while_it_is_set_up_leaves_after_that() -> None:
    with starting_worker(Echo()) as worker:
        worker.control.send(Kind.DRAIN)
        assert worker.control.expect(Kind.STATE).meta["state"] == "ready"
        worker.control.expect(Kind.BYE)
        assert worker.wait() == 0


def test_the_end_of_the_control_line_ends_a_worker() -> None:
    with running_worker(Echo(), dies_with_parent=False) as worker:
        client = worker.connect()
        client.ask(1, {"input": "wait"})
        client.wait_until_read()
        worker.control.close()
        assert client.receive() is None
        assert worker.wait() == ORPHANED


def test_a_worker_that_dies_ends_its_links() -> None:
    with running_worker(Echo()) as worker:
        client = worker.connect()
        client.ask(1, {"input": "exit"})
        assert client.receive() is None
        assert worker.wait() == 9


def test_a_hook_that_exits_ends_its_worker_which_says_so() -> None:
    with running_worker(Echo()) as worker:
        client = worker.connect()
        client.ask(1, {"input": "leave"})
        assert client.receive() is None
        assert worker.control.expect(Kind.STATE).meta == {"state": "failed", "message": "The worker ended: SystemExit: 5"}
        assert worker.wait() == FAILED


class Noted(Callback):
    """Tells what it was told; fails once."""

    def on_after_setup(self, *args: Any, **kwargs: Any) -> None:
        kwargs["lit_api"].log("after_setup", kwargs["lit_api"].device)
        raise ValueError("a callback harms nobody")

    def on_after_predict(self, *args: Any, **kwargs: Any) -> None:
        kwargs["lit_api"].log("after_predict", 1)


def test_callbacks_are_told_in_the_worker() -> None:
    with starting_worker(Batch(max_batch_size=4), [Noted()], logs=True, device=["cpu"]) as worker:
        assert worker.logged() == ("after_setup", ["cpu"])
        assert worker.control.expect(Kind.STATE).meta["state"] == "ready"
        client = worker.connect()
        client.ask_all({1: {"input": 1}, 2: {"input": 2}})
        client.answers(2)
        assert worker.logged() == ("after_predict", 1)
        client.ask(3, {"input": 1})
        client.answer(3)
        assert worker.logged() == ("after_predict", 1)


PARENT = """
from tests.support.frame_client import running_worker
from tests.support.serve_apis import Slow

if __name__ == "__main__":
    with running_worker(Slow()) as worker:
        client = worker.connect()
        client.ask(1, {})
        client.receive()
"""


def test_a_worker_ends_with_its_parent_even_while_it_computes() -> None:
    with running_script(PARENT, env={"PYTHONPATH": os.pathsep.join(sys.path)}) as script:
        script.wait_for_output("computing", timeout=20)
        script.send(9)
        assert script.wait_until_gone() < 1
