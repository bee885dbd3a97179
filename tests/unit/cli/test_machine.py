"""What is read of a machine: its cores, its memory, the packages it could have."""

from pathlib import Path

import pytest

from leyden.cli import machine


def a_machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_wanted_packages_are_those_of_the_metadata() -> None:
    wanted = {package.name: package.extra for package in machine.wanted_packages()}
    assert wanted["torch"] is None
    assert wanted["wandb"] == "loggers"
    assert "pytest" not in wanted


@pytest.mark.parametrize(("quota", "cgroup"), [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", None)])
def test_cores_are_limited_by_the_cgroup(quota: str, cgroup: float | None, tmp_path: Path) -> None:
    root = a_machine(tmp_path, {"proc/self/cgroup": "0::/jobs/a\n", "sys/fs/cgroup/jobs/a/cpu.max": quota})
    assert machine.cores(root)["cgroup"] == cgroup


def test_the_tightest_limit_above_a_process_counts(tmp_path: Path) -> None:
    root = a_machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/a\n",
            "sys/fs/cgroup/jobs/a/cpu.max": "max 100000",
            "sys/fs/cgroup/jobs/cpu.max": "150000 100000",
            "sys/fs/cgroup/jobs/memory.max": str(2**30),
            "proc/meminfo": "MemTotal:       4194304 kB\nMemAvailable:   1048576 kB\n",
        },
    )
    assert machine.cores(root)["cgroup"] == 1.5
    assert machine.memory(root) == {"total_bytes": 4 * 2**30, "available_bytes": 2**30, "cgroup_bytes": 2**30}


def test_limits_of_cgroup_version_1_are_read(tmp_path: Path) -> None:
    root = a_machine(
        tmp_path,
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**62),
            "proc/meminfo": "MemTotal:       4194304 kB\n",
        },
    )
    assert machine.cores(root)["cgroup"] == 1.0
    assert machine.memory(root) == {"total_bytes": 4 * 2**30, "available_bytes": None, "cgroup_bytes": None}


def test_a_machine_without_proc_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    assert machine.memory(tmp_path) == {"total_bytes": None, "available_bytes": None, "cgroup_bytes": None}
    assert machine.cores(tmp_path)["cgroup"] is None
