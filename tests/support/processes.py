"""Real scripts for tests: started in a process of their own, waited for with a deadline, and searched for what they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MARK = "SCRIPT_UNDER_TEST"  # every descendant inherits it, so every one is found


class DeadlineError(AssertionError):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Finished:
    """How a script ended: `code` is negative for a signal."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Script:
    """A running script. Use `running_script`, which leaves nothing behind."""

    def __init__(self, path: Path, args: Sequence[str], env: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        environment = {name: value for name, value in os.environ.items() if name not in _RANK_VARIABLES}
        paths = f"{ROOT}{os.pathsep}{ROOT / 'src'}"  # the tree that these tests are of, wherever an installation is linked to
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", _MARK: self._mark, **env}
        self.folder = path.parent
        self._output = (self.folder / "stdout").open("wb")
        self._errors = (self.folder / "stderr").open("wb")
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(path), *args], cwd=self.folder, env=environment, stdout=self._output, stderr=self._errors
        )

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def wait(self, timeout: float = 100.0) -> Finished:
        """Wait until the script itself has ended."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"still running after {timeout} s\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}") from None
        return Finished(code, self.stdout, self.stderr, time.monotonic() - self._started)

    def wait_for_output(self, text: str, times: int = 1, timeout: float = 100.0) -> None:
        """Wait until `text` has been printed `times` times."""
        self._wait_until(lambda: self.stdout.count(text) >= times, f"{text!r} printed {times} times", timeout)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = 100.0) -> None:
        """Wait until something that the script does has happened."""
        self._wait_until(condition, what, timeout)

    def send(self, number: int) -> None:
        """Send a signal to the script itself."""
        self.process.send_signal(number)

    def send_to(self, pid: int, number: int) -> None:
        """Send a signal to one of the script's descendants, which may be gone by now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def descendants(self) -> list[int]:
        """Return the ids of all processes that came from this script, itself included (Linux)."""
        wanted = f"{_MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and wanted in (folder / "environ").read_bytes() and not _is_zombie(folder):
                    found.append(int(folder.name))
        return sorted(found)

    def wait_until_gone(self, timeout: float = 6.0) -> float:
        """Wait until no descendant is left, and return how long that took."""
        start = time.monotonic()
        self._wait_until(lambda: not self.descendants(), "no process left behind", timeout)
        return time.monotonic() - start

    def close(self) -> None:
        for pid in self.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._output.close()
        self._errors.close()

    def _wait_until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            is_over = self.process.returncode is not None and not self.descendants() and not condition()
            if is_over or time.monotonic() > deadline:
                raise DeadlineError(
                    f"not within {timeout} s: {what}; running: {self.descendants()}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
                )
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
            if self.process.returncode is not None:
                time.sleep(0.02)  # its descendants are not our children: there is nothing to wait on


_RANK_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


@contextmanager
def running_script(source: str | Path, *, args: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Script]:
    """Start a script (source text, or a path that is copied) in a folder of its own; afterwards nothing of it runs."""
    with tempfile.TemporaryDirectory(prefix="leyden-script-") as folder:
        path = Path(folder) / "script.py"
        path.write_text(source.read_text() if isinstance(source, Path) else source)
        script = Script(path, args, env or {})
        try:
            yield script
        finally:
            script.close()
