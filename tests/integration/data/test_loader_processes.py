"""Worker processes of the loader: the same batches, errors with their traceback, deaths, nothing left behind."""

import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leyden.core.errors import ConfigError, RemoteError
from leyden.data import StreamingDataLoader, StreamingDataset, dataset_update, optimize
from leyden.data.errors import StalledError
from tests.support import loader_parts
from tests.support.array_dataset import numbers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="worker processes share memory by file descriptors")


@contextmanager
def processes(dataset: Any, **options: Any) -> Iterator[StreamingDataLoader]:
    with StreamingDataLoader(dataset, **{"num_workers": 2, "worker_kind": "processes", "batch_size": 4, **options}) as loader:
        yield loader


def read(loader: StreamingDataLoader) -> list[list[int]]:
    return [batch["x"].tolist() for batch in loader]


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_batches_are_those_of_one_process(method: str) -> None:
    expected = read(StreamingDataLoader(numbers(90, shuffle=True, lanes=4), batch_size=4))
    with processes(numbers(90, shuffle=True, lanes=4), multiprocessing_context=method) as loader:
        assert read(loader) == expected


def test_transforms_run_in_workers_and_draw_the_same(tmp_path: Path) -> None:
    with processes(numbers(40, transform=loader_parts.with_process)) as loader:
        pids = {pid for batch in loader for pid in batch["pid"].tolist()}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for transform in (loader_parts.with_draws, loader_parts.with_global_draws):
        alone = [batch["draw"].tolist() for batch in StreamingDataLoader(numbers(20, transform=transform), batch_size=4)]
        init = functools.partial(loader_parts.noted, str(tmp_path))
        with processes(numbers(20, transform=transform), worker_init_fn=init, num_workers=3) as loader:
            assert [batch["draw"].tolist() for batch in loader] == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worker-0", "worker-1", "worker-2"]


def samples_of_many_kinds(index: int) -> dict[str, Any]:
    return {
        "id": index,
        "text": f"sämple {index}",
        "raw": bytes([index % 256]) * 5,
        "image": np.full((64, 64), index % 256, np.uint8),
        "half": torch.full((3,), float(index), dtype=torch.bfloat16),
        "tags": ["a", str(index)],
    }


@pytest.fixture(scope="module")
def many_kinds(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("many"))
    optimize(samples_of_many_kinds, list(range(300)), folder, num_workers=0, verbose=False)
    return folder


@pytest.mark.parametrize("transform", [None, "identity"])
def test_arrays_lie_in_shared_memory_and_are_never_overwritten(many_kinds: str, transform: str | None) -> None:
    chosen = {} if transform is None else {"transform": same}
    expected = list(StreamingDataLoader(StreamingDataset(many_kinds, shuffle=True), batch_size=7))
    with processes(StreamingDataset(many_kinds, shuffle=True, **chosen), batch_size=7) as loader:
        kept = list(loader)
    for one, other in zip(kept, expected, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["half"], other["half"])
        assert (one["text"], one["raw"], one["tags"], one["id"].tolist()) == (
            other["text"],
            other["raw"],
            other["tags"],
            other["id"].tolist(),
        )
    kept[0]["image"][:] = 0  # batches may be written to


def same(sample: Any) -> Any:
    return sample


def test_memory_is_used_again_when_batches_are_dropped(many_kinds: str) -> None:
    with processes(StreamingDataset(many_kinds, transform=same), batch_size=4, num_workers=1) as loader:
        for _ in loader:
            pass
        for _ in range(2):
            addresses = {batch["image"].data_ptr() // 2**12 for batch in loader}
            assert len(addresses) <= 12, "75 batches lie in a few regions"


def test_an_error_comes_at_its_place_with_the_workers_traceback() -> None:
    with processes(numbers(40, transform=loader_parts.refuses_13)) as loader:
        seen = []
        with pytest.raises(ZeroDivisionError, match="thirteen") as raised:
            seen.extend(batch["x"].tolist() for batch in loader)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert isinstance(raised.value.__cause__, RemoteError)
    assert "refuses_13" in str(raised.value.__cause__)


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path) -> None:
    with processes(numbers(60, transform=loader_parts.Deadly(str(tmp_path / "done")))) as loader:
        assert list(itertools.chain.from_iterable(read(loader))) == list(range(60))


def test_a_batch_that_kills_twice_is_named() -> None:
    with (
        processes(numbers(60, transform=loader_parts.Deadly(None))) as loader,
        pytest.raises(RemoteError, match=r"SIGKILL.*out of memory.*\[12, 13"),
    ):
        read(loader)


def test_workers_that_are_killed_from_outside_are_replaced(many_kinds: str) -> None:
    with processes(StreamingDataset(many_kinds, transform=same), batch_size=4) as loader:
        seen = []
        for number, batch in enumerate(loader):
            seen += batch["id"].tolist()
            if number in {5, 30}:
                found = children()
                assert found
                for pid in found:
                    os.kill(pid, signal.SIGKILL)
    assert seen == list(range(300))


def children() -> list[int]:
    """Return the loader's workers: grandchildren too, for the fork server stands between."""
    found = subprocess.run(["pgrep", "-f", "multiprocessing"], capture_output=True, text=True, check=False).stdout.split()
    mine = {os.getpid()}
    tree = {int(pid): parent_of(int(pid)) for pid in found}
    for _ in range(3):
        mine |= {pid for pid, parent in tree.items() if parent in mine}
    servers = {pid for pid in mine if b"forkserver" in command_of(pid) and parent_of(pid) == os.getpid()}
    return [pid for pid in mine if parent_of(pid) in servers]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_workers_that_cannot_begin_say_why() -> None:
    with processes(numbers(8), worker_init_fn=loader_parts.fails_to_begin) as loader, pytest.raises(RuntimeError, match="no scratch disk"):
        read(loader)


def test_what_cannot_be_sent_is_forked_or_named() -> None:
    secret = object()
    with processes(numbers(20, transform=lambda sample: {"x": sample["x"] + (secret is None)})) as loader:
        assert list(itertools.chain.from_iterable(read(loader))) == list(range(20))
    local = numbers(20, transform=lambda sample: sample)
    with processes(local, multiprocessing_context="spawn") as loader, pytest.raises(ConfigError, match="transform cannot be sent"):
        read(loader)


def test_persistent_workers_stay() -> None:
    def pids(loader: StreamingDataLoader) -> set[int]:
        return {pid for batch in loader for pid in batch["pid"].tolist()}

    with processes(numbers(40, transform=loader_parts.with_process), persistent_workers=True) as loader:
        assert pids(loader) == pids(loader)
    with processes(numbers(40, transform=loader_parts.with_process)) as loader:
        assert pids(loader).isdisjoint(pids(loader))


def test_leaving_early_leaves_no_process() -> None:
    with processes(numbers(400, transform=loader_parts.with_process)) as loader:
        pids = set(next(iter(loader))["pid"].tolist())
    assert all(not Path(f"/proc/{pid}").exists() or parent_of(pid) == -1 for pid in pids)


def sleeps(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["x"] == 5:
        time.sleep(30)
    return sample


def test_a_batch_that_does_not_come_is_an_error_after_the_timeout() -> None:
    with (
        processes(numbers(8, transform=sleeps), timeout=1) as loader,
        pytest.raises(StalledError, match=r"timeout=1 s: tray [01] is with worker"),
    ):
        read(loader)


CONSUMER = """
import sys, time
from leyden.data import StreamingDataLoader
from tests.support.array_dataset import numbers
from tests.support.loader_parts import with_process

if __name__ == "__main__":
    loader = StreamingDataLoader(numbers(4000, transform=with_process), batch_size=4, num_workers=2, multiprocessing_context={method!r})
    pids = set()
    for batch in loader:
        pids |= set(batch["pid"].tolist())
        if len(pids) == 2:
            break
    iterator = iter(loader)
    next(iterator)
    print(*{{pid for pid in next(iterator)["pid"].tolist()}} | {{pid for pid in next(iterator)["pid"].tolist()}}, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_a_killed_consumer_leaves_nothing(method: str, tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    script = tmp_path / "consumer.py"
    script.write_text(CONSUMER.format(method=method))
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    ) as consumer:
        assert consumer.stdout is not None
        pids = [int(pid) for pid in consumer.stdout.readline().split()]
        consumer.kill()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their consumer"
        os.sched_yield()
    assert pids
    if before:
        assert set(Path("/dev/shm").iterdir()) <= before


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


UNGUARDED = """
from leyden.data import StreamingDataLoader
from tests.support.array_dataset import numbers
from tests.support.loader_parts import doubled

loader = StreamingDataLoader(numbers(40, transform=doubled), num_workers=1)
print(len(list(loader)))
"""


def test_a_script_without_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert done.returncode != 0
    assert '__name__ == "__main__"' in done.stderr.strip().splitlines()[-1]


def test_workers_that_stay_read_the_version_that_a_state_is_of(tmp_path: Path) -> None:
    folder = str(tmp_path)
    optimize(loader_parts.numbered, list(range(20)), folder, num_workers=0, verbose=False)
    state = StreamingDataLoader(StreamingDataset(folder), batch_size=4).state_dict()
    with dataset_update(folder) as update:
        for row in range(20):
            update[row] = {"x": row + 1000}
        update.commit()
    with processes(StreamingDataset(folder), num_workers=1, persistent_workers=True) as loader:
        assert read(loader)[0] == [1000, 1001, 1002, 1003]
        with pytest.warns(UserWarning, match="the state is of version 1"):
            loader.load_state_dict(state)
        assert read(loader)[0] == [0, 1, 2, 3]


def test_trays_that_fail_give_their_memory_back() -> None:
    held = []
    with processes(numbers(40, transform=loader_parts.fails_at_13), num_workers=1, persistent_workers=True, prefetch_factor=4) as loader:
        for _ in range(6):
            loader.set_epoch(1)
            with pytest.raises(ValueError, match="13"):
                list(loader)
            worker = loader._runner[1]._workers[0]  # type: ignore[index, union-attr]
            held.append(len(worker._used))
    assert max(held) <= 4, "no more than are on their way"


def test_named_tuples_come_from_workers_in_their_class(tmp_path: Path) -> None:
    optimize(loader_parts.point, list(range(8)), str(tmp_path), num_workers=0, verbose=False)
    dataset = StreamingDataset(str(tmp_path))
    with processes(dataset, num_workers=1, collate_fn=loader_parts.same) as loader:
        first = next(iter(loader))[0]
    assert type(first) is type(dataset[0])
    assert (type(first).__name__, first._fields, tuple(first)) == ("Point", ("x", "y"), (0, 1))
