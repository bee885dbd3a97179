"""Settings: kinds, defaults, aliases, errors, unknown names; and that every one is documented."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.core import settings
from leyden.core.errors import ConfigError
from leyden.core.settings import SETTINGS, Setting

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "_reported", set())
    return


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_a_default_that_its_kind_accepts(setting: Setting) -> None:
    value = settings.get(setting.name, {})
    assert (value is None) == (setting.default is None)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented(setting: Setting) -> None:
    row = next((line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{setting.name}`")), "")
    assert setting.help in row
    assert all(f"`{word}`" in row for word in (*setting.aliases, *setting.choices))
    assert setting.default is None or f"`{setting.default}`" in row


def test_the_reference_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `(LEYDEN_\w+)`", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {setting.name for setting in SETTINGS}
    assert all(prefix in REFERENCE.read_text(encoding="utf-8") for prefix in settings.PREFIXES)


def test_names_and_aliases_are_unique() -> None:
    names = [name for setting in SETTINGS for name in (setting.name, *setting.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("setting", [row for row in SETTINGS if row.aliases], ids=lambda setting: setting.name)
def test_an_alias_is_read_after_the_name(setting: Setting) -> None:
    alias = setting.aliases[0]
    first, second = ("1", "0") if setting.kind in {"bool", "int"} else ("/ours", "/theirs")
    assert settings.source(setting.name, {alias: second}) == alias
    assert settings.source(setting.name, {alias: second, setting.name: first}) == setting.name
    assert settings.get(setting.name, {alias: second}) == settings.get(setting.name, {setting.name: second})
    assert settings.get(setting.name, {alias: second, setting.name: first}) == settings.get(setting.name, {setting.name: first})


def test_an_empty_variable_counts_as_unset() -> None:
    assert settings.get("LEYDEN_NUM_NODES", {"LEYDEN_NUM_NODES": " "}) == 1
    assert settings.get("LEYDEN_GLOBAL_SEED", {"LEYDEN_GLOBAL_SEED": "", "PL_GLOBAL_SEED": "5"}) == 5
    assert settings.source("LEYDEN_GLOBAL_SEED", {"LEYDEN_GLOBAL_SEED": ""}) is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("LEYDEN_GLOBAL_SEED", " 42 ", 42),
        ("LEYDEN_GRACE_SECONDS", "1.5", 1.5),
        ("LEYDEN_FABRIC_VERIFY", "Yes", True),
        ("LEYDEN_FABRIC_VERIFY", "off", False),
        ("LEYDEN_LOG_LEVEL", "INFO", "info"),
        ("LEYDEN_FABRIC_DEVICES", "0,2", "0,2"),
        ("LEYDEN_STEP_DIR", "/a/b", Path("/a/b")),
    ],
)
def test_text_is_read_by_its_kind(name: str, text: str, value: object) -> None:
    assert settings.get(name, {name: text}) == value


def test_a_path_starts_at_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert settings.get("LEYDEN_HOME", {}) == Path("/home/ada/.leyden")


@pytest.mark.parametrize(
    ("variable", "text", "accepted"),
    [
        ("LEYDEN_GLOBAL_SEED", "many", "an integer"),
        ("PL_GLOBAL_SEED", "1.5", "an integer"),
        ("LEYDEN_FABRIC_VERIFY", "maybe", "'true'"),
        ("LEYDEN_GRACE_SECONDS", "soon", "a number"),
        ("LEYDEN_LOG_LEVEL", "inf", "Did you mean 'info'?"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_accepted(variable: str, text: str, accepted: str) -> None:
    name = "LEYDEN_GLOBAL_SEED" if variable.startswith("PL") else variable
    with pytest.raises(ConfigError) as caught:
        settings.get(name, {variable: text})
    assert f"{variable}={text!r}" in str(caught.value)
    assert accepted in str(caught.value)
    assert f"unset {variable}" in str(caught.value)


def test_asking_for_a_setting_that_does_not_exist_names_the_closest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'LEYDEN_HOME'"):
        settings.get("LEYDEN_HOMES", {})


@pytest.mark.usefixtures("unreported")
def test_an_unknown_variable_is_reported_once_with_the_closest_name() -> None:
    environ = {"LEYDEN_FABRIC_DEVICE": "2", "PATH": "/bin", "LEYDEN_HOME": "/x"}
    with pytest.warns(UserWarning, match="LEYDEN_FABRIC_DEVICE has no effect.*Did you mean 'LEYDEN_FABRIC_DEVICES'") as caught:
        settings.report_unknown(environ)
    assert len(caught) == 1
    settings.report_unknown(environ)  # warnings are errors in these tests


@pytest.mark.usefixtures("unreported")
def test_reading_the_process_environment_reports_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_HOMME", "/x")
    with pytest.warns(UserWarning, match="LEYDEN_HOMME"):
        settings.get("LEYDEN_HOME")


@pytest.mark.usefixtures("unreported")
def test_families_of_names_are_left_to_their_part() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings.report_unknown({"LEYDEN_TRAINER_MAX_EPOCHS": "3"})


def test_the_environment_can_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYDEN_GLOBAL_SEED", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    settings.environment()["PL_GLOBAL_SEED"] = "9"
    assert settings.get("LEYDEN_GLOBAL_SEED") == 9
