"""`Children` with quick processes that import nothing: who is watched, ended, and named as the first cause."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from leyden.core.errors import RankFailedError
from leyden.fabric.launch import children as module
from leyden.fabric.launch.children import Child, Children, Failure
from leyden.fabric.launch.lifeline import ErrorReport

_LOST = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection closed by peer")
_FOR_EVER = "import time; time.sleep(600)"


@pytest.fixture
def launched() -> Iterator[Children]:
    children = Children(on_stuck=lambda status: None)
    yield children
    children.close(seconds=0)
    assert not children.folder.exists()


def _start(children: Children, source: str, *, report: BaseException | None = None, attached: bool = False, before: float = 0.0) -> None:
    """Start a child that runs `source`, as if it had reached Leyden and left `report` when it failed."""
    rank = len(children._children) + 1

    def start(error_file: Path) -> "subprocess.Popen[bytes]":
        if report is not None:
            described = ErrorReport.of(report, rank)
            ErrorReport(**{**vars(described), "time": described.time - before}).write(error_file)
        if attached:
            error_file.with_suffix(".attached").touch()
        return subprocess.Popen([sys.executable, "-S", "-c", source, str(error_file)])

    children.start(rank, start)


def test_all_leave_with_zero(launched: Children) -> None:
    for _ in range(2):
        _start(launched, "pass")
    launched.watch()
    launched.wait()

    assert launched.failure is None
    assert launched.running == []


def test_one_that_fails_ends_the_others_within_a_second(launched: Children, capfd: pytest.CaptureFixture[str]) -> None:
    _start(launched, _FOR_EVER)
    _start(launched, "import sys; sys.exit(3)", report=ValueError("unhappy"), attached=True)
    launched.watch()
    start = time.monotonic()
    with pytest.raises(RankFailedError, match=r"rank 2 \(pid \d+\) failed with exit code 3: ValueError: unhappy") as caught:
        launched.wait()

    assert time.monotonic() - start < 3  # a second on an idle machine
    assert (caught.value.rank, caught.value.exit_code) == (2, 3)
    assert "ValueError: unhappy" in caught.value.remote_traceback
    assert capfd.readouterr().err.count("failed with exit code 3") == 1


def test_the_earliest_real_error_is_the_cause_whoever_leaves_first(launched: Children) -> None:
    _start(launched, "import sys; sys.exit(1)", report=_LOST, attached=True, before=9)
    _start(launched, "import sys; sys.exit(1)", report=KeyError("later"), attached=True, before=1)
    _start(launched, "import sys; sys.exit(1)", report=KeyError("earlier"), attached=True, before=2)
    launched.watch()

    with pytest.raises(RankFailedError, match=r"rank 3 .* KeyError: 'earlier'"):
        launched.wait()


def test_a_silent_death_counts_more_than_the_connections_it_broke(launched: Children) -> None:
    _start(launched, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", attached=True)
    os.waitid(os.P_PID, launched._children[0].pid, os.WEXITED | os.WNOWAIT)  # nobody loses a connection before
    _start(launched, "import sys; sys.exit(1)", report=_LOST, attached=True, before=9)
    launched.watch()

    with pytest.raises(RankFailedError, match=r"rank 1 \(pid \d+\) was killed by SIGKILL \(exit code 137\); often memory") as caught:
        launched.wait()
    assert caught.value.exit_code == 137


@pytest.mark.parametrize("code", [0, 75, 128 + signal.SIGTERM])
def test_leaving_on_purpose_ends_nobody(launched: Children, code: int) -> None:
    _start(launched, f"import sys; sys.exit({code})")
    _start(launched, "pass")
    launched.watch()
    launched.wait()

    assert launched.failure is None


def test_the_lifeline_is_cut_for_a_child_that_listens(launched: Children) -> None:
    source = """
import os, sys
name = sys.argv[1].removesuffix(".json") + ".lifeline"
pipe = os.open(name, os.O_RDONLY)
open(sys.argv[1].removesuffix(".json") + ".attached", "w").close()
os.read(pipe, 1)
open(sys.argv[1] + ".flushed", "w").close()
"""
    _start(launched, source)
    launched.watch()
    child = launched._children[0]
    _wait_for(lambda: child.is_attached)
    launched.end()

    assert child.exit_code == 0
    assert Path(f"{child.error_file}.flushed").exists()


def test_a_child_that_does_not_go_is_killed(launched: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_SECONDS", 0.1)
    _start(launched, _FOR_EVER, attached=True)
    launched.watch()
    launched.end()

    assert launched._children[0].exit_code == -signal.SIGKILL


def test_one_that_left_while_others_run_is_reported_once(launched: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.1)
    told: list[str] = []
    reported = Event()
    monkeypatch.setattr(module, "notify", lambda text: (told.append(text), reported.set()))
    _start(launched, "pass")
    _start(launched, _FOR_EVER)
    launched.watch()
    assert reported.wait(20)
    launched.end()

    assert len(told) == 1
    assert "left with exit code 0 0.1 s ago, but rank 2 and this process still run" in told[0]


def test_a_main_thread_that_does_not_notice_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTICE_SECONDS", 0.1)
    left: list[int] = []
    done = Event()
    children = Children(on_stuck=lambda status: (left.append(status), done.set()))
    _start(children, "import sys; sys.exit(5)")
    children.watch()
    assert done.wait(20)
    children.close()

    assert left == [5]


def test_a_broken_connection_is_explained_by_the_child_that_died(launched: Children) -> None:
    _start(launched, "import os; os._exit(7)", attached=True)
    launched.watch()

    explained = launched.explain(_LOST)

    assert explained is not None
    assert (explained.rank, explained.exit_code) == (1, 7)


def test_an_own_error_is_not_blamed_on_children_that_only_lost_the_connection(launched: Children) -> None:
    _start(launched, "import sys; sys.exit(1)", report=_LOST, attached=True)
    launched.watch()
    assert launched._failing.wait(20)

    assert launched.explain(ValueError("mine")) is None
    assert launched.explain(KeyboardInterrupt()) is None


def test_an_own_error_without_any_failure_is_not_waited_for(launched: Children) -> None:
    _start(launched, _FOR_EVER)
    launched.watch()
    start = time.monotonic()

    assert launched.explain(ValueError("mine")) is None
    assert time.monotonic() - start < 1


def test_a_failing_start_ends_those_that_run(launched: Children) -> None:
    _start(launched, _FOR_EVER)

    def refuse(error_file: Path) -> "subprocess.Popen[bytes]":
        raise OSError("no more processes")

    with pytest.raises(OSError, match="no more processes"):
        launched.start(2, refuse)
    assert launched._children[0].poll() == -signal.SIGKILL


def test_close_ends_those_that_do_not_go(launched: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(module, "notify", told.append)
    _start(launched, _FOR_EVER)
    launched.watch()
    launched.close(seconds=0.05)

    assert told == ["this process has ended its work 0.05 s ago; ranks [1] have not, and are ended now."]
    assert launched._children[0].exit_code == -signal.SIGKILL


def test_without_pidfd_a_thread_waits_for_each_child(launched: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    _start(launched, "import sys; sys.exit(3)")
    launched.watch()

    with pytest.raises(RankFailedError, match="failed with exit code 3 before it reached Leyden"):
        launched.wait()


def test_the_status_is_that_of_a_shell() -> None:
    assert Failure(1, 1, -9, None).status == 137
    assert Failure(1, 1, 3, None).status == 3
    assert Failure(1, 1, 0, None).status == 1


def test_an_unknown_signal_is_told_by_number() -> None:
    assert "signal 63" in Failure(1, 1, -63, None).message


def _wait_for(condition, deadline: float = 20.0) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end
        Event().wait(0.005)


def test_a_hang_up_is_idempotent(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    child = Child(1, process, tmp_path / "rank-1.child.json", writer)
    child.hang_up()
    child.hang_up()
    child.wait()

    assert os.read(reader, 8) == b"x"
    os.close(reader)
