"""`BaseFinetuning` freezes parts of a module before training and lets them join in later; `BackboneFinetuning` does it for a backbone.

A checkpoint holds each optimizer's groups by **names** of parameters, and which parameters train. A resumed run rebuilds
both in `on_fit_start`, before the optimizers' states are loaded into them.

Replicas reduce the gradients of the parameters that trained when the module was set up; those of parameters that join
later are averaged here, after each backward pass.
"""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, StateError, UnsupportedError
from leyden.core.log import get_logger
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.core.callback import Callback

Modules = nn.Module | Iterable[nn.Module] | Iterable[Iterable[nn.Module]]
_logger = get_logger(__name__)


class BaseFinetuning(Callback):
    """Base of callbacks that freeze and unfreeze; override `freeze_before_training` and `finetune_function`.

    Example:
        ```python
        class UnfreezeEncoder(BaseFinetuning):
            def freeze_before_training(self, pl_module):
                self.freeze(pl_module.encoder)

            def finetune_function(self, pl_module, epoch, optimizer):
                if epoch == 3:
                    self.unfreeze_and_add_param_group(pl_module.encoder, optimizer, lr=1e-4)
        ```
    """

    def __init__(self) -> None:
        self._groups: dict[int, list[dict[str, Any]]] = {}  # optimizer → its groups, with names of parameters
        self._training: tuple[list[str], list[str]] | None = None  # parameters, and batch norms that keep statistics
        self._is_restored = False
        self._joined_late: list[nn.Parameter] = []
        self._frozen_at_setup: list[nn.Parameter] = []

    # -- what users override -------------------------------------------------------------------------------------

    def freeze_before_training(self, pl_module: Any) -> None:
        """Freeze what is not to train at first."""
        raise StateError(f"{type(self).__name__} lacks freeze_before_training(pl_module). Define it: self.freeze(pl_module.backbone).")

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        """Called at the start of each training epoch, for each optimizer: unfreeze, add groups, change learning rates."""
        raise StateError(f"{type(self).__name__} lacks finetune_function(pl_module, epoch, optimizer). Define it.")

    # -- tools for them ------------------------------------------------------------------------------------------

    @staticmethod
    def flatten_modules(modules: Modules) -> list[nn.Module]:
        """Return all modules in `modules` that have parameters of their own or no children, each once."""
        if isinstance(modules, nn.Module):
            found = list(modules.modules())
        else:
            found = [inner for module in modules for inner in BaseFinetuning.flatten_modules(module)]
        return [module for module in dict.fromkeys(found) if not list(module.children()) or module._parameters]

    @staticmethod
    def filter_params(
        modules: Modules,
        train_bn: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        requires_grad: bool = True,  # noqa: FBT001, FBT002 - the documented signature
    ) -> Generator[nn.Parameter, None, None]:
        """Yield the parameters of `modules` that require gradients, or those that do not.

        Args:
            modules: A module or a collection.
            train_bn: Whether batch norms are included.
            requires_grad: Which of the two.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and not train_bn:
                continue
            yield from (parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad == requires_grad)

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Let all parameters of `modules` require gradients, and batch norms keep statistics."""
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm):
                module.track_running_stats = True
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = True

    @staticmethod
    def freeze_module(module: nn.Module) -> None:
        """Freeze the parameters that lie directly in `module`; a batch norm keeps no statistics any more."""
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:  # noqa: FBT001, FBT002 - the documented signature
        """Freeze `modules`.

        Args:
            modules: A module or a collection.
            train_bn: Whether batch norms go on training.
        """
        for module in BaseFinetuning.flatten_modules(modules):
            if isinstance(module, _BatchNorm) and train_bn:
                BaseFinetuning.make_trainable(module)
            else:
                BaseFinetuning.freeze_module(module)

    @staticmethod
    def filter_on_optimizer(optimizer: Optimizer, params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Return those of `params` that the optimizer does not have; warn of the others."""
        held = _held(optimizer)
        given = list(params)
        new = [parameter for parameter in given if id(parameter) not in held]
        if len(new) < len(given):
            rank_zero_warn(
                f"{len(given) - len(new)} of the parameters to add are in a group of this {type(optimizer).__name__} already, and are left "
                "there. In configure_optimizers, give it those that train at first: "
                f"{type(optimizer).__name__}(filter(lambda p: p.requires_grad, self.parameters()), ...)."
            )
        return new

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,  # noqa: FBT001, FBT002 - the documented signature
    ) -> None:
        """Let `modules` train, in a group of their own.

        Args:
            modules: A module or a collection.
            optimizer: The optimizer that gets the group.
            lr: The group's learning rate; `None`: the first group's divided by `initial_denom_lr`.
            initial_denom_lr: See there.
            train_bn: Whether batch norms join in.
        """
        trained = {id(parameter) for parameter in BaseFinetuning.filter_params(modules, requires_grad=True)}
        trained &= _held(optimizer)  # such as batch norms that never stopped: nothing to add, nothing to warn of
        BaseFinetuning.make_trainable(modules)
        rate = optimizer.param_groups[0]["lr"] / initial_denom_lr if lr is None else float(lr)
        unfrozen = BaseFinetuning.filter_params(modules, train_bn=train_bn, requires_grad=True)
        new = BaseFinetuning.filter_on_optimizer(optimizer, (parameter for parameter in unfrozen if id(parameter) not in trained))
        if new:
            optimizer.add_param_group({"params": new, "lr": rate})

    # -- hooks ---------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":  # before configure_optimizers, which looks at what requires gradients
            self.freeze_before_training(pl_module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Rebuild what a checkpoint says of groups and of what trains.

        Raises:
            UnsupportedError: A strategy whose engine owns the optimizer.
            StateError: The checkpoint is of another module.
        """
        if trainer.strategy.owns_backward:
            raise UnsupportedError(
                f"{type(self).__name__} adds groups to optimizers during training, which {type(trainer.strategy).__name__} does not allow. "
                "Use strategy='fsdp' or 'ddp'."
            )
        replicates = trainer.strategy.world_size > 1 and trainer.strategy.state_layout == "replicated"
        self._joined_late = []
        self._frozen_at_setup = [p for p in pl_module.parameters() if not p.requires_grad] if replicates else []
        if self._is_restored:
            self._restore(trainer, pl_module)
            self._is_restored = False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        for index, optimizer in enumerate(trainer.optimizers):
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
            self._groups[index] = [_named(group, names) for group in optimizer.param_groups]
        self._note_training(pl_module)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if not self._joined_late:
            return
        for parameter in self._joined_late:  # a mean of means: right again after each batch that accumulates
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            trainer.strategy.all_reduce(parameter.grad, reduce_op="mean")

    def state_dict(self) -> dict[str, Any]:
        if self._training is None:
            return {}
        groups = {index: [dict(group) for group in found] for index, found in self._groups.items()}
        return {"internal_optimizer_metadata": groups, "training": self._training[0], "statistics": self._training[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_restored = "internal_optimizer_metadata" in state_dict
        self._groups = {int(index): list(groups) for index, groups in state_dict.get("internal_optimizer_metadata", {}).items()}
        self._training = (list(state_dict["training"]), list(state_dict.get("statistics", ()))) if "training" in state_dict else None

    # -- resuming ------------------------------------------------------------------------------------------------

    def _restore(self, trainer: Any, pl_module: Any) -> None:
        """Make optimizers and module what they were when the checkpoint was written.

        Raises:
            StateError: The checkpoint names a parameter that the module does not have.
        """
        parameters = dict(pl_module.named_parameters())
        wanted = {name for groups in self._groups.values() for group in groups for name in group["params"]}
        if missing := sorted(wanted - parameters.keys()):
            raise StateError(
                f"{type(self).__name__}: the checkpoint's optimizers hold {missing[0]!r}, which {type(pl_module).__name__} does not have. "
                "Resume with the module that was trained."
            )
        for index, optimizer in enumerate(trainer.optimizers):
            _regroup(optimizer, self._groups.get(index, []), parameters)
        # Files of Lightning do not say what trained: it is what lies in the optimizers.
        training, statistics = self._training or (sorted(wanted), [])
        for name, parameter in parameters.items():
            parameter.requires_grad = name in set(training)
        for name, module in pl_module.named_modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = name in set(statistics) if self._training else module.track_running_stats
        self._note_training(pl_module)

    def _note_training(self, pl_module: Any) -> None:
        training = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
        norms = ((name, module) for name, module in pl_module.named_modules() if isinstance(module, _BatchNorm))
        self._training = (training, [name for name, module in norms if module.track_running_stats])
        self._joined_late = [parameter for parameter in self._frozen_at_setup if parameter.requires_grad]


def _held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _named(group: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    """Return a group's options, with names in place of its parameters."""
    return {**group, "params": [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]}


def _regroup(optimizer: Optimizer, saved: list[dict[str, Any]], parameters: dict[str, nn.Parameter]) -> None:
    """Give an optimizer the saved groups; those that it has keep their options, which its state brings along."""
    for position, group in enumerate(saved):
        members = [parameters[name] for name in group["params"]]
        if position < len(optimizer.param_groups):
            optimizer.param_groups[position]["params"] = members
        else:
            optimizer.add_param_group({**group, "params": members})


def multiplicative(epoch: int) -> float:
    """Return 2: a backbone's learning rate doubles with each epoch."""
    return 2.0


class BackboneFinetuning(BaseFinetuning):
    """Trains `pl_module.backbone` from an epoch on, with a learning rate that grows to that of the rest.

    Args:
        unfreeze_backbone_at_epoch: The epoch.
        lambda_func: Epoch → by what the backbone's learning rate is multiplied at its end.
        backbone_initial_ratio_lr: The backbone's first learning rate, as a part of the first group's.
        backbone_initial_lr: … or as a number.
        should_align: Whether it stops growing at the first group's.
        initial_denom_lr: What `unfreeze_and_add_param_group` divides by where it is given no rate.
        train_bn: Whether the backbone's batch norms train from the beginning.
        verbose: Whether learning rates are logged at each epoch.
        rounding: Digits of them in the log.

    Example:
        >>> BackboneFinetuning(unfreeze_backbone_at_epoch=2, lambda_func=lambda epoch: 1.5).should_align
        True
    """

    def __init__(  # noqa: PLR0913 - the documented signature
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,  # noqa: FBT001, FBT002 - the documented signature
        verbose: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        rounding: int = 12,
    ) -> None:
        super().__init__()
        self.unfreeze_backbone_at_epoch = unfreeze_backbone_at_epoch
        self.lambda_func = lambda_func
        self.backbone_initial_ratio_lr = backbone_initial_ratio_lr
        self.backbone_initial_lr = backbone_initial_lr
        self.should_align = should_align
        self.initial_denom_lr = initial_denom_lr
        self.train_bn = train_bn
        self.verbose = verbose
        self.rounding = rounding
        self.previous_backbone_lr: float | None = None

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "previous_backbone_lr": self.previous_backbone_lr} if state else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous_backbone_lr = state_dict.get("previous_backbone_lr")
        super().load_state_dict(state_dict)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self.previous_backbone_lr = None
        super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(_backbone(pl_module), train_bn=self.train_bn)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        if epoch < self.unfreeze_backbone_at_epoch:
            return
        if epoch == self.unfreeze_backbone_at_epoch or self.previous_backbone_lr is None:  # the latter: resumed from a file without us
            self._unfreeze(pl_module, optimizer)
        else:
            self._grow(epoch, self.previous_backbone_lr, optimizer)
        if self.verbose:
            _logger.info(
                "learning rates in epoch %d: %s, backbone %s",
                epoch,
                round(optimizer.param_groups[0]["lr"], self.rounding),
                round(optimizer.param_groups[-1]["lr"], self.rounding),
            )

    def _unfreeze(self, pl_module: Any, optimizer: Optimizer) -> None:
        first = self.backbone_initial_lr
        if first is None:
            first = optimizer.param_groups[0]["lr"] * self.backbone_initial_ratio_lr
        self.previous_backbone_lr = first
        self.unfreeze_and_add_param_group(
            pl_module.backbone, optimizer, first, train_bn=self.train_bn, initial_denom_lr=self.initial_denom_lr
        )

    def _grow(self, epoch: int, previous: float, optimizer: Optimizer) -> None:
        others = optimizer.param_groups[0]["lr"]
        grown = self.lambda_func(epoch + 1) * previous
        rate = others if self.should_align and grown > others else grown
        optimizer.param_groups[-1]["lr"] = self.previous_backbone_lr = rate


def _backbone(pl_module: Any) -> nn.Module:
    backbone = getattr(pl_module, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f"The LightningModule should have a nn.Module `backbone` attribute, but {type(pl_module).__name__} has none. "
            "Name it so, or derive from BaseFinetuning."
        )
    return backbone
