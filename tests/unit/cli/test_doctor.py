"""What `leyden doctor` reads of a machine, and what it says about it."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from leyden.cli import doctor
from leyden.cli.main import main


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


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
    for words in ("python    3.", "torch     ", "device    cpu", "cores     ", "memory    ", "disk      ", "safetensors"):
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
    monkeypatch.setattr(doctor, "wanted_packages", lambda: [doctor.Wanted("no-such-package-anywhere", "no-such-package-anywhere>=1", None)])
    assert main(["doctor"]) == 1
    assert "pip install no-such-package-anywhere" in capsys.readouterr().out


def test_runs_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 0
    assert "torch     not usable: ModuleNotFoundError" in capsys.readouterr().out


def test_wanted_packages_are_those_of_the_metadata() -> None:
    wanted = {package.name: package.extra for package in doctor.wanted_packages()}
    assert wanted["torch"] is None
    assert wanted["wandb"] == "loggers"
    assert "pytest" not in wanted


@pytest.mark.parametrize(("quota", "cgroup"), [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", None)])
def test_cores_are_limited_by_the_cgroup(quota: str, cgroup: float | None, tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/jobs/a\n", "sys/fs/cgroup/jobs/a/cpu.max": quota})
    assert doctor.cores(root)["cgroup"] == cgroup


def test_the_tightest_limit_above_a_process_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/a\n",
            "sys/fs/cgroup/jobs/a/cpu.max": "max 100000",
            "sys/fs/cgroup/jobs/cpu.max": "150000 100000",
            "sys/fs/cgroup/jobs/memory.max": str(2**30),
            "proc/meminfo": "MemTotal:       4194304 kB\nMemAvailable:   1048576 kB\n",
        },
    )
    assert doctor.cores(root)["cgroup"] == 1.5
    assert doctor.memory(root) == {"total_bytes": 4 * 2**30, "available_bytes": 2**30, "cgroup_bytes": 2**30}


def test_limits_of_cgroup_version_1_are_read(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**62),
            "proc/meminfo": "MemTotal:       4194304 kB\n",
        },
    )
    assert doctor.cores(root)["cgroup"] == 1.0
    assert doctor.memory(root) == {"total_bytes": 4 * 2**30, "available_bytes": None, "cgroup_bytes": None}


def test_a_machine_without_proc_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    assert doctor.memory(tmp_path) == {"total_bytes": None, "available_bytes": None, "cgroup_bytes": None}
    assert doctor.cores(tmp_path)["cgroup"] is None
