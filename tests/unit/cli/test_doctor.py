"""What `leyden doctor` says about a machine, for people and as JSON."""

import json
import sys
from importlib import metadata

import pytest

from leyden.cli import machine
from leyden.cli.main import main


def test_json_report_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"leyden", "python", "torch", "cores", "memory", "disk", "packages", "programs", "missing"}
    assert report["torch"]["version"] == metadata.version("torch")
    assert report["torch"]["devices"][0] == "cpu"
    assert 1 <= report["cores"]["usable"] <= report["cores"]["machine"]
    assert min(report["disk"].values()) > 0


def test_text_report_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for words in ("python    3.", "torch     ", "device    cpu", "cores     ", "memory    ", "disk      ", "obstore"):
        assert words in text


def test_missing_package_comes_with_its_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = metadata.version

    def version(name: str) -> str:
        if name in ("wandb", "deepspeed"):
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 0  # nothing of it is needed
    text = capsys.readouterr().out
    assert 'pip install "leyden[loggers]"' in text
    assert "DS_BUILD_OPS=0 pip install --no-build-isolation" in text


def test_missing_needed_package_is_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        machine, "wanted_packages", lambda: [machine.Wanted("no-such-package-anywhere", "no-such-package-anywhere>=1", None)]
    )
    assert main(["doctor"]) == 1
    assert "pip install no-such-package-anywhere" in capsys.readouterr().out


def test_runs_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 0
    assert "torch     not usable: ModuleNotFoundError" in capsys.readouterr().out
