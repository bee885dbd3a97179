"""The benchmark harness: order of rounds, ratios, and a whole run of a small claim in real processes."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.harness import Benchmark, Comparison, Variant, compare, measure

SMALL = '''
"""Small."""
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks import harness
from benchmarks.harness import Benchmark, Comparison, Variant, main
harness.ROOT = Path({folder!r})
harness.RESULTS = harness.ROOT / "results"

def one(): return {{"seconds": 1.0}}
def two(): return {{"seconds": 2.0}}
def broken(): raise ValueError("no such thing")

BENCHMARK = Benchmark(
    claim="two takes twice one",
    variants={{"one": Variant(run=one), "two": Variant(run={run})}},
    comparisons=[Comparison(of="two", to="one", limit={limit})],
)
if __name__ == "__main__":
    sys.exit(main(BENCHMARK, "small_claim"))
'''


def variants(*names: str) -> dict[str, Variant]:
    return {name: Variant(run=dict) for name in names}


def test_rounds_are_interleaved_and_begin_with_another_variant_each() -> None:
    order: list[str] = []
    measure(variants("a", "b", "c"), lambda key: order.append(key) or {"seconds": 1.0}, rounds=3)  # type: ignore[func-returns-value]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_ratio_is_that_of_the_medians_with_the_spread_of_the_rounds() -> None:
    values = {"ours": {"seconds": [1.0, 2.0, 9.0]}, "raw": {"seconds": [1.0, 1.0, 3.0]}}
    outcome = compare(Comparison(of="ours", to="raw", limit=2.0), values)
    assert outcome == {
        "of": "ours", "to": "raw", "metric": "seconds", "limit": 2.0, "value": 2.0, "low": 1.0, "high": 3.0, "held": True,
    }  # fmt: skip


def test_claim_above_its_limit_is_not_held() -> None:
    outcome = compare(Comparison(of="a", to="b", limit=1.1), {"a": {"seconds": [1.2]}, "b": {"seconds": [1.0]}})
    assert outcome is not None
    assert outcome["held"] is False


def test_a_number_without_another_side_is_compared_itself() -> None:
    outcome = compare(Comparison(of="a", limit=0.15), {"a": {"seconds": [0.1, 0.1, 0.2]}})
    assert outcome is not None
    assert (outcome["value"], outcome["low"], outcome["high"], outcome["held"]) == (0.1, 0.1, 0.2, True)


def test_ratio_with_a_side_left_out_is_left_out() -> None:
    assert compare(Comparison(of="peer", to="raw"), {"raw": {"seconds": [1.0]}}) is None


@pytest.mark.parametrize(("limit", "status"), [(2.0, 0), (1.5, 1)])
def test_a_whole_run_writes_values_versions_and_command(
    limit: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(harness.ROOT)
    (tmp_path / "small_claim.py").write_text(SMALL.format(root=root, folder=str(tmp_path), run="two", limit=limit))
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    benchmark = Benchmark(
        claim="two takes twice one", variants=variants("one", "two"), comparisons=[Comparison(of="two", to="one", limit=limit)]
    )
    assert harness.main(benchmark, "small_claim", ["--rounds", "2"]) == status
    report = json.loads((tmp_path / "results/small_claim.json").read_text())
    assert report["command"] == "python -m small_claim --rounds 2"
    assert report["values"] == {"one": {"seconds": [1.0, 1.0]}, "two": {"seconds": [2.0, 2.0]}}
    assert report["versions"]["one"]["python"] == sys.version.split()[0]
    assert report["comparisons"][0]["value"] == 2.0
    assert ("NOT HELD" in capsys.readouterr().out) is bool(status)


def test_peers_run_with_the_python_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(harness.ROOT)
    (tmp_path / "small_claim.py").write_text(SMALL.format(root=root, folder=str(tmp_path), run="two", limit=2.0))
    python = tmp_path / "their_python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    benchmark = Benchmark(claim="", variants={"one": Variant(run=dict), "two": Variant(run=dict, peer="litserve")}, comparisons=[])
    assert harness.main(benchmark, "small_claim", ["--rounds", "1", "--peer-python", str(python)]) == 0
    asked = (tmp_path / "asked").read_text()
    assert "--worker two" in asked
    assert "--worker one" not in asked
    assert not (tmp_path / ".cache").exists()


def test_a_worker_that_fails_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(harness.ROOT)
    (tmp_path / "small_claim.py").write_text(SMALL.format(root=root, folder=str(tmp_path), run="broken", limit=2.0))
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="no such thing"):
        harness.main(Benchmark(claim="", variants=variants("two"), comparisons=[]), "small_claim", ["--rounds", "1"])
