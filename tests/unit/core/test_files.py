"""Atomic files and directories: laws, permissions, faults. Kills of real processes: tests/integration/core."""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.core import files
from leyden.core.errors import StorageError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.files import (
    LEFTOVER_SECONDS,
    atomic_directory,
    atomic_file,
    is_leftover,
    publish,
    recover,
    storage_error,
    sweep,
    temporary_beside,
    write_atomic,
)

SOURCE = Path(files.__file__).read_text(encoding="utf-8")
POINTS = re.findall(r'failpoint\("([\w.]+)"\)', SOURCE)
FILE_POINTS = [name for name in POINTS if name.startswith("files.")]
DIRECTORY_POINTS = [name for name in POINTS if name.startswith("publish.")]
law = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def is_complete(directory: Path) -> bool:
    return (directory / "complete").exists()


@law
@given(st.one_of(st.binary(max_size=5000), st.text(max_size=2000).filter(lambda text: "\r" not in text)), st.booleans())
def test_what_is_written_is_read(tmp_path: Path, data: bytes | str, durable: bool) -> None:
    target = tmp_path / "file"
    write_atomic(target, data, durable=durable)
    assert target.read_bytes() == (data if isinstance(data, bytes) else data.encode())
    assert names(tmp_path) == ["file"]


@law
@given(
    old=st.none() | st.binary(max_size=200),
    new=st.binary(max_size=200),
    point=st.sampled_from(FILE_POINTS),
    action=st.sampled_from(["raise", "enospc"]),
)
def test_a_fault_anywhere_leaves_the_old_or_the_new_file_and_nothing_else(
    tmp_path: Path, old: bytes | None, new: bytes, point: str, action: str
) -> None:
    target = tmp_path / "file"
    target.unlink(missing_ok=True)
    if old is not None:
        target.write_bytes(old)
    with armed(f"{point}={action}"), pytest.raises(InjectedError if action == "raise" else StorageError):
        write_atomic(target, new)
    after = target.read_bytes() if target.exists() else None
    assert after in (old, new)
    assert names(tmp_path) == ([] if after is None else ["file"])


@law
@given(
    old=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=50)),
    new=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=50)),
    point=st.sampled_from([None, *DIRECTORY_POINTS]),
)
def test_after_a_fault_and_recovery_a_directory_is_wholly_old_or_new(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, bytes], new: dict[str, bytes], point: str | None
) -> None:
    target = tmp_path_factory.mktemp("law") / "directory"
    with contextlib.suppress(InjectedError):
        for content, rules in ((old, ""), (new, f"{point}=raise" if point else "")):
            with armed(rules), atomic_directory(target, durable=False) as directory:
                for name, data in content.items():
                    (directory / name).write_bytes(data)
                (directory / "complete").touch()
    recover(target, is_complete)
    found = {path.name: path.read_bytes() for path in target.iterdir() if path.name != "complete"}
    assert found in ((old, new) if point else (new,))


@pytest.mark.parametrize("point", FILE_POINTS)
def test_every_point_of_a_write_is_passed(tmp_path: Path, point: str) -> None:
    with armed(f"{point}=raise"), pytest.raises(InjectedError, match=point):
        write_atomic(tmp_path / "file", b"x")


@pytest.mark.parametrize("point", DIRECTORY_POINTS)
def test_every_point_of_a_publication_is_passed(tmp_path: Path, point: str) -> None:
    with armed(f"{point}=raise"), pytest.raises(InjectedError, match=point), atomic_directory(tmp_path / "directory"):
        pass


def test_the_points_are_all_here() -> None:
    file_points = ("before_write", "after_write", "after_sync", "after_rename", "after_directory_sync")
    assert [f"files.{name}" for name in file_points] == FILE_POINTS
    assert [f"publish.{name}" for name in ("written", "renamed", "synced", "aside")] == DIRECTORY_POINTS


def test_parents_are_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "file", "w") as file:
        file.write("a\nb\r\n")
    assert (tmp_path / "file").read_bytes() == b"a\nb\r\n"


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError), atomic_file(tmp_path / "file") as file:
        file.writelines([b"new", None])
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_about_something_else_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(ConnectionResetError), atomic_file(tmp_path / "file"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    assert names(tmp_path) == []


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomic(tmp_path / "file", b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_replacing_keeps_permissions_unless_told(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.touch()
    target.chmod(0o640)
    write_atomic(target, b"x")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    write_atomic(target, b"x", permissions=0o600)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"real"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127 + "x")
    write_atomic(target, b"x")
    assert target.read_bytes() == b"x"


def test_a_full_disk_is_told_with_bytes_needed_and_free(tmp_path: Path) -> None:
    with armed("files.after_write=enospc"), pytest.raises(StorageError) as caught:
        write_atomic(tmp_path / "file", b"x" * 12_345)
    message = str(caught.value)
    assert re.search(r"cannot write '.*/file': No space left.*Bytes needed: 12,345, free: [\d,]+\.", message)
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value.__cause__, OSError)


def test_an_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        write_atomic(tmp_path / "file" / "below", b"x")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorageError, match="directory"):
        write_atomic(tmp_path / "directory", b"x")
    assert names(tmp_path) == ["directory", "file"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    with atomic_directory(target) as directory:
        (directory / "deep").mkdir()
        (directory / "deep" / "file").write_bytes(b"1")
        assert not target.exists()
    with pytest.raises(FileNotFoundError), atomic_directory(target) as directory:
        (tmp_path / "absent").rename(directory / "file")
    assert (target / "deep" / "file").read_bytes() == b"1"
    assert names(tmp_path) == ["directory"]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "directory") as directory:
            (directory / name).touch()
    assert names(tmp_path / "directory") == ["new"]
    assert names(tmp_path) == ["directory"]


def test_a_full_disk_leaves_the_old_directory(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    with atomic_directory(target) as directory:
        (directory / "old").touch()
    with armed("publish.written=enospc"), pytest.raises(StorageError, match="No space left"), atomic_directory(target) as directory:
        (directory / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["directory"]


def test_a_failed_rename_brings_the_old_directory_back(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError):
        publish(temporary_beside(target), target, durable=False)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["directory"]


def test_recovery_prefers_the_finished_new_directory(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    old = target.with_name(temporary_beside(target).name.replace(".tmp-", ".old-"))
    new, unfinished = temporary_beside(target), temporary_beside(target)
    for path in (old, new, unfinished):
        path.mkdir()
        (path / path.name).touch()
    for path in (old, new):
        (path / "complete").touch()
    assert recover(target, is_complete)
    assert (target / new.name).exists()
    assert not recover(target, is_complete)
    assert names(tmp_path) == sorted(["directory", old.name, unfinished.name])


def test_recovery_without_leftovers_does_nothing(tmp_path: Path) -> None:
    assert not recover(tmp_path / "absent" / "directory", is_complete)
    assert not recover(tmp_path / "directory", is_complete)


def test_old_leftovers_are_swept_and_young_ones_stay(tmp_path: Path) -> None:
    target = tmp_path / "file"
    leftover = temporary_beside(target)
    leftover.mkdir()
    (leftover / "inside").touch()
    os.utime(leftover, (0, 0))  # the directory is old, but its writer is at work on the file inside
    (tmp_path / "file.txt").touch()
    sweep(target)
    assert leftover.exists()
    now = (leftover / "inside").stat().st_mtime
    sweep(target, now=lambda: now + LEFTOVER_SECONDS - 1)
    assert leftover.exists()
    sweep(target, now=lambda: now + LEFTOVER_SECONDS + 1)
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    "name", ["file", "file.tmp", "file.tmp-", "a.tmp-123", "x.old-" + "a" * 19, "tmp-" + "a" * 20, "a.new-" + "a" * 20]
)
def test_a_users_file_is_no_leftover(name: str) -> None:
    assert not is_leftover(name)


def test_a_message_about_reading_asks_for_no_space(tmp_path: Path) -> None:
    message = str(storage_error(OSError(errno.EIO, "Input/output error"), tmp_path / "file", action="read"))
    assert message == f"cannot read '{tmp_path}/file': Input/output error."
