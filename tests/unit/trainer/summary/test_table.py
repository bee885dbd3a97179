"""Counts and tables as text."""

import pytest

from leyden.trainer.summary.table import human_readable, text_table


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0  "), (999, "999  "), (1000, "1.0 K"), (99_999, "100.0 K"), (123_456, "123 K"), (3_000_000_000, "3.0 B"), (4 * 10**14, "400 T")],
)
def test_counts_have_a_letter(count: int, text: str) -> None:
    assert human_readable(count) == text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = text_table([("A", ["1", "longer"]), ("Head", ["x", "y"])])
    assert text.splitlines() == ["A      | Head", "--------------", "1      | x", "longer | y", "--------------"]
