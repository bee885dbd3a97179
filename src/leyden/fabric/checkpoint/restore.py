"""`restore`: an opened checkpoint goes back into live objects, in place. Everything is checked before anything changes.

Checking makes a list of actions that cannot fail for reasons of the file's content; ranks then agree, and only then the
actions run: first those that run code of others (`load_state_dict` of loaders and schedulers), each undone if a later one
raises; then tensors, values, the loss scale, and the random generators last.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from leyden.core.errors import CheckpointKeyError, ConfigError, closest, listed
from leyden.fabric import rng
from leyden.fabric.checkpoint.items import Item, find_items, parameter_names
from leyden.fabric.checkpoint.peers import Peers
from leyden.fabric.checkpoint.restore_module import module_action
from leyden.fabric.checkpoint.restore_optimizer import optimizer_action
from leyden.fabric.checkpoint.saved import Saved, SavedModule, SavedOptimizer, as_module, as_optimizer
from leyden.fabric.checkpoint.tree import Path
from leyden.fabric.names import class_name

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.keeper import Keeper

RestoreRng = Literal["auto"] | bool
_MISSING = object()


@dataclass(kw_only=True, slots=True)
class Plan:
    """What will be done, in this order."""

    foreign: list[tuple[Callable[[], Any], Callable[[], None]]] = field(default_factory=list)  # do → undo
    tensors: list[Callable[[], None]] = field(default_factory=list)
    values: list[Callable[[], None]] = field(default_factory=list)

    def run(self) -> None:
        """Do it; code of others that raises leaves every object as it was."""
        undo: list[Callable[[], None]] = []
        try:
            for do, back in self.foreign:
                undo.append(back)
                do()
        except BaseException:
            for back in reversed(undo):
                back()
            raise
        for action in (*self.tensors, *self.values):
            action()


def restore(
    saved: Saved,
    state: dict[str, Any],
    *,
    strategy: "Keeper | None",
    peers: Peers,
    strict: bool,
    restore_rng: RestoreRng,
) -> dict[str, Any]:
    """Load `saved` into the objects of `state` and return the keys that `state` does not have.

    Of a sharded directory, modules and optimizers that nobody asked for are left out: reading them whole on every rank
    could take more memory than there is.

    Raises:
        CheckpointKeyError: `strict`, and the checkpoint lacks a key of `state`.
        ConfigError: Names or shapes do not fit; objects are as they were.
        CorruptDataError: The files are damaged.
    """
    items = find_items(state)
    make = _Planner(saved, items, strategy, peers, is_strict=strict)
    plan, rest = peers.agreed("load the checkpoint", lambda: (make.plan(state), saved.load(_remaining(saved, state), keep_mapped=True)))
    peers.agreed("restore its objects", plan.run)
    if strategy is not None and saved.precision and any(item.kind == "optimizer" for item in items):
        strategy.precision.load_state_dict(saved.precision)
    if restore_rng is True or (restore_rng == "auto" and any(item.kind in ("optimizer", "per_rank") for item in items)):
        _restore_rng(saved, strategy, peers, is_asked=restore_rng is True)
    return rest


def _remaining(saved: Saved, state: Mapping[str, Any]) -> list[str]:
    is_sharded = saved.meta is not None and saved.meta.layout == "sharded"
    return [
        key
        for key, value in saved.tree.items()
        if key not in state and not (is_sharded and isinstance(value, (SavedModule, SavedOptimizer)))
    ]


class _Planner:
    """Compares a state with a checkpoint and collects what to do."""

    def __init__(self, saved: Saved, items: list[Item], strategy: "Keeper | None", peers: Peers, *, is_strict: bool) -> None:
        self._saved = saved
        self._items = items
        self._by_path = {item.path: item for item in items}
        self._strategy = strategy
        self._peers = peers
        self._is_strict = is_strict
        self._plan = Plan()

    def plan(self, state: dict[str, Any]) -> Plan:
        """Return what to do.

        Raises:
            CheckpointKeyError: A key is missing.
            ConfigError: Something does not fit.
        """
        absent = [key for key in state if key not in self._saved.tree and not self._is_per_rank((key,))]
        if absent and self._is_strict:
            names = listed(absent)
            raise CheckpointKeyError(
                f"{self._saved.path} does not hold {names}.{closest(str(absent[0]), self._saved.tree)} "
                f"It holds {listed(self._saved.tree)}. Drop the keys from `state`, or pass strict=False to keep those objects as they are."
            )
        self._container(state, self._saved.tree, ())
        return self._plan

    def _is_per_rank(self, path: Path) -> bool:
        item = self._by_path.get(path)
        return item is not None and item.kind == "per_rank"

    def _container(self, container: Any, saved: Any, path: Path) -> None:
        pairs = container.items() if isinstance(container, Mapping) else enumerate(container)
        for key, value in list(pairs):
            here = (*path, key)
            item = self._by_path.get(here)
            found = _lookup(saved, key)
            if item is not None and item.kind == "per_rank":
                self._per_rank(item)
            elif found is _MISSING:
                self._missing(here, saved)
            elif item is not None:
                self._item(item, found)
            elif any(known[: len(here)] == here for known in self._by_path):
                self._container(value, found, here)
            elif not isinstance(container, tuple):
                self._value(container, key, here, found)

    def _missing(self, path: Path, saved: Any) -> None:
        if self._is_strict and len(path) > 1:
            held = listed(saved) if isinstance(saved, Mapping) else f"{len(saved)} elements"
            raise CheckpointKeyError(f"{self._saved.path} does not hold {_place(path)}; there it has {held}. Pass strict=False to skip it.")

    def _loaded(self, found: Any, live: Any) -> Any:
        return Saved(path="", tree={"": found}, is_mapped=self._saved.is_mapped).load(like={"": live})[""]

    def _value(self, container: Any, key: Any, path: Path, found: Any) -> None:
        loaded = self._saved.load([key], like=container)[key] if len(path) == 1 else self._loaded(found, container[key])
        self._plan.values.append(lambda: container.__setitem__(key, loaded))

    def _item(self, item: Item, found: Any) -> None:
        mapped = self._saved.is_mapped
        if item.kind == "module":
            module = as_module(found, is_mapped=mapped)
            if module is None:
                raise self._other_kind(item, found)
            do, undo = module_action(item, module, self._strategy, where=self._saved.path, is_strict=self._is_strict)
        elif item.kind == "optimizer":
            optimizer = as_optimizer(found, is_mapped=mapped)
            if optimizer is None:
                raise self._other_kind(item, found)
            _, names = parameter_names(self._items, item.value)
            do, undo = optimizer_action(item, optimizer, names, where=self._saved.path, is_strict=self._is_strict), None
        else:
            self._foreign(item.value, found)
            return
        if undo is None:
            self._plan.tensors.append(do)
        else:
            self._plan.foreign.append((do, undo))

    def _other_kind(self, item: Item, found: Any) -> ConfigError:
        kind = {SavedModule: "a module", SavedOptimizer: "an optimizer"}.get(type(found), f"a {type(found).__name__}")
        article = "an" if item.kind == "optimizer" else "a"
        return ConfigError(
            f"{_place(item.path)} is {article} {item.kind} ({class_name(item.value)}), but {self._saved.path} holds {kind} there. "
            "Swap the keys, or drop it from `state`."
        )

    def _foreign(self, target: Any, found: Any) -> None:
        before = target.state_dict()
        loaded = self._loaded(found, before)
        self._plan.foreign.append((lambda: target.load_state_dict(loaded), lambda: target.load_state_dict(before)))

    def _per_rank(self, item: Item) -> None:
        own = self._saved.rank_state(self._peers.rank)
        found = (own or {}).get("objects", {}).get(item.key, _MISSING)
        if found is _MISSING:
            found = self._from_rank_zero(item)
        if found is not _MISSING:
            self._foreign(item.value, found)
            self._of_other_ranks(item)

    def _of_other_ranks(self, item: Item) -> None:
        """Hand over the states of all saved ranks, where their number was another one, to an object that asks for them."""
        gather = getattr(item.value, "load_rank_states", None)
        if gather is None or self._world_size() == self._peers.world_size:
            return
        ranks = (self._saved.rank_state(rank) or {} for rank in range(self._world_size()))
        states = [state for rank in ranks if (state := rank.get("objects", {}).get(item.key)) is not None]
        self._plan.foreign.append((lambda: gather(states), lambda: None))

    def _from_rank_zero(self, item: Item) -> Any:
        """Return rank 0's state for a rank that did not exist, where the object can make something of it."""
        first = (self._saved.rank_state(0) or {}).get("objects", {}).get(item.key, _MISSING)
        if first is _MISSING:
            if self._is_strict:
                raise CheckpointKeyError(
                    f"{self._saved.path} holds no state of {_place(item.path)} ({type(item.value).__name__}). "
                    "Drop it from `state`, or pass strict=False."
                )
            return _MISSING
        if isinstance(first, Mapping) and ("kind" in first or first.get("rank_invariant") is True):
            return first  # a loader's cursor knows the world size it was written at, and decides itself
        warnings.warn(
            f"{_place(item.path)} ({type(item.value).__name__}): the checkpoint is of {self._world_size()} ranks, so rank "
            f"{self._peers.rank} finds no state there and starts anew.",
            stacklevel=2,
        )
        return _MISSING

    def _world_size(self) -> int:
        return self._saved.meta.world_size if self._saved.meta is not None else 1


def _restore_rng(saved: Saved, strategy: "Keeper | None", peers: Peers, *, is_asked: bool) -> None:
    device = strategy.root_device if strategy is not None else torch.device("cpu")
    if saved.meta is None:
        if is_asked:
            warnings.warn(f"{saved.path} holds no state of random generators (restore_rng=True); they go on as they are.", stacklevel=2)
        return
    own = saved.rank_state(peers.rank)
    if saved.meta.world_size == peers.world_size and own is not None:
        rng.restore(own["rng"], device)
        return
    if peers.rank == 0:
        warnings.warn(
            f"{saved.path} is of {saved.meta.world_size} ranks, this run has {peers.world_size}: random generators start anew from the "
            "run's seed, the step and the rank.",
            stacklevel=2,
        )
    seed = rng.fold(saved.meta.seed or 0, "elastic", saved.meta.step or 0, peers.rank)
    torch.manual_seed(seed)
    rng.seed_stream(seed)


def _lookup(saved: Any, key: Any) -> Any:
    if isinstance(saved, Mapping):
        return saved.get(key, _MISSING)
    if isinstance(saved, (list, tuple)) and isinstance(key, int) and key < len(saved):
        return saved[key]
    return _MISSING


def _place(path: Path) -> str:
    return "state" + "".join(f"[{part!r}]" for part in path)
