"""What is known of a model's speed, and when it is forgotten."""

from leyden.serve.batching import staged_items
from leyden.serve.estimate import Estimate


def test_nothing_is_known_before_ten_results() -> None:
    estimate = Estimate()
    for _ in range(9):
        estimate.add(1.0, 1, now=0.0)
        assert estimate.value is None
    estimate.add(1.0, 1, now=0.0)
    assert estimate.value == 1.0


def test_the_first_nine_do_not_spoil_the_mean() -> None:
    estimate = Estimate()
    estimate.add(60.0, 1, now=0.0)
    for _ in range(9):
        estimate.add(0.5, 1, now=60.0)
    assert estimate.value == 0.5


def test_a_batch_counts_as_many_results() -> None:
    estimate = Estimate()
    estimate.add(2.0, 16, now=0.0)
    assert estimate.value == 0.125


def test_old_results_lose_their_weight() -> None:
    estimate = Estimate()
    estimate.add(1000.0, 1000, now=0.0)
    assert estimate.value == 1.0
    for second in range(60):
        estimate.add(0.2, 20, now=float(second))
    assert estimate.value is not None
    assert estimate.value < 0.05


def test_the_last_ten_always_have_a_say() -> None:
    estimate = Estimate()
    estimate.add(1000.0, 1000, now=0.0)
    estimate.add(12.0, 1, now=3600.0)
    assert estimate.value is not None
    assert estimate.value == 2.0  # (10 x 1 s + 12 s) / 11


def test_staged_work_is_whole_batches_within_bounds() -> None:
    for size in (1, 3, 16, 64, 65, 200):
        for microseconds in (1, 10, 100, 1000, 5000, 5001):
            staged = staged_items(microseconds / 1e6, size)
            assert staged % size == 0
            assert staged <= 64
    assert staged_items(0.005, 1) == 1
    assert staged_items(0.000001, 1) == 64
    assert staged_items(0.0, 8) == 64
