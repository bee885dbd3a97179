"""`set_trace` in workers of a server that has a terminal, and of one that has none."""

import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import ROOT, running_script

SCRIPT = """
import leyden.serve as ls


class Api(ls.LitAPI):
    def predict(self, x):
        doubled = 2 * x["input"]
        ls.set_trace()
        return {"output": doubled}


class Sometimes(ls.LitAPI):
    def predict(self, x):
        ls.set_trace_if_debug()
        ls.set_trace_if_debug("MY_DEBUG", "yes")
        return {"output": x["input"]}


if __name__ == "__main__":
    server = ls.LitServer([Api(), Sometimes(api_path="/sometimes")], accelerator="cpu", workers_per_device={"/predict": 2})
    server.run(host="127.0.0.1", port=0, generate_client_file=False)
"""
SECONDS = 60.0


class Terminal:
    """A server that was started in a terminal, and what is seen there."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.screen = ""
        self.ours, theirs = pty.openpty()
        (folder / "script.py").write_text(SCRIPT)
        paths = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "script.py"],  # a session of its own, with this terminal
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": paths, "TERM": "dumb", **environment},
        )
        os.close(theirs)

    def wait_for(self, text: str) -> list[str]:
        """Read until a text that fits has come; forget it, and return its groups."""
        deadline = time.monotonic() + SECONDS
        while (match := re.search(text, self.screen)) is None:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but {self.screen!r}"
            self.screen += os.read(self.ours, 65536).decode(errors="replace")
        self.screen = self.screen[match.end() :]
        return [match[0], *match.groups()]

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        self.process.terminate()
        reader = threading.Thread(target=self._read, daemon=True)  # a terminal that nobody reads holds up who writes
        reader.start()
        self.process.wait(SECONDS)
        os.close(self.ours)

    def _read(self) -> None:
        try:
            while os.read(self.ours, 65536):
                pass
        except OSError:
            return


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    found = Terminal(tmp_path_factory.mktemp("debugged"), LITSERVE_DEBUG="1")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def url(terminal: Terminal) -> str:
    return terminal.wait_for(r"Leyden serves .* at (http://[\d.:]+)")[1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def asked(pool: ThreadPoolExecutor, url: str, value: Any, path: str = "/predict") -> "Future[httpx.Response]":
    return pool.submit(httpx.post, url + path, json={"input": value}, timeout=SECONDS)


def test_a_hook_stops_at_the_terminal_and_goes_on(terminal: Terminal, url: str, pool: ThreadPoolExecutor) -> None:
    answer = asked(pool, url, 21)
    terminal.wait_for(r"-> return \{\"output\": doubled\}[\s\S]*\(pdb \d+\) ")
    terminal.type("p doubled\n")
    terminal.wait_for(r"\b42\b[\s\S]*\(pdb \d+\) ")
    terminal.type("doubled = 7\n")
    terminal.wait_for(r"\(pdb \d+\) ")
    terminal.type("c\n")
    assert answer.result().json() == {"output": 7}


def test_whoever_quits_fails_this_request_alone(terminal: Terminal, url: str, pool: ThreadPoolExecutor) -> None:
    answer = asked(pool, url, 1)
    terminal.wait_for(r"\(pdb \d+\) ")
    terminal.type("q\n")
    assert (answer.result().status_code, answer.result().json()["message"]) == (500, "predict() raised BdbQuit: ")
    assert httpx.get(url + "/health", timeout=SECONDS).status_code == 200


def test_two_workers_take_turns(terminal: Terminal, url: str, pool: ThreadPoolExecutor) -> None:
    answers = [asked(pool, url, number) for number in (1, 2)]
    pids = set()
    for _ in answers:
        pids.add(terminal.wait_for(r"\(pdb (\d+)\) ")[1])
        assert sum(each.done() for each in answers) == len(pids) - 1
        terminal.type("n\n")
        pids.add(terminal.wait_for(r"\(pdb (\d+)\) ")[1])
        terminal.type("c\n")
        wait([each for each in answers if not each.done()], SECONDS, FIRST_COMPLETED)
    assert len(pids) == 2
    assert [each.result().json() for each in answers] == [{"output": 2}, {"output": 4}]


def test_a_variable_of_the_environment_lets_it_stop(terminal: Terminal, url: str, pool: ThreadPoolExecutor) -> None:
    answer = asked(pool, url, 3, "/sometimes")
    terminal.wait_for(r"-> ls.set_trace_if_debug\(\"MY_DEBUG\", \"yes\"\)[\s\S]*\(pdb \d+\) ")
    terminal.type("c\n")
    assert answer.result().json() == {"output": 3}


def test_without_a_terminal_nothing_stops() -> None:
    with running_script(SCRIPT.replace("import leyden", "import os; os.setsid()\nimport leyden", 1)) as script:
        script.wait_for_output("Leyden serves")
        url = re.findall(r"at (http://[\d.:]+)", script.stdout)[0]
        assert httpx.post(url + "/predict", json={"input": 4}, timeout=SECONDS).json() == {"output": 8}
        assert httpx.post(url + "/sometimes", json={"input": 4}, timeout=SECONDS).json() == {"output": 4}
        assert re.search(r"set_trace\(\) at \S+script.py:9 stops nothing: this server has no terminal", script.stderr)
