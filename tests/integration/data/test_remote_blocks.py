"""Blocks of a real S3 server behind a faulty proxy: each is fetched once, whoever asks and whatever fails on the way."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.core.errors import CorruptDataError, StorageError
from leyden.core.storage import open_storage
from leyden.data.errors import ChunkWaitTimeoutError
from leyden.data.read.cache import DiskCache, MemoryCache
from leyden.data.read.cached import CachedSource, EvictedError
from leyden.data.read.fetch import Fetcher, Patience
from leyden.data.read.supply import Supply
from tests.support.remote_blocks import PER_BLOCK, RemoteBlocks, block_bytes, content
from tests.support.s3_server import s3_server
from tests.support.slow_store import SlowStore, slow_store

BLOCKS = 64
SIZE = 4 * PER_BLOCK
NAME = "numbers.bin"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        url = server.make_bucket("blocks")
        open_storage(f"{url}/data", server.options).write(NAME, content(BLOCKS))
        yield server.endpoint, f"{url}/data"


@pytest.fixture
def store(bucket: tuple[str, str]) -> Iterator[SlowStore]:
    with slow_store(bucket[0]) as proxy:
        yield proxy


@pytest.fixture
def url(bucket: tuple[str, str]) -> str:
    return bucket[1]


def cached(store: SlowStore, url: str, folder: Path, patience: Patience | None = None) -> CachedSource:
    source = RemoteBlocks(url, store.server.options, BLOCKS, patience)
    return CachedSource(source, source, DiskCache(folder, 10**9), url)


def read_all(options: dict[str, object], url: str, folder: Path) -> None:
    source = RemoteBlocks(url, options, BLOCKS)
    ours = CachedSource(source, source, DiskCache(folder, 10**9), url)
    for number in range(BLOCKS):
        assert bytes(ours.fetch(number)) == block_bytes(number)


@pytest.mark.parametrize("processes", [1, 4])
def test_bytes_fetched_are_bytes_needed_for_any_number_of_processes(store: SlowStore, url: str, tmp_path: Path, processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    readers = [context.Process(target=read_all, args=(store.server.options, url, tmp_path)) for _ in range(processes)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(100)
    assert [reader.exitcode for reader in readers] == [0] * processes
    assert store.bytes_sent(NAME) == BLOCKS * SIZE
    assert len(store.gets(NAME)) == BLOCKS


def test_neighbours_come_in_one_request_after_the_first_block(store: SlowStore, url: str, tmp_path: Path) -> None:
    source, fetcher = cached(store, url, tmp_path), Fetcher(4)
    supply = Supply(source, fetcher)
    supply.ahead(range(BLOCKS))
    supply.ready(range(BLOCKS))
    assert sorted(request.range for request in store.gets(NAME) if request.range) == [(0, SIZE), (SIZE, BLOCKS * SIZE)]
    assert [bytes(source.fetch(number)) for number in (0, 1, 63)] == [block_bytes(number) for number in (0, 1, 63)]
    fetcher.close()


def test_blocks_far_apart_come_at_once_on_as_many_connections(store: SlowStore, url: str, tmp_path: Path) -> None:
    store.delay = 0.05
    fetcher = Fetcher(8)
    Supply(cached(store, url, tmp_path), fetcher).ready(range(0, BLOCKS, 4))
    assert store.most_at_once == 8
    assert store.bytes_sent(NAME) == BLOCKS // 4 * SIZE
    fetcher.close()


def test_what_is_here_is_not_asked_for_again(store: SlowStore, url: str, tmp_path: Path) -> None:
    fetcher = Fetcher(2)
    for _ in range(2):
        supply = Supply(cached(store, url, tmp_path), fetcher)
        supply.ready([3, 4])
    assert store.bytes_sent(NAME) == 2 * SIZE
    assert supply.num_coming() == 0
    fetcher.close()


@pytest.mark.parametrize("fault", ["503", "429", "truncate", "reset"])
def test_faults_that_pass_cost_nothing_but_time(store: SlowStore, url: str, tmp_path: Path, fault: str) -> None:
    store.fail(fault, times=2)  # type: ignore[arg-type]
    assert bytes(cached(store, url, tmp_path).fetch(5)) == block_bytes(5)


def test_a_refusal_is_raised_at_once(store: SlowStore, url: str, tmp_path: Path) -> None:
    store.fail("403")
    with pytest.raises(StorageError, match="access was refused"):
        cached(store, url, tmp_path).fetch(5)
    assert len(store.requests) == 1
    assert not list(tmp_path.rglob("*.lease"))


def test_a_byte_that_is_wrong_once_is_fetched_again_and_one_that_stays_wrong_is_named(store: SlowStore, url: str, tmp_path: Path) -> None:
    source = cached(store, url, tmp_path)
    store.fail("flip")
    assert bytes(source.fetch(5)) == block_bytes(5)
    store.fail("flip", times=2)
    with pytest.raises(CorruptDataError, match=r"block 6: hash"):
        source.fetch(6)
    assert not source.is_here(6)


def test_a_failed_fetch_is_raised_where_its_block_is_waited_for(store: SlowStore, url: str, tmp_path: Path) -> None:
    fetcher = Fetcher(2)
    supply = Supply(cached(store, url, tmp_path), fetcher)
    store.fail("403", where=lambda request: request.range == (9 * SIZE, 10 * SIZE))
    with pytest.raises(StorageError, match="refused"):
        supply.ready([9])
    supply.ready([9])  # the next try is a new one
    fetcher.close()


def test_waiting_has_a_limit(store: SlowStore, url: str, tmp_path: Path) -> None:
    fetcher = Fetcher(2)
    store.delay = 0.3
    with pytest.raises(ChunkWaitTimeoutError, match="block 9 did not arrive within"):
        Supply(cached(store, url, tmp_path), fetcher).ready([9], timeout=0.05)
    fetcher.close()


def test_a_process_that_must_not_fetch_says_what_is_missing(store: SlowStore, url: str, tmp_path: Path) -> None:
    source = cached(store, url, tmp_path)
    source.bring(0, 2)
    source.may_fetch = False
    assert bytes(source.fetch(1)) == block_bytes(1)
    with pytest.raises(EvictedError) as raised:
        source.fetch(2)
    assert raised.value.block == 2


def test_memory_alone_serves_too(store: SlowStore, url: str) -> None:
    remote = RemoteBlocks(url, store.server.options, BLOCKS)
    source = CachedSource(remote, remote, MemoryCache(4 * SIZE), url)
    for number in (0, 1, 2, 1, 0):
        assert bytes(source.fetch(number)) == block_bytes(number)
    assert store.bytes_sent(NAME) == 3 * SIZE
