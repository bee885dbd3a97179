"""The files of DeepSpeed's engine in a checkpoint: saved under one tag, and looked at before they are loaded.

The engine unpickles what it loads. So the names that its files would import are read first, without running anything, and
compared with the few that DeepSpeed itself writes.
"""

import contextlib
import importlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, CorruptDataError, StorageError, UnsupportedError, listed
from leyden.core.storage import is_url
from leyden.fabric.checkpoint import layout
from leyden.fabric.checkpoint.deepspeed import user_values
from leyden.fabric.checkpoint.items import find_items, kind_of
from leyden.fabric.checkpoint.opening import resolve
from leyden.fabric.checkpoint.peers import Peers
from leyden.fabric.checkpoint.restore import restore
from leyden.fabric.checkpoint.restricted import read_torch
from leyden.fabric.checkpoint.saved import Saved
from leyden.fabric.names import class_name
from leyden.fabric.strategies.deepspeed_engine import Engines, check_fit, load_whole_state_dict, whole_shapes

if TYPE_CHECKING:
    from leyden.fabric.strategies.strategy import Strategy

FOLDER, TAG, LATEST = "deepspeed", "checkpoint", "latest"
# Beyond what torch's own safe reader knows: classes that hold numbers, and an enumeration.
EXPECTED_NAMES = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)


class EngineOwner(Protocol):
    """What is used here of `DeepSpeedStrategy`, which imports this module."""

    engines: Engines
    exclude_frozen_parameters: bool

    @property
    def stage(self) -> int:
        """The ZeRO stage."""

    @property
    def zero_stage_3(self) -> bool:
        """Whether weights are cut up."""

    @property
    def global_rank(self) -> int:
        """This process's rank."""

    @property
    def world_size(self) -> int:
        """The number of ranks."""


def save(strategy: EngineOwner, directory: Path, objects: Mapping[str, Any]) -> None:
    """Write the engine's files below `directory`; every rank calls it.

    Raises:
        ConfigError: Objects of no engine, or of several.
        UnsupportedError: An inference engine at stage 3, which has nothing that it could save.
    """
    started = strategy.engines.one_of(objects, "save")
    if started.optimizer is None and strategy.zero_stage_3:
        raise UnsupportedError("DeepSpeed does not save a stage 3 model that was set up for inference. Set it up with its optimizer.")
    lean = strategy.exclude_frozen_parameters
    with strategy.engines.working():
        started.engine.save_checkpoint(str(directory / FOLDER), tag=TAG, client_state={}, exclude_frozen_parameters=lean)


def check(strategy: EngineOwner, directory: Path, objects: Mapping[str, Any], *, is_strict: bool, is_trusted: bool = False) -> None:
    """Refuse files that the engine could not load; nothing in them is run. Every rank calls it.

    Raises:
        ConfigError: Objects of no engine or several, other names or shapes, another number of ranks or another stage.
        StorageError: The files would run code when they are loaded, and are not trusted.
        CorruptDataError: They are damaged.
    """
    started = strategy.engines.one_of(objects, "load")
    lean = strategy.exclude_frozen_parameters
    frozen = {name for name, parameter in started.module.named_parameters() if not parameter.requires_grad} if lean else set[str]()

    def look() -> None:
        folder, tag = locate(directory)
        files = sorted((folder / tag).glob("*.pt"))
        if not is_trusted:
            for path in files[strategy.global_rank :: strategy.world_size]:  # the ranks share the work; if one refuses, all do
                check_names(path)
        states = read_torch(next(path for path in files if path.name.endswith("_model_states.pt")))
        check_origin(directory, states, stage=strategy.stage, world_size=strategy.world_size, with_optimizer=_has_optimizer(objects))
        live, found = whole_shapes(started.module), saved_shapes(states)
        live = {name: shape for name, shape in live.items() if name in found or name not in frozen}
        check_fit(live, found, class_name(started.module), is_strict=is_strict)

    Peers.of(cast("Strategy", strategy)).agreed("look at DeepSpeed's files", look)


def load(strategy: EngineOwner, directory: Path, objects: Mapping[str, Any], *, is_strict: bool) -> None:
    """Load the engine's files, which `check` has looked at; every rank calls it."""
    started = strategy.engines.one_of(objects, "load")
    folder, tag = locate(directory)
    with_optimizer = _has_optimizer(objects)
    with strategy.engines.working():
        if strategy.zero_stage_3 and not with_optimizer:
            weights = whole_weights(directory)
            load_whole_state_dict(started.engine, started.module, weights, is_strict=False)
            return
        started.engine.load_checkpoint(
            str(folder),
            tag=tag,
            load_module_strict=is_strict and not strategy.exclude_frozen_parameters,
            load_optimizer_states=with_optimizer,
            load_lr_scheduler_states=with_optimizer,
            load_module_only=not with_optimizer,
        )


def whole_weights(directory: Path) -> dict[str, Any]:
    """Return the weights of files of stage 3, whole and in float32, merged by DeepSpeed's own script."""
    script = importlib.import_module("deepspeed.utils.zero_to_fp32")  # there is an engine, so most of it is imported
    folder, tag = locate(directory)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it is a program, and prints
        return dict(script.get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=tag) or {})


def locate(directory: Path) -> tuple[Path, str]:
    """Return the engine's folder and the tag in it: ours, or those of a folder that DeepSpeed or Lightning 2.x wrote.

    Raises:
        CorruptDataError: There are no files of an engine.
    """
    for folder in (directory / FOLDER, directory):
        tags = sorted({path.parent.name for path in folder.glob("*/*_model_states.pt")})
        latest = folder / LATEST
        if latest.is_file() and (tag := latest.read_text(encoding="utf-8").strip()) in tags:
            return folder, tag
        if tags:
            return folder, TAG if TAG in tags else tags[-1]
    raise CorruptDataError(
        f"{directory} holds no files of DeepSpeed's engine (deepspeed/{TAG}/*_model_states.pt). Load another checkpoint."
    )


def check_names(path: Path) -> None:
    """Refuse a file whose pickle would import anything but the few names that DeepSpeed writes; it is not run.

    Raises:
        StorageError: It would.
        CorruptDataError: It is no file of `torch.save`.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # bytes of strangers: torch raises whatever it trips over
        raise CorruptDataError(f"{path} is damaged, or no file of torch.save: {error}. Load another checkpoint.") from error
    strange = sorted(set(names) - EXPECTED_NAMES)
    if strange:
        raise StorageError(
            f"{path} would import {listed(strange)} when DeepSpeed loads it, which may run any code. If you trust the file: "
            "fabric.load(path, state, weights_only=False)."
        )


def check_origin(directory: Path, states: Mapping[str, Any], *, stage: int, world_size: int, with_optimizer: bool) -> None:
    """Refuse files of another stage or number of ranks where that matters.

    Raises:
        ConfigError: They are.
    """
    saved = int(states.get("ds_config", {}).get("zero_optimization", {}).get("stage", stage))
    alike = {saved, stage} <= {1, 2} or saved == stage  # stages 1 and 2 cut the same way
    if not alike and (with_optimizer or 3 in (saved, stage)):
        raise ConfigError(
            f"{directory} was saved at ZeRO stage {saved}, this run is at stage {stage}, which cuts otherwise. Use stage={saved}, "
            f"or convert it and load the weights: leyden ckpt convert {directory} {directory}.ckpt"
        )
    ranks = states.get("dp_world_size", world_size)
    if with_optimizer and saved > 0 and ranks != world_size:
        raise ConfigError(
            f"{directory} was saved by {ranks} ranks, this run has {world_size}, and ZeRO's optimizer states are cut for that number. "
            f"Load the weights alone (leave the optimizer out of state), or run on {ranks} ranks."
        )


def saved_shapes(states: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Return the names in an engine's file with the shapes of the whole tensors; at stage 3 it holds placeholders."""
    shapes = {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in states["module"].items()}
    groups = [*(states.get("param_shapes") or []), states.get("frozen_param_shapes") or {}]
    for group in groups:
        shapes |= {name: tuple(shape) for name, shape in dict(group).items() if name in shapes}
    shared = dict(states.get("shared_params") or {})  # tied name → the name under which the shape is told
    return shapes | {name: shapes[kept] for name, kept in shared.items() if name in shapes and kept in shapes}


def is_engines(path: str | os.PathLike[str]) -> bool:
    """Return whether a DeepSpeed engine wrote the checkpoint, as far as can be told without fetching it."""
    if is_url(os.fspath(path)):
        return True
    place = resolve(Path(path))
    return layout.is_complete(place) and layout.read_meta(place).layout == "deepspeed"


def foreign_folder(path: str | os.PathLike[str]) -> Path | None:
    """Return the folder of a DeepSpeed checkpoint that Leyden did not write, else `None`."""
    if is_url(os.fspath(path)):
        return None
    place = resolve(Path(path))
    if not place.is_dir() or layout.is_complete(place):
        return None
    return place if any(place.glob("*/*_model_states.pt")) else None


def load_foreign(strategy: EngineOwner, folder: Path, state: dict[str, Any], *, is_strict: bool, is_trusted: bool) -> dict[str, Any]:
    """Load a folder that DeepSpeed or Lightning 2.x wrote; the user's values are read without running anything."""
    items = [item for item in find_items(state) if item.kind in ("module", "optimizer")]
    objects = {item.key: item.value for item in items}
    rest = {key: value for key, value in state.items() if all(item.path[0] != key for item in items)}
    check(strategy, folder, objects, is_strict=is_strict, is_trusted=is_trusted)
    whole = cast("Strategy", strategy)
    peers = Peers.of(whole)
    tree = peers.agreed("read the values", lambda: user_values(folder, locate(folder)[1]))
    remainder = restore(Saved(path=str(folder), tree=tree), rest, strategy=whole, peers=peers, strict=is_strict, restore_rng=False)
    load(strategy, folder, objects, is_strict=is_strict)
    state.update({key: value for key, value in rest.items() if kind_of(value) is None})
    return remainder


def _has_optimizer(objects: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Optimizer) for value in objects.values())
