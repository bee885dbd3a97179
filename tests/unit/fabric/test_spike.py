import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.core.errors import ConfigError
from leyden.fabric.spike import SpikeDetection, TrainingSpikeException
from leyden.fabric.strategies.single import SingleDeviceStrategy


class OneDeviceFabric:
    strategy = SingleDeviceStrategy()


def spikes_at(losses: list[float], root: Path, **options: Any) -> int | None:
    detection = SpikeDetection(exclude_batches_path=root, **options)
    for index, loss in enumerate(losses):
        try:
            detection.on_train_batch_end(OneDeviceFabric(), torch.tensor(loss), None, index)
        except TrainingSpikeException as spike:
            return spike.batch_idx
    return None


@pytest.mark.parametrize(
    ("losses", "options", "at"),
    [
        ([1.0] * 5 + [3.5], {}, 5),
        ([1.0] * 5 + [2.5], {}, None),
        ([1.0, 5.0], {"warmup": 1}, 1),
        ([1.0, 5.0, 1.0], {"warmup": 5}, None),
        ([1.0] * 5 + [3.5], {"atol": 10.0}, None),
        ([1.0] * 5 + [3.5], {"atol": 2.0}, 5),
        ([1.0] * 5 + [1.6], {"atol": 0.5, "rtol": None}, 5),
        ([5.0, 4.0, 1.0, 0.1], {}, None),
        ([0.5] * 5 + [-1.0], {"mode": "max"}, 5),
        ([0.5] * 5 + [2.0], {"mode": "max"}, None),
        ([1.0, math.nan], {}, 1),
        ([1.0, math.inf, 1.0], {"finite_only": False}, None),
        ([1.0, math.inf, 4.0], {"finite_only": False}, 2),
        ([100.0] + [1.0] * 3 + [3.5], {"window": 3}, 4),
        ([100.0] + [1.0] * 3 + [3.5], {"window": 4}, None),
    ],
    ids=str,
)
def test_a_spike_is_worse_than_the_last_and_far_from_the_mean(
    tmp_path: Path, losses: list[float], options: dict[str, Any], at: int | None
) -> None:
    assert spikes_at(losses, tmp_path, **options) == at
    file = tmp_path / "skip_batches.json"
    assert (json.loads(file.read_text()) if file.exists() else None) == (None if at is None else [at - 1, at])


def test_skipped_batches_add_up_over_tries(tmp_path: Path) -> None:
    detection = SpikeDetection(exclude_batches_path=tmp_path / "bad.json")
    for index, loss in enumerate([1.0, 9.0, 1.0, 9.0]):
        if loss > 1:
            with pytest.raises(TrainingSpikeException, match=f"Training spike detected in batch {index}"):
                detection.on_train_batch_end(OneDeviceFabric(), torch.tensor(loss), None, index)
        else:
            detection.on_train_batch_end(OneDeviceFabric(), torch.tensor(loss), None, index)
    assert json.loads((tmp_path / "bad.json").read_text()) == [0, 1, 2, 3]


def test_state_goes_on_where_it_was(tmp_path: Path) -> None:
    first = SpikeDetection(exclude_batches_path=tmp_path, window=4, rtol=3.0)
    for index in range(4):
        first.on_train_batch_end(OneDeviceFabric(), torch.tensor(1.0), None, index)
    second = SpikeDetection(exclude_batches_path=tmp_path / "other", window=9)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    second.on_train_batch_end(OneDeviceFabric(), torch.tensor(3.9), None, 4)
    with pytest.raises(TrainingSpikeException):
        second.on_train_batch_end(OneDeviceFabric(), torch.tensor(10.0), None, 5)
    assert (tmp_path / "skip_batches.json").exists()


def test_the_exception_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(TrainingSpikeException(7)))
    assert (error.batch_idx, str(error)) == (7, "Training spike detected in batch 7")


@pytest.mark.parametrize("arguments", [{"mode": "least"}, {"window": 0}, {"warmup": -1}], ids=str)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        SpikeDetection(**arguments)
