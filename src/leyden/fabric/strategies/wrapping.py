"""Which submodules become units of their own: gathered and freed together when sharded, recomputed when checkpointed.

A policy is `"auto"` (each repeated block, then the root), `None` (the root alone), a set of classes, a function
`(module, recurse, num_params) -> bool`, or one of torch's wrap policies.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from leyden.core.errors import ConfigTypeError
from leyden.fabric.compilation import repeated_blocks


def units(module: nn.Module, policy: object) -> list[nn.Module]:
    """Return the submodules that `policy` selects, innermost first, without the root.

    Raises:
        ConfigTypeError: The policy is of no accepted kind.
    """
    chosen = {id(child) for child in _selected(module, policy) if child is not module}
    return [child for child in _innermost_first(module) if id(child) in chosen]


def _selected(module: nn.Module, policy: object) -> Iterable[nn.Module]:
    if policy is None:
        return []
    if policy == "auto":
        return repeated_blocks(module)
    if isinstance(policy, type) and issubclass(policy, nn.Module):
        policy = {policy}
    if isinstance(policy, (set, frozenset, list, tuple)) and all(isinstance(cls, type) for cls in policy):
        classes = tuple(policy)
        return [child for child in module.modules() if isinstance(child, classes)]
    run_policy = getattr(policy, "_run_policy", None)
    if run_policy is not None:  # torch's ModuleWrapPolicy and CustomPolicy
        return run_policy(root_module=module, ignored_modules=set(), root_kwargs={})
    if callable(policy):
        return _by_function(module, policy)
    raise ConfigTypeError(
        f"wrap policy {policy!r}: expected 'auto', None, a set of module classes, a function (module, recurse, num_params) -> bool, "
        "or a policy of torch.distributed.fsdp.wrap."
    )


def _by_function(module: nn.Module, policy: Callable[..., bool]) -> list[nn.Module]:
    """Walk as torch's policies expect: ask to recurse first, then bottom-up whether to wrap, counting what is not wrapped yet."""
    count_name = "nonwrapped_numel" if "nonwrapped_numel" in _parameter_names(policy) else "num_params"
    keywords = count_name in _parameter_names(policy)
    chosen: list[nn.Module] = []

    def ask(child: nn.Module, *, recurse: bool, count: int) -> bool:
        return policy(module=child, recurse=recurse, **{count_name: count}) if keywords else policy(child, recurse, count)

    def visit(current: nn.Module) -> int:
        total = sum(parameter.numel() for parameter in current.parameters())
        if ask(current, recurse=True, count=total):
            total -= sum(visit(child) for child in current.children())
        if current is not module and ask(current, recurse=False, count=total):
            chosen.append(current)
            return sum(parameter.numel() for parameter in current.parameters())
        return 0

    visit(module)
    return chosen


def _parameter_names(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return set()


def _innermost_first(module: nn.Module) -> list[nn.Module]:
    seen: set[int] = set()
    order: list[nn.Module] = []

    def visit(current: nn.Module) -> None:
        if id(current) in seen:
            return
        seen.add(id(current))
        for child in current.children():
            visit(child)
        order.append(current)

    visit(module)
    return order
