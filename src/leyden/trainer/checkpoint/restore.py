"""How a run becomes what it was: read once, check everything, load in the documented order, and put random numbers last.

A file of one piece is read (mapped) at once, and weights are loaded before the strategy wraps the module. A directory of
shards is read in two goes: everything but weights first, and these after wrapping, each rank its own.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch

from leyden.core.errors import CheckpointKeyError, ConfigError, CorruptDataError, NotFoundError, StateError, closest, listed
from leyden.fabric import checkpoint, rng
from leyden.fabric.rank_zero import rank_zero_info, rank_zero_warn
from leyden.trainer.checkpoint import counters
from leyden.trainer.checkpoint.content import RANK
from leyden.trainer.checkpoint.rank_state import RankState
from leyden.trainer.core.errors import CheckpointNotFoundError
from leyden.trainer.core.hparams import decode
from leyden.trainer.data.feed import Feed
from leyden.trainer.engine.modes import set_modes
from leyden.trainer.engine.run import Left, Run
from leyden.trainer.engine.state import EvalPhase, Phase

_IN_BATCH = (Phase.BATCH_END, Phase.VALIDATION, Phase.AFTER_VALIDATION, Phase.MID_BATCH)


class Restored:
    """An opened checkpoint on its way into a run.

    Args:
        path: Where it lies.
        tree: Its content.
        rank: What this rank keeps for itself.
        generators: The random generators' states, as the saved run had them.
        is_trusted: Whether pickles in it may be read.
    """

    def __init__(
        self, path: str, tree: dict[str, Any], rank: RankState, generators: dict[str, Any] | None, *, is_trusted: bool = False
    ) -> None:
        self.path, self.tree, self.rank, self.generators = path, tree, rank, generators
        self.left: Left = None
        self.is_in_parts = "state_dict" not in tree  # directories of several ranks: weights are read into live objects only
        self._is_trusted = is_trusted

    @property
    def has_position(self) -> bool:
        """Whether it says where the run stood, as our files do; those of Lightning only count."""
        return "run_state" in self.tree

    def has_feed(self, stage: str) -> bool:
        """Return whether it says where the saved run stood in a stage's loaders."""
        return stage in self.rank.feeds

    def feed_state(self, stage: str) -> Any:
        """Return where the saved run stood in a stage's loaders; once, since reloaded ones begin anew."""
        return self.rank.feeds.pop(stage, None)

    def decode(self, value: Any) -> Any:
        """Return what the saved run had encoded.

        Raises:
            ConfigError: It holds pickles, and the file is not trusted.
        """
        return decode(value, trusted=self._is_trusted)

    def put_back(self, run: Run) -> None:
        """Restore metrics, gradients and random numbers: right before the first continued action, so that nothing moves them."""
        if "metrics" in self.tree:
            run.store.load_state_dict(self.tree["metrics"])
            if states := [self.decode(state) for state in self.rank.metrics]:
                # With as many ranks as before each has its own alone; it stands for the others', which it does not look at.
                is_alone = self.tree.get("run_state", {}).get("world_size") == run.strategy.world_size
                run.store.load_rank_states(states * run.strategy.world_size if is_alone else states)
        if gradients := self.tree.get("gradients"):
            for name, parameter in run.module.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device, copy=True)
            if not run.state.micro:
                run.pending = {id(item.optimizer) for item in run.optimizers}
        if self.generators is not None:
            rng.restore(self.generators, run.strategy.root_device)
        self.tree = {}


def open_checkpoint(run: Run, path: str, *, weights_only: bool | None) -> Restored:
    """Read a checkpoint.

    Raises:
        CheckpointNotFoundError: There is none at the path.
        CorruptDataError: It is damaged, or no checkpoint of Leyden or Lightning 2.x.
    """
    device, holder = run.strategy.root_device, RankState()
    before = rng.capture(device)
    try:
        tree = checkpoint.read(path, {RANK: holder}, strategy=run.strategy, strict=False, weights_only=weights_only, restore_rng="auto")
    except NotFoundError as error:
        raise CheckpointNotFoundError(f"Checkpoint file not found: {path}. {error}") from error
    generators = rng.capture(device)
    rng.restore(before, device)
    tree.pop(RANK, None)
    if "state_dict" not in tree and not {"epoch", "global_step", "pytorch-lightning_version"} <= tree.keys():
        raise CorruptDataError(f"{path} is not a checkpoint of Leyden or Lightning 2.x: it has the keys {listed(tree)}.")
    is_trusted = weights_only is False
    plain = ("state_dict", "optimizer_states", "gradients")
    decoded = {key: value if key in plain else decode(value, trusted=is_trusted, place=key) for key, value in tree.items()}
    return Restored(path, decoded, holder, generators if "run_state" in tree else None, is_trusted=is_trusted)


def load_model(run: Run, restored: Restored) -> None:
    """Load weights (where they come before wrapping), the data module's state, and callbacks, with their hooks."""
    module, tree = run.module, restored.tree
    module.on_load_checkpoint(tree)
    if "state_dict" in tree and run.strategy.state_layout == "replicated":
        load_weights(module, tree["state_dict"], strict=module.strict_loading, path=restored.path)
    if run.datamodule is not None:
        state = tree.get(type(run.datamodule).__qualname__)
        if state is not None and callable(getattr(run.datamodule, "load_state_dict", None)):
            run.datamodule.load_state_dict(state)


def load_callbacks(run: Run, restored: Restored) -> None:
    """Call `on_load_checkpoint` of callbacks and give each its state; say which of the saved ones are missing here."""
    tree = restored.tree
    states: Mapping[Any, Any] = tree.get("callbacks") or {}
    known = {callback.state_key for callback in run.callbacks} | {type(callback) for callback in run.callbacks}
    if missing := [key for key in states if key not in known]:
        rank_zero_warn(
            "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided during `Trainer` "
            f"instantiation. Please add the following callbacks: {[str(key) for key in missing]}."
        )
    for callback in run.callbacks:
        callback.on_load_checkpoint(run.trainer, run.module, tree)
    for callback in run.callbacks:
        state = states.get(callback.state_key, states.get(type(callback)))
        if state is not None:
            callback.load_state_dict(dict(state))


def load_weights(module: Any, weights: Mapping[str, Any], *, strict: bool, path: str) -> None:
    """Load a state dict; names and shapes are compared first, so that a misfit changes nothing.

    Raises:
        StateError: Names or shapes do not fit.
    """
    if strict:
        own = module.state_dict() if type(module).state_dict is torch.nn.Module.state_dict else None
        if own is not None and (problem := misfit(own, weights)):
            raise StateError(f"Error(s) in loading state_dict for {type(module).__name__} from {path}: {problem}")
    module.load_state_dict(weights, strict=strict)


def misfit(own: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    """Return what keeps `saved` from fitting `own`, in torch's words; empty where it fits."""
    missing, extra = [key for key in own if key not in saved], [key for key in saved if key not in own]
    parts = []
    if missing:
        parts.append(f"Missing key(s) in state_dict: {listed(missing)}.{closest(missing[0], saved)}")
    if extra:
        parts.append(f"Unexpected key(s) in state_dict: {listed(extra)}.{closest(extra[0], own)}")
    for key, value in own.items():
        other = saved.get(key)
        if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor) or torch.nn.parameter.is_lazy(value):
            continue
        if value.shape != other.shape:
            parts.append(f"size mismatch for {key}: {tuple(other.shape)} in the checkpoint, {tuple(value.shape)} in the model.")
    return " ".join(parts)


def loads_late(run: Run, restored: Restored) -> bool:
    """Return whether weights and optimizers are loaded after wrapping: because they lie in parts, here or there."""
    return restored.is_in_parts or run.strategy.state_layout != "replicated"


def load_sharded(run: Run, restored: Restored) -> None:
    """Load weights and optimizers that lie in parts, after wrapping; each rank reads its own."""
    state: dict[str, Any] = {"state_dict": run.module}
    if run.optimizers and "run_state" in restored.tree:
        state["optimizer_states"] = [item.optimizer for item in run.optimizers]
    checkpoint.read(restored.path, state, strategy=run.strategy, strict=run.module.strict_loading, restore_rng=False)


def load_training_state(run: Run, restored: Restored) -> None:
    """Load optimizers, schedulers, the loss scale's owner and the position.

    Raises:
        CheckpointKeyError: The file holds only a model.
        ConfigError: It is beyond `max_epochs`, or of other optimizers.
    """
    tree, is_sharded = restored.tree, loads_late(run, restored)
    if "optimizer_states" not in tree and not (is_sharded and "run_state" in tree):
        raise CheckpointKeyError(
            f"Trying to restore optimizer state but checkpoint contains only the model: {restored.path}. This is probably due to "
            "`ModelCheckpoint.save_weights_only` being set to `True`. Load the weights with load_from_checkpoint() and train anew."
        )
    if not is_sharded:
        _load_optimizers(run, restored)
    schedules = tree.get("lr_schedulers", [])
    if len(schedules) != len(run.schedulers):
        rank_zero_warn(
            f"{restored.path} holds the states of {len(schedules)} learning rate schedulers, configure_optimizers() returned "
            f"{len(run.schedulers)}: they are matched in order, and the rest begin anew."
        )
    for config, state in zip(run.schedulers, schedules, strict=False):
        config.scheduler.load_state_dict(state)
    _take_position(run, restored, length=math.inf)
    for item in run.optimizers if run.clock.step else ():
        item.optimizer._opt_called = True  # by the saved run; torch's schedulers warn where nothing has stepped
    limit = run.config.limits.max_epochs
    if limit != -1 and run.clock.epoch > limit:
        raise ConfigError(
            f"You restored a checkpoint with current_epoch={run.clock.epoch}, but you have set Trainer(max_epochs={limit}). "
            "Raise max_epochs."
        )
    if "modules_mode" in tree:
        set_modes(run.module, list(tree["modules_mode"]))
    run.state.should_stop = False  # whoever resumes asks to go on
    rank_zero_info("Restored all states from the checkpoint at %s", restored.path)


def _load_optimizers(run: Run, restored: Restored) -> None:
    states = restored.tree["optimizer_states"]
    if len(states) != len(run.optimizers):
        raise ConfigError(
            f"{restored.path} holds the states of {len(states)} optimizers, configure_optimizers() returned {len(run.optimizers)}. Return "
            "as many, or load the weights alone with load_from_checkpoint()."
        )
    for item, state in zip(run.optimizers, states, strict=True):
        item.optimizer.load_state_dict(state)
    scaler = restored.tree.get("MixedPrecision") or restored.tree.get("native_amp_scaling_state")
    if scaler:
        run.strategy.precision.load_state_dict(scaler)


def _take_position(run: Run, restored: Restored, *, length: float) -> None:
    tree = restored.tree
    position = tree.get("run_state")
    if position is None:
        position = counters.position(tree.get("loops", {}), tree["epoch"], tree["global_step"], length=length)
    restored.left = run.state.load_state_dict(dict(position))
    run.loaded_in = dict(position.get("loaded_in", {}))


# -- entering the loops ------------------------------------------------------------------------------------------


def enter_feeds(run: Run) -> None:
    """Build the iterators that a restored position lies in, and count batches as the loaders do.

    Another number of ranks makes other batches of the same samples, so there the loaders know better.
    """
    state, clock, restored = run.state, run.clock, run.restored
    if not restored.has_position:
        _enter_counted(run)
    if state.phase in _IN_BATCH or (state.phase is Phase.BATCH and clock.batch > 0):
        run.train.open()
        state.last_batch = run.train.is_last
        clock.batch = run.train.batch_idx + (state.phase is Phase.BATCH)
    if state.phase is Phase.VALIDATION and run.val is not None and state.eval is not None:
        run.val.open()
    _take_batch(run)


def _enter_counted(run: Run) -> None:
    """Find the place that a file of Lightning only counts, now that the length of an epoch is known."""
    state, clock, restored = run.state, run.clock, run.restored
    _take_position(run, restored, length=run.train.num_batches[0])
    done = clock.batch + (state.phase is not Phase.BATCH)
    is_inside = state.phase in _IN_BATCH or (state.phase is Phase.BATCH and clock.batch > 0)
    run.train.skip_to(clock.epoch + (state.phase is Phase.EPOCH_END), done if is_inside else 0)
    if is_inside and done < run.train.num_batches[0]:
        rank_zero_warn(
            f"You're resuming from a checkpoint that ended before the epoch ended, and {restored.path} does not say where its loaders "
            f"stood: the {done} batches that it trained on are counted, but the epoch's order begins anew. Checkpoints written from now on "
            "go on at the same sample."
        )


def _take_batch(run: Run) -> None:
    """Keep the batch that the saved run was inside of, to begin it again; without one, go on behind it."""
    state, restored = run.state, run.restored
    held, restored.rank.batch = restored.rank.batch, list[Any]()
    is_inside = state.phase is Phase.MID_BATCH
    if restored.has_position and restored.tree["run_state"].get("world_size") == run.strategy.world_size and held:
        try:
            restored.rank.batch = [restored.decode(held[0])]
        except ConfigError as error:
            rank_zero_warn(f"The batch that {restored.path} was written inside of is not run again. {error}")
    if restored.rank.batch:
        rank_zero_warn(
            f"{restored.path} was written inside a batch, which is run again. That is not exact: random numbers and whatever the batch had "
            "changed by then stay as they were. Save between two batches, or at the end of one, for an exact resume."
        )
    elif is_inside:
        run.clock.batch += 1
        state.phase = Phase.BATCH
    if is_inside or (state.eval is not None and state.eval.phase is EvalPhase.BATCH):
        restored.left = None


def with_batch_again(run: Run, feed: Feed) -> Iterable[Any]:
    """Return a feed's batches, behind the one that a restored run was inside of, if there is one."""
    if run.restored is None or not run.restored.rank.batch:
        return feed
    again = (feed.moved(batch, feed.dataloader_idx) for batch in [run.restored.rank.batch.pop()])
    return chain(again, feed)
