"""Versions are listed, gone back to and swept; what is kept stays whole."""

import datetime
import os
import shutil
from pathlib import Path

import pytest

from leyden import data as ld
from leyden.core.errors import ConfigError, ConflictError, NotFoundError, StorageError
from leyden.core.failpoints import InjectedError, armed
from leyden.core.storage import open_storage
from leyden.core.storage.local import LocalStorage
from leyden.data.format.versions import list_versions, past_of
from leyden.data.write.changes.history import seconds_of
from tests.support.changes import faults, ids, missing_files, unnamed_files, write


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    place = tmp_path / "out"
    write(place, range(10))
    write(place, range(10, 14), mode="append")
    ld.delete_rows(place, [0])
    return place


def _age(place: Path, seconds: float) -> None:
    for path in place.rglob("*"):
        if path.is_file():
            modified = path.stat().st_mtime - seconds
            os.utime(path, (modified, modified))


def test_versions_say_what_made_them_and_how_large_they_are(dataset: Path) -> None:
    found = ld.versions(dataset)
    assert [(each.version, each.operation, each.num_rows, each.parent) for each in found] == [
        (1, "create", 10, None),
        (2, "append", 14, 1),
        (3, "delete", 13, 2),
    ]
    sizes = sum(path.stat().st_size for path in dataset.glob("*.ldc"))
    assert found[1].num_bytes == sizes
    now = datetime.datetime.now(datetime.UTC)
    assert all(each.created_at is not None and now - each.created_at < datetime.timedelta(minutes=5) for each in found)


def test_a_place_without_a_dataset_has_no_versions(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no dataset"):
        ld.versions(tmp_path)


def test_another_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"chunks": [], "config": {}}')
    with pytest.raises(ConfigError, match="convert"):
        ld.versions(tmp_path)


def test_rollback_commits_the_old_content_anew(dataset: Path) -> None:
    assert ld.rollback(dataset, 1)[:4][:2] == (4, "rollback")
    assert ids(dataset) == list(range(10))
    assert ids(dataset, version=3) == list(range(1, 14))
    found = ld.versions(dataset)
    assert found[3].digest == found[0].digest
    assert ld.rollback(dataset, 3).digest == found[2].digest


def test_rollback_to_a_version_that_is_not_there_names_those_that_are(dataset: Path) -> None:
    with pytest.raises(NotFoundError, match="There are: 1, 2, 3"):
        ld.rollback(dataset, 7)
    with pytest.raises(ConfigError, match="number of a version"):
        ld.rollback(dataset, "1")  # type: ignore[arg-type]


def test_what_a_rollback_undid_is_no_past(dataset: Path) -> None:
    ld.rollback(dataset, 1)
    write(dataset, [20], mode="append")
    assert [each.version for each in past_of(open_storage(dataset))] == [5, 4, 1]


def test_an_append_that_was_rolled_back_can_be_done_again(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    write(tmp_path, range(4, 6), mode="append", resume=True)
    ld.rollback(tmp_path, 1)
    write(tmp_path, range(4, 6), mode="append", resume=True)
    assert ids(tmp_path) == list(range(6))
    with pytest.warns(UserWarning, match="already appended as version 4"):
        write(tmp_path, range(4, 6), mode="append", resume=True)
    assert ids(tmp_path) == list(range(6))


def test_a_job_never_removes_what_a_version_of_an_older_one_names(tmp_path: Path) -> None:
    def unlike(number: int) -> dict[str, object]:
        return {"id": number, "text": os.urandom(4).hex()}  # the same command never writes the same bytes

    write(tmp_path, range(4), fn=unlike)
    write(tmp_path, [4, 5], fn=unlike, mode="append")
    write(tmp_path, [4, 5], fn=unlike, mode="append")
    ld.gc(tmp_path, keep=1, older_than=0)
    write(tmp_path, [4, 5], fn=unlike, mode="append")
    assert (ids(tmp_path), faults(tmp_path), missing_files(tmp_path)) == ([0, 1, 2, 3, 4, 5, 4, 5, 4, 5], [], [])


def test_gc_keeps_what_is_young(dataset: Path) -> None:
    assert ld.gc(dataset, keep=1) == []


def test_gc_removes_old_versions_and_their_files_alone(dataset: Path) -> None:
    write(dataset, [50, 51], mode="overwrite")
    _age(dataset, 8 * 86_400)
    (dataset / "mine.txt").write_text("not ours")
    promised = ld.gc(dataset, keep=1, dry_run=True)
    assert [key for key in promised if key.endswith(".json") and "jobs" in key]
    assert ids(dataset, version=1) == list(range(10))
    assert ld.gc(dataset, keep=1) == promised
    assert [each.version for each in ld.versions(dataset)] == [4]
    assert (ids(dataset), faults(dataset), unnamed_files(dataset)) == ([50, 51], [], [])
    assert (dataset / "mine.txt").exists()


def test_gc_removes_what_a_killed_change_has_left(dataset: Path) -> None:
    left = [".chunk-0123456789ab-0-0-17.tmp", "chunk-0123456789ab-00000000-0000-01234567.ldc"]
    for name in left:
        shutil.copy(next(dataset.glob("*.ldc")), dataset / name)
    _age(dataset, 8 * 86_400)
    removed = ld.gc(dataset, keep=9)
    assert sorted(key for key in removed if "/jobs/" not in key) == left
    assert ids(dataset, version=2) == list(range(14))


def test_gc_spares_files_of_a_job_that_was_worked_on_lately(dataset: Path) -> None:
    name = "chunk-0123456789ab-00000000-0000-01234567.ldc"
    shutil.copy(next(dataset.glob("*.ldc")), dataset / name)
    _age(dataset, 8 * 86_400)
    shutil.rmtree(dataset / "_leyden/jobs")
    journal = dataset / "_leyden/jobs/0123456789ab"
    journal.mkdir(parents=True)
    (journal / "beat-driver-1.json").write_text('{"count":3}\n')
    assert ld.gc(dataset, keep=9) == []
    assert ld.gc(dataset, keep=9, older_than=0) == []  # the driver lives
    (journal / "beat-driver-1.json").write_text('{"count":-2}\n')
    assert ld.gc(dataset, keep=9, older_than=0)[-1] == name
    assert not list((dataset / "_leyden/jobs").rglob("*.json"))


def test_a_job_whose_version_was_swept_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    write(tmp_path, range(4, 6), mode="append", resume=True)
    ld.rollback(tmp_path, 1)
    ld.gc(tmp_path, keep=1, older_than=0)
    write(tmp_path, range(4, 6), mode="append", resume=True)
    assert (ids(tmp_path), missing_files(tmp_path)) == (list(range(6)), [])


@pytest.mark.parametrize(("keep", "older_than"), [(0, "7d"), (True, "7d"), (1, "7 years"), (1, -1), (1, None)])
def test_gc_refuses_what_it_does_not_know(dataset: Path, keep: int, older_than: str) -> None:
    with pytest.raises(ConfigError, match=r"is not accepted|would remove the dataset itself"):
        ld.gc(dataset, keep=keep, older_than=older_than)


def test_ages_in_all_spellings() -> None:
    assert [seconds_of(age) for age in ("90s", "30m", "2h", "1d", "1w", "45", 7, datetime.timedelta(hours=1))] == [
        90, 1800, 7200, 86_400, 604_800, 45, 7, 3600,
    ]  # fmt: skip


@pytest.mark.parametrize("step", ["data.sweep.manifest:1", "data.sweep.manifest:2", "data.sweep.file:1", "data.sweep.file:2"])
def test_a_gc_that_is_cut_short_leaves_no_version_without_its_files(dataset: Path, step: str) -> None:
    write(dataset, [50, 51], mode="overwrite")
    _age(dataset, 8 * 86_400)
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        ld.gc(dataset, keep=1)
    assert (ids(dataset), missing_files(dataset)) == ([50, 51], [])
    ld.gc(dataset, keep=1)
    assert (ids(dataset), unnamed_files(dataset), [each.version for each in list_versions(open_storage(dataset))]) == ([50, 51], [], [4])


@pytest.mark.parametrize(("step", "version"), [("data.commit.before", 3), ("data.commit.between", 4), ("data.commit.after", 4)])
def test_a_rollback_that_is_cut_short_is_done_or_not(dataset: Path, step: str, version: int) -> None:
    with armed(f"{step}=raise"), pytest.raises(InjectedError):
        ld.rollback(dataset, 1)
    assert ld.StreamingDataset(str(dataset)).version == version
    assert ids(dataset) == (list(range(1, 14)) if version == 3 else list(range(10)))


def test_a_commit_whose_answer_was_lost_is_not_made_twice(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = LocalStorage.create

    def lost(storage: LocalStorage, key: str, data: bytes) -> None:
        create(storage, key, data)
        raise ConflictError("the client asked again, and met its own object")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", lost)
        assert ld.delete_rows(dataset, [0]).version == 4
    assert ids(dataset) == list(range(2, 14))


def test_a_commit_whose_index_could_not_be_written_is_one(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plainly = LocalStorage.write

    def refuse(storage: LocalStorage, key: str, data: bytes) -> None:
        if key == "index.json":
            raise StorageError("503 slow down")
        write_plainly(storage, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", refuse)
        with pytest.warns(UserWarning, match=r"version 4 .* is committed, but index.json could not be written"):
            ld.delete_rows(dataset, [0])
    assert (ids(dataset), unnamed_files(dataset)) == (list(range(2, 14)), [])
    assert ld.delete_rows(dataset, [0]).version == 5


def test_a_commit_that_failed_takes_its_files_away(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = LocalStorage.create

    def refuse(storage: LocalStorage, key: str, data: bytes) -> None:
        if "manifest" in key:
            raise StorageError("403")
        create(storage, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", refuse)
        with pytest.raises(StorageError, match="403"):
            ld.delete_rows(dataset, [0])
    assert (ids(dataset), unnamed_files(dataset)) == (list(range(1, 14)), [])
