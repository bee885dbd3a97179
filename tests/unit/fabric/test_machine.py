"""Whether nodes see the same files, with a strategy that only claims to have several."""

from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.fabric.machine import is_shared_filesystem
from leyden.fabric.strategies.single import SingleDeviceStrategy


class OtherNode(SingleDeviceStrategy):
    """Rank 1, on a node whose rank 0 announced `token`."""

    global_rank = property(lambda self: 1)

    def __init__(self, token: Path | None) -> None:
        super().__init__("cpu")
        self.num_nodes = 2
        self._token = token

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return str(self._token) if self._token else None


def test_a_file_of_rank_zero_that_is_there_is_seen(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    assert is_shared_filesystem(OtherNode(tmp_path / "token"), tmp_path)


def test_a_file_that_never_comes_is_not_seen(tmp_path: Path) -> None:
    assert not is_shared_filesystem(OtherNode(tmp_path / "token"), tmp_path, timeout=0)
    assert not is_shared_filesystem(OtherNode(tmp_path / "gone" / "token"), tmp_path, timeout=0.06)


def test_a_file_that_only_a_listing_brings_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS answers from memory that a file is absent, until the directory is listed."""
    token, listed = tmp_path / "token", []

    def listing(path: Any) -> list[str]:
        listed.append(Path(path))
        token.touch()
        return [token.name]

    monkeypatch.setattr("os.listdir", listing)
    assert is_shared_filesystem(OtherNode(token), tmp_path)
    assert listed == [tmp_path]


def test_a_directory_that_rank_zero_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rank 0 has no such directory"):
        is_shared_filesystem(OtherNode(None), tmp_path)


def test_one_node_and_urls_need_no_question(tmp_path: Path) -> None:
    assert is_shared_filesystem(SingleDeviceStrategy("cpu"), tmp_path / "absent")
    assert is_shared_filesystem(OtherNode(None), "s3://bucket/folder")
