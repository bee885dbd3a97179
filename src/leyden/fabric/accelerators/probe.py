"""What this machine has, and which accelerator a name means there: functions of a `Probe`, so that any machine can be tried."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from leyden.core.errors import ConfigError, ConfigTypeError, UnavailableError, closest, listed
from leyden.fabric.accelerators.accelerator import Accelerator
from leyden.fabric.accelerators.cuda import CUDAAccelerator
from leyden.fabric.accelerators.mps import MPSAccelerator
from leyden.fabric.accelerators.registry import ACCELERATOR_REGISTRY
from leyden.fabric.accelerators.xpu import XPUAccelerator

BUILT_IN = ("cpu", "cuda", "mps", "xpu")
GPUS = ("mps", "cuda", "xpu")  # what "gpu" means, in this order
ONE_BY_DEFAULT = ("cpu", "mps")  # where `auto` never means several devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What a plan depends on in the machine.

    Args:
        device_counts: Name of an accelerator → how many devices this process sees; those of other names are asked.
        current: The type of `torch.accelerator.current_accelerator()`, if there is one.
        interactive: Whether this is a notebook or a REPL, where a script cannot be started again.
        cuda_initialised: Whether this process has used CUDA, so that it cannot be forked any more.
        fork_available: Whether this platform can fork.
    """

    device_counts: Mapping[str, int]
    current: str | None = None
    interactive: bool = False
    cuda_initialised: bool = False
    fork_available: bool = True

    def count(self, name: str) -> int:
        """Return how many devices of the accelerator `name` there are."""
        if name in self.device_counts:
            return self.device_counts[name]
        return _ask(ACCELERATOR_REGISTRY.get(name))

    def count_of(self, accelerator: Accelerator) -> int:
        """Return how many devices of `accelerator`, registered or not, there are."""
        return self.device_counts[accelerator.name] if accelerator.name in self.device_counts else _ask(accelerator)


def probe_machine() -> Probe:
    """Look at this machine, without initialising any device."""
    counts = {
        "cpu": 1,
        "mps": int(MPSAccelerator.is_available()),
        "cuda": CUDAAccelerator.auto_device_count(),
        "xpu": XPUAccelerator.auto_device_count(),
    }
    return Probe(
        device_counts=counts,
        current=None if counts["mps"] or counts["cuda"] else _current_accelerator(),  # asking would initialise CUDA in torch 2.6
        interactive=hasattr(sys, "ps1"),
        cuda_initialised=torch.cuda.is_initialized(),
        fork_available=hasattr(os, "fork"),
    )


def accelerator_for(name: object, probe: Probe) -> Accelerator:
    """Return the accelerator that `name` means on the machine of `probe`; an accelerator object is returned if it is there.

    Args:
        name: A registered name in any case, `"auto"`, `"gpu"`, `None` (auto), or an `Accelerator`.
        probe: The machine.

    Raises:
        ConfigTypeError: Something else.
        ConfigError: An unknown name.
        UnavailableError: The machine has none.

    Example:
        >>> accelerator_for("GPU", Probe(device_counts={"mps": 0, "cuda": 2})).name
        'cuda'
    """
    if isinstance(name, Accelerator):
        found = name
    elif name is None or (isinstance(name, str) and name.lower() == "auto"):
        found = ACCELERATOR_REGISTRY.get(_automatic(probe))
    elif isinstance(name, str):
        found = ACCELERATOR_REGISTRY.get(_named(name, probe))
    else:
        raise ConfigTypeError(f'accelerator={name!r} should be a name, such as "auto", "cpu" or "cuda", or an Accelerator.')
    if probe.count_of(found) < 1:
        raise UnavailableError(
            f"accelerator={found.name!r}, but torch {torch.__version__} sees no such device. "
            f"Available are {listed(_available(probe))}: use one of them, or install a build of torch for the device."
        )
    return found


def _automatic(probe: Probe) -> str:
    for name in ("mps", "cuda"):
        if probe.count(name):
            return name
    if probe.current in ACCELERATOR_REGISTRY and probe.count(str(probe.current)):
        return str(probe.current)
    others = [name for name in ACCELERATOR_REGISTRY.available_accelerators() if name not in ("mps", "cuda", "cpu")]
    return next((name for name in others if probe.count(name)), "cpu")


def _named(name: str, probe: Probe) -> str:
    if name.lower() == "gpu":
        found = next((gpu for gpu in GPUS if probe.count(gpu)), None)
        if found is None:
            raise UnavailableError(
                f'accelerator="gpu", but torch {torch.__version__} sees no CUDA, ROCm, MPS or XPU device. '
                'Use accelerator="cpu" (or "auto"), or install a build of torch for the device.'
            )
        return found
    if ACCELERATOR_REGISTRY.find(name) is None:
        names = ["auto", "gpu", *ACCELERATOR_REGISTRY]
        raise ConfigError(f"accelerator={name!r} is not known.{closest(name, names)} Accepted are {listed(names)}.")
    return name.lower()


def _available(probe: Probe) -> list[str]:
    return [name for name in ACCELERATOR_REGISTRY.available_accelerators() if probe.count(name)]


def _ask(accelerator: Accelerator) -> int:
    return accelerator.auto_device_count() if accelerator.is_available() else 0


def _current_accelerator() -> str | None:
    if not torch.accelerator.is_available():
        return None
    device = torch.accelerator.current_accelerator()
    return device.type if device is not None else None
