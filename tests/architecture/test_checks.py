"""The checks of our own find what they say they find, and let through what is waived with a reason."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from checks import install
from checks.environment import drifted, pinned
from checks.sizes import findings


def rules(text: str, path: str = "src/leyden/core/x.py") -> list[str]:
    return [finding.split()[1] for finding in findings(path, text)]


def long_class(comment: str = "") -> str:
    return f"class A:{comment}\n" + "    x = 1\n" * 401


def wide_class(comment: str = "") -> str:
    return f"class A:{comment}\n" + "".join(f"    def m{index}(self): ...\n" for index in range(21))


def test_a_short_file_is_fine() -> None:
    assert rules('"""Short."""\nx = 1\n') == []


def test_a_long_file_needs_its_reason() -> None:
    assert rules('"""Long."""\n' + "x = 1\n" * 500) == ["SIZE001"]
    assert rules('"""Tables. Long because a table is read whole."""\n' + "x = 1\n" * 500) == []


def test_a_file_beyond_800_lines_fails_with_any_reason() -> None:
    text = '"""Long because it is."""\n' + "x = 1\n" * 800
    assert rules(text) == ["SIZE004"]
    assert rules(text, "src/leyden/llm/model.py") == []


@pytest.mark.parametrize(("make", "rule"), [(long_class, "SIZE002"), (wide_class, "SIZE003")])
def test_a_big_class_needs_a_waiver(make: Callable[..., str], rule: str) -> None:
    assert rules(make()) == [rule]
    assert rules(make(f"  # noqa: {rule} - the documented facade")) == []


@pytest.mark.parametrize("waiver", ["noqa", "noqa: E501", "noqa: E501 -", "NOQA: E501 because"])
def test_a_waiver_without_rule_and_reason_fails(waiver: str) -> None:
    assert rules(f"x = 1  # {waiver}\n") == ["SIZE005"]


@pytest.mark.parametrize("waiver", ["noqa: E501 - a table", "noqa: E501, PLR0913 - the facade's signature"])
def test_a_waiver_with_rule_and_reason_passes(waiver: str) -> None:
    assert rules(f"x = 1  # {waiver}\n") == []


def test_noqa_inside_a_string_is_no_waiver() -> None:
    assert rules('x = "# noqa"\n') == []


def test_another_version_than_the_pinned_one_is_named() -> None:
    assert drifted({"pytest": "1.0"})[0].startswith("pytest is ")
    assert drifted({"no-such-package-anywhere": "1.0"}) == []


def test_pins_are_read_past_comments() -> None:
    assert pinned("torch==2.13.0  # first\n# click==1\nattrs==26.1.0\n") == {"torch": "2.13.0", "attrs": "26.1.0"}


def test_uv_is_told_what_pips_configuration_says() -> None:
    listed = (
        ":env:.index-url='https://nearer/simple'\n"
        "global.cert='/etc/ca.pem'\n"
        "global.extra-index-url='https://a/simple https://b/simple'\n"
        "global.index-url='https://far/simple'\n"
        "install.find-links='/wheels'\n"
    )
    settings = install.pip_settings(listed)
    assert settings["index-url"] == "https://nearer/simple"
    assert settings["cert"] == "/etc/ca.pem"
    assert install.uv_arguments(settings) == [
        "--index-strategy", "unsafe-best-match", "--default-index", "https://nearer/simple",
        "--extra-index-url", "https://a/simple", "--extra-index-url", "https://b/simple", "--find-links", "/wheels",
    ]  # fmt: skip
    assert install.uv_arguments(install.pip_settings("")) == ["--index-strategy", "unsafe-best-match"]


def test_pip_installs_where_uv_cannot(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(list(command))
        fails = "uv" in command and "pip" in command and "--editable" in command
        return subprocess.CompletedProcess(command, 2 if fails else 0, stdout="", stderr="no such wheel")

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.main(["--editable", "."]) == 0
    assert asked[-1] == [*install.PIP, "--editable", "."]
    assert "pip does: no such wheel" in capfd.readouterr().err
