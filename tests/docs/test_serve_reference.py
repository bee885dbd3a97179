"""docs/reference/serve.md names every argument, hook, metric and code of an error, and none that is not there."""

import inspect
import re
from pathlib import Path

import pytest

from leyden.serve import LitAPI, LitServer
from leyden.serve.hooks import HOOKS
from leyden.serve.metrics import METRICS, PREFIX

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "serve.md").read_text(encoding="utf-8")
CODE = re.compile(r"\"((?:request|queue|worker|server|auth|stream|deadline)\.[a-z_]+|model_not_found)\"")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def named(section: str) -> set[str]:
    """Return the words in code of a section, each name of `a(b=1)` by itself."""
    return set(re.findall(r"[\w./]+", " ".join(re.findall(r"`([^`]+)`", SECTIONS[section]))))


@pytest.mark.parametrize(
    ("section", "function"), [("`LitAPI`", LitAPI.__init__), ("`LitServer`", LitServer.__init__), ("`LitServer`", LitServer.run)]
)
def test_every_argument_is_there(section: str, function: object) -> None:
    arguments = set(inspect.signature(function).parameters) - {"self"}  # type: ignore[arg-type]
    assert arguments - named(section) == set()


def test_every_hook_is_there() -> None:
    methods = {name for name, value in vars(LitAPI).items() if inspect.isfunction(value) and not name.startswith("_")} - {"check"}
    assert set(HOOKS) <= methods
    assert methods - named("`LitAPI`") == set()


def test_the_metrics_are_those_that_there_are() -> None:
    found = re.findall(r"^\| (.+?) \|", SECTIONS["Metrics"], re.MULTILINE)[1:]
    names = {name for cell in found for name in re.findall(r"`(\w+)", cell)}
    assert names == {metric.name for metric in METRICS}
    assert f"`{PREFIX}`" in SECTIONS["Metrics"]


def test_the_codes_are_those_that_there_are() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "leyden" / "serve").rglob("*.py")]
    codes = {code for source in sources for code in CODE.findall(source)}
    listed = {code for row in re.findall(r"^\| (`.+?) \|", SECTIONS["Error codes"], re.MULTILINE) for code in re.findall(r"`([^`]+)`", row)}
    assert listed == codes
