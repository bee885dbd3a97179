"""`PyTorchProfiler`: operators and kernels, with `torch.profiler`; a table and a trace for Chrome.

A step is a training batch, with backward and update, or a call of `validation_step`, `test_step` or `predict_step`; the
sanity check does not count. The default schedule leaves one step alone, warms up in the second and records the next three, once.
`torch.profiler` is imported by torch itself, so this module costs nothing.
"""

import inspect
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerAction

from leyden.core.errors import ConfigError, UnavailableError, closest, listed
from leyden.trainer.profilers.profiler import Profiler

TRAINING_BATCH = "run_training_batch"
EVALUATION_STEPS = ("validation_step", "test_step", "predict_step")
SORT_KEYS = (
    "count", "cpu_memory_usage", "cpu_time", "cpu_time_total", "cuda_memory_usage", "cuda_time", "cuda_time_total", "device_memory_usage",
    "device_time", "device_time_total", "self_cpu_memory_usage", "self_cpu_time_total", "self_cuda_memory_usage", "self_cuda_time_total",
    "self_device_memory_usage", "self_device_time_total",
)  # fmt: skip
_WAIT, _WARMUP, _ACTIVE = 1, 1, 3


@final
class PyTorchProfiler(Profiler):
    """Time and memory by operator, on CPU and accelerator.

    Args:
        dirpath: Where reports and traces go; the trainer's `log_dir` if absent.
        filename: The report's name; None prints.
        group_by_input_shapes: Whether the table tells calls with other shapes apart.
        emit_nvtx: Whether to emit NVTX ranges for NVIDIA's tools instead (run with `nsys profile`); there is no report then.
        export_to_chrome: Whether to write a trace (`*.pt.trace.json`) for Chrome or TensorBoard.
        row_limit: Rows of the table; -1 shows all.
        sort_by_key: By what the table is sorted, such as `cpu_time_total` (the default; with a GPU `cuda_time_total`).
        record_module_names: Whether the trace shows the forward of each submodule by name.
        table_kwargs: More arguments for `EventList.table`.
        profiler_kwargs: Arguments for `torch.profiler.profile`: `schedule`, `activities`, `profile_memory`, `with_stack`, …

    Raises:
        ConfigError: An unknown argument or sort key, or a schedule that is none.

    Example:
        ```python
        schedule = torch.profiler.schedule(wait=10, warmup=2, active=5, repeat=1)
        Trainer(profiler=PyTorchProfiler(schedule=schedule, profile_memory=True))
        ```
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        emit_nvtx: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        export_to_chrome: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath, filename)
        _check(sort_by_key, profiler_kwargs)
        self._groups_shapes = group_by_input_shapes
        self._emits_nvtx = emit_nvtx
        self._exports = export_to_chrome
        self._row_limit = row_limit
        self._sort_by = sort_by_key or ("cuda_time_total" if torch.cuda.is_available() else "cpu_time_total")
        self._records_modules = record_module_names
        self._table_kwargs = {"max_name_column_width": 100, **(table_kwargs or {})}  # torch's 55 cut our actions' names
        self._kwargs = profiler_kwargs
        self._module: nn.Module | None = None
        self._open: list[AbstractContextManager[Any]] = []  # what runs, outermost first
        self._profile: Any = None
        self._names: ModuleNames | None = None
        self._records: dict[str, list[record_function]] = {}
        self._averages: Any = None
        self._has_trained = False

    # -- a run ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | Path | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        self._averages, self._has_trained = None, False

    def attach(self, module: nn.Module) -> None:
        self._module = module

    def start(self, action_name: str) -> None:
        if not self._open and self._stage is not None:
            self._begin()
        record = record_function(f"[pl][profile]{action_name}")
        record.__enter__()
        self._records.setdefault(action_name, []).append(record)

    def stop(self, action_name: str) -> None:
        if running := self._records.get(action_name):
            running.pop().__exit__(None, None, None)
        if self._profile is not None and self._is_step(action_name):
            self._profile.step()

    def _is_step(self, action_name: str) -> bool:
        if action_name == TRAINING_BATCH:
            self._has_trained = True
            return True
        is_evaluation = action_name.startswith("[Strategy]") and action_name.endswith(EVALUATION_STEPS)
        return is_evaluation and (self._has_trained or self._stage != "fit")  # what comes before in fit is the sanity check

    def _begin(self) -> None:
        if self._emits_nvtx:
            if not torch.cuda.is_available():
                raise UnavailableError("emit_nvtx=True needs a CUDA device, and torch sees none. Use PyTorchProfiler() without it.")
            contexts: list[Any] = [torch.cuda.profiler.profile(), torch.autograd.profiler.emit_nvtx()]
        else:
            defaults: dict[str, Any] = {
                "schedule": torch.profiler.schedule(wait=_WAIT, warmup=_WARMUP, active=_ACTIVE, repeat=1),
                "record_shapes": self._groups_shapes,
                "on_trace_ready": self._keep,
                "acc_events": True,  # there is one cycle; older versions of torch warn without it
            }
            self._profile = torch.profiler.profile(**{**defaults, **self._kwargs})
            contexts = [self._profile]
        if self._records_modules and self._module is not None:
            contexts.append(ModuleNames(self._module))
        for context in contexts:
            context.__enter__()
            self._open.append(context)

    def _keep(self, profile: Any) -> None:
        self._averages = profile.key_averages(group_by_input_shape=self._groups_shapes)
        if not self._exports:
            return
        if self.directory is None:
            warnings.warn("The PyTorchProfiler failed to export trace as `dirpath` is None and there is no log directory.", stacklevel=2)
            return
        torch.profiler.tensorboard_trace_handler(str(self.directory), self.file_stem())(profile)

    def _close(self) -> None:
        for records in self._records.values():
            while records:
                records.pop().__exit__(None, None, None)
        while self._open:
            self._open.pop().__exit__(None, None, None)
        self._profile = None

    def summary(self) -> str:
        was_profiling = self._profile is not None
        self._close()
        if self._averages is None:
            if was_profiling and "on_trace_ready" not in self._kwargs:
                warnings.warn(
                    f"The PyTorchProfiler recorded nothing: the run ended before its schedule began to record. By default it records steps "
                    f"{_WAIT + _WARMUP + 1} to {_WAIT + _WARMUP + _ACTIVE}; for shorter runs: "
                    "PyTorchProfiler(schedule=torch.profiler.schedule(wait=0, warmup=1, active=1)).",
                    stacklevel=2,
                )
            return ""
        table = self._averages.table(sort_by=self._sort_by, row_limit=self._row_limit, **self._table_kwargs)
        title = f"{self._stage.upper()} Profiler Report" if self._stage else "Profiler Report"
        return f"{title}\n\nProfile stats for: records\n{table}"

    def teardown(self, stage: str | None) -> None:
        self._close()
        self._module = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": [], "_profile": None, "_records": {}, "_averages": None, "_module": None}


@final
class ModuleNames:
    """While it is entered, the forward of each submodule is a named range of the trace.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, part in self._module.named_modules():
            if name and not isinstance(part, torch.jit.ScriptModule):
                self._watch(part, f"[pl][module]{type(part).__module__}.{type(part).__name__}: {name}")

    def _watch(self, part: nn.Module, label: str) -> None:
        running: list[record_function] = []

        def before(*_: Any) -> None:
            running.append(record_function(label))
            running[-1].__enter__()

        def after(*_: Any) -> None:
            if running:
                running.pop().__exit__(None, None, None)

        # `always_call`: a forward that raises ends its range too.
        self._handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after, always_call=True)]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _check(sort_by: str | None, kwargs: dict[str, Any]) -> None:
    if sort_by is not None and sort_by not in SORT_KEYS:
        raise ConfigError(f"Found sort_by_key: {sort_by}. Should be within {listed(SORT_KEYS)}.{closest(sort_by, SORT_KEYS)}")
    accepted = [name for name in inspect.signature(torch.profiler.profile).parameters if name != "self"]
    for name, value in kwargs.items():
        if name not in accepted:
            raise ConfigError(
                f"PyTorchProfiler got {name}={value!r}, which `torch.profiler.profile` does not take.{closest(name, accepted)} "
                f"Accepted: {listed(accepted)}."
            )
    if (schedule := kwargs.get("schedule")) is not None:
        _check_schedule(schedule)


def _check_schedule(schedule: Callable[[int], Any]) -> None:
    if not callable(schedule):
        raise ConfigError(f"Schedule should be a callable. Found: {schedule!r}. Use torch.profiler.schedule(wait=1, warmup=1, active=3).")
    if not isinstance(action := schedule(0), ProfilerAction):
        raise ConfigError(f"Schedule should return a `torch.profiler.ProfilerAction`. Found: {action!r}.")
