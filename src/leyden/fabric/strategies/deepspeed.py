"""`DeepSpeedStrategy`: optimizer states, gradients and weights in parts over the ranks, by DeepSpeed's ZeRO engine.

Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, 2020, https://arxiv.org/abs/1910.02054.

The loop stays the user's: it says when to step, so the engine accumulates until then (`managed_gradient_accumulation` off).
The engine owns backward, steps, gradient clipping and its checkpoint files; rules about its configuration are in
`deepspeed_config`, its files in `deepspeed_files`, everything that touches the engine itself in `deepspeed_engine`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, StateError, UnsupportedError
from leyden.fabric.precision.precision import Precision
from leyden.fabric.precision.registry import PrecisionKind
from leyden.fabric.strategies import deepspeed_config, deepspeed_engine
from leyden.fabric.strategies.parallel import DEFAULT_TIMEOUT, ParallelStrategy
from leyden.fabric.strategies.strategy import StateLayout

if TYPE_CHECKING:
    from leyden.fabric.accelerators.accelerator import Accelerator
    from leyden.fabric.environments.environment import ClusterEnvironment


class DeepSpeedStrategy(ParallelStrategy):  # noqa: SIZE002, SIZE003 - the documented signature and the documented protocol
    """Trains with DeepSpeed: ZeRO stage 1 cuts up optimizer states, 2 gradients too, 3 weights too.

    The arguments up to `synchronize_checkpoint_boundary` make DeepSpeed's configuration
    (https://www.deepspeed.ai/docs/config-json/); `config` replaces them all.

    Args:
        accelerator: The kind of device; `None` lets the plan fill it in.
        zero_optimization: Whether to use ZeRO at all.
        stage: 0, 1, 2 or 3.
        remote_device: Where `init_module` puts weights at stage 3: `None` (the device), `"cpu"` or `"nvme"`.
        offload_optimizer: Keep optimizer states in CPU memory or on NVMe, and step there.
        offload_parameters: Keep weights in CPU memory or on NVMe; stage 3.
        offload_params_device: `"cpu"` or `"nvme"`.
        nvme_path: The disk's directory.
        params_buffer_count: Buffers for offloaded weights.
        params_buffer_size: Elements of each.
        max_in_cpu: Elements of weights that stay in CPU memory when offloading to NVMe.
        offload_optimizer_device: `"cpu"` or `"nvme"`.
        optimizer_buffer_count: Buffers for offloaded optimizer states.
        block_size: Bytes per read or write of the disk.
        queue_depth: Requests under way at the disk.
        single_submit: Whether requests are submitted one by one.
        overlap_events: Whether submission and completion overlap.
        thread_count: Threads per request.
        pin_memory: Whether offloaded data lies in pinned memory.
        sub_group_size: Elements that are stepped at once; smaller where memory is short.
        contiguous_gradients: Copy gradients into one buffer as they appear.
        overlap_comm: Reduce while backward computes (stages 2 and 3).
        allgather_partitions: Collect weights by all-gather instead of broadcasts after a step.
        reduce_scatter: Average by reduce-scatter instead of all-reduce.
        allgather_bucket_size: Elements gathered at once.
        reduce_bucket_size: Elements reduced at once.
        zero_allow_untested_optimizer: Accept optimizers that DeepSpeed has not tried.
        logging_batch_size_per_gpu: The batch of one rank, for DeepSpeed's own speed log.
        config: A dictionary or a JSON file; default: the file that `LEYDEN_DEEPSPEED_CONFIG` names.
        logging_level: Of DeepSpeed's logger.
        parallel_devices: The devices of this node; `None` lets the plan fill them in.
        cluster_environment: Who started the processes; `None` lets the plan detect it.
        loss_scale: Of float16; 0 adapts it.
        initial_scale_power: The adapted scale begins at 2 to this.
        loss_scale_window: Steps without overflow until it is doubled.
        hysteresis: Overflows until it is halved.
        min_loss_scale: It never falls below.
        partition_activations: Cut up the activations that DeepSpeed's checkpointing keeps.
        cpu_checkpointing: Keep them in CPU memory.
        contiguous_memory_optimization: Copy them into one buffer.
        synchronize_checkpoint_boundary: Wait for the device between checkpointed blocks.
        load_full_weights: Accepted; a file with whole weights is recognised by its content, at every stage.
        precision: How numbers are kept; `None` lets the plan fill it in.
        process_group_backend: The `torch.distributed` backend; `None` takes the accelerator's.
        timeout: After which a collective that not all ranks reach is an error.
        exclude_frozen_parameters: Leave weights without gradients out of checkpoints.

    Raises:
        MissingDependencyError: DeepSpeed is not installed, or older than 0.19.
        ConfigError: Arguments that contradict each other or have no effect.

    Example:
        ```python
        fabric = Fabric(devices=8, strategy=DeepSpeedStrategy(stage=3, offload_optimizer=True), precision="bf16-mixed")
        ```
    """

    state_layout: ClassVar[StateLayout] = "foreign"
    supports_no_sync: ClassVar[bool] = True
    owns_backward: ClassVar[bool] = True
    precision_kind: ClassVar[PrecisionKind] = "deepspeed"

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        accelerator: "Accelerator | None" = None,
        zero_optimization: bool = True,
        stage: int = 2,
        remote_device: str | None = None,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        offload_params_device: str = "cpu",
        nvme_path: str = "/local_nvme",
        params_buffer_count: int = 5,
        params_buffer_size: int = 100_000_000,
        max_in_cpu: int = 1_000_000_000,
        offload_optimizer_device: str = "cpu",
        optimizer_buffer_count: int = 4,
        block_size: int = 1_048_576,
        queue_depth: int = 8,
        single_submit: bool = False,
        overlap_events: bool = True,
        thread_count: int = 1,
        pin_memory: bool = False,
        sub_group_size: int = 1_000_000_000_000,
        contiguous_gradients: bool = True,
        overlap_comm: bool = True,
        allgather_partitions: bool = True,
        reduce_scatter: bool = True,
        allgather_bucket_size: int = 200_000_000,
        reduce_bucket_size: int = 200_000_000,
        zero_allow_untested_optimizer: bool = True,
        logging_batch_size_per_gpu: int | None = None,
        config: Mapping[str, Any] | str | Path | None = None,
        logging_level: int = logging.WARNING,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: "ClusterEnvironment | None" = None,
        loss_scale: float = 0,
        initial_scale_power: int = 16,
        loss_scale_window: int = 1000,
        hysteresis: int = 2,
        min_loss_scale: int = 1,
        partition_activations: bool = False,
        cpu_checkpointing: bool = False,
        contiguous_memory_optimization: bool = False,
        synchronize_checkpoint_boundary: bool = False,
        load_full_weights: bool = False,
        precision: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        exclude_frozen_parameters: bool = False,
    ) -> None:
        given = locals()  # first of all: the arguments that make the configuration are told by their names
        options = {name: given[name] for name in deepspeed_config.OPTIONS}
        deepspeed_engine.require_deepspeed()
        super().__init__(
            accelerator=accelerator,
            parallel_devices=parallel_devices,
            cluster_environment=cluster_environment,
            precision=precision,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        own = deepspeed_config.given_config(config)
        deepspeed_config.refuse_options_beside(own, options, "config" if config is not None else deepspeed_config.VARIABLE)
        self._given = deepspeed_config.from_options(options) if own is None else own
        self.remote_device = remote_device
        self.logging_level = logging_level
        self.load_full_weights = load_full_weights
        self.exclude_frozen_parameters = exclude_frozen_parameters
        self._batch_size = logging_batch_size_per_gpu
        self._loss_scaling = {
            "loss_scale": loss_scale,
            "initial_scale_power": initial_scale_power,
            "loss_scale_window": loss_scale_window,
            "hysteresis": hysteresis,
            "min_loss_scale": min_loss_scale,
        }
        self.engines = deepspeed_engine.Engines()
        self._trusts_files = False

    @property
    def config(self) -> dict[str, Any]:
        """What DeepSpeed is started with, for this precision and number of ranks.

        Raises:
            ConfigError: It contradicts the loop, the precision or the number of ranks.
        """
        return deepspeed_config.complete(
            self._given,
            precision=self.precision.precision,
            world_size=self.world_size,
            loss_scaling=self._loss_scaling,
            batch_size=self._batch_size,
        )

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return deepspeed_config.stage_of(self._given)

    @property
    def zero_stage_3(self) -> bool:
        """Whether weights are cut up too."""
        return self.stage == 3

    # -- setting up ----------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        if self._group is not None:
            return
        super().setup_environment()
        backend = self.process_group_backend or torch.distributed.get_backend()
        deepspeed_engine.share_group(self._deepspeed(), backend, self.timeout, self.local_rank)

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        if not self.zero_stage_3:
            return super().module_init_context(empty_init)
        if empty_init is False:
            raise UnsupportedError(
                "`empty_init=False` is not a valid choice with `DeepSpeedStrategy` when ZeRO stage 3 is enabled: weights are cut up "
                "as they are built. Leave empty_init out."
            )
        deepspeed = self._deepspeed()
        sharded = deepspeed.zero.Init(config_dict_or_path=self.config, remote_device=self.remote_device, enabled=True)
        return _entered(self.local_rank, self.precision.module_init_context(), sharded)

    def module_to_device(self, module: nn.Module) -> None:
        """Do nothing: the engine moves what is to be moved, and offloaded weights are not."""

    def setup_module(self, module: nn.Module) -> nn.Module:
        """Start an engine for inference; nothing can be trained through it."""
        return self._start(module, None, None).engine

    def setup_optimizer(self, optimizer: Optimizer) -> NoReturn:
        """Refuse.

        Raises:
            StateError: Always: the engine needs the module and its optimizer at once.
        """
        raise StateError(
            "DeepSpeed needs the model and its optimizer at once, so they cannot be set up separately: "
            "model, optimizer = fabric.setup(model, optimizer)."
        )

    def setup_module_and_optimizers(
        self, module: nn.Module, optimizers: list[Optimizer], scheduler: Any = None
    ) -> tuple[nn.Module, list[Optimizer], Any]:
        """Start an engine for a module and its one optimizer; it also steps `scheduler`, which the loop then must not."""
        if len(optimizers) != 1:
            raise ConfigError(f"Currently only one optimizer is supported with DeepSpeed. Got {len(optimizers)} optimizers instead.")
        started = self._start(module, optimizers[0], scheduler)
        deepspeed_engine.clear_gradients_through(started.engine, optimizers[0])
        return started.engine, optimizers, scheduler

    def method_of(self, module: nn.Module, name: str) -> Callable[..., Any]:
        call = module if name == "forward" else _inner_engine(module)  # a compiled module compiles forward only

        def through_engine(*args: Any, **kwargs: Any) -> Any:
            return call(name, args, kwargs)

        return through_engine

    def _start(self, module: nn.Module, optimizer: Optimizer | None, scheduler: Any) -> deepspeed_engine.Started:
        config = self.config
        deepspeed_config.check_sections(config, has_optimizer=optimizer is not None, has_scheduler=scheduler is not None)
        if optimizer is None:
            config = deepspeed_config.without_zero(config)
        elif "offload_optimizer" in config["zero_optimization"] and "DeepSpeedCPU" not in type(optimizer).__name__:
            warnings.warn(
                f"{type(optimizer).__name__} will step on the CPU, where DeepSpeed's own optimizers are several times faster: "
                "from deepspeed.ops.adam import DeepSpeedCPUAdam; optimizer = DeepSpeedCPUAdam(model.parameters(), lr=...).",
                stacklevel=5,
            )
        engine = deepspeed_engine.start_engine(
            self._deepspeed(), module, optimizer, scheduler, config=config, device=self.root_device, local_rank=self.local_rank
        )
        return self.engines.add(engine, module, optimizer)

    def _deepspeed(self) -> Any:
        return deepspeed_engine.import_deepspeed(self.root_device, self.logging_level)

    # -- the hot path --------------------------------------------------------------------------------------------

    def backward(self, tensor: Tensor, module: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """Compute gradients through the engine; it takes a scalar, and `retain_graph`.

        Raises:
            StateError: The model was set up without an optimizer.
        """
        engine = self.engines.for_training(None if module is None else _inner_engine(module))
        self.precision.pre_backward(tensor, module)
        self.is_in_backward = True
        try:
            engine.backward(tensor, *args, **kwargs)
        finally:
            self.is_in_backward = False
        self.precision.post_backward(tensor, module)

    def optimizer_step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step the engine of `optimizer`; `optimizer.last_step_skipped` tells whether a float16 overflow forbade it."""
        engine = self.engines.by_optimizer(optimizer).engine
        closure = kwargs.pop("closure", None)
        loss = closure() if closure is not None else None
        engine.step(**kwargs)
        if engine.fp16_enabled():
            state: Any = optimizer
            state.last_step_skipped = not engine.was_step_applied()
            state.skipped_steps = engine.skipped_steps
        return loss

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
        """Return a context that does nothing: stages 0 and 1 reduce at the step only, the others cannot wait."""
        if enabled and self.stage > 1 and self.world_size > 1:
            warnings.warn(
                f"ZeRO stage {self.stage} reduces gradients at every backward, since no rank keeps them whole; `no_backward_sync` has no "
                "effect. Gradients add up all the same; stage 1 reduces once per step.",
                stacklevel=3,
            )
        return nullcontext()

    def clip_at_step(self, max_norm: float) -> bool:
        """Let the engine clip, unless its configuration says something else."""
        self._given.setdefault("gradient_clipping", float(max_norm))
        return True

    def clip_gradients_norm(
        self, module: nn.Module, optimizer: Optimizer, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = True
    ) -> NoReturn:
        """Refuse.

        Raises:
            UnsupportedError: Always: the engine clips.
        """
        raise UnsupportedError(
            "DeepSpeed handles gradient clipping automatically within the optimizer: set gradient_clipping in the config, "
            f'DeepSpeedStrategy(config={{"gradient_clipping": {max_norm}, ...}}), and drop fabric.clip_gradients().'
        )

    def clip_gradients_value(self, module: nn.Module, optimizer: Optimizer, clip_val: float) -> NoReturn:
        """Refuse.

        Raises:
            UnsupportedError: Always: the engine clips, and by norm.
        """
        raise UnsupportedError(
            "DeepSpeed handles gradient clipping automatically within the optimizer, and by norm only: set gradient_clipping in the "
            "config, and drop fabric.clip_gradients()."
        )

    # -- state ---------------------------------------------------------------------------------------------------

    def get_module_state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return the plain module's state dict, whole also at stage 3, where every rank calls it and gets it on the CPU."""
        if not self._is_in_parts(module):
            return super().get_module_state_dict(module)
        return deepspeed_engine.whole_state_dict(module)

    def load_module_state_dict(self, module: nn.Module, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        if not self._is_in_parts(module):
            super().load_module_state_dict(module, state_dict, strict=strict)
            return
        engine = self.engines.by_module(module).engine
        with self.engines.working():
            deepspeed_engine.load_whole_state_dict(engine, module, state_dict, is_strict=strict)

    def get_optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return this rank's part of the optimizer's state, as the engine keeps it."""
        return self.engines.by_optimizer(optimizer).engine.optimizer.state_dict()

    def save_engine(self, directory: Path, objects: dict[str, Any]) -> None:
        """Write the engine's files into `directory`; every rank calls it. `objects`: key → module or optimizer, one engine's."""
        self._files().save(self, directory, objects)

    def check_engine(self, directory: Path, objects: dict[str, Any], *, strict: bool) -> None:
        """Refuse what `load_engine` could not load, before anything changes; every rank calls it."""
        self._files().check(self, directory, objects, is_strict=strict, is_trusted=self._trusts_files)

    def load_engine(self, directory: Path, objects: dict[str, Any], *, strict: bool) -> None:
        """Load what `save_engine` wrote and `check_engine` looked at; the optimizer's state if `objects` holds the optimizer."""
        self._files().load(self, directory, objects, is_strict=strict)

    def load_checkpoint(
        self,
        path: str | Path,
        state: Any = None,
        strict: bool = True,
        weights_only: bool | None = None,
        *,
        restore_rng: Literal["auto"] | bool = "auto",
    ) -> dict[str, Any]:
        self._trusts_files = weights_only is False
        try:
            files = self._files()
            if isinstance(state, dict) and (folder := files.foreign_folder(path)) is not None:
                return files.load_foreign(self, folder, state, is_strict=strict, is_trusted=self._trusts_files)
            if isinstance(state, dict) and not files.is_engines(path):
                self.engines.refuse_optimizers(path, state)
            return super().load_checkpoint(path, state, strict, weights_only, restore_rng=restore_rng)
        finally:
            self._trusts_files = False

    def teardown(self) -> None:
        self.engines.close(has_group=torch.distributed.is_initialized())
        super().teardown()
        if not torch.distributed.is_initialized():
            deepspeed_engine.forget_group()

    @staticmethod
    def _files() -> Any:
        from leyden.fabric.strategies import deepspeed_files  # brings fabric.checkpoint, loaded when the first checkpoint is

        return deepspeed_files

    def _is_in_parts(self, module: nn.Module) -> bool:
        return self.zero_stage_3 and self.engines.has(module)


def _inner_engine(module: nn.Module) -> Any:
    return getattr(module, "_orig_mod", module)


@contextmanager
def _entered(local_rank: int, *contexts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(deepspeed_engine.launcher_variables(local_rank))
        for context in contexts:
            stack.enter_context(context)
        yield
