"""`LightningModule`: research code. A `torch.nn.Module` with the steps, the optimizers and the hooks of a run.

Long because it is the documented class that everybody subclasses: one method per documented name. What the methods do is
in `optimization`, `logging`, `hparams` and `saving`; hooks are the no-ops of `hooks`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, StateError
from leyden.core.optional import require
from leyden.trainer.core import logging, optimization, saving
from leyden.trainer.core.hooks import DataHooks, ModuleHooks
from leyden.trainer.core.mixins import HyperparametersMixin
from leyden.trainer.core.saving import class_method_only


class LightningModule(HyperparametersMixin, ModuleHooks, DataHooks, nn.Module):  # noqa: SIZE002, SIZE003 - the documented class
    """Organise a model, its steps and its optimizers; `Trainer` runs them.

    Example:
        >>> class Line(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(2, 1)
        ...     def training_step(self, batch, batch_idx):
        ...         return self.layer(batch).mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> Line().automatic_optimization
        True
    """

    CHECKPOINT_HYPER_PARAMS_KEY: ClassVar[str] = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME: ClassVar[str] = "hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE: ClassVar[str] = "hparams_type"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__.update(_trainer=None, _fabric=None, _fabric_optimizers=[], _log_sink=None, _example_input_array=None)
        self.__dict__.update(_automatic_optimization=True, _strict_loading=None)
        self.prepare_data_per_node = True
        self.allow_zero_length_dataloader_with_multiple_devices = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the run behind: a copy of the module belongs to nobody."""
        return {**self.__dict__, "_trainer": None, "_log_sink": None, "_fabric": None, "_fabric_optimizers": []}

    # -- who runs it ---------------------------------------------------------------------------------------------

    @property
    def trainer(self) -> Any:
        """The trainer that runs this module.

        Raises:
            StateError: Nobody runs it.
        """
        if self.__dict__["_trainer"] is None:
            if self.__dict__["_fabric"] is not None:
                return logging.FabricTrainer(self.__dict__["_fabric"], self)
            raise optimization.refuse_unattached(self)
        return self.__dict__["_trainer"]

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        for part in self.modules():
            if isinstance(part, LightningModule):
                part.__dict__["_trainer"] = trainer

    @property
    def fabric(self) -> Any:
        """The `Fabric` that set this module up in a loop of one's own; `None` under a trainer."""
        return self.__dict__["_fabric"]

    @fabric.setter
    def fabric(self, fabric: Any) -> None:
        for part in self.modules():
            if isinstance(part, LightningModule):
                part.__dict__["_fabric"] = fabric

    @property
    def automatic_optimization(self) -> bool:
        """Whether the loop runs backward and steps; if not, `training_step` does."""
        return self.__dict__["_automatic_optimization"]

    @automatic_optimization.setter
    def automatic_optimization(self, value: bool) -> None:
        self.__dict__["_automatic_optimization"] = value

    @property
    def strict_loading(self) -> bool:
        """Whether a checkpoint must hold exactly this module's parameters."""
        value = self.__dict__["_strict_loading"]
        return True if value is None else value

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        self.__dict__["_strict_loading"] = value

    @property
    def example_input_array(self) -> Any:
        """What `forward` takes: a tensor, a tuple or a mapping; summaries and graphs use it."""
        return self.__dict__["_example_input_array"]

    @example_input_array.setter
    def example_input_array(self, value: Any) -> None:
        self.__dict__["_example_input_array"] = value

    @property
    def device(self) -> torch.device:
        """The device of the first parameter or buffer; the CPU where there is none."""
        first = next((tensor for source in (self.parameters(), self.buffers()) for tensor in source), None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating parameter or buffer."""
        tensors = (tensor for source in (self.parameters(), self.buffers()) for tensor in source if tensor.is_floating_point())
        first = next(tensors, None)
        return first.dtype if first is not None else torch.get_default_dtype()

    @property
    def on_gpu(self) -> bool:
        """Whether the module is on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def device_mesh(self) -> Any:
        """The axes over which ranks are divided, where the strategy has a mesh."""
        return self.trainer.strategy.mesh

    @property
    def current_epoch(self) -> int:
        """The number of finished epochs; 0 without a trainer."""
        trainer = self.__dict__["_trainer"]
        return trainer.current_epoch if trainer is not None else 0

    @property
    def global_step(self) -> int:
        """The number of batches in which an optimizer stepped; 0 without a trainer."""
        trainer = self.__dict__["_trainer"]
        return trainer.global_step if trainer is not None else 0

    @property
    def global_rank(self) -> int:
        """This process's rank over all nodes; 0 without a trainer."""
        return self._runner.global_rank if self._runner is not None else 0

    @property
    def local_rank(self) -> int:
        """This process's rank on its node; 0 without a trainer."""
        return self._runner.local_rank if self._runner is not None else 0

    @property
    def _runner(self) -> Any:
        return self.__dict__["_trainer"] or self.__dict__["_fabric"]

    @property
    def logger(self) -> Any:
        """The first logger, or `None`."""
        return next(iter(self.loggers), None)

    @property
    def loggers(self) -> list[Any]:
        """All loggers."""
        return list(self._runner.loggers) if self._runner is not None else []

    # -- steps ---------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:  # a checker must let subclasses narrow the arguments
        forward: Callable[..., Any]
        training_step: Callable[..., Any]
        validation_step: Callable[..., Any]
        test_step: Callable[..., Any]
        predict_step: Callable[..., Any]
    else:

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            """Compute a prediction; same as `torch.nn.Module.forward`."""
            return super().forward(*args, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            """Return the loss of a batch: a tensor, a mapping with `"loss"`, or `None` to skip it."""
            raise ConfigError("No `training_step()` method defined. Define `training_step(self, batch, batch_idx)` to use `Trainer.fit`.")

        def validation_step(self, *args: Any, **kwargs: Any) -> Any:
            """Evaluate one batch of validation data."""
            raise ConfigError("No `validation_step()` method defined. Define it to use `Trainer.validate`.")

        def test_step(self, *args: Any, **kwargs: Any) -> Any:
            """Evaluate one batch of test data."""
            raise ConfigError("No `test_step()` method defined. Define it to use `Trainer.test`.")

        def predict_step(self, *args: Any, **kwargs: Any) -> Any:
            """Predict for one batch: by default `self(batch)`."""
            return self(args[0] if args else kwargs["batch"])

    # -- optimizers ----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Return the optimizer, or optimizers, with their schedulers."""
        raise ConfigError(
            "No `configure_optimizers()` method defined. Return an optimizer from it, e.g. torch.optim.Adam(self.parameters()), "
            "or None to run without."
        )

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """Return the optimizers for manual optimisation: one itself, several as a list."""
        return optimization.optimizers_of(self, wrapped=use_pl_optimizer)

    def lr_schedulers(self) -> Any:
        """Return the schedulers for manual optimisation: `None`, one itself, or a list."""
        return optimization.schedulers_of(self)

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients in manual optimisation; scales where the precision scales."""
        optimization.manual_backward(self, loss, *args, **kwargs)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of the loss; override to do it another way."""
        optimization.run_backward(self, loss, *args, **kwargs)

    def toggle_optimizer(self, optimizer: Any) -> None:
        """Let only this optimizer's parameters require gradients."""
        optimization.toggle(self, optimizer)

    def untoggle_optimizer(self, optimizer: Any) -> None:
        """Put back what `toggle_optimizer` changed."""
        optimization.untoggle(self, optimizer)

    def toggled_optimizer(self, optimizer: Any) -> AbstractContextManager[Any]:
        """Return a context in which only this optimizer's parameters require gradients."""
        return optimization.toggled(self, optimizer)

    def clip_gradients(self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
        """Clip the gradients of an optimizer's parameters.

        Raises:
            ConfigError: The values contradict Trainer's, or the algorithm is unknown.
        """
        optimization.clip(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None) -> None:
        """Clip before the step; override to clip another way."""
        self.clip_gradients(optimizer, gradient_clip_val=gradient_clip_val, gradient_clip_algorithm=gradient_clip_algorithm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None) -> None:
        """Step; the closure runs `training_step` and backward, so an override must run it."""
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Zero the gradients; override to do it another way."""
        optimizer.zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler; override for one of another kind."""
        scheduler.step() if metric is None else scheduler.step(metric)

    # -- logging -------------------------------------------------------------------------------------------------

    log = logging.log
    log_dict = logging.log_dict

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print on rank 0, without breaking the progress bar."""
        if self._runner is not None:
            self._runner.print(*args, **kwargs)
        else:
            print(*args, **kwargs)  # noqa: T201 - what it is for

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Gather tensors of a nested collection from all ranks: shape `(world_size, …)`; unchanged with one rank."""
        return self.trainer.strategy.all_gather(data, group=group, sync_grads=sync_grads)

    def count_samples(self, batch: Any) -> int:
        """Return how many samples a batch holds, for throughput; override where the first dimension is another thing."""
        return logging.batch_size_of(batch) or 0

    def count_tokens(self, batch: Any) -> int:
        """Return how many tokens a batch holds, for throughput; 0 where that means nothing."""
        return 0

    # -- the model as such ---------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Let no parameter require gradients, and go to evaluation mode."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        self.eval()

    def unfreeze(self) -> None:
        """Let every parameter require gradients, and go to training mode."""
        for parameter in self.parameters():
            parameter.requires_grad = True
        self.train()

    @torch.no_grad()
    def to_onnx(self, file_path: str | Path | None = None, input_sample: Any = None, **kwargs: Any) -> Any:
        """Export in ONNX format.

        Args:
            file_path: Where to write; default: nowhere, the program is returned.
            input_sample: What forward takes; default: `example_input_array`.
            **kwargs: Passed to `torch.onnx.export`.

        Raises:
            ConfigError: Neither an input sample nor `example_input_array`.
            MissingDependencyError: torch's exporter needs the package `onnxscript`.
        """
        sample = self.example_input_array if input_sample is None else input_sample
        if sample is None:
            raise ConfigError("Could not export to ONNX since neither `input_sample` nor `model.example_input_array` attribute is set.")
        require("onnxscript", purpose="LightningModule.to_onnx")
        was_training = self.training
        self.eval()
        try:
            sample = sample if isinstance(sample, tuple) else (sample,)
            sample = tuple(item.to(self.device) if isinstance(item, Tensor) else item for item in sample)
            return torch.onnx.export(self, sample, None if file_path is None else str(file_path), **kwargs)
        finally:
            self.train(was_training)

    def to_torchscript(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: TorchScript is no more.

        Raises:
            StateError: Always, with what to write instead.
        """
        raise StateError(
            "TorchScript is deprecated by PyTorch. Write program = torch.export.export(model, (example,)); "
            "torch.export.save(program, 'model.pt2')."
        )

    @class_method_only
    def load_from_checkpoint(
        cls,  # noqa: N805 - a class method that refuses instances
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a module with the weights and hyper-parameters of a checkpoint.

        Args:
            checkpoint_path: Path, URL or open file of a checkpoint that `Trainer` wrote.
            map_location: Where tensors go; default: where they were, or the CPU.
            hparams_file: A .yaml or .csv file whose values replace the stored ones.
            strict: Whether parameter names must match; default: `strict_loading`.
            weights_only: `False` trusts the file and runs the pickles in it.
            **kwargs: Override stored hyper-parameters.
        """
        return saving.load_module(
            cls, checkpoint_path, map_location=map_location, hparams_file=hparams_file, strict=strict, weights_only=weights_only, **kwargs
        )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict, as `torch.nn.Module` does."""
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def fabric_optimizers(self) -> Sequence[Any]:
        """The optimizers that Fabric set up with this module."""
        return self.__dict__["_fabric_optimizers"]
