"""What Leyden asks of DeepSpeed's engine: its import, its start, whole weights out of their parts and back.

DeepSpeed costs seconds to import and looks at the machine when it is, so everything here imports it inside functions.
"""

import argparse
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core import settings
from leyden.core.errors import ConfigError, MissingDependencyError, StateError, UnavailableError, UnsupportedError, listed
from leyden.core.log import get_logger
from leyden.core.optional import installed
from leyden.fabric.names import class_name
from leyden.fabric.strategies.deepspeed_config import stage_of

OLDEST = (0, 19)
INSTALL = 'DS_BUILD_OPS=0 pip install --no-build-isolation "leyden[deepspeed]"'
BEFORE = "pip install setuptools wheel ninja psutil py-cpuinfo"
_SHOWN = 10
_SHARED_MEMORY_OP = "deepspeed_shm_comm"
_SHARED_WITH = "leyden_group"  # on DeepSpeed's backend: the group it was made for

logger = get_logger(__name__)


def require_deepspeed() -> None:
    """Refuse to go on without DeepSpeed, without importing it.

    Raises:
        MissingDependencyError: It is not installed, or too old.
    """
    if not installed("deepspeed"):
        raise MissingDependencyError(
            f"DeepSpeedStrategy needs the package 'deepspeed', which is not installed. Install it with: {BEFORE}; {INSTALL}",
            name="deepspeed",
        )
    version = metadata.version("deepspeed")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise MissingDependencyError(
            f"DeepSpeedStrategy needs deepspeed>={'.'.join(map(str, OLDEST))}, but {version} is installed. Renew it with: {INSTALL}",
            name="deepspeed",
        )


def import_deepspeed(device: torch.device, logging_level: int = logging.WARNING) -> Any:
    """Return the module `deepspeed`, made for the kind of `device`.

    Raises:
        MissingDependencyError: It is not installed, too old, or cannot be imported.
        StateError: It was imported for another kind of device before.
    """
    require_deepspeed()
    environ = settings.environment()
    if device.type == "cpu" and "deepspeed" not in sys.modules:
        environ.setdefault("DS_ACCELERATOR", "cpu")  # else it may find a GPU, or insist on Intel's extension
    with quiet():
        try:
            deepspeed: Any = importlib.import_module("deepspeed")  # seconds, and it looks at the machine
        except ImportError as error:
            raise MissingDependencyError(
                f"DeepSpeedStrategy needs the package 'deepspeed', which is installed but cannot be imported: {error}. "
                f"Mend it with: {INSTALL}",
                name=error.name or "deepspeed",
            ) from error
    made_for = deepspeed.accelerator.get_accelerator().device_name()
    if made_for.partition(":")[0] != device.type:
        raise StateError(
            f"deepspeed was imported for {made_for!r} before, or DS_ACCELERATOR={environ.get('DS_ACCELERATOR')!r} says so, but this run is "
            f"on {device.type!r}. Set DS_ACCELERATOR={device.type} before the process starts, and import deepspeed after fabric.launch()."
        )
    logging.getLogger("DeepSpeed").setLevel(logging_level)
    return deepspeed


def share_group(deepspeed: Any, backend: str, timeout: timedelta, local_rank: int) -> None:
    """Let DeepSpeed use the process group that exists.

    On CPUs it would first compile collectives of its own, for minutes and with a compiler that may not be there; gloo's do.
    """
    world = torch.distributed.group.WORLD
    if getattr(deepspeed.comm.comm.cdb, _SHARED_WITH, world) is not world:
        forget_group()
    operations = deepspeed.ops.__compatible_ops__
    before = operations.get(_SHARED_MEMORY_OP)
    operations[_SHARED_MEMORY_OP] = False
    try:
        with launcher_variables(local_rank):
            deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=timeout, verbose=False)
    finally:
        operations[_SHARED_MEMORY_OP] = before
    backend_object = deepspeed.comm.comm.cdb
    setattr(backend_object, _SHARED_WITH, world)
    for attribute, name in (("all_gather_function", "all_gather_single"), ("reduce_scatter_function", "reduce_scatter_single")):
        if hasattr(torch.distributed, name):  # torch 2.13 renames them, and warns at every call by the old names
            setattr(backend_object, attribute, getattr(torch.distributed, name))


def forget_group() -> None:
    """Let DeepSpeed forget a process group that was destroyed; else its next engine would use it."""
    module = sys.modules.get("deepspeed.comm.comm")
    groups = sys.modules.get("deepspeed.utils.groups")
    if module is not None and groups is not None:
        cast("Any", module).cdb = None
        cast("Any", groups)._release_process_group_references(None)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what DeepSpeed's imports say of themselves, some of them made as late as the engine's start.

    Its files when Python compiles them for the first time, and what torch means to drop. No code of the user's runs inside.
    """
    with warnings.catch_warnings():
        for category in (SyntaxWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def launcher_variables(local_rank: int) -> Iterator[None]:
    """Set `LOCAL_RANK` inside, which DeepSpeed reads; left behind it would tell a second Fabric that a launcher is at work."""
    environ = settings.environment()
    before = environ.get("LOCAL_RANK")
    environ["LOCAL_RANK"] = str(local_rank)
    try:
        yield
    finally:
        if before is None:
            environ.pop("LOCAL_RANK", None)
        else:
            environ["LOCAL_RANK"] = before


class EngineRoot(nn.Module):
    """What the engine wraps: the user's module under its own names, whose forward runs any of its methods.

    DeepSpeed prepares backward in the engine's forward, so a marked method goes through it too. Parameters, buffers and
    children are shared with the user's module, not held as one child: names in DeepSpeed's files are the user's.

    Args:
        module: The user's module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        own = self.__dict__
        own["target"] = module
        own.update({name: module.__dict__[name] for name in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")})
        own["training"] = module.training

    def forward(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `module.<name>(*args, **kwargs)`; `forward` goes through the module's own hooks."""
        target = self.__dict__["target"]
        return target(*args, **kwargs) if name == "forward" else getattr(target, name)(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["target"].state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["target"].load_state_dict(*args, **kwargs)


def start_engine(
    deepspeed: Any,
    module: nn.Module,
    optimizer: Optimizer | None,
    scheduler: Any,
    *,
    config: Mapping[str, Any],
    device: torch.device,
    local_rank: int,
) -> Any:
    """Return DeepSpeed's engine for a module, and for training its optimizer and scheduler.

    Raises:
        UnavailableError: The device cannot compute in the precision.
    """
    accelerator = deepspeed.accelerator.get_accelerator()
    if config.get("fp16", {}).get("enabled") and not accelerator.is_fp16_supported():
        raise UnavailableError(f"DeepSpeed does not compute in float16 on {accelerator.device_name()!r}. Use precision='bf16-mixed'.")
    if "activation_checkpointing" in config:
        options = config["activation_checkpointing"]
        deepspeed.checkpointing.configure(
            mpu_=None,
            partition_activations=options.get("partition_activations"),
            contiguous_checkpointing=options.get("contiguous_memory_optimization"),
            checkpoint_in_cpu=options.get("cpu_checkpointing"),
            profile=options.get("profile"),
        )
    with quiet(), launcher_variables(local_rank):
        engine, _, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=local_rank if device.index is None else device.index),
            model=EngineRoot(module),
            model_parameters=[parameter for parameter in module.parameters() if parameter.requires_grad],
            optimizer=optimizer,
            lr_scheduler=scheduler,
            config=dict(config),
            dist_init_required=False,
        )
    return engine


def clear_gradients_through(engine: Any, optimizer: Optimizer) -> None:
    """Make `optimizer.zero_grad()` clear the gradients that the engine holds: the optimizer's own parameters are flat copies."""
    if engine.optimizer is optimizer:
        return

    def zero_grad(self: Optimizer, set_to_none: bool = True) -> None:
        engine.optimizer.zero_grad()
        engine.zero_grad()
        if stage_of(engine.config) in (1, 2):
            _forget_reduced_gradients(engine.optimizer)

    optimizer.__dict__["zero_grad"] = MethodType(zero_grad, optimizer)  # of this one object


def _forget_reduced_gradients(zero: Any) -> None:
    """Let stages 1 and 2 begin to accumulate anew, as they do after an overflow: their `zero_grad` keeps what was reduced."""
    zero.micro_step_id = -1
    for table in (zero.averaged_gradients, zero.all_grad_tensors):
        table.update(dict.fromkeys(table))
    if zero.cpu_offload:
        zero._offload_accumulated_param_ids = set()
        zero.reset_cpu_buffers()


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A module that an engine runs, and the optimizer it steps; `None` for inference."""

    engine: Any
    module: nn.Module
    optimizer: Optimizer | None


class Engines:
    """The engines of one strategy, found by what the user holds: the module, or its optimizer."""

    def __init__(self) -> None:
        self._started: list[Started] = []
        self.is_at_work = False  # while an engine itself reads or writes state dicts

    def add(self, engine: Any, module: nn.Module, optimizer: Optimizer | None) -> Started:
        """Keep a new engine and watch its module's state."""
        watch_states(engine, module, lambda: self.is_at_work)
        started = Started(engine=engine, module=module, optimizer=optimizer)
        self._started.append(started)
        return started

    def close(self, *, has_group: bool) -> None:
        """Destroy all engines. Idempotent. Without a process group they cannot be, and are let go."""
        while self._started:
            engine = self._started.pop().engine
            if has_group:
                engine.destroy()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let an engine read and write state dicts inside."""
        self.is_at_work = True
        try:
            yield
        finally:
            self.is_at_work = False

    def has(self, module: nn.Module) -> bool:
        """Return whether an engine runs the module."""
        return any(started.module is module for started in self._started)

    def by_module(self, module: nn.Module, key: str = "model") -> Started:
        """Return what runs a module that lies under `key` in a state.

        Raises:
            ConfigError: It was not set up.
        """
        for started in self._started:
            if started.module is module:
                return started
        raise ConfigError(
            f"state[{key!r}] was not set up, so DeepSpeed does not know it: model, optimizer = fabric.setup(model, optimizer). "
            "Keep other models as values: {'ema': ema.state_dict()}."
        )

    def by_optimizer(self, optimizer: Optimizer) -> Started:
        """Return what steps an optimizer.

        Raises:
            StateError: It was not set up.
        """
        for started in self._started:
            if started.optimizer is optimizer:
                return started
        raise StateError("this optimizer was not set up. DeepSpeed needs model, optimizer = fabric.setup(model, optimizer).")

    def for_training(self, engine: Any | None) -> Any:
        """Return the engine that backward goes through: the given one, or the only one.

        Raises:
            ConfigError: None was given, and there are several.
            StateError: It is for inference, or there is none.
        """
        trained = [started.engine for started in self._started if started.optimizer is not None]
        if engine is None and len(trained) > 1:
            raise ConfigError(f"{len(trained)} models were set up for training; say which one: fabric.backward(loss, model=model).")
        if not trained or (engine is not None and all(engine is not other for other in trained)):
            raise StateError("this model was not set up for training. Set it up with its optimizer: fabric.setup(model, optimizer).")
        return trained[0] if engine is None else engine

    def one_of(self, objects: Mapping[str, Any], verb: str) -> Started:
        """Return what runs the one module among the objects of a state, whose optimizer the others must be.

        Raises:
            ConfigError: No module, several, one that was not set up, or an optimizer of another.
        """
        modules = {key: value for key, value in objects.items() if isinstance(value, nn.Module)}
        if len(modules) != 1:
            raise ConfigError(
                f"DeepSpeed can {verb} exactly one model at a time, but state holds {listed(modules) if modules else 'none'}. "
                "Keep others as values: {'ema': ema.state_dict()}, or in a checkpoint of their own."
            )
        key, module = next(iter(modules.items()))
        started = self.by_module(module, key)
        other = [key for key, value in objects.items() if isinstance(value, Optimizer) and value is not started.optimizer]
        if other:
            raise ConfigError(f"state[{other[0]!r}] is not the optimizer that the model was set up with. Pass that one, or leave it out.")
        return started

    def refuse_optimizers(self, path: Any, state: Mapping[str, Any]) -> None:
        """Refuse to load an optimizer's state that another strategy saved by parameter: an engine's has flat parts of its own.

        Raises:
            UnsupportedError: `state` holds an engine's optimizer.
        """
        for key, value in state.items():
            started = next((started for started in self._started if started.optimizer is value), None)
            if value is not None and started is not None and started.engine.optimizer is not value:
                raise UnsupportedError(
                    f"state[{key!r}]: {path} was not written by DeepSpeed, whose ZeRO optimizers only load what they saved themselves. "
                    f"Load the weights alone: leave {key!r} out of state."
                )


def watch_states(engine: Any, module: nn.Module, is_engine_at_work: Callable[[], bool]) -> None:
    """Keep a module's own `state_dict` and `load_state_dict` right while the engine holds its weights.

    The engine steps on copies of its own, so weights loaded past it would be undone by the next step: they are copied.
    At stage 3 the module holds placeholders, which are neither saved nor loaded.
    """
    is_in_parts = stage_of(engine.config) == 3

    def refuse(*_: Any) -> None:
        if is_in_parts and not is_engine_at_work():
            raise StateError(
                "ZeRO stage 3 keeps this module in parts, each rank its own. Save it with fabric.save(path, {'model': model}) and load it "
                "with fabric.load, on every rank."
            )

    def refresh(*_: Any) -> None:
        if not is_in_parts:
            refresh_masters(engine)

    module.register_state_dict_pre_hook(refuse)
    module.register_load_state_dict_pre_hook(refuse)
    module.register_load_state_dict_post_hook(refresh)


def refresh_masters(engine: Any) -> None:
    """Copy the module's weights into those that the engine steps on."""
    refresh = getattr(engine.optimizer, "refresh_fp32_params", None)
    if refresh is not None:
        refresh()


def whole_state_dict(module: nn.Module) -> dict[str, Any]:
    """Return a stage 3 module's state dict, whole and on the CPU, on every rank; every rank calls it."""
    state: dict[str, Any] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        own: dict[str, Any] = {}
        with _gathered(list(part.parameters(recurse=False)), modifier_rank=None):
            part._save_to_state_dict(own, _prefix(name), keep_vars=False)
            state.update({key: value.cpu().clone() if isinstance(value, Tensor) else value for key, value in own.items()})
    return state


def load_whole_state_dict(engine: Any, module: nn.Module, state: Mapping[str, Any], *, is_strict: bool) -> None:
    """Load a whole state dict into a stage 3 module; every rank calls it with the same one.

    Raises:
        ConfigError: Names or shapes do not fit; nothing was changed.
    """
    live = whole_shapes(module)
    found = {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}
    check_fit(live, found, class_name(module), is_strict=is_strict)
    fitting = {name: value for name, value in state.items() if name in live and found[name] == live[name]}
    for name, part in module.named_modules(remove_duplicate=False):
        # The whole parameters of one part at a time; leaving cuts them up again, by what rank 0 holds.
        with _gathered(list(part.parameters(recurse=False)), modifier_rank=0):
            part._load_from_state_dict(fitting, _prefix(name), {}, False, [], [], [])  # noqa: FBT003 - torch's signature
    refresh_masters(engine)


def whole_shapes(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """Return the names of a module's state dict with the shapes of the whole tensors; `None` for what is no tensor."""
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        own: dict[str, Any] = {}
        part._save_to_state_dict(own, _prefix(name), keep_vars=True)
        for key, value in own.items():
            shapes[key] = tuple(getattr(value, "ds_shape", value.shape)) if isinstance(value, Tensor) else None
    return shapes


def check_fit(live: Mapping[str, Any], found: Mapping[str, Any], what: str, *, is_strict: bool) -> None:
    """Refuse a state dict of other names or shapes.

    Raises:
        ConfigError: Names what is missing, unexpected or of another shape.
    """
    missing = [name for name in live if name not in found]
    unexpected = [name for name in found if name not in live]
    other = [f"{name} {found[name]} for {live[name]}" for name in live if name in found and found[name] != live[name]]
    if is_strict and (missing or unexpected or other):
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", other))
        told = "; ".join(f"{title}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}" for title, names in parts if names)
        raise ConfigError(
            f"{what} does not fit the checkpoint; nothing was changed. {told}. Build it as it was saved, or pass strict=False."
        )


def _gathered(parameters: list[nn.Parameter], *, modifier_rank: int | None) -> AbstractContextManager[Any]:
    module: Any = sys.modules["deepspeed"].runtime.zero.partition_parameters  # there is an engine, so it is imported
    return module.GatheredParameters(parameters, modifier_rank=modifier_rank)


def _prefix(name: str) -> str:
    return f"{name}." if name else ""
