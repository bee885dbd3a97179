"""A saved optimizer goes into a live one, whatever mesh and whatever form it was saved in.

Sharded checkpoints know parameters by name, torch's own form by number. Where both sides have names they are matched by
name (another order of parameters is no difference), else by position. Tensors of a parameter's shape become `DTensor`s
like the parameter where that is sharded; each rank reads its box only.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from leyden.core.errors import ConfigError
from leyden.fabric.checkpoint.items import Item
from leyden.fabric.checkpoint.saved import FileTensor, SavedGroup, SavedOptimizer, SavedTensor, fill
from leyden.fabric.checkpoint.tree import mapped

_SHOWN = 10
# States that torch's optimizers keep per element of a parameter; others (Adafactor's rows) have shapes of their own.
_LIKE_PARAMETERS = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "sum",
        "acc_delta",
        "exp_inf",
        "prev",
        "step_size",
    }
)


def optimizer_action(item: Item, saved: SavedOptimizer, names: Mapping[int, str], *, where: str, is_strict: bool) -> Callable[[], None]:
    """Return what loads an optimizer.

    Args:
        item: The live optimizer and its key.
        saved: What was saved.
        names: The name of each of its parameters by `id`, as far as known.
        where: The checkpoint, for errors.
        is_strict: Whether every parameter must be found.

    Raises:
        ConfigError: Groups, parameters or shapes do not fit.
    """
    optimizer: Optimizer = item.value
    what = f"{type(optimizer).__name__} (state[{item.key!r}])"
    members = _matched(optimizer, saved, names, what, where, is_strict=is_strict)
    _check_shapes(members, saved, names, what, where)
    for values in saved.state.values():
        for value in values.values():
            if isinstance(value, FileTensor):
                value.check()
    groups_of = {member: group for group in saved.groups for member in group.members}

    def load() -> None:
        state: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        number = 0
        for live, wanted in zip(optimizer.param_groups, members, strict=True):
            numbers = list(range(number, number + len(wanted)))
            number += len(wanted)
            groups.append({**_options(live, wanted, groups_of), "params": numbers})
            for at, (parameter, member) in zip(numbers, wanted, strict=True):
                if member is not None and member in saved.state:
                    current = optimizer.state.get(parameter, {})
                    state[at] = {name: _value(value, parameter, current.get(name)) for name, value in saved.state[member].items()}
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    return load


Members = list[list[tuple[Tensor, str | int | None]]]


def _matched(optimizer: Optimizer, saved: SavedOptimizer, names: Mapping[int, str], what: str, where: str, *, is_strict: bool) -> Members:
    """Return, group by group, each live parameter with its name or number in the checkpoint."""
    live = [group["params"] for group in optimizer.param_groups]
    flat = [parameter for group in live for parameter in group]
    if saved.by_name and all(id(parameter) in names for parameter in flat):
        known = set(saved.members)
        missing = [names[id(parameter)] for parameter in flat if names[id(parameter)] not in known]
        unexpected = sorted(str(member) for member in known - {names[id(parameter)] for parameter in flat})
        if is_strict and (missing or unexpected):
            raise ConfigError(
                f"{what} does not fit {where}; nothing was changed. Parameters missing there: {', '.join(missing[:_SHOWN]) or 'none'}; "
                f"unexpected: {', '.join(unexpected[:_SHOWN]) or 'none'}. Give the optimizer the parameters it was saved with."
            )
        return [[(parameter, names[id(parameter)] if names[id(parameter)] in known else None) for parameter in group] for group in live]
    sizes, saved_sizes = [len(group) for group in live], [len(group.members) for group in saved.groups]
    if sizes == saved_sizes:
        return [list(zip(group, of.members, strict=True)) for group, of in zip(live, saved.groups, strict=True)]
    if sum(sizes) == sum(saved_sizes) and saved.by_name:  # grouped otherwise, but the same parameters in the same order
        order = iter(saved.members)
        return [[(parameter, next(order)) for parameter in group] for group in live]
    if is_strict:
        raise ConfigError(
            f"{what} has groups of {sizes} parameters, {where} of {saved_sizes}; nothing was changed. "
            "Build the optimizer as it was saved, or pass strict=False to start it anew."
        )
    return [[(parameter, None) for parameter in group] for group in live]


def _check_shapes(members: Members, saved: SavedOptimizer, names: Mapping[int, str], what: str, where: str) -> None:
    """Refuse a state tensor that can only belong to another parameter: as many dimensions, but of another shape."""
    wrong = []
    for parameter, member in (pair for group in members for pair in group):
        for name, value in saved.state.get(member, {}).items() if member is not None else ():
            is_like = isinstance(value, SavedTensor) and len(value.shape) == parameter.ndim > 0 and name in _LIKE_PARAMETERS
            if is_like and value.shape != tuple(parameter.shape):
                wrong.append(f"{names.get(id(parameter), member)}.{name}: {tuple(parameter.shape)}, in the checkpoint {value.shape}")
    if wrong:
        raise ConfigError(f"{what} does not fit {where}; nothing was changed. Shapes: {'; '.join(wrong[:_SHOWN])}. Is it the same model?")


def _options(
    live: Mapping[str, Any], wanted: list[tuple[Tensor, str | int | None]], groups_of: Mapping[str | int, SavedGroup]
) -> dict[str, Any]:
    found = next((groups_of[member] for _, member in wanted if member is not None and member in groups_of), None)
    options = {name: value for name, value in live.items() if name != "params"}
    if found is None:
        return options
    return {name: value for name, value in options.items() if name == "param_names"} | dict(found.options)


def _value(value: Any, parameter: Tensor, current: Any) -> Any:
    """Return a saved state value for a parameter, in the tensor it is in now where that fits."""
    if not isinstance(value, SavedTensor):
        return mapped(value, lambda tensor, _path: tensor.clone())  # it may be a map of the file
    if isinstance(current, Tensor) and tuple(current.shape) == value.shape and current.dtype == value.dtype:
        target = current.detach()
    elif value.shape == tuple(parameter.shape) and len(value.shape) > 0:
        target = torch.empty_like(parameter.detach(), dtype=value.dtype)
    else:
        return value.load()
    fill(target, value)
    return target
