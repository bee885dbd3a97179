"""What is alive in a `state`: modules, optimizers and objects with `state_dict`, each with its place in the tree.

Usually they are the values of the dictionary; they may also lie deeper (`state["optimizer_states"][0]`), which is how
`Trainer` keeps them. An item's key is its path joined by dots.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.optim import Optimizer

from leyden.core.errors import ConfigError
from leyden.fabric.checkpoint.tree import Path, plain_name

Kind: TypeAlias = Literal["module", "optimizer", "per_rank", "object"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One live object and where it is in the state."""

    path: Path
    kind: Kind
    value: Any

    @property
    def key(self) -> str:
        """The path as one word."""
        return ".".join(str(part) for part in self.path)


def find_items(state: Mapping[Any, Any]) -> list[Item]:
    """Return the live objects of a state, in order.

    Raises:
        ConfigError: Two of them have the same key.
    """
    items = list(_walk(state, ()))
    seen: dict[str, Path] = {}
    for item in items:
        if item.key in seen:
            raise ConfigError(f"state holds two objects under the key {item.key!r}: {seen[item.key]} and {item.path}. Rename one.")
        seen[item.key] = item.path
    return items


def kind_of(value: Any) -> Kind | None:
    """Return what kind of live object a value is, or `None` for plain values."""
    if isinstance(value, nn.Module):
        return "module"
    if isinstance(value, Optimizer):
        return "optimizer"
    if isinstance(value, (type, Mapping)) or not callable(getattr(value, "state_dict", None)):
        return None
    if getattr(value, "per_rank", False) is True:
        return "per_rank"
    return "object" if callable(getattr(value, "load_state_dict", None)) else None


def parameter_names(items: list[Item], optimizer: Optimizer) -> tuple[str | None, dict[int, str]]:
    """Return the key of the module an optimizer trains, and the name of each of its parameters by `id`.

    An optimizer over several modules has no one module; its names then begin with the module's key. Parameters that no
    module of the state has are absent.
    """
    wanted = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found: dict[str, dict[int, str]] = {}
    for item in items:
        if item.kind == "module":
            names = {id(parameter): plain_name(name) for name, parameter in item.value.named_parameters() if id(parameter) in wanted}
            wanted -= names.keys()
            if names:
                found[item.key] = names
    if len(found) == 1:
        return next(iter(found.items()))
    return None, {number: f"{key}.{name}" for key, names in found.items() for number, name in names.items()}


def _walk(value: Any, path: Path) -> Iterator[Item]:
    kind = kind_of(value) if path else None
    if kind is not None:
        yield Item(path=path, kind=kind, value=value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, (str, int)):
                yield from _walk(item, (*path, key))
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index))
