"""`capture`: a state becomes a `Snapshot`, which holds everything a save writes and no live object.

Every rank captures, since sharded tensors are gathered together (for a single file) or each rank keeps its own (for a
sharded directory). Values are checked here, before a byte is written. Tensors are still the live ones: a blocking save
writes them as they are, an asynchronous one first replaces them by copies (`staging`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from leyden.core.errors import ConfigError, ConfigTypeError, closest, listed
from leyden.fabric import rng
from leyden.fabric.checkpoint.items import Item, find_items, parameter_names
from leyden.fabric.checkpoint.layout import Layout, Meta
from leyden.fabric.checkpoint.saved import is_dtensor
from leyden.fabric.checkpoint.tensor_file import is_holdable
from leyden.fabric.checkpoint.tree import Path, plain_name, storable

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.keeper import Keeper

Filter = Mapping[str, Callable[[str, Any], bool]]


@dataclass(kw_only=True, slots=True)
class Snapshot:
    """Everything a save writes.

    Args:
        meta: The description, without `files`.
        tree: The user's dictionary. In a single file state dicts are in place; in directories `None` stands for modules
            and optimizers that are kept apart.
        modules: Key → plain state dict (full directory).
        optimizers: Key → torch's state dict (full directory), or options by parameter name (sharded directory).
        tensors: Name → tensor of the shards; `DTensor`s where the strategy shards.
        extra: Key → entries of a module's state dict that are no dense tensors (directories).
        precision: The precision's state.
        aliases: Key → name → the name under which a tied tensor is stored (directories).
        rank: This rank's RNG and the states of its own objects.
        writes_tree: Whether this rank holds (and writes) what is not per rank.
    """

    meta: Meta
    tree: dict[str, Any]
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    rank: dict[str, Any] = field(default_factory=dict)
    writes_tree: bool = True


def check_arguments(state: Any, filters: Any) -> None:
    """Refuse a state that is no dictionary and filters that fit no key.

    Raises:
        ConfigTypeError: `state` is no dictionary, or a filter is not callable.
        ConfigError: A filter for a key that `state` does not have.
    """
    if not isinstance(state, dict):
        raise ConfigTypeError(
            f"save(path, state): state should be a dictionary, not a {type(state).__name__}: {{'model': model, 'step': 0}}."
        )
    if bad := [key for key in state if not isinstance(key, str)]:
        raise ConfigTypeError(f"save(path, state): keys are strings, but {bad[0]!r} is of type {type(bad[0]).__name__}.")
    for reserved in ("__leyden__",):
        if reserved in state:
            raise ConfigError(f"state[{reserved!r}]: this key is the checkpoint's own. Rename yours.")
    if filters is None:
        return
    if not isinstance(filters, Mapping):
        raise ConfigTypeError(f"filter should be a dictionary of key → function(name, value) -> bool, not a {type(filters).__name__}.")
    for key, function in filters.items():
        if key not in state:
            raise ConfigError(f"filter[{key!r}]: the state has no such key.{closest(str(key), state)} Its keys are {listed(state)}.")
        if not callable(function):
            raise ConfigTypeError(f"filter[{key!r}]={function!r}: expected a function(name, value) -> bool.")


def check_values(state: dict[str, Any]) -> None:
    """Refuse a state with a value that a checkpoint cannot hold; copies and gathers nothing.

    Raises:
        ConfigError: Such a value, naming its path; two objects of one key.
    """
    live = {item.path: item for item in find_items(state)}

    def check(value: Any, path: Path) -> None:
        item = live.get(path)
        if item is not None:
            if item.kind in ("object", "per_rank"):
                storable(item.value.state_dict(), f"{_place(path)}.state_dict()")
        elif not any(known[: len(path)] == path for known in live):
            storable(value, _place(path))
        else:
            for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
                check(inner, (*path, key))

    for key, value in state.items():
        check(value, (key,))


def capture(state: dict[str, Any], *, strategy: "Keeper", layout: Layout, filters: Filter | None = None) -> Snapshot:
    """Return the snapshot of a state for a layout; every rank calls it.

    Raises:
        ConfigError: A value that a checkpoint cannot hold, naming its path.
    """
    items = find_items(state)
    if layout == "sharded":
        _check_prefixes([item.key for item in items if item.kind in ("module", "optimizer")])
    take = _Capture(strategy, layout, items, dict(filters or {}))
    tree = take.tree(state)
    step = next((state[key] for key in ("step", "global_step") if type(state.get(key)) is int), None)
    meta = Meta(
        layout=layout,
        strategy=strategy_name(strategy),
        precision=strategy.precision.precision,
        world_size=strategy.world_size,
        mesh=strategy.mesh.describe(),
        seed=rng.run_seed(),
        step=step,
        entries=take.entries,
    )
    return Snapshot(
        meta=meta,
        tree=tree,
        modules=take.modules,
        optimizers=take.optimizers,
        tensors=take.tensors,
        extra=take.extra,
        aliases=take.aliases,
        precision=storable(strategy.precision.state_dict(), "precision.state_dict()"),
        rank={"rng": rng.capture(strategy.root_device), "objects": take.objects},
        writes_tree=strategy.is_global_zero,
    )


def strategy_name(strategy: Any) -> str:
    """Return a strategy's registered name, from its class.

    Example:
        >>> from leyden.fabric.strategies.single import SingleDeviceStrategy
        >>> strategy_name(SingleDeviceStrategy())
        'single_device'
    """
    name = type(strategy).__name__.removesuffix("Strategy").replace("DeepSpeed", "Deepspeed")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class _Capture:
    """One walk through a state, sorting what it meets by the layout's files."""

    def __init__(self, strategy: "Keeper", layout: Layout, items: list[Item], filters: dict[str, Any]) -> None:
        self._strategy = strategy
        self._layout = layout
        self._items = items
        self._by_path = {item.path: item for item in items}
        self._filters = filters
        self.entries: dict[str, dict[str, Any]] = {}
        self.modules: dict[str, dict[str, Any]] = {}
        self.optimizers: dict[str, dict[str, Any]] = {}
        self.tensors: dict[str, Tensor] = {}
        self.extra: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, dict[str, str]] = {}
        self.objects: dict[str, Any] = {}

    def tree(self, state: dict[str, Any]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, value in state.items():
            filtered = self._filtered(key, value)
            if filtered is _ABSENT:
                continue
            if (key,) not in self._by_path:
                self.entries[key] = {"kind": "value"}
            stored = self._value(filtered, (key,))
            if stored is not _ABSENT:
                tree[key] = stored
        return tree

    def _filtered(self, key: str, value: Any) -> Any:
        """Apply a filter to a plain dictionary; a dictionary left empty is absent. Live objects are filtered later."""
        keep = self._filters.get(key)
        if keep is None or (key,) in self._by_path or not isinstance(value, Mapping):
            return value
        return {name: item for name, item in value.items() if keep(name, item)} or _ABSENT

    def _value(self, value: Any, path: Path) -> Any:
        """Return a value's stored form; `_ABSENT` for what is kept elsewhere at the top level, `None` for it deeper down."""
        item = self._by_path.get(path)
        if item is not None:
            stored = self._item(item)
            return None if stored is _ABSENT and len(path) > 1 else stored
        if not any(known[: len(path)] == path for known in self._by_path):
            return storable(value, _place(path), tensor=self._whole)
        if isinstance(value, Mapping):
            return {key: self._value(inner, (*path, key)) for key, inner in value.items()}
        return type(value)(self._value(inner, (*path, index)) for index, inner in enumerate(value))

    def _item(self, item: Item) -> Any:
        entry: dict[str, Any] = {"kind": item.kind} | ({"path": list(item.path)} if len(item.path) > 1 else {})
        if item.kind == "per_rank":
            self.objects[item.key] = storable(item.value.state_dict(), f"{_place(item.path)}.state_dict()", tensor=_whole_here)
            self.entries[item.key] = entry
            return _ABSENT
        if item.kind == "object":
            self.entries[item.key] = entry
            state = self._kept(item, item.value.state_dict())
            return _ABSENT if state is _ABSENT else storable(state, f"{_place(item.path)}.state_dict()", tensor=self._whole)
        state = self._module(item, entry) if item.kind == "module" else self._optimizer(item, entry)
        if state is _ABSENT:
            return _ABSENT
        self.entries[item.key] = entry
        if self._layout == "file":
            return state
        return _ABSENT

    def _kept(self, item: Item, state: Mapping[str, Any]) -> Any:
        keep = self._filters.get(str(item.path[0])) if len(item.path) == 1 else None
        if keep is None:
            return state
        return {name: value for name, value in state.items() if keep(name, value)} or _ABSENT

    def _module(self, item: Item, entry: dict[str, Any]) -> Any:
        kept = self._kept(item, self._strategy.get_module_state_dict(item.value))
        if kept is _ABSENT:
            return _ABSENT
        state = {plain_name(name): value for name, value in kept.items()}
        entry["parameters"] = sum(value.numel() for value in state.values() if isinstance(value, Tensor))
        for name, value in state.items():
            if isinstance(value, Tensor) and value.is_meta:
                raise ConfigError(f"{_place(item.path)}: {name!r} is on the meta device and has no values; set the module up first.")
        if self._layout == "file":
            return storable(state, _place(item.path), tensor=self._whole)  # torch.save keeps ties by itself
        if aliases := _aliases(item.value, state):
            self.aliases[item.key] = aliases
            state = {name: value for name, value in state.items() if name not in aliases}
        if self._layout == "sharded":
            self._spread(item.key, state)
        else:
            self._keep_apart(item, state)
        return state

    def _keep_apart(self, item: Item, state: Mapping[str, Any]) -> None:
        """Put a state dict's dense tensors in the module's own file and the rest among the extras."""
        dense = {name: value for name, value in state.items() if _goes_to_shards(value)}
        rest = {name: value for name, value in state.items() if name not in dense}
        self.modules[item.key] = {name: self._whole(value) for name, value in dense.items()}
        if rest:
            self.extra[item.key] = storable(rest, _place(item.path), tensor=self._whole)

    def _spread(self, prefix: str, state: Mapping[str, Any]) -> None:
        """Put a state dict's tensors among the shards' and the rest among the extras."""
        for name, value in state.items():
            if _goes_to_shards(value):
                self._add_tensor(f"{prefix}.{name}", value.detach())
            else:
                self.extra.setdefault(prefix, {})[name] = storable(value, f"state[{prefix!r}].{name}", tensor=self._whole)

    def _add_tensor(self, name: str, value: Tensor) -> None:
        if name in self.tensors:
            raise ConfigError(f"state holds two tensors that would both be stored as {name!r}; rename one of the keys.")
        self.tensors[name] = value

    def _optimizer(self, item: Item, entry: dict[str, Any]) -> Any:
        optimizer = item.value
        state = self._kept(item, self._strategy.get_optimizer_state(optimizer))
        if state is _ABSENT:
            return _ABSENT
        module, names = parameter_names(self._items, optimizer)
        entry |= {"class": type(optimizer).__name__, "module": module}
        if self._layout != "sharded":
            stored = storable(state, _place(item.path), tensor=self._whole)
            if self._layout == "full":
                self.optimizers[item.key] = stored
            return stored
        return self._named_optimizer(item, state, names)

    def _named_optimizer(self, item: Item, state: Mapping[str, Any], names: Mapping[int, str]) -> Any:
        """Sort an optimizer's state by parameter name: numbers mean nothing on another mesh."""
        parameters = [parameter for group in item.value.param_groups for parameter in group["params"]]
        unknown = [tuple(parameter.shape) for parameter in parameters if id(parameter) not in names]
        if unknown:
            raise ConfigError(
                f"{_place(item.path)}: {len(unknown)} of its parameters (the first of shape {unknown[0]}) belong to no module of the "
                "state. A sharded checkpoint stores optimizers by parameter name: save the module in the same state."
            )
        by_number = {number: names[id(parameter)] for number, parameter in enumerate(parameters)}
        for number, values in state.get("state", {}).items():
            self._spread_optimizer(item.key, by_number[number], values)
        options: dict[str, Any] = {}
        order: list[list[str]] = []
        for group in state.get("param_groups", []):
            rest = {name: value for name, value in group.items() if name not in ("params", "param_names")}
            plain = storable(rest, f"{_place(item.path)}.param_groups", tensor=self._whole)
            members = [by_number[number] for number in group["params"]]
            order.append(members)
            options |= dict.fromkeys(members, plain)
        self.optimizers[item.key] = {"param_groups": options, "order": order}
        return state

    def _spread_optimizer(self, key: str, parameter: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if _goes_to_shards(value):
                self._add_tensor(f"{key}.state.{parameter}.{name}", value.detach())
            else:
                plain = storable(value, f"state[{key!r}].state[{parameter!r}].{name}", tensor=self._whole)
                self.extra.setdefault(key, {}).setdefault(parameter, {})[name] = plain

    def _whole(self, value: Tensor) -> Any:
        """Return a tensor of the tree: whole, and on rank 0 only, since no other rank writes it."""
        if is_dtensor(value):
            whole = _whole_here(value)  # a collective: every rank walks the same tree in the same order
            return whole.cpu() if self._strategy.is_global_zero else None
        return value.detach()


def _whole_here(value: Tensor) -> Tensor:
    """Return a tensor whole, on every rank."""
    tensor: Any = value.detach()
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


class _Absent:
    """Stands for what is left out."""


_ABSENT = _Absent()


def _goes_to_shards(value: Any) -> bool:
    if is_dtensor(value):
        sharded: Any = value
        return is_holdable(sharded.to_local())
    return isinstance(value, Tensor) and is_holdable(value) and not value.is_meta


def _place(path: Path) -> str:
    return "state" + "".join(f"[{part!r}]" for part in path)


def _check_prefixes(keys: list[str]) -> None:
    """Refuse keys whose tensors could not be told apart by name in one index."""
    for key in keys:
        if inner := next((other for other in keys if other.startswith(f"{key}.")), None):
            raise ConfigError(f"state: the keys {key!r} and {inner!r} share the prefix {key + '.'!r} in a sharded checkpoint. Rename one.")


def _aliases(module: Any, state: Mapping[str, Any]) -> dict[str, str]:
    """Return tied names → the first name of each tied parameter or buffer.

    By identity of the parameters, not of their memory: a rank whose shard is empty must find the same ties.
    """
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, value in ((plain_name(name), value) for name, value in named):
        if name in state and (kept := first.setdefault(id(value), name)) != name:
            aliases[name] = kept
    return aliases
