"""Ids: laws of their form, order and uniqueness."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.core.ids import ALPHABET, created_at, new_id

prefixes = st.from_regex(r"[a-z][a-z0-9]{0,11}", fullmatch=True)
moments = st.integers(min_value=0, max_value=2**50 - 1)
randoms = st.integers(min_value=0, max_value=2**50 - 1)


@given(prefixes, moments, randoms)
def test_an_id_is_safe_in_paths_urls_and_host_names(prefix: str, moment: int, number: int) -> None:
    made = new_id(prefix, now=lambda: moment / 1000, random_bits=lambda _: number)
    assert re.fullmatch(rf"{prefix}-[{ALPHABET}]{{20}}", made)


@given(moments, moments, randoms, randoms)
def test_ids_sort_by_the_millisecond_they_were_made_in(first: int, second: int, one: int, other: int) -> None:
    a = new_id("job", now=lambda: first / 1000, random_bits=lambda _: one)
    b = new_id("job", now=lambda: second / 1000, random_bits=lambda _: other)
    if created_at(a) != created_at(b):
        assert (a < b) == (first < second)


@given(st.integers(min_value=0, max_value=2**43), randoms)
def test_an_id_tells_when_it_was_made(moment: int, number: int) -> None:
    assert abs(created_at(new_id("x", now=lambda: moment / 1000, random_bits=lambda _: number)) - moment / 1000) <= 0.0011


@given(randoms, randoms)
def test_other_randomness_gives_another_id(one: int, other: int) -> None:
    made = {new_id("x", now=lambda: 1.0, random_bits=lambda _, number=number: number) for number in (one, other)}
    assert len(made) == len({one, other})


def test_many_ids_are_unique() -> None:
    assert len({new_id("job") for _ in range(5_000)}) == 5_000


@pytest.mark.parametrize("prefix", ["", "Job", "a-b", "1a", "a/b", "ä"])
def test_a_prefix_of_other_characters_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="prefix="):
        new_id(prefix)


@pytest.mark.parametrize("text", ["", "job", "job-123", "job-" + "u" * 20])
def test_a_foreign_id_has_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an id"):
        created_at(text)
