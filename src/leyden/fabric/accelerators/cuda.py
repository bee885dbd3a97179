"""`CUDAAccelerator`: NVIDIA GPUs, and AMD's under ROCm builds of torch, which speak the same names.

Importing this module asks torch to count GPUs through NVML: counting them through the CUDA runtime would initialise it,
and a process that has initialised CUDA cannot be forked. It is the only effect of importing fabric.
"""

import logging

import torch

from leyden.core import settings
from leyden.core.errors import ConfigError, UnavailableError
from leyden.fabric.accelerators.flops import chip_peak, has_tf32
from leyden.fabric.accelerators.indexed import IndexedAccelerator

settings.environment().setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

_logger = logging.getLogger(__name__)
_AMPERE = (8, 0)  # the first compute capability with TF32 tensor cores


class CUDAAccelerator(IndexedAccelerator):
    """The GPUs behind `torch.cuda`."""

    device_type = "cuda"
    collective_backend = "nccl"

    def setup_device(self, device: torch.device) -> None:
        """Make `device` current; say once where float32 products leave its tensor cores idle.

        Raises:
            ConfigError: It is not a CUDA device.
        """
        super().setup_device(device)
        if torch.cuda.get_device_capability(device) >= _AMPERE and not has_tf32():
            _logger.info(
                "%s has tensor cores that float32 products do not use now. torch.set_float32_matmul_precision('high') "
                "makes them several times faster for a little precision.",
                torch.cuda.get_device_name(device),
            )

    def peak_flops(self, device: torch.device, dtype: torch.dtype) -> float | None:
        """Return the chip's peak from the table; for float32 that of TF32 where products use it."""
        return chip_peak(torch.cuda.get_device_name(device), dtype, is_tf32=has_tf32())


def find_usable_cuda_devices(num_devices: int = -1) -> list[int]:
    """Return ids of GPUs on which a tensor can be made now: not taken by someone in exclusive mode.

    Args:
        num_devices: How many; -1 returns all that are usable, also if there are none.

    Raises:
        ConfigError: This machine has fewer.
        UnavailableError: It has them, but too many are occupied.

    Example:
        >>> find_usable_cuda_devices(0)
        []
    """
    if num_devices == 0:
        return []
    present = CUDAAccelerator.auto_device_count()
    if num_devices > present:
        raise ConfigError(
            f"num_devices={num_devices} usable GPUs were asked for, but this machine has {present}. Ask for at most that many."
        )
    usable: list[int] = []
    occupied: list[int] = []
    for index in range(present):
        (usable if _is_usable(index) else occupied).append(index)
        if len(usable) == num_devices:
            break
    if len(usable) < num_devices:
        raise UnavailableError(
            f"num_devices={num_devices} usable GPUs were asked for, but only {usable or 'none'} can be used: {occupied} are occupied "
            "(usually by another process in exclusive mode; `nvidia-smi` names it)."
        )
    return usable


def _is_usable(index: int) -> bool:
    try:
        torch.tensor(0.0, device=torch.device("cuda", index))
    except RuntimeError:
        return False
    return True
