"""`DeviceStatsMonitor`: what the device's allocator counts and how busy the processors are, into the loggers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from leyden.core.errors import ConfigError, UnavailableError
from leyden.trainer.callbacks.row_cadence import row_is_due
from leyden.trainer.core.callback import Callback

_STAT, _MEMORY = Path("/proc/stat"), Path("/proc/meminfo")


class DeviceStatsMonitor(Callback):
    """Logs the device's numbers before and after the batches that end with a row of training.

    The keys are `DeviceStatsMonitor.<hook>/<number>`. GPUs give what `torch.cuda.memory_stats` gives, such as
    `allocated_bytes.all.current`; processors `cpu_percent`, `cpu_vm_percent` and `cpu_swap_percent` of the whole machine.

    Args:
        cpu_stats: Whether the processors are looked at; `None`: where the run is on them.
        filter_keys: Only these numbers, by their names without the prefix; `None`: all.

    Raises:
        ConfigError: In `setup`, where there is no logger.

    Example:
        >>> DeviceStatsMonitor(filter_keys=["cpu_percent"]).filter_keys
        frozenset({'cpu_percent'})
    """

    def __init__(
        self,
        cpu_stats: bool | None = None,  # noqa: FBT001 - the documented signature
        filter_keys: Iterable[str] | None = None,
    ) -> None:
        self.cpu_stats = cpu_stats
        self.filter_keys = None if filter_keys is None else frozenset(filter_keys)
        self._processors: ProcessorStats | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that there is somebody to tell.

        Raises:
            ConfigError: There is no logger, or a key that the device does not have.
            UnavailableError: This system does not say how busy its processors are.
        """
        if not trainer.loggers:
            raise ConfigError(
                "Cannot use `DeviceStatsMonitor` callback with `Trainer(logger=False)`. Use logger=True, or leave the callback out."
            )
        is_cpu = trainer.strategy.root_device.type == "cpu"
        watches = is_cpu if self.cpu_stats is None else self.cpu_stats
        self._processors = ProcessorStats() if watches else None
        known = self._read(trainer)
        if self.filter_keys is not None and (unknown := self.filter_keys - known.keys()) and known:
            raise ConfigError(f"DeviceStatsMonitor(filter_keys=…): there is no {min(unknown)!r}. There are {', '.join(sorted(known))}.")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._log(trainer, "on_train_batch_start")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._log(trainer, "on_train_batch_end")

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log(trainer, "on_validation_batch_start")

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._log(trainer, "on_validation_batch_end")

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log(trainer, "on_test_batch_start")

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log(trainer, "on_test_batch_end")

    def _log(self, trainer: Any, hook: str) -> None:
        if not row_is_due(trainer) or not trainer.is_global_zero:
            return
        stats = self._read(trainer)
        if self.filter_keys is not None:
            stats = {key: value for key, value in stats.items() if key in self.filter_keys}
        for logger in trainer.loggers:
            prefix = f"{type(self).__qualname__}.{hook}{logger.group_separator}"
            logger.log_metrics({prefix + key: value for key, value in stats.items()}, step=trainer.run.clock.log_step)

    def _read(self, trainer: Any) -> dict[str, float]:
        device = trainer.strategy.root_device
        stats = {} if device.type == "cpu" else _allocator_stats(device)
        return stats if self._processors is None else stats | self._processors.read()


def _allocator_stats(device: torch.device) -> dict[str, float]:
    module = torch.get_device_module(device)
    if not hasattr(module, "memory_stats"):  # Apple's counts bytes only
        return {"allocated_bytes.all.current": float(module.current_allocated_memory())}
    return {key: float(value) for key, value in module.memory_stats(device).items()}


class ProcessorStats:
    """How busy the machine's processors and memory are, in percent, from `/proc`.

    Raises:
        UnavailableError: This system has no `/proc`.
    """

    def __init__(self) -> None:
        if not _STAT.exists() or not _MEMORY.exists():
            raise UnavailableError(
                "DeviceStatsMonitor reads how busy the processors are from /proc, which this system lacks. "
                "Use DeviceStatsMonitor(cpu_stats=False)."
            )
        self._times = processor_times(_STAT.read_text())

    def read(self) -> dict[str, float]:
        """Return the share of busy processor time since the last call, and of memory and swap in use now."""
        before, self._times = self._times, processor_times(_STAT.read_text())
        busy, total = (now - then for now, then in zip(self._times, before, strict=True))
        memory = memory_kilobytes(_MEMORY.read_text())
        return {
            "cpu_percent": _percent(busy, total),
            "cpu_vm_percent": _percent(memory["MemTotal"] - memory["MemAvailable"], memory["MemTotal"]),
            "cpu_swap_percent": _percent(memory["SwapTotal"] - memory["SwapFree"], memory["SwapTotal"]),
        }


def processor_times(text: str) -> tuple[int, int]:
    """Return busy and all processor time, in ticks, of the first line of `/proc/stat`.

    Example:
        >>> processor_times("cpu  10 0 5 80 5 0 0 0 0 0")
        (15, 100)
    """
    times = [int(number) for number in text.split("\n", 1)[0].split()[1:9]]  # guests' time is in user's already
    return sum(times) - times[3] - times[4], sum(times)  # idle, and waiting for a disk


def memory_kilobytes(text: str) -> Mapping[str, int]:
    r"""Return the entries of `/proc/meminfo`.

    Example:
        >>> memory_kilobytes("MemTotal:  8 kB\nSwapFree: 2 kB")
        {'MemTotal': 8, 'SwapFree': 2}
    """
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in text.splitlines()) if rest}


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0
