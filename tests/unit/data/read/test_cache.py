"""The node cache: one fetch per block whoever asks, nothing half written, and never more than the budget."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from leyden.core.failpoints import armed
from leyden.data.read.cache import DiskCache, MemoryCache
from leyden.data.read.owner import Owner

KEY = "data/chunk/7"
FETCHER = """
import sys
from leyden.data.read.cache import DiskCache
cache = DiskCache(sys.argv[1], 10**9)
for number in range(int(sys.argv[2])):
    key, size = f"data/chunk/{number}", 1000
    while (found := cache.look(key, size)) is None:
        if cache.claim(key):
            if cache.look(key, size) is None:
                print("fetched", number, flush=True)
                found = cache.put(key, bytes([number]) * size)
            else:
                cache.release(key)
        else:
            cache.wait(key, size)
    assert bytes(cache.look(key, size)) == bytes([number]) * size
"""


def started(folder: Path, blocks: int, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(folder), str(blocks)], stdout=subprocess.PIPE, text=True, env={**os.environ, **environ}
    )


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_was_put_is_found_by_all(tmp_path: Path) -> None:
    assert DiskCache(tmp_path, 10**6).claim(KEY)
    cache = DiskCache(tmp_path, 10**6)
    assert not cache.claim(KEY)
    cache.put(KEY, b"block")
    assert bytes(DiskCache(tmp_path, 10**6).look(KEY, 5) or b"") == b"block"


def test_a_file_of_another_length_is_no_hit(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10**6)
    cache.put(KEY, b"block")
    assert cache.look(KEY, 6) is None


def test_a_released_claim_is_free_for_the_next(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10**6)
    assert cache.claim(KEY)
    cache.release(KEY)
    assert cache.wait(KEY, 5) is None
    assert cache.claim(KEY)


def test_a_waiter_gets_the_file_of_the_claimant(tmp_path: Path) -> None:
    cache, got = DiskCache(tmp_path, 10**6), []
    assert cache.claim(KEY)
    waiter = threading.Thread(target=lambda: got.append(DiskCache(tmp_path, 10**6).wait(KEY, 5)))
    waiter.start()
    cache.put(KEY, b"block")
    waiter.join(30)
    assert bytes(got[0]) == b"block"


def test_a_map_outlives_its_file(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10**6)
    view = cache.put(KEY, b"block")
    cache.drop(KEY)
    assert cache.look(KEY, 5) is None
    assert bytes(view) == b"block"


def test_several_processes_fetch_each_block_once(tmp_path: Path) -> None:
    processes = [started(tmp_path, 30) for _ in range(4)]
    lines = [line for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(lines) == sorted(f"fetched {number}" for number in range(30))
    assert not list(tmp_path.rglob("*.lease"))
    assert not list(tmp_path.rglob("*.tmp-*"))


@pytest.mark.parametrize("step", ["cache.claimed", "cache.before_write", "cache.written", "cache.renamed"])
def test_a_process_killed_at_any_step_costs_nobody_anything(tmp_path: Path, step: str) -> None:
    killed = started(tmp_path, 5, LEYDEN_FAILPOINT=f"{step}:3=kill")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    heirs = [started(tmp_path, 5) for _ in range(2)]
    lines = [line for process in heirs for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in heirs] == [0, 0]
    assert len(lines) == len(set(lines)) <= 3  # the blocks that the killed one has not put, each once


def test_a_lease_of_a_living_process_is_left_alone_until_it_is_two_minutes_old(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10**6)
    assert cache.claim(KEY)
    other = DiskCache(tmp_path, 10**6)
    lease = tmp_path / f"{KEY}.lease"
    aged(lease, 100)
    assert not other.claim(KEY)
    aged(lease, 130)
    assert other.claim(KEY)
    cache.release(KEY)  # late: the lease is not its own any more
    assert lease.exists()
    other.release(KEY)
    assert not lease.exists()


def test_of_many_that_see_a_dead_owner_one_takes_over(tmp_path: Path) -> None:
    for number in range(20):
        lease = tmp_path / f"{number}.lease"
        lease.write_text(json.dumps([2**22 - 1, "1", Owner.here().boot, "claim-x"]))
        barrier, won = threading.Barrier(6), []

        def claim(key: str = str(number), barrier: threading.Barrier = barrier, won: list[bool] = won) -> None:
            barrier.wait(30)
            won.append(DiskCache(tmp_path, 10**6).claim(key))

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(won) == [False] * 5 + [True]


def test_a_lease_that_cannot_be_read_is_waited_for_until_it_is_old(tmp_path: Path) -> None:
    lease = tmp_path / "a.lease"
    lease.write_text("")
    assert not DiskCache(tmp_path, 10**6).claim("a")
    aged(lease, 130)
    assert DiskCache(tmp_path, 10**6).claim("a")


def test_an_owner_of_another_boot_or_start_is_dead() -> None:
    here = Owner.here()
    assert here.is_alive()
    assert not here._replace(start="1").is_alive()
    assert not here._replace(boot="another").is_alive()


def test_the_oldest_go_first_and_the_budget_holds(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    for number in range(9):
        cache.put(str(number), bytes(1000))
        aged(tmp_path / f"{number}.blk", 1000 - number)
    assert cache.look("0", 1000) is not None  # used just now
    cache.put("new", bytes(1000))
    left = {path.stem for path in tmp_path.glob("*.blk")}
    assert {"0", "8", "new"} <= left
    assert "1" not in left
    assert sum(path.stat().st_size for path in tmp_path.glob("*.blk")) <= 8500


def test_what_was_used_in_the_last_minute_is_spared_unless_it_alone_exceeds_the_budget(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    for number in range(9):
        cache.put(str(number), bytes(1000))
    cache.evict(900)
    assert len(list(tmp_path.glob("*.blk"))) == 9
    cache.evict(1500)
    assert len(list(tmp_path.glob("*.blk"))) == 7


def test_eviction_sees_what_other_processes_added_and_sweeps_old_leftovers(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a.blk", "b.blk", "c.blk.tmp-00000000000000000000", "e.lease"):
        (tmp_path / "d" / name).write_bytes(bytes(6000))
        aged(tmp_path / "d" / name, 4000)
    cache = DiskCache(tmp_path, 10_000)
    cache.put("new", bytes(1000))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b.blk", "evict.lock", "new.blk"] or sorted(
        path.name for path in tmp_path.rglob("*") if path.is_file()
    ) == ["a.blk", "evict.lock", "new.blk"]


def test_a_killed_eviction_lets_the_next_one_in(tmp_path: Path) -> None:
    script = "import sys; from leyden.data.read.cache import DiskCache; DiskCache(sys.argv[1], 100).evict()"
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "LEYDEN_FAILPOINT": "cache.evicting=kill"},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (tmp_path / "a.blk").write_bytes(bytes(200))
    assert DiskCache(tmp_path, 100).evict() == 0


def test_a_full_disk_is_freed_and_the_block_written_then(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    with armed("cache.before_write=enospc"):
        assert bytes(cache.put(KEY, b"block")) == b"block"
    assert (tmp_path / f"{KEY}.blk").exists()


def test_a_disk_that_stays_full_is_replaced_by_memory_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("leyden.data.read.cache._write_file", full)
    cache = DiskCache(tmp_path, 10_000)
    assert cache.claim(KEY)
    with pytest.warns(UserWarning, match="is full: blocks are kept in memory"):
        assert bytes(cache.put(KEY, b"block")) == b"block"
    cache.put("other", b"block")
    assert bytes(cache.look(KEY, 5) or b"") == b"block"
    assert not list(tmp_path.rglob("*.lease"))


def test_memory_holds_the_youngest_up_to_its_budget() -> None:
    cache = MemoryCache(2500)
    for name in "abc":
        assert cache.claim(name)
        cache.put(name, bytes(1000))
    assert [cache.look(name, 1000) is not None for name in "abc"] == [False, True, True]


def test_in_memory_one_thread_fetches_and_the_others_wait() -> None:
    cache, got = MemoryCache(10**6), []
    assert cache.claim(KEY)
    assert not cache.claim(KEY)
    waiter = threading.Thread(target=lambda: got.append(cache.wait(KEY, 5)))
    waiter.start()
    cache.put(KEY, b"block")
    waiter.join(30)
    assert bytes(got[0]) == b"block"
