"""Bringing home what happened in started processes: rank 0 sends weights, callbacks' states and metrics to the parent."""

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from leyden.core.errors import StateError
from leyden.fabric.launch.children import LEFT_ON_PURPOSE
from leyden.fabric.launch.function import FunctionLauncher, unshare
from leyden.trainer.engine.clock import Clock
from leyden.trainer.engine.stop import SIGTERMException
from leyden.trainer.trainer.states import TrainerStatus

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
        exit_code: What the ranks left with, if they left early.
    """

    weights: str | None = None
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    metrics: Metrics = field(default_factory=_no_metrics)
    clock: Clock = field(default_factory=Clock)
    status: Any = None
    exit_code: int | None = None


def launch(trainer: Any, launcher: FunctionLauncher, work: Callable[[], Any]) -> Any:
    """Run `work` in processes that the launcher starts, take over what happened there, and return rank 0's result.

    Raises:
        SystemExit: The ranks left by one: with 143 after SIGTERM, with 75 to be started again.
        StateError: Rank 0 left without a word.
    """
    with relayed(launcher) as relay:
        shipped = launcher.launch(run_and_pack, trainer, work)
    if shipped is None:
        trainer.note_status(TrainerStatus.INTERRUPTED)
        if relay.has_terminated:
            raise SIGTERMException
        raise StateError("Rank 0 left without a result. This usually occurs when something in it calls `os._exit`.")
    result, parcel = shipped
    unpack(trainer, parcel)
    if parcel.exit_code == SIGTERMException().code:
        raise SIGTERMException
    if parcel.exit_code is not None:
        raise SystemExit(parcel.exit_code)
    return result


class Relay:
    """Hands SIGTERM on to the ranks, which agree on when to stop; this process, which is no rank, waits for them."""

    def __init__(self, launcher: FunctionLauncher) -> None:
        self._launcher = launcher
        self.has_terminated = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.has_terminated = True
        self._launcher.send(number)


@contextlib.contextmanager
def relayed(launcher: FunctionLauncher) -> Iterator[Relay]:
    """Hand SIGTERM on to the launcher's ranks meanwhile, where Python lets us: in the main thread."""
    relay = Relay(launcher)
    if threading.current_thread() is not threading.main_thread():
        yield relay
        return
    before = signal.signal(signal.SIGTERM, relay)
    try:
        yield relay
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def run_and_pack(trainer: Any, work: Callable[[], Any]) -> tuple[Any, Parcel]:
    """Run `work` in this rank, and pack what its parent wants to know."""
    unshare(trainer.lightning_module)
    trainer.strategy.setup_environment()
    trainer.note_launched()
    try:
        result = work()
    except KeyboardInterrupt:
        raise
    except SystemExit as leaving:
        code = leaving.code or 0
        if not isinstance(code, int) or code not in LEFT_ON_PURPOSE:
            raise
        return None, Parcel(status=TrainerStatus.INTERRUPTED, exit_code=code)  # no weights: perhaps only this rank leaves
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
    trainer.note_status(parcel.status)
    if parcel.exit_code is not None:
        return
    trainer.fit_state.clock = parcel.clock
    trainer.take_shipped_metrics(parcel.metrics)
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
