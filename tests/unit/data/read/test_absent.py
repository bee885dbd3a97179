"""Where there is no dataset, one is told of a job that has not ended, or of a name that is nearly the same."""

from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import NotFoundError
from leyden.data import StreamingDataset, map, optimize
from leyden.data.errors import UnitFailedError


def fails_at_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def nothing(number: int, output_dir: str) -> None:
    Path(output_dir, f"{number}.txt").write_text("x")


def said_at(place: Path, **options: Any) -> str:
    with pytest.raises(NotFoundError) as caught:
        StreamingDataset(place, **options)
    return str(caught.value)


def test_a_job_that_has_not_ended_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnitFailedError):
        optimize(fails_at_seven, range(10), str(tmp_path / "data"), num_workers=0)
    assert "fails_at_seven has not ended there: 7 of 10 units are done. Run the same command again" in said_at(tmp_path / "data")


def test_a_job_of_files_that_has_ended_is_not(tmp_path: Path) -> None:
    map(nothing, range(3), str(tmp_path / "files"), num_workers=0)
    assert said_at(tmp_path / "files").endswith("is there.")


def test_a_name_that_is_nearly_the_same_is_told(tmp_path: Path) -> None:
    optimize(fails_at_seven, range(3), str(tmp_path / "train"), num_workers=0)
    assert said_at(tmp_path / "trian").endswith("Did you mean 'train'?")
    assert said_at(tmp_path / "nowhere" / "train").endswith("is there.")


def test_a_missing_version_is_told_as_such(tmp_path: Path) -> None:
    optimize(fails_at_seven, range(3), str(tmp_path / "train"), num_workers=0)
    assert "version 3 of " in said_at(tmp_path / "train", version=3)
