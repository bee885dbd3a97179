"""Sizes, places and item loaders."""

from pathlib import Path

import pytest

from leyden.core.errors import ConfigError
from leyden.data.config import Dir, TokensLoader, parse_bytes, place_of
from leyden.data.read.folders import cache_budget, cache_folder


@pytest.mark.parametrize(
    ("text", "size"), [(7, 7), ("8", 8), ("64MB", 64_000_000), ("64 MiB", 2**26), ("1.5kb", 1500), ("2g", 2 * 10**9), ("1TiB", 2**40)]
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_bytes(text, "size") == size


@pytest.mark.parametrize("text", ["", "many", "3 apples", -1, True, 1.5, None])
def test_other_sizes_are_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="it takes a number of bytes"):
        parse_bytes(text, "size")  # type: ignore[arg-type]


def test_a_place_is_a_url_before_a_folder() -> None:
    assert place_of(Dir("a", "s3://b/c")) == "s3://b/c"
    assert place_of(Dir("a")) == place_of(Path("a")) == "a"
    with pytest.raises(ConfigError, match="names no place"):
        Dir()
    with pytest.raises(ConfigError, match="is no place"):
        place_of("")


def test_windows_have_at_least_one_token() -> None:
    with pytest.raises(ConfigError, match="block_size=0"):
        TokensLoader(0)
    with pytest.raises(ConfigError, match="mode='pack'"):
        TokensLoader(mode="pack")  # type: ignore[arg-type]


def test_the_cache_is_where_one_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "leyden" / "data"
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "theirs"))
    assert cache_folder() == tmp_path / "theirs"
    monkeypatch.setenv("LEYDEN_DATA_CACHE_DIR", str(tmp_path / "ours"))
    assert cache_folder() == tmp_path / "ours"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"


@pytest.mark.parametrize(
    ("free", "given", "budget"),
    [
        (400 * 10**9, None, 300 * 10**9),
        (160 * 10**9, None, 110 * 10**9),
        (60 * 10**9, None, 30 * 10**9),
        (100, 0.25, 25),
        (100, "0.5", 50),
        (100, 7000, 7000),
        (100, "1GB", 10**9),
        (100, 0, 0),
    ],
)
def test_the_budget_is_a_size_a_fraction_or_most_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, given: float | str | None, budget: int
) -> None:
    monkeypatch.setattr("leyden.data.read.folders._free_bytes", lambda folder: free)
    assert cache_budget(given, tmp_path) == budget


def test_a_negative_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_cache_size=-1"):
        cache_budget(-1, tmp_path)
