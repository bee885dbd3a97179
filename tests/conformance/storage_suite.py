"""What every `Storage` must do. Subclass it and give `storage`: a fixture with an empty one."""

import itertools
import threading
from pathlib import Path

import pytest

from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, NotFoundError
from leyden.core.storage import Storage

NAMES = ("plain.txt", "a b/c+d.txt", "ünï/çødé.txt", "percent%20and#hash?.txt", "deep/er/and/deeper.bin")


class StorageSuite:
    """One test a rule."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    @pytest.mark.parametrize("key", NAMES)
    def test_what_is_written_is_read(self, storage: Storage, key: str) -> None:
        storage.write(key, b"first")
        storage.write(key, memoryview(b"second"))
        assert storage.read(key) == b"second"
        assert storage.size(key) == 6
        assert storage.exists(key)
        assert [entry.key for entry in storage.list()] == [key]

    def test_a_copy_replaces_what_is_there(self, storage: Storage) -> None:
        storage.write("a/first.bin", b"first")
        storage.write("second.bin", b"second")
        storage.copy("a/first.bin", "second.bin")
        storage.write("a/first.bin", b"changed")
        assert storage.read("second.bin") == b"first"
        with pytest.raises(NotFoundError):
            storage.copy("absent", "third.bin")

    def test_an_empty_object_is_an_object(self, storage: Storage) -> None:
        storage.write("empty", b"")
        assert storage.read("empty") == b""
        assert storage.exists("empty")

    @pytest.mark.parametrize(("start", "length"), [(0, 10), (3, 4), (9, 1), (0, 0), (5, 0)])
    def test_a_range_is_exactly_that_range(self, storage: Storage, start: int, length: int) -> None:
        storage.write("digits", b"0123456789")
        assert storage.read_range("digits", start, length) == b"0123456789"[start : start + length]

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (5, 6), (10, 1), (100, 5)])
    def test_a_range_behind_the_end_is_corrupt_data(self, storage: Storage, start: int, length: int) -> None:
        storage.write("digits", b"0123456789")
        with pytest.raises(CorruptDataError, match="digits"):
            storage.read_range("digits", start, length)

    def test_a_negative_range_is_refused(self, storage: Storage) -> None:
        with pytest.raises(ConfigError, match="start=-1"):
            storage.read_range("digits", -1, 5)

    def test_create_fails_where_an_object_is(self, storage: Storage) -> None:
        storage.create("once", b"first")
        with pytest.raises(ConflictError, match="exists already"):
            storage.create("once", b"second")
        assert storage.read("once") == b"first"

    def test_of_many_creators_one_wins(self, storage: Storage) -> None:
        winners: list[int] = []
        barrier = threading.Barrier(4)

        def contend(number: int) -> None:
            barrier.wait(timeout=30)
            try:
                storage.create("lock", str(number).encode())
            except ConflictError:
                return
            winners.append(number)

        threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [storage.read("lock")] == [str(number).encode() for number in winners]

    def test_a_folder_is_listed_whole_and_alone(self, storage: Storage) -> None:
        for key in ("a/1", "a/b/2", "ab/3", "4"):
            storage.write(key, key.encode())
        assert sorted(entry.key for entry in storage.list()) == ["4", "a/1", "a/b/2", "ab/3"]
        assert sorted(entry.key for entry in storage.list("a")) == ["a/1", "a/b/2"]
        assert list(storage.list("absent")) == []
        assert {entry.size for entry in storage.list("a/b")} == {5}
        assert all(entry.modified > 1.5e9 for entry in storage.list())

    def test_deleting_twice_is_fine(self, storage: Storage) -> None:
        storage.write("gone", b"x")
        storage.delete("gone")
        storage.delete("gone")
        assert not storage.exists("gone")

    def test_an_absent_object_is_not_found(self, storage: Storage, tmp_path: Path) -> None:
        for call in (
            lambda: storage.read("absent"),
            lambda: storage.read_range("absent", 0, 1),
            lambda: storage.read_range("absent", 0, 0),
            lambda: storage.size("absent"),
            lambda: storage.download_file("absent", tmp_path / "target"),
        ):
            with pytest.raises(NotFoundError, match="absent"):
                call()
        assert list(tmp_path.glob("target*")) == []

    def test_a_folder_is_no_object(self, storage: Storage) -> None:
        storage.write("folder/object", b"x")
        assert not storage.exists("folder")
        with pytest.raises(NotFoundError):
            storage.read("folder")

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "./a", "a/"])
    def test_a_key_that_leads_elsewhere_is_refused(self, storage: Storage, key: str) -> None:
        with pytest.raises(ConfigError, match="is not accepted"):
            storage.write(key, b"x")

    def test_a_file_goes_up_and_comes_down(self, storage: Storage, tmp_path: Path) -> None:
        content = bytes(itertools.islice(itertools.cycle(range(251)), 11 * 2**20))  # more than one part of an upload
        (tmp_path / "source").write_bytes(content)
        storage.upload_file(tmp_path / "source", "up/file")
        storage.download_file("up/file", tmp_path / "new" / "target")
        assert storage.size("up/file") == len(content)
        assert (tmp_path / "new" / "target").read_bytes() == content

    def test_an_absent_file_cannot_go_up(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no file"):
            storage.upload_file(tmp_path / "absent", "key")
