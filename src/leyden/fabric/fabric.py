"""`Fabric`: the process's view of devices. It wires and delegates; every rule lives in the part that it is about.

Arguments become a `Plan` (`arguments.py`), the plan holds the strategy, `launch` starts the other ranks and joins them,
`setup` wraps. Long because it is the documented facade of the field, each member with its semantics and errors.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core import settings
from leyden.core.errors import ConfigError, ConfigTypeError, StateError, UnsupportedError, listed
from leyden.fabric import arguments, checks, rng
from leyden.fabric.compilation import as_policy, take_apart
from leyden.fabric.launch import lifeline
from leyden.fabric.launch.signals import DEFAULT_SIGNALS, Stop, StopRequests
from leyden.fabric.launch.store import MemoryStore
from leyden.fabric.loading.loader import prepare_loader
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.trees import map_tensors
from leyden.fabric.wrappers import FabricModule, FabricOptimizer, devices_of, unwrap

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.compilation import CompilePolicy
    from leyden.fabric.loggers.logger import Logger
    from leyden.fabric.mesh import Mesh

NOT_LAUNCHED = "To use Fabric with more than one device, you must call `.launch()` or use the CLI: `leyden fabric run --help`."
CALLBACK_GROUPS = ("leyden.fabric.callbacks", "lightning.fabric.callbacks_factory")


class Fabric:  # noqa: SIZE002, SIZE003 - the facade whose members the field knows
    """Scale a plain PyTorch loop with five lines: devices, precision, strategy, data order, checkpoints.

    The constructor parses, resolves and checks; it starts no process and touches no device.

    Args:
        accelerator: `"auto"`, `"cpu"`, `"gpu"`, `"cuda"`, `"mps"`, `"xpu"`, a registered name, or an `Accelerator`.
        strategy: `"auto"`, a registered name such as `"ddp"` or `"fsdp"`, or a `Strategy`.
        devices: Per node: `"auto"`, a count, `-1` for all, or ids as a list or a string.
        num_nodes: Number of machines, at least 1.
        precision: `"32-true"`, `"16-mixed"`, `"bf16-mixed"`, `"bf16-true"`, `"16-true"`, `"64-true"`, or a registered name.
        plugins: One or a list of `Precision`, `CheckpointIO`, `ClusterEnvironment`.
        callbacks: Objects whose methods `call` runs.
        loggers: One or a list; `logger` is the first.
        compile: `None`, `"blocks"`, `"model"` or a `CompilePolicy`.

    Raises:
        ConfigError: A value that cannot be right, with what is accepted.

    Example:
        >>> fabric = Fabric(accelerator="cpu", devices=1)
        >>> model, optimizer = fabric.setup(net := nn.Linear(2, 1), torch.optim.SGD(net.parameters(), lr=0.1))
        >>> fabric.backward(model(torch.ones(4, 2)).mean())
        >>> optimizer.step()
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        *,
        accelerator: "str | Accelerator | None" = "auto",
        strategy: str | Strategy = "auto",
        devices: list[int] | str | int = "auto",
        num_nodes: int = 1,
        precision: str | int | None = None,
        plugins: Any = None,
        callbacks: Any = None,
        loggers: "Logger | list[Logger] | None" = None,
        compile: "str | CompilePolicy | None" = None,
    ) -> None:
        lifeline.attach()  # from here on a started rank goes with its launcher, and tells it what went wrong
        environ = settings.environment()
        raw = arguments.RawArguments(
            accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=num_nodes, precision=precision, plugins=plugins
        )
        self._plan = arguments.resolve(raw, environ, arguments.probe_machine())
        self._strategy = self._plan.strategy
        self._compile = as_policy(compile)
        self._callbacks = [*_as_list(callbacks), *_discovered_callbacks()]
        self._loggers: list[Logger] = _as_list(loggers)
        checks.check_loggers(self._loggers)
        self._models: list[FabricModule] = []
        self._launched = False
        self._store: Any = None
        self._stops: StopRequests | None = None
        self._cli_used = bool(settings.get("LEYDEN_FABRIC_CLI_USED", environ))
        if type(self).run is not Fabric.run:
            if self._cli_used:
                raise ConfigTypeError(
                    "Overriding `Fabric.run()` and launching from the CLI is not allowed. Rename the method, or start it as a plain script."
                )
            self.__dict__["run"] = partial(self._launch_run, self.run)  # calling it launches first
        if self._cli_used:
            self._join()

    # -- where this process stands -------------------------------------------------------------------------------

    @property
    def accelerator(self) -> "Accelerator":
        """The kind of device."""
        return self._plan.accelerator

    @property
    def strategy(self) -> Strategy:
        """The strategy that sets up modules and optimizers."""
        return self._strategy

    @property
    def precision(self) -> str:
        """The precision's name, such as `"bf16-mixed"`."""
        return self._strategy.precision.precision

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self._strategy.root_device

    @property
    def mesh(self) -> "Mesh":
        """The axes over which ranks are divided: `fabric.mesh["tp"]`."""
        return self._strategy.mesh

    @property
    def global_rank(self) -> int:
        """This process's rank over all nodes."""
        return self._strategy.global_rank

    @property
    def local_rank(self) -> int:
        """This process's rank on its node."""
        return self._strategy.local_rank

    @property
    def node_rank(self) -> int:
        """The number of this node."""
        return self._strategy.node_rank

    @property
    def world_size(self) -> int:
        """The number of ranks over all nodes."""
        return self._strategy.world_size

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0."""
        return self._strategy.is_global_zero

    @property
    def launched(self) -> bool:
        """Whether this process has joined the others."""
        return self._launched

    @property
    def loggers(self) -> "list[Logger]":
        """All loggers."""
        return self._loggers

    @property
    def logger(self) -> "Logger":
        """The first logger.

        Raises:
            StateError: There is none.
        """
        if not self._loggers:
            raise StateError("Fabric has no logger. Pass one: Fabric(loggers=CSVLogger('logs')).")
        return self._loggers[0]

    @property
    def store(self) -> Any:
        """A key-value store that all ranks share: `set get wait check compare_set`; in memory for one process."""
        self._require_launch()
        if self._store is None:
            self._store = MemoryStore() if self.world_size == 1 else self._strategy.group.store  # pyrefly: ignore[missing-attribute] - parallel
        return self._store

    # -- launching -----------------------------------------------------------------------------------------------

    def launch(self, function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Start the other ranks of this node and join them; under torchrun or srun only join.

        Args:
            function: Runs in every rank as `function(fabric, *args, **kwargs)`; rank 0's value is returned, its tensors on
                the CPU. Without one, the script continues in every rank.
            *args: Passed to `function`.
            **kwargs: Passed to `function`.

        Raises:
            ConfigTypeError: `function` cannot be called, takes no argument, or is missing where processes are spawned or forked.
            StateError: Under the CLI, which has launched already.
            RankFailedError: Another rank failed.
        """
        if self._cli_used:
            raise StateError(
                "This script was launched through the CLI, and processes have already been created. "
                "Calling `.launch()` again is not allowed."
            )
        start_method = getattr(self._strategy, "start_method", "popen")
        checks.check_launchable(function, start_method=start_method)
        if self._launched:
            return None if function is None else function(self, *args, **kwargs)
        launcher = self._strategy.make_launcher()
        self._strategy.launcher = launcher
        if launcher is None:
            return self._run_joined(function, args, kwargs)
        return launcher.launch(self._run_joined, function, args, kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override this in a subclass: calling it launches, then runs it."""
        raise StateError("Fabric.run() is for subclasses: override it, or call launch().")

    def _launch_run(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.launch(_Run(run), *args, **kwargs)

    def _run_joined(self, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._join()
        return None if function is None else function(self, *args, **kwargs)

    def _join(self) -> None:
        self._strategy.setup_environment()
        self._launched = True

    def _require_launch(self) -> None:
        if not self._launched:
            if self._plan.num_ranks > 1:
                raise StateError(NOT_LAUNCHED)
            self._join()

    # -- setting up ----------------------------------------------------------------------------------------------

    def setup(
        self,
        module: nn.Module,
        *optimizers: Optimizer,
        scheduler: Any = None,
        move_to_device: bool = True,
        _reapply_compile: bool = True,
    ) -> Any:
        """Set up a module and its optimizers for the strategy and the precision.

        Args:
            module: The user's module.
            *optimizers: Optimizers over its parameters.
            scheduler: A learning-rate scheduler; only DeepSpeed needs it here.
            move_to_device: Whether to move the module to this process's device.
            _reapply_compile: Whether a compiled module is compiled again around the result.

        Returns:
            The module, or `(module, *optimizers)`, or with the scheduler behind them.

        Raises:
            ConfigError: Something was set up before, or a scheduler came without its optimizer.
            StateError: An optimizer over meta parameters, or not launched.
        """
        self._require_launch()
        checks.check_module(module)
        checks.check_optimizers(optimizers)
        checks.refuse_meta(module, optimizers)
        checks.check_scheduler(scheduler, optimizers)
        strategy = self._strategy
        original, recompile = take_apart(module)
        inner = original if _reapply_compile else module
        # One order for every strategy: convert, move, parallelise and checkpoint, compile blocks, shard or replicate, compile whole, wrap.
        inner = strategy.precision.convert_module(inner)
        if move_to_device:
            self._move(inner)
        inner = strategy.prepare_module(inner, optimizers)
        if self._compile:
            self._compile.compile_blocks(inner)
        if optimizers:
            forward_module, ready, scheduler = strategy.setup_module_and_optimizers(inner, list(optimizers), scheduler)
        else:
            forward_module, ready = strategy.setup_module(inner), list[Optimizer]()
        if recompile and _reapply_compile:
            forward_module = recompile(forward_module)
        if self._compile:
            forward_module = self._compile.compile_model(forward_module)
        wrapped = FabricModule(forward_module, strategy, original_module=take_apart(inner)[0])
        self._models.append(wrapped)
        if hasattr(original, "_fabric") and not any(callback is original for callback in self._callbacks):
            self._callbacks.append(original)  # before its optimizers are wrapped, whose steps it hears of
        wrapped_optimizers = [self._wrap_optimizer(optimizer) for optimizer in ready]
        self._adopt(original, wrapped_optimizers)
        self.call("on_after_setup", fabric=self, module=wrapped)
        if not optimizers:
            return wrapped
        return (wrapped, *wrapped_optimizers) if scheduler is None else (wrapped, *wrapped_optimizers, scheduler)

    def setup_module(self, module: nn.Module, move_to_device: bool = True, _reapply_compile: bool = True) -> FabricModule:
        """Set up a module alone, for inference or before its optimizer exists."""
        return self.setup(module, move_to_device=move_to_device, _reapply_compile=_reapply_compile)

    def setup_optimizers(self, *optimizers: Optimizer) -> Any:
        """Set up optimizers alone, after `setup_module`; one returns itself, several a tuple.

        Raises:
            ConfigError: None given, or one that was set up before.
            StateError: Meta parameters, or a strategy that needs the joint `setup`.
        """
        self._require_launch()
        if not optimizers:
            raise ConfigError("`setup_optimizers` requires at least one optimizer as input.")
        checks.check_optimizers(optimizers)
        for optimizer in optimizers:
            if any(parameter.is_meta for group in optimizer.param_groups for parameter in group["params"]):
                raise StateError(
                    "The optimizer has references to the model's meta-device parameters. "
                    "Build it after `model = fabric.setup_module(model)`."
                )
        ready = tuple(self._wrap_optimizer(self._strategy.setup_optimizer(optimizer)) for optimizer in optimizers)
        return ready[0] if len(ready) == 1 else ready

    def setup_dataloaders(self, *dataloaders: Any, use_distributed_sampler: bool = True, move_to_device: bool = True) -> Any:
        """Shard loaders over ranks, move their batches to the device, and make their position resumable.

        Args:
            *dataloaders: `DataLoader`s and stateful loaders.
            use_distributed_sampler: Whether the sampler is replaced so that each rank sees its share.
            move_to_device: Whether batches are moved.

        Raises:
            ConfigError: None given, or one that was set up before.
            ConfigTypeError: Something else than a loader.
        """
        self._require_launch()
        if not dataloaders:
            raise ConfigError("`setup_dataloaders` requires at least one dataloader as input.")
        for loader in dataloaders:
            checks.check_loader(loader)
        ready = [
            prepare_loader(loader, strategy=self._strategy, use_distributed_sampler=use_distributed_sampler, move_to_device=move_to_device)
            for loader in dataloaders
        ]
        return ready[0] if len(ready) == 1 else ready

    def init_module(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        """Return the context in which a model is built in the right dtype on the right device.

        Args:
            empty_init: Skip the initialisers; with `fsdp` and `model_parallel`, build on the meta device.
        """
        self._require_launch()
        return self._strategy.module_init_context(empty_init=empty_init)

    def sharded_model(self) -> AbstractContextManager[Any]:
        """Deprecated alias of `init_module()`."""
        warnings.warn("`Fabric.sharded_model()` is deprecated; use `Fabric.init_module()`.", DeprecationWarning, stacklevel=2)
        return self.init_module()

    def init_tensor(self) -> AbstractContextManager[Any]:
        """Return the context in which new tensors are born on the device in the precision's dtype."""
        return self._strategy.tensor_init_context()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the precision's forward context, for code outside a module."""
        return self._strategy.precision.forward_context()

    def to_device(self, obj: Any) -> Any:
        """Move a module (in place), a tensor or a collection to this process's device."""
        if isinstance(obj, nn.Module):
            self._strategy.module_to_device(obj)
            return obj
        return self._strategy.batch_to_device(obj)

    def _move(self, module: nn.Module) -> None:
        devices = devices_of(module)
        if len(devices) > 1:
            warnings.warn(
                f"The model passed to `Fabric.setup()` has parameters on different devices ({listed(sorted(map(str, devices)))}). Since "
                f"`move_to_device=True`, all are moved to {self.device}. Pass move_to_device=False to keep your placement.",
                stacklevel=4,
            )
        self._strategy.module_to_device(module)

    def _wrap_optimizer(self, optimizer: Optimizer) -> FabricOptimizer:
        return FabricOptimizer(optimizer, self._strategy, self._callbacks)

    def _adopt(self, module: nn.Module, optimizers: list[FabricOptimizer]) -> None:
        """Tell a module that knows Fabric (it has `_fabric`) who set it up."""
        state: Any = module
        if hasattr(module, "_fabric"):
            state._fabric = self
            state._fabric_optimizers = optimizers

    # -- the loop ------------------------------------------------------------------------------------------------

    def backward(self, tensor: Tensor, *args: Any, model: FabricModule | None = None, **kwargs: Any) -> None:
        """Compute gradients, scaled where the precision scales.

        Args:
            tensor: The loss.
            *args: Passed to `Tensor.backward`.
            model: Which model, where DeepSpeed holds several.
            **kwargs: Passed to `Tensor.backward`.

        Raises:
            ConfigError: DeepSpeed with several models and no `model`.
            StateError: No model was set up.
        """
        strategy = self._strategy
        if not strategy.owns_backward:
            strategy.backward(tensor, None, *args, **kwargs)
            return
        if not self._models:
            raise StateError("No models were set up for backward. Did you forget to call `fabric.setup()`?")
        if model is None and len(self._models) > 1:
            raise ConfigError(
                "When using multiple models + DeepSpeed, please provide the model used to perform the optimization: "
                "`self.backward(loss, model=model)`"
            )
        strategy.backward(tensor, (model or self._models[0])._forward_module, *args, **kwargs)

    def clip_gradients(
        self,
        module: FabricModule,
        optimizer: Any,
        clip_val: float | None = None,
        max_norm: float | None = None,
        norm_type: float | str = 2.0,
        error_if_nonfinite: bool = True,
    ) -> Tensor | None:
        """Clip gradients by value or by norm, after unscaling them.

        Args:
            module: A module that was set up.
            optimizer: Its optimizer.
            clip_val: Clip each element to [-clip_val, clip_val].
            max_norm: Clip the norm over all shards and ranks to this.
            norm_type: The p of the norm; `"inf"` is allowed.
            error_if_nonfinite: Whether a norm that is not finite is an error.

        Returns:
            The total norm before clipping; `None` when clipping by value.

        Raises:
            ConfigError: Neither or both of `clip_val` and `max_norm`.
            StateError: The norm is not finite; names parameters.
        """
        if clip_val is not None and max_norm is not None:
            raise ConfigError("Only one of `clip_val` or `max_norm` can be set as this specifies the underlying clipping algorithm.")
        forward_module = module._forward_module if isinstance(module, FabricModule) else module
        inner = unwrap(optimizer)
        if clip_val is not None:
            self._strategy.clip_gradients_value(forward_module, inner, clip_val=clip_val)
            return None
        if max_norm is None:
            raise ConfigError("You have to specify either `clip_val` or `max_norm` to do gradient clipping.")
        try:
            return self._strategy.clip_gradients_norm(
                forward_module, inner, max_norm=max_norm, norm_type=float(norm_type), error_if_nonfinite=error_if_nonfinite
            )
        except UnsupportedError:
            raise
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise StateError(checks.non_finite(unwrap(module), norm_type)) from error

    def no_backward_sync(self, module: FabricModule, enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context without gradient reduction, for accumulation; forward **and** backward belong inside.

        Raises:
            ConfigTypeError: The module was not set up.
        """
        inner = take_apart(module)[0]
        if not isinstance(inner, FabricModule):
            raise ConfigTypeError(
                "You need to set up the model first before you can call `fabric.no_backward_sync()`: `model = fabric.setup(model, ...)`"
            )
        if self._strategy.supports_no_sync:
            return self._strategy.no_backward_sync(inner._forward_module, enabled)
        if enabled and self.world_size > 1:
            warnings.warn(
                f"The `{type(self._strategy).__name__}` does not support skipping the gradient synchronization; "
                "`no_backward_sync` has no effect.",
                stacklevel=2,
            )
        return nullcontext()

    # -- collectives ---------------------------------------------------------------------------------------------

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Gather tensors of a nested collection from all ranks: shape `(world_size, …)`; unchanged with one rank."""
        self._require_launch()
        return self._strategy.all_gather(data, group=group, sync_grads=sync_grads)

    def all_reduce(self, data: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce tensors of a nested collection over all ranks, in place, and return them."""
        self._require_launch()
        return self._strategy.all_reduce(data, group=group, reduce_op=reduce_op)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return rank `src`'s tensor or object on every rank."""
        self._require_launch()
        return self._strategy.broadcast(obj, src=src)

    def barrier(self, name: str | None = None) -> None:
        """Wait for all ranks; `name` appears in the stall report."""
        self._require_launch()
        self._strategy.barrier(name=name)

    def rank_zero_first(self, local: bool = False) -> AbstractContextManager[Any]:
        """Return a context that rank 0 (of each node, if `local`) runs before the others; its exception reaches them."""
        self._require_launch()
        return self._strategy.rank_zero_first(local)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def save(
        self,
        path: str | Path,
        state: Mapping[str, Any],
        filter: Mapping[str, Callable[[str, Any], bool]] | None = None,
        *,
        blocking: bool = True,
        format: Literal["auto", "file", "directory"] = "auto",
    ) -> None:
        """Write a checkpoint; every rank calls it.

        Args:
            path: File, directory or storage URL; a trailing `/` forces a directory.
            state: Modules, optimizers, loaders, other stateful objects, and values.
            filter: Per key, which entries of that key's dict are kept: `{"model": lambda name, value: …}`.
            blocking: Whether to wait for the disk; if not, the call returns when everything is copied.
            format: `"auto"` (a file where state is replicated, a directory where it is sharded), `"file"` or `"directory"`.

        Raises:
            ConfigTypeError: `state` is no dictionary, or a filter cannot be called.
            ConfigError: A filter for a key that is not in `state`, or a value that cannot be stored.
            StorageError: Disk, network or permission; the previous checkpoint is intact.
        """
        self._require_launch()
        checks.check_state_and_filter(state, filter)
        for logger in self._loggers:
            if not getattr(logger, "is_remote", True):  # another library's logger has nothing waiting
                logger.save()  # rows up to this step are on disk before the checkpoint is: a resumed run writes none of them again
        self._strategy.save_checkpoint(
            path, {key: unwrap(value) for key, value in state.items()}, filter=filter, blocking=blocking, format=format
        )

    def wait_for_saves(self) -> None:
        """Wait until every asynchronous save is on disk; raises what went wrong there."""
        from leyden.fabric.checkpoint import saver  # fabric.checkpoint is loaded when the first checkpoint is

        saver.wait_for_saves()

    def load(
        self,
        path: str | Path,
        state: dict[str, Any] | None = None,
        strict: bool = True,
        *,
        weights_only: bool | None = None,
        restore_rng: Literal["auto"] | bool = "auto",
    ) -> dict[str, Any]:
        """Restore a checkpoint in place; every rank calls it.

        Args:
            path: What `save` wrote, a Lightning 2.x checkpoint, or a folder with a `latest`.
            state: Objects to restore and keys to replace; without it everything is returned, on the CPU.
            strict: Whether every key of `state` must be there and every name must match.
            weights_only: `None` and `True` run no code from the file; `False` trusts it.
            restore_rng: `"auto"` restores random states when `state` has an optimizer or a loader.

        Returns:
            What the checkpoint holds beyond `state`.

        Raises:
            CheckpointKeyError: A requested key is missing and `strict`.
            NotFoundError: There is no checkpoint; says what is there.
        """
        self._require_launch()
        if state is None:
            return self._strategy.load_checkpoint(path, None, strict=strict, weights_only=weights_only, restore_rng=restore_rng)
        if not isinstance(state, dict):
            raise ConfigTypeError(f"fabric.load(state=…) should be a dictionary of objects to restore, not {type(state).__name__}.")
        inner = {key: unwrap(value) for key, value in state.items()}
        before = dict(inner)
        rest = self._strategy.load_checkpoint(path, inner, strict=strict, weights_only=weights_only, restore_rng=restore_rng)
        state.update({key: value for key, value in inner.items() if value is not before[key]})
        return rest

    def load_raw(self, path: str | Path, obj: Any, strict: bool = True, *, weights_only: bool | None = None) -> None:
        """Load a bare state dict (`.pt`, `.safetensors`, a safetensors index) into a module or optimizer."""
        from leyden.fabric.checkpoint import saver  # fabric.checkpoint is loaded when the first checkpoint is

        self._require_launch()
        saver.read_raw(path, unwrap(obj), strategy=self._strategy, strict=strict, weights_only=weights_only)

    # -- callbacks, loggers, stopping -----------------------------------------------------------------------------

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print on local rank 0 of each node."""
        if self.local_rank == 0:
            print(*args, **kwargs)  # noqa: T201 - what it is for

    def call(self, hook_name: str, *args: Any, **kwargs: Any) -> None:
        """Call `hook_name` on every callback that has it, in order; keywords it does not take are dropped."""
        for callback in self._callbacks:
            hook = getattr(callback, hook_name, None)
            if hook is None:
                continue
            if not callable(hook):
                warnings.warn(f"Skipping the callback `{type(callback).__name__}.{hook_name}` because it is not callable.", stacklevel=2)
                continue
            hook(*args, **checks.accepted(hook, kwargs))

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Hand one number to every logger.

        Raises:
            ConfigError: A tensor of more than one element.
        """
        self.log_dict({name: value}, step)

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Hand several numbers to every logger; one-element tensors become numbers."""
        for name, value in metrics.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ConfigError(
                    f"log({name!r}): a tensor of shape {tuple(value.shape)} cannot be converted to a scalar. Reduce it first, e.g. .mean()."
                )
        for logger in self._loggers:
            threaded = getattr(logger, "threaded", False)  # a logger of another library need not know the word
            logger.log_metrics(metrics=metrics if threaded else map_tensors(metrics, Tensor.item), step=step)

    @staticmethod
    def seed_everything(seed: int | None = None, workers: bool | None = None, verbose: bool = True) -> int:
        """Seed `random`, numpy and torch on every rank alike, and the workers of loaders; returns the seed."""
        return rng.seed_everything(seed, workers=True if workers is None else workers, verbose=verbose)

    def stop_requested(self) -> Stop | None:
        """Return why to stop (SIGTERM, preemption), at one step that all ranks agree on; call it once per step on every rank.

        The first call installs the signal handlers.
        """
        if self._stops is None:
            signals = (*DEFAULT_SIGNALS, *self._plan.environment.stop_signals)
            self._stops = StopRequests(self.store, self.global_rank, self.world_size, signals=signals)
            self._strategy.own(self._stops)  # a rank that leaves must say so, or the others wait for its answer
        return self._stops.boundary()


class _Run:
    """An overridden `run` in the shape that `launch` calls."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, _fabric: Fabric, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _discovered_callbacks() -> list[Any]:
    from importlib.metadata import entry_points  # a dozen modules, and most programs never import it otherwise

    found: list[Any] = []
    for group in CALLBACK_GROUPS:
        for entry in entry_points(group=group):
            found.extend(_as_list(entry.load()()))
    return found
