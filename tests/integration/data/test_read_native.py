"""Our own format, read from a disk and from a real S3 server: right, checked, and with no more requests than needed."""

import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.core.errors import ConfigError, ConflictError, CorruptDataError, NotFoundError
from leyden.core.storage import open_storage
from leyden.data import StreamingDataLoader, optimize
from leyden.data.config import TokensLoader
from leyden.data.format import deletes, keys
from leyden.data.format.cipher import AesGcm, DatasetCiphers
from leyden.data.format.manifest import Deleted, Manifest
from leyden.data.format.versions import commit
from leyden.data.read.dataset import StreamingDataset
from tests.support.native_writer import upload, write_dataset, write_tokens
from tests.support.s3_server import S3Server, s3_server
from tests.support.slow_store import SlowStore, slow_store

RNG = np.random.default_rng(1)


def sample(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "score": number / 7,
        "label": bool(number % 2),
        "text": f"text number {number}",
        "data": bytes([number % 256]) * (number % 5),
        "vector": np.full(16, number, np.float32),
        "ragged": np.arange(number % 4, dtype=np.int16),
        "image": RNG.integers(0, 255, (2 + number % 2, 3, 3)).astype(np.uint8),
        "maybe": None if number % 3 else number,
        "words": [str(number), "ä"],
        "numbers": [number, number + 1],
    }


SAMPLES = [sample(number) for number in range(95)]


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[key], value) and found[key].dtype == value.dtype
        if isinstance(value, np.ndarray)
        else found[key] == value and type(found[key]) is type(value)
        for key, value in expected.items()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "train"
    write_dataset(folder, SAMPLES)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def bucket(server: S3Server, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = server.make_bucket("native")
    upload(folder, f"{url}/train", server.options)
    tokens = tmp_path_factory.mktemp("tokens")
    write_tokens(tokens, [1000] * 400, per_block=20, blocks_per_chunk=5)
    upload(tokens, f"{url}/tokens", server.options)
    return url


@pytest.fixture
def store(server: S3Server) -> Iterator[SlowStore]:
    with slow_store(server.endpoint) as proxy:
        yield proxy


def test_every_leaf_comes_back(folder: Path) -> None:
    dataset = StreamingDataset(folder, output="numpy")
    assert len(dataset) == len(SAMPLES)
    assert all(same(found, expected) for found, expected in zip(dataset, SAMPLES, strict=True))
    assert same(dataset[94], SAMPLES[94])


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_blocks_are_read(tmp_path: Path, codec: str) -> None:
    write_dataset(tmp_path, SAMPLES, per_block=50, codec=codec)
    assert all(same(found, expected) for found, expected in zip(StreamingDataset(tmp_path, output="numpy"), SAMPLES, strict=True))


def test_columns_are_projected(folder: Path) -> None:
    assert StreamingDataset(folder, output="numpy", columns=["id", "text"])[5] == {"id": 5, "text": "text number 5"}


def test_torch_tensors_only_where_arrays_were_torch(folder: Path) -> None:
    found = StreamingDataset(folder)[3]
    assert isinstance(found["vector"], np.ndarray)


@pytest.mark.parametrize("size", [7, 64, 300, 2500])
def test_tokens_cross_documents_blocks_and_chunks(tmp_path: Path, size: int) -> None:
    stream = write_tokens(tmp_path, [int(length) for length in RNG.integers(0, 400, 60)], per_block=4)
    dataset = StreamingDataset(tmp_path, item_loader=TokensLoader(size), output="numpy")
    found = np.stack(list(dataset))
    assert np.array_equal(found, stream[: len(found) * size].reshape(-1, size))
    assert len(dataset) == len(stream) // size
    assert dataset[0].dtype == np.int64


def test_an_older_version_can_be_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, SAMPLES[:10])
    write_dataset(tmp_path, SAMPLES[:20])
    assert StreamingDataset(tmp_path).version == 2
    assert len(StreamingDataset(tmp_path, version=1)) == 10
    with pytest.raises(NotFoundError, match=r"version 7 .* is not there. There are: 1, 2"):
        StreamingDataset(tmp_path, version=7)


def test_no_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no dataset"):
        StreamingDataset(tmp_path)


def flipped(folder: Path, place: int) -> None:
    chunk = min(folder.glob("*.ldc"))
    data = bytearray(chunk.read_bytes())
    data[place] ^= 1
    chunk.write_bytes(data)


def test_a_flipped_byte_is_named_when_it_is_read_and_not_before(tmp_path: Path) -> None:
    write_dataset(tmp_path, [{"x": number} for number in range(2000)], per_block=1000)
    flipped(tmp_path, 64 + 1000)
    dataset = StreamingDataset(tmp_path)
    with pytest.raises(CorruptDataError, match=r"chunk chunk-test.*block 0, column 0"):
        dataset[5]
    assert dataset[1500] == {"x": 1500}
    assert StreamingDataset(tmp_path, verify="never")[5]["x"] == 5


def test_a_chunk_that_is_gone_or_another_is_told_with_the_version(tmp_path: Path) -> None:
    write_dataset(tmp_path, [{"x": number} for number in range(2000)], per_block=1000, blocks_per_chunk=1)
    dataset = StreamingDataset(tmp_path)
    first, second = sorted(tmp_path.glob("*.ldc"))
    first.unlink()
    with pytest.raises(CorruptDataError, match=r"chunk .* of version 1 .* is not at"):
        dataset[0]
    write_dataset(tmp_path / "other", [{"x": number} for number in range(500)], per_block=500)
    second.write_bytes(next((tmp_path / "other").glob("*.ldc")).read_bytes())
    with pytest.raises(CorruptDataError, match="is not the one of version 1"):
        dataset[1500]


def test_opening_is_two_requests_at_once(store: SlowStore, bucket: str, tmp_path: Path) -> None:
    store.delay = 0.1
    StreamingDataset(f"{bucket}/train", cache_dir=tmp_path, storage_options=store.server.options)
    assert len(store.requests) == 2
    assert store.most_at_once == 2


def test_remote_samples_are_those_of_the_disk(store: SlowStore, bucket: str, tmp_path: Path) -> None:
    dataset = StreamingDataset(f"{bucket}/train", cache_dir=tmp_path, storage_options=store.server.options, output="numpy")
    assert all(same(found, expected) for found, expected in zip(dataset, SAMPLES, strict=True))
    store.reset_counts()
    again = StreamingDataset(f"{bucket}/train", cache_dir=tmp_path, storage_options=store.server.options, output="numpy")
    assert len(list(again)) == len(SAMPLES)
    assert not store.gets(".ldc")


def epoch(rank: int, world: int, url: str, cache: str, options: dict[str, object], found: Any) -> None:
    dataset = StreamingDataset(
        url, cache_dir=cache, storage_options=options, item_loader=TokensLoader(500), output="numpy", rank=rank, world_size=world
    )
    found.put((rank, sum(int(window[0]) // 500 for window in dataset)))


@pytest.mark.parametrize("world", [1, 2])
def test_bytes_fetched_are_the_datasets_and_requests_few(store: SlowStore, bucket: str, tmp_path: Path, world: int) -> None:
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    common = (f"{bucket}/tokens", str(tmp_path), store.server.options, found)
    readers = [context.Process(target=epoch, args=(rank, world, *common)) for rank in range(world)]
    for reader in readers:
        reader.start()
    totals = [found.get(timeout=100)[1] for _ in readers]
    for reader in readers:
        reader.join(100)
    assert sum(totals) == sum(range(800))
    size = sum(entry.size for entry in open_storage(f"{bucket}/tokens", store.server.options).list() if entry.key.endswith(".ldc"))
    assert abs(store.bytes_sent(".ldc") - size) <= 0.01 * size
    assert len(store.gets(".ldc")) <= 20 + 3


def test_memory_alone_is_a_cache_too(store: SlowStore, bucket: str) -> None:
    dataset = StreamingDataset(f"{bucket}/train", max_cache_size=0, storage_options=store.server.options, output="numpy")
    assert len(list(dataset)) == len(SAMPLES)


def test_a_damaged_copy_in_the_cache_is_fetched_again(store: SlowStore, bucket: str, tmp_path: Path) -> None:
    arguments = {"cache_dir": tmp_path, "storage_options": store.server.options, "output": "numpy"}
    list(StreamingDataset(f"{bucket}/train", **arguments))
    for path in tmp_path.rglob("*.blk"):
        data = bytearray(path.read_bytes())
        data[-100:] = bytes(100)
        data[100] ^= 255
        path.write_bytes(data)
    assert all(same(found, expected) for found, expected in zip(StreamingDataset(f"{bucket}/train", **arguments), SAMPLES, strict=True))


def test_a_worker_gets_everything_but_the_client(store: SlowStore, bucket: str, tmp_path: Path) -> None:
    dataset = StreamingDataset(f"{bucket}/train", cache_dir=tmp_path, storage_options=store.server.options, output="numpy")
    list(dataset)
    store.reset_counts()
    assert same(pickle.loads(pickle.dumps(dataset))[7], SAMPLES[7])
    assert not store.requests


def test_tokens_want_a_block_size(tmp_path: Path) -> None:
    write_tokens(tmp_path, [10, 20])
    with pytest.raises(ConfigError, match=r"TokensLoader\(block_size=2049\)"):
        StreamingDataset(tmp_path, item_loader=TokensLoader())
    assert [len(row) for row in StreamingDataset(tmp_path, output="numpy")] == [10, 20]


@pytest.mark.parametrize("is_remote", [False, True])
def test_encrypted_data_needs_its_key(server: S3Server, tmp_path: Path, is_remote: bool) -> None:
    key = AesGcm(password="secret")
    write_dataset(tmp_path / "data", SAMPLES, ciphers=DatasetCiphers(key))
    place, arguments = str(tmp_path / "data"), {}
    if is_remote:
        place = f"{server.make_bucket('encrypted')}/data"
        upload(tmp_path / "data", place, server.options)
        arguments = {"storage_options": server.options, "cache_dir": tmp_path / "cache"}
    dataset = StreamingDataset(place, encryption=key, output="numpy", **arguments)
    assert all(same(found, expected) for found, expected in zip(dataset, SAMPLES, strict=True))
    assert same(pickle.loads(pickle.dumps(dataset))[50], SAMPLES[50])
    with pytest.raises(ConfigError, match="Data is encrypted but no encryption object was provided"):
        StreamingDataset(place, **arguments)
    with pytest.raises(ConfigError, match="the key or password is another one than the dataset was written with"):
        StreamingDataset(place, encryption=AesGcm(password="other"), output="numpy", **arguments)


def test_deleted_rows_and_keys_of_a_version_are_read(tmp_path: Path) -> None:
    before = write_dataset(tmp_path, SAMPLES)
    storage = open_storage(tmp_path)
    name = deletes.name_of(2, before.chunks[1].digest)
    storage.write(name, deletes.to_bytes([0, 5]))  # of the second chunk: rows 30 and 35
    storage.write(keys.name_of(2), keys.to_bytes(["first", 7], [0, 40]))

    def make(newest: Manifest | None) -> Manifest:
        assert newest is not None
        chunks = list(newest.chunks)
        chunks[1] = replace(chunks[1], deleted=Deleted(name, 2))
        return replace(newest, version=2, parent=1, chunks=tuple(chunks), keys={"name": keys.name_of(2), "rows": 2})

    commit(storage, make)
    dataset = StreamingDataset(tmp_path, output="numpy")
    assert [row["id"] for row in dataset] == [number for number in range(95) if number not in {30, 35}]
    assert dataset[30]["id"] == 31
    assert dataset["first"]["id"] == 0
    assert dataset.get_by_key(7)["id"] == 40
    with pytest.raises(NotFoundError, match="no row of the key 'last'"):
        dataset["last"]
    assert len(StreamingDataset(tmp_path, version=1)) == 95


def test_a_state_opens_the_version_that_it_is_of(tmp_path: Path) -> None:
    optimize(_numbered, list(range(40)), str(tmp_path), num_workers=0)
    loader = StreamingDataLoader(StreamingDataset(str(tmp_path), shuffle=True), batch_size=4)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    rest = [batch["x"].tolist() for batch in iterator]
    optimize(_numbered, list(range(40, 60)), str(tmp_path), num_workers=0, mode="append")
    resumed = StreamingDataLoader(StreamingDataset(str(tmp_path), shuffle=True), batch_size=4)
    with pytest.warns(UserWarning, match="the state is of version 1: that is read on, and not version 2"):
        resumed.load_state_dict(state)
    assert [batch["x"].tolist() for batch in resumed] == rest
    with pytest.raises(ConflictError, match="other data"):
        StreamingDataLoader(StreamingDataset(str(tmp_path), version=2), batch_size=4).load_state_dict(state)
    with pytest.raises(ConflictError, match="other data"):
        StreamingDataLoader(StreamingDataset(str(tmp_path)).subset(range(10)), batch_size=4).load_state_dict(state)


def _numbered(number: int) -> dict[str, int]:
    return {"x": number}
