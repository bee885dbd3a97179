"""A search finds what fits, tries nothing twice, and stops."""

from hypothesis import given
from hypothesis import strategies as st

from leyden.trainer.callbacks.batch_size_search import BatchSizeSearch


def run(search: BatchSizeSearch, memory: int, num_samples: int | None = None) -> list[int]:
    """Search on a device that holds `memory` samples, and return the sizes tried."""
    tried = []
    while (size := search.size) is not None:
        tried.append(size)
        search.succeeded(num_samples) if size <= memory else search.failed()
    return tried


def test_power_doubles_and_keeps_the_last_that_fitted() -> None:
    search = BatchSizeSearch("power", init_val=2)
    assert run(search, memory=21) == [2, 4, 8, 16, 32]
    assert search.found == 16


def test_binsearch_goes_on_between_the_last_two() -> None:
    search = BatchSizeSearch("binsearch", init_val=2, margin=0.0)
    assert run(search, memory=21) == [2, 4, 8, 16, 32, 24, 20, 22, 21]
    assert search.found == 21


def test_a_first_size_that_is_too_large_is_halved() -> None:
    search = BatchSizeSearch("power", init_val=100)
    assert run(search, memory=21) == [100, 50, 25, 12]
    assert search.found == 12


def test_the_margin_is_taken_off_what_binsearch_finds() -> None:
    search = BatchSizeSearch("binsearch", margin=0.05)
    run(search, memory=100)
    assert search.found == 95


def test_trials_count_the_times_a_size_is_raised() -> None:
    search = BatchSizeSearch("power", init_val=4, max_trials=2)
    assert run(search, memory=1000) == [4, 8, 16]
    assert search.found == 16


def test_where_nothing_fits_nothing_is_found() -> None:
    search = BatchSizeSearch("binsearch", init_val=8)
    assert run(search, memory=0) == [8, 4, 2, 1]
    assert search.found is None


@given(
    mode=st.sampled_from(["power", "binsearch"]),
    init_val=st.integers(1, 300),
    memory=st.integers(0, 2000),
    max_val=st.none() | st.integers(1, 1000),
    num_samples=st.none() | st.integers(1, 1000),
)
def test_what_is_found_was_tried_and_fits(mode: str, init_val: int, memory: int, max_val: int | None, num_samples: int | None) -> None:
    search = BatchSizeSearch(mode, init_val=init_val, max_trials=50, max_val=max_val, margin=0.0)
    tried = run(search, memory, num_samples)
    assert len(tried) == len(set(tried))
    assert max_val is None or max(tried) <= max_val
    if search.found is None:
        assert memory == 0
        return
    assert search.found in tried
    assert search.found <= memory
    most = min([memory, *(limit for limit in (max_val, num_samples) if limit is not None)])
    if mode == "binsearch" and tried[0] <= most:
        assert search.found == most
