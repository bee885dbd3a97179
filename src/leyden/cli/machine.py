"""What this machine has and what is missing, for `leyden doctor`: plain values, found without changing anything.

It works where torch is missing or broken: that is when it is needed most. What may be installed is read from Leyden's own
package metadata, so there is no second list to keep.
"""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from leyden import __version__
from leyden.core import settings

PROGRAMS = {  # program -> what it is for, how to add it
    "srun": ("runs on a Slurm cluster", "apt-get install slurm-wlm"),
    "mpiexec": ("runs started by MPI", 'pip install "leyden[mpi]" mpich'),
    "git": ("code snapshots", "apt-get install git"),
}
DEEPSPEED = 'pip install setuptools wheel ninja psutil py-cpuinfo && DS_BUILD_OPS=0 pip install --no-build-isolation "leyden[deepspeed]"'
NOT_FOR_USERS = {"dev"}


class Wanted(NamedTuple):
    """A package that Leyden's metadata names: always, or with an extra."""

    name: str
    requirement: str
    extra: str | None


def examine(root: Path = Path("/")) -> dict[str, Any]:
    """Return what this machine has, as plain JSON values.

    Args:
        root: Where `proc` and `sys` are; a test hands another one.
    """
    packages = [_package(wanted) for wanted in wanted_packages()]
    programs = [{"name": name, "path": shutil.which(name), "for": purpose} for name, (purpose, _) in PROGRAMS.items()]
    return {
        "leyden": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "torch": _torch(),
        "cores": cores(root),
        "memory": memory(root),
        "disk": _disk(),
        "packages": packages,
        "programs": programs,
        "missing": list(_missing(packages, programs)),
    }


def wanted_packages() -> list[Wanted]:
    """Return the packages that Leyden needs or can use, from its own metadata."""
    try:
        requirements = metadata.requires("leyden") or []
    except metadata.PackageNotFoundError:
        return []  # run from a folder of sources that nobody installed
    found = []
    for requirement in requirements:
        name, _, marker = (part.strip() for part in requirement.partition(";"))
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        wanted = Wanted(re.split(r"[\s\[<>=!~(]", name)[0], name, extra[1] if extra else None)
        if wanted.extra not in NOT_FOR_USERS:
            found.append(wanted)
    return found


def cores(root: Path = Path("/")) -> dict[str, Any]:
    """Return how many cores the machine has, and how many of them this process may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores(root)
    return {"machine": os.cpu_count(), "affinity": affinity, "cgroup": quota, "usable": min(affinity, quota) if quota else affinity}


def memory(root: Path = Path("/")) -> dict[str, int | None]:
    """Return the machine's memory, what is free of it, and the limit set on this process's group, in bytes."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE))
    total, available = (int(table[key]) * 1024 if key in table else None for key in ("MemTotal", "MemAvailable"))
    limits = [_read(folder / "memory.max") for folder in _cgroups(root)] + [_read(root / "sys/fs/cgroup/memory/memory.limit_in_bytes")]
    numbers = [int(limit) for limit in limits if limit and limit.isdigit()]
    cgroup = min((number for number in numbers if total is None or number < total), default=None)
    return {"total_bytes": total, "available_bytes": available, "cgroup_bytes": cgroup}


def _cgroup_cores(root: Path) -> float | None:
    quotas = []
    for folder in _cgroups(root):
        quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    quota, period = (_read(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    if quota.isdigit() and period.isdigit():  # version 1 says -1 where nothing is limited
        quotas.append(int(quota) / int(period))
    return round(min(quotas), 2) if quotas else None


def _cgroups(root: Path) -> list[Path]:
    """Return the folders of this process's group and of those above it: each may set a limit."""
    line = re.search(r"^0::/?(.*)$", _read(root / "proc/self/cgroup") or "", re.MULTILINE)
    top = root / "sys/fs/cgroup"
    folder = top / (line[1] if line else "")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything, and saying so is this command's work
        return {"version": None, "error": f"{type(error).__name__}: {error}"}
    return {
        "version": torch.__version__,
        "build": f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "CPU",
        "threads": torch.get_num_threads(),
        "devices": _devices(torch),
    }


def _devices(torch: Any) -> list[str]:
    devices = ["cpu"]
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind)
        devices += [f"{kind}:{index} {module.get_device_name(index)}" for index in range(module.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _disk() -> dict[str, int]:
    """Return the free bytes of the places that Leyden writes to, by path."""
    home = Path(settings.get("LEYDEN_HOME")).expanduser()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    temporary = Path(tempfile.gettempdir())
    return {str(folder): shutil.disk_usage(folder).free for folder in (Path.cwd(), existing, temporary) if folder.exists()}


def _package(wanted: Wanted) -> dict[str, Any]:
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        version = None
    return {"name": wanted.name, "version": version, "extra": wanted.extra}


def _missing(packages: list[dict[str, Any]], programs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for package in packages:
        name, extra = package["name"], package["extra"]
        if package["version"] is None:
            command = DEEPSPEED if extra == "deepspeed" else f'pip install "leyden[{extra}]"' if extra else f"pip install {name}"
            yield {"name": name, "for": extra or "everything", "command": command, "needed": extra is None}
    for program in programs:
        if program["path"] is None:
            yield {"name": program["name"], "for": program["for"], "command": PROGRAMS[program["name"]][1], "needed": False}
