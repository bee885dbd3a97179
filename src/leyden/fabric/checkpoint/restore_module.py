"""A saved module goes into a live one: names and shapes compared first, then bytes straight into the parameters.

Reading into the live tensors needs no second copy of the model. A module that overrides how it loads (hooks, extra state)
gets its `load_state_dict` instead, with what it had kept aside until it has succeeded.
"""

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from leyden.core.errors import ConfigError, StateError
from leyden.fabric.checkpoint.items import Item
from leyden.fabric.checkpoint.saved import FileTensor, SavedModule, SavedTensor, fill, is_dtensor
from leyden.fabric.checkpoint.tree import plain_name
from leyden.fabric.names import class_name

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.keeper import Keeper

_SHOWN = 10


def module_action(
    item: Item, saved: SavedModule, strategy: "Keeper | None", *, where: str, is_strict: bool
) -> tuple[Callable[[], None], Callable[[], None] | None]:
    """Return what loads a module, and what undoes it if it runs the module's own code.

    Raises:
        ConfigError: Names or shapes do not fit.
        CorruptDataError: The files do not hold what they should.
    """
    module: nn.Module = item.value
    live = strategy.get_module_state_dict(module) if strategy is not None else module.state_dict()
    for value in saved.values.values():
        if isinstance(value, FileTensor):
            value.check()
    if not _loads_plainly(module):
        return _own_code(module, live, saved, strategy, is_strict=is_strict)
    pairs = _pairs(live, saved, f"{class_name(module)} (state[{item.key!r}])", where, is_strict=is_strict)
    if any(target.is_meta for target, _ in pairs):
        raise StateError(
            f"state[{item.key!r}] has parameters on the meta device, which hold nothing to load into. Set it up first, or build it "
            "with fabric.init_module(empty_init=False)."
        )

    def load() -> None:
        for target, value in pairs:
            fill(target, value)

    return load, None


def _pairs(live: Mapping[str, Any], saved: SavedModule, what: str, where: str, *, is_strict: bool) -> list[tuple[Tensor, SavedTensor]]:
    """Return live tensor → saved tensor for every name that both have and whose shapes agree."""
    by_name = {plain_name(name): value for name, value in live.items()}
    common = [name for name in by_name if name in saved.values]
    misshaped = [name for name in common if _shape(by_name[name]) != _shape(saved.values[name])]
    if is_strict:
        missing = [name for name in by_name if name not in saved.values]
        unexpected = [name for name in saved.values if name not in by_name]
        if missing or unexpected or misshaped:
            shapes = {name: (_shape(by_name[name]), _shape(saved.values[name])) for name in misshaped}
            raise ConfigError(_difference(what, where, missing, unexpected, shapes))
    return [(by_name[name], saved.values[name]) for name in common if name not in misshaped and isinstance(by_name[name], Tensor)]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, (Tensor, SavedTensor)) else None


def _difference(what: str, where: str, missing: list[str], unexpected: list[str], shapes: Mapping[str, tuple[Any, Any]]) -> str:
    lines = [f"{what} does not fit {where}; nothing was changed."]
    for title, names in (("missing in the checkpoint", missing), ("unexpected in the checkpoint", unexpected)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"  {title}: {', '.join(names[:_SHOWN])}{more}")
    for name, (wanted, found) in list(shapes.items())[:_SHOWN]:
        lines.append(f"  {name}: the module has shape {wanted}, the checkpoint {found}")
    if len(shapes) > _SHOWN:
        lines.append(f"  … and {len(shapes) - _SHOWN} more shapes")
    lines.append(f"  {_hint(missing, unexpected)}")
    return "\n".join(lines)


def _hint(missing: list[str], unexpected: list[str]) -> str:
    if prefix := _prefix(missing, unexpected):
        return f"The checkpoint's names begin with {prefix!r}: load into the wrapper that was saved, or convert the file."
    if prefix := _prefix(unexpected, missing):
        return f"The module's names begin with {prefix!r}: pass what it wraps, such as state = {{'model': model.{prefix.rstrip('.')}}}."
    ours, theirs = _common_prefix(missing), _common_prefix(unexpected)
    if missing and {name.removeprefix(ours) for name in missing} == {name.removeprefix(theirs) for name in unexpected}:
        return f"The checkpoint's names begin with {theirs!r} where the module's begin with {ours!r}: build it under the saved names."
    return "Build the module with the configuration it was saved with, or pass strict=False to load what fits."


def _prefix(names: list[str], longer: list[str]) -> str | None:
    """Return what `longer` has before each of `names`, of any number of levels; `None` if there is no such prefix."""
    if not names:
        return None
    found = set(longer)
    prefixes = [name.removesuffix(names[0]) for name in longer if name.endswith(f".{names[0]}")]
    return next((prefix for prefix in sorted(prefixes, key=len) if all(prefix + name in found for name in names)), None)


def _common_prefix(names: list[str]) -> str:
    """Return the levels with which all names begin, the last dot included."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)  # as many as the shortest has
    return "".join(f"{level[0]}." for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _loads_plainly(module: nn.Module) -> bool:
    """Return whether loading this module means copying tensors of the same names, and nothing else."""
    return all(_is_plain(part) for part in module.modules())


def _is_plain(part: nn.Module) -> bool:
    kind = type(part)
    tensors = (*part._parameters.values(), *part._buffers.values())
    hooks = (*part._load_state_dict_pre_hooks.values(), *part._load_state_dict_post_hooks.values())
    return (
        kind.load_state_dict is nn.Module.load_state_dict
        and kind.set_extra_state is nn.Module.set_extra_state
        and _defined_by_torch(kind._load_from_state_dict)
        and all(_defined_by_torch(getattr(hook, "hook", hook)) for hook in hooks)
        and not any(isinstance(value, _UNINITIALIZED) for value in tensors)
    )


def _defined_by_torch(function: Any) -> bool:
    module = getattr(function, "__module__", "") or ""
    return module in _COPYING or module.startswith("torch.distributed.")


_UNINITIALIZED = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
_COPYING = ("torch.nn.modules.module", "torch.nn.modules.batchnorm", "torch.nn.modules.instancenorm")


def _own_code(
    module: nn.Module, live: Mapping[str, Any], saved: SavedModule, strategy: "Keeper | None", *, is_strict: bool
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return how a module that loads by code of its own is loaded, and how that is undone."""
    by_plain = {plain_name(name): name for name in live}
    before: dict[str, Any] = {}

    def load() -> None:
        before.update({name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in live.items()})
        state = {by_plain.get(name, name): _value_for(live.get(by_plain.get(name, name)), value) for name, value in saved.values.items()}
        try:
            _load(module, state, strategy, is_strict=is_strict)
        except RuntimeError as error:  # torch names what is missing, unexpected or mis-shaped
            raise ConfigError(f"{error}\nNothing was changed. Pass strict=False to load what fits.") from error

    def undo() -> None:
        if before:
            _load(module, before, strategy, is_strict=False)

    return load, undo


def _load(module: nn.Module, state: dict[str, Any], strategy: "Keeper | None", *, is_strict: bool) -> None:
    if strategy is not None:
        strategy.load_module_state_dict(module, state, strict=is_strict)
    else:
        module.load_state_dict(state, strict=is_strict)


def _value_for(live: Any, value: Any) -> Any:
    """Return a saved value as the module's loader wants it: sharded as the live tensor is, else whole."""
    if not isinstance(value, SavedTensor):
        return value
    if isinstance(live, Tensor) and is_dtensor(live) and tuple(live.shape) == value.shape:
        target = live.detach().clone()
        fill(target, value)
        return target
    return value.load()
