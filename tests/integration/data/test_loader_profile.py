"""Traces and profiles of a loader's workers."""

import json
import os
import pstats
from pathlib import Path
from typing import Any

import pytest

from leyden.core.errors import ConfigError
from leyden.data import StreamingDataLoader
from tests.support.array_dataset import numbers
from tests.support.loader_parts import doubled


@pytest.mark.parametrize(("kind", "processes"), [("threads", 1), ("processes", 2)])
def test_stages_are_traced(tmp_path: Path, kind: Any, processes: int) -> None:
    dataset = numbers(80)
    with StreamingDataLoader(dataset, batch_size=4, num_workers=1, worker_kind=kind, profile_batches=6, profile_dir=tmp_path) as loader:
        assert sum(1 for _ in loader) == 20
    events = json.loads((tmp_path / "result.json").read_text())["traceEvents"]
    assert {event["name"] for event in events} == {"gather", "make batches", "wait for a tray"}
    assert len({event["pid"] for event in events}) == processes
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in events)
    assert os.getpid() in {event["pid"] for event in events}


def test_the_profiler_of_python_runs_in_workers(tmp_path: Path) -> None:
    dataset = numbers(80, transform=doubled)
    with StreamingDataLoader(dataset, batch_size=4, num_workers=2, profile_cprofile=True, profile_dir=tmp_path) as loader:
        list(loader)
    names = {name for _, _, name in pstats.Stats(str(tmp_path / "worker-0.prof")).stats}  # type: ignore[attr-defined]
    assert "doubled" in names
    assert (tmp_path / "worker-1.prof").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile_batches": 3}, "num_workers=0 has none"),
        ({"profile_batches": 3, "profile_cprofile": True, "num_workers": 1}, "pass one of them"),
        ({"profile_batches": 3, "profile_skip_batches": -1, "num_workers": 1}, "profile_skip_batches=-1"),
    ],
)
def test_what_cannot_be_profiled_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreamingDataLoader(numbers(4), **options)
