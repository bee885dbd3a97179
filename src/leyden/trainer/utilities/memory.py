"""Out of memory: how to know it and what to do."""

import gc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leyden.fabric.trees import map_tensors


def is_oom_error(exception: BaseException) -> bool:
    """Return whether memory of a device, or of the machine, was short."""
    return is_cuda_out_of_memory(exception) or is_cudnn_snafu(exception) or is_out_of_cpu_memory(exception)


def is_cuda_out_of_memory(exception: BaseException) -> bool:
    """Return whether a device's memory was short."""
    return isinstance(exception, torch.OutOfMemoryError) or (isinstance(exception, RuntimeError) and "out of memory" in str(exception))


def is_cudnn_snafu(exception: BaseException) -> bool:
    """Return whether cuDNN reports a lack of memory as an unsupported operation."""
    return isinstance(exception, RuntimeError) and "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED." in str(exception)


def is_out_of_cpu_memory(exception: BaseException) -> bool:
    """Return whether the machine's memory was short."""
    if isinstance(exception, MemoryError):
        return True
    return isinstance(exception, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(exception)


def garbage_collection_cuda() -> None:
    """Free what nobody uses, and give the device's cached memory back."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def recursive_detach(in_dict: Any, to_cpu: bool = False) -> Any:  # noqa: FBT001, FBT002 - the documented signature
    """Return a nested collection with all tensors detached.

    Args:
        in_dict: Mappings, lists, tuples, dataclasses and tensors in them.
        to_cpu: Whether to move them to the CPU too.
    """
    return map_tensors(in_dict, lambda tensor: tensor.detach().cpu() if to_cpu else tensor.detach())


def get_model_size_mb(model: nn.Module) -> float:
    """Return the megabytes that parameters and buffers of a model take.

    Example:
        >>> get_model_size_mb(nn.Linear(500, 500, bias=False))
        1.0
    """
    tensors: Mapping[int, Tensor] = {id(tensor): tensor for source in (model.parameters(), model.buffers()) for tensor in source}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6
