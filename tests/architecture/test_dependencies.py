"""The core stays light: few direct dependencies, each with its reason; and what is tested is pinned without hosts or paths."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
PINNED = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def name_of(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0].lower().replace("_", "-")


def test_at_most_four_direct_dependencies_beyond_torch() -> None:
    names = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    assert "torch" in names
    assert len(names - {"torch"}) <= 4


def test_each_direct_dependency_has_its_reason() -> None:
    for requirement in PROJECT["dependencies"]:
        if name_of(requirement) != "torch":
            assert re.search(rf'"{re.escape(requirement)}",\s+# \w+', TEXT), f"say in a comment why {requirement} is needed"


def test_torch_is_pinned_first() -> None:
    assert PINNED[0].startswith("torch==2.13.0")


def test_every_wanted_package_is_pinned() -> None:
    pinned = {name_of(line) for line in PINNED}
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    missing = {name_of(requirement) for requirement in PROJECT["dependencies"] + extras} - pinned
    assert not missing


def test_pins_are_exact_and_name_no_place() -> None:
    for line in PINNED:
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!]+(  # .*)?", line), line
