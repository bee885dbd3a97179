"""`Snapshot`: what a run can change, kept in memory: the checkpoint's content on the CPU, and what no checkpoint needs.

Beside the checkpoint lie the tensors that are in no state dict (buffers that are not persistent, weights that a module
leaves out) and, where a strategy keeps weights in parts, this rank's parts instead of the whole.
"""

from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import UnsupportedError
from leyden.fabric.trees import map_tensors
from leyden.trainer.checkpoint import content, restore
from leyden.trainer.checkpoint.rank_state import RankState
from leyden.trainer.core.hparams import decode
from leyden.trainer.engine.modes import set_modes
from leyden.trainer.engine.run import Run


class Snapshot:
    """The state of a run's module, data module, optimizers, schedulers, scaler and metric objects.

    Args:
        run: The run. Its module's hooks for checkpoints are called, as for one that is written.

    Raises:
        UnsupportedError: The strategy keeps weights where nobody else can put them back.
    """

    def __init__(self, run: Run) -> None:
        strategy, module = run.strategy, run.module
        if strategy.state_layout == "foreign":
            raise UnsupportedError(
                f"{type(strategy).__name__} keeps weights and optimizers to itself, so a trial cannot put them back. Find the value with "
                "another strategy, such as strategy='ddp', and set it."
            )
        with torch.no_grad():
            tree = content.build(run)
            self._rank: RankState = tree.pop(content.RANK)
            if strategy.state_layout != "replicated":
                tree |= {"state_dict": {}, "optimizer_states": [item.optimizer.state_dict() for item in run.optimizers]}
            self._tree = {key: kept(value) for key, value in tree.items()}
            weights = self._tree["state_dict"]
            if (versions := getattr(tree["state_dict"], "_metadata", None)) is not None:
                weights._metadata = versions
            self._others = {name: kept(tensor) for name, tensor in _tensors(module) if name not in weights}
            precision = getattr(strategy.precision, "state_dict", dict)()
            self._precision = kept(precision)
        self._gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
        for parameter, _ in self._gradients:
            parameter.grad = None

    @torch.no_grad()
    def put_back(self, run: Run) -> None:
        """Make everything what it was; the tensors themselves stay, only their values change."""
        module, tree = run.module, {key: decode(value, trusted=True) for key, value in self._tree.items()}
        for parameter, gradient in self._gradients:  # first: whatever the trial left there may fill the device's memory
            parameter.grad = gradient
        restored = restore.Restored("the state before the trial", tree, self._rank, None)
        if run.strategy.state_layout == "replicated":
            restore.load_model(run, restored)
        tensors = dict(_tensors(module))
        for name, value in self._others.items():
            _set(module, name, tensors.get(name), value)
        for item, state in zip(run.optimizers, tree["optimizer_states"], strict=True):
            item.optimizer.load_state_dict(state)
        for config, state in zip(run.schedulers, tree["lr_schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        if self._precision:
            run.strategy.precision.load_state_dict(self._precision)
        run.store.load_rank_states([decode(state, trusted=True) for state in self._rank.metrics] or [{"values": {}, "objects": {}}])
        set_modes(module, list(tree["modules_mode"]))


def kept(value: Any) -> Any:
    """Return a copy of a tree whose tensors are on the CPU; parts of sharded tensors stay where they are."""
    return map_tensors(value, lambda tensor: tensor.detach().clone() if is_sharded(tensor) else tensor.detach().to("cpu", copy=True))


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a part of one that lies on several ranks."""
    return hasattr(tensor, "to_local")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _set(module: nn.Module, name: str, now: Tensor | None, value: Tensor) -> None:
    if now is not None and now.shape == value.shape:
        now.copy_(value)
        return
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)  # the trial put another tensor there, or took it away
    if leaf in owner._buffers:
        owner._buffers[leaf] = value if now is None else value.to(now.device)
