"""What is in a checkpoint: the documented keys, our position, and what each rank keeps for itself.

Everything in it is plain data and tensors. What users put there is encoded (`core/hparams.py`), so that every file opens
with `torch.load(path, weights_only=True)`.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

import leyden
from leyden.core.errors import ConfigError
from leyden.fabric.strategies.strategy import Strategy
from leyden.fabric.trees import map_tensors
from leyden.trainer.checkpoint import counters
from leyden.trainer.checkpoint.rank_state import RankState
from leyden.trainer.core.hparams import encode, encode_hparams
from leyden.trainer.engine.modes import names_in_eval
from leyden.trainer.engine.run import Run
from leyden.trainer.engine.state import EvalPhase, Phase

LAYOUT_VERSION = "2.6.6"
RANK = "ranks"
"""The key of what differs from rank to rank."""


def build(run: Run, *, weights_only: bool = False) -> dict[str, Any]:
    """Return the checkpoint of a run; every rank calls it. Hooks are called in the documented order."""
    module, state, clock = run.module, run.state, run.clock
    weights = run.strategy.get_module_state_dict(module)
    checkpoint: dict[str, Any] = {
        "epoch": clock.epoch,
        "global_step": clock.step,
        "pytorch-lightning_version": LAYOUT_VERSION,
        "leyden_version": leyden.__version__,
        "state_dict": weights,
        "loops": counters.tree(state, automatic=module.automatic_optimization),
    }
    if not weights_only:
        checkpoint["callbacks"] = callback_states(run)
        checkpoint["optimizer_states"] = [run.strategy.get_optimizer_state(item.optimizer) for item in run.optimizers]
        checkpoint["lr_schedulers"] = [config.scheduler.state_dict() for config in run.schedulers]
    _add_hparams(run, checkpoint)
    if not weights_only:
        if run.datamodule is not None and callable(getattr(run.datamodule, "state_dict", None)) and (own := run.datamodule.state_dict()):
            checkpoint[type(run.datamodule).__qualname__] = own
        if scale := run.strategy.precision.state_dict():
            checkpoint["MixedPrecision"] = scale
    _fire(run, checkpoint, with_callbacks=not weights_only)
    known = {"state_dict", "optimizer_states"}
    encoded = {key: value if key in known or isinstance(value, nn.Module) else _encoded(key, value) for key, value in checkpoint.items()}
    if weights_only:
        return encoded
    is_live = encoded["state_dict"] is weights or isinstance(encoded["state_dict"], nn.Module)  # what callbacks made plain stays so
    return _live(run, {**encoded, **_position(run)}) if is_live else {**encoded, **_position(run)}


def _encoded(key: str, value: Any) -> Any:
    is_hparams = key in ("hyper_parameters", "datamodule_hyper_parameters") and isinstance(value, dict)
    return encode_hparams(value) if is_hparams else encode(value, str(key))


def callback_states(run: Run) -> dict[str, Any]:
    """Return callback key → state, of those that have one."""
    return {callback.state_key: state for callback in run.callbacks if (state := callback.state_dict())}


def _fire(run: Run, checkpoint: dict[str, Any], *, with_callbacks: bool) -> None:
    """Call `on_save_checkpoint`, where nothing can be logged, whatever hook the save is in."""
    outer, run.store.current = run.store.current, run.store.slots(run.stage, "on_save_checkpoint")
    try:
        for callback in run.callbacks if with_callbacks else ():
            callback.on_save_checkpoint(run.trainer, run.module, checkpoint)
        run.module.on_save_checkpoint(checkpoint)
    finally:
        run.store.current = outer


def _add_hparams(run: Run, checkpoint: dict[str, Any]) -> None:
    for owner, prefix in ((run.module, ""), (run.datamodule, "datamodule_")):
        hparams = getattr(owner, "hparams", None) if owner is not None else None
        if not hparams:
            continue
        if name := getattr(owner, "_hparams_name", None):
            checkpoint[f"{prefix}hparams_name"] = name
        checkpoint[f"{prefix}hyper_parameters"] = dict(hparams)


def _position(run: Run) -> dict[str, Any]:
    modes = run.training_modes
    in_eval = names_in_eval(run.module)
    if modes is not None:  # saved inside an evaluation: what counts are the modes to go back to
        names = {id(part): name for name, part in run.module.named_modules()}
        in_eval = [names[id(part)] for part, is_training in modes if not is_training and id(part) in names]
    strategy = run.strategy
    position = run.state.state_dict() | {"world_size": strategy.world_size, "loaded_in": dict(run.loaded_in)}
    if run.state.phase is Phase.BATCH and run.train is not None and run.train.is_moving:
        position |= {"phase": str(Phase.MID_BATCH), "last_batch": run.train.is_last}  # its feed has counted it
    extra: dict[str, Any] = {"run_state": position, "metrics": encode(run.store.state_dict()), "modules_mode": in_eval}
    if gradients := _unused_gradients(run):
        extra["gradients"] = gradients
    feeds = {stage: feed.state_dict() for stage, feed in (("train", run.train), ("val", run.val)) if feed is not None}
    extra[RANK] = RankState(run.feed_states or feeds, encode(run.store.rank_state()), _batch_in_progress(run))
    return extra


def _unused_gradients(run: Run) -> dict[str, Tensor]:
    """Return the gradients that wait for a step, by parameter name: those of micro-batches, or of a module that steps by hand."""
    if not run.state.micro and not run.pending:
        return {}
    waiting = {
        id(parameter)
        for item in run.optimizers
        if run.state.micro or id(item.optimizer) in run.pending
        for group in item.optimizer.param_groups
        for parameter in group["params"]
    }
    named = run.module.named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None and id(parameter) in waiting}


def _batch_in_progress(run: Run) -> list[Any]:
    """Return the batch that a resumed run has to begin again, since its feed has counted it; empty between two batches."""
    state, position = run.state, run.state.eval
    if position is not None:
        feed, is_inside = run.val, position.phase is EvalPhase.BATCH and run.batch is not None
    else:
        feed, is_inside = run.train, state.phase is Phase.MID_BATCH
    if feed is None or feed.batch is None or not (is_inside or feed.is_moving):
        return []
    with contextlib.suppress(ConfigError):  # nothing that can be kept: the resumed run says that it goes on behind it
        return [encode(map_tensors(feed.batch, _alone), "batch")]
    return []


def _alone(tensor: Tensor) -> Tensor:
    """Return a tensor without the rest of the memory that it is a part of, which would be written too."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _live(run: Run, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Put the objects themselves in place of their states where the strategy keeps them in parts: each rank writes its own."""
    if run.strategy.state_layout == "replicated":
        return checkpoint
    weights = checkpoint["state_dict"]
    module = weights if isinstance(weights, nn.Module) else run.module  # a callback may have put another one there
    return checkpoint | {"state_dict": module, "optimizer_states": [item.optimizer for item in run.optimizers]}


def save(run: Run, path: Any, *, weights_only: bool = False, storage_options: Any = None, blocking: bool = True) -> None:
    """Write a checkpoint; every rank calls it, and no rank returns before the file is complete.

    Raises:
        StorageError: Disk, network or permission; the previous file is as it was.
    """
    if run.state.fn != "fit" and run.fitted is not None and run.fitted.module is run.module:
        run = run.fitted
    run.state.saves += 1
    with torch.no_grad():
        checkpoint = build(run, weights_only=weights_only)
    for logger in run.trainer.loggers:
        if not getattr(logger, "is_remote", True):
            logger.save()  # rows up to here are on disk before the checkpoint: a resumed run writes none of them again
    strategy: Strategy = run.strategy
    strategy.save_checkpoint(path, checkpoint, storage_options=storage_options, blocking=blocking)
    if blocking:
        strategy.barrier("Trainer.save_checkpoint")
