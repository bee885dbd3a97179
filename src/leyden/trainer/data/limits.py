"""How many batches a loop takes, and when validation comes: pure rules over lengths and the arguments of `Trainer`.

Whole numbers count batches, fractions measure the loader. Lengths are those of one rank; infinite where nobody knows.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from leyden.core.errors import ConfigError, ConfigTypeError, StateError
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.fabric.utilities.warnings import PossibleUserWarning
from leyden.trainer.data.collections import mapped
from leyden.trainer.data.combined import CombinedLoader, sure_length
from leyden.trainer.data.lane import sized

Limit = int | float


# -- arguments ---------------------------------------------------------------------------------------------------


def check_limit(name: str, value: Any) -> Limit:
    """Return a limit if it is one: a fraction from 0.0 to 1.0, or a whole number of batches.

    Args:
        name: The argument, such as `limit_train_batches`.
        value: What was given.

    Raises:
        ConfigError: It is neither.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value < 0 or (isinstance(value, float) and value > 1):
        raise ConfigError(
            f"You have passed invalid value {value!r} for `{name}`; it has to be in [0.0, 1.0] as a fraction, or an int >= 0 as a number "
            f"of batches: {name}=0.25 or {name}=100."
        )
    return value


def tell_one(name: str, value: Limit) -> None:
    """Say what a limit of 1 or 1.0 means, since the two look alike."""
    if value == 1:
        meaning = "all batches, as a fraction" if isinstance(value, float) else "one batch, as a number of them"
        rank_zero_info("`Trainer(%s=%r)` means %s.", name, value, meaning)


def check_reload(value: Any) -> int:
    """Return `reload_dataloaders_every_n_epochs` if it is one.

    Raises:
        ConfigError: It is negative or no whole number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"`reload_dataloaders_every_n_epochs` should be an int >= 0, got {value!r}; 0 is never, 1 every epoch.")
    return value


def is_reload_due(every: int, epoch: int, loaded_in: int | None) -> bool:
    """Return whether loaders made in epoch `loaded_in` are made anew in `epoch`; `None` means not made yet.

    Example:
        >>> [is_reload_due(2, epoch, 0) for epoch in range(4)]
        [False, False, True, True]
    """
    return loaded_in is None or (every > 0 and epoch - loaded_in >= every)


def check_validation(interval: Any, every_n_epochs: Any) -> None:
    """Check `val_check_interval`, where it is a number, against `check_val_every_n_epoch`.

    Raises:
        ConfigError: A number out of range, or a fraction of an epoch without epochs.
    """
    if every_n_epochs is not None and (not isinstance(every_n_epochs, int) or isinstance(every_n_epochs, bool)):
        raise ConfigError(f"`check_val_every_n_epoch` should be an integer, got {every_n_epochs!r}; use 1, or None to count over epochs.")
    if isinstance(interval, (int, float)):
        check_limit("val_check_interval", interval)
        if every_n_epochs is None and isinstance(interval, float):
            raise ConfigError(
                f"`val_check_interval` should be an integer or a time-based duration when `check_val_every_n_epoch=None`, "
                f"got {interval!r}: a fraction is one of an epoch. Use val_check_interval=100, or '00:00:10:00' for ten minutes."
            )


# -- numbers of batches ------------------------------------------------------------------------------------------


def lengths(loaders: Sequence[Any]) -> list[float]:
    """Return each loader's length; infinite where it has none."""
    return [math.inf if (length := sized(loader)) is None else length for loader in loaders]


def num_batches(limit: Limit, lengths: Sequence[float], name: str) -> list[float]:
    """Return how many batches of each loader are taken: whole numbers, or infinity.

    Args:
        limit: A fraction or a number of batches.
        lengths: The loaders' lengths.
        name: What the loaders are for: `train`, `val`, `test` or `predict`.

    Raises:
        ConfigError: A fraction of a loader without a length, or one that leaves less than one batch.

    Example:
        >>> num_batches(0.5, [10, 4], "val"), num_batches(3, [10, float("inf")], "test")
        ([5, 2], [3, 3])
    """
    return [_num_batches(limit, length, name) for length in lengths]


def combined_num_batches(limit: Limit, loader: CombinedLoader, leaves: Sequence[Any], name: str) -> list[float]:
    """Return how many batches are taken of loaders that are combined: one number each in `sequential`, else one.

    Args:
        limit: A fraction or a number of batches.
        loader: How they are combined.
        leaves: The loaders as this process iterates them.
        name: What they are for.

    Raises:
        ConfigError: As `num_batches`.
    """
    own = [min(length, cap) for length, cap in zip(lengths(leaves), loader.limits or [math.inf] * len(leaves), strict=True)]
    return num_batches(limit, own if loader.mode == "sequential" else [sure_length(loader.mode, own)], name)


def _num_batches(limit: Limit, length: float, name: str) -> float:
    if length == 0 or limit == 0:
        return 0
    if isinstance(limit, int):
        return min(limit, length)
    if math.isinf(length):
        if limit == 1.0:
            return length
        raise ConfigError(
            f"When using an IterableDataset, `Trainer(limit_{name}_batches)` must be `1.0` or an int, got {limit}: the {name} loader has "
            f"no length to take a fraction of. Use limit_{name}_batches=100 for a hundred batches."
        )
    wanted = int(length * limit)
    if wanted == 0:
        raise ConfigError(
            f"You requested to check {limit} of the `{name}_dataloader`, but {limit} * {int(length)} < 1: that is not one batch. Increase "
            f"limit_{name}_batches to at least {1 / length}, or give a number of batches: limit_{name}_batches=1."
        )
    return wanted


def validation_interval(interval: Limit, *, every_n_epochs: int | None, num_batches: float) -> float:
    """Return after how many training batches validation comes; infinite: at the epoch's end alone.

    Args:
        interval: `val_check_interval` as a fraction of the epoch or a number of batches.
        every_n_epochs: `check_val_every_n_epoch`; `None` counts batches over epochs.
        num_batches: The training batches of an epoch.

    Raises:
        ConfigError: More batches than an epoch has, or a fraction of an unknown number.

    Example:
        >>> validation_interval(0.25, every_n_epochs=1, num_batches=10), validation_interval(3, every_n_epochs=1, num_batches=10)
        (2, 3)
    """
    if isinstance(interval, int):
        if interval > num_batches and every_n_epochs is not None:
            raise ConfigError(
                f"`val_check_interval` ({interval}) must be less than or equal to the number of the training batches ({num_batches}). To "
                "count batches over epochs, set check_val_every_n_epoch=None; to validate never, set limit_val_batches=0."
            )
        return interval
    if math.isinf(num_batches):
        if interval == 1.0:
            return math.inf
        raise ConfigError(
            f"When using an IterableDataset for `train_dataloader`, `Trainer(val_check_interval)` must be `1.0`, an int or time-based, got "
            f"{interval}: the training loader has no length to take a fraction of. Use val_check_interval=100."
        )
    return max(1, int(num_batches * interval))


def warn_of_logging_interval(num_batches: float, every_n_steps: int) -> None:
    """Warn where an epoch ends before the first row is due."""
    if 0 < num_batches < every_n_steps:
        rank_zero_warn(
            f"The number of training batches ({int(num_batches)}) is smaller than the logging interval "
            f"Trainer(log_every_n_steps={every_n_steps}). Set a lower value for log_every_n_steps to see logs for the training epoch.",
            stacklevel=5,
            category=PossibleUserWarning,
        )


def check_ranks(name: str, per_rank: Sequence[float], *, rank: int, allow_zero: bool = False) -> None:
    """Check that all ranks have the same number of batches, and not none, before they wait for each other in vain.

    Args:
        name: The loader, such as `train_dataloader`.
        per_rank: Each rank's length; infinite where it is not known.
        rank: This rank.
        allow_zero: Whether a rank may have none (`allow_zero_length_dataloader_with_multiple_devices`).

    Raises:
        StateError: They differ, or a rank has none and that is not allowed.
    """
    if sum(per_rank) == 0:
        rank_zero_warn(f"Total length of `{name}` across ranks is zero. Please make sure this was your intention.", stacklevel=5)
        return
    if len(set(per_rank)) == 1 or any(math.isinf(length) for length in per_rank):
        return
    shown = ", ".join(f"rank {number}: {int(length)}" for number, length in enumerate(per_rank))
    if per_rank[rank] == 0 and not allow_zero:
        raise StateError(
            f"`{name}` within local rank has zero length ({shown}). Give every rank at least one batch, or set "
            "allow_zero_length_dataloader_with_multiple_devices=True on the module."
        )
    if not (allow_zero and 0 in per_rank):
        raise StateError(
            f"`{name}` has another number of batches on each rank ({shown}), so those that run out first would leave the others waiting. "
            "Give every rank the same number: drop_last=True, or limit_train_batches."
        )


# -- overfit_batches ---------------------------------------------------------------------------------------------


def unshuffled(combined: CombinedLoader, stage: str) -> CombinedLoader:
    """Return the loaders with sequential samplers, for `overfit_batches`: the same batches in each epoch. Warns if it changes one."""
    if not any(_is_shuffled(loader) for loader in combined.flattened):
        return combined
    rank_zero_warn(
        f"You requested to overfit but enabled {stage} dataloader shuffling. We are turning off the {stage} dataloader shuffling for you.",
        stacklevel=5,
    )
    in_order = mapped(combined.iterables, lambda loader: _sequential(loader) if _is_shuffled(loader) else loader)
    result = CombinedLoader(in_order, combined.mode)
    if combined.limits is not None:
        result.limits = combined.limits
    return result


def warn_of_shuffling(combined: CombinedLoader, stage: str) -> None:
    """Warn where batches that are only measured come in another order each time."""
    if any(_is_shuffled(loader) for loader in combined.flattened):
        rank_zero_warn(
            f"Your `{stage}_dataloader`'s sampler has shuffling enabled. Turn it off outside of training: the order changes nothing but "
            "which outputs belong to which data.",
            stacklevel=5,
            category=PossibleUserWarning,
        )


def _is_shuffled(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset) and not _is_ordered(loader)


def _is_ordered(loader: DataLoader[Any]) -> bool:
    sampler: Any = loader.sampler
    if loader.batch_sampler is not None and hasattr(loader.batch_sampler, "sampler"):
        sampler = loader.batch_sampler.sampler
    return isinstance(sampler, SequentialSampler) or getattr(sampler, "shuffle", None) is False


def _sequential(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a copy that draws in order; the user's own loader is left alone."""
    result, sampler = copy.copy(loader), SequentialSampler(loader.dataset)  # type: ignore[arg-type] - a map-style dataset has a length
    changed: dict[str, Any] = {"sampler": sampler, "_iterator": None}
    batches = loader.batch_sampler
    if batches is not None:
        size = getattr(batches, "batch_size", None)
        if not isinstance(size, int):
            raise ConfigTypeError(
                f"overfit_batches needs batches in order, but {type(batches).__name__} has no `batch_size` to form them by. Pass a loader "
                "without shuffling."
            )
        changed["batch_sampler"] = BatchSampler(sampler, size, getattr(batches, "drop_last", False))
    vars(result).update(changed)  # past DataLoader.__setattr__, which refuses these names on purpose
    return result
