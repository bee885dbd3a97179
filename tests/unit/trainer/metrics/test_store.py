import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.trainer.metrics.store import MetricStore
from tests.support.metric_loops import numbers


def store(hook: str = "training_step", stage: str = "train", size: int = 2) -> MetricStore:
    made = MetricStore()
    made.current, made.batch = made.slots(stage, hook), torch.zeros(size)
    return made


def validating(hook: str = "validation_step") -> MetricStore:
    return store(hook, "validate")


# -- where and how something may be logged ---------------------------------------------------------------------------


def test_outside_of_hooks_nothing_can_be_logged() -> None:
    with pytest.raises(ConfigError, match="it is not managed by the `Trainer` control flow"):
        MetricStore().log("a", 1.0)


def test_predicting_has_no_metrics() -> None:
    with pytest.raises(ConfigError, match="it doesn't support logging"):
        store("predict_step", "predict").log("a", 1.0)


def test_one_name_in_one_hook_has_one_meaning() -> None:
    kept = store()
    kept.log("a", 1.0)
    with pytest.raises(ConfigError, match="twice in `training_step` with different arguments"):
        kept.log("a", 1.0, on_epoch=True)
    kept.current = kept.slots("train", "on_train_batch_end")
    kept.log("a", 1.0, on_epoch=True)


def test_a_default_spelt_out_is_the_same_meaning() -> None:
    kept = store()
    for options in ({}, {"on_step": True}, {"logger": True, "reduce_fx": torch.mean}, {}):
        kept.log("a", 1.0, **options)
    assert kept.step_row("train") == {"a": 1.0}


def test_loaders_without_their_number_must_not_share_a_name() -> None:
    for first, second in ((False, False), (True, False), (False, True)):
        kept = validating()
        kept.dataloader_idx = 0
        kept.log("a", 1.0, add_dataloader_idx=first)
        kept.dataloader_idx = 1
        with pytest.raises(ConfigError, match="twice in `validation_step`"):
            kept.log("a", 1.0, add_dataloader_idx=second)


def test_names_without_their_loader_are_fine_where_they_differ() -> None:
    kept = validating()
    for loader in (0, 1):
        kept.dataloader_idx = loader
        kept.log(f"a{loader}", float(loader), add_dataloader_idx=False)
    kept.dataloader_idx = None
    assert kept.end_epoch("validate") == {"a0": 0.0, "a1": 1.0}
    assert kept.results("validate", 2) == [{"a0": 0.0}, {"a1": 1.0}]


# -- weights ---------------------------------------------------------------------------------------------------------


def test_the_mean_of_an_epoch_is_weighted_by_batch_sizes() -> None:
    kept = validating()
    for size, value in ((3, 1.0), (1, 5.0)):
        kept.batch = (torch.zeros(size, 2), torch.zeros(size))
        kept.log("inferred", value)
        kept.log("given", value, batch_size=1)
    assert kept.end_epoch("validate") == {"inferred": 2.0, "given": 3.0}


class Watched(dict[str, Any]):
    """A batch that counts how often it is walked."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


@pytest.mark.parametrize(
    ("options", "walks"),
    [({}, 0), ({"on_epoch": True}, 1), ({"on_epoch": True, "batch_size": 3}, 0), ({"on_epoch": True, "reduce_fx": "sum"}, 0)],
)
def test_a_batch_is_measured_only_where_a_mean_needs_it_and_once(options: dict[str, Any], walks: int) -> None:
    kept = store()
    for _ in range(2):
        kept.batch = batch = Watched(x=torch.zeros(2))
        kept.log("a", 1.0, **options)
        kept.log("b", 1.0, **options)
        assert batch.walks == walks


def test_a_batch_without_a_size_is_an_error_only_where_a_mean_needs_it() -> None:
    kept = store()
    kept.batch = ["text"]
    kept.log("a", 1.0)
    with pytest.raises(ConfigError, match="could not infer the batch_size"):
        kept.log("b", 1.0, on_epoch=True)


def test_hooks_of_an_epoch_need_no_batch() -> None:
    kept = store("on_train_epoch_end")
    kept.batch = None
    kept.log("a", 1.0)
    kept.log("a", 3.0)
    assert kept.end_epoch("train") == {"a": 2.0}


def test_an_epoch_of_empty_batches_has_no_mean() -> None:
    kept = validating()
    kept.log("a", 1.0, batch_size=0)
    assert math.isnan(kept.end_epoch("validate")["a"])  # type: ignore[arg-type]


# -- lifetime --------------------------------------------------------------------------------------------------------


def test_only_what_was_logged_in_this_epoch_is_emitted() -> None:
    kept = store()
    kept.log("a", 1.0, on_epoch=True)
    kept.log("b", 1.0)
    kept.end_epoch("train")
    kept.begin_epoch("train")
    assert kept.step_row("train") == kept.end_epoch("train") == {}
    assert numbers(kept.callback_metrics) == {"a": 1.0, "a_step": 1.0, "a_epoch": 1.0, "b": 1.0}


def test_an_epoch_that_was_left_counts_for_nothing() -> None:
    kept = validating()
    kept.log("a", 100.0)
    kept.begin_epoch("validate")
    kept.log("a", 1.0)
    assert kept.end_epoch("validate") == {"a": 1.0}


def test_what_is_logged_before_the_first_epoch_belongs_to_it() -> None:
    kept = store("on_train_start")
    kept.log("a", 1.0)
    kept.begin_epoch("train")
    assert kept.end_epoch("train") == {"a": 1.0}
    kept.begin_epoch("train")
    assert kept.end_epoch("train") == {}


def test_an_entry_point_begins_with_nothing() -> None:
    kept = store()
    kept.log("a", 1.0, prog_bar=True)
    kept.step_row("train")
    held = kept.callback_metrics
    kept.clear()
    assert kept.callback_metrics == kept.logged_metrics == kept.progress_bar_metrics == {}
    assert numbers(held) == {"a": 1.0}
    kept.log("a", 1.0, on_epoch=True)  # another meaning, and the same `HookSlots`


def test_validation_leaves_training_alone() -> None:
    kept = store()
    training = kept.current
    kept.log("a", 1.0, on_epoch=True)
    kept.current = kept.slots("validate", "validation_step")
    kept.begin_epoch("validate")
    kept.log("a", 5.0)
    kept.end_epoch("validate")
    kept.current = training
    kept.log("a", 3.0, on_epoch=True)
    assert kept.end_epoch("train") == {"a_epoch": 2.0}


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_training_values_are_shown_at_once() -> None:
    kept = store()
    kept.log("a", torch.tensor(0.5), on_epoch=True, prog_bar=True)
    assert numbers(kept.callback_metrics) == {"a": 0.5, "a_step": 0.5}
    assert kept.progress_bar_metrics == {"a_step": 0.5}
    assert numbers(kept.logged_metrics) == {"a_step": 0.5}


def test_callbacks_never_see_steps_of_an_evaluation() -> None:
    kept = validating()
    kept.log("v", 1.0, on_step=True, prog_bar=True)
    kept.step_row("validate")
    assert kept.callback_metrics == {}
    assert kept.progress_bar_metrics == {"v_step": 1.0}


def test_epoch_values_are_shown_in_the_hooks_at_its_end() -> None:
    kept = store()
    kept.log("a", 1.0, on_epoch=True)
    kept.log("a", 3.0, on_epoch=True)
    kept.publish("train")
    assert numbers(kept.callback_metrics) == {"a": 2.0, "a_step": 3.0, "a_epoch": 2.0}
    kept.current = kept.slots("train", "on_train_epoch_end")
    kept.log("b", 7.0)
    assert float(kept.callback_metrics["b"]) == 7.0
    assert kept.end_epoch("train") == {"a_epoch": 2.0, "b": 7.0}


def test_reading_before_the_end_of_an_epoch_shows_no_epoch_values() -> None:
    kept = store()
    kept.log("a", 1.0, on_step=False, on_epoch=True)
    assert kept.callback_metrics == {}


def test_double_precision_is_shown_as_such() -> None:
    kept = store()
    kept.log("a", torch.tensor(0.1, dtype=torch.float64))
    kept.log("b", 0.1)
    assert kept.callback_metrics["a"].item() == 0.1
    assert kept.callback_metrics["b"].dtype == torch.float32


def test_what_was_logged_in_inference_mode_can_be_computed_with() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    kept = validating()
    with torch.inference_mode():
        kept.log("a", torch.tensor(3.0), enable_graph=True)
        kept.log("b", torch.tensor(3.0))
        kept.end_epoch("validate")
        assert kept.callback_metrics
    for name in ("a", "b"):
        (weight * kept.callback_metrics[name]).backward()
    assert weight.grad is not None
    assert weight.grad.item() == 6.0


def test_callbacks_may_add_their_own() -> None:
    kept = store()
    kept.callback_metrics["lr-SGD"] = torch.tensor(0.1)
    kept.log("a", 1.0)
    assert set(kept.callback_metrics) == {"lr-SGD", "a"}


# -- laws ------------------------------------------------------------------------------------------------------------

NAMES = {"step": (True, False), "epoch": (False, True), "both": (True, True)}
REDUCTIONS = {"mean": None, "sum": sum, "max": max, "min": min}
VALUES = st.integers(-1000, 1000).map(lambda value: value / 8)
LOG = st.tuples(st.sampled_from(sorted(NAMES)), st.sampled_from(sorted(REDUCTIONS)), VALUES, st.integers(1, 5), st.booleans())
EPOCHS = st.lists(st.lists(st.lists(LOG, max_size=4), max_size=4), min_size=1, max_size=3)


@given(EPOCHS)
def test_any_sequence_of_calls_gives_what_lists_would_give(epochs: list[list[list[tuple[str, str, float, int, bool]]]]) -> None:
    kept = store()
    for batches in epochs:
        values: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
        kept.begin_epoch("train")
        for logs in batches:
            for kind, reduce, value, size, is_tensor in logs:
                on_step, on_epoch = NAMES[kind]
                given_value = torch.tensor(value) if is_tensor else value
                kept.log(f"{kind}-{reduce}", given_value, on_step=on_step, on_epoch=on_epoch, reduce_fx=reduce, batch_size=size)
                values[kind, reduce].append((value, size))
            expected = {
                f"{kind}-{reduce}{'_step' if kind == 'both' else ''}": seen[-1][0]
                for (kind, reduce), seen in values.items()
                if NAMES[kind][0]
            }
            assert kept.step_row("train") == expected
        row = kept.end_epoch("train")
        wanted = {
            f"{kind}-{reduce}{'_epoch' if kind == 'both' else ''}": reduced(reduce, seen)
            for (kind, reduce), seen in values.items()
            if NAMES[kind][1]
        }
        assert row == pytest.approx(wanted)


def reduced(reduce: str, seen: list[tuple[float, int]]) -> float:
    if reduce == "mean":
        return sum(value * size for value, size in seen) / sum(size for _, size in seen)
    function: Any = REDUCTIONS[reduce]
    return function(value for value, _ in seen)
