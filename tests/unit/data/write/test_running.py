"""What has no effect where units are done is said."""

from pathlib import Path

import pytest

from leyden.core.errors import ConfigError
from leyden.data.write.optimize import optimize


def test_limits_of_an_input_need_a_worker_process(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="num_workers=1"):
        assert optimize(float, [1, 2], str(tmp_path), num_workers=0, timeout=5.0).num_rows == 2


@pytest.mark.parametrize("name", ["num_uploaders", "num_downloaders"])
def test_transfers_are_counted_from_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        optimize(float, [1, 2], str(tmp_path), num_workers=0, **{name: 0})  # type: ignore[arg-type]
