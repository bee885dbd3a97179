"""What `ModelCheckpoint` is told, checked once: when to save, what to call it, how many to keep."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.core.storage import is_url
from leyden.trainer.engine.every import Every, Unit

SaveLast = Literal["link"] | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """When to save: at most one of these is set.

    Args:
        every_n_train_steps: Steps; 0 is never.
        every_n_epochs: Epochs; 0 is never.
        train_time_interval: Time.
        every: What batches are counted by: steps, time, or another unit; `None` where epochs decide.
    """

    every_n_train_steps: int
    every_n_epochs: int
    train_time_interval: timedelta | None
    every: Every | None


def when(
    every_n_train_steps: int | None, train_time_interval: timedelta | None, every_n_epochs: int | None, every: "str | Every | None"
) -> When:
    """Read the four ways to say when; without any it is every epoch.

    Raises:
        ConfigError: Two of them, a negative number, or an unknown unit.
        ConfigTypeError: A number that is no integer.
    """
    steps, epochs = _count("every_n_train_steps", every_n_train_steps), _count("every_n_epochs", every_n_epochs)
    given = {
        "every_n_train_steps": steps,
        "train_time_interval": train_time_interval,
        "every_n_epochs": epochs,
        "every": every,
    }
    if sum(bool(value) or value == timedelta(0) for value in given.values()) > 1:
        raise ConfigError(
            "Combination of parameters every_n_train_steps, train_time_interval, every_n_epochs and every: "
            f"{', '.join(f'{name}={value!r}' for name, value in given.items() if value)} were given, and one alone decides when to save. "
            "Use several ModelCheckpoint callbacks for several rhythms."
        )
    trigger = Every.parse(train_time_interval) if train_time_interval is not None else None
    if every is not None:
        trigger = Every.parse(every)
        if trigger.unit is Unit.EPOCH and trigger.amount.denominator == 1:
            trigger, epochs = None, int(trigger.amount)
    elif steps:
        trigger = Every.parse(f"{steps}step")
    if all(value is None for value in (every_n_train_steps, train_time_interval, every_n_epochs, every)):
        epochs = 1
    return When(every_n_train_steps=steps, every_n_epochs=epochs, train_time_interval=train_time_interval, every=trigger)


def check_top_k(save_top_k: object, monitor: str | None, mode: object) -> None:
    """Refuse a number of checkpoints that means nothing.

    Raises:
        ConfigError: Below -1; or more than one without anything to rank by; or an unknown mode.
        ConfigTypeError: No integer.
    """
    if isinstance(save_top_k, bool) or not isinstance(save_top_k, int):
        raise ConfigTypeError(f"save_top_k={save_top_k!r}: expected an integer: how many to keep, 0 for none, -1 for all.")
    if save_top_k < -1:
        raise ConfigError(f"save_top_k={save_top_k} is not accepted. Must be >= -1: how many to keep, 0 for none, -1 for all.")
    if monitor is None and save_top_k not in (-1, 0, 1):
        raise ConfigError(
            f"ModelCheckpoint(save_top_k={save_top_k}, monitor=None) is not a valid configuration: there is nothing to rank by. "
            "Name a metric, such as monitor='val_loss', or keep 1 (the newest), 0 (none) or -1 (all)."
        )
    if mode not in ("min", "max"):
        raise ConfigError(f"`mode` can be min, max but got {mode}. Use 'min' where less is better, as for a loss, or 'max'.")


def check_last(save_last: object, dirpath: str | None) -> None:
    """Refuse what `save_last` cannot be, and links where there are none.

    Raises:
        ConfigError: See above.
    """
    if save_last not in (None, True, False, "link"):
        raise ConfigError(f"save_last={save_last!r} is not accepted. Use True, False, or 'link' for a symlink to the newest file.")
    if save_last == "link" and dirpath is not None and is_url(dirpath):
        raise ConfigError(
            f"save_last='link' with dirpath={dirpath!r}: a link is only supported for local file paths. Use save_last=True, which copies."
        )


def _count(name: str, value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(f"{name}={value!r}: expected an integer; 0 is never.")
    if value < 0:
        raise ConfigError(f"{name}={value} is not accepted. Must be >= 0, where 0 is never.")
    return value
