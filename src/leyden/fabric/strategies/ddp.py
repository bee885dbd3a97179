"""`DDPStrategy`: a copy of the model per process, gradients averaged by torch's `DistributedDataParallel`."""

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from leyden.core.errors import ConfigError, ConfigTypeError, StateError, closest, listed
from leyden.core.log import get_logger
from leyden.fabric.dispatch import Dispatch
from leyden.fabric.names import class_name
from leyden.fabric.precision.precision import Precision
from leyden.fabric.strategies.parallel import DEFAULT_TIMEOUT, ParallelStrategy, StartMethod

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.checkpoint.plugin import CheckpointIO
    from leyden.fabric.environments.environment import ClusterEnvironment

logger = get_logger(__name__)

COMM_HOOKS = {
    "fp16_compress": ("torch.distributed.algorithms.ddp_comm_hooks.default_hooks", "fp16_compress_hook"),
    "bf16_compress": ("torch.distributed.algorithms.ddp_comm_hooks.default_hooks", "bf16_compress_hook"),
    "powersgd": ("torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook", "powerSGD_hook"),
}
UNUSED_PARAMETERS = "Expected to have finished reduction in the prior iteration"
OURS = frozenset({"self", "module", "device_ids", "process_group"})  # set by this strategy, never by its keywords


class DDPStrategy(ParallelStrategy):
    """Replicates the module and averages gradients over ranks.

    Args:
        accelerator: The kind of device; `None` lets the plan fill it in.
        parallel_devices: The devices of this node; `None` lets the plan fill them in.
        cluster_environment: Who started the processes; `None` lets the plan detect it.
        checkpoint_io: A plug-in that stores checkpoints.
        precision: How numbers are kept; `None` lets the plan fill it in.
        process_group_backend: The `torch.distributed` backend; `None` takes the accelerator's.
        timeout: After which a collective that not all ranks reach is an error.
        start_method: `"popen"` (the script again), `"spawn"`, `"fork"` or `"forkserver"`.
        ddp_comm_state: State for the communication hook.
        ddp_comm_hook: A communication hook, or `"fp16_compress"`, `"bf16_compress"`, `"powersgd"`.
        ddp_comm_wrapper: Wraps the hook.
        **kwargs: Everything else `DistributedDataParallel` takes, such as `find_unused_parameters=True`.

    Raises:
        ConfigError: A keyword that `DistributedDataParallel` does not know.

    Example:
        >>> DDPStrategy(find_unused_parameters=True).supports_no_sync
        True
    """

    supports_no_sync: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        accelerator: "Accelerator | None" = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: "ClusterEnvironment | None" = None,
        checkpoint_io: "CheckpointIO | None" = None,
        precision: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        start_method: StartMethod = "popen",
        *,
        ddp_comm_state: object | None = None,
        ddp_comm_hook: Callable[..., Any] | str | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            checkpoint_io=checkpoint_io,
            precision=precision,
            process_group_backend=process_group_backend,
            timeout=timeout,
            start_method=start_method,
        )
        known = set(inspect.signature(DistributedDataParallel.__init__).parameters) - OURS
        for name in kwargs:
            if name not in known:
                raise ConfigError(
                    f"DDPStrategy({name}=…): unknown keyword.{closest(name, known)} DistributedDataParallel takes {listed(sorted(known))}."
                )
        self._ddp_kwargs = kwargs
        self._comm_state = ddp_comm_state
        self._comm_hook = _comm_hook(ddp_comm_hook)
        self._comm_wrapper = ddp_comm_wrapper

    def setup_module(self, module: nn.Module) -> nn.Module:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            logger.info("%s has no parameter that requires gradients, so it is not wrapped in DistributedDataParallel.", class_name(module))
            return module
        device_ids = None if self.root_device.type in ("cpu", "mps") else [self.root_device.index]
        # The default group is named, so that what reads signatures (LightningCLI) takes it for no keyword of ours either.
        wrapped = DistributedDataParallel(Dispatch(module), device_ids=device_ids, process_group=None, **self._ddp_kwargs)
        if self._comm_hook is not None:
            hook = self._comm_wrapper(self._comm_hook) if self._comm_wrapper else self._comm_hook
            wrapped.register_comm_hook(state=self._state_for_hook(), hook=hook)
        return wrapped

    def method_of(self, module: nn.Module, name: str) -> Callable[..., Any]:
        ddp = _inner_ddp(module)
        if ddp is None:
            return super().method_of(module, name)
        call = module if name == "forward" else ddp  # a compiled module compiles forward only

        def through_ddp(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(name, args, kwargs)
            except RuntimeError as error:
                if UNUSED_PARAMETERS not in str(error):
                    raise
                raise _with_names(error, ddp) from error

        return through_ddp

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        ddp = _inner_ddp(module)
        if not enabled or ddp is None:
            return nullcontext()
        return ddp.no_sync()

    def _state_for_hook(self) -> object | None:
        if self._comm_state is None and getattr(self._comm_hook, "__name__", "") == "powerSGD_hook":
            from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState  # numpy and more

            return PowerSGDState(process_group=None)
        return self._comm_state


def _comm_hook(hook: Callable[..., Any] | str | None) -> Callable[..., Any] | None:
    if not isinstance(hook, str):
        if hook is not None and not callable(hook):
            raise ConfigTypeError(f"ddp_comm_hook={hook!r}: expected a function, or one of {listed(COMM_HOOKS)}.")
        return hook
    if hook not in COMM_HOOKS:
        raise ConfigError(f"ddp_comm_hook={hook!r}: accepted names are {listed(COMM_HOOKS)}.{closest(hook, COMM_HOOKS)}")
    import importlib

    module, name = COMM_HOOKS[hook]
    return getattr(importlib.import_module(module), name)


def _inner_ddp(module: nn.Module) -> DistributedDataParallel | None:
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, DistributedDataParallel) else None


def _with_names(error: RuntimeError, ddp: DistributedDataParallel) -> StateError:
    """Return torch's unused-parameter error with the parameters' names."""
    text = str(error)
    listing = re.search(r"did not receive grad for rank \d+: ([\d ]+)", text)  # the rank is no index
    names = [name.removeprefix("module.") for name, parameter in ddp.module.named_parameters() if parameter.requires_grad]
    indices = [int(index) for index in listing[1].split()] if listing else []
    unused = [names[index] for index in indices if index < len(names)]
    which = f"These got no gradient: {', '.join(unused[:10])}. " if unused else ""
    return StateError(
        f"Some parameters were not used in producing the loss of the step before. {which}"
        'Use strategy="ddp_find_unused_parameters_true" (a pass over the graph per step), or freeze them with requires_grad_(False).'
    )
