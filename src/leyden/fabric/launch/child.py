"""One child of a launcher, and how a failed one is described."""

import contextlib
import os
import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import Popen

from leyden.core.errors import RankFailedError
from leyden.fabric.launch.lifeline import ErrorReport


@dataclass(eq=False)
class Child:
    """A started rank."""

    rank: int
    process: "Popen[bytes] | BaseProcess"
    error_file: Path
    lifeline: int | None
    exit_code: int | None = None
    was_ended: bool = False
    left_at: float = 0.0
    order: int = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid or 0

    @property
    def is_attached(self) -> bool:
        """Whether it listens to its lifeline."""
        return self.error_file.with_suffix(".attached").exists()

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; `None` while it runs."""
        if self.exit_code is None:
            process = self.process
            self.exit_code = process.poll() if isinstance(process, Popen) else process.exitcode
        return self.exit_code

    def wait(self) -> None:
        """Wait until it is gone."""
        if isinstance(self.process, Popen):
            self.process.wait()
        else:
            self.process.join()

    def end(self) -> None:
        """Let go of its lifeline; one that does not listen yet has nothing to flush."""
        self.was_ended = True
        self.hang_up()
        if not self.is_attached:
            self.kill()

    def hang_up(self) -> None:
        """Close the lifeline. The byte matters where a fork (a data loader's worker) holds the pipe open as well."""
        if self.lifeline is not None:
            with contextlib.suppress(OSError):
                os.write(self.lifeline, b"x")
                os.close(self.lifeline)
            self.lifeline = None

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.poll() is None:
            self.process.kill()


@dataclass(frozen=True)
class Failure:
    """Which rank failed first, and how."""

    rank: int
    pid: int
    exit_code: int
    report: ErrorReport | None
    was_attached: bool = True

    @property
    def status(self) -> int:
        """The exit status this process should end with."""
        return 128 - self.exit_code if self.exit_code < 0 else self.exit_code or 1

    @property
    def is_lost_peer(self) -> bool:
        """Whether the rank only noticed that another one is gone."""
        return self.report is not None and self.report.lost_peer

    @property
    def message(self) -> str:
        """One line, with the way out where the exit status tells it."""
        if self.exit_code < 0:
            text = f"rank {self.rank} (pid {self.pid}) was killed by {_signal_name(-self.exit_code)} (exit code {self.status})"
            return f"{text}; often memory ran out: see dmesg" if self.exit_code == -signal.SIGKILL else text
        text = f"rank {self.rank} (pid {self.pid}) failed with exit code {self.exit_code}"
        if self.report is not None:
            return f"{text}: {self.report.type}: {self.report.message}"
        return text if self.was_attached else f"{text} before it reached Leyden; its own output says why"

    def error(self) -> RankFailedError:
        """Return the error to raise."""
        trace = self.report.traceback if self.report is not None else ""
        return RankFailedError(self.message, trace, rank=self.rank, exit_code=self.status)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
