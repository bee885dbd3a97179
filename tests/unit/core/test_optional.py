"""Optional packages: what the user is told when one is missing or broken."""

import sys
from pathlib import Path

import pytest

from leyden.core.errors import MissingDependencyError
from leyden.core.optional import installed, require


def test_an_installed_module_is_returned() -> None:
    assert require("json.decoder", purpose="a test").__name__ == "json.decoder"


def test_a_missing_package_names_the_command_with_the_extra() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_wandb", extra="loggers", purpose="WandbLogger")
    assert str(caught.value) == (
        "WandbLogger needs the package 'no_such_wandb', which is not installed. Install it with: pip install \"leyden[loggers]\""
    )
    assert caught.value.name == "no_such_wandb"
    assert isinstance(caught.value, ModuleNotFoundError)


def test_a_package_can_be_called_otherwise_than_its_module() -> None:
    with pytest.raises(MissingDependencyError, match=r"'scikit-thing'.*pip install scikit-thing"):
        require("no_such_skthing.inner", package="scikit-thing", purpose="a test")


def test_a_missing_module_of_an_installed_package_is_missing() -> None:
    with pytest.raises(MissingDependencyError, match="pip install json"):
        require("json.no_such_part", purpose="a test")


def test_a_broken_package_is_told_apart_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_thing.py").write_text("import no_such_dependency\n")
    (tmp_path / "old_thing.py").write_text("from json import no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match=r"is installed but cannot be imported.*no_such_dependency"):
        require("broken_thing", purpose="a test")
    with pytest.raises(MissingDependencyError, match=r"is installed but cannot be imported.*no_such_name"):
        require("old_thing", purpose="a test")


def test_whether_a_package_is_installed_is_told_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_imported.py").write_text("raise AssertionError\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("never_imported")
    assert "never_imported" not in sys.modules
    assert not installed("no_such_module")
    assert not installed("no_such_module.inner")
    assert installed("json.decoder")
