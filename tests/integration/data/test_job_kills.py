"""Jobs under faults: random kills, a frozen driver, failing stores, full disks. Rows exactly once, or an error."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError, StorageError
from leyden.data import StreamingDataset, optimize
from tests.support.s3_server import S3Server, s3_server
from tests.support.slow_store import slow_store

ROWS, FEW = 240, 24
SCRIPT = """
import functools, sys, time
from leyden.data import optimize
from leyden.data.write import driver, running

running.Policy = functools.partial(driver.Policy, beat_seconds=0.1, dead_seconds=1.0)

def sample(number):
    time.sleep(0.002)
    return {{"id": number, "text": f"{{number:060d}}"}}

if __name__ == "__main__":
    options = {options}
    print(optimize(sample, list(range(240)), sys.argv[1], num_workers=2, retries=1000, verbose=False, **options).num_rows, flush=True)
"""


def started(folder: Path, **options: Any) -> "subprocess.Popen[str]":
    script = folder / "job.py"
    script.write_text(SCRIPT.format(options=options))
    return _script(script, folder / "out")


def expected(folder: Path) -> dict[str, bytes]:
    (folder / "unbroken").mkdir()
    with started(folder / "unbroken") as process:
        assert process.communicate(timeout=60)[0].strip() == str(ROWS)
    return contents(folder / "unbroken")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").glob("*.ldc")}


def workers_of(driver: int) -> list[int]:
    """Return the processes that do units: children of the driver's fork server."""
    found = subprocess.run(["pgrep", "-P", str(driver)], capture_output=True, text=True, check=False).stdout.split()
    servers = [pid for pid in found if b"forkserver" in command_of(int(pid))]
    text = "".join(subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=False).stdout for pid in servers)
    return [int(pid) for pid in text.split()]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds workers below /proc")
@pytest.mark.parametrize("wanted", [30, pytest.param(100, marks=pytest.mark.long)])
def test_random_kills_lose_nothing(tmp_path: Path, wanted: int) -> None:
    whole, chance, kills, runs = expected(tmp_path), random.Random(5), 0, 0
    while kills < wanted:
        runs += 1
        folder = tmp_path / f"run-{runs}"
        folder.mkdir()
        limit = kills + 34
        while True:  # the same command, until it has come to its end
            with started(folder) as driver:
                while kills < limit and driver.poll() is None:
                    workers = workers_of(driver.pid)
                    if workers and chance.random() < 0.9:
                        kills += kill(chance.choice(workers))
                    elif workers:
                        kills += kill(driver.pid)
                    _wait(driver, chance.random() * 0.04)
                if driver.wait(timeout=60) == 0:
                    break
        assert contents(folder) == whole
        limit = kills
    assert [sample["id"] for sample in StreamingDataset(str(tmp_path / "run-1/out"))[:]] == list(range(ROWS))


def _wait(process: "subprocess.Popen[str]", seconds: float) -> None:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def test_a_frozen_driver_comes_back_and_changes_nothing(tmp_path: Path) -> None:
    whole = expected(tmp_path)
    folder = tmp_path / "frozen"
    folder.mkdir()
    with started(folder) as frozen:
        out = folder / "out"
        deadline = time.monotonic() + 30
        while not any(out.glob("_leyden/jobs/*/done-*")) and time.monotonic() < deadline:
            os.sched_yield()
        for pid in [frozen.pid, *workers_of(frozen.pid)]:
            os.kill(pid, signal.SIGSTOP)
        with _elsewhere(folder) as other:  # which sees by the beat alone that the first one does not move
            assert other.communicate(timeout=100)[0].strip() == str(ROWS)
        for pid in [frozen.pid, *workers_of(frozen.pid)]:
            os.kill(pid, signal.SIGCONT)
        assert frozen.communicate(timeout=60)[0].strip() == str(ROWS)
    assert contents(folder) == whole


def _elsewhere(folder: Path) -> "subprocess.Popen[str]":
    """Start the same command as if on another machine: with another boot, whose processes it cannot ask for."""
    moved = 'import leyden.data.read.owner as owner\nowner._boot = lambda: "another"\n\ndef sample'
    (folder / "elsewhere").mkdir()
    script = folder / "elsewhere/job.py"
    script.write_text((folder / "job.py").read_text().replace("def sample", moved, 1))
    return _script(script, folder / "out")


def _script(script: Path, out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(script), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def plain(number: int) -> dict[str, Any]:
    return {"id": number, "text": f"{number:060d}"}


def test_two_drivers_at_once_share_the_units(tmp_path: Path) -> None:
    whole = expected(tmp_path)
    folder = tmp_path / "two"
    folder.mkdir()
    with started(folder) as first, started(folder) as second:
        assert [process.communicate(timeout=60)[0].strip() for process in (first, second)] == [str(ROWS)] * 2
    assert contents(folder) == whole


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a driver of this process try again at once."""
    monkeypatch.setattr("leyden.data.write.driver._WAIT_SECONDS", 0.01)


def test_a_store_that_fails_now_and_then_gets_every_row_once(server: S3Server, impatient: None) -> None:
    with slow_store(server.endpoint) as store:
        url = f"{store.server.make_bucket('faults')}/out"
        for fault, number in itertools.product(("503", "reset"), range(3)):
            del number
            store.fail(fault, where=lambda request: request.method == "PUT" and ".ldc" in request.path)
        options: Any = store.server.options
        report = optimize(plain, list(range(FEW)), url, num_workers=0, storage_options=options, verbose=False)
        assert report.num_rows == FEW
        assert [sample["id"] for sample in StreamingDataset(url, storage_options=options)[:]] == list(range(FEW))


@pytest.mark.parametrize("kept", ["plan", "lease", *(pytest.param(kept, marks=pytest.mark.long) for kept in ("done", "schema", "ended"))])
def test_a_driver_whose_answers_get_lost_knows_its_own_records(server: S3Server, impatient: None, kept: str) -> None:
    with slow_store(server.endpoint) as store:
        url = f"{store.server.make_bucket(f'lost-{kept}')}/out"
        options: Any = store.server.options
        store.fail("lost", times=2, where=lambda request: request.method == "PUT" and f"/{kept}" in request.path)
        report = optimize(plain, list(range(FEW)), url, num_workers=0, storage_options=options, verbose=False)
        assert not store.faults
        assert report.num_rows == FEW
        assert [sample["id"] for sample in StreamingDataset(url, storage_options=options)[:]] == list(range(FEW))


def test_a_pack_that_ends_its_worker_every_time_ends_the_job_and_keeps_its_units(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT.format(options={}).replace("retries=1000", "retries=2"))
    command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "out")]
    dying = {**os.environ, "LEYDEN_FAILPOINT": "data.pack.written=kill"}
    died = subprocess.run(command, env=dying, capture_output=True, text=True, check=False, timeout=100)
    assert died.returncode == 1
    assert "pack 0 could not be finished" in died.stderr
    assert "Everything that was done is kept" in died.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert again.stdout.strip() == str(ROWS)


def test_a_job_that_was_refused_goes_on_when_the_store_is_back(server: S3Server, impatient: None) -> None:
    with slow_store(server.endpoint) as store:
        url = f"{store.server.make_bucket('refused')}/out"
        options: Any = store.server.options
        store.fail("403", times=1, where=lambda request: request.method == "PUT" and "done-" in request.path)
        with pytest.raises(StorageError):
            optimize(plain, list(range(FEW)), url, num_workers=0, storage_options=options, verbose=False)
        assert optimize(plain, list(range(FEW)), url, num_workers=0, storage_options=options, verbose=False).num_rows == FEW


def test_a_disk_that_is_full_keeps_what_is_done(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(
        "import resource, signal, sys\nfrom leyden.data import optimize\n"
        "def sample(number):\n    return {'id': number, 'raw': bytes([number]) * (200_000 if number == 40 else 1000)}\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "if len(sys.argv) > 2:\n    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "print(optimize(sample, list(range(64)), sys.argv[1], num_workers=0, verbose=False).num_rows)\n"
    )
    full = subprocess.run([sys.executable, str(script), str(tmp_path / "out"), "small"], capture_output=True, text=True, check=False)
    assert full.returncode != 0
    assert "StorageError" in full.stderr
    done = len(list((tmp_path / "out").glob("_leyden/jobs/*/done-*")))
    assert 0 < done < 64
    again = subprocess.run([sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "64"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=str(tmp_path)):
        optimize(plain, [1], str(tmp_path / "out"), num_workers=0)


def test_a_store_that_ignores_conditions_takes_one_driver_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.data.write.job.honours_conditions", lambda storage: False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="ignores conditional writes"):
        optimize(plain, [1, 2], str(tmp_path / "out"), num_workers=0)
    assert optimize(plain, [1, 2], str(tmp_path / "out"), num_workers=0, engine="local").num_rows == 2


def test_beats_are_per_driver_not_per_unit(tmp_path: Path) -> None:
    optimize(plain, list(range(ROWS)), str(tmp_path / "out"), num_workers=0, verbose=False)
    assert len(list((tmp_path / "out").glob("_leyden/jobs/*/beat-*"))) <= 2
