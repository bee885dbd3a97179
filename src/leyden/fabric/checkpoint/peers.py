"""`Peers`: how the ranks of a save or load talk: a few objects, and errors that reach every rank.

A rank that fails alone must not leave the others in a collective. So each phase runs through `agreed`: one number says
whether a rank failed; only then are errors exchanged, and the failing rank raises its own, the others the same kind naming
that rank. Saves have a group of their own
(`strategy.saving_group`), since the thread of an asynchronous save must not mix its collectives with training's.
"""

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from leyden.core.errors import LeydenError, RemoteError

if TYPE_CHECKING:
    from leyden.fabric.checkpoint.keeper import Keeper

Result = TypeVar("Result")


class Peers:
    """The ranks that enter a save or load together.

    Args:
        rank: This process.
        world_size: How many.
        group: The process group; `None` is the default one.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.world_size = world_size
        self.group = group

    @classmethod
    def of(cls, strategy: "Keeper | None") -> "Peers":
        """Return the peers of a strategy's ranks; alone without one."""
        if strategy is None or strategy.world_size == 1:
            return cls()
        return cls(strategy.global_rank, strategy.world_size, strategy.saving_group)

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value on rank 0, an empty list elsewhere."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def scatter(self, values: list[Any] | None) -> Any:
        """Return this rank's element of rank 0's list."""
        return self.broadcast(values)[self.rank]

    def agreed(self, step: str, function: Callable[[], Result]) -> Result:
        """Run `function` on every rank; if one fails, all raise.

        Args:
            step: What is being done, for the error.
            function: This rank's part; it must not use collectives.

        Raises:
            LeydenError: Another rank failed with one: the same class, naming the rank.
            RemoteError: Another rank failed with something else; carries its traceback.
        """
        if self.world_size == 1:
            return function()
        result: Any = None
        failure: Exception | None = None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - the boundary of a rank's part: raised below, after the others know
            failure = error
        if not self._is_true_anywhere(failure is not None):
            return result
        failures = self.all_gather(None if failure is None else _described(failure))
        if failure is not None:
            raise failure
        for rank, described in enumerate(failures):
            if described is not None:
                raise _error(step, rank, *described)
        return result

    def _is_true_anywhere(self, own: bool) -> bool:  # noqa: FBT001 - private
        has_cpu = "cpu:" in str(dist.get_backend_config(self.group))
        flag = torch.tensor([int(own)], device="cpu" if has_cpu else torch.accelerator.current_accelerator())
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.group)
        return bool(flag.item())


def _described(error: Exception) -> tuple[type[LeydenError] | None, str, str]:
    kind = type(error) if isinstance(error, LeydenError) and type(error).__module__ == "leyden.core.errors" else None
    return kind, f"{error}" if kind else f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def _error(step: str, rank: int, kind: type[LeydenError] | None, message: str, remote_traceback: str) -> LeydenError:
    text = f"rank {rank} failed to {step}: {message}"
    return kind(text) if kind is not None and not issubclass(kind, RemoteError) else RemoteError(text, remote_traceback)
