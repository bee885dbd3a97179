"""`write`, `read`, `read_raw`, `wait_for_saves`: what `Fabric.save` and `load`, `CheckpointFolder` and Trainer are made of.

Every rank calls them. `state` holds live, unwrapped objects: modules, optimizers, objects with `state_dict`, plain values.

```
write   check → capture (every rank) → stage copies, if it does not block → store (here, or in the writer's thread)
read    find by content → compare with the live objects → ranks agree → restore in place
```
"""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from torch import nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError, ConfigTypeError, UnsupportedError, closest, listed
from leyden.fabric.checkpoint import opening, publish, remote
from leyden.fabric.checkpoint.capture import Filter, Snapshot, capture, check_arguments, check_values
from leyden.fabric.checkpoint.items import Item, find_items, kind_of
from leyden.fabric.checkpoint.layout import Layout
from leyden.fabric.checkpoint.peers import Peers
from leyden.fabric.checkpoint.plugin import AsyncCheckpointIO, CheckpointIO
from leyden.fabric.checkpoint.restore import RestoreRng, restore
from leyden.fabric.checkpoint.restore_module import module_action
from leyden.fabric.checkpoint.restore_optimizer import optimizer_action
from leyden.fabric.checkpoint.saved import Saved, as_module, as_optimizer
from leyden.fabric.checkpoint.single_file import from_dict
from leyden.fabric.checkpoint.staging import StagingBuffers
from leyden.fabric.checkpoint.store import Target, store_directory, store_file, store_with_plugin
from leyden.fabric.checkpoint.writer import process_writer

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.keeper import Keeper
    from leyden.fabric.checkpoint.shards import ShardPlan

Format = Literal["auto", "file", "directory"]
FORMATS = ("auto", "file", "directory")
PathLike = str | os.PathLike[str]


class EngineStrategy(Protocol):
    """What a strategy with `state_layout = "foreign"` has besides: its engine writes and reads modules and optimizers."""

    def save_engine(self, directory: Path, objects: dict[str, Any]) -> None:
        """Write the engine's files into `directory`; every rank calls it. `objects`: key → module or optimizer."""

    def check_engine(self, directory: Path, objects: dict[str, Any], *, strict: bool) -> None:
        """Refuse what `load_engine` could not load, before anything changes; every rank calls it."""

    def load_engine(self, directory: Path, objects: dict[str, Any], *, strict: bool) -> None:
        """Load what `save_engine` wrote; every rank calls it."""


_buffers = StagingBuffers()  # of this process: one save is in flight, so one set of them serves every Fabric


def write(
    path: PathLike,
    state: dict[str, Any],
    *,
    strategy: "Keeper",
    filter: Filter | None = None,
    blocking: bool = True,
    format: str = "auto",
    storage_options: Any = None,
) -> None:
    """Save a state; what is at `path` is replaced when everything is written, and not before.

    Args:
        path: A local path or URL. One that ends in `/` forces a directory.
        state: Key → module, optimizer, object with `state_dict`, or plain value.
        strategy: Lays the state out over the ranks.
        filter: Key → `function(name, value) -> bool`: which entries of that key's dictionary to keep.
        blocking: False returns once everything is copied; the copy is written in the background.
        format: `"file"`, `"directory"`, or `"auto"`: a directory for sharded strategies, else a file.
        storage_options: Credentials and endpoint of a URL as for `open_storage`, where the environment's are not meant, or
            what a plug-in takes. Loading takes the environment's.

    Raises:
        ConfigTypeError: `state` is no dictionary, a filter is not callable, or options of a URL are no mapping.
        ConfigError: A filter for an unknown key, an unknown format, or a value that a checkpoint cannot hold.
        StorageError: The disk is full or refuses; of an asynchronous save, raised by the next call here.
    """
    wait_for_saves()
    check_arguments(state, filter)
    place = os.fspath(path)
    layout = _layout(place, format, strategy)
    plugin = strategy.checkpoint_io
    if isinstance(plugin, AsyncCheckpointIO):
        plugin, blocking = plugin.inner, False
    if plugin is not None:
        layout = _plugin_layout(plugin, strategy, format)
    elif storage_options is not None:
        _check_options(place, storage_options)
    peers = Peers.of(strategy)
    _prepare(place, state, peers, has_plugin=plugin is not None)
    if layout == "deepspeed" and not any(item.kind in ("module", "optimizer") for item in find_items(state)):
        layout = "file"  # plain values: the engine has no part in it
    if layout == "deepspeed":
        _write_engine(place, state, strategy, peers, filter, storage_options)
        return
    snapshot = capture(state, strategy=strategy, layout=layout, filters=filter)
    plan = _shard_plan(snapshot, strategy) if layout == "sharded" else None
    target = Target(path=place.rstrip("/") if layout != "file" else place, peers=peers, options=storage_options)
    if blocking or not _can_write_aside(peers):
        _store(snapshot, target, plan, plugin)
        return
    staged = _buffers.stage(snapshot, plan.data if plan is not None else {})
    process_writer().submit(partial(_store, staged, target, plan, plugin))


def wait_for_saves() -> None:
    """Wait until no save is being written.

    Raises:
        StorageError: The last asynchronous save failed.
    """
    process_writer().wait()


def read(
    path: PathLike,
    state: Any = None,
    *,
    strategy: "Keeper | None" = None,
    strict: bool = True,
    weights_only: bool | None = None,
    restore_rng: RestoreRng = "auto",
) -> dict[str, Any]:
    """Load a checkpoint of any kind into `state`, in place, and return what `state` did not ask for.

    Args:
        path: A local path or URL; one that ends in `latest` stands for the newest checkpoint of its folder.
        state: Key → live object or value to replace. `None`: everything is returned, on the CPU; a module or optimizer
            alone is loaded by `read_raw`.
        strategy: The live objects' strategy.
        strict: Whether every key and name must be there; otherwise what both sides have is loaded.
        weights_only: False trusts the file and lets torch's unpickler run what is in it.
        restore_rng: Whether random generators come back; `"auto"`: if `state` has an optimizer or a loader.

    Raises:
        NotFoundError: There is no checkpoint; says what is there.
        CheckpointKeyError: `strict`, and a key is missing.
        ConfigError: Names or shapes do not fit. All objects are as they were.
        CorruptDataError: The checkpoint is damaged. All objects are as they were.
    """
    process_writer().settle()  # the error of a save is the next save's to raise
    if isinstance(state, (nn.Module, Optimizer)):
        read_raw(path, state, strategy=strategy, strict=strict, weights_only=weights_only)
        return {}
    if state is not None and not isinstance(state, dict):
        raise ConfigTypeError(f"load(path, state): state should be a dictionary or None, not a {type(state).__name__}: {{'model': model}}.")
    peers = Peers.of(strategy) if state is not None else Peers()
    plugin = strategy.checkpoint_io if strategy is not None else None
    if isinstance(plugin, AsyncCheckpointIO):
        plugin = plugin.inner
    with _local(path) if plugin is None else contextlib.nullcontext(os.fspath(path)) as place:
        saved = peers.agreed("open the checkpoint", lambda: _open(place, plugin, weights_only))
        try:
            if state is None:
                return saved.load()
            if saved.meta is not None and saved.meta.layout == "deepspeed":
                return _read_engine(saved, state, strategy, peers, is_strict=strict, restore_rng=restore_rng)
            return restore(saved, state, strategy=strategy, peers=peers, strict=strict, restore_rng=restore_rng)
        finally:
            saved.close()


def read_raw(
    path: PathLike,
    obj: nn.Module | Optimizer,
    *,
    strategy: "Keeper | None" = None,
    strict: bool = True,
    weights_only: bool | None = None,
) -> None:
    """Load a bare state dict (`.pt`, `.safetensors`, or the index of a sharded one) into a module or optimizer.

    Each rank of a sharded strategy reads its own slices.

    Raises:
        ConfigTypeError: `obj` is something else.
        ConfigError: Names or shapes do not fit, or the path is a whole checkpoint.
        CorruptDataError: The file is damaged.
    """
    process_writer().settle()  # the error of a save is the next save's to raise
    kind = kind_of(obj)
    if kind not in ("module", "optimizer"):
        raise ConfigTypeError(f"load_raw(path, obj): obj should be a module or an optimizer, not a {type(obj).__name__}.")
    peers = Peers.of(strategy)
    with _local(path) as place:
        saved = peers.agreed("open the file", lambda: opening.open_raw(place, weights_only=weights_only))
        try:
            do, undo = peers.agreed("load the file", lambda: _raw_action(saved, obj, strategy, is_strict=strict))
            peers.agreed("read the file", lambda: _run(do, undo))
        finally:
            saved.close()


def remove(path: PathLike) -> None:
    """Delete a checkpoint, whatever its kind; nothing happens if there is none.

    Raises:
        StorageError: It cannot be deleted.
    """
    process_writer().settle()
    remove_at(os.fspath(path))


def remove_at(place: str) -> None:
    """Delete a checkpoint without waiting for saves: what the writer's own thread does."""
    if remote.is_remote(place):
        remote.remove(place)
    else:
        publish.remove(_local_path(place))


def link(target: PathLike, name: PathLike) -> None:
    """Make the path `name` stand for the checkpoint `target`: a relative symlink, replaced atomically, else a copy."""
    process_writer().settle()
    publish.link(target, name)


# -- writing -----------------------------------------------------------------------------------------------------------


def _layout(place: str, format: str, strategy: "Keeper") -> Layout:
    if format not in FORMATS:
        raise ConfigError(f"save(format={format!r}): accepted are {listed(FORMATS)}.{closest(str(format), FORMATS)}")
    if strategy.state_layout == "foreign":
        if format == "file":
            raise UnsupportedError('format="file": this strategy\'s engine writes a directory; save, then `leyden ckpt convert`.')
        return "deepspeed"
    if place.endswith("/"):
        if format == "file":
            raise ConfigError(f'save({place!r}, format="file"): a path that ends in "/" is a directory. Drop one of the two.')
        format = "directory"
    is_sharded = strategy.state_layout == "sharded"
    if format == "file" or (format == "auto" and not is_sharded):
        return "file"
    return "sharded" if is_sharded else "full"


def _plugin_layout(plugin: CheckpointIO, strategy: "Keeper", format: str) -> Layout:
    name = type(plugin).__name__
    if strategy.state_layout != "replicated":
        raise UnsupportedError(
            f"{name} stores whole dictionaries, but {type(strategy).__name__} keeps its state in parts. "
            "Drop the plug-in (fabric writes a directory), or use a replicated strategy such as 'ddp'."
        )
    if format == "directory":
        raise UnsupportedError(f'save(format="directory"): {name} decides how it stores. Drop the format, or the plug-in.')
    if not plugin.stores_extras:
        warnings.warn(
            f"{name} stores exactly the state: random generators, loader positions and the loss scale are not in it. "
            "A CheckpointIO with stores_extras = True gets them as extras=.",
            stacklevel=4,
        )
    return "file"


def _check_options(place: str, options: Any) -> None:
    if not remote.is_remote(place):
        raise ConfigError(
            f"storage_options={options!r} has no effect on the local path {place!r} without a CheckpointIO plug-in. "
            "Pass plugins=YourCheckpointIO(), save to a URL such as 's3://bucket/run', or drop storage_options."
        )
    if not isinstance(options, Mapping):
        raise ConfigTypeError(
            f"storage_options={options!r}: {place!r} takes a mapping, such as {{'endpoint_url': 'http://localhost:9000'}}; "
            "the names are those of `leyden.core.storage.open_storage`."
        )


def _prepare(place: str, state: dict[str, Any], peers: Peers, *, has_plugin: bool) -> None:
    """Refuse what cannot be saved before anything is gathered or written, on all ranks alike."""

    def check() -> None:
        check_values(state)
        if peers.rank == 0 and not has_plugin and not remote.is_remote(place):
            target = _local_path(place)
            publish.recover(target)
            publish.check_target(target)

    peers.agreed("begin the save", check)


def _shard_plan(snapshot: Snapshot, strategy: "Keeper") -> "ShardPlan":
    from leyden.fabric.checkpoint.shards import ShardPlan  # imports torch.distributed.checkpoint: half of `import torch`

    return ShardPlan(snapshot.tensors, is_coordinator=strategy.is_global_zero)


def _can_write_aside(peers: Peers) -> bool:
    if peers.world_size > 1 and peers.group is None:
        warnings.warn(
            "save(blocking=False): this strategy has no group of its own for saves, so the save blocks. Collectives of a second thread "
            "must not mix with training's.",
            stacklevel=3,
        )
        return False
    return True


def _store(snapshot: Snapshot, target: Target, plan: "ShardPlan | None", plugin: CheckpointIO | None) -> None:
    local = (
        target
        if target.is_url or plugin is not None
        else Target(path=str(_local_path(target.path)), peers=target.peers, options=target.options)
    )
    if plugin is not None:
        store_with_plugin(snapshot, local, plugin)
    elif snapshot.meta.layout == "file":
        store_file(snapshot, local)
    else:
        store_directory(snapshot, local, plan)


def _write_engine(place: str, state: dict[str, Any], strategy: "Keeper", peers: Peers, filters: Filter | None, options: Any) -> None:
    """Save through a strategy whose engine writes modules and optimizers itself; always blocking, since it owns the tensors."""
    if filters:
        raise ConfigTypeError("save(filter=…): the engine of this strategy writes its modules whole; filter has no effect. Drop it.")
    engine = cast(EngineStrategy, strategy)
    items = [item for item in find_items(state) if item.kind in ("module", "optimizer")]
    rest = {key: value for key, value in state.items() if all(item.path[0] != key for item in items)}
    snapshot = capture(rest, strategy=strategy, layout="deepspeed")
    snapshot.meta.entries.update({item.key: {"kind": item.kind} for item in items})
    target = Target(path=place.rstrip("/"), peers=peers, options=options)
    store_directory(snapshot, target, engine=lambda folder: engine.save_engine(folder, _by_key(items)))


def _by_key(items: list[Item]) -> dict[str, Any]:
    return {item.key: item.value for item in items}


# -- reading -----------------------------------------------------------------------------------------------------------


def _open(place: str | Path, plugin: CheckpointIO | None, weights_only: bool | None) -> Saved:  # noqa: FBT001 - handed through
    if plugin is None:
        return opening.open_path(place, weights_only=weights_only)
    content = plugin.load_checkpoint(str(place), map_location="cpu", weights_only=weights_only)
    return from_dict(content, str(place))


def _read_engine(
    saved: Saved, state: dict[str, Any], strategy: "Keeper | None", peers: Peers, *, is_strict: bool, restore_rng: RestoreRng
) -> dict[str, Any]:
    items = [item for item in find_items(state) if item.kind in ("module", "optimizer")]
    if strategy is None or strategy.state_layout != "foreign":
        raise UnsupportedError(
            f"{saved.path} was written by DeepSpeed's engine, which only strategy='deepspeed' reads. "
            f"Convert it first: leyden ckpt convert {saved.path} {saved.path}.ckpt"
        )
    if not items:  # only what lies beside the engine's files is asked for
        return restore(saved, state, strategy=strategy, peers=peers, strict=is_strict, restore_rng=restore_rng)
    rest = {key: value for key, value in state.items() if all(item.path[0] != key for item in items)}
    engine = cast(EngineStrategy, strategy)
    engine.check_engine(Path(saved.path), _by_key(items), strict=is_strict)
    if restore_rng == "auto" and any(item.kind == "optimizer" for item in items):
        restore_rng = True  # `rest`, by which `restore` decides, holds no optimizer
    remainder = restore(saved, rest, strategy=strategy, peers=peers, strict=is_strict, restore_rng=restore_rng)
    engine.load_engine(Path(saved.path), _by_key(items), strict=is_strict)
    state.update({key: value for key, value in rest.items() if kind_of(value) is None})
    return remainder


def _raw_action(
    saved: Saved, obj: Any, strategy: "Keeper | None", *, is_strict: bool
) -> tuple[Callable[[], None], Callable[[], None] | None]:
    if isinstance(obj, nn.Module):
        module = as_module(saved.tree, is_mapped=saved.is_mapped)
        if module is None:
            raise ConfigError(f"{saved.path} holds no module's state dict: its keys are {listed(list(saved.tree)[:10])}.")
        return module_action(Item(path=("module",), kind="module", value=obj), module, strategy, where=saved.path, is_strict=is_strict)
    optimizer = as_optimizer(saved.tree, is_mapped=saved.is_mapped)
    if optimizer is None:
        raise ConfigError(
            f"{saved.path} holds no optimizer's state dict ('state', 'param_groups'): its keys are {listed(list(saved.tree)[:10])}."
        )
    item = Item(path=("optimizer",), kind="optimizer", value=obj)
    return optimizer_action(item, optimizer, {}, where=saved.path, is_strict=is_strict), None


def _run(do: Callable[[], None], undo: Callable[[], None] | None) -> None:
    try:
        do()
    except BaseException:
        if undo is not None:
            undo()
        raise


# -- places ------------------------------------------------------------------------------------------------------------


def _local_path(place: str) -> Path:
    return Path(place.removeprefix("file://"))


@contextlib.contextmanager
def _local(path: PathLike) -> Iterator[Path]:
    """Yield a local path of the checkpoint; what is at a URL is fetched first."""
    place = os.fspath(path)
    if not remote.is_remote(place):
        yield opening.resolve(_local_path(place))
        return
    with tempfile.TemporaryDirectory(prefix="leyden-checkpoint-") as folder:
        yield remote.download(place, Path(folder))
