import math
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError, ConfigTypeError
from leyden.trainer.engine.every import Every, Unit, duration


@pytest.mark.parametrize(
    ("given", "amount", "unit"),
    [
        ("500step", 500, Unit.STEP),
        (" 8 batch ", 8, Unit.BATCH),
        ("0.25epoch", Fraction(1, 4), Unit.EPOCH),
        (".1epoch", Fraction(1, 10), Unit.EPOCH),
        ("2.epoch", 2, Unit.EPOCH),
        ("3sample", 3, Unit.SAMPLE),
        ("1e9token", 10**9, Unit.TOKEN),
        ("30s", 30, Unit.SECOND),
        ("10min", 600, Unit.SECOND),
        ("0.5h", 1800, Unit.SECOND),
        ("2d", 172_800, Unit.SECOND),
        ("01:02:03:04", 93_784, Unit.SECOND),
        (timedelta(minutes=1.5), 90, Unit.SECOND),
        ({"minutes": 1, "seconds": 30}, 90, Unit.SECOND),
        (Every(Fraction(7), Unit.STEP), 7, Unit.STEP),
    ],
    ids=str,
)
def test_every_documented_form_is_read(given: Any, amount: Fraction, unit: Unit) -> None:
    every = Every.parse(given)
    assert (every.amount, every.unit) == (amount, unit)
    assert every.is_time == (unit is Unit.SECOND)
    assert Every.parse(str(every)) == every


@pytest.mark.parametrize(
    "given", ["", "500", "step", "5 parsec", "500steps", "-3step", "1:2:3", "00:00:61", "nanstep", "1e999step", "5 5step"]
)
def test_what_is_no_trigger_is_refused_with_the_units(given: str) -> None:
    with pytest.raises(ConfigError, match=r"'step', 'batch', 'epoch', 'sample', 'token', 's', 'min', 'h', 'd'.*format DD:HH:MM:SS"):
        Every.parse(given)


def test_a_near_unit_is_suggested() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'epoch'"):
        Every.parse("3epochs")


@pytest.mark.parametrize("given", ["0step", "0.0epoch", "00:00:00:00", timedelta(0)], ids=str)
def test_never_pausing_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        Every.parse(given)


def test_only_epochs_have_fractions() -> None:
    with pytest.raises(ConfigError, match="steps are whole numbers, such as '2step'"):
        Every.parse("1.5step")


def test_a_count_has_no_seconds() -> None:
    with pytest.raises(ConfigError, match="'5step' counts steps and has no seconds"):
        Every.parse("5step").has_passed(0.0, 1.0)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("3 apples", ConfigError, "format DD:HH:MM:SS"),
        ("5step", ConfigError, "format DD:HH:MM:SS"),
        ({"years": 1}, ConfigError, "no length of time"),
        (timedelta(seconds=-1), ConfigError, "negative"),
        (5, ConfigTypeError, "format DD:HH:MM:SS"),
        (None, ConfigTypeError, "format DD:HH:MM:SS"),
    ],
    ids=str,
)
def test_what_is_no_length_of_time_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        duration(given)


def test_a_length_of_time_may_be_nothing() -> None:
    assert duration("00:00:00:00") == duration(timedelta(0)) == duration({}) == timedelta(0)


def test_time_counts_from_the_end_of_the_last_firing() -> None:
    every = Every.parse("10min")
    assert not every.has_passed(100.0, 699.9)
    assert every.has_passed(100.0, 700.0)


@given(st.integers(1, 50), st.lists(st.integers(0, 7), max_size=30))
def test_a_counted_trigger_fires_where_counting_one_by_one_would(amount: int, moves: list[int]) -> None:
    every = Every(Fraction(amount), Unit.STEP)
    now = 0
    for move in moves:
        before, now = now, now + move
        assert every.fires(before, now) == any(count % amount == 0 for count in range(before + 1, now + 1))
        assert every.next_after(before) == next(count for count in range(before + 1, before + amount + 1) if count % amount == 0)


@given(st.fractions(Fraction(1, 50), 3, max_denominator=50), st.integers(1, 40))
def test_a_fraction_of_an_epoch_fires_after_the_batch_that_completes_it(amount: Fraction, length: int) -> None:
    every = Every(amount, Unit.EPOCH)
    total = 3 * length
    expected = sorted(
        {math.ceil(k * amount * length) for k in range(1, math.ceil(total / (amount * length)) + 1)} & set(range(1, total + 1))
    )
    positions = [Fraction(batches, length) for batches in range(total + 1)]
    assert [batch for batch in range(1, total + 1) if every.fires(positions[batch - 1], positions[batch])] == expected
    done = 0
    planned: list[int] = []
    while (done := every.next_batch(done, length)) <= total:
        planned.append(done)
    assert planned == expected
