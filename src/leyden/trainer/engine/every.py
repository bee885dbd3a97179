"""`Every`: how often something happens, written as `"500step"`, `"0.25epoch"`, `"10min"`. Pure: counts and seconds come in.

| unit | fires |
|---|---|
| `step batch sample token` | when `floor(count / n)` grew; n is a whole number |
| `epoch` | the same with `epoch + batch / length`: n = 0.25 fires after batch `ceil(k · 0.25 · length)`, k = 1, 2, … |
| `s min h d`, `DD:HH:MM:SS` | when that long passed since the last firing ended |

Nothing is remembered here: whoever asks keeps the count, or the second, of the last firing, and saves it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed


class Unit(StrEnum):
    """What is counted; all units of time are seconds."""

    STEP = "step"
    BATCH = "batch"
    EPOCH = "epoch"
    SAMPLE = "sample"
    TOKEN = "token"  # noqa: S105 - a unit
    SECOND = "s"


_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_WORDS = (*(str(unit) for unit in Unit if unit is not Unit.SECOND), *_SECONDS)
_TEXT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(e[+-]?\d{1,2})?\s*([A-Za-z]+)", re.ASCII)
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d):(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Every:
    """A trigger: every so many of a unit.

    Args:
        amount: How many; seconds where the unit is one of time.
        unit: Of what.

    Example:
        >>> Every.parse("500step").fires(499, 500), Every.parse("500step").fires(500, 999)
        (True, False)
        >>> Every.parse("90min").seconds, str(Every.parse("01:00:00:30"))
        (5400.0, '86430s')
    """

    amount: Fraction
    unit: Unit

    @classmethod
    def parse(cls, value: "str | timedelta | Mapping[str, float] | Every") -> "Every":
        """Read a trigger: text, a `timedelta`, or its keywords.

        Raises:
            ConfigError: Not a trigger; says which units there are.
            ConfigTypeError: Of another type.
        """
        if isinstance(value, Every):
            return value
        if isinstance(value, str) and not _CLOCK.fullmatch(value.strip()):
            return _counted(value)
        every = cls(Fraction(duration(value).total_seconds()), Unit.SECOND)
        return _positive(every, value)

    @property
    def is_time(self) -> bool:
        """Whether seconds decide, so that ranks may differ by a batch."""
        return self.unit is Unit.SECOND

    @property
    def seconds(self) -> float:
        """The time between two firings.

        Raises:
            ConfigError: This counts something else.
        """
        if not self.is_time:
            raise ConfigError(f"every={str(self)!r} counts {self.unit}s and has no seconds. Use a time such as '10min'.")
        return float(self.amount)

    def fires(self, before: float | Fraction, now: float | Fraction) -> bool:
        """Return whether one lies between two counts: behind `before`, up to `now`."""
        return math.floor(now / self.amount) > math.floor(before / self.amount)

    def has_passed(self, since: float, now: float) -> bool:
        """Return whether it is time, in seconds."""
        return now - since >= self.seconds

    def next_after(self, count: int) -> int:
        """Return the smallest whole count behind `count` at which it fires.

        Example:
            >>> Every.parse("500step").next_after(0), Every.parse("500step").next_after(500)
            (500, 1000)
        """
        return math.ceil((math.floor(count / self.amount) + 1) * self.amount)

    def next_batch(self, batches: int, length: int) -> int:
        """Return the next batch, counted over epochs of `length`, after which a trigger in epochs fires.

        Args:
            batches: Batches done, over all epochs.
            length: Batches of an epoch.

        Example:
            >>> quarter = Every.parse("0.25epoch")
            >>> [quarter.next_batch(done, length=10) for done in (0, 3, 5, 8, 10)]
            [3, 5, 8, 10, 13]
        """
        return Every(self.amount * length, Unit.BATCH).next_after(batches)

    def __str__(self) -> str:
        number = str(self.amount.numerator) if self.amount.denominator == 1 else repr(float(self.amount))
        return f"{number}{self.unit}"


def duration(value: "str | timedelta | Mapping[str, float]") -> timedelta:
    """Read a length of time: `"DD:HH:MM:SS"`, `"90min"`, a `timedelta`, or its keywords.

    Raises:
        ConfigError: It is none, or negative.
        ConfigTypeError: It is of another type.

    Example:
        >>> duration("00:01:30:00") == duration("90min") == duration({"minutes": 90})
        True
    """
    if isinstance(value, Mapping):
        try:
            value = timedelta(**value)
        except TypeError as error:
            keywords = listed(("days", "hours", "minutes", "seconds"))
            raise ConfigError(f"{dict(value)!r} is no length of time: {error}. Its keywords are {keywords}.") from error
    if isinstance(value, str):
        return _length_of(value)
    if not isinstance(value, timedelta):
        raise ConfigTypeError(
            f"{value!r} is no length of time: use a string in the format DD:HH:MM:SS, one such as '90min', a timedelta or a dictionary."
        )
    if value < timedelta(0):
        raise ConfigError(f"{value!r} is negative; a length of time is at least 0.")
    return value


def _length_of(text: str) -> timedelta:
    if match := _CLOCK.fullmatch(text.strip()):
        days, hours, minutes, seconds = (int(part) for part in match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    match = _TEXT.fullmatch(text.strip())
    if match is None or match[3] not in _SECONDS:
        units = listed(_SECONDS)
        raise ConfigError(f"{text!r} is no length of time: use the format DD:HH:MM:SS, or a number and one of {units}: '90min'.")
    return timedelta(seconds=float(_number(match) * _SECONDS[match[3]]))


def _counted(text: str) -> Every:
    match = _TEXT.fullmatch(text.strip())
    if match is None or match[3] not in _WORDS:
        guess = closest(match[3], _WORDS) if match else ""
        raise ConfigError(
            f"{text!r} is no trigger: use a number and one of {listed(_WORDS)}, such as '500step', '0.25epoch', '10min', "
            f"or a time in the format DD:HH:MM:SS.{guess}"
        )
    number, word = _number(match), match[3]
    if word in _SECONDS:
        return _positive(Every(number * _SECONDS[word], Unit.SECOND), text)
    unit = Unit(word)
    if unit is not Unit.EPOCH and number.denominator != 1:
        raise ConfigError(f"{text!r}: {unit}s are whole numbers, such as '{max(1, round(number))}{unit}'. Only epochs have fractions.")
    return _positive(Every(number, unit), text)


def _number(match: re.Match[str]) -> Fraction:
    return Fraction(match[1].rstrip(".") + (match[2] or ""))


def _positive(every: Every, given: object) -> Every:
    if every.amount <= 0:
        raise ConfigError(f"{given!r} would happen all the time: the number must be greater than 0, such as '1{every.unit}'.")
    return every
