"""What a reader finds after a save was stopped between any two steps, and when two processes meet."""

import os
import time
from pathlib import Path

import pytest

from leyden.core import files
from leyden.core.failpoints import InjectedError, armed
from leyden.fabric.checkpoint import publish


def make(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "data").write_text(content)
    (path / "meta.json").write_text(content)
    return path


def content(path: Path) -> str:
    return (path / "meta.json").read_text()


def test_a_directory_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    make(tmp_path / "c", "old")
    publish.commit(make(publish.begin(tmp_path / "c"), "new"), tmp_path / "c")
    assert content(tmp_path / "c") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("point", ["written", "aside", "renamed", "synced"])
@pytest.mark.parametrize("is_first", [True, False])
def test_stopped_anywhere_the_old_or_the_new_is_complete(tmp_path: Path, point: str, is_first: bool) -> None:
    target = tmp_path / "c"
    if not is_first:
        make(target, "old")
    temporary = make(publish.begin(target), "new")
    with armed(f"publish.{point}=raise"), pytest.raises(InjectedError):
        publish.commit(temporary, target)
    publish.recover(target)
    assert content(target) == ("old" if point == "written" and not is_first else "new")


def test_an_incomplete_leftover_is_never_renamed_back(tmp_path: Path) -> None:
    temporary = publish.begin(tmp_path / "c")
    temporary.mkdir()
    (temporary / "data").write_text("half")
    publish.recover(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_new_one_is_preferred_to_the_old_one(tmp_path: Path) -> None:
    make(publish.begin(tmp_path / "c"), "new")
    old = publish.begin(tmp_path / "c")
    make(old.with_name(old.name.replace(".tmp-", ".old-")), "old")
    publish.recover(tmp_path / "c")
    assert content(tmp_path / "c") == "new"


def test_leftovers_of_an_hour_are_swept_and_younger_ones_stay(tmp_path: Path) -> None:
    make(tmp_path / "c", "good")
    old, young, slow = (make(publish.begin(tmp_path / "c"), "half") for _ in range(3))
    before = time.time() - files.LEFTOVER_SECONDS - 10
    for path in (old, slow):
        for entry in (*path.iterdir(), path):
            os.utime(entry, (before, before))
    (slow / "data").write_text("still being written")
    publish.recover(tmp_path / "c")
    assert not old.exists()
    assert young.exists()
    assert slow.exists()


def test_names_that_only_begin_alike_are_left_alone(tmp_path: Path) -> None:
    for name in ("c.tmp-mine", "c.old-backup", "cc.tmp-00000000z8000000000z"):
        make(tmp_path / name, "x")
        os.utime(tmp_path / name, (0, 0))
    publish.recover(tmp_path / "c")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_reader_that_recovers_in_the_middle_does_not_break_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process sees the target missing between the two renames and puts the old one back."""
    target = make(tmp_path / "c", "old")
    temporary = make(publish.begin(target), "new")
    rename, raced = Path.rename, []

    def racing(self: Path, other: Path) -> Path:
        result = rename(self, other)
        if self == target and not raced:
            raced.append(True)
            rename(other, target)
        return result

    monkeypatch.setattr(Path, "rename", racing)
    publish.commit(temporary, target)
    assert content(target) == "new"


def test_a_reader_that_publishes_for_us_does_not_break_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process sees the target missing between the two renames and finishes the save itself."""
    target = make(tmp_path / "c", "old")
    temporary = make(publish.begin(target), "new")
    rename = Path.rename

    def racing(self: Path, other: Path) -> Path:
        result = rename(self, other)
        if self == target:
            rename(temporary, target)
        return result

    monkeypatch.setattr(Path, "rename", racing)
    publish.commit(temporary, target)
    assert content(target) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_recovering_a_place_that_does_not_exist_is_fine(tmp_path: Path) -> None:
    publish.recover(tmp_path / "none" / "c")


def test_a_directory_that_cannot_be_listed_does_not_stop_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(os, "listdir", denied)
    publish.recover(tmp_path / "c")


def test_very_long_names_can_be_replaced(tmp_path: Path) -> None:
    target = make(tmp_path / ("c" * 250), "old")
    publish.commit(make(publish.begin(target), "new"), target)
    assert content(target) == "new"
