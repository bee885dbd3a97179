"""Starts the servers that are measured, each in a session of its own, and says what all of its processes cost.

`serve_peers/` has one file for each: FastAPI, mosec, and LitServe, which Leyden shares but for one import. A server is ready when
it has answered its first request with 200; whatever it started is stopped by its recorded number, and looked for afterwards.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SERVERS = Path(__file__).resolve().parent / "serve_peers"
PATHS = {"mosec": "/inference"}  # the others answer at /predict
NUMBER = b'{"input": 4.0}'
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS, _STOP_SECONDS = 120.0, 20.0


class Ended(NamedTuple):
    """How a server ended.

    Args:
        status: Its exit status; `None` if it had to be killed.
        left: How many of its processes were still there then.
    """

    status: int | None
    left: int


class Server:
    """A server that runs.

    Args:
        library: `"leyden"`, or a folder of `serve_peers`.
        case: A service of its file.
        folder: For files.
        script: The name of its file.
        options: Of the file's command line: `batch=16` is `--batch=16`.
    """

    def __init__(self, library: str, case: str, folder: str, *, script: str = "server.py", **options: object) -> None:
        self.port, self.path = free_port(), PATHS.get(library, "/predict")
        self._file = Path(folder) / "output.txt"
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, _script(library, folder, script), case, str(self.port), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as on users' machines
        searched = [os.environ.get("PYTHONPATH"), str(SERVERS.parents[1])]  # the second one for serve_peers/networks.py
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, searched))
        self._started = time.perf_counter()
        with self._file.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
        self.seconds_to_200 = 0.0
        self._ended: Ended | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        return self._file.read_text(encoding="utf-8", errors="replace")[-4000:]

    def pids(self) -> list[int]:
        """Return the numbers of its processes, orphans too."""
        return [int(fields[0]) for fields in _stats() if fields[5] == str(self.process.pid) and fields[2] != "Z"]

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have taken, those that have ended included."""
        own = [fields for fields in _stats() if fields[5] == str(self.process.pid)]
        return sum(sum(map(int, fields[13:17])) for fields in own) / _TICKS

    def megabytes(self) -> float:
        """Return the memory of its processes; what several share is counted once."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8") for pid in self.pids()]
        return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024

    def wait(self, body: bytes, kind: str, *, slow_at: float = 0.01) -> bytes:
        """Return its first answer that has the status 200.

        Args:
            body: The request.
            kind: Its content type.
            slow_at: Seconds between two tries.
        """
        while time.perf_counter() - self._started < _START_SECONDS and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self.ask(body, kind)
                if status == 200:
                    self.seconds_to_200 = time.perf_counter() - self._started
                    return answer
                if status != 503:  # which means: not yet
                    raise RuntimeError(f"the server answers its first request with {status}: {answer!r:.500}\n{self.output}")
            time.sleep(slow_at)
        raise RuntimeError(f"the server does not answer (status {self.process.poll()}):\n{self.output}")

    def ask(self, body: bytes, kind: str = "application/json", timeout: float = 30.0) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", self.path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def settle(self) -> None:
        """Wait until another route answers too, whatever it says: what a server loads after its first answer is loaded by then."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
        finally:
            connection.close()

    def stop(self) -> Ended:
        """Ask it to end, once, wait for that, and end by force what is left."""
        if self._ended is not None:
            return self._ended
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        left = self._left(1.0 if status is not None else 0.0)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if there := self._left(_STOP_SECONDS):
            raise RuntimeError(f"processes of the server are still there: {there}")
        self._ended = Ended(status, len(left))
        return self._ended

    def _left(self, seconds: float) -> list[int]:
        """Return which of its processes are there after at most so many seconds."""
        until = time.monotonic() + seconds
        while (left := self.pids()) and time.monotonic() < until:
            time.sleep(0.02)
        return left


@contextlib.contextmanager
def serving(library: str, case: str, body: bytes = NUMBER, kind: str = "application/json", **options: Any) -> Iterator[Server]:
    """Run a server until the context ends.

    Args:
        library: `"leyden"`, or a folder of `serve_peers`.
        case: A service of its file.
        body: The request that it must answer.
        kind: Its content type.
        options: Of `Server`.
    """
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as folder:
        server = Server(library, case, folder, **options)
        try:
            server.wait(body, kind)
            server.settle()
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def vector_body() -> bytes:
    """Return a request of the network."""
    return json.dumps({"input": [round(index / 64 - 0.5, 6) for index in range(64)]}).encode()


def form_body(size: int) -> tuple[bytes, str]:
    """Return a form with a file of so many bytes, and its content type."""
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return head + b"x" * size + b"\r\n--edge--\r\n", "multipart/form-data; boundary=edge"


def _script(library: str, folder: str, name: str) -> str:
    """Return the file that is run; Leyden's is LitServe's, its imports changed."""
    if library != "leyden":
        return str(SERVERS / library / name)
    source = (SERVERS / "litserve" / name).read_text(encoding="utf-8")
    for theirs, ours in {"import litserve as ls": "import leyden.serve as ls", "from litserve.": "from leyden.serve."}.items():
        source = source.replace(theirs, ours)
    script = Path(folder) / name
    script.write_text(source, encoding="utf-8")
    return str(script)


def _stats() -> Iterator[list[str]]:
    """Yield the fields of `/proc/PID/stat`; the name, which may hold spaces, is left empty."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                before, _, after = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
                yield [before.partition(" ")[0], "", *after.split()]
