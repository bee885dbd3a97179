"""Protocols for what fabric takes by shape, at their documented path."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """Anything that can say and restore its state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state."""
        ...


@runtime_checkable
class Optimizable(Stateful, Protocol):
    """Anything that steps like an optimizer."""

    param_groups: list[dict[Any, Any]]
    defaults: dict[Any, Any]
    state: Any

    def step(self, closure: Any = None) -> Any:
        """Step."""
        ...


@runtime_checkable
class LRScheduler(Stateful, Protocol):
    """Anything that steps like a learning-rate scheduler."""

    optimizer: Any
    base_lrs: list[float]

    def step(self, epoch: int | None = None) -> None:
        """Step."""
        ...
