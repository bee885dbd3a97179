"""The feeds of a run: loaders asked for when they are due, shared out over ranks, limited, and put where a restored run stood."""

import math
from collections.abc import Callable
from typing import Any

import torch

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_warn
from leyden.trainer.data import limits
from leyden.trainer.data.collections import flattened
from leyden.trainer.data.feed import Feed
from leyden.trainer.data.sources import has_hook, prepare
from leyden.trainer.engine.run import Run
from leyden.trainer.loops.check import check_dataloader_idx

_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_NAMES = {"validate": "val", "sanity": "val"}


def load_training(run: Run) -> None:
    """Make the training feed and work out when validation comes."""
    _load(run, "train")
    length = run.train.num_batches[0]
    cadence = run.config.cadence
    interval, every = cadence.val_check_interval, cadence.check_val_every_n_epoch
    counts_batches = cadence.validation_seconds is None and cadence.validation_steps is None
    if counts_batches and length and (cadence.limits["val"] or interval == 1.0):
        run.validation_batches = limits.validation_interval(interval, every_n_epochs=every, num_batches=length)
    if run.trainer.loggers and not run.fast_dev_run:
        limits.warn_of_logging_interval(length, cadence.log_every_n_steps)


def load_validation(run: Run) -> None:
    """Make the validation feed of fit; whoever makes the loaders finds the trainer validating."""
    stage, run.stage = run.stage, "validate" if run.stage == "train" else run.stage
    try:
        _load(run, "val")
        check_dataloader_idx(run, "validation", len(run.val.num_batches))
    finally:
        run.stage = stage


def load_sanity(run: Run) -> None:
    """Make the feed of the sanity check, over the validation loaders."""
    load_validation(run)
    most = run.config.cadence.num_sanity_val_steps
    counts = [min(count, most) for count in run.val.num_batches]
    run.sanity = Feed(run.val.loaders, num_batches=counts, mode=run.val.mode, transfer=run.val.transfer, name="val")


def load_evaluation(run: Run, stage: str) -> None:
    """Make the feed of `validate`, `test` or `predict`; none where its limit is 0."""
    name = _NAMES.get(stage, stage)
    if not run.config.cadence.limits[name]:
        run.val = Feed([], num_batches=[], mode="sequential", name=name)
        return
    _load(run, name)
    check_dataloader_idx(run, "validation" if stage == "validate" else stage, len(run.val.num_batches))


def reload_if_due(run: Run) -> None:
    """Ask for new loaders where `reload_dataloaders_every_n_epochs` says so."""
    every, epoch = run.config.cadence.reload_dataloaders_every_n_epochs, run.clock.epoch
    if run.train is None or limits.is_reload_due(every, epoch, run.loaded_in.get("train")):
        _close(run.train)
        load_training(run)
    if run.val is not None and limits.is_reload_due(every, epoch, run.loaded_in.get("val")):
        _close(run.val)
        run.val = None


def _close(feed: Feed | None) -> None:
    if feed is not None:
        feed.close()


def _load(run: Run, stage: str) -> None:
    cadence, strategy = run.config.cadence, run.strategy
    combined = run.source.load(stage)
    if cadence.overfit_batches and stage in ("train", "val"):
        combined = limits.unshuffled(combined, stage)
    elif stage != "train":
        limits.warn_of_shuffling(combined, stage)
    run.loaders[stage] = combined
    loaders = prepare(combined, stage, strategy=strategy, use_distributed_sampler=run.config.defaults.use_distributed_sampler)
    leaves = flattened(loaders)
    counts = limits.combined_num_batches(cadence.limits[stage], combined, leaves, stage)
    if strategy.world_size > 1:
        _check_ranks(run, stage, limits.lengths(leaves))
    feed = Feed(
        loaders,
        num_batches=counts,
        mode=combined.mode,
        limits=combined.limits,
        transfer=make_transfer(run),
        epoch=run.clock.epoch if stage == "train" else 0,
        name=stage,
    )
    setattr(run, "train" if stage == "train" else "val", feed)
    state = None if run.restored is None else run.restored.feed_state(stage)
    if state is None or stage not in run.loaded_in:  # else the saved run had loaded them in an earlier epoch
        run.loaded_in[stage] = run.clock.epoch
    if state is not None:
        try:
            feed.load_state_dict(state)
        except ConfigError as error:
            raise ConfigError(f"{error} The checkpoint was written with another {stage} loader; resume with that one.") from error


def _check_ranks(run: Run, stage: str, own: list[float]) -> None:
    strategy = run.strategy
    mine = torch.tensor([-1.0 if math.isinf(length) else length for length in own], dtype=torch.float64, device=strategy.root_device)
    gathered = strategy.all_gather(mine).reshape(strategy.world_size, len(own))
    allow = any(getattr(owner, "allow_zero_length_dataloader_with_multiple_devices", False) for owner in (run.module, run.datamodule))
    for column in range(len(own)):
        lengths = [math.inf if value < 0 else value for value in gathered[:, column].tolist()]
        limits.check_ranks(f"{stage}_dataloader", lengths, rank=strategy.global_rank, allow_zero=allow)


def make_transfer(run: Run) -> Callable[[Any, int], Any] | None:
    """Return what moves a batch to the device, through the hooks that somebody overrides; `None` where nothing is to be done."""
    device = run.strategy.root_device
    hooks = {name: _transfer_hook(run, name) for name in _TRANSFER}
    if not any(hooks.values()):
        if device.type == "cpu":
            return None
        move = run.strategy.batch_to_device
        return lambda batch, _loader: move(batch)
    before, transfer, after = (hooks[name] for name in _TRANSFER)

    def through_hooks(batch: Any, loader: int) -> Any:
        batch = before(batch, loader) if before else batch
        batch = transfer(batch, device, loader) if transfer else run.strategy.batch_to_device(batch)
        return after(batch, loader) if after else batch

    return through_hooks


def _transfer_hook(run: Run, name: str) -> Callable[..., Any] | None:
    in_data, in_module = has_hook(run.datamodule, name), run.plan.overrides(name)
    if in_data and in_module:
        rank_zero_warn(f"You have overridden `{name}` in both `LightningModule` and `LightningDataModule`. The data module's is used.")
    if in_data:
        return getattr(run.datamodule, name)
    return run.plan.method(name) if in_module else None
