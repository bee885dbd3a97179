"""What a sample costs, counted and not timed: Python calls, looks at the disk, bytes of state."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.data import StreamingDataLoader, StreamingDataset, TokensLoader, optimize

RECORDS, WINDOWS = 4000, 2000


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("records"))
    optimize(lambda n: {"id": n, "score": n / 7, "text": f"{n:055d}"}, list(range(RECORDS)), folder, num_workers=0, verbose=False)
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tokens"))
    rows = np.arange(64 * WINDOWS, dtype=np.int32).reshape(-1, 64 * 20)
    optimize(lambda n: rows[n], list(range(len(rows))), folder, num_workers=0, item_loader=TokensLoader(), verbose=False)
    return folder


def calls_of(loader: StreamingDataLoader) -> int:
    """Return how many Python functions an epoch calls, after one that opens all blocks."""
    list(loader)
    calls = 0

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        for _ in loader:
            pass
    finally:
        sys.setprofile(None)
    return calls


def test_a_record_costs_less_than_two_calls(records: str) -> None:
    calls = calls_of(StreamingDataLoader(StreamingDataset(records, shuffle=True), batch_size=64))
    assert calls <= 2 * RECORDS


def test_a_window_of_tokens_costs_less_than_twelve_calls(tokens: str) -> None:
    dataset = StreamingDataset(tokens, shuffle=True, item_loader=TokensLoader(block_size=64))
    assert calls_of(StreamingDataLoader(dataset, batch_size=16)) <= 12 * WINDOWS


def test_the_disk_is_not_looked_at_for_each_sample(records: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = StreamingDataLoader(StreamingDataset(records, shuffle=True), batch_size=64)
    list(loader)
    looks: list[Any] = []
    for name in ("stat", "lstat", "open", "scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, real=real, **named: (looks.append(given), real(*given, **named))[1])
    monkeypatch.setattr(Path, "exists", looks.append)
    list(loader)
    assert looks == []


def test_a_state_is_small(records: str) -> None:
    loader = StreamingDataLoader(StreamingDataset(records, shuffle=True), batch_size=64)
    next(iter(loader))
    assert len(str(loader.state_dict())) <= 1000
