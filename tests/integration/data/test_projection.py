"""Some columns of a dataset on a real S3 server: only their bytes are fetched, and rows are what they are of the whole."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import CorruptDataError
from leyden.core.storage import open_storage
from leyden.data import AesGcm, StreamingDataLoader, StreamingDataset, add_columns, delete_rows, optimize
from tests.support.s3_server import S3Server, s3_server
from tests.support.slow_store import SlowStore, slow_store

ROWS = 600
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compressed": {"compression": "zstd"},
    "encrypted": {"encryption": AesGcm(key=b"k" * 32)},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def urls(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a dataset of each kind, and put it there; return their URLs."""
    bucket, folder = server.make_bucket("projection"), tmp_path_factory.mktemp("written")
    for kind, how in KINDS.items():
        write(folder / kind, **how)
    write(folder / "added")
    add_columns(str(folder / "added"), longer, num_workers=0)
    delete_rows(str(folder / "added"), [0, 9])
    storage = open_storage(bucket, server.options)
    for path in (path for path in folder.rglob("*") if path.is_file() and "jobs" not in path.parts):
        storage.upload_file(path, path.relative_to(folder).as_posix())
    return {kind: f"{bucket}/{kind}" for kind in (*KINDS, "added")}


def write(folder: Path, **options: Any) -> None:
    optimize(sample, list(range(ROWS)), str(folder), num_workers=0, verbose=False, chunk_bytes="1MB", block_bytes="128KB", **options)


def sample(index: int) -> dict[str, Any]:
    return {"x": index, "text": None if index % 7 == 0 else f"row {index}", "raw": noise(index, 2000), "more": {"y": index / 2}}


def longer(row: dict[str, Any]) -> dict[str, Any]:
    return {"twice": 2 * row["x"], "long": noise(row["x"], 3000)}


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def store(server: S3Server) -> Iterator[SlowStore]:
    with slow_store(server.endpoint) as proxy:
        yield proxy


def opened(urls: dict[str, str], kind: str, store: SlowStore, folder: Path, **options: Any) -> StreamingDataset:
    encryption = KINDS.get(kind, {}).get("encryption")
    return StreamingDataset(urls[kind], str(folder), storage_options=store.server.options, encryption=encryption, **options)


@pytest.mark.parametrize("max_cache_size", ["1GB", 0])
@pytest.mark.parametrize("kind", ["plain", "compressed", "encrypted", "added"])
def test_only_the_bytes_of_wanted_columns_are_fetched(
    urls: dict[str, str], store: SlowStore, tmp_path: Path, kind: str, max_cache_size: Any
) -> None:
    names = ["x", "text", "more", *(["twice"] if kind == "added" else [])]
    whole = opened(urls, kind, store, tmp_path / "whole", max_cache_size=max_cache_size)[:]
    before = store.bytes_sent(".ldc")
    found = opened(urls, kind, store, tmp_path / "some", max_cache_size=max_cache_size, columns=names)[:]
    assert found == [{name: row[name] for name in names} for row in whole]
    assert store.bytes_sent(".ldc") - before < 0.15 * before


@pytest.mark.parametrize(("workers", "kind"), [(2, "threads"), (2, "processes")])
def test_workers_read_them_too_and_each_byte_comes_once(
    urls: dict[str, str], store: SlowStore, tmp_path: Path, workers: int, kind: Any
) -> None:
    def fetched(folder: str, num_workers: int) -> tuple[list[int], int]:
        store.reset_counts()
        dataset = opened(urls, "plain", store, tmp_path / folder, columns=["x", "more"], shuffle=True)
        with StreamingDataLoader(dataset, batch_size=10, num_workers=num_workers, worker_kind=kind) as loader:
            rows = [number for batch in loader for number in batch["x"].tolist()]
        return rows, store.bytes_sent(".ldc")

    alone = fetched("alone", 0)
    assert fetched("together", workers) == alone
    assert sorted(alone[0]) == list(range(ROWS))


def test_whole_blocks_that_are_here_serve_and_parts_take_no_more_room_than_they_hold(
    urls: dict[str, str], store: SlowStore, tmp_path: Path
) -> None:
    opened(urls, "plain", store, tmp_path / "whole")[:]
    store.reset_counts()
    with_all = opened(urls, "plain", store, tmp_path / "whole", columns=["x"])[:]
    headers = store.bytes_sent(".ldc")
    assert opened(urls, "plain", store, tmp_path / "some", columns=["x"])[:] == with_all
    assert headers < 2000, "the header that tells whether it is worth it"
    files = [path.stat() for path in (tmp_path / "some").rglob("*.blk")]
    assert sum(status.st_size for status in files) > ROWS * 2000
    assert sum(512 * status.st_blocks for status in files) < ROWS * 2000 / 4


def test_where_it_would_not_save_half_blocks_come_whole(urls: dict[str, str], store: SlowStore, tmp_path: Path) -> None:
    opened(urls, "plain", store, tmp_path, columns=["raw"])[:]
    store.reset_counts()
    assert len(opened(urls, "plain", store, tmp_path)[:]) == ROWS
    assert store.bytes_sent(".ldc") == 0


def test_a_byte_that_is_wrong_once_is_fetched_again_and_one_that_stays_wrong_is_named(
    urls: dict[str, str], store: SlowStore, tmp_path: Path
) -> None:
    def damage(times: int) -> None:
        store.faults.clear()
        store.fail("flip", times=times, where=lambda request: request.path.endswith(".ldc"))

    dataset = opened(urls, "plain", store, tmp_path / "once", columns=["x"])
    damage(1)
    assert [row["x"] for row in dataset[:]] == list(range(ROWS))
    dataset = opened(urls, "plain", store, tmp_path / "always", columns=["x"])
    damage(1000)
    with pytest.raises(CorruptDataError, match="block"):
        dataset[:]
