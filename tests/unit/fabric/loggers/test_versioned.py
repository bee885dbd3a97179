from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leyden.core.errors import StorageError
from leyden.fabric.loggers.versioned import claim_version


def test_the_next_number_is_free_and_taken(tmp_path: Path) -> None:
    for name in ("version_1", "version_9", "version_x", "other"):
        (tmp_path / name).mkdir()
    assert claim_version(tmp_path, is_claimed=False) == 10
    assert claim_version(tmp_path) == 10
    assert claim_version(tmp_path) == 11
    assert claim_version(tmp_path / "new") == 0


def test_jobs_that_start_together_take_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: claim_version(tmp_path / "runs"), range(32)))
    assert sorted(versions) == list(range(32))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        claim_version(tmp_path / "file" / "runs")
