"""Which devices workers run on, found without importing torch: a front end or supervisor that loads it pays 300 MB for a count."""

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from leyden.core.errors import ConfigError, closest, listed

ACCELERATORS = ("auto", "cpu", "cuda", "mps", "gpu")
_DRIVER, _NODES = Path("/proc/driver/nvidia/gpus"), Path("/dev")
Device = str | list[str]


class Present(NamedTuple):
    """What this machine has for torch.

    Args:
        cuda: How many NVIDIA GPUs this process may use.
        mps: Whether there is Apple's GPU.
    """

    cuda: int = 0
    mps: bool = False


def present_devices(environ: Mapping[str, str], driver: Path = _DRIVER, nodes: Path = _NODES) -> Present:
    """Return what is there for torch; nothing if torch is not installed.

    Args:
        environ: For `CUDA_VISIBLE_DEVICES`.
        driver: The folder in which NVIDIA's driver lists the GPUs of the machine.
        nodes: The folder of device files.
    """
    if importlib.util.find_spec("torch") is None:
        return Present()
    mps = sys.platform == "darwin" and platform.machine() == "arm64"
    count = _count_nvidia(driver, nodes)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return Present(count, mps)
    allowed = 0
    for name in map(str.strip, visible.split(",")):  # CUDA stops at the first that is not there
        if not name or name == "-1" or (name.isdecimal() and int(name) >= count):
            break
        allowed += 1
    return Present(min(allowed, count), mps)


def _count_nvidia(driver: Path, nodes: Path) -> int:
    """Return how many GPUs there are.

    A container has the files of its own GPUs, while the driver may list all of the machine there, or none (gVisor). Outside of
    containers the files may be made only when the first program opens a GPU.
    """
    files = sum(path.name.removeprefix("nvidia").isdecimal() for path in nodes.glob("nvidia[0-9]*"))
    return files or (sum(1 for _ in driver.iterdir()) if driver.is_dir() else 0)


def choose_accelerator(accelerator: str | None, present: Present) -> str:
    """Return `cpu`, `cuda` or `mps`.

    Args:
        accelerator: As the user gave it, in any case; `None` and `auto` take the best there is.
        present: What there is.

    Raises:
        ConfigError: It is none of these, or not there.

    Example:
        >>> choose_accelerator("auto", Present(cuda=2)), choose_accelerator("gpu", Present(mps=True)), choose_accelerator(None, Present())
        ('cuda', 'mps', 'cpu')
    """
    name = "auto" if accelerator is None else str(accelerator).lower()
    if name not in ACCELERATORS:
        raise ConfigError(f"accelerator={accelerator!r} is not accepted: it takes {listed(ACCELERATORS)}.{closest(name, ACCELERATORS)}")
    best = "cuda" if present.cuda else "mps" if present.mps else "cpu"
    if name == "auto":
        return best
    if name == "gpu":
        name = best if best != "cpu" else "cuda"
    if (name == "cuda" and not present.cuda) or (name == "mps" and not present.mps):
        raise ConfigError(f"accelerator={accelerator!r}: this machine has no such device for torch. Pass accelerator='auto' or 'cpu'.")
    return name


def device_list(accelerator: str, devices: object, present: Present) -> list[Device]:
    """Return the devices that get workers: `["cpu"]`, or a list of lists, of which each is what one worker is given.

    Args:
        accelerator: `cpu`, `cuda` or `mps`.
        devices: A number, `"auto"`, a list of ids, or a list of lists of ids.
        present: What there is.

    Raises:
        ConfigError: It is none of these, or there are not so many.

    Example:
        >>> device_list("cuda", [0, 1], Present(cuda=2)), device_list("cuda", [[0, 1]], Present(cuda=2))
        ([['cuda:0'], ['cuda:1']], [['cuda:0', 'cuda:1']])
    """
    groups = _groups(devices, 1 if accelerator != "cuda" else present.cuda)
    if accelerator == "cpu":
        if devices not in ("auto", None, 1) and len(groups) > 1:
            raise ConfigError(f"devices={devices!r}: the CPU is one device. For more workers on it pass workers_per_device={len(groups)}.")
        return ["cpu"]
    ids = [number for group in groups for number in group]
    there = 1 if accelerator == "mps" else present.cuda
    absent = [number for number in ids if number >= there]
    if absent:
        raise ConfigError(f"devices={devices!r}: there is no {accelerator}:{absent[0]}; this machine has {there}, numbered from 0.")
    if len(set(ids)) < len(ids):
        raise ConfigError(f"devices={devices!r} names a device twice. For several workers on one pass workers_per_device=….")
    return [[f"{accelerator}:{number}" for number in group] for group in groups]


def _groups(devices: object, there: int) -> list[list[int]]:
    """Return the ids of each worker's devices."""
    if devices in ("auto", None):
        return [[number] for number in range(there)]
    if isinstance(devices, int) and not isinstance(devices, bool):
        if devices < 1:
            raise ConfigError(f"devices={devices} is not accepted: it takes a number ≥ 1, 'auto', a list of ids, or a list of such lists.")
        return [[number] for number in range(devices)]
    if isinstance(devices, Sequence) and not isinstance(devices, str) and devices:
        return [_ids(each if isinstance(each, Sequence) and not isinstance(each, str) else [each], devices) for each in devices]
    raise ConfigError(f"devices={devices!r} is not accepted: it takes a number ≥ 1, 'auto', a list of ids, or a list of such lists.")


def _ids(group: Sequence[object], devices: object) -> list[int]:
    found = list[int]()
    for number in group:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ConfigError(f"devices={devices!r} is not accepted: {number!r} is no id of a device, which are numbers from 0.")
        found.append(number)
    if not found:
        raise ConfigError(f"devices={devices!r} is not accepted: a worker without a device. Pass devices='auto', or accelerator='cpu'.")
    return found
