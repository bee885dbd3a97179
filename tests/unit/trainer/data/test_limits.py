import logging
import math
from typing import Any

import pytest
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.loading.samplers import EpochSampler
from leyden.trainer.data import limits
from leyden.trainer.data.combined import CombinedLoader


def numbers(loader: Any) -> list[int]:
    return [int(number) for batch in loader for number in batch]


# -- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, -0.1, 1.1, "all", None, True])
def test_a_limit_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"You have passed invalid value .* for `limit_val_batches`"):
        limits.check_limit("limit_val_batches", value)


@pytest.mark.parametrize("value", [0, 1, 100, 0.0, 0.25, 1.0])
def test_fractions_and_whole_numbers_are_limits(value: Any) -> None:
    assert limits.check_limit("limit_val_batches", value) == value


def test_one_and_one_point_zero_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        limits.tell_one("limit_train_batches", 1)
        limits.tell_one("limit_train_batches", 1.0)
        limits.tell_one("limit_train_batches", 2)
    assert [record.getMessage() for record in caplog.records] == [
        "`Trainer(limit_train_batches=1)` means one batch, as a number of them.",
        "`Trainer(limit_train_batches=1.0)` means all batches, as a fraction.",
    ]


@pytest.mark.parametrize("value", [-1, 0.5, "1", True])
def test_reloading_counts_whole_epochs(value: Any) -> None:
    with pytest.raises(ConfigError, match="should be an int >= 0"):
        limits.check_reload(value)
    assert limits.check_reload(2) == 2


def test_loaders_are_made_anew_every_n_epochs() -> None:
    assert limits.is_reload_due(0, 5, None)
    assert not limits.is_reload_due(0, 5, 0)
    assert [limits.is_reload_due(1, epoch, 0) for epoch in range(3)] == [False, True, True]


def test_a_fraction_of_an_epoch_needs_epochs() -> None:
    with pytest.raises(ConfigError, match="`val_check_interval` should be an integer or a time-based duration"):
        limits.check_validation(0.5, None)
    limits.check_validation(5, None)
    limits.check_validation("00:00:10:00", None)


@pytest.mark.parametrize("value", [0.5, "1", True])
def test_validation_comes_every_whole_number_of_epochs(value: Any) -> None:
    with pytest.raises(ConfigError, match="should be an integer"):
        limits.check_validation(1.0, value)


def test_the_validation_interval_has_the_range_of_a_limit() -> None:
    with pytest.raises(ConfigError, match=r"passed invalid value 1\.5 for `val_check_interval`"):
        limits.check_validation(1.5, 1)


# -- numbers of batches ------------------------------------------------------------------------------------------


def test_whole_numbers_count_and_fractions_measure() -> None:
    assert limits.num_batches(3, [10, 2, math.inf], "val") == [3, 2, 3]
    assert limits.num_batches(0.5, [10, 5], "val") == [5, 2]
    assert limits.num_batches(1.0, [10, math.inf, 0], "val") == [10, math.inf, 0]
    assert limits.num_batches(0.0, [10, math.inf], "val") == [0, 0]
    assert limits.num_batches(0, [math.inf], "val") == [0]


def test_a_fraction_of_an_unknown_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Trainer\(limit_train_batches\)` must be `1.0` or an int"):
        limits.num_batches(0.5, [math.inf], "train")


def test_less_than_one_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"You requested to check 0.01 of the `val_dataloader`, but 0.01 \* 10 < 1.*at least 0.1"):
        limits.num_batches(0.01, [10], "val")


def test_combined_loaders_are_measured_together_unless_sequential() -> None:
    loaders = [range(10), range(4)]
    assert limits.combined_num_batches(0.5, CombinedLoader(loaders, "sequential"), loaders, "val") == [5, 2]
    assert limits.combined_num_batches(0.5, CombinedLoader(loaders, "max_size_cycle"), loaders, "train") == [5]
    assert limits.combined_num_batches(0.5, CombinedLoader(loaders, "min_size"), loaders, "train") == [2]
    capped = CombinedLoader(loaders, "max_size")
    capped.limits = [6, 4]
    assert limits.combined_num_batches(1.0, capped, loaders, "train") == [6]
    assert limits.combined_num_batches(1.0, CombinedLoader([iter([])], "max_size"), [iter([])], "train") == [math.inf]


def test_validation_comes_after_a_number_or_a_fraction_of_batches() -> None:
    assert limits.validation_interval(1.0, every_n_epochs=1, num_batches=10) == 10
    assert limits.validation_interval(0.01, every_n_epochs=1, num_batches=10) == 1
    assert limits.validation_interval(10, every_n_epochs=1, num_batches=10) == 10
    assert limits.validation_interval(30, every_n_epochs=None, num_batches=10) == 30
    assert limits.validation_interval(1.0, every_n_epochs=1, num_batches=math.inf) == math.inf
    assert limits.validation_interval(7, every_n_epochs=1, num_batches=math.inf) == 7


def test_validation_cannot_come_after_the_epoch() -> None:
    with pytest.raises(ConfigError, match="must be less than or equal to the number of the training batches"):
        limits.validation_interval(11, every_n_epochs=1, num_batches=10)


def test_a_fraction_of_a_stream_is_no_validation_interval() -> None:
    with pytest.raises(ConfigError, match=r"must be `1\.0`, an int or time-based"):
        limits.validation_interval(0.5, every_n_epochs=1, num_batches=math.inf)


def test_a_logging_interval_longer_than_the_epoch_warns() -> None:
    with pytest.warns(UserWarning, match=r"The number of training batches \(3\) is smaller than the logging interval"):
        limits.warn_of_logging_interval(3, 50)
    limits.warn_of_logging_interval(50, 50)
    limits.warn_of_logging_interval(3, 0)
    limits.warn_of_logging_interval(math.inf, 50)


# -- ranks -------------------------------------------------------------------------------------------------------


def test_ranks_must_have_equal_numbers_of_batches() -> None:
    limits.check_ranks("train_dataloader", [3, 3], rank=0)
    limits.check_ranks("train_dataloader", [3, math.inf], rank=0)
    with pytest.raises(StateError, match=r"`train_dataloader` has another number of batches on each rank \(rank 0: 3, rank 1: 2\)"):
        limits.check_ranks("train_dataloader", [3, 2], rank=0)


def test_no_rank_may_be_without_batches_unless_allowed() -> None:
    with pytest.raises(StateError, match="within local rank has zero length"):
        limits.check_ranks("train_dataloader", [3, 0], rank=1)
    with pytest.raises(StateError, match="has another number of batches"):
        limits.check_ranks("train_dataloader", [3, 0], rank=0)
    limits.check_ranks("train_dataloader", [3, 0], rank=1, allow_zero=True)


def test_no_batches_at_all_warn() -> None:
    with pytest.warns(UserWarning, match="Total length of `val_dataloader` across ranks is zero"):
        limits.check_ranks("val_dataloader", [0, 0], rank=0)


# -- overfit_batches ---------------------------------------------------------------------------------------------


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(4))


def test_overfitting_reads_in_order() -> None:
    shuffled: DataLoader[int] = DataLoader(range(6), 2, shuffle=True)  # type: ignore[arg-type]
    ordered: DataLoader[int] = DataLoader(range(6), 2)  # type: ignore[arg-type]
    stream: DataLoader[int] = DataLoader(Stream(), 2)
    combined = CombinedLoader({"a": shuffled, "b": [ordered, stream, range(1)]}, "max_size")
    combined.limits = 2
    with pytest.warns(UserWarning, match="requested to overfit but enabled train dataloader shuffling"):
        result = limits.unshuffled(combined, "train")
    assert numbers(result.flattened[0]) == list(range(6))
    assert isinstance(result.flattened[0].sampler, SequentialSampler)
    assert result.flattened[1:] == [ordered, stream, range(1)]
    assert (result.mode, result.limits) == ("max_size", [2, 2, 2, 2])
    assert isinstance(shuffled.sampler, RandomSampler)


def test_overfitting_leaves_ordered_loaders_alone() -> None:
    combined = CombinedLoader([DataLoader(range(6), 2), DataLoader(range(6), 2, sampler=EpochSampler(6, shuffle=False))], "sequential")  # type: ignore[arg-type]
    assert limits.unshuffled(combined, "val") is combined


def test_overfitting_keeps_batch_samplers_sizes() -> None:
    data = range(5)
    loader: DataLoader[int] = DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 2, drop_last=True))  # type: ignore[arg-type]
    unbatched: DataLoader[int] = DataLoader(data, batch_size=None, shuffle=True)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="enabled val dataloader shuffling"):
        result = limits.unshuffled(CombinedLoader([loader, unbatched], "sequential"), "val")
    assert [batch.tolist() for batch in result.flattened[0]] == [[0, 1], [2, 3]]
    assert [int(item) for item in result.flattened[1]] == [0, 1, 2, 3, 4]


def test_overfitting_needs_a_batch_size() -> None:
    class Own:
        sampler = RandomSampler(range(4))  # type: ignore[arg-type]

        def __iter__(self) -> Any:
            return iter([[0, 1]])

    loader: DataLoader[int] = DataLoader(range(4), batch_sampler=Own())  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="overfit"), pytest.raises(ConfigError, match="has no `batch_size`"):
        limits.unshuffled(CombinedLoader(loader), "train")
