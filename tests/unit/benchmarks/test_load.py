"""What the benchmarks of serve share and that needs no server."""

from pathlib import Path

import pytest

from benchmarks import serve_faults, servers
from benchmarks.load import arrivals, quantile


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_a_value_that_was_found(share: float, wanted: float) -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == wanted


def test_arrivals_are_the_same_each_time_and_as_many_as_wanted() -> None:
    times = arrivals(100, 20.0, seed=7)
    assert times == arrivals(100, 20.0, seed=7) == sorted(times)
    assert 1800 < len(times) < 2200
    assert times[-1] < 20.0


def test_the_file_of_litserve_is_leydens_but_for_one_import() -> None:
    source = (servers.SERVERS / "litserve/server.py").read_text(encoding="utf-8")
    assert source.count("litserve") == source.count("import litserve as ls") == 1


def test_the_file_of_litserve_for_gpus_is_leydens_but_for_its_imports(tmp_path: Path) -> None:
    assert servers._script("litserve", str(tmp_path), "gpu.py") == str(servers.SERVERS / "litserve/gpu.py")
    ours = Path(servers._script("leyden", str(tmp_path), "gpu.py")).read_text(encoding="utf-8")
    assert ours.count("litserve") == 0
    assert ours.count("leyden.serve") == 2


def test_each_fault_has_limits() -> None:
    assert serve_faults.FAULTS.keys() == serve_faults.LIMITS.keys()
