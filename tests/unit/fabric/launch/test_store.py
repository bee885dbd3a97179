"""`MemoryStore` answers as torch's store does, and endless waits end with the value."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from torch import distributed as dist

from leyden.core.errors import StateError
from leyden.fabric.launch.store import KeyValueStore, MemoryStore, own_client, tcp_store, wait_for_ever


@pytest.fixture(params=["memory", "tcp"])
def store(request: pytest.FixtureRequest) -> Iterator[KeyValueStore]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        yield tcp_store("127.0.0.1", 0, hosts=True, timeout=timedelta(seconds=20))


def test_set_get_check_add(store: KeyValueStore) -> None:
    assert store.check(["a"]) is False
    store.set("a", "1")
    assert store.check(["a"]) is True
    assert store.check(["a", "b"]) is False
    assert store.get("a") == b"1"
    assert store.add("n", 2) == 2
    assert store.add("n", 3) == 5


def test_compare_set_lets_the_first_win(store: KeyValueStore) -> None:
    assert store.compare_set("k", "", "first") == b"first"
    assert store.compare_set("k", "", "second") == b"first"
    assert store.compare_set("k", "first", "third") == b"third"
    assert store.compare_set("absent", "expected", "x") == b"expected"
    assert store.check(["absent"]) is False


def test_a_deleted_key_is_absent(store: KeyValueStore) -> None:
    store.set("k", "1")
    assert store.delete_key("k") is True
    assert store.check(["k"]) is False
    assert store.delete_key("k") is False
    assert store.compare_set("k", "", "again") == b"again"


def test_wait_ends_with_the_key_or_the_time(store: KeyValueStore) -> None:
    client = own_client(store)
    threading.Timer(0.02, lambda: client.set("late", "x")).start()
    store.wait(["late"], timedelta(seconds=20))
    with pytest.raises((StateError, dist.DistStoreError)):
        store.wait(["never"], timedelta(seconds=0.02))


def test_waiting_for_ever_survives_its_slices(store: KeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.fabric.launch.store.WAIT_SLICE", timedelta(milliseconds=20))
    client = own_client(store)
    threading.Timer(0.1, lambda: client.set("late", "x")).start()

    assert wait_for_ever(own_client(store), "late") == b"x"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(StateError, match=r"nobody set 'k' within 0\.01 s"):
        MemoryStore(timedelta(seconds=0.01)).get("k")
