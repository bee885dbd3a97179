"""Metric objects, known by their methods: `update`, `compute`, `reset`. No package of metrics is imported or needed.

Their state is read through the public mapping `metric_state` and `update_count`, else through `state_dict`. Where an object
has neither, values of an epoch that was cut by a resume count only what came after it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from leyden.core.errors import ConfigError
from leyden.fabric.rank_zero import rank_zero_warn


def is_metric(value: Any) -> bool:
    """Return whether `value` is an object with `update`, `compute` and `reset`."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def computed(metric: Any, name: str) -> Tensor:
    """Return `metric.compute()`.

    Raises:
        ConfigError: That is no tensor of one element.
    """
    value = metric.compute()
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ConfigError(
            f"`self.log({name!r}, {type(metric).__name__}())`: what `compute()` returns must be a tensor of one element, and it is {got}. "
            "Log its parts: self.log_dict(metric.compute())."
        )
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def check_metric(metric: Any, attribute: str | None, module: nn.Module | None, name: str) -> None:
    """Check that the module knows the metric, so that its state moves and is saved with it.

    Raises:
        ConfigError: It does not, or not under that name.
    """
    if module is None:
        return
    paths = [path for path, found in find_metrics(module) if found is metric]
    if attribute is not None and attribute not in paths:
        known = ", ".join(path for path, _ in find_metrics(module)) or "none"
        raise ConfigError(
            f"`self.log({name!r}, ..., metric_attribute={attribute!r})`: could not find the `LightningModule` attribute of that name "
            f"for this metric. The module's metrics are: {known}."
        )
    if not paths:
        raise ConfigError(
            f"`self.log({name!r}, {type(metric).__name__}())`: could not find the `LightningModule` attribute for this metric. "
            f"Make it one in `__init__`: self.{name.replace('/', '_')} = {type(metric).__name__}(...)."
        )


def find_metrics(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the metric objects among a module's parts and plain attributes, each under the path it has there."""
    for path, part in module.named_modules(remove_duplicate=False):
        if part is not module and is_metric(part):
            yield path, part
        for name, value in vars(part).items():
            if not name.startswith("_") and not isinstance(value, nn.Module) and is_metric(value):
                yield f"{path}.{name}" if path else name, value


def metric_states(module: nn.Module) -> dict[str, Any]:
    """Return the states of this rank's metric objects by path."""
    states: dict[str, Any] = {}
    seen: set[int] = set()
    for path, metric in find_metrics(module):
        if isinstance(metric, nn.ModuleDict) or id(metric) in seen:  # a collection's members come by themselves
            continue
        seen.add(id(metric))
        if (state := _state_of(metric)) is not None:
            states[path] = state
        else:
            rank_zero_warn(
                f"The metric {path!r} ({type(metric).__name__}) has neither `metric_state` nor `state_dict`, so its state is not saved: "
                "after a resume inside an epoch, the values of that epoch count only what came after it."
            )
    return states


def load_metric_states(module: nn.Module, states: Mapping[str, Any]) -> None:
    """Give the metric objects back what `metric_states` returned; those that are gone are left out."""
    for path, metric in find_metrics(module):
        if path in states:
            _load_state(metric, states[path])


def _state_of(metric: Any) -> dict[str, Any] | None:
    state = getattr(metric, "metric_state", None)
    if isinstance(state, Mapping):
        values = {name: _copy(value) for name, value in state.items()}
        return {"kind": "metric_state", "values": values, "updates": int(getattr(metric, "update_count", 0))}
    if callable(get := getattr(metric, "state_dict", None)) and callable(getattr(metric, "load_state_dict", None)):
        return {"kind": "state_dict", "values": {name: _copy(value) for name, value in get().items()}}
    return None


def _load_state(metric: Any, state: Mapping[str, Any]) -> None:
    device = getattr(metric, "device", None)
    values = {name: _copy(value, device) for name, value in state["values"].items()}
    if state["kind"] == "state_dict":
        metric.load_state_dict(values)
        return
    for name, value in values.items():
        setattr(metric, name, value)
    if hasattr(metric, "_update_count"):  # what `update_count` reads; there is no public way to set it
        metric._update_count = state["updates"]
        metric._computed = None


def _copy(value: Any, device: Any = "cpu") -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    return [_copy(item, device) for item in value] if isinstance(value, (list, tuple)) else value
