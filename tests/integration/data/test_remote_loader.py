"""The loader on a real S3 server: every byte is fetched once for any workers and ranks, and evicted blocks come again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataLoader, StreamingDataset, optimize
from tests.support.s3_server import S3Server, s3_server
from tests.support.slow_store import SlowStore, slow_store

ROWS = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def written(server: S3Server) -> tuple[str, int]:
    """Write a dataset; return its URL and the bytes of its blocks."""
    url = f"{server.make_bucket('loader')}/train"
    options: Any = server.options
    optimize(
        sample,
        list(range(ROWS)),
        url,
        num_workers=0,
        verbose=False,
        chunk_bytes="256KB",
        block_bytes="16KB",
        storage_options=options,
    )
    return url, int(StreamingDataset(url, storage_options=options).reading.table.stored_bytes.sum())


def sample(index: int) -> dict[str, Any]:
    return {"x": index, "raw": bytes([index % 251]) * 300}


@pytest.fixture
def store(server: S3Server) -> Iterator[SlowStore]:
    with slow_store(server.endpoint) as proxy:
        yield proxy


def same(sample: Any) -> Any:
    return sample


def dataset_at(url: str, store: SlowStore, folder: Path, **options: Any) -> StreamingDataset:
    return StreamingDataset(url, str(folder), shuffle=True, storage_options=store.server.options, **options)


@pytest.mark.parametrize(("workers", "kind"), [(0, "auto"), (2, "threads"), (1, "processes"), (4, "processes")])
@pytest.mark.parametrize("ranks", [1, 2])
def test_bytes_fetched_are_those_of_the_dataset(
    written: tuple[str, int], store: SlowStore, tmp_path: Path, workers: int, kind: Any, ranks: int
) -> None:
    url, size = written
    seen: list[int] = []
    for rank in range(ranks):
        dataset = dataset_at(url, store, tmp_path, rank=rank, world_size=ranks)
        with StreamingDataLoader(dataset, batch_size=10, num_workers=workers, worker_kind=kind, drop_last=False) as loader:
            for batch in loader:
                seen += batch["x"].tolist()
    assert sorted(seen) == list(range(ROWS))
    fetched = [request for request in store.requests if request.path.endswith(".ldc")]
    assert sum(request.sent for request in fetched) == pytest.approx(size, rel=0.01)


def test_blocks_that_are_evicted_meanwhile_come_again(written: tuple[str, int], store: SlowStore, tmp_path: Path) -> None:
    dataset = dataset_at(written[0], store, tmp_path, transform=same)
    with StreamingDataLoader(dataset, batch_size=10, num_workers=2) as loader:
        seen = []
        for number, batch in enumerate(loader):
            seen += batch["x"].tolist()
            if number % 40 == 20:
                for file in tmp_path.rglob("*.blk"):
                    file.unlink()
    assert sorted(seen) == list(range(ROWS))


def test_the_store_may_fail_now_and_then(written: tuple[str, int], store: SlowStore, tmp_path: Path) -> None:
    for fault in ("503", "reset", "truncate", "503"):
        store.fail(fault, where=lambda request: request.path.endswith(".ldc"))
    with StreamingDataLoader(dataset_at(written[0], store, tmp_path), batch_size=50, num_workers=2) as loader:
        assert sum(len(batch["x"]) for batch in loader) == ROWS


def test_a_cache_in_memory_is_not_shared_with_processes(written: tuple[str, int], store: SlowStore, tmp_path: Path) -> None:
    dataset = dataset_at(written[0], store, tmp_path, max_cache_size=0)
    with StreamingDataLoader(dataset, batch_size=50, num_workers=2) as loader:
        assert sum(len(batch["x"]) for batch in loader) == ROWS
    with (
        StreamingDataLoader(dataset, worker_kind="processes", num_workers=1) as loader,
        pytest.raises(ConfigError, match="max_cache_size > 0"),
    ):
        next(iter(loader))


@pytest.mark.parametrize("is_bare", [True, False])
def test_leaving_early_stops_the_look_ahead(server: S3Server, written: tuple[str, int], tmp_path: Path, is_bare: bool) -> None:
    with slow_store(server.endpoint, delay=0.02) as store:
        dataset = dataset_at(written[0], store, tmp_path, connections=2)
        iterator = iter(dataset if is_bare else StreamingDataLoader(dataset, batch_size=4))
        next(iterator)
        iterator.close()  # type: ignore[attr-defined] - as leaving a loop does
        dataset.close()
        asked = len([request for request in store.requests if request.path.endswith(".ldc")])
        assert asked <= 12, "of about 60 blocks, only those that were needed or on their way"
        again = StreamingDataLoader(dataset_at(written[0], store, tmp_path), batch_size=50)
        assert sum(len(batch["x"]) for batch in again) == ROWS
