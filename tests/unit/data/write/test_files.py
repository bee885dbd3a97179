"""Files of `map`: none takes the place of an input, of a folder, or of what another input wrote."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leyden.data as ld
from leyden.core.errors import ConflictError


def mapped(fn: Any, inputs: Any, folder: Path, **settings: Any) -> ld.Report:
    return ld.map(fn, inputs, str(folder), num_workers=0, **settings)


def copy(path: Any, output_dir: str) -> None:
    Path(output_dir, Path(path).name).write_text("changed", encoding="utf-8")


@pytest.mark.parametrize("wrap", [str, Path, lambda path: {"path": str(path), "label": 1}, lambda path: [(str(path), 1)]], ids="abcd")
def test_an_input_is_not_overwritten(tmp_path: Path, wrap: Any) -> None:
    (tmp_path / "a.txt").write_text("original", encoding="utf-8")
    with pytest.raises(ConflictError, match="is an input, and a file that was written would take its place"):
        mapped(lambda _, output_dir: copy("a.txt", output_dir), [wrap(tmp_path / "a.txt")], tmp_path)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "original"
    assert mapped(copy, [str(tmp_path / "a.txt")], tmp_path / "out").num_chunks == 1


def nested(number: int, output_dir: str) -> None:
    path = Path(output_dir, "a") if number else Path(output_dir, "a", "b")
    path.parent.mkdir(exist_ok=True)
    path.write_text("x", encoding="utf-8")


def test_a_file_is_no_folder_of_another_input(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="wrote a/b, and input 1 a file a, which cannot be a folder too"):
        mapped(nested, [0, 1], tmp_path)


@pytest.mark.parametrize("number", [0, 1])
def test_what_lies_at_the_output_is_told(tmp_path: Path, number: int) -> None:
    if number:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "there").touch()
    else:
        (tmp_path / "a").touch()
    with pytest.raises(ConflictError, match="what lies there already is a folder, or a file in place of one"):
        mapped(nested, [number], tmp_path)


def test_weights_of_any_kind_are_numbers(tmp_path: Path) -> None:
    assert mapped(nested, [0, 0], tmp_path / "a", weights=np.array([1, 2])).num_rows == 2
    assert mapped(nested, [0] * 20, tmp_path / "b", weights=[1] * 20, fast_dev_run=True).num_rows == 10
    with pytest.raises(ValueError, match="weights="):
        mapped(nested, [0, 0], tmp_path / "c", weights="ab")


class Times(ld.BaseReader):
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def read(self, item: Any) -> Any:
        return item * self.factor


def test_another_reader_is_another_job(tmp_path: Path) -> None:
    def write(number: int, output_dir: str) -> None:
        Path(output_dir, str(number)).touch()

    assert mapped(write, [1], tmp_path, reader=Times(2)).job != mapped(write, [1], tmp_path, reader=Times(3)).job
    assert (tmp_path / "3").exists()
