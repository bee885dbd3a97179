"""How fast a run is: batches, samples, items and FLOPs per second, and the share of the chip's peak that they are (MFU).

`Throughput` only counts: it is told the totals so far and keeps a window of them. `ThroughputMonitor` adds the peak of
Fabric's device and hands the numbers to its loggers.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.accelerators.accelerator import Accelerator
from leyden.fabric.accelerators.flops import chip_peak, has_tf32
from leyden.fabric.rank_zero import rank_zero_only, rank_zero_warn


class Throughput:
    """Rates over a sliding window of updates.

    Args:
        available_flops: The device's peak in FLOP/s; without it there is no `mfu`.
        world_size: The number of devices; with more than one there are rates for all of them too.
        window_size: Over how many updates rates are taken.
        separator: Between `device` and the name of a rate.
        using_sparse_model: Whether the model's products use the chip's structured sparsity, which raises the peak by
            `sparse_cuda_acceleration_factor`. Left open, the dense peak is used, with a warning.
        sparse_cuda_acceleration_factor: At least 1.

    Raises:
        ConfigError: A number is out of its range.

    Example:
        >>> throughput = Throughput(window_size=2)
        >>> throughput.update(time=1.0, batches=1, samples=8)
        >>> throughput.update(time=1.5, batches=2, samples=16)
        >>> throughput.compute()["device/samples_per_sec"]
        16.0
    """

    def __init__(
        self,
        available_flops: float | None = None,
        world_size: int = 1,
        window_size: int = 100,
        separator: str = "/",
        using_sparse_model: bool | None = None,  # noqa: FBT001 - the documented signature
        sparse_cuda_acceleration_factor: float = 2.0,
    ) -> None:
        if available_flops is not None and not available_flops > 0:
            raise ConfigError(f"available_flops={available_flops!r} should be the device's peak in FLOP/s, above 0, or None if unknown.")
        if world_size < 1:
            raise ConfigError(f"world_size={world_size} should be at least 1.")
        if window_size < 2:
            raise ConfigError(f"window_size={window_size} should be at least 2: a rate is the difference of two updates.")
        if sparse_cuda_acceleration_factor < 1:
            raise ConfigError(
                f"sparse_cuda_acceleration_factor={sparse_cuda_acceleration_factor}: a sparse acceleration factor cannot reduce the peak. "
                "Use 1.0 or more; NVIDIA's 2:4 sparsity is 2.0."
            )
        if available_flops is not None and using_sparse_model is None:
            rank_zero_warn(
                "MFU assumes dense model FLOPs. Pass using_sparse_model=False if that is right, or True for structured sparsity.",
                stacklevel=5,
            )
        if available_flops is not None and using_sparse_model:
            available_flops *= sparse_cuda_acceleration_factor
        self.available_flops = available_flops
        self.separator = separator
        self.world_size = world_size
        self._time: deque[float] = deque(maxlen=window_size)
        self._batches: deque[int] = deque(maxlen=window_size)
        self._samples: deque[int] = deque(maxlen=window_size)
        self._lengths: deque[int] = deque(maxlen=window_size)
        self._flops: deque[int] = deque(maxlen=window_size)

    def update(self, *, time: float, batches: int, samples: int, lengths: int | None = None, flops: int | None = None) -> None:
        """Tell the totals so far, on this device.

        Args:
            time: Seconds since the start; leave out what should not count, such as validation.
            batches: Batches seen.
            samples: Samples seen.
            lengths: Items seen, such as tokens: in every update or in none.
            flops: FLOPs since the last update (not in total): those of `measure_flops` times the batches.

        Raises:
            ConfigError: A total does not increase, or there are fewer samples than batches or items than samples.
            StateError: `lengths` came in some updates only.
        """
        if samples < batches:
            raise ConfigError(f"Expected samples ({samples}) to be greater or equal than batches ({batches})")
        if lengths is not None and lengths < samples:
            raise ConfigError(f"Expected lengths ({lengths}) to be greater or equal than samples ({samples})")
        if self._time and (lengths is not None) != bool(self._lengths):
            raise StateError(
                f"lengths={lengths} in this update, but {len(self._lengths)} of the last {len(self._time)} updates had some. "
                "Pass lengths in every update, or call reset() first."
            )
        totals: list[tuple[deque[Any], Any]] = [(self._time, time), (self._batches, batches), (self._samples, samples)]
        if lengths is not None:
            totals.append((self._lengths, lengths))
        for window, value in totals:  # all are checked before one is taken: a refused update leaves no trace
            if window and not value > window[-1]:
                raise ConfigError(f"Expected the value to increase, last: {window[-1]}, current: {value}")
        for window, value in totals:
            window.append(value)
        if flops is not None:
            self._flops.append(flops * self.world_size)

    def compute(self) -> dict[str, float]:
        """Return totals, and rates once the window is full."""
        if not self._time:
            return {}
        metrics: dict[str, float] = {"time": self._time[-1], "batches": self._batches[-1], "samples": self._samples[-1]}
        if self._lengths:
            metrics["lengths"] = self._lengths[-1]
        if len(self._time) < (self._time.maxlen or 0):
            return metrics
        seconds = self._time[-1] - self._time[0]  # above 0: times increase
        for name, window in (("batches", self._batches), ("samples", self._samples), ("items", self._lengths)):
            if len(window) == window.maxlen:
                self._add_rate(metrics, name, (window[-1] - window[0]) / seconds)
        if len(self._flops) == self._flops.maxlen:
            # The first update's FLOPs were spent before the window's first moment.
            per_second = (sum(self._flops) - self._flops[0]) / seconds / self.world_size
            self._add_rate(metrics, "flops", per_second)
            if self.available_flops:
                metrics[f"device{self.separator}mfu"] = per_second / self.available_flops
        return metrics

    def reset(self) -> None:
        """Forget everything."""
        for window in (self._time, self._batches, self._samples, self._lengths, self._flops):
            window.clear()

    def _add_rate(self, metrics: dict[str, float], name: str, per_device: float) -> None:
        metrics[f"device{self.separator}{name}_per_sec"] = per_device
        if self.world_size > 1:
            metrics[f"{name}_per_sec"] = per_device * self.world_size


class _Fabric(Protocol):
    """What `ThroughputMonitor` needs of Fabric."""

    @property
    def device(self) -> torch.device: ...
    @property
    def world_size(self) -> int: ...
    @property
    def strategy(self) -> Any: ...
    @property
    def accelerator(self) -> Accelerator: ...
    def log_dict(self, metrics: Any, step: int | None = None) -> None: ...


class ThroughputMonitor(Throughput):
    """`Throughput` of a Fabric: knows its devices' peak and logs to its loggers. Only rank 0 measures.

    Args:
        fabric: A launched Fabric.
        kwargs: `Throughput`'s other arguments.

    Example:
        ```python
        monitor = ThroughputMonitor(fabric, window_size=50)
        for index, batch in enumerate(loader, start=1):
            ...
            monitor.update(time=perf_counter() - start, batches=index, samples=index * batch_size)
            if index % 50 == 0:
                monitor.compute_and_log(step=index)
        ```
    """

    def __init__(self, fabric: _Fabric, **kwargs: Any) -> None:
        device, dtype = fabric.device, fabric.strategy.precision.compute_dtype
        peak = fabric.accelerator.peak_flops(device, dtype)  # a vendor's plug-in knows its own chips
        peak = get_available_flops(device, dtype) if peak is None else peak
        super().__init__(available_flops=peak, world_size=fabric.world_size, **kwargs)
        self._fabric = fabric
        self.step = -1

    def update(self, *, time: float, batches: int, samples: int, lengths: int | None = None, flops: int | None = None) -> None:
        """Tell the totals so far; as `Throughput.update`, on rank 0."""
        if rank_zero_only.rank == 0:
            super().update(time=time, batches=batches, samples=samples, lengths=lengths, flops=flops)

    def compute_and_log(self, step: int | None = None) -> dict[str, float]:
        """Compute, log, and return the numbers; on other ranks nothing.

        Args:
            step: Where they are drawn; counts up from 0 if absent.
        """
        self.step = self.step + 1 if step is None else step
        metrics = self.compute()
        if metrics and rank_zero_only.rank == 0:
            self._fabric.log_dict(metrics=metrics, step=self.step)
        return metrics


def measure_flops(model: nn.Module, forward_fn: Callable[[], Tensor], loss_fn: Callable[[Tensor], Tensor] | None = None) -> int:
    """Return the FLOPs of one forward pass, and of the backward pass too if `loss_fn` is given.

    Args:
        model: The model, on any device; on `meta` nothing is computed.
        forward_fn: Runs the forward pass and returns its output.
        loss_fn: Turns the output into a loss.

    Example:
        >>> with torch.device("meta"):
        ...     model, x = nn.Linear(32, 64), torch.randn(2, 32)
        >>> measure_flops(model, lambda: model(x)), measure_flops(model, lambda: model(x), lambda y: y.sum())
        (8192, 16384)
    """
    from torch.utils.flop_counter import FlopCounterMode  # reaches torch's compiler: half a second of everyone's import

    with FlopCounterMode(display=False) as counter:
        output = forward_fn()
        if loss_fn is not None:
            loss_fn(output).backward()
    return int(counter.get_total_flops())


def get_available_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak of `device` in FLOP/s for `dtype`; `None` for a CPU, and with a warning for a chip that is not in the table."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "xpu":
        name = torch.xpu.get_device_name(device)
    else:
        return None
    peak = chip_peak(name, dtype, is_tf32=device.type == "cuda" and has_tf32())
    if peak is None:
        rank_zero_warn(f"The peak of {name!r} for {dtype} is not known, so there is no MFU. Pass Throughput(available_flops=…) yourself.")
        return None
    return peak
