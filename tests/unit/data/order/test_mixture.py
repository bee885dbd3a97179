"""Mixtures: exact shares, the same sequence wherever one begins, weights that change, state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from leyden.core.errors import ConfigError, StateError
from leyden.data.order.mixture import BatchedMixture, Mixture, quotas_of, seek, walk

quotas = st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any)


def halves(count: int) -> NDArray[np.float64]:
    return np.full(count, 0.5)


def test_golden() -> None:
    source, turn = walk(np.array([7, 3]), halves(2), np.zeros(2, np.int64), 20)
    assert source.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 1, 0] * 2
    assert turn.tolist()[:10] == [0, 0, 1, 2, 3, 1, 4, 5, 2, 6]


@given(quotas=quotas, phases=st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5), position=st.integers(0, 300))
def test_finding_a_place_is_walking_there(quotas: list[int], phases: list[float], position: int) -> None:
    quota, phase = np.array(quotas), np.array(phases[: len(quotas)])
    everything, _ = walk(quota, phase, np.zeros(len(quota), np.int64), 400)
    counts = seek(quota, phase, position)
    assert counts.tolist() == np.bincount(everything[:position], minlength=len(quota)).tolist()
    assert walk(quota, phase, counts, 100)[0].tolist() == everything[position : position + 100].tolist()


@given(quotas=quotas, seed=st.integers(0, 5))
def test_every_source_has_its_share_at_any_time(quotas: list[int], seed: int) -> None:
    mixture = Mixture([10**6] * len(quotas), quotas, seed=seed, end="shortest")
    total, count = sum(quotas), min(500, mixture.rows_in(1))
    source = mixture.picks(1, 0, count).source
    for index, quota in enumerate(quotas):
        had = np.cumsum(source == index)
        assert (np.abs(had - np.arange(1, count + 1) * quota / total) <= 1 + len(quotas) * quota / total + 1e-9).all()


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4), epoch=st.integers(1, 3), cut=st.integers(0, 160))
def test_all_samples_come_once(sizes: list[int], epoch: int, cut: int) -> None:
    mixture = Mixture(sizes, sizes, seed=3, end="all")
    rows = mixture.rows_in(epoch)
    assert rows == sum(sizes)
    if rows == 0:
        return
    parts = [mixture.picks(epoch, 0, cut), mixture.picks(epoch, min(cut, rows), rows + 7)]
    source, position = (np.concatenate([getattr(part, name) for part in parts]) for name in ("source", "position"))
    for index, size in enumerate(sizes):
        assert position[source == index].tolist() == list(range(size))


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), weights=st.lists(st.floats(0.1, 5), min_size=4, max_size=4))
def test_it_ends_where_a_source_runs_out(sizes: list[int], weights: list[float]) -> None:
    chosen = quotas_of(weights[: len(sizes)])
    mixture, longer = (Mixture(sizes if own else [10**6] * len(sizes), chosen, seed=1, end="shortest") for own in (True, False))
    rows = mixture.rows_in(2)
    after = longer.picks(2, 0, rows + 1)
    assert (after.position[:rows] < np.array(sizes)[after.source[:rows]]).all()
    assert after.position[rows] == sizes[after.source[rows]], "the next pick is one that its source has not"


@given(
    changes=st.lists(st.tuples(st.integers(0, 60), st.lists(st.floats(0.05, 1), min_size=3, max_size=3)), max_size=3),
    at=st.integers(0, 200),
)
def test_weights_change_anywhere_and_a_state_goes_on(changes: list[tuple[int, list[float]]], at: int) -> None:
    def fresh() -> Mixture:
        return Mixture([10**6] * 3, quotas_of([1, 1, 1]), seed=9, end="shortest")

    mixture, had, position = fresh(), np.zeros(3, np.int64), 0
    for steps, weights in changes:
        picks = mixture.picks(1, position, position + steps)
        had += np.bincount(picks.source, minlength=3)
        position += steps
        mixture.set_quotas(quotas_of(weights), 1, position)
    following = mixture.picks(1, position, position + at + 50)
    for index in range(3):
        mine = following.position[following.source == index]
        assert mine.tolist() == list(range(had[index], had[index] + len(mine))), "no sample is left out or comes again"
    resumed = fresh()
    resumed.load(mixture.state())
    assert resumed.picks(1, position + at, position + at + 50).source.tolist() == following.source[at:].tolist()


def test_what_came_before_a_change_is_not_known_any_more() -> None:
    mixture = Mixture([100, 100], quotas_of([1, 1]), seed=0, end="shortest")
    mixture.set_quotas(quotas_of([1, 3]), 1, 20)
    with pytest.raises(StateError, match="before the weights were changed, at 20"):
        mixture.picks(1, 10, 12)
    mixture.begin(1)
    assert np.bincount(mixture.picks(1, 0, 80).source).tolist() == [20, 60]
    assert np.bincount(mixture.picks(2, 0, 80).source).tolist() == [20, 60], "later epochs keep the new weights"


def test_sources_that_begin_anew_have_epochs_of_their_own() -> None:
    mixture = Mixture([3, 100], [1, 1], seed=0, end="never", epoch_size=10)
    picks = [mixture.picks(epoch, 0, 99) for epoch in (1, 2)]
    assert [len(each.source) for each in picks] == [10, 10]
    mine = np.concatenate([each.epoch[each.source == 0] * 10 + each.position[each.source == 0] for each in picks])
    assert mine.tolist() == [10, 11, 12, 20, 21, 22, 30, 31, 32, 40]
    with pytest.raises(ConfigError, match="epoch_size"):
        Mixture([3], [1], seed=0, end="never")


def test_a_mixture_of_batches_takes_each_from_one_source() -> None:
    mixture = BatchedMixture(Mixture([4, 2], [4, 2], seed=0, end="all"), 5)
    assert mixture.rows_in(1) == 30
    picks = mixture.picks(1, 0, 99)
    assert (np.diff(picks.source.reshape(6, 5), axis=1) == 0).all()
    assert picks.position[picks.source == 1].tolist() == list(range(10))
    part = mixture.picks(1, 7, 13)
    assert (part.source.tolist(), part.position.tolist()) == (picks.source[7:13].tolist(), picks.position[7:13].tolist())


def test_a_place_far_away_is_found_at_once() -> None:
    mixture = Mixture([10**12] * 3, quotas_of([0.5, 0.3, 0.2]), seed=1, end="shortest")
    picks = mixture.picks(1, 10**11, 10**11 + 10)
    assert abs(int(picks.position[picks.source == 0][0]) - 5 * 10**10) <= 2
