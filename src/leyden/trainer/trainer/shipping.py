"""Bringing home what happened in started processes: rank 0 sends weights, callbacks' states and metrics to the parent."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from leyden.trainer.engine.clock import Clock

Metrics = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def _no_metrics() -> Metrics:
    return {}, {}, {}


@dataclass
class Parcel:
    """What the parent takes over.

    Args:
        weights: A file with the module's state dict; too much for a pipe.
        callbacks: Each callback's attributes that can be sent.
        metrics: The three dictionaries.
        clock: The counters.
        status: How it went.
    """

    weights: str | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=_no_metrics)
    clock: Clock = field(default_factory=Clock)
    status: Any = None


def run_and_pack(trainer: Any, work: Callable[[], Any]) -> tuple[Any, Parcel]:
    """Run `work` in this rank, and pack what its parent wants to know."""
    trainer.strategy.setup_environment()
    trainer.note_launched()
    result = work()
    return result, pack(trainer)


def pack(trainer: Any) -> Parcel:
    """Return the parcel; every rank calls it, because sharded weights are gathered."""
    run = trainer.run
    weights = run.strategy.get_module_state_dict(run.module)
    weights = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in weights.items()}
    parcel = Parcel(clock=run.clock, status=trainer.state.status)
    parcel.clock.stop()
    parcel.callbacks = [_sendable(callback.state_dict()) for callback in trainer.callbacks]
    parcel.metrics = (dict(trainer.callback_metrics), dict(trainer.logged_metrics), dict(trainer.progress_bar_metrics))
    if trainer.is_global_zero:
        with tempfile.NamedTemporaryFile(suffix=".weights.pt", delete=False) as file:
            torch.save({name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in weights.items()}, file)
        parcel.weights = file.name
    return parcel


def unpack(trainer: Any, parcel: Parcel) -> None:
    """Take over a parcel in the parent."""
    trainer.fit_state.clock = parcel.clock
    trainer.take_shipped_metrics(parcel.metrics)
    trainer.note_status(parcel.status)
    for callback, state in zip(trainer.callbacks, parcel.callbacks, strict=False):
        if state:
            callback.load_state_dict(state)
    if parcel.weights is not None:
        path = Path(parcel.weights)
        module = trainer.lightning_module
        if module is not None:
            module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"), strict=False)
        path.unlink()


def _sendable(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in state.items()}
