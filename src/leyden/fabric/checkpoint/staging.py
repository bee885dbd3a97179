"""Staging: the copies an asynchronous save writes while training changes the originals.

Buffers are kept between saves, because fresh memory costs more than the copy (every page is zeroed first): from the second
save on nothing is allocated. On accelerators they are pinned, so that all copies run at once and one synchronisation ends
them. Tied tensors stay tied.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from leyden.core.failpoints import failpoint
from leyden.fabric.checkpoint.capture import Snapshot
from leyden.fabric.checkpoint.tree import mapped, memory_key


class StagingBuffers:
    """CPU memory for one save at a time, kept by the name of what was last in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._used: set[str] = set()
        self._copies: dict[tuple[Any, ...], Tensor] = {}
        self._devices: set[torch.device] = set()
        self.allocations = 0

    def stage(self, snapshot: Snapshot, data: dict[str, Tensor]) -> Snapshot:
        """Return the snapshot with copies of every tensor; `data`'s values (a plan's) are replaced in place.

        What the snapshot before held must have been written: its buffers are used again.
        """
        self._used.clear()
        self._copies.clear()
        for name, tensor in data.items():
            data[name] = self._copy(tensor, f"data/{name}")
        copied = {
            field: mapped(
                getattr(snapshot, field), lambda tensor, path, field=field: self._copy(tensor, f"{field}/{'/'.join(map(str, path))}")
            )
            for field in (("tree", "modules", "optimizers", "extra", "precision", "rank") if snapshot.writes_tree else ("rank",))
        }
        for name in self._buffers.keys() - self._used:
            del self._buffers[name]
        for device in self._devices:
            torch.accelerator.synchronize(device)
        self._copies.clear()
        self._devices.clear()
        failpoint("checkpoint.staged")
        # Tensors of the plan are in `data` now; the live ones must not outlive this call.
        return dataclasses.replace(snapshot, **copied, tensors={})

    def drop(self) -> None:
        """Give the memory back."""
        self._buffers.clear()

    def _copy(self, tensor: Tensor, name: str) -> Tensor:
        tensor = tensor.detach()
        key = memory_key(tensor)
        if key is None:
            return tensor.clone()
        if key not in self._copies:
            copy = self._buffer(name, tensor)
            copy.copy_(tensor, non_blocking=tensor.device.type != "cpu")
            if tensor.device.type != "cpu":
                self._devices.add(tensor.device)
            self._copies[key] = copy
        return self._copies[key]

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        self._used.add(name)
        buffer = self._buffers.get(name)
        needed = tensor.numel() * tensor.element_size()
        if buffer is None or buffer.nbytes != needed:
            pinned = tensor.device.type != "cpu" and torch.accelerator.is_available()
            buffer = torch.empty(needed, dtype=torch.uint8, pin_memory=pinned)
            self._buffers[name] = buffer
            self.allocations += 1
        return buffer.view(tensor.dtype).view(tensor.shape)
