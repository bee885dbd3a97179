"""`AveragedTensors`: a second copy of a module's weights, shard by shard, and the arithmetic between the two.

Only this rank's part of a sharded tensor is copied and averaged: an average of shards is a shard of the average, so
nothing is gathered.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from leyden.fabric.checkpoint.saved import MemoryTensor, fill, is_dtensor
from leyden.fabric.checkpoint.tree import plain_name

MultiAverage = Callable[[list[Tensor], list[Tensor], Tensor | int], Any]
"""Changes the first list in place: averages, current values, how many were averaged before."""


@final
class AveragedTensors:
    """Averaged copies of a module's parameters, and of its buffers.

    Args:
        module: The module, after it was placed or sharded.
        device: Where the copies lie; `None`: beside the originals.
        use_buffers: Whether buffers are averaged too.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> average = AveragedTensors(module, device=None, use_buffers=True)
        >>> average.update(module, equal_average), average.count
        (None, 1)
    """

    def __init__(self, module: nn.Module, *, device: torch.device | None, use_buffers: bool) -> None:
        self._use_buffers = use_buffers
        self.tensors = {name: live.to(device or live.device, copy=True) for name, live in self._live(module)}
        self.count = 0

    @torch.no_grad()
    def update(self, module: nn.Module, function: MultiAverage) -> None:
        """Take the module's present values into the average; the first ones are the average."""
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, live in self._live(module):
            average = self.tensors[name]
            if self.count == 0 or not (average.is_floating_point() or average.is_complex()):  # counters have no mean
                average.copy_(live, non_blocking=True)
            else:
                averages.append(average)
                values.append(live.to(average.device, non_blocking=True))
        for same_averages, same_values in _by_kind(averages, values):
            function(same_averages, same_values, self.count)
        self.count += 1

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's values with the copies, one tensor at a time."""
        for name, live in self._live(module):
            kept = live.clone()
            live.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    def put_into(self, state: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
        """Return the module's state dict with the copies in place of the module's values; sharded as they are."""
        first = _first_names(module)
        replaced = {}
        for key, value in state.items():
            name = plain_name(key)
            copy = self.tensors.get(first.get(name, name))
            replaced[key] = value if copy is None or not isinstance(value, Tensor) else _like(value, copy)
        return replaced

    def _live(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield this rank's part of each parameter and buffer, ties once."""
        for child in module.modules():
            reshard: Any = getattr(child, "reshard", None)
            if reshard is not None:  # FSDP's: a root keeps whole parameters after a forward without a backward
                reshard()
        for name, value in module.named_parameters():
            yield plain_name(name), _local(value)
        if self._use_buffers:
            for name, value in module.named_buffers():
                yield plain_name(name), _local(value)


@final
class StateHolder(nn.Module):
    """A state dict that goes into a checkpoint as a module does: where modules are stored in parts, in parts.

    Args:
        state: The state dict.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self._state = state

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # pyrefly: ignore[bad-override] - its options mean nothing here
        return self._state


def equal_average(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
    """Let every value weigh the same."""
    torch._foreach_lerp_(averages, values, 1.0 / (int(count) + 1))


def exponential_average(decay: float) -> MultiAverage:
    """Return what keeps the part `decay` of the average at each update."""

    def average(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    return average


def one_by_one(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> MultiAverage:
    """Return a function of lists for `function(average, value, count)`, which returns the new average."""

    def average(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        for mean, value in zip(averages, values, strict=True):
            mean.copy_(function(mean, value, torch.as_tensor(count, device=mean.device)))

    return average


@torch.no_grad()
def load_live(module: nn.Module, live: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Copy saved tensors, whole ones, into the module's own, which may be shards.

    Args:
        module: The module.
        live: Its state dict.
        saved: Names without wrappers' prefixes → tensors.
    """
    for key, target in live.items():
        value = saved.get(plain_name(key))
        if not isinstance(target, Tensor) or not isinstance(value, Tensor):
            continue
        if is_dtensor(value):
            target.copy_(value)
        else:
            fill(target, MemoryTensor(value))


def _by_kind(averages: list[Tensor], values: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield the lists in parts of one device and dtype each: the fast path of torch's functions of lists."""
    parts: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for average, value in zip(averages, values, strict=True):
        means, news = parts.setdefault((average.device, average.dtype), ([], []))
        means.append(average)
        news.append(value)
    yield from parts.values()


def _local(value: Any) -> Tensor:
    tensor = value.detach()
    return tensor.to_local() if is_dtensor(tensor) else tensor


def _like(value: Any, copy: Tensor) -> Tensor:
    """Return `copy` as the module's state dict has it: with the layout of a sharded `value`."""
    if not is_dtensor(value):
        return copy
    whole = torch.empty_like(value.detach())
    whole.to_local().copy_(copy)  # pyrefly: ignore[missing-attribute] - a DTensor
    return whole


def _first_names(module: nn.Module) -> dict[str, str]:
    """Return each name of a tied parameter or buffer → the first one."""
    first: dict[int, str] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {plain_name(name): first.setdefault(id(value), plain_name(name)) for name, value in named}
