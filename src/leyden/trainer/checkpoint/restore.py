"""How a run becomes what it was: read once, check everything, load in the documented order, and put random numbers last.

A file of one piece is read (mapped) at once, and weights are loaded before the strategy wraps the module. A directory of
shards is read in two goes: everything but weights first, and these after wrapping, each rank its own.
"""

from collections.abc import Mapping
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
from leyden.trainer.engine.modes import set_modes
from leyden.trainer.engine.run import Left, Run

_OURS = ("state_dict", "run_state", "loops", "pytorch-lightning_version")


class Restored:
    """An opened checkpoint on its way into a run.

    Args:
        path: Where it lies.
        tree: Its content.
        rank: What this rank keeps for itself.
        generators: The random generators' states, as the saved run had them.
    """

    def __init__(self, path: str, tree: dict[str, Any], rank: RankState, generators: dict[str, Any] | None) -> None:
        self.path, self.tree, self.rank, self.generators = path, tree, rank, generators
        self.left: Left = None

    def feed_state(self, stage: str) -> Any:
        """Return where the saved run stood in a stage's loaders; once, since reloaded ones begin anew."""
        return self.rank.feeds.pop(stage, None)

    def put_back(self, run: Run) -> None:
        """Restore metrics, gradients and random numbers: right before the first continued action, so that nothing moves them."""
        if "metrics" in self.tree:
            run.store.load_state_dict(decode(self.tree["metrics"]))
            if self.rank.metrics:
                run.store.load_rank_states([decode(state) for state in self.rank.metrics])
        if gradients := self.tree.get("gradients"):
            for name, parameter in run.module.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device, copy=True)
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
    is_sharded = run.strategy.state_layout != "replicated" and "state_dict" not in tree
    if not is_sharded and "state_dict" not in tree:
        raise CorruptDataError(f"{path} is not a checkpoint of Leyden or Lightning 2.x: it has the keys {listed(tree)}.")
    decoded = {key: value if key in ("state_dict", "optimizer_states", "gradients") else decode(value) for key, value in tree.items()}
    return Restored(path, decoded, holder, generators if "run_state" in tree else None)


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
    tree, is_sharded = restored.tree, run.strategy.state_layout != "replicated"
    if "optimizer_states" not in tree and not (is_sharded and "run_state" in tree):
        raise CheckpointKeyError(
            f"Trying to restore optimizer state but checkpoint contains only the model: {restored.path}. This is probably due to "
            "`ModelCheckpoint.save_weights_only` being set to `True`. Load the weights with load_from_checkpoint() and train anew."
        )
    if not is_sharded:
        states = tree["optimizer_states"]
        if len(states) != len(run.optimizers):
            raise ConfigError(f"{restored.path} holds {len(states)} optimizers, configure_optimizers() returned {len(run.optimizers)}.")
        for item, state in zip(run.optimizers, states, strict=True):
            item.optimizer.load_state_dict(state)
        scaler = tree.get("MixedPrecision") or tree.get("native_amp_scaling_state")
        if scaler:
            run.strategy.precision.load_state_dict(scaler)
    for config, state in zip(run.schedulers, tree.get("lr_schedulers", []), strict=False):
        config.scheduler.load_state_dict(state)
    position = tree.get("run_state")
    if position is None:
        position = counters.position(tree.get("loops", {}), tree["epoch"], tree["global_step"], length=float("inf"))
    restored.left = run.state.load_state_dict(dict(position))
    limit = run.config.limits.max_epochs
    if limit != -1 and run.clock.epoch > limit:
        raise ConfigError(
            f"You restored a checkpoint with current_epoch={run.clock.epoch}, but you have set Trainer(max_epochs={limit}). "
            "Raise max_epochs."
        )
    if "modules_mode" in tree:
        set_modes(run.module, list(tree["modules_mode"]))
    run.state.should_stop = False
    rank_zero_info("Restored all states from the checkpoint at %s", restored.path)
