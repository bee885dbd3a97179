"""Where a loop stands in its data: pure bookkeeping, without a loader, a sampler or a file.

A cursor counts what was **delivered** to the loop, not what workers have read ahead. `epoch` is the one that runs, or
that comes next where none runs; a position inside it survives `state_dict` → `load_state_dict` once: the next `begin`
goes on there, and every later one starts a new epoch, as does one after a loop was left by `break`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from leyden.core.errors import ConfigError, StateError, listed

Kind = Literal["map", "replay", "iterable", "stateful"]
"""How a loader finds its place again: by index arithmetic, by drawing its index lists again, by reading again, or itself."""

KINDS = ("map", "replay", "iterable", "stateful")
FORMAT = 1


@dataclass(slots=True, kw_only=True)
class Cursor:
    """The position of one loader: epoch, batches of this rank, samples of all ranks.

    Args:
        kind: How the loader finds its place again.
        length: The number of samples of an epoch, where it is known.
        global_batch: Samples of a batch over all ranks, where it is known.
        seed: What the order and the workers' streams are derived from.
        world_size: The number of data-parallel ranks.

    Example:
        >>> cursor = Cursor(kind="map", length=10, global_batch=4)
        >>> cursor.begin(), cursor.advance(4)
        (False, None)
        >>> other = Cursor(kind="map", length=10, global_batch=2)
        >>> other.load_state_dict(cursor.state_dict()), other.begin(), other.samples
        (True, True, 4)
    """

    kind: Kind
    length: int | None = None
    global_batch: int | None = None
    seed: int | None = None
    world_size: int = 1
    epoch: int = 0
    batches: int = 0
    samples: int = 0
    run: int = 0  # the number of the latest `begin`: an iterator of an earlier one must not count
    entered: bool = False  # whether `epoch` was begun here, so that the next `begin` goes on to another

    def begin(self) -> bool:
        """Enter an epoch; return whether that is inside one, at `batches` and `samples`."""
        if self.entered:
            self._move_to(self.epoch + 1)
        self.entered = True
        self.run += 1
        return self.batches > 0

    def advance(self, samples: int) -> None:
        """Count a batch that is about to be delivered: `samples` over all ranks."""
        self.batches += 1
        self.samples += samples

    def finish(self) -> None:
        """Leave the epoch by its end."""
        self._move_to(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next one to begin; a resumed position inside this very epoch is kept.

        Raises:
            ConfigError: It is negative.
        """
        if epoch < 0:
            raise ConfigError(f"epoch={epoch}; epochs count from 0.")
        if self.entered or epoch != self.epoch:
            self._move_to(epoch)

    def _move_to(self, epoch: int) -> None:
        self.epoch, self.batches, self.samples, self.entered = epoch, 0, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what it is measured by, as plain values."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "epoch": self.epoch,
            "batches": self.batches,
            "samples": self.samples,
            "length": self.length,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "world_size": self.world_size,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> bool:
        """Take over a position; return `False` where its epoch has to start again.

        Args:
            state: What `state_dict` returned.
            strict: As in `accepts`.

        Raises:
            ConfigError: As `accepts`.
            StateError: As `accepts`. Nothing has changed then.
        """
        keeps = self.accepts(state, strict=strict)
        self.take(state, keep_position=keeps)
        return keeps

    def accepts(self, state: Mapping[str, Any], *, strict: bool = True) -> bool:
        """Return whether a position means something here; nothing is changed.

        Args:
            state: What `state_dict` returned.
            strict: Whether to raise if it does not, instead of a warning and `False`.

        Raises:
            ConfigError: This is not a cursor's state.
            StateError: Other data, another way to find one's place, or another number of ranks or batch size where that matters.
        """
        _check_format(state)
        problem = self._problem(state)
        if problem and strict:
            raise StateError(problem + " Load with strict=False to start that epoch again.")
        if problem:
            warnings.warn(f"{problem} Epoch {state['epoch']} starts again.", stacklevel=3)
        return not problem

    def take(self, state: Mapping[str, Any], *, keep_position: bool) -> None:
        """Move to the state's epoch, and with `keep_position` to the place inside it."""
        self._move_to(state["epoch"])
        if keep_position:
            self.batches, self.samples = state["batches"], state["samples"]
        if state["seed"] is not None and self.seed is not None:
            self.seed = state["seed"]

    def _problem(self, state: Mapping[str, Any]) -> str:
        if state["kind"] != self.kind:
            return (
                f"The loader's saved position is of kind {state['kind']!r}, this loader is of kind {self.kind!r}: its sampler, "
                "its dataset or use_distributed_sampler differs from the saved run's."
            )
        if state["length"] != self.length:
            return f"The dataset had {state['length']} samples when the position was saved and has {self.length} now."
        if self.kind in ("map", "stateful") or not state["batches"]:
            return ""
        here, saved = (self.world_size, self.global_batch), (state["world_size"], state["global_batch"])
        if here == saved:
            return ""
        return (
            f"The position inside epoch {state['epoch']} was saved with {saved[0]} ranks and a global batch of {saved[1]}; here are "
            f"{here[0]} ranks and a global batch of {here[1]}. A loader of kind {self.kind!r} cannot translate that; one with a "
            "plain sequential or shuffling sampler, or with its own state_dict, can."
        )


def _check_format(state: Mapping[str, Any]) -> None:
    if not isinstance(state, Mapping) or "format" not in state or state.get("kind") not in KINDS:
        keys = listed(state) if isinstance(state, Mapping) else repr(state)
        raise ConfigError(f"This is no loader's state: {keys}. Pass what the state_dict() of a loader set up by Fabric returned.")
    if state["format"] != FORMAT:
        raise ConfigError(f"The loader's state has format {state['format']!r}; this version reads {FORMAT}. Use the version that wrote it.")
