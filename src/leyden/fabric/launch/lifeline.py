"""A rank's end of its launcher: how it dies with the others, and what it leaves behind when it fails first.

`LEYDEN_FABRIC_ERROR_FILE` names the file for this rank's error. Beside it lie `….lifeline`, a named pipe that the launcher
holds open, and, once the rank listens, `….attached`. Whatever happens to the launcher, also `kill -9`, the pipe ends;
a thread here sees it, flushes what was registered with `on_death`, and leaves by `os._exit`. A signal would not do:
SIGTERM means "stop at an agreed step" to a rank, and Python runs no handler while C code waits for a dead peer.

Under torchrun errors are also written in its format, so that its summary shows them.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import distributed as dist

from leyden.core import settings
from leyden.core.errors import RankFailedError
from leyden.core.log import get_logger

ERROR_FILE = "LEYDEN_FABRIC_ERROR_FILE"
CHILD_SUFFIX = ".child.json"  # how the error files of our own launchers end: those have a lifeline
FLUSH_SECONDS = 4.0  # less than the launcher's five until SIGKILL
_PR_SET_PDEATHSIG = 1
_logger = get_logger(__name__)
_callbacks: list[Callable[[], object]] = []  # per process, like `atexit`'s: death is too
_attached: "dict[int, ErrorHook]" = {}  # by process id, so that a fork finds nothing


def on_death(callback: Callable[[], object]) -> Callable[[], None]:
    """Call `callback` before this process is ended without a proper exit; returns what takes it back.

    Args:
        callback: Runs in a thread, within four seconds together with the others; it must not wait for other ranks.
    """
    _callbacks.append(callback)

    def forget() -> None:
        with contextlib.suppress(ValueError):
            _callbacks.remove(callback)

    return forget


def run_death_callbacks(seconds: float = FLUSH_SECONDS) -> None:
    """Run what `on_death` registered, and go on after `seconds` even if it hangs."""
    worker = threading.Thread(target=_run_callbacks, name="leyden-last-words", daemon=True)
    worker.start()
    worker.join(seconds)


def _run_callbacks() -> None:
    for callback in tuple(_callbacks):
        try:
            callback()
        except Exception:  # the process ends anyway; the others still get their turn
            _logger.debug("a callback of on_death failed", exc_info=True)


def notify(text: str) -> None:
    """Tell the user what a watching thread sees, as a warning; a filter that makes errors of warnings must not end the thread."""
    _logger.warning(text)
    with contextlib.suppress(Warning):
        warnings.warn(text, stacklevel=3)


# -- the report of an error ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ErrorReport:
    """What a failing rank wrote.

    Args:
        rank: Its global rank.
        type: The error's class.
        message: The error's text.
        traceback: As Python shows it.
        lost_peer: Whether it only noticed that another rank is gone.
        time: When, by the system's clock.
    """

    rank: int
    type: str
    message: str
    traceback: str
    lost_peer: bool = False
    time: float = 0.0

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "ErrorReport":
        """Describe an error."""
        text = "".join(traceback.format_exception(error))
        return cls(
            rank=rank, type=type(error).__name__, message=str(error), traceback=text, lost_peer=is_lost_peer(error), time=time.time()
        )

    def write(self, path: Path) -> None:
        """Write the report, so that a reader sees all or nothing."""
        beside = path.with_suffix(".writing")
        with contextlib.suppress(OSError):  # the launcher has gone and taken its folder along
            beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
            beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ErrorReport | None":
        """Return the report at `path`, or `None` where there is none."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def is_lost_peer(error: BaseException) -> bool:
    """Return whether the error says only that the connection to another rank broke: that one knows the cause."""
    if isinstance(error, RankFailedError):
        return True
    text = str(error)
    if not isinstance(error, RuntimeError) or "imed out" in text or "timeout" in text:
        return False
    return isinstance(error, (dist.DistBackendError, dist.DistNetworkError)) or "/gloo/" in text or "NCCL" in text


# -- attaching -----------------------------------------------------------------------------------------------------


class ErrorHook:
    """The `sys.excepthook` of a rank: writes the report; the launcher shows it, so here it is shown only without one."""

    stays_on_top = True  # torch's hook would buffer what this one shows

    def __init__(self, rank: int, path: Path | None, torchelastic: Path | None, *, quiet: bool) -> None:
        self.rank, self.path, self.torchelastic, self.quiet = rank, path, torchelastic, quiet
        self._pid = os.getpid()
        self._previous = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Report an error that nobody caught."""
        if os.getpid() == self._pid and not isinstance(error, KeyboardInterrupt):
            self.report(error)
            if self.quiet:
                _logger.debug("rank %d failed", self.rank, exc_info=error)
                return
        self._previous(kind, error, trace)

    def report(self, error: BaseException) -> None:
        """Write the report where the launcher looks for it."""
        report = ErrorReport.of(error, self.rank)
        if self.path is not None:
            report.write(self.path)
        if self.torchelastic is not None:
            with contextlib.suppress(OSError):
                self.torchelastic.write_text(json.dumps(_as_torchelastic(report)), encoding="utf-8")


def _as_torchelastic(report: ErrorReport) -> dict[str, Any]:
    extra = {"py_callstack": report.traceback, "timestamp": str(int(report.time))}
    return {"message": {"message": f"{report.type}: {report.message}", "extraInfo": extra}}


def attach(rank: int | None = None, *, dies_with_parent: bool = True) -> ErrorHook | None:
    """Tie this process to the launcher that started it; nothing happens where there is none, or the second time.

    Called first thing by `Fabric`, by `join_group`, and by the launchers' own children.

    Args:
        rank: The global rank, if the caller knows it.
        dies_with_parent: Let the kernel kill this process with its parent (Linux); off where there may be rows to flush.
    """
    if (hook := _attached.get(os.getpid())) is not None:
        return hook
    environ = settings.environment()
    path: Path | None = settings.get(ERROR_FILE)
    torchelastic = environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None and not torchelastic:
        return None
    environ.pop(ERROR_FILE, None)  # programs that this rank starts are not the rank
    lifeline = None if path is None else _open_lifeline(path)
    hook = ErrorHook(_rank(rank), path, Path(torchelastic) if torchelastic else None, quiet=lifeline is not None)
    sys.excepthook = _attached[os.getpid()] = hook
    if path is not None and lifeline is not None:
        if dies_with_parent:
            die_with_parent()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher too, and that ends us
        threading.Thread(target=_watch_lifeline, args=(lifeline,), name="leyden-lifeline", daemon=True).start()
        with contextlib.suppress(OSError):
            path.with_suffix(".attached").touch()
    return hook


def _rank(rank: int | None) -> int:
    environ = settings.environment()
    text = next((environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if environ.get(name)), "0")
    return rank if rank is not None else int(text)


def _open_lifeline(path: Path) -> int | None:
    if not path.name.endswith(CHILD_SUFFIX) or not hasattr(os, "mkfifo"):
        return None
    try:
        # Blocking, this would wait for a launcher that may be gone.
        descriptor = os.open(path.with_suffix(".lifeline"), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:  # the launcher has ended and tidied up: so must we
        os._exit(1)
    os.set_blocking(descriptor, True)
    return descriptor


def _watch_lifeline(descriptor: int) -> None:
    os.read(descriptor, 1)  # a byte or the end: both mean leave
    run_death_callbacks()
    os._exit(1)


def _load_prctl() -> Callable[[int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return ctypes.CDLL(None).prctl


_prctl = _load_prctl()  # loaded before any fork: nothing may be imported between fork and exec


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the *thread* that forked it ends (Linux; elsewhere nothing)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
