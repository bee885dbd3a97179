"""A rank's end: reports of errors, what counts as a lost peer, last words, and dying with the launcher."""

import json
import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from torch import distributed as dist

from leyden.core.errors import RankFailedError, StateError
from leyden.fabric.launch import lifeline
from leyden.fabric.launch.lifeline import ErrorReport, is_lost_peer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def _forked(function: Any, *args: Any) -> int:
    """Run in a forked process and return its exit status: attaching changes hooks and handlers for good."""
    process = get_context("fork").Process(target=function, args=args)
    process.start()
    process.join(30)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/x/third_party/gloo/gloo/transport/tcp/pair.cc:537] Connection closed by peer"), True),
        (RuntimeError("[/x/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 2000ms for recv"), False),
        (dist.DistBackendError("NCCL communicator was aborted"), True),
        (dist.DistNetworkError("Connection was likely closed"), True),
        (RankFailedError("rank 1 failed"), True),
        (StateError("barrier timed out"), False),
        (RuntimeError("bad shape"), False),
        (ValueError("x"), False),
    ],
)
def test_a_lost_peer_is_told_from_an_own_error(error: BaseException, lost: bool) -> None:
    assert is_lost_peer(error) is lost


def test_a_report_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "rank-1.child.json"
    try:
        raise ValueError("unhappy")
    except ValueError as error:
        ErrorReport.of(error, 1).write(path)
    report = ErrorReport.read(path)

    assert report is not None
    assert (report.rank, report.type, report.message, report.lost_peer) == (1, "ValueError", "unhappy", False)
    assert "Traceback" in report.traceback
    assert ErrorReport.read(tmp_path / "absent") is None


def test_half_a_report_is_none(tmp_path: Path) -> None:
    (tmp_path / "half").write_text('{"rank": 1')

    assert ErrorReport.read(tmp_path / "half") is None


def test_last_words_are_heard_even_if_one_callback_fails_or_hangs() -> None:
    heard: list[str] = []
    forget = [
        lifeline.on_death(lambda: heard.append("first")),
        lifeline.on_death(lambda: 1 / 0),
        lifeline.on_death(lambda: heard.append("last")),
    ]
    lifeline.run_death_callbacks(5)
    for each in forget:
        each()
        each()
    lifeline.run_death_callbacks(5)

    assert heard == ["first", "last"]


def test_nothing_is_attached_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lifeline.ERROR_FILE, raising=False)
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)

    assert lifeline.attach() is None


def _attach_and_fail(path: Path) -> None:
    os.environ[lifeline.ERROR_FILE] = str(path)
    hook = lifeline.attach(3)
    assert hook is not None
    assert lifeline.attach(3) is hook
    assert lifeline.ERROR_FILE not in os.environ
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    error = ValueError("unhappy")
    sys.excepthook(ValueError, error, None)


def test_an_attached_rank_leaves_its_error_and_stays_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rank-3.child.json"
    os.mkfifo(path.with_suffix(".lifeline"))
    holder = os.open(path.with_suffix(".lifeline"), os.O_RDWR)

    assert _forked(_attach_and_fail, path) == 0
    os.close(holder)
    report = ErrorReport.read(path)
    assert report is not None
    assert (report.rank, report.type) == (3, "ValueError")
    assert path.with_suffix(".attached").exists()
    assert "unhappy" not in capfd.readouterr().err


def _attach_and_wait(path: Path) -> None:
    os.environ[lifeline.ERROR_FILE] = str(path)
    lifeline.on_death((path.parent / "flushed").touch)
    lifeline.attach(1)
    signal.pause()


def test_a_rank_whose_launcher_is_gone_flushes_and_leaves(tmp_path: Path) -> None:
    path = tmp_path / "rank-1.child.json"
    os.mkfifo(path.with_suffix(".lifeline"))  # nobody holds the other end

    assert _forked(_attach_and_wait, path) == 1
    assert (tmp_path / "flushed").exists()


def test_a_rank_whose_launchers_folder_is_gone_leaves(tmp_path: Path) -> None:
    assert _forked(_attach_and_wait, tmp_path / "gone" / "rank-1.child.json") == 1


def _fail_under_torchrun(path: Path) -> None:
    os.environ["TORCHELASTIC_ERROR_FILE"] = str(path)
    os.environ["RANK"] = "2"
    lifeline.attach()
    error = ValueError("unhappy")
    sys.excepthook(ValueError, error, None)


def test_torchruns_error_file_has_its_format_and_the_error_is_still_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _forked(_fail_under_torchrun, tmp_path / "error.json")
    content = json.loads((tmp_path / "error.json").read_text())

    assert content["message"]["message"] == "ValueError: unhappy"
    assert "ValueError: unhappy" in content["message"]["extraInfo"]["py_callstack"]
    assert int(content["message"]["extraInfo"]["timestamp"]) > 0
    assert "unhappy" in capfd.readouterr().err
