"""`Position`, and the state of a dataset: integers and names, the same for any number of workers."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from leyden.core.errors import ConfigError, ConflictError, StateError
from leyden.data.read.iteration import Share

FORMAT = 1
_KEYS = {"current_epoch", "consumed", "within", "dataset", "order"}
_DATA = ("digest", "selection", "num_rows", "block_size")
_ORDER = ("seed", "shuffle", "lanes", "window")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a rank stands.

    Args:
        epoch: In which epoch.
        consumed: The global position at which its current iteration began.
        within: Samples of this rank that are skipped from there.
        handed_out: How many it has handed out since.
    """

    epoch: int
    consumed: int = 0
    within: int = 0
    handed_out: int = 0

    def advanced(self, count: int) -> "Position":
        """Return the position after some more samples."""
        return replace(self, handed_out=self.handed_out + count)

    def after(self, samples: int, share: Share, num_workers: int, batch_size: int) -> "Position":
        """Return the position after so many samples, handed out by workers of torch's loader.

        Raises:
            StateError: These samples are no beginning of the order.
        """
        is_in_order = num_workers <= 1 or share.batch_size == batch_size
        if not is_in_order and samples % (num_workers * batch_size):
            raise StateError(
                f"num_samples_yielded={samples} of {num_workers} workers with batch_size={batch_size} is no beginning of the order: each "
                f"worker has a share of its own. Pass StreamingDataset(batch_size={batch_size}), so that they take turns."
            )
        return replace(self, handed_out=samples)

    def dropped_for(self, epoch: int) -> None:
        """Warn that a loaded position is not gone on from."""
        warnings.warn(
            f"set_epoch({epoch}): the loaded position is of epoch {self.epoch}, and is dropped. Call set_epoch({self.epoch}) to go on.",
            stacklevel=3,
        )


def state_of(position: Position, share: Share, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a position."""
    steps, within = divmod(position.within + position.handed_out, share.batch_size)
    return {
        "format": FORMAT,
        "rank_invariant": within == 0,
        "current_epoch": position.epoch,
        "consumed": position.consumed + steps * share.size,
        "within": within,
        "num_samples_yielded": position.within + position.handed_out,
        "global_batch_size": share.size,
        "mixture": None,
        **identity,
    }


def recognised(state: Any) -> Mapping[str, Any]:
    """Return a state, if it is one of ours.

    Raises:
        ConfigError: It is not.
    """
    told = f"its keys are {sorted(map(str, state))}" if isinstance(state, Mapping) else f"it is {state!r:.80}"
    if not isinstance(state, Mapping) or state.get("format") != FORMAT or not set(state) >= _KEYS:
        raise ConfigError(f"this is no state of a dataset of Leyden: {told}. Pass what state_dict() returned.")
    return state


def checked_state(state: Mapping[str, Any], identity: Mapping[str, Any], *, is_forced: bool) -> tuple[Position, dict[str, Any]]:
    """Return the position of a state, and the order's values that it changes.

    Args:
        state: What was saved.
        identity: What this dataset is.
        is_forced: Whether the dataset's own values of the order win.

    Raises:
        ConfigError: It is no state of ours.
        ConflictError: It is of other data.
    """
    known = recognised(state)
    theirs, ours = known["dataset"], identity["dataset"]
    if not isinstance(theirs, Mapping):
        raise ConflictError(f"the state is of {len(theirs)} datasets that were read together, and this is one.")
    wrong = {
        name: (theirs.get(name), ours[name]) for name in ("digest", "selection", "num_rows", "block_size") if theirs.get(name) != ours[name]
    }
    if wrong:
        told = ", ".join(f"{name}: {before!r} then, {now!r} now" for name, (before, now) in wrong.items())
        raise ConflictError(
            f"the state is of other data ({told}). Open the same data: StreamingDataset(…, version={theirs.get('version')}), with the same "
            "subset and block_size."
        )
    changes = order_changes(state["order"], identity["order"], is_forced=is_forced)
    position = Position(epoch=state["current_epoch"], consumed=state["consumed"], within=state["within"])
    return position, changes


def order_changes(theirs: Mapping[str, Any], ours: Mapping[str, Any], *, is_forced: bool) -> dict[str, Any]:
    """Return which values of the order a saved state changes, with a warning.

    Args:
        theirs: The order in the state.
        ours: The dataset's.
        is_forced: Whether the dataset's own win.
    """
    differing = {name: theirs[name] for name in (*_ORDER, "order") if theirs[name] != ours[name]}
    if is_forced or not differing:
        return {}
    told = ", ".join(f"{name}={value!r}, not {ours[name]!r}" for name, value in differing.items())
    warnings.warn(
        f"the state's order wins over the arguments given here: {told}. force_override_state_dict=True keeps those.", stacklevel=4
    )
    return {"kind" if name == "order" else name: value for name, value in differing.items()}
