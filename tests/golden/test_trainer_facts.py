"""Runs of many configurations, replayed against what PyTorch Lightning 2.6.6 did with them (executed facts, not code).

`tests/support/trainer_facts.py` says what a case is and what is compared: hooks with the counters that they saw, logger
rows, returned values, metrics, weights, public attributes.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_facts import run_case

CASES: dict[str, Any] = {
    case["name"]: case for case in json.loads((Path(__file__).parent / "trainer_facts_2.6.6.json").read_text())["cases"]
}
QUIET = pytest.mark.filterwarnings(
    "ignore:.training_step. returned",
    "ignore:You defined a .validation_step.",
    "ignore:The number of training batches",
    "ignore:Detected call of",
    "ignore:.max_epochs. was not set",
    "ignore:Total length of",
    "ignore:A loader has no batches",
)


@QUIET
@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_as_documented(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    happened, expected = json.loads(json.dumps(run_case(case, tmp_path))), case["result"]
    assert happened.pop("trace") == expected["trace"]
    for part, value in happened.items():
        assert near(value, expected[part]), (part, value, expected[part])


def near(value: Any, expected: Any) -> bool:
    """Return whether two plain values are equal; their numbers were rounded, ours are means in double precision."""
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(near(entry, expected[name]) for name, entry in value.items())
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(near, value, expected))
    return value == pytest.approx(expected, abs=1.1e-4) if isinstance(value, float) else value == expected
