"""Which files a reloader looks at, and what counts as a change."""

import os
from pathlib import Path

from leyden.serve.command.reloading import changes, snapshot
from tests.support.user_files import write


def test_python_files_of_the_folder_and_below_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, **{"server": "", "inner/model": "", ".venv/lib": "", "a/__pycache__/x": "", "venv/y": "", "site-packages/z": ""})
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(os.path.relpath(name, tmp_path) for name in snapshot(tmp_path)) == ["inner/model.py", "server.py"]


def test_what_comes_goes_or_changes_is_a_change(tmp_path: Path) -> None:
    write(tmp_path, stays="x = 1", goes="", changes="x = 1", touched="")
    before = snapshot(tmp_path)
    write(tmp_path, comes="", changes="x = 11")
    (tmp_path / "goes.py").unlink()
    os.utime(tmp_path / "touched.py", (1, 1))
    found = changes(before, snapshot(tmp_path))
    assert [Path(name).name for name in found] == ["changes.py", "comes.py", "goes.py", "touched.py"]
    assert changes(before, before) == []


def test_a_folder_that_is_gone_is_empty(tmp_path: Path) -> None:
    assert snapshot(tmp_path / "gone") == {}
