"""Units, the identity of a job, and the journal's first-wins rule."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.core.errors import ConfigError
from leyden.core.storage import open_storage
from leyden.data.write.described import describe
from leyden.data.write.journal import Journal
from leyden.data.write.plan import LEAST_UNITS, MOST_UNITS, Plan, cut_into_units, digest_of_inputs, job_id, work_digest


def _sample(number: int) -> int:
    return number


@given(st.integers(0, 200_000))
def test_units_cover_all_inputs_in_order(inputs: int) -> None:
    borders = cut_into_units(inputs)
    assert (borders[0], borders[-1]) == (0, inputs)
    assert all(left < right for left, right in itertools.pairwise(borders))
    assert len(borders) - 1 == min(inputs, MOST_UNITS, max(LEAST_UNITS, -(-inputs // 512)))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=500))
def test_weighted_units_cover_all_inputs_in_order(weights: list[float]) -> None:
    borders = cut_into_units(len(weights), weights)
    assert (borders[0], borders[-1]) == (0, len(weights))
    assert list(borders) == sorted(borders)


def test_weights_must_fit() -> None:
    with pytest.raises(ConfigError, match="give each input one cost"):
        cut_into_units(3, [1.0])


def test_the_job_is_known_by_what_changes_bytes() -> None:
    work = work_digest("create", describe(_sample), digest_of_inputs([1, "a", {"b": 2}]), {"chunk_size": 4})
    assert work == work_digest("create", describe(_sample), digest_of_inputs([1, "a", {"b": 2}]), {"chunk_size": 4})
    assert work != work_digest("create", describe(_sample), digest_of_inputs([1, "b", {"b": 2}]), {"chunk_size": 4})
    assert work != work_digest("create", describe(_sample), digest_of_inputs([1, "a", {"b": 2}]), {"chunk_size": 5})
    assert job_id(work, 0) != job_id(work, 1)
    assert describe(_sample)["qualname"] == "_sample"


def test_the_first_wins(tmp_path: Path) -> None:
    journal = Journal(open_storage(tmp_path), "abc")
    journal.begin(Plan("abc", 10, "digest", (0, 5, 10)), {})
    assert journal.take(1, 1, {"driver": "a"})
    assert not journal.take(1, 1, {"driver": "b"})
    assert journal.lease(1, 1) == {"driver": "a"}
    assert journal.finish(1, {"unit": 1})
    assert not journal.finish(1, {"unit": 1, "late": True})
    assert journal.progress()[:2] == (frozenset({1}), {1: 1})
    with pytest.raises(ConfigError, match="computed other inputs"):
        journal.begin(Plan("abc", 11, "other", (0, 11)), {})
    journal.drop()
    assert not journal.exists()
