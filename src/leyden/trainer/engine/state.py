"""`RunState`: where a run stands, all of it. Nothing is inferred from counters.

A save may happen in any hook. What it writes is the *seam* it lies in: the phase, and which callees of the running hook
were called already (the saver included) and which come yet. A resumed run enters at that seam and calls the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from leyden.core.errors import CorruptDataError
from leyden.trainer.engine.clock import Clock

FORMAT = 1
Calls = tuple[tuple[str, Callable[..., Any]], ...]
"""The callees of one hook: `(id, call)`, in order."""


class Phase(StrEnum):
    """Where in `fit` a run stands, in the order of the loop."""

    TRAIN_START = "train_start"
    EPOCH_START = "epoch_start"
    BATCH = "batch"
    BATCH_END = "batch_end"
    VALIDATION = "validation"
    AFTER_VALIDATION = "after_validation"
    EPOCH_END = "epoch_end"
    TRAIN_END = "train_end"
    MID_BATCH = "mid_batch"


class EvalPhase(StrEnum):
    """Where in an evaluation a run stands."""

    START = "start"
    EPOCH_START = "epoch_start"
    BATCH = "batch"
    BATCH_END = "batch_end"
    EPOCH_END = "epoch_end"
    END = "end"


@dataclass(slots=True)
class EvalPosition:
    """The position inside an evaluation: the batch in progress of the loader in progress."""

    phase: EvalPhase = EvalPhase.START
    loader: int = 0
    batch: int = 0


@dataclass(slots=True)
class RunState:
    """The position of a run.

    Args:
        clock: The counters.
        fn: The entry point: fit, validate, test, predict.
        phase: Where in the training loop.
        stepped: Whether an optimizer stepped in the batch in progress.
        micro: Micro-batches accumulated since the last step.
        last_batch: Whether the batch in progress is its epoch's last.
        eval: The position in the evaluation that runs, if one does.
        eval_rows: Stage → step rows written per loader.
        triggers: Trigger → when it last fired.
        should_stop: Whether the run ends at the next occasion.
        skipped_steps: Steps that the gradient scaler left out.
        saves: Checkpoints written, over all attempts.
        finished_batches: Those of the latest epoch that is over; shown only.
        calls: The callees of the hook that runs.
        callee: The one of them that runs.
        has_failed: Whether an exception ended that one, so that it comes yet.
    """

    clock: Clock = field(default_factory=Clock)
    fn: str = "fit"
    phase: Phase = Phase.TRAIN_START
    stepped: bool = False
    micro: int = 0
    last_batch: bool = False
    eval: EvalPosition | None = None
    eval_rows: dict[str, list[int]] = field(default_factory=dict)
    triggers: dict[str, float] = field(default_factory=dict)
    should_stop: bool = False
    skipped_steps: int = 0
    saves: int = 0
    finished_batches: int = 0
    calls: Calls = ()
    callee: str = ""
    has_failed: bool = False

    def split(self) -> tuple[list[str], list[str]]:
        """Return the callees of the running hook that were called, the one that runs included, and those that come yet."""
        ids = [name for name, _ in self.calls]
        at = ids.index(self.callee) + (not self.has_failed) if self.callee in ids else 0
        return ids[:at], ids[at:]

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain values."""
        position = self.eval
        done, left = self.split()
        return {
            "v": FORMAT,
            "fn": self.fn,
            "phase": str(self.phase),
            "done": done,
            "left": left,
            **self.clock.state_dict(),
            "micro": self.micro,
            "stepped": self.stepped,
            "last_batch": self.last_batch,
            "eval": {"loader": position.loader, "batch": position.batch, "phase": str(position.phase)} if position else None,
            "eval_rows": {stage: list(rows) for stage, rows in self.eval_rows.items()},
            "triggers": dict(self.triggers),
            "should_stop": self.should_stop,
            "skipped_steps": self.skipped_steps,
            "saves": self.saves,
        }

    def load_state_dict(self, state: dict[str, Any]) -> frozenset[str]:
        """Take over a position and return the callees of its hook that come yet.

        Raises:
            CorruptDataError: It is no position, or one of a newer version.
        """
        if state.get("v") != FORMAT or state.get("phase") not in set(Phase):
            raise CorruptDataError(f"run_state has v={state.get('v')!r} and phase={state.get('phase')!r}; this version reads v={FORMAT}.")
        self.clock.load_state_dict(state)
        self.phase = Phase(state["phase"])
        self.micro, self.stepped, self.last_batch = int(state["micro"]), bool(state["stepped"]), bool(state["last_batch"])
        position = state.get("eval")
        self.eval = EvalPosition(EvalPhase(position["phase"]), int(position["loader"]), int(position["batch"])) if position else None
        self.eval_rows = {str(stage): list(rows) for stage, rows in state.get("eval_rows", {}).items()}
        self.triggers = dict(state.get("triggers", {}))
        self.should_stop = bool(state.get("should_stop", False))
        self.skipped_steps, self.saves = int(state.get("skipped_steps", 0)), int(state.get("saves", 0))
        return frozenset(state.get("left", ()))


def remaining(calls: Calls, left: frozenset[str] | None) -> Calls:
    """Return the callees that come yet; `None` is all of them. Callees that the saved run did not have are none of them.

    Example:
        >>> [name for name, _ in remaining((("a", print), ("b", print)), frozenset(["b", "gone"]))]
        ['b']
    """
    return calls if left is None else tuple(entry for entry in calls if entry[0] in left)
