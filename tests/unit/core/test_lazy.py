"""Lazy exports: what a package gives out, when, and what it says of a wrong name."""

import sys
from pathlib import Path

import pytest

from leyden.core.lazy import Later

PACKAGE = """
from leyden.core.lazy import exports
__getattr__, __dir__, __all__ = exports(__name__, {"Thing": ".inner", "tools": ".tools", "stdlib_json": "json"})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"lazy_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE.replace('"stdlib_json": "json"', '"loads": "json"'))
    (tmp_path / name / "inner.py").write_text("class Thing: pass\n")
    (tmp_path / name / "tools.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_module_is_imported_at_the_first_use_of_its_name(package: str) -> None:
    imported = __import__(package)
    assert f"{package}.inner" not in sys.modules
    assert imported.Thing is imported.Thing
    assert f"{package}.inner" in sys.modules


def test_a_name_may_stand_for_a_module_or_come_from_elsewhere(package: str) -> None:
    imported = __import__(package)
    assert imported.tools.value == 3
    assert imported.loads("[1]") == [1]


def test_the_names_are_listed(package: str) -> None:
    imported = __import__(package)
    assert dir(imported) == ["Thing", "loads", "tools"]
    assert sorted(imported.__all__) == dir(imported)


def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Thin'"):
        __import__(package).Thin  # noqa: B018 - the access is the test


def test_a_later_module_is_imported_when_something_of_it_is_used(package: str) -> None:
    tools = Later(f"{package}.tools")
    assert f"{package}.tools" not in sys.modules
    assert tools.value == 3
    assert f"{package}.tools" in sys.modules


def test_looking_a_later_module_over_imports_nothing(package: str) -> None:
    tools = Later(f"{package}.tools")
    assert not hasattr(tools, "__wrapped__")
    assert f"{package}.tools" not in sys.modules
