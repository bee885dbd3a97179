"""`binary="view"`: bytes come as views of what was read, the same in every kind of worker, and stay what they are."""

from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.data import CombinedStreamingDataset, ParallelStreamingDataset, StreamingDataLoader, StreamingDataset, optimize


def sample(index: int) -> dict[str, Any]:
    return {"x": index, "raw": content(index), "text": f"row {index}", "pair": (content(index + 1), b"")}


def content(index: int) -> bytes:
    return bytes([index % 251]) * (index % 7)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("views") / "train")
    optimize(sample, list(range(300)), folder, num_workers=0, verbose=False, block_bytes="4KB")
    return folder


@pytest.mark.parametrize(("workers", "kind"), [(0, "auto"), (2, "threads"), (2, "processes")])
def test_bytes_are_views_that_stay_what_they_are(written: str, workers: int, kind: Any) -> None:
    dataset = StreamingDataset(written, shuffle=True)
    with StreamingDataLoader(dataset, batch_size=8, num_workers=workers, worker_kind=kind, binary="view", drop_last=False) as loader:
        kept = [batch for _ in range(2) for batch in loader]
    for batch in kept:  # after all of them were read: memory that is in use is never used again
        assert all(type(row) is memoryview for row in batch["raw"])
        numbers = batch["x"].tolist()
        assert batch["raw"] == [content(number) for number in numbers]
        assert list(batch["pair"][0]) == [content(number + 1) for number in numbers]
        assert batch["text"] == [f"row {number}" for number in numbers]
    assert sorted(number for batch in kept for number in batch["x"].tolist()) == sorted([*range(300), *range(300)])


def test_the_next_loader_has_bytes_again(written: str) -> None:
    dataset = StreamingDataset(written)
    assert type(next(iter(StreamingDataLoader(dataset, batch_size=2, binary="view")))["raw"][0]) is memoryview
    assert type(dataset.take([1])["raw"][0]) is memoryview
    assert type(next(iter(StreamingDataLoader(dataset, batch_size=2)))["raw"][0]) is bytes
    assert type(dataset[3]["raw"]) is bytes


def test_mixtures_and_zips_have_views_too(written: str) -> None:
    def two() -> list[StreamingDataset]:
        return [StreamingDataset(written), StreamingDataset(written)]

    mixture = CombinedStreamingDataset(two(), seed=1)
    for batch in StreamingDataLoader(mixture, batch_size=16, binary="view"):
        assert batch["raw"] == [content(number) for number in batch["x"].tolist()]
        assert all(type(row) is memoryview for row in batch["raw"])
    for one, other in StreamingDataLoader(ParallelStreamingDataset(two()), batch_size=16, binary="view"):
        assert one["raw"] == other["raw"] == [content(number) for number in one["x"].tolist()]
        assert type(other["raw"][0]) is memoryview


def test_a_none_has_no_batch_and_other_words_are_refused(tmp_path: Path) -> None:
    optimize(lambda index: {"raw": None if index == 3 else b"a"}, list(range(5)), str(tmp_path / "a"), num_workers=0, verbose=False)
    dataset = StreamingDataset(str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="leaf 'raw' is None"):
        list(StreamingDataLoader(dataset, batch_size=5, binary="view"))
    loader = StreamingDataLoader(dataset, batch_size=5, binary="view", collate_fn=list)
    assert next(iter(loader)) == [{"raw": None if index == 3 else b"a"} for index in range(5)]
    with pytest.raises(ConfigError, match="binary='views'"):
        StreamingDataLoader(dataset, batch_size=5, binary="views")  # type: ignore[arg-type]
