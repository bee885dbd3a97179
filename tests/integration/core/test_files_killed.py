"""Atomic files and directories of a real process: killed with SIGKILL at each point, on a full disk, where it may not write."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.core import files
from leyden.core.files import LEFTOVER_SECONDS, recover, sweep

POINTS = re.findall(r'failpoint\("([\w.]+)"\)', Path(files.__file__).read_text(encoding="utf-8"))
OLD, NEW = b"old" * 1000, b"new" * 50_000

WRITE_FILE = f"""
from leyden.core.files import write_atomic
write_atomic("target", {NEW[:3]!r} * {len(NEW) // 3})
"""
WRITE_DIRECTORY = f"""
from leyden.core.files import atomic_directory
with atomic_directory("target") as directory:
    (directory / "data").write_bytes({NEW[:3]!r} * {len(NEW) // 3})
    (directory / "complete").touch()
"""
PROVOKE = """
from leyden.core.errors import StorageError
from leyden.core.files import write_atomic
{before}
try:
    write_atomic("target", b"x" * 1_000_000)
except StorageError as error:
    print(error)
"""


def run(program: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=60, check=False)


def is_complete(directory: Path) -> bool:
    return (directory / "complete").exists()


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize("point", [name for name in POINTS if name.startswith("files.")])
def test_a_file_whose_writer_is_killed_is_wholly_old_or_new(tmp_path: Path, point: str, has_old: bool) -> None:
    target = tmp_path / "target"
    if has_old:
        target.write_bytes(OLD)
    done = run(WRITE_FILE, tmp_path, LEYDEN_FAILPOINT=f"{point}=kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    expected = NEW if point in {"files.after_rename", "files.after_directory_sync"} else OLD if has_old else None
    assert (target.read_bytes() if target.exists() else None) == expected
    sweep(target, now=lambda: 1e12)
    assert [path.name for path in tmp_path.iterdir()] == ([] if expected is None else ["target"])


@pytest.mark.parametrize("has_old", [False, True])
@pytest.mark.parametrize("point", [name for name in POINTS if name.startswith("publish.")])
def test_a_directory_whose_writer_is_killed_is_whole_after_recovery(tmp_path: Path, point: str, has_old: bool) -> None:
    target = tmp_path / "target"
    if has_old:
        target.mkdir()
        (target / "data").write_bytes(OLD)
        (target / "complete").touch()
    done = run(WRITE_DIRECTORY, tmp_path, LEYDEN_FAILPOINT=f"{point}=kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    is_recovered = recover(target, is_complete, now=lambda: 1e12)
    assert is_recovered == (point == "publish.aside" or (point == "publish.written" and not has_old))
    assert (target / "data").read_bytes() == (OLD if has_old and point == "publish.written" else NEW)
    assert is_complete(target)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_directory_killed_before_it_was_complete_never_appears(tmp_path: Path) -> None:
    program = "import os\n" + WRITE_DIRECTORY.replace('    (directory / "complete").touch()', "    os.kill(os.getpid(), 9)")
    assert run(program, tmp_path).returncode == -signal.SIGKILL
    assert not recover(tmp_path / "target", is_complete)
    assert len(list(tmp_path.iterdir())) == 1
    recover(tmp_path / "target", is_complete, leftover_seconds=LEFTOVER_SECONDS, now=lambda: 1e12)
    assert list(tmp_path.iterdir()) == []


def test_a_file_above_the_size_limit_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(OLD)
    done = run(PROVOKE.format(before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))"), tmp_path)
    assert "File too large. Bytes needed: 1,000,000" in done.stdout, done.stderr
    assert (tmp_path / "target").read_bytes() == OLD
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(OLD)
    tmp_path.chmod(0o555)
    try:  # root may write anywhere, so the child becomes somebody else
        done = run(PROVOKE.format(before="import os\nif os.getuid() == 0: os.setuid(65534)"), tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert "cannot write 'target': Permission denied. Bytes needed: 1,000,000" in done.stdout, done.stderr
    assert (tmp_path / "target").read_bytes() == OLD


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(small_disk: Path) -> None:
    (small_disk / "target").write_bytes(OLD)
    done = run(PROVOKE.format(before=""), small_disk)
    assert "No space left on device. Bytes needed: 1,000,000, free: 2" in done.stdout, done.stderr
    assert (small_disk / "target").read_bytes() == OLD
    assert [path.name for path in small_disk.iterdir()] == ["target"]
