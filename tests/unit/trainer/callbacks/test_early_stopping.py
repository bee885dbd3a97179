import logging
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leyden.core.errors import ConfigError
from leyden.fabric.strategies.single import SingleDeviceStrategy
from leyden.trainer.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason
from tests.support.fake_trainer import FakeTrainer

Reason = EarlyStoppingReason


def stops_at(root: Path, values: list[float], stopping: EarlyStopping, **attributes: Any) -> int | None:
    """Return the epoch in which training is ended."""
    trainer = FakeTrainer(root, stopping, **attributes)
    trainer.begin()
    for value in values:
        trainer.epoch(loss=value)
        if trainer.should_stop:
            return trainer.current_epoch - 1
    return None


@pytest.mark.parametrize(
    ("values", "arguments", "epoch", "reason"),
    [
        ([3, 2, 1], {}, None, Reason.NOT_STOPPED),
        ([1, 2, 3, 4, 5], {}, 3, Reason.PATIENCE_EXHAUSTED),
        ([1, 2, 3, 4, 5], {"patience": 1}, 1, Reason.PATIENCE_EXHAUSTED),
        ([1, 2], {"patience": 0}, 1, Reason.PATIENCE_EXHAUSTED),
        ([3, 2.9, 2.8, 2.7], {"min_delta": 0.5}, 3, Reason.PATIENCE_EXHAUSTED),
        ([3, 2.9, 2.8, 2.7], {"min_delta": -0.5}, 3, Reason.PATIENCE_EXHAUSTED),
        ([3, 2.4, 1.8, 1.2], {"min_delta": 0.5}, None, Reason.NOT_STOPPED),
        ([1, 2, 0.5, 2, 2, 2], {}, 5, Reason.PATIENCE_EXHAUSTED),
        ([1, 2, 3, 3, 3, 3], {"mode": "max"}, 5, Reason.PATIENCE_EXHAUSTED),
        ([1, 1, 1, 1], {}, 3, Reason.PATIENCE_EXHAUSTED),
        ([1, math.nan], {}, 1, Reason.NON_FINITE_METRIC),
        ([1, math.inf], {}, 1, Reason.NON_FINITE_METRIC),
        ([1, math.nan, math.nan, 0.5], {"check_finite": False}, None, Reason.NOT_STOPPED),
        ([1, math.nan, math.nan, math.nan], {"check_finite": False}, 3, Reason.PATIENCE_EXHAUSTED),
        ([3, 2, 1], {"stopping_threshold": 2.5}, 1, Reason.STOPPING_THRESHOLD),
        ([1, 2, 3], {"stopping_threshold": 2.5, "mode": "max"}, 2, Reason.STOPPING_THRESHOLD),
        ([3, 2, 2.5], {"divergence_threshold": 5}, None, Reason.NOT_STOPPED),
        ([3, 6], {"divergence_threshold": 5}, 1, Reason.DIVERGENCE_THRESHOLD),
        ([6, 3], {"divergence_threshold": 5, "mode": "max"}, 1, Reason.DIVERGENCE_THRESHOLD),
        ([1, 7], {"stopping_threshold": 8, "divergence_threshold": 5}, 0, Reason.STOPPING_THRESHOLD),
    ],
    ids=str,
)
def test_training_ends_for_the_first_reason_that_holds(
    tmp_path: Path, values: list[float], arguments: dict[str, Any], epoch: int | None, reason: EarlyStoppingReason
) -> None:
    stopping = EarlyStopping("loss", **arguments)
    assert stops_at(tmp_path, values, stopping) == epoch
    assert stopping.stopping_reason is reason
    assert stopping.stopped_epoch == (epoch or 0)
    assert (stopping.stopping_reason_message is None) == (epoch is None)


@given(st.lists(st.floats(-10, 10), max_size=20), st.integers(1, 4), st.floats(0, 2), st.sampled_from(["min", "max"]))
def test_patience_counts_checks_since_the_last_improvement(values: list[float], patience: int, min_delta: float, mode: Any) -> None:
    stopping = EarlyStopping("loss", min_delta=min_delta, patience=patience, mode=mode)
    best, since, sign = math.inf, 0, 1 if mode == "min" else -1
    for value in values:
        value = float(torch.tensor(value))  # noqa: PLW2901 - as a metric is kept
        reason, _ = stopping.judge(torch.tensor(value))
        if sign * value + min_delta < best:
            best, since = sign * value, 0
        else:
            since += 1
        assert (stopping.wait_count, float(stopping.best_score)) == (since, sign * best)
        assert bool(reason) == (since >= patience)


@pytest.mark.parametrize(
    ("attributes", "given", "at"),
    [
        ({}, None, "on_train_epoch_end"),
        ({"val_check_interval": 4}, None, "on_train_epoch_end"),
        ({"val_check_interval": 0.5}, None, "on_validation_end"),
        ({"check_val_every_n_epoch": 2}, None, "on_validation_end"),
        ({}, False, "on_validation_end"),
        ({"val_check_interval": 0.5}, True, "on_train_epoch_end"),
    ],
    ids=str,
)
def test_it_looks_where_the_metric_is_complete(tmp_path: Path, attributes: dict[str, Any], given: bool | None, at: str) -> None:
    stopping = EarlyStopping("loss", check_on_train_epoch_end=given)
    trainer = FakeTrainer(tmp_path, stopping, **attributes)
    trainer.log(loss=1.0)
    for hook in ("on_train_epoch_end", "on_validation_end"):
        stopping.best_score = torch.tensor(math.inf)
        trainer.fire(hook)
        assert (float(stopping.best_score) == 1.0) == (hook == at)


@pytest.mark.parametrize("attributes", [{"fast_dev_run": 1}, {"sanity_checking": True}], ids=str)
def test_rehearsals_are_not_judged(tmp_path: Path, attributes: dict[str, Any]) -> None:
    trainer = FakeTrainer(tmp_path, EarlyStopping("absent"), **attributes)
    trainer.fire("on_validation_end")
    trainer.fire("on_train_epoch_end")
    assert not trainer.should_stop


def test_an_absent_metric_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, EarlyStopping("val_los"))
    trainer.begin()
    with pytest.raises(RuntimeError, match=r"Early stopping conditioned on metric `val_los` which is not available\. Did you mean 'val_l"):
        trainer.epoch(val_loss=1.0)


def test_an_absent_metric_warns_where_that_is_allowed(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, EarlyStopping("val_loss", strict=False))
    trainer.begin()
    with pytest.warns(RuntimeWarning, match="Logged: nothing"):
        trainer.epoch()
    assert not trainer.should_stop


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="`mode` can be min, max, got best"):
        EarlyStopping("loss", mode="best")  # pyrefly: ignore[bad-argument-type]
    with pytest.raises(ConfigError, match="patience=-1"):
        EarlyStopping("loss", patience=-1)


def test_the_state_goes_on_in_another_run(tmp_path: Path) -> None:
    first = EarlyStopping("loss", patience=5)
    assert first.state_key == "EarlyStopping{'monitor': 'loss', 'mode': 'min'}"
    assert stops_at(tmp_path, [1, 2, 3], first) is None
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state == {
        "wait_count": 2,
        "stopped_epoch": 0,
        "best_score": torch.tensor(1.0),
        "patience": 5,
        "stopping_reason": 0,
        "stopping_reason_message": None,
    }
    second = EarlyStopping("loss", patience=3)
    second.load_state_dict(state)
    assert (second.patience, second.wait_count) == (3, 2)
    assert stops_at(tmp_path, [4], second) == 0


def test_a_reason_is_known_to_the_process_that_started_the_run_and_forgotten_by_the_next_one(tmp_path: Path) -> None:
    first, second = EarlyStopping("loss", patience=0), EarlyStopping("loss", patience=0)
    stops_at(tmp_path, [1, 2], first)
    second.load_state_dict(first.state_dict())
    assert second.stopping_reason is Reason.PATIENCE_EXHAUSTED
    assert second.stopping_reason_message == first.stopping_reason_message
    FakeTrainer(tmp_path, second).begin()
    assert (second.stopping_reason, second.stopping_reason_message) == (Reason.NOT_STOPPED, None)


def test_a_state_of_lightning_is_read() -> None:
    stopping = EarlyStopping("loss")
    stopping.load_state_dict({"wait_count": 1, "stopped_epoch": 0, "best_score": torch.tensor(2.0), "patience": 3})
    assert (stopping.wait_count, float(stopping.best_score)) == (1, 2.0)


def test_the_verbose_say_what_improved_and_why_training_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stops_at(tmp_path, [3, 2, 9], EarlyStopping("loss", patience=1, verbose=True))
    assert "Metric loss improved. New best score: 3.000" in caplog.text
    assert "Metric loss improved by 1.000 >= min_delta = 0.0. New best score: 2.000" in caplog.text
    assert "Monitored metric loss did not improve in the last 1 checks. Best score: 2.000." in caplog.text


class OneOfTwo(SingleDeviceStrategy):
    """Rank 1 of two; rank 0 has found a reason."""

    world_size = 2
    global_rank = 1

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        return True

    def all_reduce(self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean") -> Tensor:
        assert reduce_op == "max"
        return torch.maximum(tensor, torch.tensor(int(Reason.NON_FINITE_METRIC)))


@pytest.mark.parametrize("quiet", [True, False])
def test_a_rank_stops_with_the_others_and_takes_their_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture, quiet: bool) -> None:
    caplog.set_level(logging.INFO)
    stopping = EarlyStopping("loss", verbose=True, log_rank_zero_only=quiet)
    assert stops_at(tmp_path, [1], stopping, strategy=OneOfTwo()) == 0
    assert stopping.stopping_reason is Reason.NON_FINITE_METRIC
    assert stopping.stopping_reason_message == "Another rank stopped: non finite metric."
    assert ("[rank: 1] Another rank stopped" in caplog.text) == (not quiet)
