"""What has no effect where units are done is said."""

from pathlib import Path

import pytest

from leyden.data.write.optimize import optimize


def test_limits_of_an_input_need_a_worker_process(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="num_workers=1"):
        assert optimize(float, [1, 2], str(tmp_path), num_workers=0, timeout=5.0).num_rows == 2


def test_transfers_that_are_not_counted_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="num_uploaders"):
        optimize(float, [1, 2], str(tmp_path), num_workers=0, num_uploaders=4)
